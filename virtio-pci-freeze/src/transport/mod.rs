// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The life of a virtio device as its transport sees it, and the retention state machine.
//!
//! It owns what the registers hold and what a reset leaves of it, but not where a register is or how wide.
//! [`CommonConfig`](crate::CommonConfig) puts PCI's common configuration structure in front of it (VIRTIO 1.4
//! §4.1.4.3), [`VirtioPciFunction`](crate::VirtioPciFunction) a whole PCI function; one for MMIO (§4.2.2) would leave
//! the MSI-X vectors alone.

use core::mem;

use crate::device_config::DeviceConfig;
use crate::effect::{FreezeTicket, ResetKind, ResetTicket};
use crate::error::ConfigError;
use crate::queue::{Queue, QueueSetup, RingPosition};
use crate::register::{FREEZE_FEATURE, Layout, Selectors};
use crate::retention::{Away, FreezeState, HoldReason, Holds, ParkedQueues, Stopped};
use crate::spec::{DeviceStatus, VIRTIO_MSI_NO_VECTOR, feature};
use crate::status::Phase;

mod config;
mod device;
mod driver;
mod platform;
mod saved;

pub use config::{Retention, TransportConfig};

/// Power states a function can be in (PCI PM 1.2 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerState {
    /// Fully on.
    D0,
    /// Off but for configuration space.
    D3hot,
}

/// How the device fared with a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetOutcome<'a> {
    /// Done as asked. Positions are by queue index; those of a full reset are not looked at.
    Done(&'a [RingPosition]),
    /// A frozen reset was asked for, but the device could not retain its state: take it for a full one.
    StateLost,
}

/// Things that happened, and guest mistakes, since the transport was made. All saturate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[expect(missing_docs, reason = "the names say it")]
pub struct Counters {
    pub full_resets: u64,
    pub frozen_resets: u64,
    pub function_resets: u64,
    pub reinstatements: u64,
    /// Parked queues dropped because the driver came back with other features.
    pub reinstatements_refused: u64,
    pub self_kicks: u64,
    /// The device could not honour FREEZE_S3.
    pub freezes_refused: u64,
    /// Values other than 0 and 3, or a freeze that was not negotiated.
    pub freeze_writes_ignored: u64,
    pub status_writes_ignored: u64,
    pub register_writes_ignored: u64,
    pub accesses_ignored: u64,
    pub notifications_ignored: u64,
}

pub(crate) fn count(counter: &mut u64) {
    *counter = counter.saturating_add(1);
}

/// Where the device stands; each state owns what exists only in it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Lifecycle {
    Stopped(Stopped),
    Running,
    Suspending,
    Suspended,
    Resuming,
    Resetting {
        kind: ResetKind,
        ticket: ResetTicket,
        /// What the frozen reset found: a running device's queues are parked when it is done.
        found: Found,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    Live,
    /// Stopped after an earlier frozen reset.
    Retained(Option<ParkedQueues>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bus {
    master: bool,
    power: PowerState,
}

/// A virtio device's transport-neutral half.
#[derive(Clone, Debug)]
pub struct Transport {
    config: TransportConfig,
    status: DeviceStatus,
    driver_features: u64,
    config_vector: u16,
    selectors: Selectors,
    queues: Vec<Queue>,
    lifecycle: Lifecycle,
    holds: Holds,
    away: Away,
    freeze: FreezeState,
    /// Of the latest request to freeze.
    freeze_ticket: FreezeTicket,
    bus: Bus,
    last_ticket: u32,
    device_config: DeviceConfig,
    counters: Counters,
}

impl Transport {
    /// A device as after power-on.
    ///
    /// # Errors
    /// A [`ConfigError`] names what the caller asked for and cannot have.
    pub fn new(config: TransportConfig) -> Result<Self, ConfigError> {
        let mut config = config;
        config::check(&config)?;
        config.device_features |= feature::mask(feature::VIRTIO_F_VERSION_1);
        if config.layout == Layout::Tail {
            config.device_features |= feature::mask(FREEZE_FEATURE);
        }
        Ok(Self {
            status: DeviceStatus::default(),
            driver_features: 0,
            config_vector: VIRTIO_MSI_NO_VECTOR,
            selectors: Selectors::default(),
            queues: config
                .queue_sizes
                .iter()
                .map(|&size| Queue::new(size))
                .collect(),
            lifecycle: Lifecycle::Stopped(Stopped::Clean),
            holds: Holds::default(),
            away: Away::default(),
            freeze: FreezeState::default(),
            freeze_ticket: FreezeTicket::default(),
            bus: Bus {
                master: config.starts_as_bus_master,
                power: PowerState::D0,
            },
            last_ticket: 0,
            device_config: DeviceConfig::new(mem::take(&mut config.device_config))?,
            counters: Counters::default(),
            config,
        })
    }

    /// The features offered, VIRTIO_F_VERSION_1 included.
    pub fn offered_features(&self) -> u64 {
        self.config.device_features
    }

    /// The features negotiated; 0 before FEATURES_OK.
    pub fn negotiated_features(&self) -> u64 {
        if self.status.contains(DeviceStatus::FEATURES_OK) {
            self.driver_features
        } else {
            0
        }
    }

    /// The device's queues, administration queues apart.
    pub fn queue_count(&self) -> u16 {
        let all = u16::try_from(self.queues.len()).unwrap_or(u16::MAX);
        all.saturating_sub(self.admin_queue_count())
    }

    /// The device's administration queues; their indices follow those of the others (VIRTIO 1.4 §4.1.4.3).
    pub fn admin_queue_count(&self) -> u16 {
        (self.config.device_features & feature::mask(feature::VIRTIO_F_ADMIN_VQ) != 0).into()
    }

    /// The device status as a driver reads it.
    pub fn status(&self) -> DeviceStatus {
        match self.lifecycle {
            // 0 would tell the driver that the reset is done (§4.1.4.3.1), so it reads as the error it may become.
            Lifecycle::Resetting { .. } if self.status.0 == 0 => {
                DeviceStatus(DeviceStatus::DEVICE_NEEDS_RESET)
            }
            _ => self.status,
        }
    }

    /// The queues of a running device, by index.
    pub fn active_queues(&self) -> impl Iterator<Item = QueueSetup> + '_ {
        let live = self.is_live();
        (0u16..)
            .zip(&self.queues)
            .filter_map(move |(index, queue)| queue.setup(index).filter(|_| live))
    }

    /// The parked queues, if a frozen reset put any aside.
    pub fn parked_queues(&self) -> Option<&ParkedQueues> {
        match &self.lifecycle {
            Lifecycle::Stopped(Stopped::Retained(parked)) => parked.as_ref(),
            _ => None,
        }
    }

    /// The reasons to hold that stand now.
    pub fn holds(&self) -> impl Iterator<Item = HoldReason> + '_ {
        HoldReason::ALL.into_iter().filter(|&reason| match reason {
            HoldReason::FreezeMode => self.freeze != FreezeState::Unfrozen,
            HoldReason::Suspended => self.lifecycle == Lifecycle::Suspended,
            _ => self.holds.is_held(reason),
        })
    }

    /// Whether a reset by the driver would be a frozen one.
    pub fn is_held(&self) -> bool {
        self.freeze != FreezeState::Unfrozen || self.holds.is_any()
    }

    /// Whether DRIVER_OK was set and no reset has come since.
    pub fn is_live(&self) -> bool {
        matches!(
            self.lifecycle,
            Lifecycle::Running | Lifecycle::Suspending | Lifecycle::Suspended | Lifecycle::Resuming
        )
    }

    /// Whether the device may touch guest memory now.
    pub fn may_access_memory(&self) -> bool {
        let serving = matches!(self.lifecycle, Lifecycle::Running | Lifecycle::Suspending);
        serving && self.may_interrupt()
    }

    /// Whether the device may write to guest memory: one that resets still answers what it took before.
    pub(crate) fn may_write_answers(&self) -> bool {
        self.has_live_queues() && self.may_interrupt()
    }

    /// Whether a message-signalled interrupt may leave the function: it is a memory write too.
    pub(crate) fn may_interrupt(&self) -> bool {
        let quiet = matches!(self.lifecycle, Lifecycle::Suspended | Lifecycle::Resuming);
        self.bus.master && self.bus.power == PowerState::D0 && !quiet
    }

    /// Whether used buffers may be told of: the device runs, or finishes what it took before a suspend or reset.
    pub(crate) fn has_live_queues(&self) -> bool {
        use Lifecycle::{Resetting, Running, Suspending};
        matches!(self.lifecycle, Running | Suspending | Resetting { .. })
    }

    /// Whether a frozen reset is under way or done, and the driver not back.
    pub(crate) fn retains(&self) -> bool {
        match &self.lifecycle {
            Lifecycle::Stopped(stopped) => *stopped != Stopped::Clean,
            Lifecycle::Resetting { kind, .. } => *kind == ResetKind::Frozen,
            _ => false,
        }
    }

    /// Whether a reset is under way that the device has not answered.
    pub fn is_resetting(&self) -> bool {
        matches!(self.lifecycle, Lifecycle::Resetting { .. })
    }

    /// Where the device stands.
    pub fn phase(&self) -> Phase {
        match self.lifecycle {
            Lifecycle::Stopped(_) => Phase::Stopped,
            Lifecycle::Running => Phase::Running,
            Lifecycle::Suspending => Phase::Suspending,
            Lifecycle::Suspended => Phase::Suspended,
            Lifecycle::Resuming => Phase::Resuming,
            Lifecycle::Resetting { .. } => Phase::Resetting,
        }
    }

    /// The state behind `freeze_mode`.
    pub fn freeze_state(&self) -> FreezeState {
        self.freeze
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The device-specific configuration.
    pub fn device_config(&self) -> &DeviceConfig {
        &self.device_config
    }

    pub(crate) fn config(&self) -> &TransportConfig {
        &self.config
    }

    pub(crate) fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    pub(crate) fn device_config_mut(&mut self) -> &mut DeviceConfig {
        &mut self.device_config
    }

    pub(crate) fn selectors(&self) -> Selectors {
        self.selectors
    }

    pub(crate) fn selectors_mut(&mut self) -> &mut Selectors {
        &mut self.selectors
    }

    /// The vector of configuration changes, or [`VIRTIO_MSI_NO_VECTOR`].
    pub fn config_vector(&self) -> u16 {
        self.config_vector
    }

    /// The vector of a queue, enabled or not; [`VIRTIO_MSI_NO_VECTOR`] for a queue that there is not.
    pub fn queue_vector(&self, index: u16) -> u16 {
        self.queue(index)
            .map_or(VIRTIO_MSI_NO_VECTOR, |queue| queue.vector)
    }

    /// The configuration atomicity value, for VMMs that keep the device-specific configuration themselves.
    pub fn set_config_generation(&mut self, generation: u8) {
        self.device_config.set_generation(generation);
    }

    pub(crate) fn is_bus_master(&self) -> bool {
        self.bus.master
    }

    /// The power state the function is in.
    pub fn power(&self) -> PowerState {
        self.bus.power
    }

    pub(crate) fn driver_features(&self) -> u64 {
        self.driver_features
    }

    pub(crate) fn queue(&self, index: u16) -> Option<&Queue> {
        self.queues.get(usize::from(index))
    }
}
