// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What holds after every access and event, whatever a guest does.

use super::machine::Machine;
use crate::function::VirtioPciFunction;
use crate::queue::QueueSetup;
use crate::retention::FreezeState;
use crate::spec::{DeviceStatus, VIRTIO_MSI_NO_VECTOR, pci};
use crate::status::Phase;
use crate::transport::{PowerState, Retention};

/// Panics where the machine is in a state that none may reach.
///
/// # Panics
/// With the invariant that does not hold.
pub fn check_invariants(machine: &mut Machine) {
    let command = machine.config_u16(pci::COMMAND.into());
    let function = &machine.function;
    check_status(function);
    check_queues(function);
    check_retention(function);
    let transport = function.transport();
    if transport.may_access_memory() {
        let master = command & pci::COMMAND_BUS_MASTER != 0;
        assert!(master, "the device masters the bus against its command");
        assert_eq!(transport.power(), PowerState::D0, "it works in D3hot");
    }
    if transport.power() == PowerState::D3hot {
        assert!(!machine.device.intx, "INTx is asserted in D3hot");
    }
}

fn check_status(function: &VirtioPciFunction) {
    let transport = function.transport();
    let status = transport.status();
    let known = DeviceStatus::DRIVER_BITS | DeviceStatus::DEVICE_NEEDS_RESET;
    assert_eq!(status.0 & !known, 0, "a reserved bit is set");
    let (ok, suspend) = (
        status.contains(DeviceStatus::DRIVER_OK),
        status.contains(DeviceStatus::SUSPEND),
    );
    match transport.phase() {
        Phase::Stopped => assert!(!ok && !suspend, "{status:?} while stopped"),
        Phase::Running | Phase::Suspending => assert!(ok && !suspend, "{status:?} while running"),
        Phase::Suspended | Phase::Resuming => assert!(suspend && !ok, "{status:?} while suspended"),
        Phase::Resetting => assert_ne!(status.0, 0, "status 0 before the reset is done"),
    }
    let suspended = matches!(transport.phase(), Phase::Suspended | Phase::Resuming);
    let deferring = transport.device_config().is_deferring();
    assert!(suspended || !deferring, "a change is kept back from nobody");
    let accepted = transport.negotiated_features();
    let extra = accepted & !transport.offered_features();
    assert_eq!(extra, 0, "features that were never offered");
}

fn check_queues(function: &VirtioPciFunction) {
    let transport = function.transport();
    assert!(transport.is_live() || transport.active_queues().count() == 0);
    let vectors = function.bars().vectors();
    let parked = transport.parked_queues();
    let parked = parked.into_iter().flat_map(|parked| &parked.queues);
    for setup in transport.active_queues().chain(parked.copied()) {
        let QueueSetup {
            index,
            size,
            vector,
            desc,
            ..
        } = setup;
        let queue = transport.queue(index).expect("a queue of this device");
        assert!(size != 0 && size <= queue.max_size, "{setup:?}");
        assert!(vector < vectors || vector == VIRTIO_MSI_NO_VECTOR);
        assert!(desc.is_multiple_of(16), "{setup:?}");
    }
}

fn check_retention(function: &VirtioPciFunction) {
    let transport = function.transport();
    if transport.config().retention == Retention::Off {
        assert!(!transport.is_held(), "held with retention off");
        assert!(transport.parked_queues().is_none());
    }
    let shown = transport.freeze_mode();
    let frozen = transport.freeze_state() == FreezeState::Frozen;
    assert_eq!(shown, if frozen { 3 } else { 0 }, "freeze_mode");
}
