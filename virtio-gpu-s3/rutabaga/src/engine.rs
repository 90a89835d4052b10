// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! rutabaga on its own thread, and what is done around its mistakes.

mod mapping;
mod operations;

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::io::IoSliceMut;
use std::sync::Arc;
use std::time::Duration;
use std::{mem, ptr};

use rutabaga_gfx::{
    RUTABAGA_CAPSET_VENUS, RUTABAGA_CAPSET_VIRGL, RUTABAGA_CAPSET_VIRGL2, ResourceCreate3D,
    ResourceCreateBlob, Rutabaga, RutabagaError, RutabagaIovec, RutabagaUnsupported, Transfer3D,
};
use zerocopy::IntoBytes;

use self::mapping::Blob;
pub(super) use self::operations::Given;
use super::fences::FenceTable;
use virtio_gpu_s3::Rect;
use virtio_gpu_s3::renderer::stream::{Growth, Target, check};
use virtio_gpu_s3::renderer::{BlobParams, CapsetInfo, RendererError, Resource3d, Transfer3d};
use virtio_gpu_s3::{Fence, Timeline};
use virtio_gpu_s3::{check_transfer, row_bytes};

/// The part of `context_init` that names a capset; 0 is virgl's first.
const CAPSET_MASK: u32 = 0xff;
const VIRGL_CAPSETS: [u32; 3] = [0, RUTABAGA_CAPSET_VIRGL, RUTABAGA_CAPSET_VIRGL2];
/// What rutabaga says without a number of virglrenderer's.
const EINVAL: i32 = 22;
/// A stream that names fences waits for them at most this long. Frames take milliseconds; a guest
/// that names a fence of a stream that never ends shall not have the device for ever.
const IN_FENCE_LIMIT: Duration = Duration::from_secs(1);
/// The end of a context waits for all work at most this long, as the device's worker does at a frozen reset.
const END_LIMIT: Duration = Duration::from_secs(2);

/// Address and length of a piece of memory.
pub(super) type Range = (usize, usize);

/// A context of virgl or of another protocol.
#[derive(Debug)]
struct Context {
    /// `None` where streams are not virgl's.
    growth: Option<Growth>,
}

#[derive(Debug, Default)]
struct Held {
    /// `None` of a blob.
    params: Option<Resource3d>,
    backing: Option<Vec<Range>>,
    blob: Blob,
}

impl Held {
    fn as_target(&self) -> Target<'_> {
        let pieces = self.backing.iter().flatten();
        Target {
            params: self.params.as_ref(),
            backing: pieces.fold(0, |sum, (_, length)| sum.saturating_add(*length as u64)),
        }
    }
}

pub(super) struct Engine {
    rutabaga: Rutabaga,
    fences: Arc<FenceTable>,
    contexts: BTreeMap<u32, Context>,
    resources: BTreeMap<u32, Held>,
    /// Descriptions of capsets, by id and version. virglrenderer finds out what OpenGL can do by trying, in whatever
    /// context is current, and leaves that without its framebuffer: it is asked before there is one.
    descriptions: BTreeMap<(u32, u32), Vec<u8>>,
}

impl Engine {
    pub(super) fn new(rutabaga: Rutabaga, fences: Arc<FenceTable>) -> Self {
        let mut engine = Self {
            rutabaga,
            fences,
            contexts: BTreeMap::new(),
            resources: BTreeMap::new(),
            descriptions: BTreeMap::new(),
        };
        for capset in engine.capsets() {
            for version in 0..=capset.max_version {
                if let Ok(description) = engine.rutabaga.get_capset(capset.id, version) {
                    engine
                        .descriptions
                        .insert((capset.id, version), description);
                }
            }
        }
        engine
    }

    /// Those that have a description.
    pub(super) fn capsets(&self) -> Vec<CapsetInfo> {
        let indices = 0..self.rutabaga.get_num_capsets();
        let known = indices.filter_map(|index| self.rutabaga.get_capset_info(index).ok());
        known
            .map(|(id, max_version, max_size)| CapsetInfo {
                id,
                max_version,
                max_size,
            })
            .filter(|capset| capset.max_size > 0)
            .collect()
    }

    /// A capset that was asked for is listed even where it was not initialised, with zeros.
    pub(super) fn has_venus(&self) -> bool {
        let described = |capset: &CapsetInfo| {
            let bytes = self.capset(capset.id, capset.max_version);
            bytes.is_ok_and(|bytes| bytes.iter().any(|byte| *byte != 0))
        };
        let capsets = self.capsets();
        let venus = capsets.iter().find(|it| it.id == RUTABAGA_CAPSET_VENUS);
        venus.is_some_and(described)
    }

    pub(super) fn capset(&self, id: u32, version: u32) -> Result<Vec<u8>, RendererError> {
        let description = self.descriptions.get(&(id, version));
        let unknown = RendererError::refused("an unknown capset", EINVAL);
        description.cloned().ok_or(unknown)
    }

    fn create_context(
        &mut self,
        ctx_id: u32,
        context_init: u32,
        name: &str,
    ) -> Result<(), RendererError> {
        let name = Some(name).filter(|name| !name.is_empty());
        self.rutabaga
            .create_context(ctx_id, context_init, name)
            .map_err(refused("a context"))?;
        let is_virgl = VIRGL_CAPSETS.contains(&(context_init & CAPSET_MASK));
        let growth = is_virgl.then(Growth::default);
        self.contexts.insert(ctx_id, Context { growth });
        Ok(())
    }

    fn destroy_context(&mut self, ctx_id: u32) -> Result<(), RendererError> {
        // virglrenderer 0.10.4 frees the context while its own thread may be signalling a fence of it, and forgets the
        // fence of any other context that this thread waits for then.
        let what = "the end of a context that still works";
        self.fences.drain(END_LIMIT, what, || self.poll())?;
        self.contexts.remove(&ctx_id);
        let ended = self.rutabaga.destroy_context(ctx_id);
        self.fences.end_context(ctx_id);
        ended.map_err(refused("the end of a context"))
    }

    fn attach_resource(&mut self, ctx_id: u32, id: u32) -> Result<(), RendererError> {
        self.rutabaga
            .context_attach_resource(ctx_id, id)
            .map_err(refused("an attachment"))
    }

    fn detach_resource(&mut self, ctx_id: u32, id: u32) -> Result<(), RendererError> {
        self.rutabaga
            .context_detach_resource(ctx_id, id)
            .map_err(refused("a detachment"))
    }

    fn create_resource(&mut self, id: u32, params: &Resource3d) -> Result<(), RendererError> {
        let Resource3d {
            target,
            format,
            bind,
            width,
            height,
            depth,
            array_size,
            last_level,
            nr_samples,
            flags,
        } = *params;
        let creation = ResourceCreate3D {
            target,
            format,
            bind,
            width,
            height,
            depth,
            array_size,
            last_level,
            nr_samples,
            flags,
        };
        self.rutabaga
            .resource_create_3d(id, creation)
            .map_err(refused("a resource"))?;
        let held = Held {
            params: Some(*params),
            ..Held::default()
        };
        self.resources.insert(id, held);
        Ok(())
    }

    fn create_blob(
        &mut self,
        ctx_id: u32,
        id: u32,
        params: &BlobParams,
        backing: Option<Vec<Range>>,
    ) -> Result<(), RendererError> {
        let BlobParams {
            blob_mem,
            blob_flags,
            blob_id,
            size,
        } = *params;
        let params = ResourceCreateBlob {
            blob_mem,
            blob_flags,
            blob_id,
            size,
        };
        let iovecs = backing.as_deref().map(iovecs);
        self.rutabaga
            .resource_create_blob(ctx_id, id, params, iovecs, None)
            .map_err(refused("a blob"))?;
        let context = self.contexts.get_mut(&ctx_id);
        let growth = context.map(|context| context.growth.as_mut());
        let shared = matches!(growth, Some(None)) && blob_id == 0;
        if let Some(Some(growth)) = growth {
            growth.take(blob_id);
        }
        let held = Held {
            params: None,
            backing,
            blob: Blob::new(size, shared),
        };
        self.resources.insert(id, held);
        Ok(())
    }

    /// virglrenderer may keep the texture for as long as an object of a context uses it, and
    /// rutabaga frees the list of its backing before it tells: the list is taken away first.
    fn destroy_resource(&mut self, id: u32) -> Result<(), RendererError> {
        let (mut unmapped, mut detached) = (Ok(()), Ok(()));
        if let Some(held) = self.resources.remove(&id) {
            unmapped = self.end_mapping(id, &held.blob);
            if held.backing.is_some() {
                detached = self.detach_iovecs(id);
            }
        }
        let ended = self.rutabaga.unref_resource(id);
        let ended = ended.map_err(refused("the end of a resource"));
        unmapped.and(detached).and(ended)
    }

    fn attach_backing(&mut self, id: u32, backing: Vec<Range>) -> Result<(), RendererError> {
        self.attach_iovecs(id, &backing)?;
        self.held(id)?.backing = Some(backing);
        Ok(())
    }

    fn detach_backing(&mut self, id: u32) -> Result<(), RendererError> {
        self.held(id)?.backing = None;
        self.detach_iovecs(id)
    }

    fn transfer_to_host(
        &mut self,
        ctx_id: u32,
        id: u32,
        transfer: &Transfer3d,
    ) -> Result<(), RendererError> {
        self.rutabaga
            .transfer_write(ctx_id, id, transfer_of(transfer), None)
            .map_err(refused("a transfer"))
    }

    fn transfer_from_host(
        &mut self,
        ctx_id: u32,
        id: u32,
        transfer: &Transfer3d,
    ) -> Result<(), RendererError> {
        self.rutabaga
            .transfer_read(ctx_id, id, transfer_of(transfer), None)
            .map_err(refused("a transfer"))
    }

    /// Rows are zeroed first: virglrenderer says that it has read where OpenGL could not.
    fn read_pixels(
        &mut self,
        id: u32,
        rect: Rect,
        stride: usize,
        target: &mut [u8],
    ) -> Result<(), RendererError> {
        let (bytes, transfer) = rows(rect, stride).ok_or(OUTSIDE)?;
        let target = target.get_mut(..bytes).ok_or(OUTSIDE)?;
        for row in target.chunks_mut(stride.max(1)) {
            let length = row_bytes(rect.width).min(row.len());
            row.get_mut(..length).unwrap_or_default().fill(0);
        }
        self.rutabaga
            .transfer_read(0, id, transfer, Some(IoSliceMut::new(target)))
            .map_err(refused("a read-back"))
    }

    /// rutabaga writes to virglrenderer from a backing only, so the source becomes one for the
    /// time.
    fn write_pixels(
        &mut self,
        id: u32,
        rect: Rect,
        stride: usize,
        source: &[u8],
    ) -> Result<(), RendererError> {
        let (bytes, transfer) = rows(rect, stride).ok_or(OUTSIDE)?;
        let source = source.get(..bytes).ok_or(OUTSIDE)?;
        self.write(id, transfer, source)
    }

    fn read_level(
        &mut self,
        id: u32,
        transfer: &Transfer3d,
        target: &mut [u8],
    ) -> Result<(), RendererError> {
        self.check_level(id, transfer, target.len())?;
        let transfer = transfer_of(transfer);
        self.rutabaga
            .transfer_read(0, id, transfer, Some(IoSliceMut::new(target)))
            .map_err(refused("a read-back"))
    }

    fn write_level(
        &mut self,
        id: u32,
        transfer: &Transfer3d,
        source: &[u8],
    ) -> Result<(), RendererError> {
        self.check_level(id, transfer, source.len())?;
        self.write(id, transfer_of(transfer), source)
    }

    /// As a guest's transfer is checked before virglrenderer sees it.
    fn check_level(
        &mut self,
        id: u32,
        transfer: &Transfer3d,
        bytes: usize,
    ) -> Result<(), RendererError> {
        let params = self.held(id)?.params;
        check_transfer(params.as_ref(), transfer, bytes as u64).map_err(|_| OUTSIDE)
    }

    /// Writes to a resource from a buffer, which is its backing for the time.
    fn write(&mut self, id: u32, transfer: Transfer3D, source: &[u8]) -> Result<(), RendererError> {
        let of_guest = self.held(id)?.backing.clone();
        if of_guest.is_some() {
            self.detach_iovecs(id)?;
        }
        let range = (source.as_ptr().expose_provenance(), source.len());
        let written = self.attach_iovecs(id, &[range]).and_then(|()| {
            let written = self.rutabaga.transfer_write(0, id, transfer, None);
            self.detach_iovecs(id)?;
            written.map_err(refused("pixels"))
        });
        if let Some(backing) = of_guest {
            self.attach_iovecs(id, &backing)?;
        }
        written
    }

    /// Fences of virglrenderer's API cannot be waited for one by one, so a stream that names one
    /// waits for everything before it.
    fn submit(
        &mut self,
        ctx_id: u32,
        stream: &mut [u32],
        waits: bool,
    ) -> Result<(), RendererError> {
        let context = self.contexts.get_mut(&ctx_id);
        if let Some(growth) = context.and_then(|context| context.growth.as_mut()) {
            let resources = &self.resources;
            let target = |id| resources.get(&id).map(Held::as_target);
            check(stream, target, growth)?;
        }
        if waits {
            let what = "a stream whose fences do not signal";
            self.fences.drain(IN_FENCE_LIMIT, what, || self.poll())?;
        }
        self.rutabaga
            .submit_command(ctx_id, stream.as_mut_bytes(), &[])
            .map_err(refused("a stream"))
    }

    pub(super) fn create_fence(&mut self, fence: Fence) {
        let is_virgl = match fence.timeline {
            Timeline::Global => true,
            Timeline::Ring { ctx_id, .. } => {
                let context = self.contexts.get(&ctx_id);
                context.is_none_or(|context| context.growth.is_some())
            }
        };
        let given = self.fences.begin(fence, !is_virgl);
        if self.rutabaga.create_fence(given).is_err() {
            self.fences.failed(&given);
        }
    }

    /// Results of queries, for which fences wait.
    pub(super) fn poll(&self) {
        self.rutabaga.event_poll();
    }

    /// Destroys everything, contexts first: rutabaga drops resources first, with the lists of
    /// backings that contexts still use.
    pub(super) fn finish(mut self) {
        for (ctx_id, _) in mem::take(&mut self.contexts) {
            drop(self.destroy_context(ctx_id));
        }
        let ids: Vec<_> = self.resources.keys().copied().collect();
        for id in ids {
            drop(self.destroy_resource(id));
        }
    }

    fn held(&mut self, id: u32) -> Result<&mut Held, RendererError> {
        let held = self.resources.get_mut(&id);
        held.ok_or(RendererError::refused("an unknown resource", EINVAL))
    }

    fn attach_iovecs(&mut self, id: u32, backing: &[Range]) -> Result<(), RendererError> {
        self.rutabaga
            .attach_backing(id, iovecs(backing))
            .map_err(refused("a backing"))
    }

    fn detach_iovecs(&mut self, id: u32) -> Result<(), RendererError> {
        self.rutabaga
            .detach_backing(id)
            .map_err(refused("the end of a backing"))
    }
}

const OUTSIDE: RendererError = RendererError::refused("a range outside the memory", EINVAL);

/// Rows that follow each other are one piece, and so are pieces of memory that do.
fn iovecs(backing: &[Range]) -> Vec<RutabagaIovec> {
    let follows = |one: &Range, next: &Range| one.0.checked_add(one.1) == Some(next.0);
    let runs = backing.chunk_by(follows);
    let joined = runs.filter_map(|run| {
        let (start, _) = run.first()?;
        let length = run.iter().map(|(_, length)| *length);
        Some(RutabagaIovec {
            base: ptr::with_exposed_provenance_mut::<c_void>(*start),
            len: length.fold(0, usize::saturating_add),
        })
    });
    joined.collect()
}

/// The bytes from the first to the last of `rect`'s rows, and the transfer that fills them.
fn rows(rect: Rect, stride: usize) -> Option<(usize, Transfer3D)> {
    let last = (rect.height as usize).checked_sub(1)?.checked_mul(stride)?;
    let bytes = last.checked_add(row_bytes(rect.width))?;
    let Rect {
        x,
        y,
        width,
        height,
    } = rect;
    let mut transfer = Transfer3D::new_2d(x, y, width, height, 0);
    transfer.stride = u32::try_from(stride).ok()?;
    Some((bytes, transfer))
}

fn transfer_of(transfer: &Transfer3d) -> Transfer3D {
    let Transfer3d {
        x,
        y,
        z,
        w,
        h,
        d,
        offset,
        level,
        stride,
        layer_stride,
    } = *transfer;
    Transfer3D {
        x,
        y,
        z,
        w,
        h,
        d,
        level,
        stride,
        layer_stride,
        offset,
    }
}

fn refused(what: &'static str) -> impl Fn(RutabagaError) -> RendererError {
    move |error| match error {
        RutabagaError::MagmaGpuError(RutabagaUnsupported) => RendererError::unsupported(what),
        // virglrenderer has both signs.
        RutabagaError::ComponentError(code) | RutabagaError::MappingFailed(code) => {
            let code = code.saturating_abs();
            RendererError::refused(what, code)
        }
        _ => RendererError::refused(what, EINVAL),
    }
}
