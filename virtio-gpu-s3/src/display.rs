// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where the pictures go.

use crate::geometry::Rect;
use crate::pixel::{Frame, PixelFormat};

/// What a scanout shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanoutMode {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Order of the components of the frames that follow.
    pub format: PixelFormat,
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

/// A consumer of scanouts: a file, a VNC server, a window.
///
/// Called from within a command, so an implementation copies what it wants and returns; it never
/// blocks on a viewer. A frozen reset calls nothing: the picture stays up while the guest sleeps.
/// There is no default method, so that no display ignores a cursor by accident.
pub trait DisplaySink: Send {
    /// The scanout shows pictures of this mode from now on, or none. Called when that changes.
    fn set_scanout(&mut self, scanout: u32, mode: Option<ScanoutMode>);

    /// `damage`, never empty and inside the frame, has new pixels; `frame` is the whole scanout.
    fn flush(&mut self, scanout: u32, damage: Rect, frame: &Frame<'_>);

    /// The cursor has this shape from now on, or is hidden.
    fn set_cursor(&mut self, scanout: u32, cursor: Option<CursorImage<'_>>);

    /// The cursor's left upper corner is here, possibly outside the scanout.
    fn move_cursor(&mut self, scanout: u32, x: i32, y: i32);
}

/// A display nobody looks at. Screenshots do not need another one.
#[derive(Clone, Copy, Debug, Default)]
pub struct NullDisplay;

impl DisplaySink for NullDisplay {
    fn set_scanout(&mut self, _scanout: u32, _mode: Option<ScanoutMode>) {}

    fn flush(&mut self, _scanout: u32, _damage: Rect, _frame: &Frame<'_>) {}

    fn set_cursor(&mut self, _scanout: u32, _cursor: Option<CursorImage<'_>>) {}

    fn move_cursor(&mut self, _scanout: u32, _x: i32, _y: i32) {}
}
