// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The cursor queue.

use super::Gpu;
use super::two_d::wrong;
use crate::backing::Rows;
use crate::command::CursorCommand;
use crate::command_error::CommandError;
use crate::error::GuestError;
use crate::geometry::Rect;
use crate::pixel::{PixelFormat, row_bytes};
use crate::protocol::CURSOR_SIZE;
use crate::resource::Content;
use crate::response::Reply;
use crate::scanout::{CURSOR_BYTES, CursorShape};
use vm_memory::GuestMemoryBackend;

impl Gpu {
    pub(super) fn cursor_command<M: GuestMemoryBackend + ?Sized>(
        &mut self,
        command: CursorCommand,
        memory: &M,
    ) -> Result<Reply, CommandError> {
        match command {
            CursorCommand::UpdateCursor {
                scanout_id,
                resource_id,
                x,
                y,
                hot_x,
                hot_y,
            } => {
                self.scanout_mut(scanout_id)?;
                let shape = match resource_id {
                    0 => None,
                    id => Some(self.cursor_shape(id, (hot_x, hot_y), memory)?),
                };
                self.show_cursor(scanout_id, shape)?;
                self.place_cursor(scanout_id, x, y)?;
            }
            CursorCommand::MoveCursor { scanout_id, x, y } => {
                self.place_cursor(scanout_id, x, y)?;
            }
        }
        Ok(Reply::NoData)
    }

    /// A cursor is 64 × 64 (VIRTIO 1.4 §5.7.6.6). A blob has no size or format of its own; Linux
    /// puts 64 × 64 pixels of ARGB8888 at its start.
    fn cursor_shape<M: GuestMemoryBackend + ?Sized>(
        &mut self,
        id: u32,
        (hot_x, hot_y): (u32, u32),
        memory: &M,
    ) -> Result<CursorShape, CommandError> {
        let whole = Rect::sized(CURSOR_SIZE, CURSOR_SIZE);
        let mut pixels = Box::new([0; CURSOR_BYTES]);
        let size = self.resources.name(id)?.size();
        if size.is_some_and(|size| size != (CURSOR_SIZE, CURSOR_SIZE)) {
            return Err(wrong(id, "is not 64x64, so no cursor"));
        }
        let format = match size {
            Some(_) => self.picture_format(id)?,
            None => PixelFormat::BGRA,
        };
        let resource = self.resources.name(id)?;
        match &resource.content {
            Content::Pixels(from) => match from.bytes.first_chunk::<CURSOR_BYTES>() {
                Some(bytes) => *pixels = *bytes,
                None => return Err(wrong(id, "is too small for a cursor")),
            },
            Content::Rendered(_) => {
                let stride = row_bytes(CURSOR_SIZE);
                self.renderer
                    .read_pixels(id, whole, stride, pixels.as_mut_slice())?;
            }
            Content::Blob(blob) if blob.is_guest() => {
                let Some(backing) = &resource.backing else {
                    return Err(wrong(id, "has no backing"));
                };
                let rows = Rows {
                    offset: 0,
                    stride: CURSOR_BYTES as u64,
                    len: CURSOR_BYTES,
                    count: 1,
                };
                backing.read_rows(memory, rows, pixels.as_mut_slice(), CURSOR_BYTES)?;
            }
            Content::Blob(_) => self.renderer.read_blob(id, 0, pixels.as_mut_slice())?,
        }
        Ok(CursorShape {
            hot_x,
            hot_y,
            format,
            pixels,
        })
    }

    fn show_cursor(
        &mut self,
        scanout_id: u32,
        shape: Option<CursorShape>,
    ) -> Result<(), GuestError> {
        let cursor = &mut self.scanout_mut(scanout_id)?.cursor;
        let was_hidden = cursor.shape.is_none();
        cursor.shape = shape;
        if was_hidden && cursor.shape.is_none() {
            return Ok(());
        }
        if let Some(scanout) = self.scanouts.get(scanout_id as usize) {
            let image = scanout.cursor.shape.as_ref().map(CursorShape::image);
            self.display.set_cursor(scanout_id, image);
        }
        Ok(())
    }

    fn place_cursor(&mut self, scanout_id: u32, x: i32, y: i32) -> Result<(), GuestError> {
        let cursor = &mut self.scanout_mut(scanout_id)?.cursor;
        (cursor.x, cursor.y) = (x, y);
        self.display.move_cursor(scanout_id, x, y);
        Ok(())
    }
}
