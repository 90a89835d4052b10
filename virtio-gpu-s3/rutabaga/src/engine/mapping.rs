// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The bytes of blobs: for the guest, which maps them, and for us, who show them.

use std::fs::File;
use std::io::Error as IoError;
use std::os::fd::AsFd;
use std::ptr;

use rustix::mm::munmap;
use rutabaga_gfx::{RUTABAGA_HANDLE_TYPE_MEM_OPAQUE_FD, RutabagaMagmaHandle};
use vm_memory::{Bytes, FileOffset, VolatileSlice};

use super::{EINVAL, Engine, OUTSIDE, refused};
use virtio_gpu_s3::renderer::{BlobMapping, RendererError};

/// VIRTIO_GPU_MAP_CACHE_NONE.
const MAP_CACHE_NONE: u32 = 0;

/// What is known of a blob's bytes.
#[derive(Debug, Default)]
pub(super) struct Blob {
    size: u64,
    /// Shared memory of a context of venus: its blob 0.
    shared: bool,
    /// Where virglrenderer mapped it, which it does once, for the guest and for us.
    mapping: Option<Mapping>,
    /// The guest has it in its sight.
    shown: bool,
    /// rutabaga gives a file away once.
    file: Option<File>,
}

impl Blob {
    pub(super) fn new(size: u64, shared: bool) -> Self {
        Self {
            size,
            shared,
            ..Self::default()
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Mapping {
    address: usize,
    size: u64,
}

impl Engine {
    pub(super) fn map_blob(&mut self, id: u32) -> Result<BlobMapping, RendererError> {
        if self.held(id)?.blob.shown {
            return Err(RendererError::refused("a second mapping", EINVAL));
        }
        let file = self.blob_file(id)?;
        let (address, size) = match file {
            Some(_) => (None, self.held(id)?.blob.size),
            // What has no file is reached through this process, if it can be reached at all.
            None => {
                let Mapping { address, size } = self.mapping(id)?;
                (Some(address), size)
            }
        };
        self.held(id)?.blob.shown = true;
        Ok(BlobMapping {
            resource_id: id,
            file: file.map(|file| FileOffset::new(file, 0)),
            address,
            size,
            map_info: self.rutabaga.map_info(id).unwrap_or(MAP_CACHE_NONE),
        })
    }

    pub(super) fn unmap_blob(&mut self, id: u32) -> Result<(), RendererError> {
        let blob = &mut self.held(id)?.blob;
        if !blob.shown {
            return Err(RendererError::refused("the end of no mapping", EINVAL));
        }
        blob.shown = false;
        let ended = Blob {
            mapping: blob.mapping.take(),
            ..Blob::new(blob.size, blob.shared)
        };
        self.end_mapping(id, &ended)
    }

    /// The file whose bytes are the blob's. A driver's opaque file is none: what lies in it, and
    /// where, is between two instances of the driver (VK_KHR_external_memory_fd).
    fn blob_file(&mut self, id: u32) -> Result<Option<File>, RendererError> {
        if self.held(id)?.blob.file.is_none() {
            let handle = self.rutabaga.export_blob(id).ok();
            let handle = handle.and_then(|handle| RutabagaMagmaHandle::try_from(handle).ok());
            let mappable =
                |it: &RutabagaMagmaHandle| it.handle_type != RUTABAGA_HANDLE_TYPE_MEM_OPAQUE_FD;
            let file = handle.filter(mappable);
            let file = file.map(|it| it.os_handle.as_fd().try_clone_to_owned());
            let file = file.transpose().map_err(|error| no_file(&error))?;
            self.held(id)?.blob.file = file.map(File::from);
        }
        let file = self.held(id)?.blob.file.as_ref().map(File::try_clone);
        file.transpose().map_err(|error| no_file(&error))
    }

    pub(super) fn read_blob(
        &mut self,
        id: u32,
        offset: u64,
        target: &mut [u8],
    ) -> Result<(), RendererError> {
        let slice = self.bytes(id, offset, target.len())?;
        slice.read_slice(target, 0).map_err(|_| OUTSIDE)
    }

    pub(super) fn write_blob(
        &mut self,
        id: u32,
        offset: u64,
        source: &[u8],
    ) -> Result<(), RendererError> {
        let slice = self.bytes(id, offset, source.len())?;
        slice.write_slice(source, 0).map_err(|_| OUTSIDE)
    }

    fn bytes(
        &mut self,
        id: u32,
        offset: u64,
        length: usize,
    ) -> Result<VolatileSlice<'_>, RendererError> {
        let mapping = self.mapping(id)?;
        let end = offset.checked_add(length as u64).ok_or(OUTSIDE)?;
        let start = usize::try_from(offset).ok();
        let start = start.and_then(|start| mapping.address.checked_add(start));
        let start = start.filter(|_| end <= mapping.size).ok_or(OUTSIDE)?;
        let address = ptr::with_exposed_provenance_mut(start);
        // SAFETY: virglrenderer maps `size` bytes at `address` until the blob is unmapped, which
        // only this thread does and not while the engine is borrowed, and the range was checked to
        // lie inside. A guest and a GPU may write the memory meanwhile, so all access is volatile.
        Ok(unsafe { VolatileSlice::new(address, length) })
    }

    fn mapping(&mut self, id: u32) -> Result<Mapping, RendererError> {
        if let Some(mapping) = self.held(id)?.blob.mapping {
            return Ok(mapping);
        }
        let raw = self.rutabaga.map(id).map_err(refused("a mapping"))?;
        let mapping = Mapping {
            address: usize::try_from(raw.ptr).map_err(|_| OUTSIDE)?,
            size: raw.size,
        };
        self.held(id)?.blob.mapping = Some(mapping);
        Ok(mapping)
    }

    /// virglrenderer 0.10.4 maps the shared memory of venus and cannot unmap it: it forgets the
    /// mapping and says EINVAL. Newer ones do it.
    pub(super) fn end_mapping(&mut self, id: u32, blob: &Blob) -> Result<(), RendererError> {
        let Some(mapping) = blob.mapping else {
            return Ok(());
        };
        let ended = self.rutabaga.unmap(id).map_err(refused("an unmapping"));
        let size = usize::try_from(mapping.size);
        if let (true, Err(_), Ok(size)) = (blob.shared, &ended, size) {
            let address = ptr::with_exposed_provenance_mut(mapping.address);
            // SAFETY: virglrenderer mapped so many bytes there with mmap, and has just forgotten
            // it; all that was given away of it ended before, which is what this call is for.
            let unmapped = unsafe { munmap(address, size) };
            return unmapped
                .map_err(|error| RendererError::refused("an unmapping", error.raw_os_error()));
        }
        ended
    }
}

fn no_file(error: &IoError) -> RendererError {
    RendererError::refused("a blob's file", error.raw_os_error().unwrap_or(EINVAL))
}
