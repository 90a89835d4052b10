// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The thread that owns the GPU and serves its queues.
//!
//! It lives as long as the device: activations, resets and whole VMMs come and go, and nothing but the end of the
//! process takes the GPU away from it.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{trace, warn};
use virtio_gpu_s3::{
    Activation, Completed, Gpu, Outcome, ResetKind as GpuResetKind, Response, Token,
};
use virtio_pci_freeze::{
    ActivationKind, FreezeTicket, QueueSetup, ResetKind, ResetOutcome, RingPosition,
};
use virtio_queue::{DescriptorChain, Error as QueueError, Queue, QueueOwnedT, QueueT};
use vm_memory::bitmap::Bitmap;
use vm_memory::{
    GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryLoadGuard, GuestMemoryMmap,
};
use vmm_sys_util::eventfd::EventFd;

use crate::device::QUEUE_SIZES;
use crate::events::micros;
use crate::requests::{Doorbells, Inbox, Next, Question, Request};
use crate::wakeup::Wakeup;

/// The transport in front of the worker: where it tells what it did.
pub(crate) trait Frontend: Send + Sync + Sized + 'static {
    /// How the VMM tracks dirty memory.
    type Bitmap: Bitmap + Send + Sync + 'static;
    /// What a reset is asked with, and answered.
    type Ticket: Send;

    /// Buffers were used, and the driver wants to know.
    fn queue_used(&self, index: u16);
    fn count_bad_chain(&self);
    /// An error that only a reset cures.
    fn needs_reset(&self, reason: &str);
    /// The renderer ended by itself.
    fn renderer_crashed(&self, reason: &str);
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
    fn discarded(&self, resources: usize, took_us: u64);
    fn reinstated(&self, queues: usize, resources: usize);
}

/// Buffers taken from one queue before the worker looks at requests again, so that a guest that never stops cannot
/// keep a reset waiting.
const BATCH: usize = 64;

/// How long a sleep waits for the renderer before it is refused. The VMM's thread waits longer (`PATIENCE`); a frame
/// of software rendering takes a tenth of it.
const QUIESCE_LIMIT: Duration = Duration::from_secs(2);

type MemoryGuard<F> = GuestMemoryLoadGuard<GuestMemoryMmap<<F as Frontend>::Bitmap>>;
type Chain<F> = DescriptorChain<MemoryGuard<F>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    More,
    Empty,
}

/// A buffer whose answer waits for a fence.
struct Deferred<F: Frontend> {
    token: Token,
    queue: u16,
    chain: Chain<F>,
}

struct RunningQueue {
    index: u16,
    queue: Queue,
}

pub(crate) struct Worker<F: Frontend> {
    gpu: Gpu,
    memory: GuestMemoryAtomic<GuestMemoryMmap<F::Bitmap>>,
    shared: Arc<F>,
    doorbells: Arc<Doorbells>,
    inbox: Inbox<F>,
    wakeup: Arc<Wakeup>,
    queues: Vec<RunningQueue>,
    /// Whether the driver may be served: between activation and reset, and not while suspended.
    serving: bool,
    ended: bool,
    event_idx: bool,
    /// Queues with work left, as a mask.
    ready: u64,
    deferred: Vec<Deferred<F>>,
    /// Whether the renderer's end was told.
    renderer_crashed: bool,
    max_request: usize,
    request: Vec<u8>,
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
            queues: Vec::new(),
            serving: false,
            ended: false,
            event_idx: false,
            ready: 0,
            deferred: Vec::new(),
            renderer_crashed: false,
            max_request,
            request: Vec::new(),
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
            let busy = self.has_work();
            match self.inbox.next(busy, &self.doorbells) {
                Next::Request(request) => self.handle(request),
                Next::Nothing if busy => self.serve(),
                Next::Nothing => {}
                Next::End => return,
            }
        }
    }

    /// Doorbells that ring while nothing may be served stay rung.
    fn has_work(&mut self) -> bool {
        self.ready |= self.doorbells.take();
        self.ready != 0 && self.serving && self.doorbells.is_open()
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
                self.queues.retain(|queue| queue.index != index);
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
        if self.serving && self.doorbells.is_open() {
            let memory = self.memory.memory();
            self.finish_deferred(&memory);
        }
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
        self.queues.clear();
        queues.iter().for_each(|setup| self.start_queue(setup));
        self.serving = true;
        if let Some(reason) = self.gpu.renderer_failure() {
            // It ended while the guest slept.
            self.shared.needs_reset(&reason);
        }
        if kind == ActivationKind::Reinstated {
            let resources = self.gpu.status().resources;
            self.shared.reinstated(self.queues.len(), resources);
        }
    }

    fn start_queue(&mut self, setup: &QueueSetup) {
        match queue_from(setup, self.event_idx) {
            Ok(queue) => self.queues.push(RunningQueue {
                index: setup.index,
                queue,
            }),
            Err(error) => self
                .shared
                .needs_reset(&format!("queue {}: {error}", setup.index)),
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
        for running in self.queues.drain(..) {
            if let Some(position) = positions.get_mut(usize::from(running.index)) {
                position.next_avail = running.queue.next_avail();
                position.next_used = running.queue.next_used();
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

    /// One batch from each queue that has work.
    fn serve(&mut self) {
        let memory = self.memory.memory();
        let indices: Vec<u16> = self.queues.iter().map(|queue| queue.index).collect();
        let ready = self.ready;
        self.ready = 0;
        for index in indices.into_iter().filter(|&index| ready & bit(index) != 0) {
            match self.serve_queue(index, &memory) {
                Ok(Progress::More) => self.ready |= bit(index),
                Ok(Progress::Empty) => {}
                Err(error) => self.stop_queue(index, &error),
            }
        }
        self.finish_deferred(&memory);
        self.look_after_renderer();
    }

    fn serve_queue(&mut self, index: u16, memory: &MemoryGuard<F>) -> Result<Progress, QueueError> {
        let Some(at) = self.queues.iter().position(|queue| queue.index == index) else {
            return Ok(Progress::Empty);
        };
        let mut running = self.queues.swap_remove(at);
        let progress = self.drain(&mut running, memory);
        self.queues.push(running);
        progress
    }

    /// Takes up to a batch of buffers, and signals once at the end.
    fn drain(
        &mut self,
        running: &mut RunningQueue,
        memory: &MemoryGuard<F>,
    ) -> Result<Progress, QueueError> {
        let RunningQueue { index, queue } = running;
        let mut used = false;
        let mut progress = Progress::More;
        queue.disable_notification(&**memory)?;
        for _ in 0..BATCH {
            let chain = if self.doorbells.is_open() {
                queue.iter(memory.clone())?.next()
            } else {
                None
            };
            let Some(chain) = chain else {
                progress = Progress::Empty;
                break;
            };
            let head = chain.head_index();
            if let Some(written) = self.process(*index, chain, memory) {
                queue.add_used(&**memory, head, written)?;
                used = true;
            }
        }
        if progress == Progress::Empty
            && queue.enable_notification(&**memory)?
            && self.doorbells.is_open()
        {
            progress = Progress::More;
        }
        if used && queue.needs_notification(&**memory)? {
            self.shared.queue_used(*index);
        }
        Ok(progress)
    }

    /// Executes one buffer. Returns how many bytes of answer it has, or `None` if the answer comes later.
    fn process(&mut self, index: u16, chain: Chain<F>, memory: &MemoryGuard<F>) -> Option<u32> {
        let (Ok(mut reader), Ok(mut writer)) = (
            chain.clone().reader(&**memory),
            chain.clone().writer(&**memory),
        ) else {
            self.shared.count_bad_chain();
            return Some(0);
        };
        let length = reader.available_bytes().min(self.max_request);
        self.request.resize(length, 0);
        if reader.read_exact(&mut self.request).is_err() {
            self.shared.count_bad_chain();
            return Some(0);
        }
        self.response.restart(writer.available_bytes());
        let outcome = if index == CONTROL_QUEUE {
            self.gpu
                .control(&self.request, &**memory, &mut self.response)
        } else {
            self.gpu
                .cursor(&self.request, &**memory, &mut self.response)
        };
        match outcome {
            Outcome::Done => {
                trace!(
                    "queue {index}: {:02x?} -> {:02x?}",
                    head(&self.request),
                    head(self.response.bytes())
                );
                Some(answer(&mut writer, &self.response))
            }
            Outcome::Deferred(token) => {
                self.deferred.push(Deferred {
                    token,
                    queue: index,
                    chain,
                });
                None
            }
        }
    }

    /// Answers the requests whose fences have signalled.
    fn finish_deferred(&mut self, memory: &MemoryGuard<F>) {
        if self.deferred.is_empty() {
            return;
        }
        let completed: Vec<Completed> = self.gpu.take_completed().collect();
        for Completed { token, response } in completed {
            let Some(at) = self
                .deferred
                .iter()
                .position(|waiting| waiting.token == token)
            else {
                continue;
            };
            let Deferred { queue, chain, .. } = self.deferred.swap_remove(at);
            if let Err(error) = self.use_deferred(queue, chain, &response, memory) {
                self.stop_queue(queue, &error);
            }
        }
    }

    fn use_deferred(
        &mut self,
        index: u16,
        chain: Chain<F>,
        response: &Response,
        memory: &MemoryGuard<F>,
    ) -> Result<(), QueueError> {
        let Some(running) = self.queues.iter_mut().find(|queue| queue.index == index) else {
            return Ok(());
        };
        let head = chain.head_index();
        let written = chain
            .writer(&**memory)
            .map_or(0, |mut writer| answer(&mut writer, response));
        running.queue.add_used(&**memory, head, written)?;
        if running.queue.needs_notification(&**memory)? {
            self.shared.queue_used(index);
        }
        Ok(())
    }

    /// A ring that makes no sense: the driver must reset.
    fn stop_queue(&mut self, index: u16, error: &QueueError) {
        self.queues.retain(|queue| queue.index != index);
        self.shared.needs_reset(&format!("queue {index}: {error}"));
    }
}

/// The start of a request or answer, for the log: its header, and the ids that follow it.
fn head(bytes: &[u8]) -> &[u8] {
    bytes.get(..48).unwrap_or(bytes)
}

const CONTROL_QUEUE: u16 = 0;

/// A queue's bit in a mask of queues.
pub(crate) fn bit(index: u16) -> u64 {
    1u64.checked_shl(index.into()).unwrap_or(0)
}

fn answer(writer: &mut impl Write, response: &Response) -> u32 {
    match writer.write_all(response.bytes()) {
        Ok(()) => u32::try_from(response.bytes().len()).unwrap_or(u32::MAX),
        Err(_) => 0,
    }
}

fn queue_from(setup: &QueueSetup, event_idx: bool) -> Result<Queue, QueueError> {
    let mut queue = Queue::new(setup.size)?;
    queue.try_set_size(setup.size)?;
    queue.try_set_desc_table_address(GuestAddress(setup.desc))?;
    queue.try_set_avail_ring_address(GuestAddress(setup.driver))?;
    queue.try_set_used_ring_address(GuestAddress(setup.device))?;
    queue.set_next_avail(setup.position.next_avail);
    queue.set_next_used(setup.position.next_used);
    queue.set_event_idx(event_idx);
    queue.set_ready(true);
    Ok(queue)
}
