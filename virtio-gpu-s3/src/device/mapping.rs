// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Blobs of the host in the guest's sight (`RESOURCE_MAP_BLOB`, VIRTIO 1.4 §5.7.6.9).

use super::Gpu;
use super::two_d::wrong;
use crate::command_error::CommandError;
use crate::error::GuestError;
use crate::host_visible::HostVisible;
use crate::protocol::{BLOB_FLAG_USE_MAPPABLE, CommandId, MAP_CACHE_MASK, wire};
use crate::renderer::{Data, Operation, RendererError};
use crate::resource::Content;
use crate::response::Reply;
use crate::status::ErrorKind;

/// Mappings are of whole pages, whatever the blob's size.
const PAGE: u64 = 4096;

/// As Linux numbers it everywhere.
const EINVAL: i32 = 22;

/// A range of the region in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) resource_id: u32,
    pub(super) size: u64,
}

impl Gpu {
    /// The same device with a host visible memory region. The caller announces the region to the
    /// guest, as id [`HOST_VISIBLE_SHM_ID`](crate::HOST_VISIBLE_SHM_ID).
    #[must_use]
    pub fn with_host_visible(mut self, region: Box<dyn HostVisible>) -> Self {
        self.host_visible = Some(region);
        self
    }

    pub(super) fn resource_map_blob(
        &mut self,
        id: u32,
        offset: u64,
    ) -> Result<Reply, CommandError> {
        let Some(region) = &mut self.host_visible else {
            return Err(unknown(CommandId::RESOURCE_MAP_BLOB));
        };
        let Content::Blob(blob) = &self.resources.name(id)?.content else {
            return Err(wrong(id, "is no blob"));
        };
        if blob.is_guest() || blob.params.blob_flags & BLOB_FLAG_USE_MAPPABLE == 0 {
            return Err(wrong(id, "is not mappable"));
        }
        if self.mappings.values().any(|it| it.resource_id == id) {
            return Err(wrong(id, "is mapped already"));
        }
        let size = blob.params.size.checked_next_multiple_of(PAGE);
        let size = size.ok_or(out_of_range(offset))?;
        let end = offset.checked_add(size).ok_or(out_of_range(offset))?;
        let before = self.mappings.range(..end).next_back();
        let overlaps =
            before.is_some_and(|(start, mapping)| start.saturating_add(mapping.size) > offset);
        if !offset.is_multiple_of(PAGE) || end > region.size() || overlaps {
            return Err(out_of_range(offset));
        }
        let resource_id = id;
        let map = Operation::MapBlob { resource_id };
        let mapping = self.renderer.call(map.call())?.mapped()?;
        let map_info = mapping.map_info & MAP_CACHE_MASK;
        let mapped = if mapping.size > size {
            Err(CommandError::Renderer(RendererError::OutOfMemory {
                bytes: mapping.size,
            }))
        } else {
            region.map(offset, size, mapping).map_err(Into::into)
        };
        if let Err(error) = mapped {
            self.end(Operation::UnmapBlob { resource_id });
            return Err(error);
        }
        self.mappings.insert(offset, Mapping { resource_id, size });
        Ok(Reply::MapInfo(wire::RespMapInfo {
            map_info: map_info.into(),
            padding: 0.into(),
        }))
    }

    pub(super) fn resource_unmap_blob(&mut self, id: u32) -> Result<Reply, CommandError> {
        if self.host_visible.is_none() {
            return Err(unknown(CommandId::RESOURCE_UNMAP_BLOB));
        }
        self.resources.name(id)?;
        if self.unmap(id) {
            return Ok(Reply::NoData);
        }
        Err(wrong(id, "is not mapped"))
    }

    /// Reads a blob that the guest has mapped and that has no file
    /// ([`BlobMapping::file`](crate::renderer::BlobMapping::file)), for whoever serves the guest's
    /// accesses.
    ///
    /// # Errors
    /// It is not mapped, or ends before, or the renderer is gone.
    pub fn read_mapped(
        &mut self,
        resource_id: u32,
        offset: u64,
        target: &mut [u8],
    ) -> Result<(), RendererError> {
        self.check_mapped(resource_id)?;
        let read = Operation::ReadBlob {
            resource_id,
            offset,
        };
        self.renderer.call(read.with(Data::Room(target))).map(drop)
    }

    /// Writes such a blob.
    ///
    /// # Errors
    /// It is not mapped, or ends before, or the renderer is gone.
    pub fn write_mapped(
        &mut self,
        resource_id: u32,
        offset: u64,
        source: &[u8],
    ) -> Result<(), RendererError> {
        self.check_mapped(resource_id)?;
        let write = Operation::WriteBlob {
            resource_id,
            offset,
        };
        self.renderer
            .call(write.with(Data::Bytes(source)))
            .map(drop)
    }

    /// An access may come late, when the guest's other processor has unmapped the blob.
    fn check_mapped(&self, resource_id: u32) -> Result<(), RendererError> {
        let mut mappings = self.mappings.values();
        match mappings.any(|mapping| mapping.resource_id == resource_id) {
            true => Ok(()),
            false => Err(RendererError::refused("an access to no mapping", EINVAL)),
        }
    }

    /// Ends a resource's mapping, if it has one. The guest's sight goes first.
    pub(super) fn unmap(&mut self, id: u32) -> bool {
        let mut mappings = self.mappings.iter();
        let found = mappings.find(|(_, mapping)| mapping.resource_id == id);
        let Some((offset, mapping)) = found.map(|(offset, mapping)| (*offset, *mapping)) else {
            return false;
        };
        self.mappings.remove(&offset);
        let region = self.host_visible.as_mut();
        let shown = region.map_or(Ok(()), |region| region.unmap(offset, mapping.size));
        if shown.is_err() {
            self.counters.errors.count(ErrorKind::Host);
            // The range is lost: nobody's, and in nobody's way.
            self.mappings.insert(
                offset,
                Mapping {
                    resource_id: 0,
                    ..mapping
                },
            );
        }
        self.end(Operation::UnmapBlob { resource_id: id });
        true
    }
}

fn unknown(command: CommandId) -> CommandError {
    GuestError::UnknownCommand { command }.into()
}

fn out_of_range(offset: u64) -> CommandError {
    CommandError::Guest(GuestError::Parameter {
        field: "offset",
        value: offset,
    })
}
