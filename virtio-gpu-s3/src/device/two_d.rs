// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! 2D resources: create, back, fill, destroy.

use super::Gpu;
use crate::backing::{Backing, Rows};
use crate::command_error::CommandError;
use crate::error::GuestError;
use crate::geometry::Rect;
use crate::pixel::{PixelFormat, row_bytes};
use crate::protocol::wire::MemEntry;
use crate::renderer::{Data, Operation, Pages, Transfer3d};
use crate::resource::{Content, Pixels, Resource};
use crate::response::Reply;
use vm_memory::GuestMemoryBackend;

impl Gpu {
    pub(super) fn resource_create_2d(
        &mut self,
        id: u32,
        format: PixelFormat,
        width: u32,
        height: u32,
    ) -> Result<Reply, CommandError> {
        self.check_new_resource_id(id)?;
        self.check_dimension("width", width)?;
        self.check_dimension("height", height)?;
        let size = Pixels::size(width, height).unwrap_or(u64::MAX);
        let bytes = self.room_for_resource(id, size, 0)?;
        let pixels = Pixels::zeroed(format, width, height, bytes);
        let resource = Resource::new(Content::Pixels(pixels), None);
        self.resources.insert(id, resource);
        Ok(Reply::NoData)
    }

    pub(super) fn resource_unref(&mut self, id: u32) -> Result<Reply, CommandError> {
        self.resources.name(id)?;
        self.destroy_resource(id);
        Ok(Reply::NoData)
    }

    pub(super) fn resource_attach_backing<M: GuestMemoryBackend + ?Sized>(
        &mut self,
        id: u32,
        entries: &[MemEntry],
        memory: &M,
    ) -> Result<Reply, CommandError> {
        if self.resources.name(id)?.backing.is_some() {
            return Err(wrong(id, "has a backing already"));
        }
        let backing = self.new_backing(id, entries, memory)?;
        let resource = self.resources.name(id)?;
        if let Content::Blob(blob) = &resource.content {
            check_covers(&backing, blob.params.size)?;
        }
        if resource.in_renderer() {
            let pages = Pages {
                backing: &backing,
                memory,
            };
            let attach = Operation::AttachBacking { resource_id: id };
            self.renderer.call(attach.with(Data::Pages(&pages)))?;
        }
        self.resources
            .update(id, |resource| resource.backing = Some(backing))?;
        Ok(Reply::NoData)
    }

    pub(super) fn resource_detach_backing(&mut self, id: u32) -> Result<Reply, CommandError> {
        let resource = self.resources.name(id)?;
        if resource.backing.is_none() {
            return Err(wrong(id, "has no backing"));
        }
        if resource.in_renderer() {
            let detach = Operation::DetachBacking { resource_id: id };
            self.renderer.call(detach.call())?;
        }
        self.resources
            .update(id, |resource| resource.backing = None)?;
        Ok(Reply::NoData)
    }

    pub(super) fn transfer_to_host_2d<M: GuestMemoryBackend + ?Sized>(
        &mut self,
        id: u32,
        rect: Rect,
        offset: u64,
        memory: &M,
    ) -> Result<Reply, CommandError> {
        let resource = self.resources.name(id)?;
        let Some((width, height)) = resource.size() else {
            // A blob's memory is what it shows, so there is nothing to copy. Linux sends this before
            // each flush of a dumb buffer all the same, and means no harm.
            return Ok(Reply::NoData);
        };
        rect.check_inside(width, height)?;
        let Some(backing) = &resource.backing else {
            return Err(wrong(id, "has no backing"));
        };
        resource.drawn = self.counters.control_commands;
        let stride = row_bytes(width);
        let rows = Rows {
            offset,
            stride: stride as u64,
            len: row_bytes(rect.width),
            count: rect.height,
        };
        if let Content::Pixels(pixels) = &mut resource.content {
            let target = pixels.at_mut(rect).unwrap_or_default();
            backing.read_rows(memory, rows, target, stride)?;
        } else {
            backing.check_rows(rows)?;
            let pages = Pages { backing, memory };
            let copy = Operation::TransferToHost {
                ctx_id: 0,
                resource_id: id,
                transfer: Transfer3d::of_rect(rect, offset),
            };
            self.renderer.call(copy.with(Data::Pages(&pages)))?;
        }
        let bytes = (rows.len as u64).saturating_mul(rows.count.into());
        let total = &mut self.counters.transferred_bytes;
        *total = total.saturating_add(bytes);
        Ok(Reply::NoData)
    }

    /// The same UUID each time the guest asks for the same resource, never the same one for two.
    pub(super) fn resource_assign_uuid(&mut self, id: u32) -> Result<Reply, CommandError> {
        let next = self.last_uuid.saturating_add(1);
        let namespace = self.config.uuid_namespace();
        let resource = self.resources.name(id)?;
        if let Some(uuid) = resource.uuid {
            return Ok(Reply::Uuid(uuid));
        }
        let uuid = new_uuid(namespace, next);
        resource.uuid = Some(uuid);
        self.last_uuid = next;
        Ok(Reply::Uuid(uuid))
    }

    pub(super) fn check_dimension(
        &self,
        field: &'static str,
        value: u32,
    ) -> Result<(), GuestError> {
        if value == 0 || value > self.config.limits().max_resource_dimension {
            return Err(GuestError::Parameter {
                field,
                value: value.into(),
            });
        }
        Ok(())
    }
}

/// `Ok` if the backing holds a whole blob: no scanout or context shall find its end.
pub(super) fn check_covers(backing: &Backing, size: u64) -> Result<(), GuestError> {
    if backing.len() < size {
        return Err(GuestError::Parameter {
            field: "size",
            value: size,
        });
    }
    Ok(())
}

pub(super) fn wrong(id: u32, why: &'static str) -> CommandError {
    GuestError::WrongResource { id, why }.into()
}

/// An RFC 9562 version 8 UUID: the device's namespace, then a number that is never used again.
fn new_uuid(namespace: u64, number: u64) -> [u8; 16] {
    let value = u128::from(namespace) << 64 | u128::from(number);
    let version = 0x8_u128 << 76;
    let variant = 0x2_u128 << 62;
    let fixed = 0xf_u128 << 76 | 0x3_u128 << 62;
    (value & !fixed | version | variant).to_be_bytes()
}
