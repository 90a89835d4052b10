// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the device answers.

use core::mem;

use super::{Found, Lifecycle, ResetOutcome, Transport, count};
use crate::effect::{Effects, FreezeTicket, ResetKind, ResetTicket};
use crate::queue::{QueueSetup, QueueStatus, RingPosition};
use crate::retention::{FreezeState, ParkedQueues, Stopped};
use crate::spec::DeviceStatus;

impl Transport {
    /// The device has carried out [`Effect::Reset`](crate::Effect::Reset); the status reads 0 from now on. An answer to an older reset is
    /// ignored. Returns what kind of reset it turned out to be.
    #[must_use = "a front end drops the interrupts that wait from before the reset"]
    pub fn reset_done(
        &mut self,
        ticket: ResetTicket,
        outcome: ResetOutcome<'_>,
    ) -> Option<ResetKind> {
        let Lifecycle::Resetting {
            kind,
            ticket: current,
            found,
        } = &mut self.lifecycle
        else {
            return None;
        };
        if *current != ticket {
            return None;
        }
        let (kind, found) = (*kind, mem::replace(found, Found::Live));
        let (done, stopped) = match (kind, outcome, found) {
            (ResetKind::Frozen, ResetOutcome::Done(positions), Found::Live) => {
                (ResetKind::Frozen, Stopped::Retained(self.park(positions)))
            }
            _ => (ResetKind::Full, Stopped::Clean),
        };
        if (kind, done) == (ResetKind::Frozen, ResetKind::Full) {
            // The device did not honour FREEZE_S3 after all, so the register may not say that it does.
            self.freeze = FreezeState::Unfrozen;
        }
        self.lifecycle = Lifecycle::Stopped(stopped);
        self.reset_registers();
        count(match done {
            ResetKind::Full => &mut self.counters.full_resets,
            ResetKind::Frozen => &mut self.counters.frozen_resets,
        });
        Some(done)
    }

    /// The device can (`honoured`) or cannot retain its state. Only now does FREEZE_S3 read back. An answer to an older
    /// request is ignored: the guest may have taken that back.
    pub fn freeze_done(&mut self, ticket: FreezeTicket, honoured: bool) {
        if self.freeze != FreezeState::Freezing || self.freeze_ticket != ticket {
            return;
        }
        if honoured {
            self.freeze = FreezeState::Frozen;
        } else {
            self.freeze = FreezeState::Unfrozen;
            count(&mut self.counters.freezes_refused);
        }
    }

    /// The device is suspended, or failed to and needs a reset (VIRTIO 1.4 §3.4.2). Returns whether the driver must
    /// be told through a configuration change notification.
    #[must_use = "the driver must be told"]
    pub fn suspend_done(&mut self, suspended: bool) -> bool {
        if self.lifecycle != Lifecycle::Suspending {
            return false;
        }
        if suspended {
            self.lifecycle = Lifecycle::Suspended;
            self.status = self
                .status
                .with(DeviceStatus::SUSPEND)
                .without(DeviceStatus::DRIVER_OK);
            return false;
        }
        self.lifecycle = Lifecycle::Running;
        self.needs_reset()
    }

    /// The device runs again after a suspend, or failed to and needs a reset. Returns whether the driver must be told
    /// of that, or of a change of the configuration that had to wait. Asks for a [`Kick`](crate::Effect::Kick), since
    /// doorbells of before the suspend may not have been served.
    #[must_use = "the driver must be told"]
    pub fn resume_done(&mut self, resumed: bool, effects: &mut Effects) -> bool {
        if self.lifecycle != Lifecycle::Resuming {
            return false;
        }
        self.lifecycle = Lifecycle::Running;
        self.status = self
            .status
            .with(DeviceStatus::DRIVER_OK)
            .without(DeviceStatus::SUSPEND);
        let changed = self.device_config.release();
        if !resumed {
            return self.needs_reset();
        }
        self.kick_if_reachable(effects);
        changed
    }

    /// The device has stopped the queue that [`Effect::ResetQueue`](crate::Effect::ResetQueue) named.
    pub fn queue_reset_done(&mut self, index: u16) {
        if let Some(queue) = self.queues.get_mut(usize::from(index))
            && queue.status == QueueStatus::Resetting
        {
            queue.reset();
        }
    }

    /// The device met an error that only a reset cures (VIRTIO 1.4 §2.1.2). Returns whether the driver must be told
    /// through a configuration change notification.
    ///
    /// A device that no driver has found is as good as reset. It keeps status 0, which a driver that has just reset it
    /// polls for without end.
    #[must_use = "the driver must be told"]
    pub fn needs_reset(&mut self) -> bool {
        if self.status.0 == 0 {
            return false;
        }
        self.status = self.status.with(DeviceStatus::DEVICE_NEEDS_RESET);
        self.status.contains(DeviceStatus::DRIVER_OK)
    }

    fn park(&self, positions: &[RingPosition]) -> Option<ParkedQueues> {
        let queues: Vec<QueueSetup> = (0u16..)
            .zip(&self.queues)
            .filter_map(|(index, queue)| {
                let mut setup = queue.setup(index)?;
                setup.position = *positions.get(usize::from(index))?;
                Some(setup)
            })
            .collect();
        (!queues.is_empty()).then_some(ParkedQueues {
            features: self.driver_features,
            config_vector: self.config_vector,
            queues,
        })
    }
}
