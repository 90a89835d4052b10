// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the driver does.

use core::mem;

use super::{Lifecycle, PowerState, Transport, count};
use crate::effect::{ActivationKind, Effect, Effects, FreezeTicket, ResetKind};
use crate::queue::{Queue, QueueStatus};
use crate::register::{FREEZE_FEATURE, Layout};
use crate::retention::{Away, FreezeState, ParkedQueues, Stopped};
use crate::spec::{DeviceStatus, FreezeModeValue, VIRTIO_MSI_NO_VECTOR, feature};
use crate::status::{self, Phase, StatusContext, StatusEdge, StatusWrite};

impl Transport {
    /// The driver writes `value` to the device status (VIRTIO 1.4 §2.1).
    pub fn write_status(&mut self, value: u8, effects: &mut Effects) {
        let context = StatusContext {
            phase: self.phase(),
            features_acceptable: self.features_acceptable(),
            suspend_negotiated: self.negotiated(feature::VIRTIO_F_SUSPEND),
        };
        match status::write(self.status, value, context) {
            StatusWrite::Reset => self.driver_reset(effects),
            StatusWrite::Ignored => count(&mut self.counters.status_writes_ignored),
            StatusWrite::Set { status, edge } => {
                self.begin_negotiation(effects);
                self.status = status;
                match edge {
                    StatusEdge::None | StatusEdge::FeaturesOk | StatusEdge::FeaturesRefused => {}
                    StatusEdge::DriverOk => self.activate(effects),
                    StatusEdge::Suspend => {
                        self.lifecycle = Lifecycle::Suspending;
                        effects.push(Effect::Suspend);
                    }
                    StatusEdge::Resume => {
                        self.lifecycle = Lifecycle::Resuming;
                        effects.push(Effect::Resume);
                    }
                }
            }
        }
    }

    /// A driver that has reset a running device and goes on to negotiate (VIRTIO 1.4 §3.1.1), without having slept, is no
    /// driver that comes back: it is a bus that acknowledges a device whose driver is gone, or a driver that starts anew.
    fn begin_negotiation(&mut self, effects: &mut Effects) {
        let unasked = self.freeze == FreezeState::Unfrozen && self.holds.is_only_awake_reset();
        if self.status.0 == 0 && unasked {
            self.discard(effects);
        }
    }

    /// The driver rings the doorbell of `queue` (VIRTIO 1.4 §4.1.5.2).
    pub fn notify(&mut self, queue: u16, data: u32, effects: &mut Effects) {
        let enabled = self.queue(queue).is_some_and(Queue::is_enabled);
        // A doorbell that comes while memory is out of reach is not lost: the kick at its return covers it.
        if !enabled || self.lifecycle != Lifecycle::Running || !self.may_access_memory() {
            count(&mut self.counters.notifications_ignored);
            return;
        }
        self.holds.notified();
        effects.push(Effect::Notify { queue, data });
    }

    /// The driver writes `value` to `freeze_mode`.
    pub fn write_freeze_mode(&mut self, value: u16, effects: &mut Effects) {
        match (FreezeModeValue(value), self.freeze) {
            (FreezeModeValue::UNFREEZE, FreezeState::Unfrozen) => {}
            (FreezeModeValue::UNFREEZE, _) => {
                self.freeze = FreezeState::Unfrozen;
                effects.push(Effect::Unfreeze);
            }
            (FreezeModeValue::FREEZE_S3, FreezeState::Unfrozen) if self.freeze_allowed() => {
                self.begin_freeze(effects);
            }
            (FreezeModeValue::FREEZE_S3, FreezeState::Freezing | FreezeState::Frozen) => {}
            _ => count(&mut self.counters.freeze_writes_ignored),
        }
    }

    /// Asks the device whether it can retain its state.
    pub(crate) fn begin_freeze(&mut self, effects: &mut Effects) {
        let ticket = FreezeTicket(self.next_ticket());
        self.freeze = FreezeState::Freezing;
        self.freeze_ticket = ticket;
        effects.push(Effect::Freeze { ticket });
    }

    pub(crate) fn freeze_mode(&self) -> u16 {
        match self.freeze {
            FreezeState::Unfrozen | FreezeState::Freezing => FreezeModeValue::UNFREEZE.0,
            FreezeState::Frozen => FreezeModeValue::FREEZE_S3.0,
        }
    }

    pub(crate) fn write_driver_features(&mut self, features: u64) -> bool {
        let open =
            self.phase() == Phase::Stopped && !self.status.contains(DeviceStatus::FEATURES_OK);
        if open {
            self.driver_features = features;
        }
        open
    }

    pub(crate) fn write_config_vector(&mut self, vector: u16) {
        self.config_vector = self.checked_vector(vector);
    }

    pub(crate) fn write_queue_vector(&mut self, index: u16, vector: u16) -> bool {
        let vector = self.checked_vector(vector);
        let queue = self.queues.get_mut(usize::from(index));
        queue.map(|queue| queue.vector = vector).is_some()
    }

    /// Changes a queue that is not enabled, where the driver may: after FEATURES_OK and before DRIVER_OK, or later
    /// when queues can be reset one by one (VIRTIO 1.4 §3.1.1, §2.6.1). Returns whether it did.
    pub(crate) fn configure_queue(&mut self, index: u16, change: impl FnOnce(&mut Queue)) -> bool {
        let negotiated = self.status.contains(DeviceStatus::FEATURES_OK);
        let open = match self.phase() {
            Phase::Stopped => negotiated,
            Phase::Running => self.negotiated(feature::VIRTIO_F_RING_RESET),
            _ => false,
        };
        match self.queues.get_mut(usize::from(index)) {
            Some(queue) if open && queue.status == QueueStatus::Disabled => {
                change(queue);
                true
            }
            _ => false,
        }
    }

    /// The driver writes 1 to queue_reset (VIRTIO 1.4 §2.6.1). Returns whether it may.
    pub(crate) fn reset_queue(&mut self, index: u16, effects: &mut Effects) -> bool {
        if !self.negotiated(feature::VIRTIO_F_RING_RESET) {
            return false;
        }
        let live = self.lifecycle == Lifecycle::Running;
        match self.queues.get_mut(usize::from(index)) {
            Some(queue) if queue.is_enabled() && live => {
                queue.status = QueueStatus::Resetting;
                effects.push(Effect::ResetQueue { queue: index });
                true
            }
            Some(queue) if queue.is_enabled() => {
                queue.reset();
                true
            }
            _ => false,
        }
    }

    fn freeze_allowed(&self) -> bool {
        match self.config.layout {
            Layout::Seed => true,
            Layout::Tail => self.negotiated(FREEZE_FEATURE),
            Layout::None => false,
        }
    }

    pub(crate) fn negotiated(&self, bit: u32) -> bool {
        self.negotiated_features() & feature::mask(bit) != 0
    }

    pub(super) fn features_acceptable(&self) -> bool {
        self.accepts(self.driver_features)
    }

    /// Whether a driver may negotiate `features`: a subset of those offered, complete in itself (VIRTIO 1.4 §2.2.2).
    pub(super) fn accepts(&self, features: u64) -> bool {
        let has = |bit| features & feature::mask(bit) != 0;
        let dependencies = &self.config.feature_dependencies;
        features & !self.config.device_features == 0
            && has(feature::VIRTIO_F_VERSION_1)
            && dependencies
                .iter()
                .all(|&(bit, requires)| !has(bit) || has(requires))
    }

    fn checked_vector(&self, vector: u16) -> u16 {
        // An out-of-range vector must read back as none (§4.1.5.1.2.1).
        if vector < self.config.vectors {
            vector
        } else {
            VIRTIO_MSI_NO_VECTOR
        }
    }

    fn driver_reset(&mut self, effects: &mut Effects) {
        if self.is_live() && self.sources().is_some_and(|sources| sources.same_driver) {
            let awake = self.bus.master && self.bus.power == PowerState::D0;
            self.holds.driver_reset(awake);
        }
        let kind = if self.is_held() {
            ResetKind::Frozen
        } else {
            ResetKind::Full
        };
        self.begin_reset(kind, effects);
    }

    /// The driver set DRIVER_OK: start with its queues, or with the parked ones if it set up none.
    fn activate(&mut self, effects: &mut Effects) {
        let Lifecycle::Stopped(stopped) = mem::replace(&mut self.lifecycle, Lifecycle::Running)
        else {
            return;
        };
        let configured = self.queues.iter().any(Queue::is_enabled);
        let kind = match stopped {
            Stopped::Clean => ActivationKind::Fresh,
            Stopped::Retained(Some(parked)) if !configured => self.reinstate(&parked),
            Stopped::Retained(_) => ActivationKind::Retained,
        };
        self.holds.driver_ok();
        if kind != ActivationKind::Reinstated {
            // The driver has set its queues up in memory that is its own.
            self.away = Away::Not;
        }
        effects.push(Effect::Activate(kind));
        self.kick_if_reachable(effects);
    }

    fn reinstate(&mut self, parked: &ParkedQueues) -> ActivationKind {
        if parked.features != self.driver_features {
            count(&mut self.counters.reinstatements_refused);
            return ActivationKind::Retained;
        }
        self.config_vector = parked.config_vector;
        for setup in &parked.queues {
            if let Some(queue) = self.queues.get_mut(usize::from(setup.index)) {
                queue.reinstate(setup);
            }
        }
        count(&mut self.counters.reinstatements);
        ActivationKind::Reinstated
    }

    pub(super) fn kick_if_reachable(&mut self, effects: &mut Effects) {
        if !self.may_access_memory() {
            return;
        }
        if mem::take(&mut self.away) == Away::Restored {
            effects.push(Effect::Disown);
            return;
        }
        count(&mut self.counters.self_kicks);
        effects.push(Effect::Kick);
    }
}
