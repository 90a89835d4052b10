// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a person asks of a running device.

use std::collections::BTreeMap;

use serde::Serialize;
use virtio_gpu_s3::{ErrorCounters, ErrorKind, Status as GpuStatus};
use virtio_pci_freeze::{Counters as TransportCounters, FreezeState, HoldReason};

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

/// What the worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// No driver drives the device, and nothing is left of one.
    Idle,
    /// The last reset retained the device's state, and no driver has come since.
    Retained,
    /// A driver is served.
    Running,
    /// The driver suspended the device (VIRTIO 1.4 §3.4).
    Suspended,
}

/// Resets since the worker started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resets {
    /// Those that destroyed the device's state.
    pub full: u64,
    /// Those that retained it.
    pub frozen: u64,
    /// Drivers that came back without setting up a queue.
    pub reinstatements: u64,
}

/// A worker at one moment.
#[derive(Clone, Debug)]
pub struct WorkerStatus {
    /// What it does.
    pub life: Life,
    /// What it has.
    pub gpu: GpuStatus,
    /// What happened to it.
    pub resets: Resets,
    /// Descriptor chains so far that made no sense.
    pub bad_chains: u64,
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
    /// Of a device in this `state`, with the counters of its transport, and nothing that holds it.
    pub fn new(state: State, worker: &WorkerStatus, transport: TransportCounters) -> Self {
        let gpu = &worker.gpu;
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
                bad_chains: worker.bad_chains,
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
