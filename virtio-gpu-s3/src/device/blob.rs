// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Blob resources (VIRTIO 1.4 §5.7.6.8, `RESOURCE_CREATE_BLOB`).

use super::Gpu;
use super::two_d::check_covers;
use crate::command_error::CommandError;
use crate::error::GuestError;
use crate::protocol::wire::MemEntry;
use crate::protocol::{
    BLOB_FLAG_USE_CROSS_DEVICE, BLOB_FLAG_USE_MAPPABLE, BLOB_FLAG_USE_SHAREABLE, BLOB_MEM_GUEST,
    BLOB_MEM_HOST3D, BLOB_MEM_HOST3D_GUEST, feature,
};
use crate::renderer::{BlobParams, Data, Operation, Pages};
use crate::resource::{Blob, Content, Resource};
use crate::response::Reply;
use vm_memory::GuestMemoryBackend;

const KNOWN_FLAGS: u32 =
    BLOB_FLAG_USE_MAPPABLE | BLOB_FLAG_USE_SHAREABLE | BLOB_FLAG_USE_CROSS_DEVICE;

impl Gpu {
    pub(super) fn resource_create_blob<M: GuestMemoryBackend + ?Sized>(
        &mut self,
        ctx_id: u32,
        id: u32,
        params: &BlobParams,
        entries: &[MemEntry],
        memory: &M,
    ) -> Result<Reply, CommandError> {
        self.check_new_resource_id(id)?;
        self.check_blob(ctx_id, params, entries)?;
        self.room_for_blob(id)?;
        let backing = match entries {
            [] => None,
            entries => Some(self.new_backing(id, entries, memory)?),
        };
        if let Some(backing) = &backing {
            check_covers(backing, params.size)?;
        }
        let in_renderer = params.blob_mem != BLOB_MEM_GUEST;
        let renderer_bytes = if in_renderer { params.size } else { 0 };
        let host_bytes = backing.as_ref().map_or(0, |backing| backing.host_bytes());
        self.room_for_resource(id, host_bytes, renderer_bytes)?;
        if in_renderer {
            let pages = backing.as_ref().map(|backing| Pages { backing, memory });
            let create = Operation::CreateBlob {
                ctx_id,
                resource_id: id,
                params: *params,
            };
            let call = create.with(Data::of_pages(pages.as_ref()));
            self.renderer.call(call)?;
        }
        let blob = Blob {
            params: *params,
            in_renderer,
        };
        self.resources
            .insert(id, Resource::new(Content::Blob(blob), backing));
        Ok(Reply::NoData)
    }

    /// Without the shared memory region a driver has nowhere to map host memory to, so no blob of
    /// the host can be mappable.
    fn check_blob(
        &mut self,
        ctx_id: u32,
        params: &BlobParams,
        entries: &[MemEntry],
    ) -> Result<(), GuestError> {
        let BlobParams {
            blob_mem,
            blob_flags,
            blob_id: _,
            size,
        } = *params;
        let refuse = |field, value| Err(GuestError::Parameter { field, value });
        if size == 0 {
            return refuse("size", size);
        }
        if blob_flags & !KNOWN_FLAGS != 0 {
            return refuse("blob_flags", blob_flags.into());
        }
        let renders = self.negotiated & feature::VIRGL != 0;
        match blob_mem {
            BLOB_MEM_GUEST => return Ok(()),
            BLOB_MEM_HOST3D if renders && entries.is_empty() => {}
            BLOB_MEM_HOST3D if renders => return refuse("nr_entries", entries.len() as u64),
            BLOB_MEM_HOST3D_GUEST if renders => {}
            _ => return refuse("blob_mem", blob_mem.into()),
        }
        if self.host_visible.is_none() && blob_flags & BLOB_FLAG_USE_MAPPABLE != 0 {
            return refuse("blob_flags", blob_flags.into());
        }
        self.context(ctx_id)?;
        Ok(())
    }
}
