// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whether the guest sleeps, as far as its device can see.

use std::time::Instant;

use virtio_gpu_worker::{State, Told, micros};
use virtio_pci_freeze::spec::DeviceStatus;
use virtio_pci_freeze::status::Phase;
use virtio_pci_freeze::{HoldReason, Transport};

/// Where the device stands.
pub(crate) fn state(transport: &Transport, sleep: &Sleep) -> State {
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

impl Sleep {
    /// The driver rang a doorbell or set DRIVER_OK.
    pub(crate) fn driver_acted(&mut self) {
        if let Self::Asleep { acted, .. } = self {
            *acted = true;
        }
    }

    /// Looks at the transport after an access.
    pub(crate) fn observe(&mut self, transport: &Transport) -> Option<Told> {
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
                Some(Told::Slept { holds })
            }
            Self::Asleep { since, acted } => {
                if reachable && acted {
                    *self = Self::Awake;
                    let asleep_us = micros(since);
                    return Some(Told::Woke { asleep_us });
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
