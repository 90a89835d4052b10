// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A renderer without graphics: for devices that only do 2D, and for tests of those that do 3D.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{
    BlobMapping, BlobParams, CapsetInfo, GuestPages, Renderer, RendererError, Resource3d,
    Transfer3d,
};
use crate::fence::Fence;
use crate::geometry::Rect;
use crate::pixel::{BYTES_PER_PIXEL, row_bytes};

/// VIRTIO_GPU_CAPSET_VIRGL2.
const CAPSET_ID: u32 = 2;
const CAPSET: [u8; 16] = *b"null capset v1\0\0";
/// Bytes of one resource. A test needs no more, and a fuzzer would find more.
const MAX_RESOURCE_BYTES: u64 = 64 << 20;
/// What virglrenderer answers to most mistakes: EINVAL.
const EINVAL: i32 = 22;

/// Stream command: does nothing. One dword.
const NOP: u32 = 0;
/// Stream command: every pixel of a resource becomes a value. Three dwords.
const FILL: u32 = 1;

/// Keeps bytes and does what it is told, the same each time.
///
/// [`NullRenderer::default`] has no capset, so no guest reaches it. [`NullRenderer::rendering`]
/// has one, and a stream of two commands, little-endian dwords: `0` does nothing, `1 resource
/// value` fills a resource that is attached to the context. It refuses what virglrenderer
/// refuses, such as a second backing, so that a device that mixes up its calls is found out.
#[derive(Debug, Default)]
pub struct NullRenderer {
    renders: bool,
    contexts: BTreeMap<u32, BTreeSet<u32>>,
    resources: BTreeMap<u32, NullResource>,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct NullResource {
    width: u32,
    bytes: Vec<u8>,
    backed: bool,
    mapped: bool,
}

#[derive(Debug, Default)]
struct Shared {
    hold: bool,
    signalled: Vec<Fence>,
    held: Vec<Fence>,
    calls: u64,
    fail_at: Option<u64>,
    objects: usize,
}

/// The test's hand on a [`NullRenderer`] that a device owns.
#[derive(Clone, Debug)]
pub struct NullControl(Arc<Mutex<Shared>>);

impl NullControl {
    /// Holds fences back from now on, or lets them and all held ones signal.
    pub fn hold_fences(&self, hold: bool) {
        let mut shared = lock(&self.0);
        shared.hold = hold;
        if !hold {
            let held = mem::take(&mut shared.held);
            shared.signalled.extend(held);
        }
    }

    /// Lets the one call after `calls` more fail.
    pub fn fail_after(&self, calls: u64) {
        let mut shared = lock(&self.0);
        shared.fail_at = Some(shared.calls.saturating_add(calls));
    }

    /// Calls that could have failed so far.
    pub fn calls(&self) -> u64 {
        lock(&self.0).calls
    }

    /// Contexts and resources there are.
    pub fn objects(&self) -> usize {
        lock(&self.0).objects
    }
}

/// Nothing here panics while it holds the lock.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refused<T>(what: &'static str) -> Result<T, RendererError> {
    Err(RendererError::refused(what, EINVAL))
}

impl NullRenderer {
    /// A renderer with a capset, and the test's hand on it.
    pub fn rendering() -> (Self, NullControl) {
        let renderer = Self {
            renders: true,
            ..Self::default()
        };
        let control = NullControl(Arc::clone(&renderer.shared));
        (renderer, control)
    }

    /// Counts a call, and fails it if the test said so.
    fn call(&self, what: &'static str) -> Result<(), RendererError> {
        if !self.renders {
            return Err(RendererError::unsupported(what));
        }
        let mut shared = lock(&self.shared);
        let number = shared.calls;
        shared.calls = shared.calls.saturating_add(1);
        if shared.fail_at == Some(number) {
            shared.fail_at = None;
            return Err(RendererError::refused(what, -1));
        }
        Ok(())
    }

    fn count_objects(&self) {
        let objects = self.contexts.len().saturating_add(self.resources.len());
        lock(&self.shared).objects = objects;
    }

    fn resource(&mut self, id: u32) -> Result<&mut NullResource, RendererError> {
        let resource = self.resources.get_mut(&id);
        resource.ok_or(RendererError::refused("an unknown resource", EINVAL))
    }

    fn add(&mut self, id: u32, width: u32, bytes: u64, backed: bool) -> Result<(), RendererError> {
        let too_much = RendererError::OutOfMemory { bytes };
        let size = usize::try_from(bytes).map_err(|_| too_much.clone())?;
        if bytes > MAX_RESOURCE_BYTES {
            return Err(too_much);
        }
        if self.resources.contains_key(&id) {
            return refused("a resource id in use");
        }
        let resource = NullResource {
            width,
            bytes: vec![0; size],
            backed,
            mapped: false,
        };
        self.resources.insert(id, resource);
        self.count_objects();
        Ok(())
    }

    /// Calls `copy` with the resource's bytes and the distance into the backing of each row.
    fn rows(
        &mut self,
        id: u32,
        transfer: &Transfer3d,
        mut copy: impl FnMut(&mut [u8], u64) -> Result<(), RendererError>,
    ) -> Result<(), RendererError> {
        let resource = self.resource(id)?;
        let own_stride = row_bytes(resource.width);
        let stride = match transfer.stride {
            0 => own_stride as u64,
            stride => stride.into(),
        };
        for row in 0..transfer.h {
            let from = u64::from(row)
                .checked_mul(stride)
                .and_then(|rows| rows.checked_add(transfer.offset));
            let to = (transfer.y as usize)
                .checked_add(row as usize)
                .and_then(|y| y.checked_mul(own_stride))
                .and_then(|start| start.checked_add(row_bytes(transfer.x)))
                .and_then(|start| Some(start..start.checked_add(row_bytes(transfer.w))?));
            let slice = to.and_then(|range| resource.bytes.get_mut(range));
            match (slice, from) {
                (Some(slice), Some(from)) => copy(slice, from)?,
                _ => return refused("a box outside the resource"),
            }
        }
        Ok(())
    }
}

const NO_MEMORY: RendererError = RendererError::refused("a range outside the backing", EINVAL);

impl Renderer for NullRenderer {
    fn capsets(&self) -> Vec<CapsetInfo> {
        let capset = CapsetInfo {
            id: CAPSET_ID,
            max_version: 1,
            max_size: 16,
        };
        if self.renders { vec![capset] } else { vec![] }
    }

    fn capset(&mut self, id: u32, version: u32) -> Result<Vec<u8>, RendererError> {
        self.call("a capset")?;
        match (id, version) {
            (CAPSET_ID, 0 | 1) => Ok(CAPSET.to_vec()),
            _ => refused("a capset"),
        }
    }

    fn create_context(&mut self, ctx_id: u32, _: u32, _: &[u8]) -> Result<(), RendererError> {
        self.call("a context")?;
        if self.contexts.insert(ctx_id, BTreeSet::new()).is_some() {
            return refused("a context id in use");
        }
        self.count_objects();
        Ok(())
    }

    fn destroy_context(&mut self, ctx_id: u32) -> Result<(), RendererError> {
        let known = self.contexts.remove(&ctx_id).is_some();
        self.count_objects();
        self.call("the end of a context")?;
        if known {
            Ok(())
        } else {
            refused("an unknown context")
        }
    }

    fn attach_resource(&mut self, ctx_id: u32, resource_id: u32) -> Result<(), RendererError> {
        self.call("an attachment")?;
        self.resource(resource_id)?;
        let attached = self.contexts.get_mut(&ctx_id);
        if attached.is_some_and(|attached| attached.insert(resource_id)) {
            return Ok(());
        }
        refused("an attachment")
    }

    fn detach_resource(&mut self, ctx_id: u32, resource_id: u32) -> Result<(), RendererError> {
        let attached = self.contexts.get_mut(&ctx_id);
        let known = attached.is_some_and(|attached| attached.remove(&resource_id));
        self.call("a detachment")?;
        if known {
            Ok(())
        } else {
            refused("a detachment")
        }
    }

    fn create_resource(&mut self, id: u32, params: &Resource3d) -> Result<(), RendererError> {
        self.call("a resource")?;
        let factors = [params.width, params.height, params.depth, params.array_size];
        let texels = factors
            .into_iter()
            .map(|factor| u64::from(factor.max(1)))
            .fold(BYTES_PER_PIXEL as u64, u64::saturating_mul);
        self.add(id, params.width, texels, false)
    }

    fn create_blob(
        &mut self,
        ctx_id: u32,
        id: u32,
        params: &BlobParams,
        pages: Option<&dyn GuestPages>,
    ) -> Result<(), RendererError> {
        self.call("a blob")?;
        if ctx_id != 0 && !self.contexts.contains_key(&ctx_id) {
            return refused("an unknown context");
        }
        self.add(id, 0, params.size, pages.is_some())
    }

    fn destroy_resource(&mut self, id: u32) -> Result<(), RendererError> {
        let known = self.resources.remove(&id).is_some();
        self.count_objects();
        self.call("the end of a resource")?;
        let mut contexts = self.contexts.values();
        if known && !contexts.any(|attached| attached.contains(&id)) {
            return Ok(());
        }
        refused("the end of an unknown or attached resource")
    }

    fn attach_backing(&mut self, id: u32, _: &dyn GuestPages) -> Result<(), RendererError> {
        self.call("a backing")?;
        if mem::replace(&mut self.resource(id)?.backed, true) {
            return refused("a second backing");
        }
        Ok(())
    }

    fn detach_backing(&mut self, id: u32) -> Result<(), RendererError> {
        self.call("the end of a backing")?;
        if mem::replace(&mut self.resource(id)?.backed, false) {
            return Ok(());
        }
        refused("the end of no backing")
    }

    fn transfer_to_host(
        &mut self,
        _: u32,
        id: u32,
        transfer: &Transfer3d,
        pages: &dyn GuestPages,
    ) -> Result<(), RendererError> {
        self.call("a transfer")?;
        self.rows(id, transfer, |row, offset| {
            pages.read(offset, row).map_err(|_| NO_MEMORY)
        })
    }

    fn transfer_from_host(
        &mut self,
        _: u32,
        id: u32,
        transfer: &Transfer3d,
        pages: &dyn GuestPages,
    ) -> Result<(), RendererError> {
        self.call("a transfer")?;
        self.rows(id, transfer, |row, offset| {
            pages.write(offset, row).map_err(|_| NO_MEMORY)
        })
    }

    fn read_pixels(
        &mut self,
        id: u32,
        rect: Rect,
        stride: usize,
        target: &mut [u8],
    ) -> Result<(), RendererError> {
        self.call("pixels")?;
        let mut rows = target.chunks_mut(stride.max(1));
        // Only the resource's side of it counts.
        self.rows(id, &Transfer3d::of_rect(rect, 0), |from, _| {
            let row = rows.next().and_then(|row| row.get_mut(..from.len()));
            row.ok_or(NO_MEMORY)?.copy_from_slice(from);
            Ok(())
        })
    }

    fn read_blob(&mut self, id: u32, offset: u64, target: &mut [u8]) -> Result<(), RendererError> {
        self.call("a blob's bytes")?;
        let start = usize::try_from(offset).map_err(|_| NO_MEMORY)?;
        let end = start.checked_add(target.len()).ok_or(NO_MEMORY)?;
        let bytes = self.resource(id)?.bytes.get(start..end);
        target.copy_from_slice(bytes.ok_or(NO_MEMORY)?);
        Ok(())
    }

    fn write_blob(&mut self, id: u32, offset: u64, source: &[u8]) -> Result<(), RendererError> {
        self.call("a blob's bytes")?;
        let start = usize::try_from(offset).map_err(|_| NO_MEMORY)?;
        let end = start.checked_add(source.len()).ok_or(NO_MEMORY)?;
        let bytes = self.resource(id)?.bytes.get_mut(start..end);
        bytes.ok_or(NO_MEMORY)?.copy_from_slice(source);
        Ok(())
    }

    fn write_pixels(
        &mut self,
        id: u32,
        rect: Rect,
        stride: usize,
        source: &[u8],
    ) -> Result<(), RendererError> {
        self.call("pixels")?;
        let mut rows = source.chunks(stride.max(1));
        // Only the resource's side of it counts.
        self.rows(id, &Transfer3d::of_rect(rect, 0), |to, _| {
            let row = rows.next().and_then(|row| row.get(..to.len()));
            to.copy_from_slice(row.ok_or(NO_MEMORY)?);
            Ok(())
        })
    }

    fn submit(&mut self, ctx_id: u32, stream: &[u8], _: &[u64]) -> Result<(), RendererError> {
        self.call("a stream")?;
        let (words, rest) = stream.as_chunks::<4>();
        if !rest.is_empty() {
            return refused("a stream of odd length");
        }
        let mut words = words.iter().map(|word| u32::from_le_bytes(*word));
        while let Some(command) = words.next() {
            match command {
                NOP => {}
                FILL => {
                    let (Some(id), Some(value)) = (words.next(), words.next()) else {
                        return refused("a stream that ends early");
                    };
                    let attached = self.contexts.get(&ctx_id);
                    if !attached.is_some_and(|attached| attached.contains(&id)) {
                        return refused("a resource of another context");
                    }
                    let (pixels, _) = self.resource(id)?.bytes.as_chunks_mut::<4>();
                    pixels.fill(value.to_le_bytes());
                }
                _ => return refused("a stream"),
            }
        }
        Ok(())
    }

    fn create_fence(&mut self, fence: Fence) -> Result<(), RendererError> {
        self.call("a fence")?;
        let mut shared = lock(&self.shared);
        if shared.hold {
            shared.held.push(fence);
        } else {
            shared.signalled.push(fence);
        }
        Ok(())
    }

    fn poll(&mut self) -> Vec<Fence> {
        mem::take(&mut lock(&self.shared).signalled)
    }

    /// Nobody outside speaks to it.
    fn release_waits(&mut self) {}

    fn map_blob(&mut self, id: u32) -> Result<BlobMapping, RendererError> {
        self.call("a mapping")?;
        let resource = self.resource(id)?;
        if mem::replace(&mut resource.mapped, true) {
            return refused("a second mapping");
        }
        Ok(BlobMapping {
            resource_id: id,
            file: None,
            address: None,
            size: resource.bytes.len() as u64,
            map_info: 1,
        })
    }

    fn unmap_blob(&mut self, id: u32) -> Result<(), RendererError> {
        self.call("the end of a mapping")?;
        if mem::replace(&mut self.resource(id)?.mapped, false) {
            return Ok(());
        }
        refused("the end of no mapping")
    }

    fn failure(&self) -> Option<String> {
        None
    }

    /// It does not end by itself.
    fn restart(&mut self) -> Result<(), RendererError> {
        Ok(())
    }
}
