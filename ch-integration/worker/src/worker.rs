// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The thread that owns the GPU.
//!
//! It lives as long as the device: activations, resets and whole VMMs come and go, and nothing but the end of the
//! process takes the GPU away from it.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use host_util::adaptive_polling::{AdaptivePolling, FOR_GUEST, FOR_RENDERER};
use log::warn;
use virtio_gpu_s3::{
    Activation as GpuActivation, Gpu, LookError, Picture, ResetKind as GpuResetKind, Seen,
};
use virtio_pci_freeze::spec::feature;
use virtio_pci_freeze::{ActivationKind, FreezeTicket, ResetKind, ResetOutcome, RingPosition};
use vm_memory::GuestMemoryMmap;

use crate::command::{Activation, Command, GpuAccess, Reply, Told};
use crate::events::{EventKind, EventLog, micros};
use crate::frontend::{Completion, ConfigChange, Frontend, QUEUE_SIZES, ResetReport};
use crate::gate::Gate;
use crate::mailbox::{Inbox, Patience};
use crate::session::{Executor, Served, Session, bit};
use crate::status::{Life as LifeStatus, Resets, WorkerStatus};

/// How long a sleep waits for the renderer before it is refused. A frame of software rendering takes a tenth of it.
pub const QUIESCE_LIMIT: Duration = Duration::from_secs(2);

/// What the device does. Each state owns what exists only in it.
enum Life<F: Frontend> {
    Stopped(Left<F>),
    Running(Box<Session<F::Bitmap>>),
    /// By the driver (VIRTIO 1.4 §3.4).
    Suspended(Box<Session<F::Bitmap>>),
}

/// What the last reset left.
enum Left<F: Frontend> {
    Nothing,
    /// The GPU's state, and the session, whose answers may be owed to a driver that gets its queues back.
    Retained {
        session: Box<Session<F::Bitmap>>,
        since: Instant,
    },
}

impl<F: Frontend> Life<F> {
    fn session(&mut self) -> Option<&mut Session<F::Bitmap>> {
        match self {
            Self::Running(session) | Self::Suspended(session) => Some(session),
            Self::Stopped(_) => None,
        }
    }
}

/// The device comes to rest: no buffer is taken until everything taken is done, or the time is over.
struct Settling<F: Frontend> {
    since: Instant,
    freeze: Option<FreezeTicket>,
    suspend: bool,
    /// Those who wait, and whether the gate is to be shut for them.
    asked: Vec<(Reply<bool>, bool)>,
    /// Resets that retain, the newest last: a function can be reset while its driver resets it.
    resets: Vec<(F::Ticket, Instant)>,
}

impl<F: Frontend> Settling<F> {
    fn now() -> Self {
        Self {
            since: Instant::now(),
            freeze: None,
            suspend: false,
            asked: Vec::new(),
            resets: Vec::new(),
        }
    }

    fn is_wanted(&self) -> bool {
        self.freeze.is_some() || self.suspend || !self.asked.is_empty() || !self.resets.is_empty()
    }
}

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
        let inside = gate.enter();
        match (inside, life.session()) {
            (Some(_inside), Some(session)) => executor.gpu.look(scanout, seen, &*session.memory()),
            // What was flushed was read before the guest's memory could not be any more.
            _ => {
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
    life: Life<F>,
    settling: Option<Settling<F>>,
    /// The freeze that is honoured.
    frozen: Option<FreezeTicket>,
    renderer: Renderer,
    resets: Resets,
    polling: AdaptivePolling,
    /// Whether this looks for fences, and is not waked for them.
    looks_for_fences: bool,
}

impl<F: Frontend> Worker<F> {
    pub(crate) fn new(
        executor: Executor,
        front: Arc<F>,
        gate: Arc<Gate>,
        events: Arc<EventLog>,
        inbox: Inbox<F>,
    ) -> Self {
        Self {
            executor,
            front,
            gate,
            events,
            inbox,
            life: Life::Stopped(Left::Nothing),
            settling: None,
            frozen: None,
            renderer: Renderer::Sound,
            resets: Resets::default(),
            polling: AdaptivePolling::default(),
            looks_for_fences: false,
        }
    }

    /// Runs until the front end says that this is the end.
    pub(crate) fn run(mut self) {
        while !self.inbox.is_ended() {
            let patience = self.patience();
            let command = self.inbox.next(patience);
            self.polling.found();
            match command {
                Some(command) => self.handle(command),
                None if self.has_work() => self.serve(),
                None => {}
            }
            self.look_after_renderer();
        }
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
        self.inbox.has_news() || self.has_work() || self.answer_done()
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
        self.gate.enter().is_some_and(|_inside| session.find_work())
    }

    fn serve(&mut self) {
        let Life::Running(session) = &mut self.life else {
            return;
        };
        let Some(inside) = self.gate.enter() else {
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
        let inside = self.gate.enter();
        inside.is_some_and(|_inside| session.ask_for_doorbells())
    }

    /// Before a sleep. Returns whether the renderer was faster.
    fn ask_for_wakes(&mut self) -> bool {
        self.look_for_fences(false);
        self.answer_done()
    }

    /// Answers the commands that are done, where the driver may be answered now. Returns whether there were any.
    fn answer_done(&mut self) -> bool {
        let (Life::Running(session) | Life::Suspended(session)) = &mut self.life else {
            return false;
        };
        let some = session.collect(&mut self.executor.gpu);
        if !session.is_done() {
            return some;
        }
        let Some(inside) = self.gate.enter() else {
            return false;
        };
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
            Command::FollowMemory { old, reply } => {
                self.follow_memory();
                drop(old);
                // Where this fails nobody waits any more, as below.
                let _ = reply.send(());
            }
            Command::Status(reply) => drop(reply.send(self.status())),
            Command::Job(job) => {
                job(self);
                if self.executor.gpu.take_config_change() {
                    self.set_config(ConfigChange::ByDevice);
                }
            }
        }
    }

    fn settling(&mut self) -> &mut Settling<F> {
        self.settling.get_or_insert_with(Settling::now)
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
        let life = match &self.life {
            Life::Stopped(Left::Nothing) => LifeStatus::Idle,
            Life::Stopped(Left::Retained { .. }) => LifeStatus::Retained,
            Life::Running(_) => LifeStatus::Running,
            Life::Suspended(_) => LifeStatus::Suspended,
        };
        WorkerStatus {
            life,
            gpu: self.executor.gpu.status(),
            resets: self.resets,
            bad_chains: self.executor.bad_chains,
        }
    }

    /// Also of a guest that sleeps: a renderer may have addresses in what went.
    fn follow_memory(&mut self) {
        let memory = match &self.life {
            Life::Running(session)
            | Life::Suspended(session)
            | Life::Stopped(Left::Retained { session, .. }) => session.memory(),
            Life::Stopped(Left::Nothing) => return,
        };
        if let Err(error) = self.executor.gpu.memory_changed(&*memory) {
            warn!("Resources have lost guest memory that was unmapped: {error}");
        }
    }

    fn look_before_sleep(&mut self) {
        let inside = self.gate.enter();
        if let (Some(_inside), Some(session)) = (inside, self.life.session()) {
            let memory = session.memory();
            self.executor.gpu.look_before_sleep(&*memory);
        }
    }

    /// Tells, once, of a renderer that ended by itself. What it has to do beside answers it does here too, such as to send
    /// what a compositor was too slow for.
    fn look_after_renderer(&mut self) {
        if self.inbox.take_renderer_news() && !self.answer_done() {
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

    fn activate(&mut self, activation: Activation<F::Bitmap>) {
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
        let left = mem::replace(&mut self.life, Life::Stopped(Left::Nothing));
        let since = match left {
            Life::Stopped(Left::Retained {
                session: old,
                since,
            }) => {
                if kind == ActivationKind::Reinstated {
                    session.take_over(*old);
                }
                Some(since)
            }
            _ => None,
        };
        let started = queues.iter().map(|setup| session.start_queue(setup));
        let broken: Vec<_> = started.filter_map(Result::err).collect();
        let running = session.running();
        self.life = Life::Running(session);
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
        if kind == ActivationKind::Reinstated {
            self.resets.reinstatements = self.resets.reinstatements.saturating_add(1);
            self.events.emit(EventKind::Reinstated {
                queues: running,
                resources: self.executor.gpu.status().resources,
                took_us: since.map_or(0, micros),
            });
        }
    }

    fn resume(&mut self) {
        let life = mem::replace(&mut self.life, Life::Stopped(Left::Nothing));
        self.life = match life {
            Life::Suspended(mut session) => {
                session.note(u64::MAX);
                Life::Running(session)
            }
            other => other,
        };
        self.front.complete(Completion::Resume);
    }

    fn freeze_changed(&mut self) {
        let wanted = self.inbox.take_freeze();
        if wanted.is_none() || wanted != self.frozen {
            if self.frozen.take().is_some() {
                self.events.emit(EventKind::Unfreeze);
            }
            match wanted {
                Some(ticket) => self.settling().freeze = Some(ticket),
                None => self.take_freeze_back(),
            }
        }
    }

    /// Nothing is settled any more that nobody wants.
    fn take_freeze_back(&mut self) {
        if let Some(settling) = &mut self.settling {
            settling.freeze = None;
            if !settling.is_wanted() {
                self.settling = None;
            }
        }
    }

    fn reset(&mut self, kind: ResetKind, ticket: F::Ticket, asked: Instant) {
        match kind {
            ResetKind::Frozen => {
                let settling = self.settling();
                settling.resets.push((ticket, asked));
                settling.since = Instant::now();
            }
            ResetKind::Full => {
                if let Some(settling) = self.settling.take() {
                    self.conclude(settling, false);
                }
                self.finish_resets(vec![(ticket, asked)], false);
            }
        }
    }

    /// Comes nearer to rest. Returns how much time there is left for it, or `None` when it is over.
    fn settle(&mut self) -> Option<Duration> {
        let since = self.settling.as_ref()?.since;
        self.look_for_fences(false);
        self.answer_done();
        let quiet = self.is_quiet(since.elapsed());
        if let Some(quiet) = quiet
            && let Some(settling) = self.settling.take()
        {
            self.conclude(settling, quiet);
            return None;
        }
        Some(QUIESCE_LIMIT.saturating_sub(since.elapsed()))
    }

    /// `None` as long as it may come to be.
    fn is_quiet(&mut self, waited: Duration) -> Option<bool> {
        if let Some(reason) = self.executor.gpu.renderer_failure() {
            warn!("The device cannot sleep: {reason}");
            return Some(false);
        }
        let gpu = &mut self.executor.gpu;
        let quiet = match (self.gate.enter(), self.life.session()) {
            (Some(_inside), Some(session)) => gpu.quiesce(&*session.memory()),
            // What was flushed was read before the guest's memory could not be any more.
            _ => gpu.quiesce(&GuestMemoryMmap::<F::Bitmap>::new()),
        };
        let Err(outstanding) = quiet else {
            // Coming to rest may have ended waits, whose answers are owed.
            self.answer_done();
            return Some(true);
        };
        if waited < QUIESCE_LIMIT {
            return None;
        }
        warn!("The device cannot sleep: {outstanding}");
        Some(false)
    }

    fn conclude(&mut self, settling: Settling<F>, quiet: bool) {
        let Settling {
            since: _,
            freeze,
            suspend,
            asked,
            resets,
        } = settling;
        if let Some(ticket) = freeze {
            let honoured = quiet;
            self.front.complete(Completion::Freeze { ticket, honoured });
            if honoured {
                self.frozen = Some(ticket);
                self.events.emit(EventKind::Freeze);
            }
        }
        if suspend {
            let life = mem::replace(&mut self.life, Life::Stopped(Left::Nothing));
            self.life = match life {
                Life::Running(session) if quiet => Life::Suspended(session),
                other => other,
            };
            let suspended = quiet;
            self.front.complete(Completion::Suspend { suspended });
        }
        for (reply, shut) in asked {
            if shut && quiet {
                self.gate.shut();
            }
            let _ = reply.send(quiet);
        }
        if !resets.is_empty() {
            self.finish_resets(resets, quiet);
        }
    }

    /// Applies a reset, a frozen one if the device came to rest for it, and tells all who asked for it.
    fn finish_resets(&mut self, resets: Vec<(F::Ticket, Instant)>, frozen: bool) {
        let resources = self.executor.gpu.status().resources;
        // What can be listened to can be listened to no more.
        drop(self.inbox.listen(Vec::new()));
        self.gate.ended();
        let positions = self.stop(frozen);
        self.set_config(ConfigChange::ByDriver);
        for (ticket, asked) in resets {
            let outcome = match &positions {
                Some(positions) => ResetOutcome::Done(positions),
                None => ResetOutcome::StateLost,
            };
            let report = self.front.reset_done(ticket, outcome);
            self.tell_reset(report, resources, micros(asked));
        }
    }

    /// Ends the session, and with it whatever is owed, or keeps it for a driver that gets its queues back. Returns where
    /// its rings stood if the state is retained.
    fn stop(&mut self, frozen: bool) -> Option<[RingPosition; QUEUE_SIZES.len()]> {
        let life = mem::replace(&mut self.life, Life::Stopped(Left::Nothing));
        if !frozen {
            self.frozen = None;
            self.reset_gpu(GpuResetKind::Full);
            return None;
        }
        let mut positions = [RingPosition::default(); QUEUE_SIZES.len()];
        self.life = match life {
            Life::Running(session) | Life::Suspended(session) => {
                positions = session.positions();
                let since = Instant::now();
                Life::Stopped(Left::Retained { session, since })
            }
            stopped @ Life::Stopped(_) => stopped,
        };
        self.reset_gpu(GpuResetKind::Frozen);
        Some(positions)
    }

    fn tell_reset(&mut self, report: ResetReport, resources: usize, took_us: u64) {
        self.events.emit(match report {
            ResetReport::Frozen {
                holds,
                parked_queues,
            } => {
                self.resets.frozen = self.resets.frozen.saturating_add(1);
                EventKind::FrozenReset {
                    holds,
                    parked_queues,
                    resources,
                    took_us,
                }
            }
            ResetReport::Full => {
                self.resets.full = self.resets.full.saturating_add(1);
                EventKind::FullReset { resources, took_us }
            }
            ResetReport::Superseded => return,
        });
    }

    fn discard(&mut self) {
        let start = Instant::now();
        let resources = self.executor.gpu.status().resources;
        if let Life::Stopped(left) = &mut self.life {
            *left = Left::Nothing;
        }
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
        self.renderer = match self.executor.gpu.renderer_failure() {
            Some(_) => Renderer::Lost,
            None => Renderer::Sound,
        };
    }
}
