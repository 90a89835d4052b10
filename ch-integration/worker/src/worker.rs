// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The thread that owns the GPU.
//!
//! It lives as long as the device: activations, resets and whole VMMs come and go, and nothing but the end of the
//! process takes the GPU away from it.

mod rest;

use std::mem;
use std::sync::Arc;
use std::time::Instant;

use host_util::adaptive_polling::{AdaptivePolling, FOR_GUEST, FOR_RENDERER};
use host_util::log_source::GUEST;
use rest::Settling;
use virtio_gpu_s3::{
    Activation as GpuActivation, Gpu, LookError, Picture, ResetKind as GpuResetKind, Seen,
};
use virtio_pci_freeze::spec::feature;
use virtio_pci_freeze::{ActivationKind, FreezeTicket};

use crate::claim::{Loss, News};
use crate::command::{Activation, Command, GpuAccess, MemoryFollowed, Told};
use crate::events::{EventKind, EventLog, micros};
use crate::frontend::{Completion, ConfigChange, Frontend, QUEUE_SIZES};
use crate::gate::Gate;
use crate::life::Life;
use crate::mailbox::{Inbox, Patience};
use crate::session::{Executor, Served, Session, bit};
use crate::status::{Resets, WorkerStatus};

pub use rest::QUIESCE_LIMIT;

/// What is known of the renderer's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Renderer {
    Sound,
    /// It ended by itself, and that was told.
    Lost,
}

impl<F: Frontend> GpuAccess for Worker<F> {
    fn gpu(&mut self) -> &mut Gpu {
        &mut self.executor.gpu
    }

    fn look(&mut self, scanout: u32, seen: Seen) -> Result<Picture<'_>, LookError> {
        let Self {
            executor,
            gate,
            life,
            ..
        } = self;
        match life.enter(gate) {
            Some((_inside, session)) => executor.gpu.look(scanout, seen, &*session.memory()),
            // What was flushed was read before the guest's memory could not be any more.
            None => {
                let picture = executor.gpu.last_picture(scanout, seen);
                picture.ok_or(LookError::NoSuchScanout { id: scanout })
            }
        }
    }
}

pub(crate) struct Worker<F: Frontend> {
    executor: Executor,
    front: Arc<F>,
    gate: Arc<Gate>,
    events: Arc<EventLog>,
    inbox: Inbox<F>,
    life: Life<F::Memory>,
    settling: Option<Settling<F::Ticket>>,
    /// The freeze that is honoured.
    frozen: Option<FreezeTicket>,
    renderer: Renderer,
    resets: Resets,
    polling: AdaptivePolling,
    /// Whether this looks for fences, and is not waked for them.
    looks_for_fences: bool,
    clock: Clock,
}

/// The time by which the worker stops waiting.
pub(crate) type Clock = Box<dyn Fn() -> Instant + Send>;

impl<F: Frontend> Worker<F> {
    pub(crate) fn new(
        executor: Executor,
        front: Arc<F>,
        gate: Arc<Gate>,
        events: Arc<EventLog>,
        inbox: Inbox<F>,
        clock: Clock,
    ) -> Self {
        Self {
            executor,
            front,
            gate,
            events,
            inbox,
            life: Life::default(),
            settling: None,
            frozen: None,
            renderer: Renderer::Sound,
            resets: Resets::default(),
            polling: AdaptivePolling::default(),
            looks_for_fences: false,
            clock,
        }
    }

    /// Runs until the front end says that this is the end.
    pub(crate) fn run(mut self) {
        while !self.inbox.is_ended() {
            let patience = self.patience();
            self.turn(patience);
        }
    }

    /// One turn, which waits for nothing. Returns whether it would have waited.
    #[cfg(any(test, feature = "test-utils"))]
    pub(crate) fn step(&mut self) -> bool {
        if self.inbox.is_ended() {
            return true;
        }
        let patience = self.patience();
        self.turn(Patience::None);
        patience != Patience::None
    }

    #[cfg(any(test, feature = "test-utils"))]
    pub(crate) fn is_ended(&self) -> bool {
        self.inbox.is_ended()
    }

    #[cfg(any(test, feature = "test-utils"))]
    pub(crate) fn owed(&mut self) -> usize {
        self.life.session().map_or(0, |session| session.owed())
    }

    fn turn(&mut self, patience: Patience) {
        let command = self.inbox.next(patience);
        self.polling.found();
        match command {
            Some(command) => self.handle(command),
            None if self.has_work() => self.serve(),
            None => {}
        }
        let _ = self.look_after_claim();
        self.look_after_renderer();
    }

    /// How long to wait for what comes next, after a short look for it.
    fn patience(&mut self) -> Patience {
        if self.settling.is_some() {
            return self.settle().map_or(Patience::None, Patience::Until);
        }
        let mut polling = mem::take(&mut self.polling);
        self.look_for_fences(true);
        let found = self.has_news()
            || polling.look(self.looks(), || self.has_news())
            || self.ask_for_doorbells()
            || self.ask_for_wakes();
        self.polling = polling;
        if found {
            Patience::None
        } else {
            Patience::Endless
        }
    }

    fn has_news(&mut self) -> bool {
        self.inbox.has_news() || self.has_work() || self.answer_done() || self.look_after_claim()
    }

    fn looks(&mut self) -> u32 {
        match self.life.session() {
            Some(session) if session.is_owed() => FOR_RENDERER,
            _ => FOR_GUEST,
        }
    }

    fn look_for_fences(&mut self, looks: bool) {
        if self.looks_for_fences != looks {
            self.looks_for_fences = looks;
            self.executor.gpu.want_wakes(!looks);
        }
    }

    /// Doorbells that ring while nothing may be served stay rung.
    fn has_work(&mut self) -> bool {
        let rung = self.inbox.take_rung();
        let Life::Running(session) = &mut self.life else {
            return false;
        };
        session.note(rung);
        if self.settling.is_some() || !self.gate.may_take() {
            return false;
        }
        session
            .enter(&self.gate)
            .is_some_and(|_inside| session.find_work())
    }

    fn serve(&mut self) {
        let Life::Running(session) = &mut self.life else {
            return;
        };
        let Some(inside) = session.enter(&self.gate) else {
            return;
        };
        let served = session.serve(&mut self.executor, &self.gate);
        drop(inside);
        self.tell(served);
    }

    /// Before a sleep. Returns whether a driver was faster.
    fn ask_for_doorbells(&mut self) -> bool {
        let Life::Running(session) = &mut self.life else {
            return false;
        };
        let inside = session.enter(&self.gate);
        inside.is_some_and(|_inside| session.ask_for_doorbells())
    }

    /// Before a sleep. Returns whether the renderer was faster.
    fn ask_for_wakes(&mut self) -> bool {
        self.look_for_fences(false);
        self.answer_done()
    }

    /// Answers the commands that are done, where the driver may be answered now. Returns whether there were any. Only there is
    /// the renderer asked: a message that a command waits for is written to guest memory then.
    fn answer_done(&mut self) -> bool {
        let Some(session) = self.life.session() else {
            return false;
        };
        if !session.is_owed() {
            return false;
        }
        let gpu = &mut self.executor.gpu;
        let Some(inside) = session.enter(&self.gate) else {
            session.collect(gpu.take_ready());
            return false;
        };
        let some = session.collect(gpu.take_completed());
        if !session.is_done() {
            return some;
        }
        let mut served = Served::default();
        session.answer(&mut self.executor.spares, &mut served);
        drop(inside);
        self.tell(served);
        true
    }

    /// Tells the driver. Without the gate: a front end may want a lock that is held while somebody waits there.
    fn tell(&self, served: Served) {
        for queue in (0..).take(QUEUE_SIZES.len()) {
            if served.notify & bit(queue) != 0 {
                self.front.queue_used(queue);
            }
        }
        for (queue, error) in served.broken {
            self.needs_reset(&format!("queue {queue}: {error}"));
        }
    }

    fn needs_reset(&self, reason: &str) {
        self.front.needs_reset(reason);
        let reason = reason.into();
        self.events.emit(EventKind::NeedsReset { reason });
    }

    fn handle(&mut self, command: Command<F>) {
        match command {
            Command::Activate(activation) => self.activate(*activation),
            Command::Reset {
                kind,
                ticket,
                asked,
            } => self.reset(kind, ticket, asked),
            Command::Discard => self.discard(),
            Command::Disown => {
                if let Some(session) = self.life.session() {
                    session.lose(Loss::TakenOver);
                }
            }
            Command::FreezeChanged => self.freeze_changed(),
            Command::Suspend => self.settling().suspend = true,
            Command::Resume => self.resume(),
            Command::StartQueue(setup) => {
                if let Some(session) = self.life.session()
                    && let Err((queue, error)) = session.start_queue(&setup)
                {
                    self.needs_reset(&format!("queue {queue}: {error}"));
                }
            }
            Command::ResetQueue(queue) => {
                if let Some(session) = self.life.session() {
                    session.end_queue(queue);
                }
                self.front.complete(Completion::QueueReset { queue });
            }
            Command::ConfigWritten => {
                let bits = self.inbox.take_events_clear();
                self.executor.gpu.clear_events(bits);
                self.set_config(ConfigChange::ByDriver);
            }
            Command::Tell(told) => self.emit(told),
            Command::LookBeforeSleep(reply) => {
                self.look_before_sleep();
                let _ = reply.send(());
            }
            Command::Settle { shut, reply } => self.settling().asked.push((reply, shut)),
            Command::FollowMemory(followed) => self.follow_memory(followed),
            Command::Status(reply) => drop(reply.send(self.status())),
            Command::Job(job) => {
                job(self);
                if self.executor.gpu.take_config_change() {
                    self.set_config(ConfigChange::ByDevice);
                }
            }
        }
    }

    fn emit(&self, told: Told) {
        let gpu = self.executor.gpu.status();
        let resources = gpu.resources;
        self.events.emit(match told {
            Told::Connected => EventKind::Connected,
            Told::Disconnected => EventKind::Disconnected,
            Told::Slept { holds } => EventKind::Sleep {
                holds,
                resources,
                host_bytes: gpu.host_bytes,
            },
            Told::Woke { asleep_us } => EventKind::Wake {
                resources,
                asleep_us,
            },
        });
    }

    fn set_config(&self, change: ConfigChange) {
        let config = self.executor.gpu.config_space();
        self.front.set_config(&config, change);
    }

    fn status(&self) -> WorkerStatus {
        WorkerStatus {
            life: self.life.status(),
            gpu: self.executor.gpu.status(),
            resets: self.resets,
            bad_chains: self.executor.bad_chains,
        }
    }

    /// Also of a guest that sleeps: a renderer may have addresses in what went. Nothing here has the memory before any
    /// longer, as each batch begins and ends with the newest.
    fn follow_memory(&mut self, followed: MemoryFollowed<F::Memory>) {
        let MemoryFollowed {
            first,
            last,
            old,
            done,
        } = followed;
        let gpu = &mut self.executor.gpu;
        if let Some(old) = &old
            && gpu.shows_memory_within(first, last)
            && let Some((_inside, _)) = self.life.enter(&self.gate)
        {
            gpu.look_before_sleep(&**old);
        }
        let mut misses = false;
        if let Some(memory) = self.life.memory() {
            if let Err(error) = gpu.memory_changed_within(first, last, &*memory) {
                GUEST.warn(format_args!(
                    "Resources have lost guest memory that was unmapped: {error}"
                ));
                misses = true;
            }
            misses |= !self.life.session().is_none_or(|it| it.has_its_rings());
        }
        drop(old);
        self.inbox.memory_followed(misses);
        done();
    }

    /// Inside the gate only for what is read from guest memory: who waits there shall not wait for a renderer.
    fn look_before_sleep(&mut self) {
        let gpu = &mut self.executor.gpu;
        let shows_memory = gpu.shows_memory_within(0, u64::MAX);
        let Some((inside, session)) = self.life.enter(&self.gate) else {
            return;
        };
        gpu.release_waits();
        if shows_memory {
            gpu.look_before_sleep(&*session.memory());
            drop(inside);
        } else {
            drop(inside);
            gpu.look_before_sleep(&F::Memory::default());
        }
        self.answer_done();
    }

    /// Tells, once, of a renderer that ended by itself. What it has to do beside answers it does here too, such as to send
    /// what a compositor was too slow for.
    fn look_after_renderer(&mut self) {
        let is_owed = |session: &mut Session<F::Memory>| session.is_owed();
        if self.inbox.take_renderer_news()
            && !self.answer_done()
            && !self.life.session().is_some_and(is_owed)
        {
            // It reaches no guest memory where no command waits. One that does is looked after when the gate is open.
            self.executor.gpu.poll_renderer();
        }
        if let Some(reason) = self.news_of_renderer() {
            self.events.emit(EventKind::RendererCrashed {
                reason: reason.clone(),
            });
            self.needs_reset(&reason);
        }
    }

    fn news_of_renderer(&mut self) -> Option<String> {
        if self.renderer == Renderer::Lost {
            return None;
        }
        let reason = self.executor.gpu.renderer_failure()?;
        self.renderer = Renderer::Lost;
        Some(reason)
    }

    fn activate(&mut self, activation: Activation<F::Memory>) {
        let Activation {
            memory,
            features,
            kind,
            queues,
            doorbells,
        } = activation;
        let how = match kind {
            ActivationKind::Fresh => GpuActivation::Fresh,
            ActivationKind::Retained => GpuActivation::Retained,
            ActivationKind::Reinstated => GpuActivation::Reinstated,
        };
        self.executor.gpu.activate(features, how);
        let event_idx = features & feature::mask(feature::VIRTIO_F_EVENT_IDX) != 0;
        let mut session = Box::new(Session::new(memory, event_idx));
        let started = queues.iter().map(|setup| session.start_queue(setup));
        let broken: Vec<_> = started.filter_map(Result::err).collect();
        if self.life.activate(session, kind) {
            self.gate.doubt();
        } else {
            self.gate.trust();
        }
        for (queue, error) in broken {
            self.needs_reset(&format!("queue {queue}: {error}"));
        }
        if let Err(error) = self.inbox.listen(doorbells) {
            self.needs_reset(&format!("doorbells: {error}"));
        }
        if let Some(reason) = self.executor.gpu.renderer_failure() {
            // It ended while the guest slept.
            self.needs_reset(&reason);
        }
    }

    /// Tells, once, whose guest memory turned out to be. Returns whether there was anything to tell.
    fn look_after_claim(&mut self) -> bool {
        let Some(session) = self.life.session() else {
            return false;
        };
        let queues = session.running();
        let news = session.news();
        match news {
            None => {}
            Some(News::Returned { since }) => {
                self.resets.reinstatements = self.resets.reinstatements.saturating_add(1);
                self.events.emit(EventKind::Reinstated {
                    queues,
                    resources: self.executor.gpu.status().resources,
                    took_us: micros(since),
                });
            }
            Some(News::Lost(loss)) => {
                self.reset_gpu(GpuResetKind::Full);
                self.needs_reset(&format!("guest memory changed hands: {loss}"));
            }
        }
        news.is_some()
    }

    fn resume(&mut self) {
        self.life.resume();
        self.front.complete(Completion::Resume);
    }

    fn discard(&mut self) {
        let start = Instant::now();
        let resources = self.executor.gpu.status().resources;
        self.life.discard();
        self.reset_gpu(GpuResetKind::Full);
        let took_us = micros(start);
        self.events
            .emit(EventKind::FullReset { resources, took_us });
    }

    /// What the guest had in a renderer that crashed ends here, and a new one is there for the next.
    fn reset_gpu(&mut self, kind: GpuResetKind) {
        if let Some(reason) = self.news_of_renderer() {
            self.events.emit(EventKind::RendererCrashed { reason });
        }
        self.executor.gpu.reset(kind);
        if kind == GpuResetKind::Full {
            self.inbox.forget_missed_memory();
        }
        self.renderer = match self.executor.gpu.renderer_failure() {
            Some(_) => Renderer::Lost,
            None => Renderer::Sound,
        };
    }
}
