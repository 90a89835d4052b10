// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A full-screen dumb buffer on the first connected output of card0.

use std::io;

use drm::buffer::{Buffer, DrmFourcc};
use drm::control::dumbbuffer::DumbBuffer;
use drm::control::{ClipRect, Device as ControlDevice, crtc, framebuffer};
use guest_agent::card::{self, Card, Output};
use guest_agent::pattern;
use guest_agent::protocol::Drawn;

use crate::{Error, file_error};

/// The only size a virtio-gpu cursor has (VIRTIO 1.4 §5.7.6.5).
const CURSOR_SIZE: u32 = 64;

/// A picture on the screen.
#[derive(Debug)]
pub(crate) struct DrmDisplay {
    card: Card,
    buffer: DumbBuffer,
    framebuffer: framebuffer::Handle,
    crtc: crtc::Handle,
    cursor: Option<DumbBuffer>,
    width: u16,
    height: u16,
}

fn display_error(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Display { what, source }
}

impl DrmDisplay {
    /// Sets the first mode of the first connected output, with a black picture.
    pub(crate) fn open() -> Result<Self, Error> {
        let card = Card::open().map_err(file_error("open", card::PATH))?;
        let output = card.output().map_err(display_error("find an output"))?;
        let Output {
            connector,
            crtc,
            mode,
        } = output.ok_or(Error::NoDisplay("no output is connected"))?;
        let (width, height) = mode.size();
        let buffer = card
            .create_dumb_buffer((width.into(), height.into()), DrmFourcc::Xrgb8888, 32)
            .map_err(display_error("create dumb buffer"))?;
        let framebuffer = card
            .add_framebuffer(&buffer, 24, 32)
            .map_err(display_error("add framebuffer"))?;
        card.set_crtc(crtc, Some(framebuffer), (0, 0), &[connector], Some(mode))
            .map_err(display_error("set crtc"))?;
        Ok(Self {
            card,
            buffer,
            framebuffer,
            crtc,
            cursor: None,
            width,
            height,
        })
    }

    /// Fills the screen with picture `seed` and flushes it.
    pub(crate) fn draw(&mut self, seed: u32) -> Result<Drawn, Error> {
        let pitch = usize::try_from(self.buffer.pitch())
            .map_err(|_| Error::NoDisplay("card0 has an impossible pitch"))?;
        let mut mapping = self
            .card
            .map_dumb_buffer(&mut self.buffer)
            .map_err(display_error("map dumb buffer"))?;
        let rows = mapping.chunks_mut(pitch).take(usize::from(self.height));
        for (y, row) in (0u32..).zip(rows) {
            let pixels = pattern::row(seed, y, self.width.into());
            if let Some(visible) = row.get_mut(..pixels.len()) {
                visible.copy_from_slice(&pixels);
            }
        }
        drop(mapping);
        let all = ClipRect::new(0, 0, self.width, self.height);
        self.card
            .dirty_framebuffer(self.framebuffer, &[all])
            .map_err(display_error("flush framebuffer"))?;
        Ok(Drawn {
            width: self.width.into(),
            height: self.height.into(),
        })
    }
    /// Shows a white cursor, at a place that `step` chooses. The first call uploads its image.
    #[expect(
        deprecated,
        reason = "the ioctl that most display servers still move a cursor with"
    )]
    pub(crate) fn move_cursor(&mut self, step: u32) -> Result<(), Error> {
        if self.cursor.is_none() {
            self.cursor = Some(self.show_cursor()?);
        }
        let place = |size: u16, stride: u32| {
            i32::try_from(step.wrapping_mul(stride) % u32::from(size)).unwrap_or(0)
        };
        let position = (place(self.width, 7), place(self.height, 3));
        self.card
            .move_cursor(self.crtc, position)
            .map_err(display_error("move cursor"))
    }

    #[expect(
        deprecated,
        reason = "the ioctl that most display servers still move a cursor with"
    )]
    fn show_cursor(&self) -> Result<DumbBuffer, Error> {
        let mut buffer = self
            .card
            .create_dumb_buffer((CURSOR_SIZE, CURSOR_SIZE), DrmFourcc::Argb8888, 32)
            .map_err(display_error("create cursor"))?;
        self.card
            .map_dumb_buffer(&mut buffer)
            .map_err(display_error("map cursor"))?
            .fill(0xff);
        self.card
            .set_cursor2(self.crtc, Some(&buffer), (0, 0))
            .map_err(display_error("set cursor"))?;
        Ok(buffer)
    }
}
