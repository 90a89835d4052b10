// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Windows of the guest on the host's compositor: contexts of the cross-domain protocol (capset 5).
//!
//! A guest's Wayland proxy has a connection to the host's compositor through such a context. It sends
//! with SUBMIT_3D; what is said to it lands in a ring, a blob of guest memory, when a fence on the
//! context's ring 1 waits for it. Files go along: memory as blobs, pipes as numbers.
//!
//! rutabaga 0.1.85 has a component for it, which is not used:
//!
//! | rutabaga | here |
//! |---|---|
//! | a thread of its own writes to the ring when the host speaks, also after the reset of a guest that sleeps | one is written only while a fence waits, on the device's thread |
//! | a fence waits for the host; nothing ends it but a message | [`Renderer::release_waits`](virtio_gpu_s3::Renderer::release_waits) |
//! | it keeps the ring's addresses when the backing is detached or memory moves | it has what the device says |
//! | POLL of size 0 is read for ever | refused |
//! | it waits to connect, to send, and to write a pipe | nothing waits; what the other side does not take is kept up to a limit |
//! | files and kinds of images are kept without limit | [`Limits`](virtio_gpu_s3::Limits) |
//! | a file that it does not know, or a ring that is gone, ends its thread, and the fence never signals | the channel ends, and the guest is told |
//! | a second INIT leaves the first one's thread, and the end waits for it for ever | refused |
//! | a ring is its first piece of memory; none at all panics | every piece |
//! | what the host sealed or can cut short is given as it is | a copy |

mod channel;
mod context;
mod files;
mod host;
mod image;
mod memory;
mod pipes;
mod protocol;
mod resources;
mod start;
mod watcher;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Error as IoError;
use std::mem;
use std::sync::Arc;

use rustix::io::{fcntl_dupfd_cloexec, pread, pwrite};
use zerocopy::IntoBytes;

use context::{Context, MAP_CACHED};
use files::Budget;
use host::Host;
use memory::GuestRing;
use pipes::no_file;
use protocol::{CAPSET_ID, CHANNEL_RING, CHANNEL_WAYLAND, Capset, Commands, QUERY_RING};
use resources::{HostBlob, Resource, Resources};
use start::check_socket;
pub use start::{CrossDomainConfig, CrossDomainStartError};
use virtio_gpu_s3::Rect;
use virtio_gpu_s3::protocol::{BLOB_MEM_GUEST, BLOB_MEM_HOST3D};
use virtio_gpu_s3::renderer::{
    BlobMapping, BlobParams, CapsetInfo, GuestPages, Renderer, RendererError, Resource3d,
    Transfer3d, Work, run,
};
use virtio_gpu_s3::{Fence, Timeline};
use watcher::{Wake, Watcher};

/// The part of `context_init` that names a capset.
const CAPSET_MASK: u32 = 0xff;
const EINVAL: i32 = 22;

/// Contexts of the cross-domain protocol, beside those of another renderer.
pub struct CrossDomainRenderer {
    inner: Box<dyn Renderer>,
    /// Whether the other has contexts at all.
    inner_renders: bool,
    contexts: BTreeMap<u32, Context>,
    resources: Resources,
    host: Host,
    signalled: Vec<Fence>,
    wake: Wake,
}

impl fmt::Debug for CrossDomainRenderer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CrossDomainRenderer")
            .field("inner", &self.inner)
            .field("contexts", &self.contexts)
            .field("resources", &self.resources)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

impl CrossDomainRenderer {
    /// Adds the protocol to what `inner` renders. `wake` is called whenever [`Renderer::poll`] has
    /// something to do or to give, on a thread of this; it must not wait for anything.
    ///
    /// The process must ignore SIGPIPE, as every program does whose `main` is Rust's: a pipe that a guest
    /// writes may lose its reader at any time.
    ///
    /// # Errors
    /// A [`CrossDomainStartError`] says what is wrong with the socket, or missing.
    pub fn new(
        inner: Box<dyn Renderer>,
        config: &CrossDomainConfig,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, CrossDomainStartError> {
        let CrossDomainConfig { wayland, limits } = config;
        check_socket(wayland)?;
        let wake: Wake = Arc::new(wake);
        let watcher = Watcher::start(Arc::clone(&wake));
        let watcher = watcher.map_err(|error| CrossDomainStartError::Thread {
            why: error.to_string(),
        })?;
        Ok(Self {
            inner_renders: !inner.capsets().is_empty(),
            inner,
            contexts: BTreeMap::new(),
            resources: Resources::default(),
            host: Host {
                wayland: wayland.clone(),
                watcher,
                channels: Budget::new("channels", limits.max_channels),
                files: Budget::new("files of the host", limits.max_channel_files),
                max_queued: limits.max_channel_bytes as usize,
            },
            signalled: Vec::new(),
            wake,
        })
    }

    fn serve(&mut self, ctx_id: u32) {
        self.serve_alone(ctx_id);
        self.feed();
    }

    fn serve_alone(&mut self, ctx_id: u32) {
        if let Some(context) = self.contexts.get_mut(&ctx_id) {
            context.serve(ctx_id, &self.resources, &self.host, &mut self.signalled);
        }
    }

    fn serve_all(&mut self) {
        for (ctx_id, context) in &mut self.contexts {
            context.serve(*ctx_id, &self.resources, &self.host, &mut self.signalled);
        }
        self.feed();
        self.tell();
    }

    /// Serves those whose messages wait for room for their files, where there is room now. Whatever
    /// another context does may have made it, and no event tells.
    fn feed(&mut self) {
        while self.host.has_room_for_a_message()
            && let Some(ctx_id) = self.starved()
        {
            self.serve_alone(ctx_id);
        }
    }

    fn starved(&self) -> Option<u32> {
        let mut contexts = self.contexts.iter();
        contexts.find_map(|(ctx_id, context)| context.is_starved().then_some(*ctx_id))
    }

    fn tell(&self) {
        if !self.signalled.is_empty() {
            (self.wake)();
        }
    }

    /// Only contexts here have such blobs.
    fn create_host_blob(
        &mut self,
        ctx_id: u32,
        id: u32,
        params: &BlobParams,
    ) -> Result<(), RendererError> {
        if params.blob_mem != BLOB_MEM_HOST3D {
            return Err(RendererError::unsupported("such a blob of a channel"));
        }
        let context = self.contexts.get_mut(&ctx_id);
        let context = context.ok_or(RendererError::refused("an unknown context", EINVAL))?;
        let file = context.take_blob(params.blob_id, params.size, &self.host)?;
        let blob = HostBlob {
            file,
            size: params.size,
            shown: false,
        };
        self.resources.insert(id, Resource::Host(blob));
        Ok(())
    }
}

const OUTSIDE: RendererError = RendererError::refused("a range outside the blob", EINVAL);

fn check_range(blob: &HostBlob, offset: u64, length: usize) -> Result<(), RendererError> {
    let end = offset.checked_add(length as u64);
    match end {
        Some(end) if end <= blob.size => Ok(()),
        _ => Err(OUTSIDE),
    }
}

/// Contexts have two rings.
fn check_ring(fence: &Fence) -> Result<(), RendererError> {
    match fence.timeline {
        Timeline::Ring {
            ring_idx: QUERY_RING | CHANNEL_RING,
            ..
        }
        | Timeline::Global => Ok(()),
        Timeline::Ring { .. } => Err(RendererError::refused("a ring that no channel has", EINVAL)),
    }
}

impl Renderer for CrossDomainRenderer {
    fn capsets(&self) -> Vec<CapsetInfo> {
        let ours = CapsetInfo {
            id: CAPSET_ID,
            max_version: 0,
            max_size: u32::try_from(size_of::<Capset>()).unwrap_or_default(),
        };
        let mut capsets = self.inner.capsets();
        capsets.push(ours);
        capsets
    }

    fn capset(&mut self, id: u32, version: u32) -> Result<Vec<u8>, RendererError> {
        if id != CAPSET_ID {
            return self.inner.capset(id, version);
        }
        let capset = Capset {
            version: 1.into(),
            supported_channels: (1 << CHANNEL_WAYLAND).into(),
            supports_dmabuf: 0.into(),
            supports_external_gpu_memory: 0.into(),
        };
        Ok(capset.as_bytes().to_vec())
    }

    fn create_context(
        &mut self,
        ctx_id: u32,
        context_init: u32,
        debug_name: &[u8],
    ) -> Result<(), RendererError> {
        if context_init & CAPSET_MASK != CAPSET_ID {
            return self.inner.create_context(ctx_id, context_init, debug_name);
        }
        self.contexts.insert(ctx_id, Context::default());
        Ok(())
    }

    fn destroy_context(&mut self, ctx_id: u32) -> Result<(), RendererError> {
        let Some(context) = self.contexts.remove(&ctx_id) else {
            return self.inner.destroy_context(ctx_id);
        };
        context.end(&self.host);
        self.feed();
        self.tell();
        Ok(())
    }

    fn attach_resource(&mut self, ctx_id: u32, resource_id: u32) -> Result<(), RendererError> {
        match self.contexts.get_mut(&ctx_id) {
            Some(context) => {
                context.attach(resource_id);
                // It may be the ring that something was said for meanwhile.
                self.serve(ctx_id);
                self.tell();
            }
            // Memory of the host that only contexts here know.
            None if self.resources.host(resource_id).is_some() => {
                return Err(RendererError::unsupported(
                    "a channel's memory in another context",
                ));
            }
            None => return self.inner.attach_resource(ctx_id, resource_id),
        }
        Ok(())
    }

    fn detach_resource(&mut self, ctx_id: u32, resource_id: u32) -> Result<(), RendererError> {
        match self.contexts.get_mut(&ctx_id) {
            Some(context) => context.detach(resource_id),
            None => return self.inner.detach_resource(ctx_id, resource_id),
        }
        Ok(())
    }

    fn create_resource(
        &mut self,
        resource_id: u32,
        params: &Resource3d,
    ) -> Result<(), RendererError> {
        self.inner.create_resource(resource_id, params)
    }

    /// Guest memory is made known to both renderers, as any context may attach it.
    fn create_blob(
        &mut self,
        ctx_id: u32,
        resource_id: u32,
        params: &BlobParams,
        pages: Option<&dyn GuestPages>,
    ) -> Result<(), RendererError> {
        if self.contexts.contains_key(&ctx_id) {
            return self.create_host_blob(ctx_id, resource_id, params);
        }
        if self.inner_renders || params.blob_mem != BLOB_MEM_GUEST {
            self.inner.create_blob(ctx_id, resource_id, params, pages)?;
        }
        if params.blob_mem == BLOB_MEM_GUEST {
            let ring = pages.map(ring_of).transpose()?;
            self.resources.insert(resource_id, Resource::Guest(ring));
        }
        Ok(())
    }

    fn destroy_resource(&mut self, resource_id: u32) -> Result<(), RendererError> {
        match self.resources.remove(resource_id) {
            Some(Resource::Host(blob)) => {
                drop(blob);
                self.feed();
                self.tell();
                Ok(())
            }
            Some(Resource::Guest(_)) if !self.inner_renders => Ok(()),
            _ => self.inner.destroy_resource(resource_id),
        }
    }

    fn attach_backing(
        &mut self,
        resource_id: u32,
        pages: &dyn GuestPages,
    ) -> Result<(), RendererError> {
        let is_guest = self.resources.is_guest(resource_id);
        if self.inner_renders || !is_guest {
            self.inner.attach_backing(resource_id, pages)?;
        }
        if is_guest {
            self.resources.set_ring(resource_id, Some(ring_of(pages)?));
            // Something may have been said meanwhile.
            self.serve_all();
        }
        Ok(())
    }

    fn detach_backing(&mut self, resource_id: u32) -> Result<(), RendererError> {
        self.resources.set_ring(resource_id, None);
        if self.inner_renders || !self.resources.is_guest(resource_id) {
            return self.inner.detach_backing(resource_id);
        }
        Ok(())
    }

    fn transfer_to_host(
        &mut self,
        ctx_id: u32,
        resource_id: u32,
        transfer: &Transfer3d,
        pages: &dyn GuestPages,
    ) -> Result<(), RendererError> {
        self.inner
            .transfer_to_host(ctx_id, resource_id, transfer, pages)
    }

    fn transfer_from_host(
        &mut self,
        ctx_id: u32,
        resource_id: u32,
        transfer: &Transfer3d,
        pages: &dyn GuestPages,
    ) -> Result<(), RendererError> {
        self.inner
            .transfer_from_host(ctx_id, resource_id, transfer, pages)
    }

    fn read_pixels(
        &mut self,
        resource_id: u32,
        rect: Rect,
        stride: usize,
        target: &mut [u8],
    ) -> Result<(), RendererError> {
        self.inner.read_pixels(resource_id, rect, stride, target)
    }

    fn read_blob(
        &mut self,
        resource_id: u32,
        offset: u64,
        target: &mut [u8],
    ) -> Result<(), RendererError> {
        let Some(blob) = self.resources.host_blob(resource_id) else {
            return self.inner.read_blob(resource_id, offset, target);
        };
        check_range(blob, offset, target.len())?;
        let read = pread(&blob.file, target, offset);
        read.map(drop).map_err(|error| no_file(&error.into()))
    }

    fn write_blob(
        &mut self,
        resource_id: u32,
        offset: u64,
        source: &[u8],
    ) -> Result<(), RendererError> {
        let Some(blob) = self.resources.host_blob(resource_id) else {
            return self.inner.write_blob(resource_id, offset, source);
        };
        check_range(blob, offset, source.len())?;
        let written = pwrite(&blob.file, source, offset);
        written.map(drop).map_err(|error| no_file(&error.into()))
    }

    fn write_pixels(
        &mut self,
        resource_id: u32,
        rect: Rect,
        stride: usize,
        source: &[u8],
    ) -> Result<(), RendererError> {
        self.inner.write_pixels(resource_id, rect, stride, source)
    }

    /// A stream is refused whole where one of its commands makes no sense by itself.
    fn submit(
        &mut self,
        ctx_id: u32,
        stream: &[u8],
        in_fences: &[u64],
    ) -> Result<(), RendererError> {
        let Some(context) = self.contexts.get_mut(&ctx_id) else {
            return self.inner.submit(ctx_id, stream, in_fences);
        };
        if !in_fences.is_empty() {
            return Err(RendererError::unsupported(
                "a message that waits for fences",
            ));
        }
        for command in Commands::of(stream) {
            command?;
        }
        let done = context.run(stream, &self.resources, &self.host);
        // There may be something to wait for now: an answer, or room to send.
        self.serve(ctx_id);
        done
    }

    fn create_fence(&mut self, fence: Fence) -> Result<(), RendererError> {
        let Timeline::Ring { ctx_id, ring_idx } = fence.timeline else {
            if self.inner_renders {
                return self.inner.create_fence(fence);
            }
            self.signalled.push(fence);
            return Ok(());
        };
        let Some(context) = self.contexts.get_mut(&ctx_id) else {
            return self.inner.create_fence(fence);
        };
        check_ring(&fence)?;
        if ring_idx == CHANNEL_RING {
            context.wait(fence);
            self.serve(ctx_id);
        } else {
            // What is asked is answered before the fence is there.
            self.signalled.push(fence);
        }
        Ok(())
    }

    fn run_fenced(&mut self, work: Work<'_>, fence: Fence) -> Result<(), RendererError> {
        let (Work::Submit { ctx_id, .. }
        | Work::TransferToHost { ctx_id, .. }
        | Work::TransferFromHost { ctx_id, .. }) = work;
        if !self.contexts.contains_key(&ctx_id) {
            return self.inner.run_fenced(work, fence);
        }
        // What is refused for its fence must not have been said.
        check_ring(&fence)?;
        run(self, work)?;
        self.create_fence(fence)
    }

    /// The compositor's words are told in any case.
    fn want_wakes(&mut self, wanted: bool) {
        self.inner.want_wakes(wanted);
    }

    fn poll(&mut self) -> Vec<Fence> {
        for ctx_id in self.host.watcher.take_news() {
            self.serve(ctx_id);
        }
        let mut signalled = self.inner.poll();
        signalled.append(&mut self.signalled);
        signalled
    }

    fn release_waits(&mut self) {
        self.inner.release_waits();
        for (ctx_id, context) in &mut self.contexts {
            context.release(*ctx_id, &self.resources, &self.host, &mut self.signalled);
        }
        self.tell();
    }

    fn map_blob(&mut self, resource_id: u32) -> Result<BlobMapping, RendererError> {
        let Some(blob) = self.resources.host_blob(resource_id) else {
            return self.inner.map_blob(resource_id);
        };
        if blob.shown {
            return Err(RendererError::refused("a second mapping", EINVAL));
        }
        let file = fcntl_dupfd_cloexec(&blob.file, 3);
        let file = file.map_err(|error| no_file(&IoError::from(error)))?;
        blob.shown = true;
        Ok(BlobMapping {
            resource_id,
            file: Some(file.into()),
            address: None,
            size: blob.size,
            map_info: MAP_CACHED,
        })
    }

    fn unmap_blob(&mut self, resource_id: u32) -> Result<(), RendererError> {
        let Some(blob) = self.resources.host_blob(resource_id) else {
            return self.inner.unmap_blob(resource_id);
        };
        if !mem::replace(&mut blob.shown, false) {
            return Err(RendererError::refused("the end of no mapping", EINVAL));
        }
        Ok(())
    }

    fn failure(&self) -> Option<String> {
        self.inner.failure()
    }

    fn restart(&mut self) -> Result<(), RendererError> {
        self.inner.restart()
    }
}

fn ring_of(pages: &dyn GuestPages) -> Result<GuestRing, RendererError> {
    let ranges = pages.host_ranges();
    // The device checked them; only a VMM that unmaps guest memory under it gets here.
    ranges
        .map(GuestRing::new)
        .map_err(|_| RendererError::refused("guest memory that is gone", EFAULT))
}

/// As Linux numbers it everywhere.
const EFAULT: i32 = 14;
