// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The worker's view of a VMM's own transport.

use std::fmt::{Debug, Formatter, Result as FmtResult};
use std::marker::PhantomData;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtio_gpu_worker::{
    Completion, ConfigChange, Frontend, Life, QUEUE_SIZES, ResetReport, State,
};
use virtio_pci_freeze::{FreezeTicket, ResetOutcome, RingPosition};
use vm_memory::GuestMemoryMmap;
use vm_memory::bitmap::Bitmap;

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

    /// The device changed its configuration (VIRTIO 1.4 §2.5), as after a
    /// [`resize`](virtio_gpu_worker::Controlled::resize). A guest that is not told looks at its next probe.
    fn config_changed(&self) {}
}

/// What the VMM's threads and the worker share.
pub(super) struct InProcess<B> {
    registers: Mutex<Registers>,
    bitmap: PhantomData<fn() -> B>,
}

/// What a driver sees of the device, as far as it is not the VMM's.
struct Registers {
    config: [u8; CONFIG_SIZE],
    driver: Driver,
    freeze: FreezeTicket,
    /// Who waits for that freeze.
    freezing: Option<SyncSender<bool>>,
    /// The VMM's, whoever drives the device and however it is: it spans resets, and starts with a restored device.
    paused: bool,
}

/// Who drives the device.
enum Driver {
    None,
    Runs(Arc<dyn GuestNotifier>),
    /// The driver was told that only a reset cures the device, and has not reset it.
    MustReset(Arc<dyn GuestNotifier>),
}

impl<B> Debug for InProcess<B> {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        let registers = self.lock();
        f.debug_struct("InProcess")
            .field("driven", &!matches!(registers.driver, Driver::None))
            .field("paused", &registers.paused)
            .finish_non_exhaustive()
    }
}

impl<B> InProcess<B> {
    pub(super) fn new(config: [u8; CONFIG_SIZE], paused: bool) -> Self {
        Self {
            registers: Mutex::new(Registers {
                config,
                driver: Driver::None,
                freeze: FreezeTicket::default(),
                freezing: None,
                paused,
            }),
            bitmap: PhantomData,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Registers> {
        self.registers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn read_config(&self, offset: u64, data: &mut [u8]) {
        let config = self.lock().config;
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (index, byte) in data.iter_mut().enumerate() {
            let at = from.checked_add(index);
            *byte = at.and_then(|at| config.get(at)).copied().unwrap_or(0);
        }
    }

    /// A driver set DRIVER_OK.
    pub(super) fn driver_came(&self, notifier: Arc<dyn GuestNotifier>) {
        self.lock().driver = Driver::Runs(notifier);
    }

    /// It reset the device.
    pub(super) fn driver_went(&self) {
        self.lock().driver = Driver::None;
    }

    /// Names a request to freeze; whether it is honoured comes from the receiver.
    pub(super) fn begin_freeze(&self) -> (FreezeTicket, Receiver<bool>) {
        let (sender, receiver) = sync_channel(1);
        let mut registers = self.lock();
        let FreezeTicket(last) = registers.freeze;
        registers.freeze = FreezeTicket(last.wrapping_add(1));
        // Whoever waited for the one before hears that it is over.
        registers.freezing = Some(sender);
        (registers.freeze, receiver)
    }

    pub(super) fn set_paused(&self, paused: bool) {
        self.lock().paused = paused;
    }

    pub(super) fn may_serve(&self) -> bool {
        let registers = self.lock();
        !matches!(registers.driver, Driver::None) && !registers.paused
    }

    pub(super) fn state(&self, worker: Life) -> State {
        let registers = self.lock();
        match (&registers.driver, worker) {
            (Driver::MustReset(_), _) => State::NeedsReset,
            (Driver::None, Life::Retained) => State::Asleep,
            (Driver::None, _) => State::Idle,
            (Driver::Runs(_), _) if registers.paused => State::Suspended,
            (Driver::Runs(_), _) => State::Running,
        }
    }

    /// Interrupts are sent without the lock, as a VMM may take its own for them.
    fn notifier(&self) -> Option<Arc<dyn GuestNotifier>> {
        match &self.lock().driver {
            Driver::None => None,
            Driver::Runs(notifier) | Driver::MustReset(notifier) => Some(Arc::clone(notifier)),
        }
    }
}

impl<B: Bitmap + Send + Sync + 'static> Frontend for InProcess<B> {
    type Memory = GuestMemoryMmap<B>;
    type Ticket = SyncSender<Report>;

    fn queue_used(&self, queue: u16) {
        if let Some(notifier) = self.notifier() {
            notifier.queue_used(queue);
        }
    }

    fn needs_reset(&self, reason: &str) {
        if let Some(notifier) = self.notifier() {
            self.lock().driver = Driver::MustReset(Arc::clone(&notifier));
            notifier.needs_reset(reason);
        }
    }

    fn set_config(&self, config: &[u8], change: ConfigChange) {
        for (slot, byte) in self.lock().config.iter_mut().zip(config) {
            *slot = *byte;
        }
        if change == ConfigChange::ByDevice
            && let Some(notifier) = self.notifier()
        {
            notifier.config_changed();
        }
    }

    fn complete(&self, done: Completion) {
        match done {
            Completion::Freeze { ticket, honoured } => {
                let mut registers = self.lock();
                if registers.freeze == ticket
                    && let Some(freezing) = registers.freezing.take()
                {
                    // Nobody waits any more where this fails.
                    let _ = freezing.send(honoured);
                }
            }
            // A VMM's transport asks for none of these: it starts and ends queues with the device alone.
            Completion::Suspend { .. } | Completion::Resume | Completion::QueueReset { .. } => {}
        }
    }

    fn reset_done(&self, ticket: Self::Ticket, outcome: ResetOutcome<'_>) -> ResetReport {
        let (report, told): (Report, _) = match outcome {
            ResetOutcome::Done(positions) => (
                positions.try_into().ok(),
                ResetReport::Frozen {
                    holds: Vec::new(),
                    parked_queues: QUEUE_SIZES.len(),
                },
            ),
            ResetOutcome::StateLost => (None, ResetReport::Full),
        };
        self.driver_went();
        // Nobody waits any more where this fails.
        let _ = ticket.send(report);
        told
    }
}
