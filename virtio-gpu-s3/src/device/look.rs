// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Looks: a picture is read when somebody wants to see it, and before a sleep.

use super::Gpu;
use crate::backing::Rows;
use crate::command::BlobLayout;
use crate::command_error::CommandError;
use crate::error::GuestError;
use crate::geometry::Rect;
use crate::picture::{LookError, Picture, Seen};
use crate::pixel::row_bytes;
use crate::renderer::{Data, Operation, Renderer};
use crate::resource::{Content, Resource};
use crate::scanout::CursorShape;
use vm_memory::GuestMemoryBackend;

/// Bytes of a blob that are asked for at a time: a call to the renderer crosses a thread or a
/// process, which costs more than a copy of what lies between two rows.
const BLOB_BATCH: u64 = 1 << 20;

impl Gpu {
    /// The scanout's picture of now, and what of it changed since the look that gave `seen`.
    ///
    /// What the guest flushed and nobody has read is read here, from the renderer or from `memory`,
    /// the damaged parts only. So a picture is never older than the last flush; where the guest has
    /// drawn on since, a part that is read may be newer. [`awaits_flush`](Self::awaits_flush)
    /// tells. Any number of viewers may look, each at its own pace.
    ///
    /// # Errors
    /// There is no such scanout, or it cannot be read. It is tried again by the next look, and
    /// [`last_picture`](Self::last_picture) is what there is until then.
    pub fn look<M: GuestMemoryBackend + ?Sized>(
        &mut self,
        scanout: u32,
        seen: Seen,
        memory: &M,
    ) -> Result<Picture<'_>, LookError> {
        self.refresh(scanout as usize, memory)?;
        let picture = self.last_picture(scanout, seen);
        picture.ok_or(LookError::NoSuchScanout { id: scanout })
    }

    /// The same as it was read last: calls no renderer and touches no memory of the guest. Black
    /// where nothing was ever read. `None` if there is no such scanout.
    pub fn last_picture(&mut self, scanout: u32, seen: Seen) -> Option<Picture<'_>> {
        let index = scanout as usize;
        let output = self.config.outputs().get(index)?;
        let scanout = self.scanouts.get_mut(index)?;
        if let Some(binding) = &mut scanout.binding {
            binding.make_copy();
        }
        let binding = scanout.binding.as_ref();
        let frame = binding.and_then(|binding| binding.frame(&self.resources));
        let size = frame.map_or((output.width, output.height), |it| (it.width, it.height));
        let cursor = &scanout.cursor;
        let (damage, now) = scanout.damage_since(seen);
        Some(Picture {
            size,
            frame,
            damage,
            cursor: cursor.shape.as_ref().map(CursorShape::image),
            cursor_position: (cursor.x, cursor.y),
            cursor_changed: scanout.cursor_changed(seen),
            seen: now,
        })
    }

    /// Whether a look may find something new, the cursor's place included. Reads nothing.
    pub fn has_changed(&self, scanout: u32, seen: Seen) -> bool {
        let scanout = self.scanouts.get(scanout as usize);
        scanout.is_some_and(|scanout| scanout.has_changed(seen))
    }

    /// Whether the guest is in the midst of a frame, as far as its commands tell: what is shown was
    /// not flushed yet, or transferred to since, or a stream ran since in a context that it is
    /// attached to. A viewer does well to wait for the flush, but not for ever: no guest must send
    /// one, and a stream may draw on something else.
    pub fn awaits_flush(&self, scanout: u32) -> bool {
        let scanout = self.scanouts.get(scanout as usize);
        let Some(binding) = scanout.and_then(|scanout| scanout.binding.as_ref()) else {
            return false;
        };
        let id = binding.resource_id;
        let resource = self.resources.peek(id);
        let mut contexts = self.contexts.values();
        binding.stale
            || resource.is_some_and(|resource| resource.drawn > binding.flushed)
            || contexts.any(|it| it.drawn > binding.flushed && it.attached.contains(&id))
    }

    /// Reads what was flushed and lies outside the device, in the renderer or in the guest's memory:
    /// while the guest sleeps that memory is not the device's to read, and the renderer may end.
    /// A part that cannot be read is counted as an error and given up until the guest's next flush,
    /// which then shows everything.
    ///
    /// [`quiesce`](Self::quiesce) does it; whoever knows of a sleep that begins without one calls it.
    pub fn look_before_sleep<M: GuestMemoryBackend + ?Sized>(&mut self, memory: &M) {
        for index in 0..self.scanouts.len() {
            if let Err(error) = self.refresh(index, memory) {
                self.counters.errors.count(CommandError::from(error).kind());
            }
        }
        self.give_up_unread();
    }

    /// Whether a look reads guest memory from one address to another, both included: that of the guest's blobs which a
    /// scanout shows.
    pub fn shows_memory_within(&self, first: u64, last: u64) -> bool {
        self.scanouts.iter().any(|scanout| {
            let shown = scanout.binding.as_ref();
            let resource = shown.and_then(|it| self.resources.peek(it.resource_id));
            resource.is_some_and(|it| {
                let is_guest = matches!(&it.content, Content::Blob(blob) if blob.is_guest());
                let backing = it.backing.as_ref().filter(|_| is_guest);
                backing.is_some_and(|it| it.touches(first, last))
            })
        })
    }

    pub(super) fn give_up_unread(&mut self) {
        for scanout in &mut self.scanouts {
            scanout.give_up_unread();
        }
    }

    /// Brings the scanout's copy up to date, if it has one and something is missing.
    fn refresh<M: GuestMemoryBackend + ?Sized>(
        &mut self,
        index: usize,
        memory: &M,
    ) -> Result<(), LookError> {
        let Some(scanout) = self.scanouts.get_mut(index) else {
            return Ok(());
        };
        let unread = scanout.unread();
        let Some(binding) = scanout.binding.as_mut().filter(|_| !unread.is_empty()) else {
            return Ok(());
        };
        let (id, corner, layout) = (binding.resource_id, binding.rect, binding.layout);
        let resource = self.resources.peek(id);
        let resource = resource.ok_or(GuestError::NoSuchResource { id })?;
        let Some(copy) = binding.make_copy() else {
            return Ok(());
        };
        let stride = row_bytes(copy.width);
        for damaged in unread {
            let source = Source {
                id,
                resource,
                layout,
                rect: Rect {
                    x: corner.x.saturating_add(damaged.x),
                    y: corner.y.saturating_add(damaged.y),
                    ..damaged
                },
            };
            let target = copy.at_mut(damaged).unwrap_or_default();
            source.read(self.renderer.as_mut(), memory, target, stride)?;
        }
        scanout.mark_read();
        Ok(())
    }
}

/// A part of a resource's picture.
pub(super) struct Source<'a> {
    pub(super) id: u32,
    pub(super) resource: &'a Resource,
    /// Where the picture lies in a blob.
    pub(super) layout: Option<BlobLayout>,
    pub(super) rect: Rect,
}

impl Source<'_> {
    /// Copies it to rows of `target` that are so many bytes apart, wherever it is. The one way to
    /// pixels: for a look, a sleep and a cursor.
    pub(super) fn read<M: GuestMemoryBackend + ?Sized>(
        &self,
        renderer: &mut dyn Renderer,
        memory: &M,
        target: &mut [u8],
        stride: usize,
    ) -> Result<(), LookError> {
        let Self {
            id, resource, rect, ..
        } = self;
        match &resource.content {
            Content::Pixels(pixels) => {
                if let Some(part) = pixels.frame().part(*rect) {
                    part.copy_to(target, stride);
                }
            }
            Content::Rendered(_) => {
                let read = Operation::ReadPixels {
                    resource_id: *id,
                    rect: *rect,
                    stride,
                };
                renderer.call(read.with(Data::Room(target)))?;
            }
            Content::Blob(blob) if blob.is_guest() => {
                let backing = resource.backing.as_ref().ok_or(no_backing(*id))?;
                backing.read_rows(memory, self.rows(), target, stride)?;
            }
            Content::Blob(_) => read_blob(renderer, *id, self.rows(), target, stride)?,
        }
        Ok(())
    }

    /// Where it lies in a blob.
    fn rows(&self) -> Rows {
        let (start, stride) = self.layout.map_or((0, 0), |it| (it.offset, it.stride));
        let stride = u64::from(stride);
        Rows {
            offset: stride
                .saturating_mul(self.rect.y.into())
                .saturating_add(row_bytes(self.rect.x) as u64)
                .saturating_add(start.into()),
            stride,
            len: row_bytes(self.rect.width),
            count: self.rect.height,
        }
    }
}

pub(super) fn no_backing(id: u32) -> GuestError {
    let why = "has no backing";
    GuestError::WrongResource { id, why }
}

/// Copies rows of a blob of the renderer to `target`, as many in a call as fit a batch.
fn read_blob(
    renderer: &mut dyn Renderer,
    id: u32,
    rows: Rows,
    target: &mut [u8],
    target_stride: usize,
) -> Result<(), LookError> {
    let stride = rows.stride.max(rows.len as u64).max(1);
    let distance = usize::try_from(stride).unwrap_or(usize::MAX);
    let each = BLOB_BATCH.checked_div(stride).unwrap_or(1).max(1);
    let each = usize::try_from(each).unwrap_or(1);
    let target_stride = target_stride.max(1);
    let mut offset = rows.offset;
    let mut left = rows.count as usize;
    let mut batch = Vec::new();
    for part in target.chunks_mut(target_stride.saturating_mul(each)) {
        let count = each.min(left);
        if count == 0 {
            break;
        }
        // Zeros first: a renderer may leave what it cannot read.
        batch.clear();
        let before = distance.saturating_mul(count.saturating_sub(1));
        batch.resize(before.saturating_add(rows.len), 0);
        let read = Operation::ReadBlob {
            resource_id: id,
            offset,
        };
        renderer.call(read.with(Data::Room(&mut batch)))?;
        let pairs = part.chunks_mut(target_stride).zip(batch.chunks(distance));
        for (row, from) in pairs.take(count) {
            let row = row.get_mut(..rows.len).unwrap_or_default();
            if let Some(from) = from.get(..row.len()) {
                row.copy_from_slice(from);
            }
        }
        offset = offset.saturating_add(stride.saturating_mul(count as u64));
        left = left.saturating_sub(count);
    }
    Ok(())
}
