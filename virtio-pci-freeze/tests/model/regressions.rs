// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Mistakes that other implementations made, each with what it broke.

use virtio_pci_freeze::spec::{DeviceStatus, pci};
use virtio_pci_freeze::test_utils::{Driver, Machine, Reach, SleepPath, retention};
use virtio_pci_freeze::{BarLayout, Effect, Register};

use crate::common::{config, keeps_resources, running};

/// OpenVMM turns a write of `queue_select` into a read, a merge and a write of the dword that it shares with
/// `device_status`. Where a status write can mean "resume", that resumes a device nobody wanted resumed.
#[test]
fn openvmm_a_queue_select_does_not_replay_the_status_beside_it() {
    let (mut machine, mut driver) = running(config(retention(false)));
    driver.set_status(&mut machine, DeviceStatus::SUSPEND);
    machine.take_log();
    driver.write(&mut machine, Register::QueueSelect, 1);
    assert_eq!(machine.take_log(), []);
    assert_eq!(driver.status(&mut machine), 0x1b);
    // A dword that covers both writes both, each once.
    machine.write_bar(BarLayout::VIRTIO, 20, &[0x1f, 0, 0, 0]);
    let resumes = |effect: &&Effect| **effect == Effect::Resume;
    assert_eq!(machine.take_log().iter().filter(resumes).count(), 1);
}

/// Alioth stored the high half of a queue address where the low half belongs.
#[test]
fn alioth_the_halves_of_a_queue_address_are_not_swapped() {
    let mut machine = Machine::new(config(retention(false)));
    let mut driver = Driver::probe(&mut machine, Reach::Memory);
    driver.reset(&mut machine);
    driver.negotiate(&mut machine);
    for base in [32, 40, 48] {
        machine.write_bar(BarLayout::VIRTIO, base + 4, &0x1u32.to_le_bytes());
        machine.write_bar(BarLayout::VIRTIO, base, &0x8000_0000u32.to_le_bytes());
    }
    driver.write(&mut machine, Register::QueueEnable, 1);
    driver.set_status(&mut machine, DeviceStatus::DRIVER_OK);
    let queue = machine.function.transport().active_queues().next();
    let queue = queue.expect("a queue");
    for address in [queue.desc, queue.driver, queue.device] {
        assert_eq!(address, 0x1_8000_0000);
    }
}

/// Cloud Hypervisor stores whatever byte the driver writes as the status.
#[test]
fn cloud_hypervisor_a_status_write_is_not_stored_raw() {
    let mut machine = Machine::new(config(retention(false)));
    let mut driver = Driver::probe(&mut machine, Reach::Memory);
    for nonsense in [0x04, 0x08, 0x0c, 0x20, 0x40, 0x60, 0x10] {
        driver.write(&mut machine, Register::DeviceStatus, nonsense);
        assert_eq!(driver.status(&mut machine), 0, "{nonsense:#x}");
    }
    driver.bind(&mut machine);
    driver.write(&mut machine, Register::DeviceStatus, 0x07);
    assert_eq!(driver.status(&mut machine), 0x0f, "FEATURES_OK stays");
}

/// Cloud Hypervisor resets its common configuration after every BAR write while the status is 0, which would wipe a
/// request to freeze that is made then.
#[test]
fn cloud_hypervisor_a_freeze_outlives_writes_while_the_status_is_0() {
    let mut machine = Machine::new(config(retention(false)));
    let mut driver = Driver::probe(&mut machine, Reach::Memory);
    driver.write(&mut machine, Register::FreezeMode, 3);
    driver.write(&mut machine, Register::QueueSelect, 1);
    assert_eq!(driver.read(&mut machine, Register::FreezeMode), 3);
    assert_eq!(driver.read(&mut machine, Register::QueueSelect), 1);
}

/// Firecracker and OpenVMM lost doorbells that were rung before the BARs were back after a restore or a wake.
#[test]
fn firecracker_doorbells_lost_before_the_bars_are_back_are_made_up_for() {
    let (mut machine, mut driver) = running(config(retention(true)));
    driver.suspend(&mut machine, SleepPath::NoReset);
    driver.set_power_state(&mut machine, 0);
    machine.function_reset();
    machine.take_log();
    driver.notify(&mut machine, 0);
    assert_eq!(
        machine.take_log(),
        [],
        "the function does not master the bus"
    );
    driver.resume(&mut machine, SleepPath::NoReset);
    let kicks = |effect: &&Effect| **effect == Effect::Kick;
    assert_eq!(machine.take_log().iter().filter(kicks).count(), 1);
}

/// A latch that a pause sets and only a snapshot clears left a resumed VM deaf (Firecracker, issue 6100).
#[test]
fn firecracker_losing_and_regaining_the_bus_leaves_no_latch() {
    let (mut machine, mut driver) = running(config(retention(false)));
    for _ in 0..3 {
        driver.write_command(&mut machine, pci::COMMAND_MEMORY);
        driver.write_command(&mut machine, pci::COMMAND_MEMORY | pci::COMMAND_BUS_MASTER);
        machine.take_log();
        machine.take_interrupts();
        driver.notify(&mut machine, 0);
        assert_eq!(machine.take_log(), [Effect::Notify { queue: 0, data: 0 }]);
        machine.use_buffers(0, 1);
        assert_eq!(machine.take_interrupts(), [1]);
    }
}

/// Propolis lets a driver turn FEATURES_OK off and on again to change what it negotiated.
#[test]
fn propolis_features_ok_cannot_be_toggled() {
    let mut machine = Machine::new(config(retention(false)));
    let mut driver = Driver::probe(&mut machine, Reach::Memory);
    driver.reset(&mut machine);
    driver.negotiate(&mut machine);
    let features = machine.function.transport().negotiated_features();
    driver.write(&mut machine, Register::DeviceStatus, 0x03);
    driver.write(&mut machine, Register::DriverFeatureSelect, 0);
    driver.write(&mut machine, Register::DriverFeature, 0);
    driver.write(&mut machine, Register::DeviceStatus, 0x0b);
    assert_eq!(machine.function.transport().negotiated_features(), features);
}

/// QEMU and Cloud Hypervisor before it put the function into D0 before the reset of a wake arrives.
#[test]
fn qemu_d0_before_the_reset_of_a_wake_does_not_end_the_hold() {
    let (mut machine, mut driver) = running(config(retention(false)));
    driver.suspend(&mut machine, SleepPath::NoHooks);
    driver.write_command(&mut machine, 0x100);
    driver.set_power_state(&mut machine, 0);
    machine.function_reset();
    driver.resume(&mut machine, SleepPath::NoHooks);
    assert!(keeps_resources(&machine));
}
