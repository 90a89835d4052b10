// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The worker's view of a VMM's own transport.

use std::fmt::{Debug, Formatter, Result as FmtResult};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use virtio_gpu_s3::Status as GpuStatus;
use virtio_pci_freeze::{Counters as TransportCounters, FreezeTicket, ResetOutcome, RingPosition};
use vm_memory::bitmap::Bitmap;

use crate::device::QUEUE_SIZES;
use crate::events::{EventKind, EventLog, micros};
use crate::status::{State as DeviceState, Status};
use crate::worker::Frontend;

/// VIRTIO 1.4 §5.7.4: events_read, events_clear, num_scanouts, num_capsets, blob_alignment.
pub(super) const CONFIG_SIZE: usize = 20;

/// Where the rings stood at a frozen reset; `None` after a full one.
pub(super) type Report = Option<[RingPosition; QUEUE_SIZES.len()]>;

/// The way of interrupts to the guest, as the VMM's transport offers it. Called from the GPU's thread.
pub trait GuestNotifier: Send + Sync {
    /// Buffers of this queue were used, and the driver wants to know.
    fn queue_used(&self, queue: u16);

    /// The device met an error that only a reset cures (DEVICE_NEEDS_RESET, VIRTIO 1.4 §2.1.2).
    fn needs_reset(&self, reason: &str);

    /// The device changed its configuration (VIRTIO 1.4 §2.5), as [`resize`](super::InProcessGpu::resize) does. Called
    /// from the thread that asked for it. A guest that is not told looks at its next probe.
    fn config_changed(&self) {}
}

/// What the VMM's threads and the worker share.
pub(super) struct InProcess<B> {
    state: Mutex<State>,
    pub(super) events: EventLog,
    bad_chains: AtomicU64,
    bitmap: PhantomData<fn() -> B>,
}

struct State {
    config: [u8; CONFIG_SIZE],
    /// There while a driver drives the device.
    notifier: Option<Arc<dyn GuestNotifier>>,
    condition: Condition,
    /// The VMM's, whoever drives the device and however it is: it spans resets, and starts with a restored device.
    paused: bool,
    counters: TransportCounters,
    last_frozen_reset: Option<Instant>,
}

/// What a reset did to the device, or must do.
#[derive(Clone, Copy, Debug)]
enum Condition {
    Sound,
    /// The last reset retained, and no driver has come since.
    Held,
    /// The driver was told that only a reset cures the device, and has not reset it.
    NeedsReset,
}

impl<B> Debug for InProcess<B> {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        let state = self.lock();
        f.debug_struct("InProcess")
            .field("active", &state.notifier.is_some())
            .field("condition", &state.condition)
            .field("paused", &state.paused)
            .finish_non_exhaustive()
    }
}

impl<B> InProcess<B> {
    pub(super) fn new(paused: bool) -> Self {
        Self {
            state: Mutex::new(State {
                config: [0; CONFIG_SIZE],
                notifier: None,
                condition: Condition::Sound,
                paused,
                counters: TransportCounters::default(),
                last_frozen_reset: None,
            }),
            events: EventLog::default(),
            bad_chains: AtomicU64::default(),
            bitmap: PhantomData,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_config(&self, config: &[u8]) {
        for (slot, byte) in self.lock().config.iter_mut().zip(config) {
            *slot = *byte;
        }
    }

    /// The device itself changed its configuration.
    pub(super) fn tell_config(&self, config: &[u8]) {
        self.set_config(config);
        if let Some(notifier) = self.notifier() {
            notifier.config_changed();
        }
    }

    pub(super) fn read_config(&self, offset: u64, data: &mut [u8]) {
        let config = self.lock().config;
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (index, byte) in data.iter_mut().enumerate() {
            let at = from.checked_add(index);
            *byte = at.and_then(|at| config.get(at)).copied().unwrap_or(0);
        }
    }

    /// A driver came, or went.
    pub(super) fn set_active(&self, notifier: Option<Arc<dyn GuestNotifier>>) {
        let mut state = self.lock();
        if notifier.is_some() && matches!(state.condition, Condition::Held) {
            state.condition = Condition::Sound;
        }
        state.notifier = notifier;
    }

    pub(super) fn set_paused(&self, paused: bool) {
        self.lock().paused = paused;
    }

    pub(super) fn may_serve(&self) -> bool {
        let state = self.lock();
        state.notifier.is_some() && !state.paused
    }

    pub(super) fn status(&self, gpu: &GpuStatus) -> Status {
        let state = self.lock();
        let is = match (state.condition, &state.notifier) {
            (Condition::Held, _) => DeviceState::Asleep,
            (Condition::NeedsReset, _) => DeviceState::NeedsReset,
            (Condition::Sound, Some(_)) if state.paused => DeviceState::Suspended,
            (Condition::Sound, Some(_)) => DeviceState::Running,
            (Condition::Sound, None) => DeviceState::Idle,
        };
        let bad_chains = self.bad_chains.load(Ordering::Relaxed);
        Status::in_process(is, gpu, state.counters, bad_chains)
    }

    /// Interrupts are sent without the lock, as a VMM may take its own for them.
    fn notifier(&self) -> Option<Arc<dyn GuestNotifier>> {
        self.lock().notifier.clone()
    }
}

impl<B: Bitmap + Send + Sync + 'static> Frontend for InProcess<B> {
    type Bitmap = B;
    type Ticket = SyncSender<Report>;

    fn events(&self) -> &EventLog {
        &self.events
    }

    fn bad_chains(&self) -> &AtomicU64 {
        &self.bad_chains
    }

    fn queue_used(&self, index: u16) {
        if let Some(notifier) = self.notifier() {
            notifier.queue_used(index);
        }
    }

    fn needs_reset(&self, reason: &str) {
        if let Some(notifier) = self.notifier() {
            self.lock().condition = Condition::NeedsReset;
            notifier.needs_reset(reason);
        }
        self.events.emit(EventKind::NeedsReset {
            reason: reason.into(),
        });
    }

    fn update_config(&self, config: &[u8]) {
        self.set_config(config);
    }

    // A VMM's transport asks for none of these: it settles, and starts queues with the device alone.
    fn freeze_done(&self, _ticket: FreezeTicket, _honoured: bool) {}
    fn suspend_done(&self, _suspended: bool) {}
    fn resume_done(&self, _resumed: bool) {}
    fn queue_reset_done(&self, _index: u16) {}

    fn reset_done(
        &self,
        ticket: Self::Ticket,
        outcome: ResetOutcome<'_>,
        resources: usize,
        asked: Instant,
    ) {
        let took_us = micros(asked);
        let report: Report = match outcome {
            ResetOutcome::Done(positions) => positions.try_into().ok(),
            ResetOutcome::StateLost => None,
        };
        let mut state = self.lock();
        let event = if report.is_some() {
            state.condition = Condition::Held;
            state.counters.frozen_resets += 1;
            state.last_frozen_reset = Some(Instant::now());
            EventKind::FrozenReset {
                holds: Vec::new(),
                parked_queues: QUEUE_SIZES.len(),
                resources,
                took_us,
            }
        } else {
            state.condition = Condition::Sound;
            state.counters.full_resets += 1;
            EventKind::FullReset { resources, took_us }
        };
        drop(state);
        self.events.emit(event);
        // Nobody waits any more where this fails.
        let _ = ticket.send(report);
    }

    fn reinstated(&self, queues: usize, resources: usize) {
        let mut state = self.lock();
        state.counters.reinstatements += 1;
        let took_us = state.last_frozen_reset.map_or(0, micros);
        drop(state);
        self.events.emit(EventKind::Reinstated {
            queues,
            resources,
            took_us,
        });
    }
}
