// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! State to plain data and back.

use core::mem;

use super::{Bus, Found, Lifecycle, PowerState, Retention, Transport, TransportConfig};
use crate::effect::{ActivationKind, Effect, Effects, ResetKind, ResetTicket};
use crate::queue::{Queue, QueueSetup, QueueStatus, RingPosition};
use crate::register::{Layout, Selectors};
use crate::retention::{Away, FreezeState, Holds, ParkedQueues, Stopped};
use crate::saved_state::{
    RestoreError, RestoredDevice, SavedFound, SavedHeader, SavedLifecycle, SavedQueue,
    SavedTransport, TRANSPORT_KIND,
};
use crate::spec::{DeviceStatus, VIRTIO_MSI_NO_VECTOR, feature};

impl Transport {
    /// The state as plain data. `positions`, by queue index, are how far a live device has come; missing ones are
    /// taken from when the queue was last set up.
    pub fn save(&self, positions: &[RingPosition]) -> SavedTransport {
        let Self {
            config,
            status,
            driver_features,
            config_vector,
            selectors:
                Selectors {
                    device_feature,
                    driver_feature,
                    queue: queue_select,
                },
            queues,
            lifecycle,
            holds,
            // Follows from bus, power and holds: see `Transport::rebuild`.
            away: _,
            freeze,
            bus: Bus { master, power },
            // A ticket names a reset of this process, and counters count what happened in it.
            freeze_ticket: _,
            last_ticket: _,
            device_config,
            counters: _,
        } = self;
        let live = !matches!(lifecycle, Lifecycle::Stopped(_));
        let queues = queues.iter().enumerate().map(|(index, queue)| {
            let position = positions.get(index).filter(|_| live && queue.is_enabled());
            queue.save(position.copied())
        });
        SavedTransport {
            header: SavedHeader::current(TRANSPORT_KIND),
            layout: config.layout,
            status: status.0,
            driver_features: *driver_features,
            device_feature_select: *device_feature,
            driver_feature_select: *driver_feature,
            queue_select: *queue_select,
            config_msix_vector: *config_vector,
            queues: queues.collect(),
            lifecycle: lifecycle.save(),
            holds: holds.save(),
            freeze: *freeze,
            bus_master: *master,
            d3hot: *power == PowerState::D3hot,
            device_config: device_config.save(),
        }
    }

    /// A transport as it was saved, and what has to be done to go on from there.
    ///
    /// The effects start a live device ([`Effect::Activate`]), and ask again for what the device had not answered.
    ///
    /// # Errors
    /// A [`RestoreError`] where the state is of another version or device, or contradicts itself.
    pub fn restore(
        config: TransportConfig,
        saved: &SavedTransport,
        device: RestoredDevice,
    ) -> Result<(Self, Effects), RestoreError> {
        let mut effects = Effects::none();
        let mut transport = Self::rebuild(config, saved)?;
        transport.go_on(device, &mut effects);
        Ok((transport, effects))
    }

    pub(crate) fn rebuild(
        config: TransportConfig,
        saved: &SavedTransport,
    ) -> Result<Self, RestoreError> {
        let SavedTransport {
            header,
            layout,
            status,
            driver_features,
            device_feature_select,
            driver_feature_select,
            queue_select,
            config_msix_vector,
            queues,
            lifecycle,
            holds,
            freeze,
            bus_master,
            d3hot,
            device_config,
        } = saved;
        header.check(TRANSPORT_KIND)?;
        let mut transport = Self::new(config)?;
        if *layout != transport.config.layout {
            return Err(RestoreError::Mismatch { what: "layout" });
        }
        transport.status = DeviceStatus(*status);
        transport.driver_features = *driver_features;
        transport.config_vector = *config_msix_vector;
        transport.selectors = Selectors {
            device_feature: *device_feature_select,
            driver_feature: *driver_feature_select,
            queue: *queue_select,
        };
        transport.lifecycle = Lifecycle::restore(lifecycle)?;
        transport.holds = Holds::restore(holds);
        transport.freeze = *freeze;
        transport.bus = Bus {
            master: *bus_master,
            power: if *d3hot {
                PowerState::D3hot
            } else {
                PowerState::D0
            },
        };
        transport.away = match transport.bus {
            Bus {
                master: true,
                power: PowerState::D0,
            } => Away::Not,
            // A VMM that takes a snapshot just as a kernel hands over to another loses that; the rings still speak.
            Bus {
                master: false,
                power: PowerState::D0,
            } if !transport.holds.is_asleep() => Away::Paused,
            Bus { .. } => Away::Slept,
        };
        transport.restore_queues(queues)?;
        transport.device_config.restore(device_config)?;
        transport.check()?;
        Ok(transport)
    }

    /// Brings the device behind a rebuilt transport to where it was, or the transport to where that device is.
    pub(crate) fn go_on(&mut self, device: RestoredDevice, effects: &mut Effects) {
        let lost = device == RestoredDevice::Lost;
        if lost {
            self.holds.clear();
            self.freeze = FreezeState::Unfrozen;
            // What a suspend kept back has no resume to wait for any more.
            self.device_config.release();
        }
        if self.freeze == FreezeState::Freezing {
            self.begin_freeze(effects);
        }
        match mem::replace(&mut self.lifecycle, Lifecycle::Running) {
            Lifecycle::Stopped(_) if lost => self.lifecycle = Lifecycle::Stopped(Stopped::Clean),
            Lifecycle::Resetting { .. } if lost => {
                self.lifecycle = Lifecycle::Stopped(Stopped::Clean);
                self.reset_registers();
            }
            lifecycle @ Lifecycle::Stopped(_) => self.lifecycle = lifecycle,
            Lifecycle::Resetting { kind, found, .. } => {
                match found {
                    Found::Live => effects.push(Effect::Activate(ActivationKind::Reinstated)),
                    Found::Retained(parked) => {
                        self.lifecycle = Lifecycle::Stopped(Stopped::Retained(parked));
                    }
                }
                self.begin_reset(kind, effects);
            }
            live => {
                self.lifecycle = live;
                self.go_on_live(lost, effects);
            }
        }
    }

    fn go_on_live(&mut self, lost: bool, effects: &mut Effects) {
        if lost {
            self.lifecycle = Lifecycle::Running;
            // The driver must reset what has lost its state (§2.1.2); until then nothing is served.
            self.status = self
                .status
                .with(DeviceStatus::DRIVER_OK | DeviceStatus::DEVICE_NEEDS_RESET)
                .without(DeviceStatus::SUSPEND);
            effects.push(Effect::Activate(ActivationKind::Fresh));
            return;
        }
        effects.push(Effect::Activate(ActivationKind::Reinstated));
        match self.lifecycle {
            Lifecycle::Suspending => effects.push(Effect::Suspend),
            Lifecycle::Resuming => effects.push(Effect::Resume),
            _ => self.kick_if_reachable(effects),
        }
    }

    fn restore_queues(&mut self, saved: &[SavedQueue]) -> Result<(), RestoreError> {
        let max_sizes = self.queues.iter().map(|queue| queue.max_size);
        if !max_sizes.eq(saved.iter().map(|queue| queue.max_size)) {
            return Err(RestoreError::Mismatch {
                what: "number or size of queues",
            });
        }
        for (queue, saved) in self.queues.iter_mut().zip(saved) {
            *queue = Queue::restore(saved);
        }
        Ok(())
    }

    /// Every rule that the model itself keeps.
    fn check(&self) -> Result<(), RestoreError> {
        let invalid = |what| Err(RestoreError::Invalid { what });
        if !self.is_consistent_status() {
            return invalid("device status");
        }
        if self.status.contains(DeviceStatus::FEATURES_OK) && !self.features_acceptable() {
            return invalid("feature set");
        }
        if !self.is_vector(self.config_vector) {
            return invalid("vector of configuration changes");
        }
        self.check_queues()?;
        if self.device_config.is_deferring() && !self.is_suspended() {
            return invalid("deferred configuration");
        }
        let retains = match &self.lifecycle {
            Lifecycle::Stopped(stopped) => *stopped != Stopped::Clean,
            Lifecycle::Resetting { kind, found, .. } => {
                *kind == ResetKind::Frozen || *found != Found::Live
            }
            _ => false,
        };
        if (retains || self.is_held()) && self.config.retention == Retention::Off {
            return invalid("retention, with retention off,");
        }
        if self.freeze != FreezeState::Unfrozen && self.config.layout == Layout::None {
            return invalid("freeze_mode, without the register,");
        }
        self.any_parked().map_or(Ok(()), |p| self.check_parked(p))
    }

    fn is_suspended(&self) -> bool {
        matches!(self.lifecycle, Lifecycle::Suspended | Lifecycle::Resuming)
    }

    fn is_consistent_status(&self) -> bool {
        const KNOWN: u8 = DeviceStatus::DRIVER_BITS | DeviceStatus::DEVICE_NEEDS_RESET;
        let has = |bit| self.status.contains(bit);
        let (ok, suspend) = (has(DeviceStatus::DRIVER_OK), has(DeviceStatus::SUSPEND));
        let live = ok || suspend;
        let steps = [
            (has(DeviceStatus::DRIVER), has(DeviceStatus::ACKNOWLEDGE)),
            (has(DeviceStatus::FEATURES_OK), has(DeviceStatus::DRIVER)),
            (live, has(DeviceStatus::FEATURES_OK)),
            (suspend, self.negotiated(feature::VIRTIO_F_SUSPEND)),
            (
                self.lifecycle == Lifecycle::Suspending,
                self.negotiated(feature::VIRTIO_F_SUSPEND),
            ),
        ];
        let in_place = match &self.lifecycle {
            Lifecycle::Stopped(_) => !live,
            Lifecycle::Running | Lifecycle::Suspending => ok && !suspend,
            Lifecycle::Suspended | Lifecycle::Resuming => suspend && !ok,
            Lifecycle::Resetting { found, .. } => {
                (*found == Found::Live) == live && !(ok && suspend)
            }
        };
        self.status.0 & !KNOWN == 0
            && steps.into_iter().all(|(step, before)| !step || before)
            && in_place
    }

    fn check_queues(&self) -> Result<(), RestoreError> {
        let packed = self.negotiated(feature::VIRTIO_F_RING_PACKED);
        let negotiated = self.status.contains(DeviceStatus::FEATURES_OK);
        for (index, queue) in (0u16..).zip(&self.queues) {
            let invalid = |what| Err(RestoreError::InvalidQueue { index, what });
            if !queue.allows_size(queue.size, packed) {
                return invalid("size");
            }
            if !self.is_vector(queue.vector) {
                return invalid("vector");
            }
            if queue.is_enabled() && !(negotiated && queue.is_aligned(packed)) {
                return invalid("enabled set-up");
            }
        }
        Ok(())
    }

    fn any_parked(&self) -> Option<&ParkedQueues> {
        match &self.lifecycle {
            Lifecycle::Stopped(Stopped::Retained(parked))
            | Lifecycle::Resetting {
                found: Found::Retained(parked),
                ..
            } => parked.as_ref(),
            _ => None,
        }
    }

    fn check_parked(&self, parked: &ParkedQueues) -> Result<(), RestoreError> {
        let ParkedQueues {
            features,
            config_vector,
            queues,
        } = parked;
        let invalid = |what| Err(RestoreError::Invalid { what });
        if !self.accepts(*features) {
            return invalid("feature set of the parked queues");
        }
        if !self.is_vector(*config_vector) {
            return invalid("vector of the parked queues");
        }
        let packed = features & feature::mask(feature::VIRTIO_F_RING_PACKED) != 0;
        let indices = || queues.iter().map(|setup| setup.index);
        if queues.is_empty() || !indices().is_sorted_by(|a, b| a < b) {
            return invalid("list of parked queues");
        }
        for setup in queues {
            let QueueSetup { index, vector, .. } = *setup;
            let fits = self.queue(index).is_some_and(|queue| {
                let mut queue = *queue;
                queue.reinstate(setup);
                queue.allows_size(queue.size, packed) && queue.is_aligned(packed)
            });
            if !fits || !self.is_vector(vector) {
                let what = "parked set-up";
                return Err(RestoreError::InvalidQueue { index, what });
            }
        }
        Ok(())
    }

    fn is_vector(&self, vector: u16) -> bool {
        vector < self.config.vectors || vector == VIRTIO_MSI_NO_VECTOR
    }
}

impl Queue {
    fn save(&self, position: Option<RingPosition>) -> SavedQueue {
        let Self {
            max_size,
            size,
            vector,
            status,
            desc,
            driver,
            device,
            position: set_up_at,
        } = *self;
        // A queue that is being reset will not be started again by whoever restores this: its reset is done.
        if status == QueueStatus::Resetting {
            return Self::new(max_size).save(None);
        }
        SavedQueue {
            max_size,
            size,
            msix_vector: vector,
            enabled: status == QueueStatus::Enabled,
            desc,
            driver,
            device,
            position: position.unwrap_or(set_up_at),
        }
    }

    fn restore(saved: &SavedQueue) -> Self {
        let SavedQueue {
            max_size,
            size,
            msix_vector,
            enabled,
            desc,
            driver,
            device,
            position,
        } = *saved;
        Self {
            max_size,
            size,
            vector: msix_vector,
            status: if enabled {
                QueueStatus::Enabled
            } else {
                QueueStatus::Disabled
            },
            desc,
            driver,
            device,
            position,
        }
    }
}

impl Lifecycle {
    fn save(&self) -> SavedLifecycle {
        match self {
            Self::Stopped(Stopped::Clean) => SavedLifecycle::Clean,
            Self::Stopped(Stopped::Retained(parked)) => SavedLifecycle::Retained {
                parked: parked.clone(),
            },
            Self::Running => SavedLifecycle::Running,
            Self::Suspending => SavedLifecycle::Suspending,
            Self::Suspended => SavedLifecycle::Suspended,
            Self::Resuming => SavedLifecycle::Resuming,
            Self::Resetting {
                kind,
                ticket: _,
                found,
            } => SavedLifecycle::Resetting {
                frozen: *kind == ResetKind::Frozen,
                found: match found {
                    Found::Live => SavedFound::Live,
                    Found::Retained(parked) => SavedFound::Retained {
                        parked: parked.clone(),
                    },
                },
            },
        }
    }

    fn restore(saved: &SavedLifecycle) -> Result<Self, RestoreError> {
        Ok(match saved {
            SavedLifecycle::Clean => Self::Stopped(Stopped::Clean),
            SavedLifecycle::Retained { parked } => Self::Stopped(Stopped::Retained(parked.clone())),
            SavedLifecycle::Running => Self::Running,
            SavedLifecycle::Suspending => Self::Suspending,
            SavedLifecycle::Suspended => Self::Suspended,
            SavedLifecycle::Resuming => Self::Resuming,
            SavedLifecycle::Resetting { frozen, found } => Self::Resetting {
                kind: if *frozen {
                    ResetKind::Frozen
                } else {
                    ResetKind::Full
                },
                ticket: ResetTicket(0),
                found: match found {
                    SavedFound::Live => Found::Live,
                    // A frozen reset of a stopped device is done at once.
                    SavedFound::Retained { .. } if *frozen => {
                        return Err(RestoreError::Invalid { what: "reset" });
                    }
                    SavedFound::Retained { parked } => Found::Retained(parked.clone()),
                },
            },
        })
    }
}
