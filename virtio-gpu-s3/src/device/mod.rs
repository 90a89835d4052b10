// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device: commands in, table changes and replies out.

mod blob;
mod context;
mod cursor;
#[cfg(any(test, feature = "test-utils"))]
mod invariants;
mod lifecycle;
mod look;
mod mapping;
mod query;
mod restore;
mod room;
mod save;
mod scanout;
mod three_d;
mod two_d;

use std::collections::BTreeMap;

use std::{fmt, mem};

use vm_memory::GuestAddress;
use zerocopy::FromZeros;

use crate::command::{self, Command, Decoded, Rendering, Stream};
use crate::command_error::CommandError;
use crate::config::{GpuConfig, OutputConfig};
use crate::config_error::ConfigError;
use crate::error::GuestError;
use crate::fence::{Completed, Deferral, Fences, Timeline, Token};
use crate::host_visible::HostVisible;
use crate::protocol::{
    EVENT_DISPLAY, FLAG_FENCE, FLAG_INFO_RING_IDX, MAX_RING_IDX, Queue, feature, wire,
};
use crate::renderer::{Completion, Renderer};
use crate::request::{GuestStream, Request};
use crate::resource::Resources;
use crate::response::{Reply, Response};
use crate::scanout::Scanout;
use crate::status::{Counters, ErrorKind, ScanoutStatus, Status};
use context::Context;
use mapping::Mapping;
use three_d::{Direction, Order};
use vm_memory::GuestMemoryBackend;

pub use lifecycle::{Activation, Outstanding, ResetKind};

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a deferred request must be answered later"]
pub enum Outcome {
    /// The response is complete.
    Done,
    /// The response comes from [`Gpu::take_completed`] under this token.
    Deferred(Token),
}

/// A virtio-gpu device without a transport.
///
/// Owns its renderer for its whole life; no reset drops it.
pub struct Gpu {
    config: GpuConfig,
    negotiated: u64,
    events_read: u32,
    /// Whether the driver has not been told of a change.
    config_changed: bool,
    resources: Resources,
    contexts: BTreeMap<u32, Context>,
    /// What is mapped into the host visible region, by offset.
    mappings: BTreeMap<u64, Mapping>,
    scanouts: Vec<Scanout>,
    fences: Fences,
    last_uuid: u64,
    counters: Counters,
    renderer: Box<dyn Renderer>,
    host_visible: Option<Box<dyn HostVisible>>,
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gpu")
            .field("config", &self.config)
            .field("negotiated", &self.negotiated)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

impl Gpu {
    /// A device as `config` says, with no resource and every scanout disabled.
    ///
    /// # Errors
    /// The configuration asks for what the renderer cannot do.
    pub fn new(config: GpuConfig, renderer: Box<dyn Renderer>) -> Result<Self, ConfigError> {
        let scanouts = config
            .outputs()
            .iter()
            .map(|_| Scanout::default())
            .collect();
        Ok(Self {
            config,
            negotiated: 0,
            events_read: 0,
            config_changed: false,
            resources: Resources::default(),
            contexts: BTreeMap::new(),
            mappings: BTreeMap::new(),
            scanouts,
            fences: Fences::default(),
            last_uuid: 0,
            counters: Counters::default(),
            renderer,
            host_visible: None,
        })
    }

    /// The GPU feature bits to offer (VIRTIO 1.4 §5.7.3), as a mask.
    pub fn device_features(&self) -> u64 {
        let able = if self.renderer.capsets().is_empty() {
            GpuConfig::FEATURES_2D
        } else {
            GpuConfig::FEATURES_3D
        };
        with_dependencies(self.config.features() & able)
    }

    /// The device configuration (VIRTIO 1.4 §5.7.4). `events_clear` reads as 0.
    pub fn config_space(&self) -> [u8; size_of::<wire::Config>()] {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let config = wire::Config {
            events_read: self.events_read.into(),
            events_clear: 0.into(),
            num_scanouts: count(self.scanouts.len()).into(),
            num_capsets: count(self.renderer.capsets().len()).into(),
            blob_alignment: 0.into(),
        };
        zerocopy::transmute!(config)
    }

    /// A guest's write to the device configuration. Only `events_clear` can be written: each bit
    /// set clears the same bit of `events_read` (VIRTIO 1.4 §5.7.4.1).
    pub fn write_config(&mut self, offset: usize, data: &[u8]) {
        self.clear_events(Self::events_clear(offset, data));
    }

    /// What a write to the device configuration puts into `events_clear`; 0 where it does not reach
    /// that.
    pub fn events_clear(offset: usize, data: &[u8]) -> u32 {
        let mut clear = [0; 4];
        let first = mem::offset_of!(wire::Config, events_clear);
        for (index, byte) in data.iter().enumerate() {
            let slot = offset
                .checked_add(index)
                .and_then(|at| at.checked_sub(first))
                .and_then(|at| clear.get_mut(at));
            if let Some(slot) = slot {
                *slot = *byte;
            }
        }
        u32::from_le_bytes(clear)
    }

    /// The driver has seen these events (VIRTIO 1.4 §5.7.4.1).
    pub fn clear_events(&mut self, events: u32) {
        self.events_read &= !events;
    }

    /// The user resized an output, of which the driver is to be told: see
    /// [`take_config_change`](Self::take_config_change).
    ///
    /// # Errors
    /// No such output, or an impossible size.
    pub fn resize_output(&mut self, index: usize, output: OutputConfig) -> Result<(), ConfigError> {
        self.config.set_output(index, output)?;
        self.events_read |= EVENT_DISPLAY;
        self.config_changed = true;
        Ok(())
    }

    /// Whether the device changed its configuration since the last call, other than for the driver:
    /// the caller then tells the driver (VIRTIO 1.4 §2.5).
    pub fn take_config_change(&mut self) -> bool {
        mem::take(&mut self.config_changed)
    }

    /// Executes one request of the control queue.
    ///
    /// `request` is a copy of the readable part, of which
    /// [`max_command_bytes`](crate::Limits::max_command_bytes) are enough.
    /// [`handle`](Self::handle) copies less.
    pub fn control<M: GuestMemoryBackend + ?Sized>(
        &mut self,
        request: &[u8],
        memory: &M,
        response: &mut Response,
    ) -> Outcome {
        self.process(Queue::Control, (request, &[]), memory, response)
    }

    /// Executes one request of the cursor queue. Drivers give no room for an answer; those that
    /// do get one.
    pub fn cursor<M: GuestMemoryBackend + ?Sized>(
        &mut self,
        request: &[u8],
        memory: &M,
        response: &mut Response,
    ) -> Outcome {
        self.process(Queue::Cursor, (request, &[]), memory, response)
    }

    /// Executes one request of `queue`, of which `memory` has what was not read yet.
    pub fn handle<M: GuestMemoryBackend + ?Sized>(
        &mut self,
        queue: Queue,
        request: &Request,
        memory: &M,
        response: &mut Response,
    ) -> Outcome {
        let parts = (request.head(), request.rest());
        self.process(queue, parts, memory, response)
    }

    /// Answers that were deferred and are there now: in the order of each timeline, and of calls in flight.
    pub fn take_completed(&mut self) -> impl Iterator<Item = Completed> + '_ {
        self.collect_completions();
        self.fences.drain_ready()
    }

    /// The same of what is known to be there. The renderer is not asked, which may write to guest memory then.
    pub fn take_ready(&mut self) -> impl Iterator<Item = Completed> + '_ {
        self.fences.drain_ready()
    }

    /// Lets the renderer go on with what it woke its caller for. With no request outstanding it touches no memory of
    /// the guest.
    pub fn poll_renderer(&mut self) {
        self.collect_completions();
    }

    /// Whether the renderer tells of [completed](Self::take_completed) answers: see
    /// [`Renderer::want_wakes`].
    pub fn want_wakes(&mut self, wanted: bool) {
        self.renderer.want_wakes(wanted);
    }

    /// What the device holds now and what happened to it.
    pub fn status(&self) -> Status {
        let outputs = self.config.outputs();
        let scanouts = self.scanouts.iter().zip(outputs).map(|(scanout, output)| {
            let binding = scanout.binding.as_ref();
            let rect = binding.map(|binding| binding.rect);
            ScanoutStatus {
                resource_id: binding.map(|binding| binding.resource_id),
                width: rect.map_or(output.width, |rect| rect.width),
                height: rect.map_or(output.height, |rect| rect.height),
                cursor: scanout.cursor.shape.is_some(),
            }
        });
        Status {
            resources: self.resources.len(),
            retained: self.resources.retained().count(),
            contexts: self.contexts.len(),
            host_bytes: self.resources.host_bytes(),
            renderer_bytes: self.resources.renderer_bytes(),
            pending_fences: self.fences.len(),
            scanouts: scanouts.collect(),
            counters: self.counters,
        }
    }

    fn process<M: GuestMemoryBackend + ?Sized>(
        &mut self,
        queue: Queue,
        (head, rest): (&[u8], &[(GuestAddress, usize)]),
        memory: &M,
        response: &mut Response,
    ) -> Outcome {
        self.counters.count_command(queue);
        let unread = rest.iter().map(|(_, length)| *length);
        let total = unread.fold(head.len(), usize::saturating_add);
        let Decoded { header, command } = command::decode_head(head, total, queue, self.negotiated);
        let (timeline, reply) = self.reply_header(&header);
        let is_full = self.fences.len() >= self.config.limits().max_fences;
        if timeline.is_some() && is_full {
            return self.refuse_fence(response);
        }
        let token = self.fences.token();
        let mut order = Order {
            ctx_id: header.ctx_id.get(),
            fence: None,
            // Nobody may make the list of answers longer than the limit says.
            ticket: (!is_full).then_some(token.ticket()),
        };
        let result = command
            .and_then(|command| self.check_ring_idx(&header).map(|()| command))
            .map_err(CommandError::from)
            .and_then(|command| {
                let timeline = timeline.filter(|_| command.is_asynchronous());
                order.fence = timeline.map(|timeline| self.fences.next(timeline));
                self.execute(order, &command, rest, memory)
            });
        if result.is_err() {
            order.fence = None;
        }
        self.respond(queue, reply, &result, response);
        // Nothing on the cursor queue is asynchronous, and drivers do not wait on it.
        let timeline = timeline.filter(|_| queue == Queue::Control);
        let in_flight = matches!(result, Ok(Reply::InFlight));
        let is_behind = timeline.is_some_and(|timeline| self.fences.is_busy(timeline));
        if !in_flight && order.fence.is_none() && !is_behind {
            return Outcome::Done;
        }
        let deferral = Deferral {
            token,
            timeline,
            fence: order.fence,
            in_flight,
        };
        self.fences.defer(&deferral, mem::take(response));
        Outcome::Deferred(token)
    }

    /// Writes what came of a command, and counts what went wrong.
    #[inline]
    fn respond(
        &mut self,
        queue: Queue,
        mut reply: wire::CtrlHdr,
        result: &Result<Reply, CommandError>,
        response: &mut Response,
    ) {
        match result {
            Ok(payload) => {
                reply.type_ = payload.type_().0.into();
                response.set(&reply, payload.body());
            }
            Err(error) => {
                self.counters.errors.count(error.kind());
                reply.type_ = error.response().0.into();
                response.set(&reply, &[]);
            }
        }
        if response.lost() > 0 && queue == Queue::Control {
            let truncated = &mut self.counters.truncated_responses;
            *truncated = truncated.saturating_add(1);
        }
    }

    /// Too many commands wait. The answer comes at once, out of its timeline's order, so it carries
    /// no fence: Linux would take it for the end of every fence before.
    fn refuse_fence(&mut self, response: &mut Response) -> Outcome {
        let error = GuestError::Limit {
            what: "fences",
            asked: 1,
            left: 0,
        };
        self.counters.errors.count(error.kind());
        let mut reply = wire::CtrlHdr::new_zeroed();
        reply.type_ = error.response().0.into();
        response.set(&reply, &[]);
        Outcome::Done
    }

    fn execute<M: GuestMemoryBackend + ?Sized>(
        &mut self,
        order: Order,
        command: &Command<'_>,
        rest: &[(GuestAddress, usize)],
        memory: &M,
    ) -> Result<Reply, CommandError> {
        match *command {
            Command::GetDisplayInfo => Ok(self.get_display_info()),
            Command::GetEdid { scanout_id } => self.get_edid(scanout_id),
            Command::ResourceCreate2d {
                resource_id,
                format,
                width,
                height,
            } => self.resource_create_2d(resource_id, format, width, height),
            Command::ResourceUnref { resource_id } => self.resource_unref(resource_id),
            Command::SetScanout {
                scanout_id,
                resource_id,
                rect,
            } => self.set_scanout(scanout_id, resource_id, rect),
            Command::ResourceFlush { resource_id, rect } => self.resource_flush(resource_id, rect),
            Command::TransferToHost2d {
                resource_id,
                rect,
                offset,
            } => self.transfer_to_host_2d(resource_id, rect, offset, memory),
            Command::ResourceAttachBacking {
                resource_id,
                entries,
            } => self.resource_attach_backing(resource_id, entries, memory),
            Command::ResourceDetachBacking { resource_id } => {
                self.resource_detach_backing(resource_id)
            }
            Command::ResourceAssignUuid { resource_id } => self.resource_assign_uuid(resource_id),
            Command::ResourceMapBlob {
                resource_id,
                offset,
            } => self.resource_map_blob(resource_id, offset),
            Command::ResourceUnmapBlob { resource_id } => self.resource_unmap_blob(resource_id),
            Command::Cursor(command) => self.cursor_command(command, memory),
            Command::ResourceCreateBlob {
                resource_id,
                ref params,
                entries,
            } => self.resource_create_blob(order.ctx_id, resource_id, params, entries, memory),
            Command::SetScanoutBlob {
                scanout_id,
                resource_id,
                rect,
                ref layout,
            } => self.set_scanout_blob(scanout_id, resource_id, rect, layout),
            Command::Rendering(command) => self.render(order, command, rest, memory),
        }
    }

    fn render<M: GuestMemoryBackend + ?Sized>(
        &mut self,
        order: Order,
        command: Rendering<'_>,
        rest: &[(GuestAddress, usize)],
        memory: &M,
    ) -> Result<Reply, CommandError> {
        let ctx_id = order.ctx_id;
        match command {
            Rendering::GetCapsetInfo { index } => self.get_capset_info(index),
            Rendering::GetCapset { id, version } => self.get_capset(id, version),
            Rendering::CtxCreate {
                context_init,
                debug_name,
            } => self.ctx_create(ctx_id, context_init, debug_name),
            Rendering::CtxDestroy => self.ctx_destroy(ctx_id),
            Rendering::CtxAttachResource { resource_id } => {
                self.ctx_attach_resource(ctx_id, resource_id, memory)
            }
            Rendering::CtxDetachResource { resource_id } => {
                self.ctx_detach_resource(ctx_id, resource_id)
            }
            Rendering::ResourceCreate3d {
                resource_id,
                ref params,
            } => self.resource_create_3d(resource_id, params),
            Rendering::TransferToHost3d {
                resource_id,
                ref transfer,
            } => self.transfer_3d(order, Direction::ToHost, resource_id, transfer, memory),
            Rendering::TransferFromHost3d {
                resource_id,
                ref transfer,
            } => self.transfer_3d(order, Direction::FromHost, resource_id, transfer, memory),
            Rendering::Submit3d { stream, in_fences } => {
                let Stream { head, unread } = stream;
                let stream = GuestStream {
                    head,
                    unread,
                    rest,
                    memory,
                };
                self.submit_3d(order, &stream, in_fences)
            }
        }
    }

    /// The timeline of a fenced request, and the header its answer starts from: the fence's
    /// numbers are echoed, everything else is zero (VIRTIO 1.4 §5.7.6.7).
    fn reply_header(&self, request: &wire::CtrlHdr) -> (Option<Timeline>, wire::CtrlHdr) {
        let mut reply = wire::CtrlHdr::new_zeroed();
        if request.flags.get() & FLAG_FENCE == 0 {
            return (None, reply);
        }
        reply.flags = FLAG_FENCE.into();
        reply.fence_id = request.fence_id;
        reply.ctx_id = request.ctx_id;
        if !self.names_ring(request) {
            return (Some(Timeline::Global), reply);
        }
        reply.flags = (FLAG_FENCE | FLAG_INFO_RING_IDX).into();
        reply.ring_idx = request.ring_idx;
        let timeline = Timeline::Ring {
            ctx_id: request.ctx_id.get(),
            ring_idx: request.ring_idx,
        };
        (Some(timeline), reply)
    }

    /// `ring_idx` means something only with CONTEXT_INIT.
    fn names_ring(&self, request: &wire::CtrlHdr) -> bool {
        let flagged = request.flags.get() & FLAG_INFO_RING_IDX != 0;
        flagged && self.negotiated & feature::CONTEXT_INIT != 0
    }

    fn check_ring_idx(&self, request: &wire::CtrlHdr) -> Result<(), GuestError> {
        if self.names_ring(request) && request.ring_idx > MAX_RING_IDX {
            return Err(GuestError::Parameter {
                field: "ring_idx",
                value: request.ring_idx.into(),
            });
        }
        Ok(())
    }

    fn scanout_mut(&mut self, id: u32) -> Result<&mut Scanout, GuestError> {
        self.scanouts
            .get_mut(id as usize)
            .ok_or(GuestError::NoSuchScanout { id })
    }

    fn collect_completions(&mut self) {
        for completion in self.renderer.poll() {
            match completion {
                Completion::Fence(fence) => self.fences.signal(fence),
                Completion::Call { ticket, result } => {
                    let error = result.err().map(|error| {
                        let error = CommandError::from(error);
                        self.counters.errors.count(error.kind());
                        error.response()
                    });
                    self.fences.answer(ticket, error);
                }
            }
        }
        if self.renderer.failure().is_some() {
            for _ in 0..self.fences.fail() {
                self.counters.errors.count(ErrorKind::Host);
            }
        }
    }
}

/// The features without those whose requirement is missing (VIRTIO 1.4 §5.7.3).
fn with_dependencies(features: u64) -> u64 {
    if features & feature::VIRGL == 0 {
        features & !feature::CONTEXT_INIT
    } else {
        features
    }
}
