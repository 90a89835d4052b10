// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The thread that owns the GPU and serves its queues.
//!
//! It lives as long as the device: activations, resets and whole VMMs come and go, and nothing but the end of the
//! process takes the GPU away from it.

mod rings;

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use log::warn;
use virtio_gpu_s3::{Activation, Gpu, ResetKind as GpuResetKind, Response, Token};
use virtio_pci_freeze::{
    ActivationKind, FreezeTicket, QueueSetup, ResetKind, ResetOutcome, RingPosition,
};
use virtio_queue::{DescriptorChain, Queue, QueueT};
use vm_memory::bitmap::Bitmap;
use vm_memory::{
    GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryLoadGuard, GuestMemoryMmap,
};
use vmm_sys_util::eventfd::EventFd;

use crate::device::QUEUE_SIZES;
use crate::events::{EventKind, EventLog, micros};
use crate::linger::{FOR_GUEST, FOR_RENDERER, Linger};
use crate::requests::{Doorbells, Inbox, Next, Question, Request};
use crate::wakeup::Wakeup;

/// The transport in front of the worker: where it tells what it did.
pub(crate) trait Frontend: Send + Sync + Sized + 'static {
    /// How the VMM tracks dirty memory.
    type Bitmap: Bitmap + Send + Sync + 'static;
    /// What a reset is asked with, and answered.
    type Ticket: Send;

    fn events(&self) -> &EventLog;
    /// Descriptor chains so far that made no sense.
    fn bad_chains(&self) -> &AtomicU64;
    /// Buffers were used, and the driver wants to know.
    fn queue_used(&self, index: u16);
    /// An error that only a reset cures.
    fn needs_reset(&self, reason: &str);
    fn update_config(&self, config: &[u8]);
    fn freeze_done(&self, ticket: FreezeTicket, honoured: bool);
    fn suspend_done(&self, suspended: bool);
    fn resume_done(&self, resumed: bool);
    fn queue_reset_done(&self, index: u16);
    fn reset_done(
        &self,
        ticket: Self::Ticket,
        outcome: ResetOutcome<'_>,
        resources: usize,
        asked: Instant,
    );
    fn reinstated(&self, queues: usize, resources: usize);

    fn count_bad_chain(&self) {
        self.bad_chains().fetch_add(1, Ordering::Relaxed);
    }

    /// The renderer ended by itself.
    fn renderer_crashed(&self, reason: &str) {
        let reason = reason.into();
        self.events().emit(EventKind::RendererCrashed { reason });
    }

    fn discarded(&self, resources: usize, took_us: u64) {
        self.events()
            .emit(EventKind::FullReset { resources, took_us });
    }
}

/// How long a sleep waits for the renderer before it is refused. The VMM's thread waits longer (`PATIENCE`); a frame
/// of software rendering takes a tenth of it.
pub(crate) const QUIESCE_LIMIT: Duration = Duration::from_secs(2);

type MemoryGuard<F> = GuestMemoryLoadGuard<GuestMemoryMmap<<F as Frontend>::Bitmap>>;
type Chain<F> = DescriptorChain<MemoryGuard<F>>;

/// Where a buffer can be written: addresses of the guest, which stay good if the VMM maps its memory elsewhere.
type Room = Vec<(GuestAddress, usize)>;

/// A buffer whose answer waits for a fence.
struct Deferred {
    token: Token,
    queue: u16,
    head: u16,
    room: Room,
}

pub(crate) struct Worker<F: Frontend> {
    gpu: Gpu,
    memory: GuestMemoryAtomic<GuestMemoryMmap<F::Bitmap>>,
    shared: Arc<F>,
    doorbells: Arc<Doorbells>,
    inbox: Inbox<F>,
    wakeup: Arc<Wakeup>,
    /// By number; empty where one does not run, or is being served.
    queues: [Option<Queue>; QUEUE_SIZES.len()],
    /// Whether the driver may be served: between activation and reset, and not while suspended.
    serving: bool,
    ended: bool,
    event_idx: bool,
    /// Queues with work left, as a mask.
    ready: u64,
    linger: Linger,
    deferred: Vec<Deferred>,
    /// Whether this looks for fences, and is not waked for them.
    looks_for_fences: bool,
    /// Whether the renderer's end was told.
    renderer_crashed: bool,
    max_request: usize,
    request: Vec<u8>,
    room: Room,
    response: Response,
}

impl<F: Frontend> Worker<F> {
    /// A worker without guest memory.
    pub(crate) fn new(
        gpu: Gpu,
        max_request: usize,
        shared: Arc<F>,
        doorbells: Arc<Doorbells>,
        inbox: Inbox<F>,
        wakeup: Arc<Wakeup>,
    ) -> Self {
        Self {
            gpu,
            memory: GuestMemoryAtomic::new(GuestMemoryMmap::new()),
            shared,
            doorbells,
            inbox,
            wakeup,
            queues: [const { None }; QUEUE_SIZES.len()],
            serving: false,
            ended: false,
            event_idx: false,
            ready: 0,
            linger: Linger::default(),
            deferred: Vec::new(),
            looks_for_fences: false,
            renderer_crashed: false,
            max_request,
            request: Vec::new(),
            room: Room::new(),
            response: Response::default(),
        }
    }

    /// The same, serving from memory that the caller replaces.
    pub(crate) fn with_memory(self, memory: GuestMemoryAtomic<GuestMemoryMmap<F::Bitmap>>) -> Self {
        Self { memory, ..self }
    }

    /// Runs until the way of requests is gone.
    pub(crate) fn run(mut self) {
        while !self.ended {
            let awake = self.stays_awake();
            let next = self.inbox.next(awake, &self.doorbells);
            self.linger.found();
            match next {
                Next::Request(request) => self.handle(request),
                Next::Nothing if self.has_work() => self.serve(),
                Next::Nothing => {}
                Next::End => return,
            }
        }
    }

    /// Whether there is something to do, now or after a short look.
    fn stays_awake(&mut self) -> bool {
        let mut linger = mem::take(&mut self.linger);
        self.look_for_fences(true);
        let found = self.has_news()
            || linger.look(self.looks(), || self.has_news())
            || self.asks_for_doorbells()
            || self.asks_for_wakes();
        self.linger = linger;
        found
    }

    fn has_news(&mut self) -> bool {
        self.inbox.has_news() || self.has_work() || self.answered_fences()
    }

    fn looks(&self) -> u32 {
        if self.deferred.is_empty() {
            FOR_GUEST
        } else {
            FOR_RENDERER
        }
    }

    fn look_for_fences(&mut self, looks: bool) {
        if self.looks_for_fences != looks {
            self.looks_for_fences = looks;
            self.gpu.want_wakes(!looks);
        }
    }

    /// Before a sleep. Returns whether the renderer was faster.
    fn asks_for_wakes(&mut self) -> bool {
        self.look_for_fences(false);
        self.answered_fences()
    }

    /// Whether a request waited for fences that have signalled, and is answered now.
    fn answered_fences(&mut self) -> bool {
        if self.deferred.is_empty() || !self.serving || !self.doorbells.is_open() {
            return false;
        }
        self.finish_deferred(&self.memory.memory())
    }

    fn handle(&mut self, request: Request<F>) {
        match request {
            Request::End => self.ended = true,
            Request::Attach { memory, doorbells } => self.attach(memory, doorbells),
            Request::Activate {
                kind,
                features,
                event_idx,
                queues,
            } => {
                self.activate(kind, features, event_idx, &queues);
            }
            Request::Reset {
                kind,
                ticket,
                asked,
            } => self.reset(kind, ticket, asked),
            Request::Discard => {
                let start = Instant::now();
                let resources = self.gpu.status().resources;
                self.reset_gpu(GpuResetKind::Full);
                self.shared.discarded(resources, micros(start));
            }
            Request::Freeze { ticket } => {
                // What the device holds is held already, so there is nothing to wait for but answers owed.
                let honoured = self.settle();
                self.shared.freeze_done(ticket, honoured);
            }
            Request::Suspend => {
                let suspended = self.settle();
                self.serving = !suspended;
                self.shared.suspend_done(suspended);
            }
            Request::Resume => {
                self.serving = true;
                self.shared.resume_done(true);
                self.ready = u64::MAX;
            }
            Request::StartQueue(setup) => self.start_queue(&setup),
            Request::ResetQueue(index) => {
                self.end_queue(index);
                self.shared.queue_reset_done(index);
            }
            Request::WriteConfig { offset, bytes } => {
                self.gpu.write_config(offset.into(), &bytes);
                self.shared.update_config(&self.gpu.config_space());
            }
            Request::Wake => {}
            Request::FencesSignalled => self.answer_fences(),
            Request::Ask(question) => self.answer_question(question),
        }
    }

    fn answer_question(&mut self, question: Question) {
        // Nobody waits any more where one of these fails: the VMM's thread gave up, or a person left.
        match question {
            Question::Barrier(reply) => {
                let _ = reply.send(());
            }
            Question::Settle(reply) => {
                let settled = self.settle();
                let _ = reply.send(settled);
            }
            Question::MemoryReplaced(reply) => {
                self.follow_memory();
                let _ = reply.send(());
            }
            Question::Inspect(reply) => drop(reply.send(self.gpu.status())),
            Question::Save(reply) => drop(reply.send(self.gpu.save())),
            Question::Screenshot {
                scanout,
                cursor,
                reply,
            } => drop(reply.send(self.gpu.scanout_image(scanout, cursor))),
            Question::Gpu(errand) => errand(&mut self.gpu),
        }
    }

    fn attach(
        &mut self,
        memory: GuestMemoryAtomic<GuestMemoryMmap<F::Bitmap>>,
        doorbells: Vec<(u16, EventFd)>,
    ) {
        self.memory = memory;
        if let Err(error) = self.inbox.listen(doorbells) {
            self.shared.needs_reset(&format!("doorbells: {error}"));
        }
    }

    fn follow_memory(&mut self) {
        let memory = self.memory.memory();
        if let Err(error) = self.gpu.memory_changed(&*memory) {
            warn!("Resources have lost guest memory that was unmapped: {error}");
        }
    }

    /// Opening rings every doorbell, and serving those looks for fences too.
    fn answer_fences(&mut self) {
        self.wakeup.take();
        if self.deferred.is_empty() {
            // It may have other things to do, such as to send what a compositor was too slow for.
            self.gpu.poll_renderer();
        }
        self.answered_fences();
        self.look_after_renderer();
    }

    /// Tells, once, of a renderer that ended by itself.
    fn look_after_renderer(&mut self) {
        let Some(reason) = self.news_of_renderer() else {
            return;
        };
        self.shared.renderer_crashed(&reason);
        self.shared.needs_reset(&reason);
    }

    fn news_of_renderer(&mut self) -> Option<String> {
        if self.renderer_crashed {
            return None;
        }
        let reason = self.gpu.renderer_failure()?;
        self.renderer_crashed = true;
        Some(reason)
    }

    /// What the guest had in a renderer that crashed ends here, and a new one is there for the next.
    fn reset_gpu(&mut self, kind: GpuResetKind) {
        if let Some(reason) = self.news_of_renderer() {
            self.shared.renderer_crashed(&reason);
        }
        self.gpu.reset(kind);
        self.renderer_crashed = self.gpu.renderer_failure().is_some();
    }

    fn activate(
        &mut self,
        kind: ActivationKind,
        features: u64,
        event_idx: bool,
        queues: &[QueueSetup],
    ) {
        let how = match kind {
            ActivationKind::Fresh => Activation::Fresh,
            ActivationKind::Retained => Activation::Retained,
            ActivationKind::Reinstated => Activation::Reinstated,
        };
        self.gpu.activate(features, how);
        self.event_idx = event_idx;
        self.queues.fill_with(|| None);
        queues.iter().for_each(|setup| self.start_queue(setup));
        self.serving = true;
        if let Some(reason) = self.gpu.renderer_failure() {
            // It ended while the guest slept.
            self.shared.needs_reset(&reason);
        }
        if kind == ActivationKind::Reinstated {
            let resources = self.gpu.status().resources;
            let running = self.queues.iter().flatten().count();
            self.shared.reinstated(running, resources);
        }
    }

    fn reset(&mut self, kind: ResetKind, ticket: F::Ticket, asked: Instant) {
        let before = self.gpu.status();
        // Before the rings' positions are noted, as answers move them.
        let quiet = if kind == ResetKind::Frozen {
            self.settle()
        } else {
            self.finish_deferred(&self.memory.memory());
            false
        };
        let mut positions = [RingPosition::default(); QUEUE_SIZES.len()];
        for (slot, position) in self.queues.iter_mut().zip(&mut positions) {
            if let Some(queue) = slot.take() {
                position.next_avail = queue.next_avail();
                position.next_used = queue.next_used();
            }
        }
        // What can be listened to can be listened to no more.
        drop(self.inbox.listen(Vec::new()));
        self.serving = false;
        self.ready = 0;
        self.deferred.clear();
        let (kind, outcome) = if quiet {
            (GpuResetKind::Frozen, ResetOutcome::Done(&positions))
        } else {
            (GpuResetKind::Full, ResetOutcome::StateLost)
        };
        self.reset_gpu(kind);
        self.shared.update_config(&self.gpu.config_space());
        self.shared
            .reset_done(ticket, outcome, before.resources, asked);
    }

    /// Waits until every request taken is answered, at most [`QUIESCE_LIMIT`]. Takes no further one. Returns whether
    /// that was reached.
    fn settle(&mut self) -> bool {
        let memory = self.memory.memory();
        let start = Instant::now();
        self.look_for_fences(false);
        loop {
            self.wakeup.take();
            self.finish_deferred(&memory);
            if let Some(reason) = self.gpu.renderer_failure() {
                warn!("The device cannot sleep: {reason}");
                return false;
            }
            let Err(outstanding) = self.gpu.quiesce() else {
                return true;
            };
            let left = QUIESCE_LIMIT.saturating_sub(start.elapsed());
            if left.is_zero() {
                warn!("The device cannot sleep: {outstanding}");
                return false;
            }
            self.wakeup.wait(left);
        }
    }
}

/// A queue's bit in a mask of queues.
pub(crate) fn bit(index: u16) -> u64 {
    1u64.checked_shl(index.into()).unwrap_or(0)
}
