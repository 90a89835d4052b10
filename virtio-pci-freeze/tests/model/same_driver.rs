// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A reset that comes before anything tells of a sleep, and how the driver of before is told from a new one.

use virtio_pci_freeze::spec::{DeviceStatus, FreezeModeValue, pci};
use virtio_pci_freeze::test_utils::{Driver, Machine, Reach, SleepPath};
use virtio_pci_freeze::{
    ActivationKind, Effect, HoldReason, HoldSources, RELEASE_AFTER_NOTIFICATIONS, Register,
    ResetKind,
};

use crate::common::{
    activations, bus_master, keeps_resources, only, rebind_without_queues, resets,
};

const SAME_DRIVER: HoldSources = HoldSources {
    same_driver: true,
    ..HoldSources::NONE
};

/// What Linux 7.3's virtio-gpu does at a sleep, with No_Soft_Reset off: the hooks reset the device, then PCI takes
/// bus mastering and power away.
fn sleep_with_hooks(machine: &mut Machine, driver: &mut Driver) {
    driver.reset(machine);
    bus_master(driver, machine, false);
    driver.set_power_state(machine, pci::PMCSR_POWER_STATE);
    driver.set_power_state(machine, 0);
    machine.function_reset();
}

#[test]
fn a_driver_that_resets_before_it_sleeps_finds_its_resources() {
    for sources in [SAME_DRIVER, HoldSources::ALL] {
        let (mut machine, mut driver) = only(sources);
        sleep_with_hooks(&mut machine, &mut driver);
        driver.write_command(&mut machine, pci::COMMAND_MEMORY | pci::COMMAND_BUS_MASTER);
        driver.bind(&mut machine);
        assert!(keeps_resources(&machine));
        assert_eq!(activations(&mut machine), [ActivationKind::Retained]);
        assert_eq!(machine.function.transport().holds().count(), 0);
    }
}

#[test]
fn a_driver_that_comes_back_without_looking_for_the_device_gets_its_queues_back() {
    let (mut machine, mut driver) = only(SAME_DRIVER);
    driver.reset(&mut machine);
    let holds: Vec<_> = machine.function.transport().holds().collect();
    assert_eq!(holds, [HoldReason::SameDriver]);
    bus_master(&mut driver, &mut machine, false);
    bus_master(&mut driver, &mut machine, true);
    rebind_without_queues(&mut driver, &mut machine);
    assert!(keeps_resources(&machine));
    assert_eq!(activations(&mut machine), [ActivationKind::Reinstated]);
}

/// Linux, when a driver is unbound: the driver resets the device, and the bus acknowledges that the device is still there.
#[test]
fn a_driver_that_is_gone_leaves_nothing_behind() {
    for sources in [SAME_DRIVER, HoldSources::ALL] {
        let (mut machine, mut driver) = only(sources);
        driver.reset(&mut machine);
        assert!(keeps_resources(&machine));
        driver.set_status(&mut machine, DeviceStatus::ACKNOWLEDGE);
        assert!(machine.take_log().contains(&Effect::Discard));
        assert!(!keeps_resources(&machine));
        assert!(!machine.function.transport().is_held());
        assert_eq!(
            driver.status(&mut machine),
            DeviceStatus::ACKNOWLEDGE,
            "the registers are as after any reset"
        );
    }
}

/// FreeBSD's detach and attach, UEFI's reconnect: a driver that starts anew and remembers where the registers are.
#[test]
fn a_driver_that_starts_anew_without_looking_meets_nothing_of_before() {
    let (mut machine, mut driver) = only(HoldSources::ALL);
    for _ in 0..2 {
        driver.bind(&mut machine);
        assert!(!keeps_resources(&machine));
        assert_eq!(activations(&mut machine), [ActivationKind::Fresh]);
    }
}

/// Each sign of a sleep, before the reset as on Linux 6.1 or after it as on 7.3, with the hint that it is turned off.
#[test]
fn whatever_is_taken_from_the_function_tells_a_reset_from_one_of_a_driver_that_is_gone() {
    type Sleep = fn(&mut Driver, &mut Machine);
    let signs: [Sleep; 4] = [
        |driver, machine| {
            bus_master(driver, machine, false);
            bus_master(driver, machine, true);
        },
        |driver, machine| {
            driver.set_power_state(machine, pci::PMCSR_POWER_STATE);
            driver.set_power_state(machine, 0);
        },
        |_, machine| {
            machine.function.platform_sleep();
            machine.function.platform_wake();
        },
        |driver, machine| {
            driver.set_power_state(machine, pci::PMCSR_POWER_STATE);
            machine.function_reset();
            bus_master(driver, machine, true);
        },
    ];
    for sleep in signs {
        for first in [true, false] {
            let (mut machine, mut driver) = only(SAME_DRIVER);
            if first {
                driver.reset(&mut machine);
            }
            sleep(&mut driver, &mut machine);
            if !first && machine.function.transport().is_live() {
                driver.reset(&mut machine);
            }
            rebind_without_queues(&mut driver, &mut machine);
            let kept = keeps_resources(&machine);
            // A running function that is reset without a hint is reset.
            let lost = machine.function.transport().counters().function_resets > 0 && !first;
            assert_eq!(kept, !lost, "reset first: {first}");
        }
    }
}

#[test]
fn a_pause_that_a_driver_has_worked_after_is_forgotten() {
    let (mut machine, mut driver) = only(SAME_DRIVER);
    bus_master(&mut driver, &mut machine, false);
    bus_master(&mut driver, &mut machine, true);
    for _ in 0..RELEASE_AFTER_NOTIFICATIONS {
        driver.notify(&mut machine, 0);
    }
    driver.reset(&mut machine);
    driver.set_status(&mut machine, DeviceStatus::ACKNOWLEDGE);
    assert!(!keeps_resources(&machine));
}

#[test]
fn a_freeze_outlives_a_driver_that_negotiates_without_having_slept() {
    let (mut machine, mut driver) = only(HoldSources::ALL);
    driver.write_freeze_mode(&mut machine, FreezeModeValue::FREEZE_S3);
    driver.reset(&mut machine);
    driver.set_status(&mut machine, DeviceStatus::ACKNOWLEDGE);
    assert!(keeps_resources(&machine));
}

#[test]
fn a_driver_that_looks_for_the_device_meets_nothing_of_the_one_before() {
    for sources in [SAME_DRIVER, HoldSources::ALL] {
        let (mut machine, mut driver) = only(sources);
        driver.reset(&mut machine);
        assert_eq!(resets(&mut machine), [ResetKind::Frozen]);
        let mut next = Driver::probe(&mut machine, Reach::Memory);
        assert!(machine.take_log().contains(&Effect::Discard));
        next.bind(&mut machine);
        assert!(!keeps_resources(&machine));
        assert_eq!(activations(&mut machine), [ActivationKind::Fresh]);
    }
}

#[test]
fn a_driver_bound_anew_soon_after_a_wake_meets_nothing_of_the_one_before() {
    let (mut machine, mut driver) = only(HoldSources::ALL);
    driver.suspend(&mut machine, SleepPath::NoHooks);
    driver.resume(&mut machine, SleepPath::NoHooks);
    assert!(keeps_resources(&machine));
    driver.reset(&mut machine);
    Driver::probe(&mut machine, Reach::Memory).bind(&mut machine);
    assert!(!keeps_resources(&machine));
}

/// The device has not answered the reset yet, and what it retains then is what nobody asks for any more.
#[test]
fn a_look_during_a_frozen_reset_makes_it_a_full_one() {
    let (mut machine, mut driver) = only(SAME_DRIVER);
    machine.device.answers = false;
    driver.write(&mut machine, Register::DeviceStatus, 0);
    assert_eq!(resets(&mut machine), [ResetKind::Frozen]);
    let _looking = Driver::probe(&mut machine, Reach::Memory);
    assert_eq!(resets(&mut machine), [ResetKind::Full]);
    assert!(!machine.function.transport().is_held());
    while machine.answer_next() {}
    assert_eq!(driver.status(&mut machine), 0);
    assert!(!keeps_resources(&machine));
}

/// Linux's virtio-gpu looks for shared memory from its probe, between FEATURES_OK and its queues. Where virtio-pci stayed
/// bound, that is the first look since the reset.
#[test]
fn a_look_in_the_middle_of_a_negotiation_leaves_the_registers_alone() {
    let (mut machine, mut driver) = only(HoldSources::ALL);
    driver.reset(&mut machine);
    driver.negotiate(&mut machine);
    let status = driver.status(&mut machine);
    (0..256).step_by(4).for_each(|offset| {
        machine.config_u32(offset);
    });
    assert_eq!(driver.status(&mut machine), status);
    driver.set_up_queues(&mut machine);
    driver.set_status(&mut machine, DeviceStatus::DRIVER_OK);
    assert!(!keeps_resources(&machine));
    assert_eq!(activations(&mut machine), [ActivationKind::Fresh]);
    assert_eq!(machine.function.transport().active_queues().count(), 2);
}

#[test]
fn looking_at_the_capabilities_of_a_running_or_sleeping_device_changes_nothing() {
    let (mut machine, mut driver) = only(HoldSources::ALL);
    let read_all = |machine: &mut Machine| {
        (0..256).step_by(4).for_each(|offset| {
            machine.config_u32(offset);
        });
    };
    read_all(&mut machine);
    assert_eq!(resets(&mut machine), []);
    driver.suspend(&mut machine, SleepPath::NoHooks);
    read_all(&mut machine);
    driver.resume(&mut machine, SleepPath::NoHooks);
    assert!(keeps_resources(&machine));
}

#[test]
fn a_guest_that_asked_for_a_freeze_keeps_its_state_whoever_looks() {
    let (mut machine, mut driver) = only(HoldSources::ALL);
    driver.write_freeze_mode(&mut machine, FreezeModeValue::FREEZE_S3);
    driver.reset(&mut machine);
    Driver::probe(&mut machine, Reach::Memory);
    assert!(keeps_resources(&machine));
}
