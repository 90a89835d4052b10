// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a person asks of a running device, and whether its guest sleeps.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;
use virtio_gpu_s3::{ErrorCounters, ErrorKind, Status as GpuStatus};
use virtio_pci_freeze::spec::DeviceStatus;
use virtio_pci_freeze::status::Phase;
use virtio_pci_freeze::{
    Counters as TransportCounters, FreezeState, HoldReason, Transport, VirtioPciFunction,
};

use crate::events::micros;

/// A device at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Where it stands.
    pub state: State,
    /// The guest's freeze.
    pub freeze_mode: FreezeState,
    /// Why a reset would retain, if it would.
    pub holds: Vec<HoldReason>,
    /// Resources, retained ones included.
    pub resources: usize,
    /// Resources that the guest has not named since a frozen reset.
    pub retained: usize,
    /// Host memory that they fill, in bytes.
    pub host_bytes: u64,
    /// Every output.
    pub scanouts: Vec<Scanout>,
    /// What happened so far.
    pub counters: Counters,
}

/// Where a device stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// No driver drives it.
    Idle,
    /// A driver drives it.
    Running,
    /// Its guest sleeps, and it holds.
    Asleep,
    /// The driver suspended it.
    Suspended,
    /// A reset is under way.
    Resetting,
    /// Only a reset cures it (VIRTIO 1.4 §2.1.2); the event of that name has the reason.
    NeedsReset,
}

/// An output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Scanout {
    /// Its number.
    pub id: usize,
    /// Whether it shows a resource.
    pub active: bool,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

/// Counts since the device was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// GPU commands, of both queues.
    pub commands: u64,
    /// GPU commands that were answered with an error.
    pub errors: u64,
    /// The same by kind, those that happened.
    pub errors_by_kind: BTreeMap<String, u64>,
    /// Descriptor chains that made no sense.
    pub bad_chains: u64,
    /// The transport's counts.
    #[serde(flatten)]
    pub transport: TransportCounters,
}

impl Status {
    pub(crate) fn new(
        function: &VirtioPciFunction,
        gpu: &GpuStatus,
        sleep: &Sleep,
        bad_chains: u64,
    ) -> Self {
        let transport = function.transport();
        let status = Self::in_process(
            state(transport, sleep),
            gpu,
            transport.counters(),
            bad_chains,
        );
        Self {
            freeze_mode: transport.freeze_state(),
            holds: transport.holds().collect(),
            ..status
        }
    }

    /// Of a device whose registers are the VMM's.
    pub(crate) fn in_process(
        state: State,
        gpu: &GpuStatus,
        transport: TransportCounters,
        bad_chains: u64,
    ) -> Self {
        let scanouts = gpu
            .scanouts
            .iter()
            .enumerate()
            .map(|(id, scanout)| Scanout {
                id,
                active: scanout.resource_id.is_some(),
                width: scanout.width,
                height: scanout.height,
            });
        let commands = gpu
            .counters
            .control_commands
            .saturating_add(gpu.counters.cursor_commands);
        Self {
            state,
            freeze_mode: FreezeState::default(),
            holds: Vec::new(),
            resources: gpu.resources,
            retained: gpu.retained,
            host_bytes: gpu.host_bytes,
            scanouts: scanouts.collect(),
            counters: Counters {
                commands,
                errors: gpu.counters.errors.total(),
                errors_by_kind: errors_by_kind(&gpu.counters.errors),
                bad_chains,
                transport,
            },
        }
    }
}

fn errors_by_kind(errors: &ErrorCounters) -> BTreeMap<String, u64> {
    let counts = ErrorKind::ALL
        .into_iter()
        .map(|kind| (kebab(kind), errors.get(kind)));
    counts.filter(|&(_, count)| count > 0).collect()
}

fn kebab(kind: ErrorKind) -> String {
    let mut name = String::new();
    for letter in format!("{kind:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

fn state(transport: &Transport, sleep: &Sleep) -> State {
    let needs_reset = transport
        .status()
        .contains(DeviceStatus::DEVICE_NEEDS_RESET);
    match (sleep, transport.phase()) {
        (Sleep::Asleep { .. }, _) => State::Asleep,
        (Sleep::Awake, Phase::Resetting) => State::Resetting,
        (Sleep::Awake, _) if needs_reset => State::NeedsReset,
        (Sleep::Awake, Phase::Stopped) => State::Idle,
        (Sleep::Awake, Phase::Suspended | Phase::Resuming) => State::Suspended,
        (Sleep::Awake, Phase::Running | Phase::Suspending) => State::Running,
    }
}

/// Whether the guest sleeps, as far as its device can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sleep {
    Awake,
    Asleep {
        since: Instant,
        /// Whether the driver did anything that only a waking one does.
        acted: bool,
    },
}

/// A guest that went to sleep, or woke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SleepChange {
    Slept { holds: Vec<HoldReason> },
    Woke { asleep_us: u64 },
}

impl Sleep {
    /// The driver rang a doorbell or set DRIVER_OK.
    pub(crate) fn driver_acted(&mut self) {
        if let Self::Asleep { acted, .. } = self {
            *acted = true;
        }
    }

    /// Looks at the transport after an access.
    pub(crate) fn observe(&mut self, transport: &Transport) -> Option<SleepChange> {
        let reachable = transport.may_access_memory();
        match *self {
            Self::Awake => {
                // A driver's reset alone tells of no sleep: the guest may be unloading it.
                let told = transport
                    .holds()
                    .any(|reason| reason != HoldReason::SameDriver);
                if reachable || !told || !transport.has_state() {
                    return None;
                }
                *self = Self::Asleep {
                    since: Instant::now(),
                    acted: false,
                };
                let holds = transport.holds().collect();
                Some(SleepChange::Slept { holds })
            }
            Self::Asleep { since, acted } => {
                if reachable && acted {
                    *self = Self::Awake;
                    let asleep_us = micros(since);
                    return Some(SleepChange::Woke { asleep_us });
                }
                // It was a reboot after all: the guest that slept is gone.
                if !transport.is_held() && !transport.has_state() {
                    *self = Self::Awake;
                }
                None
            }
        }
    }
}
