// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Scanouts: bind, flush, disable.

use super::Gpu;
use super::two_d::wrong;
use crate::backing::Rows;
use crate::command::BlobLayout;
use crate::command_error::CommandError;
use crate::error::GuestError;
use crate::geometry::Rect;
use crate::pixel::{PixelFormat, row_bytes};
use crate::protocol::Format;
use crate::renderer::Renderer;
use crate::resource::{Content, Pixels, Rendered, Resource, Resources};
use crate::response::Reply;
use crate::scanout::{Binding, BlobPlane};
use vm_memory::GuestMemoryBackend;

impl Gpu {
    pub(super) fn set_scanout(
        &mut self,
        scanout_id: u32,
        resource_id: u32,
        rect: Rect,
    ) -> Result<Reply, CommandError> {
        self.scanout_mut(scanout_id)?;
        if resource_id == 0 {
            self.bind(scanout_id, None)?;
            return Ok(Reply::NoData);
        }
        let resource = self.resources.name(resource_id)?;
        let Some((width, height)) = resource.size() else {
            return Err(wrong(resource_id, "is a blob"));
        };
        check_rect(rect, width, height)?;
        let format = self.picture_format(resource_id)?;
        let binding = Binding {
            resource_id,
            rect,
            format,
            blob: None,
            stale: true,
        };
        self.bind(scanout_id, Some(binding))?;
        Ok(Reply::NoData)
    }

    pub(super) fn set_scanout_blob(
        &mut self,
        scanout_id: u32,
        resource_id: u32,
        rect: Rect,
        layout: &BlobLayout,
    ) -> Result<Reply, CommandError> {
        self.scanout_mut(scanout_id)?;
        if resource_id == 0 {
            self.bind(scanout_id, None)?;
            return Ok(Reply::NoData);
        }
        let Content::Blob(blob) = &self.resources.name(resource_id)?.content else {
            return Err(wrong(resource_id, "is no blob"));
        };
        let size = blob.params.size;
        self.check_dimension("width", layout.width)?;
        self.check_dimension("height", layout.height)?;
        check_layout(layout, size)?;
        check_rect(rect, layout.width, layout.height)?;
        let bytes = Pixels::size(rect.width, rect.height).unwrap_or(u64::MAX);
        let bytes = self.make_room(resource_id, bytes, 0)?;
        let binding = Binding {
            resource_id,
            rect,
            format: layout.format,
            blob: Some(BlobPlane {
                layout: *layout,
                shadow: Pixels::zeroed(layout.format, rect.width, rect.height, bytes),
            }),
            stale: true,
        };
        self.bind(scanout_id, Some(binding))?;
        Ok(Reply::NoData)
    }

    pub(super) fn resource_flush<M: GuestMemoryBackend + ?Sized>(
        &mut self,
        resource_id: u32,
        rect: Rect,
        memory: &M,
    ) -> Result<Reply, CommandError> {
        if let Some((width, height)) = self.resources.name(resource_id)?.size() {
            rect.check_inside(width, height)?;
        }
        for index in 0..self.scanouts.len() {
            self.flush_scanout(index, resource_id, rect, memory)?;
        }
        Ok(Reply::NoData)
    }

    pub(super) fn disable_scanouts_of(&mut self, resource_id: u32) {
        for (id, scanout) in (0..).zip(&mut self.scanouts) {
            let shows = |binding: &mut Binding| binding.resource_id == resource_id;
            if let Some(binding) = scanout.binding.take_if(shows) {
                self.resources.refund(binding.host_bytes());
                self.display.set_scanout(id, None);
            }
        }
    }

    /// The format a resource is shown in. One of the renderer gets a copy here to be shown from.
    pub(super) fn picture_format(&mut self, id: u32) -> Result<PixelFormat, CommandError> {
        let resource = self.resources.name(id)?;
        let params = match &resource.content {
            Content::Pixels(pixels) => return Ok(pixels.format),
            Content::Blob(_) => return Err(wrong(id, "is a blob")),
            Content::Rendered(Rendered { params, .. }) => *params,
        };
        if params.target != Rendered::TEXTURE_2D {
            return Err(wrong(id, "is not two-dimensional"));
        }
        let format = PixelFormat::try_from(Format(params.format))?;
        if resource.picture().is_some() {
            return Ok(format);
        }
        let size = Pixels::size(params.width, params.height).unwrap_or(u64::MAX);
        let bytes = self.make_room(id, size, 0)?;
        self.resources.update(id, |resource| {
            if let Content::Rendered(rendered) = &mut resource.content {
                let shadow = Pixels::zeroed(format, params.width, params.height, bytes);
                rendered.shadow = Some(shadow);
            }
        })?;
        Ok(format)
    }

    /// Tells the display only what changes for it: a page flip does not. A blob's new picture
    /// starts as a copy of the one before, so that a flip never shows black.
    fn bind(&mut self, scanout_id: u32, mut binding: Option<Binding>) -> Result<(), GuestError> {
        let scanout = self.scanout_mut(scanout_id)?;
        let before = scanout.binding.take();
        let mode = binding.as_ref().map(Binding::mode);
        let mode_before = before.as_ref().map(Binding::mode);
        let freed = before.as_ref().map_or(0, Binding::host_bytes);
        if let (Some(new), Some(old)) = (&mut binding, before)
            && new.mode() == old.mode()
        {
            new.take_over(old);
        }
        let taken = binding.as_ref().map_or(0, Binding::host_bytes);
        scanout.binding = binding;
        self.resources.refund(freed);
        self.resources.charge(taken);
        if mode != mode_before {
            self.display.set_scanout(scanout_id, mode);
        }
        Ok(())
    }

    /// The first flush after a change of resource shows all of it, whatever the guest says is
    /// damaged: nothing of the new picture has been shown.
    fn flush_scanout<M: GuestMemoryBackend + ?Sized>(
        &mut self,
        index: usize,
        resource_id: u32,
        rect: Rect,
        memory: &M,
    ) -> Result<(), CommandError> {
        let scanout = self.scanouts.get_mut(index);
        let binding = scanout.and_then(|scanout| scanout.binding.as_mut());
        let Some(binding) = binding.filter(|binding| binding.resource_id == resource_id) else {
            return Ok(());
        };
        let damage = if binding.stale {
            Some(Rect::sized(binding.rect.width, binding.rect.height))
        } else {
            rect.within(&binding.rect)
        };
        let Some(damage) = damage else { return Ok(()) };
        refresh(
            binding,
            damage,
            &mut self.resources,
            self.renderer.as_mut(),
            memory,
        )?;
        binding.stale = false;
        if let Some(frame) = binding.frame(&self.resources) {
            let id = u32::try_from(index).unwrap_or(u32::MAX);
            self.display.flush(id, damage, &frame);
            self.counters.flushes = self.counters.flushes.saturating_add(1);
        }
        Ok(())
    }
}

/// Brings the damaged part of what is shown up to date, where it is a copy.
fn refresh<M: GuestMemoryBackend + ?Sized>(
    binding: &mut Binding,
    damage: Rect,
    resources: &mut Resources,
    renderer: &mut dyn Renderer,
    memory: &M,
) -> Result<(), CommandError> {
    let id = binding.resource_id;
    let in_resource = Rect {
        x: binding.rect.x.saturating_add(damage.x),
        y: binding.rect.y.saturating_add(damage.y),
        ..damage
    };
    let resource = resources.name(id)?;
    if let Some(plane) = &mut binding.blob {
        return refresh_blob(resource, id, plane, damage, in_resource, renderer, memory);
    }
    if let Content::Rendered(rendered) = &mut resource.content
        && let Some(shadow) = &mut rendered.shadow
    {
        let stride = row_bytes(shadow.width);
        let target = shadow.at_mut(in_resource).unwrap_or_default();
        renderer.read_pixels(id, in_resource, stride, target)?;
    }
    Ok(())
}

fn refresh_blob<M: GuestMemoryBackend + ?Sized>(
    resource: &Resource,
    id: u32,
    plane: &mut BlobPlane,
    damage: Rect,
    in_resource: Rect,
    renderer: &mut dyn Renderer,
    memory: &M,
) -> Result<(), CommandError> {
    let layout = &plane.layout;
    let stride = u64::from(layout.stride);
    let offset = stride
        .saturating_mul(in_resource.y.into())
        .saturating_add(row_bytes(in_resource.x) as u64)
        .saturating_add(layout.offset.into());
    let target_stride = row_bytes(plane.shadow.width);
    let target = plane.shadow.at_mut(damage).unwrap_or_default();
    let rows = Rows {
        offset,
        stride,
        len: row_bytes(damage.width),
        count: damage.height,
    };
    let Content::Blob(blob) = &resource.content else {
        return Err(wrong(id, "is no blob"));
    };
    if blob.is_guest() {
        let Some(backing) = &resource.backing else {
            return Err(wrong(id, "has no backing"));
        };
        backing.read_rows(memory, rows, target, target_stride)?;
        return Ok(());
    }
    read_blob(renderer, id, rows, target, target_stride)
}

/// Bytes of a blob that are asked for at a time: a call to the renderer crosses a thread or a
/// process, which costs more than a copy of what lies between two rows.
const BLOB_BATCH: u64 = 1 << 20;

/// Copies rows of a blob of the renderer to `target`, as many in a call as fit a batch.
fn read_blob(
    renderer: &mut dyn Renderer,
    id: u32,
    rows: Rows,
    target: &mut [u8],
    target_stride: usize,
) -> Result<(), CommandError> {
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
        renderer.read_blob(id, offset, &mut batch)?;
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

/// Scanout rectangles lie inside their resource (VIRTIO 1.4 §5.7.6.8) and show something.
pub(super) fn check_rect(rect: Rect, width: u32, height: u32) -> Result<(), GuestError> {
    rect.check_inside(width, height)?;
    if rect.is_empty() {
        return Err(GuestError::Parameter {
            field: "r",
            value: 0,
        });
    }
    Ok(())
}

/// Every row of the picture lies inside the blob. Sums of 32-bit fields need 64 bits here.
pub(super) fn check_layout(layout: &BlobLayout, size: u64) -> Result<(), GuestError> {
    let row = row_bytes(layout.width) as u64;
    let stride = u64::from(layout.stride);
    if stride < row {
        return Err(GuestError::Parameter {
            field: "strides[0]",
            value: stride,
        });
    }
    let rows = u64::from(layout.height).saturating_sub(1);
    let end = stride
        .checked_mul(rows)
        .and_then(|end| end.checked_add(row))
        .and_then(|end| end.checked_add(layout.offset.into()));
    if end.is_none_or(|end| end > size) {
        return Err(GuestError::Parameter {
            field: "offsets[0]",
            value: layout.offset.into(),
        });
    }
    Ok(())
}
