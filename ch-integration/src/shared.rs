// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A PCI function in front of the worker: what the VMM's thread and the worker share.

use std::sync::atomic::AtomicU64;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use virtio_pci_freeze::{Effects, FreezeTicket, ResetOutcome, ResetTicket, VirtioPciFunction};

use crate::device::VECTORS;
use crate::events::{EventKind, EventLog, micros};
use crate::interrupts::Interrupts;
use crate::status::Sleep;
use crate::worker::Frontend;

/// What the VMM's thread and the worker share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Told when a reset is done.
    reset_done: Condvar,
    pub(crate) events: EventLog,
    pub(crate) bad_chains: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) function: VirtioPciFunction,
    pub(crate) interrupts: Interrupts,
    pub(crate) sleep: Sleep,
    last_frozen_reset: Option<Instant>,
}

impl State {
    /// Sends what the function wants sent. Every other effect is the caller's.
    pub(crate) fn signal(&mut self) {
        while let Some(interrupt) = self.function.next_interrupt() {
            self.interrupts.signal(interrupt.vector);
        }
    }
}

impl Shared {
    pub(crate) fn new(function: VirtioPciFunction) -> Self {
        Self {
            state: Mutex::new(State {
                function,
                interrupts: Interrupts::new(VECTORS),
                sleep: Sleep::Awake,
                last_frozen_reset: None,
            }),
            reset_done: Condvar::new(),
            events: EventLog::default(),
            bad_chains: AtomicU64::default(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs what can only ask for interrupts.
    fn with_function(&self, change: impl FnOnce(&mut VirtioPciFunction) -> Effects) -> Effects {
        let mut state = self.lock();
        let effects = change(&mut state.function);
        state.signal();
        effects
    }

    /// Waits until no reset is under way. Returns whether that was reached within `limit`.
    pub(crate) fn wait_for_reset(&self, limit: Duration) -> bool {
        let state = self.lock();
        let waiting = |state: &mut State| state.function.transport().is_resetting();
        let result = self.reset_done.wait_timeout_while(state, limit, waiting);
        result.is_ok_and(|(_, timeout)| !timeout.timed_out())
    }
}

impl Frontend for Shared {
    type Bitmap = ();
    type Ticket = ResetTicket;

    fn events(&self) -> &EventLog {
        &self.events
    }

    fn bad_chains(&self) -> &AtomicU64 {
        &self.bad_chains
    }

    fn queue_used(&self, index: u16) {
        drop(self.with_function(|function| function.queue_used(index)));
    }

    fn needs_reset(&self, reason: &str) {
        drop(self.with_function(VirtioPciFunction::needs_reset));
        self.events.emit(EventKind::NeedsReset {
            reason: reason.into(),
        });
    }

    fn update_config(&self, config: &[u8]) {
        drop(self.with_function(|function| function.update_device_config(0, config)));
    }

    fn freeze_done(&self, ticket: FreezeTicket, honoured: bool) {
        self.lock().function.freeze_done(ticket, honoured);
        if honoured {
            self.events.emit(EventKind::Freeze);
        }
    }

    fn suspend_done(&self, suspended: bool) {
        drop(self.with_function(|function| function.suspend_done(suspended)));
    }

    fn resume_done(&self, resumed: bool) {
        drop(self.with_function(|function| function.resume_done(resumed)));
    }

    fn queue_reset_done(&self, index: u16) {
        self.lock().function.queue_reset_done(index);
    }

    fn reset_done(
        &self,
        ticket: ResetTicket,
        outcome: ResetOutcome<'_>,
        resources: usize,
        asked: Instant,
    ) {
        let mut state = self.lock();
        let before = state.function.transport().counters();
        drop(state.function.reset_done(ticket, outcome));
        let transport = state.function.transport();
        let after = transport.counters();
        let took_us = micros(asked);
        let event = if after.frozen_resets > before.frozen_resets {
            Some(EventKind::FrozenReset {
                holds: transport.holds().collect(),
                parked_queues: transport
                    .parked_queues()
                    .map_or(0, |parked| parked.queues.len()),
                resources,
                took_us,
            })
        } else {
            (after.full_resets > before.full_resets)
                .then_some(EventKind::FullReset { resources, took_us })
        };
        state.last_frozen_reset = Some(Instant::now());
        drop(state);
        self.reset_done.notify_all();
        if let Some(event) = event {
            self.events.emit(event);
        }
    }

    fn reinstated(&self, queues: usize, resources: usize) {
        let took_us = self.lock().last_frozen_reset.map_or(0, micros);
        self.events.emit(EventKind::Reinstated {
            queues,
            resources,
            took_us,
        });
    }
}
