// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! VIRTIO_F_SUSPEND (VIRTIO 1.4 §3.4).

use virtio_pci_freeze::spec::{DeviceStatus, FreezeModeValue};
use virtio_pci_freeze::status::Phase;
use virtio_pci_freeze::test_utils::{Driver, Machine, Reach, SleepPath, retention};
use virtio_pci_freeze::{ActivationKind, Effect, FreezeTicket, Register};

use crate::common::{activations, config, keeps_resources, running};
use crate::interrupts::NONE;

fn suspended() -> (Machine, Driver) {
    let (mut machine, mut driver) = running(config(retention(false)));
    driver.set_status(&mut machine, DeviceStatus::SUSPEND);
    machine.take_log();
    (machine, driver)
}

fn change_config(machine: &mut Machine, value: u8) {
    let effects = machine.function.update_device_config(0, &[value]);
    machine.carry_out(effects);
}

fn config_byte(machine: &mut Machine, driver: &Driver) -> u8 {
    let config = driver.capabilities().structure(4).expect("a device config");
    let mut byte = [0];
    machine.read_bar(config.bar, config.offset.into(), &mut byte);
    byte[0]
}

#[test]
fn a_suspend_reads_back_only_once_the_device_is_done() {
    let (mut machine, mut driver) = running(config(retention(false)));
    machine.device.answers = false;
    driver.set_status(&mut machine, DeviceStatus::SUSPEND);
    assert_eq!(machine.take_log(), [Effect::Suspend]);
    assert_eq!(driver.status(&mut machine), 0x0f);
    assert!(
        machine.function.transport().may_access_memory(),
        "to finish"
    );
    machine.use_buffers(0, 1);
    assert_eq!(machine.take_interrupts(), [1], "what was in flight is told");
    driver.notify(&mut machine, 0);
    assert_eq!(machine.take_log().last(), Some(&Effect::Interrupt));
    assert!(machine.answer_next());
    assert_eq!(driver.status(&mut machine), 0x1b);
    assert!(!machine.function.transport().may_access_memory());
}

#[test]
fn nothing_leaves_a_suspended_device() {
    let (mut machine, mut driver) = suspended();
    machine.use_buffers(0, 1);
    change_config(&mut machine, 1);
    driver.notify(&mut machine, 0);
    let config = driver.capabilities().structure(4).expect("a device config");
    machine.write_bar(config.bar, config.offset.into(), &[9]);
    assert_eq!(machine.take_log(), []);
    assert_eq!(machine.take_interrupts(), NONE);
    assert!(!machine.device.intx);
}

#[test]
fn a_change_while_suspended_is_neither_seen_nor_told_before_the_resume_and_told_once_after() {
    let (mut machine, mut driver) = suspended();
    let before = config_byte(&mut machine, &driver);
    let generation = driver.read(&mut machine, Register::ConfigGeneration);
    change_config(&mut machine, before ^ 1);
    change_config(&mut machine, before ^ 3);
    assert_eq!(config_byte(&mut machine, &driver), before);
    driver.set_status(&mut machine, DeviceStatus::DRIVER_OK);
    let mut sent = machine.take_interrupts();
    sent.retain(|&vector| vector == 0);
    assert_eq!(sent, [0]);
    assert_eq!(config_byte(&mut machine, &driver), before ^ 3);
    let after = driver.read(&mut machine, Register::ConfigGeneration);
    assert_ne!(after, generation);
}

#[test]
fn a_change_that_was_taken_back_while_suspended_is_not_told() {
    let (mut machine, mut driver) = suspended();
    let before = config_byte(&mut machine, &driver);
    change_config(&mut machine, before ^ 1);
    change_config(&mut machine, before);
    driver.set_status(&mut machine, DeviceStatus::DRIVER_OK);
    assert!(!machine.take_interrupts().contains(&0));
}

#[test]
fn what_was_deferred_is_there_after_a_reset_without_a_notification() {
    let (mut machine, mut driver) = suspended();
    change_config(&mut machine, 5);
    driver.bind(&mut machine);
    assert!(!machine.take_interrupts().contains(&0));
    assert_eq!(config_byte(&mut machine, &driver), 5);
}

#[test]
fn a_suspended_device_ignores_every_register_but_status_and_selectors() {
    let (mut machine, mut driver) = suspended();
    for (register, value) in [
        (Register::ConfigMsixVector, 2),
        (Register::QueueMsixVector, 0),
        (Register::QueueSize, 2),
        (Register::FreezeMode, FreezeModeValue::FREEZE_S3.0.into()),
    ] {
        let before = driver.read(&mut machine, register);
        driver.write(&mut machine, register, value);
        assert_eq!(driver.read(&mut machine, register), before, "{register:?}");
    }
    driver.write(&mut machine, Register::QueueSelect, 1);
    assert_eq!(driver.read(&mut machine, Register::QueueSelect), 1);
    assert_eq!(
        machine.function.transport().freeze_state(),
        Default::default()
    );
}

#[test]
fn a_resume_completes_when_the_device_runs_and_then_kicks() {
    let (mut machine, mut driver) = suspended();
    machine.device.answers = false;
    driver.set_status(&mut machine, DeviceStatus::DRIVER_OK);
    assert_eq!(machine.take_log(), [Effect::Resume]);
    assert_eq!(driver.status(&mut machine), 0x1b);
    assert_eq!(machine.function.transport().phase(), Phase::Resuming);
    assert!(machine.answer_next());
    assert_eq!(driver.status(&mut machine), 0x0f);
    assert!(machine.take_log().contains(&Effect::Kick));
    driver.notify(&mut machine, 0);
    assert!(
        machine
            .take_log()
            .contains(&Effect::Notify { queue: 0, data: 0 })
    );
}

#[test]
fn a_device_that_cannot_suspend_needs_a_reset_and_says_so() {
    let (mut machine, mut driver) = running(config(retention(false)));
    machine.device.answers = false;
    driver.set_status(&mut machine, DeviceStatus::SUSPEND);
    let effects = machine.function.suspend_done(false);
    machine.carry_out(effects);
    assert_eq!(driver.status(&mut machine), 0x4f);
    assert_eq!(machine.take_interrupts(), [0]);
}

#[test]
fn a_device_that_cannot_resume_needs_a_reset_and_says_so() {
    let (mut machine, mut driver) = suspended();
    machine.device.answers = false;
    driver.set_status(&mut machine, DeviceStatus::DRIVER_OK);
    let effects = machine.function.resume_done(false);
    machine.carry_out(effects);
    assert_eq!(driver.status(&mut machine), 0x4f);
    assert_eq!(machine.take_interrupts(), [0]);
}

#[test]
fn suspend_is_ignored_before_driver_ok_and_without_the_feature() {
    let mut machine = Machine::new(config(retention(false)));
    let mut driver = Driver::probe(&mut machine, Reach::Memory);
    driver.negotiate(&mut machine);
    driver.set_status(&mut machine, DeviceStatus::SUSPEND);
    assert_eq!(driver.status(&mut machine), 0x0b);
    driver.wanted = 0;
    driver.bind(&mut machine);
    machine.take_log();
    driver.set_status(&mut machine, DeviceStatus::SUSPEND);
    assert_eq!(driver.status(&mut machine), 0x0f);
    assert_eq!(machine.take_log(), []);
}

#[test]
fn answers_that_nobody_asked_for_change_nothing() {
    let (mut machine, mut driver) = running(config(retention(false)));
    assert!(machine.function.suspend_done(true).is_empty());
    assert!(machine.function.resume_done(true).is_empty());
    machine.function.queue_reset_done(0);
    machine.function.queue_reset_done(99);
    machine.function.freeze_done(FreezeTicket::default(), true);
    assert_eq!(driver.status(&mut machine), 0x0f);
    assert_eq!(machine.function.transport().active_queues().count(), 2);
    assert!(!machine.function.transport().is_held());
}

#[test]
fn a_reset_ends_a_suspend_that_is_under_way() {
    let (mut machine, mut driver) = running(config(retention(false)));
    machine.device.answers = false;
    driver.set_status(&mut machine, DeviceStatus::SUSPEND);
    driver.write(&mut machine, Register::DeviceStatus, 0);
    assert!(machine.answer_next(), "the suspend, too late");
    assert!(machine.function.transport().is_resetting());
    assert!(machine.answer_next());
    assert_eq!(driver.status(&mut machine), 0);
    assert!(!keeps_resources(&machine));
}

#[test]
fn a_suspended_device_that_sleeps_as_well_is_parked_by_the_reset_of_the_wake() {
    let (mut machine, mut driver) = suspended();
    driver.suspend(&mut machine, SleepPath::NoHooks);
    driver.resume(&mut machine, SleepPath::NoHooks);
    assert!(keeps_resources(&machine));
    assert_eq!(activations(&mut machine), [ActivationKind::Reinstated]);
    assert_eq!(driver.status(&mut machine), 0x0f);
}

#[test]
fn a_change_during_the_reset_of_a_suspended_device_comes_after_those_that_waited() {
    let (mut machine, mut driver) = suspended();
    change_config(&mut machine, 5);
    machine.device.answers = false;
    driver.write(&mut machine, Register::DeviceStatus, 0);
    change_config(&mut machine, 6);
    assert!(machine.answer_next());
    assert_eq!(config_byte(&mut machine, &driver), 6);
}
