// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Scanouts: bind, flush, disable.

use super::Gpu;
use super::look::no_backing;
use super::two_d::wrong;
use crate::command::BlobLayout;
use crate::command_error::CommandError;
use crate::error::GuestError;
use crate::geometry::Rect;
use crate::pixel::{PixelFormat, row_bytes};
use crate::protocol::Format;
use crate::resource::{Content, Rendered, Resource};
use crate::response::Reply;
use crate::scanout::Binding;

impl Gpu {
    pub(super) fn set_scanout(
        &mut self,
        scanout_id: u32,
        resource_id: u32,
        rect: Rect,
    ) -> Result<Reply, CommandError> {
        self.scanout_mut(scanout_id)?;
        if resource_id == 0 {
            return self.bind(scanout_id, None);
        }
        let resource = self.resources.name(resource_id)?;
        let Some((width, height)) = resource.size() else {
            return Err(wrong(resource_id, "is a blob"));
        };
        check_rect(rect, width, height)?;
        let format = picture_format(resource_id, resource)?;
        let needs_copy = resource.picture().is_none();
        let binding = Binding::new(resource_id, rect, format, None, needs_copy);
        self.bind(scanout_id, Some(binding))
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
            return self.bind(scanout_id, None);
        }
        let Content::Blob(blob) = &self.resources.name(resource_id)?.content else {
            return Err(wrong(resource_id, "is no blob"));
        };
        let size = blob.params.size;
        self.check_dimension("width", layout.width)?;
        self.check_dimension("height", layout.height)?;
        check_layout(layout, size)?;
        check_rect(rect, layout.width, layout.height)?;
        let binding = Binding::new(resource_id, rect, layout.format, Some(*layout), true);
        self.bind(scanout_id, Some(binding))
    }

    /// Notes what is damaged and reads nothing: a picture that nobody looks at costs nothing.
    pub(super) fn resource_flush(
        &mut self,
        resource_id: u32,
        rect: Rect,
    ) -> Result<Reply, CommandError> {
        let resource = self.resources.name(resource_id)?;
        if let Some((width, height)) = resource.size() {
            rect.check_inside(width, height)?;
        }
        let readable = match &resource.content {
            Content::Blob(blob) if blob.is_guest() => resource.backing.is_some(),
            _ => true,
        };
        let command = self.counters.control_commands;
        for scanout in &mut self.scanouts {
            if !scanout.shows(resource_id) {
                continue;
            }
            if !readable {
                return Err(no_backing(resource_id).into());
            }
            if scanout.flush(&rect, command) {
                self.counters.flushes = self.counters.flushes.saturating_add(1);
            }
        }
        Ok(Reply::NoData)
    }

    pub(super) fn disable_scanouts_of(&mut self, resource_id: u32) {
        for scanout in &mut self.scanouts {
            if scanout.shows(resource_id) {
                let bytes = scanout.binding.as_ref().map_or(0, Binding::host_bytes);
                self.resources.refund(bytes);
                scanout.show(None);
            }
        }
    }

    /// Host memory for the copies that scanouts need of a resource whose pixels go elsewhere.
    pub(super) fn copies_of(&self, id: u32) -> u64 {
        let scanouts = self.scanouts.iter().filter(|scanout| scanout.shows(id));
        let bindings = scanouts.filter_map(|scanout| scanout.binding.as_ref());
        bindings.fold(0, |sum, binding| sum.saturating_add(binding.copy_bytes()))
    }

    /// The renderer gets a resource whose pixels are with us: what scanouts show of it is copied, as
    /// it would be lost with the renderer. There is [room](Self::copies_of) for it.
    pub(super) fn copy_before_promotion(&mut self, id: u32) {
        let Some(resource) = self.resources.peek(id) else {
            return;
        };
        for scanout in self.scanouts.iter_mut().filter(|it| it.shows(id)) {
            scanout.copy_picture(resource);
        }
        self.resources.charge(self.copies_of(id));
    }

    /// A scanout shows its resource from SET_SCANOUT on, so all of it is damaged. The copy before
    /// makes room for the new one.
    fn bind(&mut self, scanout_id: u32, binding: Option<Binding>) -> Result<Reply, CommandError> {
        let before = self.scanout_mut(scanout_id)?.binding.as_ref();
        if let (Some(old), Some(new)) = (before, &binding)
            && old.shows_same(new)
        {
            return Ok(Reply::NoData);
        }
        let freed = before.map_or(0, Binding::host_bytes);
        let taken = binding.as_ref().map_or(0, Binding::host_bytes);
        let id = binding.as_ref().map_or(0, |binding| binding.resource_id);
        self.make_room(id, taken.saturating_sub(freed), 0)?;
        self.scanout_mut(scanout_id)?.show(binding);
        self.resources.refund(freed);
        self.resources.charge(taken);
        Ok(Reply::NoData)
    }
}

/// The format that a resource is shown in.
pub(super) fn picture_format(id: u32, resource: &Resource) -> Result<PixelFormat, CommandError> {
    let params = match &resource.content {
        Content::Pixels(pixels) => return Ok(pixels.format),
        Content::Blob(_) => return Err(wrong(id, "is a blob")),
        Content::Rendered(Rendered { params }) => params,
    };
    if params.target != Rendered::TEXTURE_2D {
        return Err(wrong(id, "is not two-dimensional"));
    }
    Ok(PixelFormat::try_from(Format(params.format))?)
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
