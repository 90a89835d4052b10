// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The cursor queue.

use super::Gpu;
use super::look::Source;
use super::scanout::picture_format;
use super::two_d::wrong;
use crate::command::{BlobLayout, CursorCommand};
use crate::command_error::CommandError;
use crate::geometry::Rect;
use crate::pixel::{PixelFormat, row_bytes};
use crate::protocol::CURSOR_SIZE;
use crate::response::Reply;
use crate::scanout::{CURSOR_BYTES, CursorShape};
use vm_memory::GuestMemoryBackend;

/// Where a cursor's pixels lie in a blob.
const CURSOR_LAYOUT: BlobLayout = BlobLayout {
    width: CURSOR_SIZE,
    height: CURSOR_SIZE,
    format: PixelFormat::BGRA,
    stride: 4 * CURSOR_SIZE,
    offset: 0,
};

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
                let scanout = self.scanout_mut(scanout_id)?;
                scanout.set_cursor(shape);
                scanout.move_cursor(x, y);
            }
            CursorCommand::MoveCursor { scanout_id, x, y } => {
                self.scanout_mut(scanout_id)?.move_cursor(x, y);
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
        let resource = &*self.resources.name(id)?;
        let size = resource.size();
        if size.is_some_and(|size| size != (CURSOR_SIZE, CURSOR_SIZE)) {
            return Err(wrong(id, "is not 64x64, so no cursor"));
        }
        let format = match size {
            Some(_) => picture_format(id, resource)?,
            None => PixelFormat::BGRA,
        };
        let stride = row_bytes(CURSOR_SIZE);
        let source = Source {
            id,
            resource,
            layout: Some(CURSOR_LAYOUT),
            rect: Rect::sized(CURSOR_SIZE, CURSOR_SIZE),
        };
        let mut pixels = Box::new([0; CURSOR_BYTES]);
        source.read(&mut *self.renderer, memory, pixels.as_mut_slice(), stride)?;
        Ok(CursorShape {
            hot_x,
            hot_y,
            format,
            pixels,
        })
    }
}
