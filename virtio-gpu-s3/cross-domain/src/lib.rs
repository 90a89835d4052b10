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
//! | a fence waits for the host; nothing ends it but a message | [`Renderer::release_waits`] |
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
use vm_memory::FileOffset;
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
use virtio_gpu_s3::protocol::{BLOB_MEM_GUEST, BLOB_MEM_HOST3D};
use virtio_gpu_s3::renderer::{
    Answer, Backing, Begun, BlobMapping, BlobParams, Call, CapsetInfo, Completion, Data,
    GuestPages, Operation, Renderer, RendererError, Ticket,
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

    /// Whose call it is: that of the context or the resource it is about.
    fn owner(&self, operation: &Operation) -> Owner {
        let is_ours = match *operation {
            Operation::Capset { id, .. } => id == CAPSET_ID,
            Operation::CreateContext { context_init, .. } => {
                context_init & CAPSET_MASK == CAPSET_ID
            }
            Operation::AttachResource {
                ctx_id,
                resource_id,
            } => {
                let ours = self.contexts.contains_key(&ctx_id);
                ours || self.resources.host(resource_id).is_some()
            }
            Operation::CreateBlob { ctx_id, params, .. } => {
                if !self.contexts.contains_key(&ctx_id) && params.blob_mem == BLOB_MEM_GUEST {
                    return Owner::Both;
                }
                self.contexts.contains_key(&ctx_id)
            }
            Operation::DestroyResource { resource_id }
            | Operation::AttachBacking { resource_id }
            | Operation::DetachBacking { resource_id }
                if self.resources.is_guest(resource_id) =>
            {
                return Owner::Both;
            }
            Operation::DestroyContext { ctx_id }
            | Operation::DetachResource { ctx_id, .. }
            | Operation::Submit { ctx_id, .. }
            | Operation::TransferToHost { ctx_id, .. }
            | Operation::TransferFromHost { ctx_id, .. } => self.contexts.contains_key(&ctx_id),
            Operation::DestroyResource { resource_id }
            | Operation::ReadBlob { resource_id, .. }
            | Operation::WriteBlob { resource_id, .. }
            | Operation::MapBlob { resource_id }
            | Operation::UnmapBlob { resource_id } => self.resources.host(resource_id).is_some(),
            // Whatever is about neither.
            _ => false,
        };
        if is_ours { Owner::Ours } else { Owner::Inner }
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

/// Whose an operation is.
enum Owner {
    Ours,
    Inner,
    /// It is about guest memory, which is made known to both, as any context may attach it.
    Both,
}

impl CrossDomainRenderer {
    fn call_both(&mut self, call: Call<'_>) -> Result<Answer, RendererError> {
        let Call {
            operation,
            data,
            fence,
        } = call;
        let pages = match data {
            Data::Pages(pages) => Some(pages),
            _ => None,
        };
        let backing = operation.backing();
        if let Operation::DetachBacking { resource_id } = operation {
            self.resources.set_ring(resource_id, None);
        }
        if self.inner_renders {
            let data = pages.map_or(Data::None, Data::Pages);
            self.inner
                .call(operation.clone().with(data).fenced(fence))?;
        }
        match (operation, backing) {
            (Operation::DestroyResource { resource_id }, _) => {
                self.resources.remove(resource_id);
            }
            (Operation::CreateBlob { .. }, Some((id, Backing::Begins))) => {
                let ring = pages.map(ring_of).transpose()?;
                self.resources.insert(id, Resource::Guest(ring));
            }
            (_, Some((id, Backing::Begins))) => {
                let ring = pages.map(ring_of).transpose()?;
                self.resources.set_ring(id, ring);
                // Something may have been said meanwhile.
                self.serve_all();
            }
            _ => {}
        }
        Ok(Answer::Done)
    }

    fn call_ours(&mut self, call: Call<'_>) -> Result<Answer, RendererError> {
        let Call {
            operation,
            data,
            fence,
        } = call;
        // What is refused for its fence must not have been said.
        fence.as_ref().map_or(Ok(()), check_ring)?;
        let answer = self.run(operation, data)?;
        if let Some(fence) = fence {
            self.create_fence(fence)?;
        }
        Ok(answer)
    }

    fn run(&mut self, operation: Operation, data: Data<'_>) -> Result<Answer, RendererError> {
        match operation {
            Operation::Capset { .. } => Ok(Answer::Capset(capset())),
            Operation::CreateContext { ctx_id, .. } => {
                self.contexts.insert(ctx_id, Context::default());
                Ok(Answer::Done)
            }
            Operation::DestroyContext { ctx_id } => {
                if let Some(context) = self.contexts.remove(&ctx_id) {
                    context.end(&self.host);
                    self.feed();
                    self.tell();
                }
                Ok(Answer::Done)
            }
            Operation::AttachResource {
                ctx_id,
                resource_id,
            } => self.attach_resource(ctx_id, resource_id),
            Operation::DetachResource {
                ctx_id,
                resource_id,
            } => {
                if let Some(context) = self.contexts.get_mut(&ctx_id) {
                    context.detach(resource_id);
                }
                Ok(Answer::Done)
            }
            Operation::CreateBlob {
                ctx_id,
                resource_id,
                ref params,
            } => {
                self.create_host_blob(ctx_id, resource_id, params)?;
                Ok(Answer::Done)
            }
            Operation::Submit { ctx_id, in_fences } => {
                let stream = data.stream_bytes()?;
                self.submit(ctx_id, &stream, &in_fences)?;
                Ok(Answer::Done)
            }
            // In the name of a context here.
            operation @ (Operation::TransferToHost { .. } | Operation::TransferFromHost { .. }) => {
                self.inner.call(operation.with(data))
            }
            operation => self.run_on_blob(&operation, data),
        }
    }

    fn run_on_blob(
        &mut self,
        operation: &Operation,
        data: Data<'_>,
    ) -> Result<Answer, RendererError> {
        let (Operation::DestroyResource { resource_id }
        | Operation::ReadBlob { resource_id, .. }
        | Operation::WriteBlob { resource_id, .. }
        | Operation::MapBlob { resource_id }
        | Operation::UnmapBlob { resource_id }) = *operation
        else {
            return Err(RendererError::unsupported("such a call"));
        };
        let blob = self.resources.host_blob(resource_id);
        let blob = blob.ok_or(RendererError::refused("an unknown blob", EINVAL))?;
        match *operation {
            Operation::ReadBlob { offset, .. } => {
                let target = data.room()?;
                check_range(blob, offset, target.len())?;
                let read = pread(&blob.file, &mut *target, offset);
                let read = read.map_err(|error| no_file(&error.into()))?;
                target.get_mut(read..).unwrap_or_default().fill(0);
            }
            Operation::WriteBlob { offset, .. } => {
                let source = data.bytes()?;
                check_range(blob, offset, source.len())?;
                let written = pwrite(&blob.file, source, offset);
                written.map_err(|error| no_file(&error.into()))?;
            }
            Operation::MapBlob { .. } => return blob.map(resource_id).map(Answer::Mapped),
            Operation::UnmapBlob { .. } => {
                if !mem::replace(&mut blob.shown, false) {
                    return Err(RendererError::refused("the end of no mapping", EINVAL));
                }
            }
            _ => {
                self.resources.remove(resource_id);
                self.feed();
                self.tell();
            }
        }
        Ok(Answer::Done)
    }

    fn attach_resource(&mut self, ctx_id: u32, resource_id: u32) -> Result<Answer, RendererError> {
        let Some(context) = self.contexts.get_mut(&ctx_id) else {
            // Memory of the host that only contexts here know.
            return Err(RendererError::unsupported(
                "a channel's memory in another context",
            ));
        };
        context.attach(resource_id);
        // It may be the ring that something was said for meanwhile.
        self.serve(ctx_id);
        self.tell();
        Ok(Answer::Done)
    }

    /// A stream is refused whole where one of its commands makes no sense by itself.
    fn submit(
        &mut self,
        ctx_id: u32,
        stream: &[u8],
        in_fences: &[u64],
    ) -> Result<(), RendererError> {
        let context = self.contexts.get_mut(&ctx_id);
        let context = context.ok_or(RendererError::refused("an unknown context", EINVAL))?;
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
        match fence.timeline {
            Timeline::Global if self.inner_renders => {
                let fenced = Operation::Fence.call().fenced(Some(fence));
                return self.inner.call(fenced).map(drop);
            }
            Timeline::Ring { ctx_id, ring_idx } if ring_idx == CHANNEL_RING => {
                if let Some(context) = self.contexts.get_mut(&ctx_id) {
                    context.wait(fence);
                    self.serve(ctx_id);
                }
            }
            // What is asked is answered before the fence is there.
            Timeline::Global | Timeline::Ring { .. } => self.signalled.push(fence),
        }
        Ok(())
    }
}

impl HostBlob {
    fn map(&mut self, resource_id: u32) -> Result<BlobMapping, RendererError> {
        if self.shown {
            return Err(RendererError::refused("a second mapping", EINVAL));
        }
        let file = fcntl_dupfd_cloexec(&self.file, 3);
        let file = file.map_err(|error| no_file(&IoError::from(error)))?;
        self.shown = true;
        Ok(BlobMapping {
            resource_id,
            file: Some(FileOffset::new(file.into(), 0)),
            address: None,
            size: self.size,
            map_info: MAP_CACHED,
        })
    }
}

fn capset() -> Vec<u8> {
    let capset = Capset {
        version: 1.into(),
        supported_channels: (1 << CHANNEL_WAYLAND).into(),
        supports_dmabuf: 0.into(),
        supports_external_gpu_memory: 0.into(),
    };
    capset.as_bytes().to_vec()
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

    fn call(&mut self, call: Call<'_>) -> Result<Answer, RendererError> {
        match self.owner(&call.operation) {
            Owner::Inner => self.inner.call(call),
            Owner::Both => self.call_both(call),
            Owner::Ours => self.call_ours(call),
        }
    }

    fn begin(&mut self, call: Call<'_>, ticket: Ticket) -> Begun {
        match self.owner(&call.operation) {
            Owner::Inner => self.inner.begin(call, ticket),
            Owner::Both | Owner::Ours => Begun::Answered(self.call(call)),
        }
    }

    /// The compositor's words are told in any case.
    fn want_wakes(&mut self, wanted: bool) {
        self.inner.want_wakes(wanted);
    }

    fn poll(&mut self) -> Vec<Completion> {
        for ctx_id in self.host.watcher.take_news() {
            self.serve(ctx_id);
        }
        let mut completions = self.inner.poll();
        completions.extend(self.signalled.drain(..).map(Completion::Fence));
        completions
    }

    fn release_waits(&mut self) {
        self.inner.release_waits();
        for (ctx_id, context) in &mut self.contexts {
            context.release(*ctx_id, &self.resources, &self.host, &mut self.signalled);
        }
        self.tell();
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
