// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A renderer without graphics that a test has its hand on.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtio_gpu_s3::Fence;
use virtio_gpu_s3::Rect;
use virtio_gpu_s3::renderer::{
    Answer, Begun, BlobMapping, Call, CapsetInfo, Completion, Data, GuestPages, Operation,
    Renderer, RendererError, Resource3d, Ticket, Transfer3d,
};
use virtio_gpu_s3::{BYTES_PER_PIXEL, row_bytes};

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
/// It has one capset, and a stream of two commands, little-endian dwords: `0` does nothing, `1
/// resource value` fills a resource that is attached to the context. It refuses what virglrenderer
/// refuses, such as a second backing, so that a device that mixes up its calls is found out.
#[derive(Debug, Default)]
pub struct ScriptedRenderer {
    contexts: BTreeMap<u32, BTreeSet<u32>>,
    resources: BTreeMap<u32, ScriptedResource>,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct ScriptedResource {
    width: u32,
    bytes: Vec<u8>,
    backed: bool,
    mapped: bool,
}

#[derive(Debug, Default)]
struct Shared {
    hold: bool,
    finished: Vec<Completion>,
    held: Vec<Fence>,
    /// Answers held back, where calls are in flight at all.
    in_flight: Option<Vec<Completion>>,
    failure: Option<String>,
    calls: u64,
    fail_at: Option<u64>,
    objects: usize,
}

/// The test's hand on a [`ScriptedRenderer`] that a device owns.
#[derive(Clone, Debug)]
pub struct RendererControl(Arc<Mutex<Shared>>);

impl RendererControl {
    /// Holds fences back from now on, or lets them and all held ones signal.
    pub fn hold_fences(&self, hold: bool) {
        let mut shared = lock(&self.0);
        shared.hold = hold;
        if !hold {
            let held = mem::take(&mut shared.held);
            shared
                .finished
                .extend(held.into_iter().map(Completion::Fence));
        }
    }

    /// Answers calls that are begun only when [`answer`](Self::answer) is called, from now on.
    pub fn hold_answers(&self) {
        lock(&self.0).in_flight.get_or_insert_default();
    }

    /// Answers so many of the calls in flight, oldest first.
    pub fn answer(&self, count: usize) {
        let mut shared = lock(&self.0);
        let Shared {
            in_flight,
            finished,
            ..
        } = &mut *shared;
        if let Some(held) = in_flight {
            finished.extend(held.drain(..count.min(held.len())));
        }
    }

    /// Calls in flight.
    pub fn in_flight(&self) -> usize {
        lock(&self.0).in_flight.as_ref().map_or(0, Vec::len)
    }

    /// Ends the renderer, with everything in it, until it is started anew.
    pub fn crash(&self, why: &str) {
        lock(&self.0).failure = Some(why.to_owned());
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

impl ScriptedRenderer {
    /// A renderer, and the test's hand on it.
    pub fn new() -> (Self, RendererControl) {
        let renderer = Self::default();
        let control = RendererControl(Arc::clone(&renderer.shared));
        (renderer, control)
    }

    /// Counts a call, and fails it if the test said so.
    fn count(&self, what: &'static str) -> Result<(), RendererError> {
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

    fn resource(&mut self, id: u32) -> Result<&mut ScriptedResource, RendererError> {
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
        let resource = ScriptedResource {
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

impl Renderer for ScriptedRenderer {
    fn capsets(&self) -> Vec<CapsetInfo> {
        vec![CapsetInfo {
            id: CAPSET_ID,
            max_version: 1,
            max_size: 16,
        }]
    }

    fn call(&mut self, call: Call<'_>) -> Result<Answer, RendererError> {
        if lock(&self.shared).failure.is_some() {
            return Err(RendererError::Gone);
        }
        let Call {
            operation,
            data,
            fence,
        } = call;
        let answer = self.run(operation, data)?;
        if let Some(fence) = fence {
            self.create_fence(fence)?;
        }
        Ok(answer)
    }

    fn begin(&mut self, call: Call<'_>, ticket: Ticket) -> Begun {
        let result = self.call(call);
        match &mut lock(&self.shared).in_flight {
            Some(held) => {
                let result = result.map(drop);
                held.push(Completion::Call { ticket, result });
                Begun::InFlight
            }
            None => Begun::Answered(result),
        }
    }

    fn poll(&mut self) -> Vec<Completion> {
        mem::take(&mut lock(&self.shared).finished)
    }

    /// Nobody outside speaks to it.
    fn release_waits(&mut self) {}

    fn failure(&self) -> Option<String> {
        lock(&self.shared).failure.clone()
    }

    fn restart(&mut self) -> Result<(), RendererError> {
        let mut shared = lock(&self.shared);
        if shared.failure.take().is_some() {
            shared.held.clear();
            shared.finished.clear();
            shared.in_flight = shared.in_flight.is_some().then(Vec::new);
            drop(shared);
            self.contexts.clear();
            self.resources.clear();
            self.count_objects();
        }
        Ok(())
    }
}

impl ScriptedRenderer {
    fn run(&mut self, operation: Operation, data: Data<'_>) -> Result<Answer, RendererError> {
        match operation {
            Operation::Capset { id, version } => return self.capset(id, version),
            Operation::MapBlob { resource_id } => return self.map_blob(resource_id),
            Operation::CreateContext { ctx_id, .. } => self.create_context(ctx_id),
            Operation::DestroyContext { ctx_id } => self.destroy_context(ctx_id),
            Operation::AttachResource {
                ctx_id,
                resource_id,
            } => self.attach_resource(ctx_id, resource_id),
            Operation::DetachResource {
                ctx_id,
                resource_id,
            } => self.detach_resource(ctx_id, resource_id),
            Operation::CreateResource {
                resource_id,
                ref params,
            } => self.create_resource(resource_id, params),
            Operation::CreateBlob {
                ctx_id,
                resource_id,
                params,
            } => {
                let backed = matches!(data, Data::Pages(_));
                self.create_blob(ctx_id, resource_id, params.size, backed)
            }
            Operation::DestroyResource { resource_id } => self.destroy_resource(resource_id),
            Operation::AttachBacking { resource_id } => {
                data.pages().and_then(|_| self.attach_backing(resource_id))
            }
            Operation::DetachBacking { resource_id } => self.detach_backing(resource_id),
            Operation::Submit { ctx_id, .. } => {
                let mut buffer = Vec::new();
                self.submit(ctx_id, data.words(&mut buffer))
            }
            Operation::UnmapBlob { resource_id } => self.unmap_blob(resource_id),
            operation => self.copy(&operation, data),
        }
        .map(|()| Answer::Done)
    }

    /// What moves bytes.
    fn copy(&mut self, operation: &Operation, data: Data<'_>) -> Result<(), RendererError> {
        match *operation {
            Operation::TransferToHost {
                resource_id,
                ref transfer,
                ..
            } => self.transfer_to_host(resource_id, transfer, data.pages()?),
            Operation::TransferFromHost {
                resource_id,
                ref transfer,
                ..
            } => self.transfer_from_host(resource_id, transfer, data.pages()?),
            Operation::ReadPixels {
                resource_id,
                rect,
                stride,
            } => self.read_pixels(resource_id, rect, stride, data.room()?),
            Operation::WritePixels {
                resource_id,
                rect,
                stride,
            } => self.write_pixels(resource_id, rect, stride, data.bytes()?),
            Operation::ReadBlob {
                resource_id,
                offset,
            } => self.read_blob(resource_id, offset, data.room()?),
            Operation::WriteBlob {
                resource_id,
                offset,
            } => self.write_blob(resource_id, offset, data.bytes()?),
            Operation::Fence => Ok(()),
            _ => Err(RendererError::unsupported("such a call")),
        }
    }

    fn capset(&mut self, id: u32, version: u32) -> Result<Answer, RendererError> {
        self.count("a capset")?;
        match (id, version) {
            (CAPSET_ID, 0 | 1) => Ok(Answer::Capset(CAPSET.to_vec())),
            _ => refused("a capset"),
        }
    }

    fn create_context(&mut self, ctx_id: u32) -> Result<(), RendererError> {
        self.count("a context")?;
        if self.contexts.insert(ctx_id, BTreeSet::new()).is_some() {
            return refused("a context id in use");
        }
        self.count_objects();
        Ok(())
    }

    fn destroy_context(&mut self, ctx_id: u32) -> Result<(), RendererError> {
        let known = self.contexts.remove(&ctx_id).is_some();
        self.count_objects();
        self.count("the end of a context")?;
        if known {
            Ok(())
        } else {
            refused("an unknown context")
        }
    }

    fn attach_resource(&mut self, ctx_id: u32, resource_id: u32) -> Result<(), RendererError> {
        self.count("an attachment")?;
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
        self.count("a detachment")?;
        if known {
            Ok(())
        } else {
            refused("a detachment")
        }
    }

    fn create_resource(&mut self, id: u32, params: &Resource3d) -> Result<(), RendererError> {
        self.count("a resource")?;
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
        size: u64,
        backed: bool,
    ) -> Result<(), RendererError> {
        self.count("a blob")?;
        if ctx_id != 0 && !self.contexts.contains_key(&ctx_id) {
            return refused("an unknown context");
        }
        self.add(id, 0, size, backed)
    }

    fn destroy_resource(&mut self, id: u32) -> Result<(), RendererError> {
        let known = self.resources.remove(&id).is_some();
        self.count_objects();
        self.count("the end of a resource")?;
        let mut contexts = self.contexts.values();
        if known && !contexts.any(|attached| attached.contains(&id)) {
            return Ok(());
        }
        refused("the end of an unknown or attached resource")
    }

    fn attach_backing(&mut self, id: u32) -> Result<(), RendererError> {
        self.count("a backing")?;
        if mem::replace(&mut self.resource(id)?.backed, true) {
            return refused("a second backing");
        }
        Ok(())
    }

    fn detach_backing(&mut self, id: u32) -> Result<(), RendererError> {
        self.count("the end of a backing")?;
        if mem::replace(&mut self.resource(id)?.backed, false) {
            return Ok(());
        }
        refused("the end of no backing")
    }

    fn transfer_to_host(
        &mut self,
        id: u32,
        transfer: &Transfer3d,
        pages: &dyn GuestPages,
    ) -> Result<(), RendererError> {
        self.count("a transfer")?;
        self.rows(id, transfer, |row, offset| {
            pages.read(offset, row).map_err(|_| NO_MEMORY)
        })
    }

    fn transfer_from_host(
        &mut self,
        id: u32,
        transfer: &Transfer3d,
        pages: &dyn GuestPages,
    ) -> Result<(), RendererError> {
        self.count("a transfer")?;
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
        self.count("pixels")?;
        let mut rows = target.chunks_mut(stride.max(1));
        // Only the resource's side of it counts.
        self.rows(id, &Transfer3d::of_rect(rect, 0), |from, _| {
            let row = rows.next().and_then(|row| row.get_mut(..from.len()));
            row.ok_or(NO_MEMORY)?.copy_from_slice(from);
            Ok(())
        })
    }

    fn read_blob(&mut self, id: u32, offset: u64, target: &mut [u8]) -> Result<(), RendererError> {
        self.count("a blob's bytes")?;
        let start = usize::try_from(offset).map_err(|_| NO_MEMORY)?;
        let end = start.checked_add(target.len()).ok_or(NO_MEMORY)?;
        let bytes = self.resource(id)?.bytes.get(start..end);
        target.copy_from_slice(bytes.ok_or(NO_MEMORY)?);
        Ok(())
    }

    fn write_blob(&mut self, id: u32, offset: u64, source: &[u8]) -> Result<(), RendererError> {
        self.count("a blob's bytes")?;
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
        self.count("pixels")?;
        let mut rows = source.chunks(stride.max(1));
        // Only the resource's side of it counts.
        self.rows(id, &Transfer3d::of_rect(rect, 0), |to, _| {
            let row = rows.next().and_then(|row| row.get(..to.len()));
            to.copy_from_slice(row.ok_or(NO_MEMORY)?);
            Ok(())
        })
    }

    fn submit(
        &mut self,
        ctx_id: u32,
        stream: Result<&mut [u32], RendererError>,
    ) -> Result<(), RendererError> {
        self.count("a stream")?;
        let mut words = stream?.iter().map(|word| u32::from_le(*word));
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
        self.count("a fence")?;
        let mut shared = lock(&self.shared);
        if shared.hold {
            shared.held.push(fence);
        } else {
            shared.finished.push(Completion::Fence(fence));
        }
        Ok(())
    }

    fn map_blob(&mut self, id: u32) -> Result<Answer, RendererError> {
        self.count("a mapping")?;
        let resource = self.resource(id)?;
        if mem::replace(&mut resource.mapped, true) {
            return refused("a second mapping");
        }
        Ok(Answer::Mapped(BlobMapping {
            resource_id: id,
            file: None,
            address: None,
            size: resource.bytes.len() as u64,
            map_info: 1,
        }))
    }

    fn unmap_blob(&mut self, id: u32) -> Result<(), RendererError> {
        self.count("the end of a mapping")?;
        if mem::replace(&mut self.resource(id)?.mapped, false) {
            return Ok(());
        }
        refused("the end of no mapping")
    }
}
