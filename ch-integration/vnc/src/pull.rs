// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is read from the GPU for the desktop, on the worker's thread: copies, and nothing that waits.

use std::mem;

use virtio_gpu_s3::{CursorImage, Frame, Picture, PixelFormat, Rect, Seen};
use virtio_gpu_worker::GpuAccess;

use crate::desktop::{Cursor, Desktop, Layout, Output, Patch};

/// VIRTIO 1.4 §5.7.4: scanouts that there can be.
const MAX_SCANOUTS: u32 = 16;

/// How far the desktop has seen the outputs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    layout: Layout,
    /// One for each output of the layout.
    seen: Vec<Seen>,
    /// Pulls in a row that left an output out, as the guest was in the midst of a frame.
    late: u32,
}

/// Pulls for which a frame's end is waited: three of a screen that shows sixty a second. No guest has to end one.
const PATIENCE: u32 = 3;

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct Pulled {
    /// Where the outputs are, if that is new.
    layout: Option<Layout>,
    patches: Vec<Patch>,
    /// The pointer's shape and where it points, unless nothing of any output changed.
    pointer: Option<(Option<Cursor>, (i32, i32))>,
}

impl Pulled {
    /// Brings the desktop up to date. Returns whether it changed.
    pub(crate) fn apply(self, desktop: &mut Desktop) -> bool {
        let mut changed = self.layout.is_some();
        if let Some(layout) = self.layout {
            desktop.arrange(layout);
        }
        for patch in &self.patches {
            changed |= desktop.patch(patch);
        }
        if let Some((shape, at)) = self.pointer {
            changed |= desktop.set_cursor(shape);
            changed |= desktop.move_cursor(at);
        }
        changed
    }

    /// Whether the desktop can only be as it was.
    pub(crate) fn is_nothing(&self) -> bool {
        self.layout.is_none() && self.patches.is_empty() && self.pointer.is_none()
    }
}

/// Reads what the outputs show that is new.
pub(crate) fn pull(access: &mut dyn GpuAccess, progress: &mut Progress) -> Pulled {
    let mut pulled = Pulled::default();
    let layout = layout(access);
    if layout != progress.layout || progress.seen.is_empty() {
        progress.seen = vec![Seen::default(); layout.outputs().len()];
        progress.layout = layout.clone();
        pulled.layout = Some(layout);
    }
    let mut changed = pulled.layout.is_some();
    let mut late = false;
    let outputs = progress.layout.outputs().iter().copied();
    for (output, seen) in outputs.zip(&mut progress.seen) {
        if !access.gpu().has_changed(output.scanout, *seen) && *seen != Seen::default() {
            continue;
        }
        if progress.late < PATIENCE && access.gpu().awaits_flush(output.scanout) {
            late = true;
            continue;
        }
        changed = true;
        // What cannot be read is told by the device; what was read last is shown until it can.
        if let Ok(picture) = access.look(output.scanout, *seen) {
            *seen = picture.seen;
            copy(&picture, output, &mut pulled.patches);
        }
    }
    progress.late = if late {
        progress.late.saturating_add(1)
    } else {
        0
    };
    if changed {
        pulled.pointer = Some(pointer(access, &progress.layout));
    }
    pulled
}

/// The outputs that show something; the first one, in black, where none does.
fn layout(access: &mut dyn GpuAccess) -> Layout {
    let mut active = Vec::new();
    let mut first = None;
    for scanout in 0..MAX_SCANOUTS {
        let Some(picture) = access.gpu().last_picture(scanout, Seen::default()) else {
            break;
        };
        let size = (scanout, picture.size);
        first = first.or(Some(size));
        if picture.frame.is_some() {
            active.push(size);
        }
    }
    if active.is_empty() {
        active.extend(first);
    }
    Layout::new(active)
}

/// Copies what is damaged. Rectangles may overlap: when they are more than the whole together, it is the whole.
fn copy(picture: &Picture<'_>, output: Output, patches: &mut Vec<Patch>) {
    let whole = Rect::sized(output.width, output.height);
    let Some(frame) = &picture.frame else {
        let pixels = (output.width as usize).saturating_mul(output.height as usize);
        patches.push(Patch {
            x: output.x,
            y: 0,
            width: output.width,
            pixels: vec![0; pixels],
        });
        return;
    };
    let area = |rect: &Rect| u64::from(rect.width).saturating_mul(rect.height.into());
    let together = picture.damage.iter().map(area).fold(0, u64::saturating_add);
    let rects = if together >= area(&whole) {
        vec![whole]
    } else {
        picture.damage.clone()
    };
    for rect in rects {
        if let Some(part) = frame.part(rect) {
            patches.push(Patch {
                x: output.x.saturating_add(rect.x),
                y: rect.y,
                width: rect.width,
                pixels: colours(&part),
            });
        }
    }
}

/// 0xAARRGGBB of each pixel; alpha is 0 where the format has none.
fn colours(frame: &Frame<'_>) -> Vec<u32> {
    let mut pixels =
        Vec::with_capacity((frame.width as usize).saturating_mul(frame.height as usize));
    let straight = [PixelFormat::BGRA, PixelFormat::BGRX].contains(&frame.format);
    for row in (0..frame.height).filter_map(|y| frame.row(y)) {
        let (row, _) = row.as_chunks();
        if straight {
            pixels.extend(
                row.iter()
                    .map(|pixel| u32::from_le_bytes(*pixel) & 0x00ff_ffff),
            );
        } else {
            pixels.extend(row.iter().map(|pixel| {
                let [red, green, blue, _] = frame.format.to_rgba(*pixel);
                u32::from_le_bytes([blue, green, red, 0])
            }));
        }
    }
    pixels
}

fn pointer(access: &mut dyn GpuAccess, layout: &Layout) -> (Option<Cursor>, (i32, i32)) {
    for output in layout.outputs() {
        let picture = access.gpu().last_picture(output.scanout, Seen::default());
        let Some(Picture {
            cursor: Some(image),
            cursor_position: (x, y),
            ..
        }) = picture
        else {
            continue;
        };
        let cursor = shape(&image);
        let points = |corner: i32, hot: u16| corner.saturating_add(hot.into());
        let left = i32::try_from(output.x).unwrap_or(i32::MAX);
        let at = (
            points(x, cursor.hot.0).saturating_add(left),
            points(y, cursor.hot.1),
        );
        return (Some(cursor), at);
    }
    (None, (0, 0))
}

fn shape(image: &CursorImage<'_>) -> Cursor {
    let frame = image.frame;
    let of = |pixels: u32| u16::try_from(pixels).unwrap_or(u16::MAX);
    let mut pixels = Vec::new();
    for row in (0..frame.height).filter_map(|y| frame.row(y)) {
        let (row, _) = row.as_chunks();
        pixels.extend(row.iter().map(|pixel| {
            let [red, green, blue, alpha] = frame.format.to_rgba(*pixel);
            u32::from_le_bytes([blue, green, red, alpha])
        }));
    }
    Cursor {
        width: of(frame.width),
        height: of(frame.height),
        // Inside: RFB has no other.
        hot: (
            of(image.hot_x.min(frame.width.saturating_sub(1))),
            of(image.hot_y.min(frame.height.saturating_sub(1))),
        ),
        pixels,
    }
}

impl Progress {
    /// Takes it, for a pull, which gives it back.
    pub(crate) fn take(&mut self) -> Self {
        mem::take(self)
    }
}
