// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How the device comes to rest, and what has waited for that: freezes, suspends, resets, pauses.

use std::time::{Duration, Instant};

use host_util::log_source::GUEST;
use virtio_gpu_s3::ResetKind as GpuResetKind;
use virtio_pci_freeze::{FreezeTicket, ResetKind, ResetOutcome, RingPosition};

use super::Worker;
use crate::command::Reply;
use crate::events::{EventKind, micros};
use crate::frontend::{Completion, ConfigChange, Frontend, QUEUE_SIZES, ResetReport};

/// How long a sleep waits for the renderer before it is refused. A frame of software rendering takes a tenth of it.
pub const QUIESCE_LIMIT: Duration = Duration::from_secs(2);

/// The device comes to rest: no buffer is taken until everything taken is done, or the time is over. `T` is what a reset
/// is asked with.
pub(super) struct Settling<T> {
    since: Instant,
    freeze: Option<FreezeTicket>,
    pub(super) suspend: bool,
    /// Those who wait, and whether the gate is to be shut for them.
    pub(super) asked: Vec<(Reply<bool>, bool)>,
    /// Resets that retain, the newest last: a function can be reset while its driver resets it.
    resets: Vec<(T, Instant)>,
}

impl<T> Settling<T> {
    fn since(now: Instant) -> Self {
        Self {
            since: now,
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

impl<F: Frontend> Worker<F> {
    pub(super) fn settling(&mut self) -> &mut Settling<F::Ticket> {
        let now = (self.clock)();
        self.settling.get_or_insert_with(|| Settling::since(now))
    }

    pub(super) fn freeze_changed(&mut self) {
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

    pub(super) fn reset(&mut self, kind: ResetKind, ticket: F::Ticket, asked: Instant) {
        match kind {
            ResetKind::Frozen => {
                let now = (self.clock)();
                let settling = self.settling();
                settling.resets.push((ticket, asked));
                settling.since = now;
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
    pub(super) fn settle(&mut self) -> Option<Duration> {
        let since = self.settling.as_ref()?.since;
        self.look_for_fences(false);
        self.answer_done();
        let _ = self.look_after_claim();
        let waited = (self.clock)().saturating_duration_since(since);
        let quiet = self.is_quiet(waited);
        if let Some(quiet) = quiet
            && let Some(settling) = self.settling.take()
        {
            self.conclude(settling, quiet);
            return None;
        }
        Some(QUIESCE_LIMIT.saturating_sub(waited))
    }

    /// `None` as long as it may come to be.
    fn is_quiet(&mut self, waited: Duration) -> Option<bool> {
        if let Some(reason) = self.executor.gpu.renderer_failure() {
            GUEST.warn(format_args!("The device cannot sleep: {reason}"));
            return Some(false);
        }
        let gpu = &mut self.executor.gpu;
        let quiet = match self.life.enter(&self.gate) {
            Some((_inside, session)) => gpu.quiesce(&*session.memory()),
            // What was flushed was read before the guest's memory could not be any more.
            None => gpu.quiesce(&F::Memory::default()),
        };
        let Err(outstanding) = quiet else {
            // Coming to rest may have ended waits, whose answers are owed.
            self.answer_done();
            return Some(true);
        };
        if waited < QUIESCE_LIMIT {
            return None;
        }
        GUEST.warn(format_args!("The device cannot sleep: {outstanding}"));
        Some(false)
    }

    fn conclude(&mut self, settling: Settling<F::Ticket>, quiet: bool) {
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
            if quiet {
                self.life.suspend();
            }
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
        if frozen && self.life.loss().is_none() {
            let positions = self.life.retain((self.clock)());
            self.reset_gpu(GpuResetKind::Frozen);
            return Some(positions);
        }
        self.frozen = None;
        self.life.end();
        self.reset_gpu(GpuResetKind::Full);
        None
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
}
