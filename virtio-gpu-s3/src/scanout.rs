// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Outputs: what each shows, and its cursor.

use crate::command::BlobLayout;
use crate::display::{CursorImage, ScanoutMode};
use crate::geometry::Rect;
use crate::pixel::{Frame, PixelFormat, row_bytes};
use crate::protocol::CURSOR_SIZE;
use crate::resource::{Pixels, Resources};

/// Bytes of a cursor's shape.
pub(crate) const CURSOR_BYTES: usize = 64 * 64 * 4;

#[derive(Debug, Default)]
pub(crate) struct Scanout {
    pub(crate) binding: Option<Binding>,
    pub(crate) cursor: Cursor,
}

/// The part of a resource that a scanout shows.
#[derive(Debug)]
pub(crate) struct Binding {
    pub(crate) resource_id: u32,
    pub(crate) rect: Rect,
    pub(crate) format: PixelFormat,
    pub(crate) blob: Option<BlobPlane>,
    /// True until the first flush.
    pub(crate) stale: bool,
}

/// How a blob is shown: a blob has no picture of its own.
#[derive(Debug)]
pub(crate) struct BlobPlane {
    pub(crate) layout: BlobLayout,
    /// A copy of the scanout's rectangle, refreshed at each flush: the guest may write its memory
    /// at any time, and cannot change a picture that was shown, nor is it read while it sleeps.
    pub(crate) shadow: Pixels,
}

impl Binding {
    pub(crate) fn mode(&self) -> ScanoutMode {
        ScanoutMode {
            width: self.rect.width,
            height: self.rect.height,
            format: self.format,
        }
    }

    /// Continues a binding of the same mode: a blob's picture stays up until it is flushed.
    pub(crate) fn take_over(&mut self, old: Self) {
        let Self {
            resource_id,
            rect,
            format: _,
            blob,
            stale,
        } = old;
        let layout = |plane: &Option<BlobPlane>| plane.as_ref().map(|plane| plane.layout);
        if (resource_id, rect, layout(&blob)) == (self.resource_id, self.rect, layout(&self.blob)) {
            self.stale = stale;
        }
        if let (Some(new), Some(old)) = (&mut self.blob, blob) {
            new.shadow = old.shadow;
        }
    }

    /// Host memory of its own.
    pub(crate) fn host_bytes(&self) -> u64 {
        self.blob
            .as_ref()
            .map_or(0, |plane| plane.shadow.bytes.len() as u64)
    }

    /// What it shows, as it lies in memory.
    pub(crate) fn frame<'a>(&'a self, resources: &'a Resources) -> Option<Frame<'a>> {
        if let Some(plane) = &self.blob {
            return Some(plane.shadow.frame());
        }
        let picture = resources.peek(self.resource_id)?.picture()?;
        picture.frame().part(self.rect)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Cursor {
    pub(crate) shape: Option<CursorShape>,
    pub(crate) x: i32,
    pub(crate) y: i32,
}

/// A copy of the cursor resource as it was at UPDATE_CURSOR, which is when it takes effect.
#[derive(Debug)]
pub(crate) struct CursorShape {
    pub(crate) hot_x: u32,
    pub(crate) hot_y: u32,
    pub(crate) format: PixelFormat,
    pub(crate) pixels: Box<[u8; CURSOR_BYTES]>,
}

impl CursorShape {
    pub(crate) fn image(&self) -> CursorImage<'_> {
        CursorImage {
            frame: Frame {
                width: CURSOR_SIZE,
                height: CURSOR_SIZE,
                stride: row_bytes(CURSOR_SIZE),
                format: self.format,
                pixels: self.pixels.as_slice(),
            },
            hot_x: self.hot_x,
            hot_y: self.hot_y,
        }
    }
}
