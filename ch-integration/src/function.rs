// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The PCI function in front of the worker: what the VMM's thread and the worker's share.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vfio_user_device::{DmaMemory, Interrupts, IrqCounts};
use virtio_gpu_worker::{
    Activation, Completion, ConfigChange, Frontend, QUEUE_SIZES, ResetReport, WorkerLink, bit,
};
use virtio_pci_freeze::{Effect, Effects, ResetOutcome, ResetTicket, VirtioPciFunction};

use crate::Memory;
use crate::sleep::Sleep;

/// One vector a queue, and one for configuration changes.
#[expect(
    clippy::cast_possible_truncation,
    reason = "there are as many as the standard has queues for this device"
)]
pub const VECTORS: u16 = QUEUE_SIZES.len() as u16 + 1;

/// What the function interrupts with. A guest may have no MSI-X (Linux with `pci=nomsi`, most firmware): INTA# serves it.
pub(crate) const IRQS: IrqCounts = IrqCounts {
    msix: VECTORS,
    intx: true,
};

/// The function, and how it reaches its guest and its worker.
#[derive(Debug)]
pub(crate) struct Function {
    state: Mutex<State>,
    /// Told when a reset is done.
    reset_done: Condvar,
    worker: WorkerLink<Function>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) model: VirtioPciFunction,
    pub(crate) interrupts: Interrupts,
    pub(crate) sleep: Sleep,
    /// Of the VMM that is connected, whose guest alone may be served from it.
    pub(crate) memory: Memory,
}

/// What is left to do when the lock is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the guest goes on when it should not"]
pub(crate) enum Then {
    Nothing,
    /// The worker must have stopped touching guest memory before the access returns; what is shown it may still read.
    Stop,
}

impl Function {
    pub(crate) fn new(model: VirtioPciFunction, worker: WorkerLink<Self>) -> Self {
        Self {
            state: Mutex::new(State {
                model,
                interrupts: Interrupts::new(IRQS),
                sleep: Sleep::Awake,
                memory: Memory::new(DmaMemory::default()),
            }),
            reset_done: Condvar::new(),
            worker,
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes an access or gives an answer, and carries out what follows from it.
    pub(crate) fn change(
        &self,
        state: &mut State,
        change: impl FnOnce(&mut VirtioPciFunction) -> Effects,
    ) -> Then {
        let mut then = Then::Nothing;
        for effect in change(&mut state.model) {
            if self.carry_out(effect, state) == Then::Stop {
                then = Then::Stop;
            }
        }
        if let Some(told) = state.sleep.observe(state.model.transport()) {
            self.worker.tell(told);
        }
        then
    }

    /// The worker's answers stop nothing: what does is an access of the guest's.
    fn answer(&self, change: impl FnOnce(&mut VirtioPciFunction) -> Effects) {
        let then = self.change(&mut self.lock(), change);
        debug_assert_eq!(then, Then::Nothing);
    }

    /// Under the lock, so that the worker is asked in the order in which the guest made its accesses.
    fn carry_out(&self, effect: Effect, state: &mut State) -> Then {
        let worker = &self.worker;
        match effect {
            Effect::Reset { kind, ticket } => worker.reset(kind, ticket),
            Effect::Activate(kind) => {
                state.sleep.driver_acted();
                let transport = state.model.transport();
                worker.activate(Activation {
                    memory: state.memory.clone(),
                    features: transport.negotiated_features(),
                    kind,
                    queues: transport.active_queues().collect(),
                    doorbells: Vec::new(),
                });
            }
            Effect::Kick => worker.serve(),
            Effect::Pause => return Then::Stop,
            Effect::Notify { queue, .. } => {
                state.sleep.driver_acted();
                worker.ring(bit(queue));
            }
            Effect::Discard => worker.discard(),
            Effect::Disown => worker.disown(),
            Effect::Freeze { ticket } => worker.freeze(Some(ticket)),
            Effect::Unfreeze => worker.freeze(None),
            Effect::Suspend => worker.suspend(),
            Effect::Resume => worker.resume(),
            Effect::StartQueue { queue } => {
                let mut queues = state.model.transport().active_queues();
                if let Some(setup) = queues.find(|setup| setup.index == queue) {
                    worker.start_queue(setup);
                }
            }
            Effect::ResetQueue { queue } => worker.reset_queue(queue),
            Effect::DeviceConfigWrite {
                offset,
                width,
                value,
            } => {
                let bytes = value.to_le_bytes();
                worker.write_config(offset, bytes.get(..width.into()).unwrap_or(&bytes));
            }
            Effect::Interrupt => state.signal(),
            Effect::Intx(high) => state.interrupts.set_intx(high),
        }
        Then::Nothing
    }

    /// Waits until no reset is under way. Returns whether that was reached within `limit`.
    pub(crate) fn wait_for_reset(&self, limit: Duration) -> bool {
        let waiting = |state: &mut State| state.model.transport().is_resetting();
        let result = self
            .reset_done
            .wait_timeout_while(self.lock(), limit, waiting);
        result.is_ok_and(|(_, timeout)| !timeout.timed_out())
    }
}

impl State {
    /// Sends what the function wants sent.
    pub(crate) fn signal(&mut self) {
        while let Some(interrupt) = self.model.next_interrupt() {
            self.interrupts.signal(interrupt.vector);
        }
    }
}

impl Frontend for Function {
    type Memory = DmaMemory;
    type Ticket = ResetTicket;

    fn queue_used(&self, queue: u16) {
        self.answer(|model| model.queue_used(queue));
    }

    fn needs_reset(&self, _: &str) {
        self.answer(VirtioPciFunction::needs_reset);
    }

    /// The function tells the driver of any change that it did not make.
    fn set_config(&self, config: &[u8], _: ConfigChange) {
        self.answer(|model| model.update_device_config(0, config));
    }

    fn complete(&self, done: Completion) {
        self.answer(|model| match done {
            Completion::Freeze { ticket, honoured } => {
                model.freeze_done(ticket, honoured);
                Effects::none()
            }
            Completion::Suspend { suspended } => model.suspend_done(suspended),
            Completion::Resume => model.resume_done(true),
            Completion::QueueReset { queue } => {
                model.queue_reset_done(queue);
                Effects::none()
            }
        });
    }

    fn reset_done(&self, ticket: ResetTicket, outcome: ResetOutcome<'_>) -> ResetReport {
        let mut state = self.lock();
        let before = state.model.transport().counters();
        let then = self.change(&mut state, |model| model.reset_done(ticket, outcome));
        debug_assert_eq!(then, Then::Nothing);
        let transport = state.model.transport();
        let after = transport.counters();
        let report = if after.frozen_resets > before.frozen_resets {
            ResetReport::Frozen {
                holds: transport.holds().collect(),
                parked_queues: transport
                    .parked_queues()
                    .map_or(0, |parked| parked.queues.len()),
            }
        } else if after.full_resets > before.full_resets {
            ResetReport::Full
        } else {
            ResetReport::Superseded
        };
        drop(state);
        self.reset_done.notify_all();
        report
    }
}
