// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What somebody sees who looks at a scanout.

use thiserror::Error;

use crate::error::GuestError;
use crate::geometry::Rect;
use crate::pixel::{Frame, Image};
use crate::renderer::RendererError;

/// How far a viewer has seen one scanout of one device: comes with each [`Picture`], and goes with
/// the viewer's next look. The default has seen nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen(pub(crate) u64);

/// A scanout at the moment of a look, see [`Gpu::look`](crate::Gpu::look).
#[derive(Clone, Debug)]
pub struct Picture<'a> {
    /// Width and height in pixels: of the frame, or of the output itself while it shows none.
    pub size: (u32, u32),
    /// The whole scanout, `None` while it is off.
    pub frame: Option<Frame<'a>>,
    /// Where the frame may differ from the one that this viewer saw last: rectangles inside it,
    /// none empty, at most 16. One is the whole frame if its size or format changed.
    pub damage: Vec<Rect>,
    /// The cursor, `None` while it is hidden.
    pub cursor: Option<CursorImage<'a>>,
    /// Where the cursor's left upper corner is, possibly outside the frame.
    pub cursor_position: (i32, i32),
    /// Whether the cursor may look otherwise than this viewer saw it last.
    pub cursor_changed: bool,
    /// What to look with next time.
    pub seen: Seen,
}

impl Picture<'_> {
    /// A copy for a screenshot, with the cursor if asked; black where the scanout is off.
    pub fn to_image(&self, with_cursor: bool) -> Image {
        let (width, height) = self.size;
        let image = self.frame.as_ref().map(Frame::to_image);
        let mut image = image.unwrap_or_else(|| Image::black(width, height));
        if with_cursor && let Some(cursor) = &self.cursor {
            let (left, top) = self.cursor_position;
            image.blend(&cursor.frame, left.into(), top.into());
        }
        image
    }
}

/// A cursor's shape.
#[derive(Clone, Copy, Debug)]
pub struct CursorImage<'a> {
    /// Its 64 × 64 pixels, colours multiplied by alpha.
    pub frame: Frame<'a>,
    /// Column of the pixel that points.
    pub hot_x: u32,
    /// Row of the pixel that points.
    pub hot_y: u32,
}

/// A picture that could not be brought up to date, by blame. The one before stays:
/// [`Gpu::last_picture`](crate::Gpu::last_picture).
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LookError {
    /// The caller's.
    #[error("there is no scanout {id}")]
    NoSuchScanout {
        /// The scanout.
        id: u32,
    },
    /// The guest's: what it shows has no memory any more.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// The host's: its renderer failed, or is gone.
    #[error(transparent)]
    Renderer(#[from] RendererError),
}
