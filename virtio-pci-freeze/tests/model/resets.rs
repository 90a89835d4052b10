// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Resets that meet each other, and reboots.

use virtio_pci_freeze::spec::{FreezeModeValue, pci};
use virtio_pci_freeze::test_utils::{Driver, Machine, Reach, SleepPath, retention};
use virtio_pci_freeze::{
    ActivationKind, Effect, FreezeState, HoldSources, Register, ResetKind, ResetOutcome, Retention,
};

use crate::common::{activations, bus_master, config, keeps_resources, only, resets, running};

#[test]
fn a_function_reset_alone_holds_where_the_vmm_cannot_tell_a_wake_from_a_reboot() {
    let mut config = config(Retention::On {
        sources: HoldSources {
            function_reset: true,
            ..HoldSources::NONE
        },
        no_soft_reset: false,
    });
    config.power_management = false;
    let (mut machine, mut driver) = running(config);
    driver.suspend(&mut machine, SleepPath::NoHooks);
    machine.function_reset();
    assert!(machine.function.transport().awaits_driver());
    driver.resume(&mut machine, SleepPath::NoHooks);
    assert!(keeps_resources(&machine));
    assert_eq!(activations(&mut machine), [ActivationKind::Reinstated]);
}

#[test]
fn a_reboot_is_a_full_reset_even_where_every_hint_holds() {
    let (mut machine, mut driver) = running(config(retention(true)));
    driver.write_freeze_mode(&mut machine, FreezeModeValue::FREEZE_S3);
    machine.function.platform_sleep();
    let effects = machine.function.reboot();
    machine.carry_out(effects);
    assert!(!keeps_resources(&machine));
    let transport = machine.function.transport();
    assert!(!transport.is_held());
    assert_eq!(transport.freeze_state(), FreezeState::Unfrozen);
    assert_eq!(machine.config_u16(pci::COMMAND.into()), 0);
}

#[test]
fn parked_queues_do_not_outlive_a_reboot() {
    let (mut machine, mut driver) = running(config(retention(false)));
    driver.write_freeze_mode(&mut machine, FreezeModeValue::FREEZE_S3);
    driver.reset(&mut machine);
    let effects = machine.function.reboot();
    machine.carry_out(effects);
    assert!(machine.function.transport().parked_queues().is_none());
    assert!(!keeps_resources(&machine));
}

#[test]
fn bars_that_are_sized_after_a_function_reset_tell_a_reboot() {
    let (mut machine, mut driver) = running(config(retention(true)));
    machine.function_reset();
    assert!(keeps_resources(&machine), "it could be a wake");
    machine.function_reset();
    driver.size_bars(&mut machine);
    assert!(!keeps_resources(&machine));
    assert!(!machine.function.transport().is_held());
}

#[test]
fn bars_that_are_sized_under_a_freeze_alone_tell_a_reboot_too() {
    let mut machine = Machine::new(config(Retention::On {
        sources: HoldSources::NONE,
        no_soft_reset: false,
    }));
    let mut driver = Driver::probe(&mut machine, Reach::Memory);
    driver.write_freeze_mode(&mut machine, FreezeModeValue::FREEZE_S3);
    machine.function_reset();
    driver.size_bars(&mut machine);
    let transport = machine.function.transport();
    assert_eq!(transport.freeze_state(), FreezeState::Unfrozen);
}

/// OpenBSD leaves the bits alone that say what kind of BAR it is; any other value is a place.
#[test]
fn bars_are_sized_with_the_bits_of_their_kind_or_without() {
    for value in [0xffff_ffff_u32, 0xffff_fff0, 0xffff_fff4] {
        let (mut machine, _) = running(config(retention(true)));
        machine.function_reset();
        machine.config_write(pci::BAR0.into(), &value.to_le_bytes());
        assert!(!keeps_resources(&machine), "{value:#x}");
    }
    for value in [0xffff_0000_u32, 0xffff_ff00, 0x7fff_ffff, 0] {
        let (mut machine, _) = running(config(retention(true)));
        machine.function_reset();
        machine.config_write(pci::BAR0.into(), &value.to_le_bytes());
        assert!(keeps_resources(&machine), "{value:#x}");
    }
}

/// `-kernel` with a firmware that leaves the BARs alone: the first that is seen of the new guest is that it looks for its
/// devices, and no guest that wakes does that.
#[test]
fn a_guest_that_looks_for_the_device_after_a_function_reset_has_booted_and_nothing_is_frozen() {
    for hints in [HoldSources::ALL, HoldSources::NONE] {
        let (mut machine, mut driver) = only(hints);
        driver.write_freeze_mode(&mut machine, FreezeModeValue::FREEZE_S3);
        machine.function_reset();
        assert!(keeps_resources(&machine), "it could be a wake");
        (0..256).step_by(4).for_each(|offset| {
            machine.config_u32(offset);
        });
        assert!(!keeps_resources(&machine));
        let log = machine.take_log();
        assert!(
            log.ends_with(&[Effect::Unfreeze, Effect::Discard]),
            "{log:?}"
        );
        let transport = machine.function.transport();
        assert!(!transport.is_held());
        assert_eq!(transport.freeze_state(), FreezeState::Unfrozen);
    }
}

#[test]
fn bars_that_are_sized_without_a_function_reset_mean_nothing() {
    let (mut machine, mut driver) = running(config(retention(false)));
    driver.size_bars(&mut machine);
    assert!(keeps_resources(&machine));
    assert_eq!(driver.status(&mut machine) & 0xf, 0xf);
}

#[test]
fn restored_bars_do_not_look_like_sized_ones() {
    let (mut machine, mut driver) = running(config(retention(false)));
    driver.suspend(&mut machine, SleepPath::NoHooks);
    machine.function_reset();
    driver.resume(&mut machine, SleepPath::NoHooks);
    assert!(keeps_resources(&machine));
    assert_eq!(machine.function.transport().counters().full_resets, 0);
}

#[test]
fn a_status_write_does_not_read_0_before_in_flight_commands_are_done() {
    let (mut machine, mut driver) = running(config(retention(false)));
    driver.write_freeze_mode(&mut machine, FreezeModeValue::FREEZE_S3);
    machine.device.answers = false;
    driver.write(&mut machine, Register::DeviceStatus, 0);
    assert_ne!(driver.status(&mut machine), 0);
    assert!(machine.function.transport().is_resetting());
    assert!(machine.answer_next());
    assert_eq!(driver.status(&mut machine), 0);
}

/// It still answers what it took, which is a write to memory.
#[test]
fn a_reset_under_way_pauses_the_device_where_the_function_loses_the_bus() {
    let (mut machine, mut driver) = running(config(retention(false)));
    machine.device.answers = false;
    driver.write(&mut machine, Register::DeviceStatus, 0);
    machine.take_log();
    bus_master(&mut driver, &mut machine, false);
    assert_eq!(machine.take_log(), [Effect::Pause]);
    bus_master(&mut driver, &mut machine, true);
    assert_eq!(machine.take_log(), [], "there is nothing to serve");
}

#[test]
fn a_second_status_0_while_resetting_starts_no_second_reset() {
    let (mut machine, mut driver) = running(config(retention(false)));
    machine.device.answers = false;
    driver.write(&mut machine, Register::DeviceStatus, 0);
    driver.write(&mut machine, Register::DeviceStatus, 0);
    assert_eq!(resets(&mut machine), [ResetKind::Full]);
}

#[test]
fn a_reboot_overtakes_a_frozen_reset_and_the_old_answer_counts_for_nothing() {
    let (mut machine, mut driver) = running(config(retention(false)));
    driver.write_freeze_mode(&mut machine, FreezeModeValue::FREEZE_S3);
    machine.device.answers = false;
    driver.write(&mut machine, Register::DeviceStatus, 0);
    let effects = machine.function.reboot();
    machine.carry_out(effects);
    assert!(machine.answer_next(), "the frozen reset");
    assert!(machine.function.transport().is_resetting());
    assert!(machine.answer_next(), "the full reset");
    assert!(!machine.function.transport().is_resetting());
    assert!(!keeps_resources(&machine));
    assert!(machine.function.transport().parked_queues().is_none());
}

#[test]
fn a_function_reset_without_a_hold_overtakes_a_frozen_reset() {
    let (mut machine, mut driver) = only(HoldSources::NONE);
    driver.write_freeze_mode(&mut machine, FreezeModeValue::FREEZE_S3);
    machine.device.answers = false;
    driver.write(&mut machine, Register::DeviceStatus, 0);
    driver.write_freeze_mode(&mut machine, FreezeModeValue::UNFREEZE);
    machine.function_reset();
    assert_eq!(resets(&mut machine), [ResetKind::Frozen, ResetKind::Full]);
    while machine.answer_next() {}
    assert!(!keeps_resources(&machine));
    assert!(machine.function.transport().parked_queues().is_none());
}

#[test]
fn a_hold_that_begins_during_a_full_reset_does_not_save_what_is_going() {
    let (mut machine, mut driver) = running(config(retention(false)));
    machine.device.answers = false;
    driver.write(&mut machine, Register::DeviceStatus, 0);
    machine.function.platform_sleep();
    machine.function_reset();
    assert_eq!(resets(&mut machine), [ResetKind::Full]);
    while machine.answer_next() {}
    assert!(!keeps_resources(&machine));
}

#[test]
fn stale_tickets_are_ignored_in_every_state() {
    let (mut machine, mut driver) = running(config(retention(false)));
    driver.reset(&mut machine);
    let Some(&Effect::Reset { ticket, .. }) = machine
        .device
        .log
        .iter()
        .find(|effect| matches!(effect, Effect::Reset { .. }))
    else {
        panic!("no reset in {:?}", machine.device.log);
    };
    driver.bind(&mut machine);
    let status = machine.function.transport().status();
    let effects = machine.function.reset_done(ticket, ResetOutcome::Done(&[]));
    assert!(effects.is_empty());
    assert_eq!(machine.function.transport().status(), status);
    machine.device.answers = false;
    driver.write(&mut machine, Register::DeviceStatus, 0);
    let effects = machine.function.reset_done(ticket, ResetOutcome::StateLost);
    assert!(effects.is_empty());
    assert!(machine.function.transport().is_resetting());
}
