// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! MSI-X, INTx and the ISR, awake and asleep.

use virtio_pci_freeze::spec::{DeviceStatus, FreezeModeValue, pci};
use virtio_pci_freeze::test_utils::{Driver, Machine, Reach, SleepPath, retention};
use virtio_pci_freeze::{BarLayout, FunctionConfig, HoldSources, Interrupt, Register, VectorOwner};

use crate::common::{config, only, running};

/// No vector.
pub(crate) const NONE: [u16; 0] = [];

fn vmm_owned() -> FunctionConfig {
    FunctionConfig {
        vector_owner: VectorOwner::Vmm,
        ..config(retention(false))
    }
}

fn without_msix(config: FunctionConfig) -> (Machine, Driver) {
    let mut machine = Machine::new(config);
    let mut driver = Driver::probe(&mut machine, Reach::Memory);
    let control = driver.capabilities().msix.expect("MSI-X") + 2;
    machine.config_write(control, &[0, 0]);
    driver.msix = false;
    driver.bind(&mut machine);
    (machine, driver)
}

fn change_config(machine: &mut Machine, value: u8) {
    let effects = machine.function.update_device_config(0, &[value]);
    machine.carry_out(effects);
}

fn set_msix(machine: &mut Machine, driver: &Driver, control: u16) {
    let at = driver.capabilities().msix.expect("MSI-X") + 2;
    machine.config_write(at, &control.to_le_bytes());
}

fn mask_vector(machine: &mut Machine, vector: u64, masked: bool) {
    machine.write_bar(BarLayout::MSIX, vector * 16 + 12, &[masked.into(), 0, 0, 0]);
}

fn pending(machine: &mut Machine) -> u8 {
    let offset = machine.function.bars().pending_offset();
    let mut byte = [0];
    machine.read_bar(BarLayout::MSIX, offset.into(), &mut byte);
    byte[0]
}

fn connect(machine: &mut Machine, vector: u16, connected: bool) {
    let effects = machine.function.connect_vector(vector, connected);
    machine.carry_out(effects);
}

#[test]
fn a_used_buffer_sends_the_queues_vector_with_its_message() {
    let (mut machine, _) = running(config(retention(false)));
    let effects = machine.function.queue_used(1);
    assert!(!effects.is_empty());
    let sent = machine.function.next_interrupt();
    let expected = Interrupt {
        vector: 2,
        address: 0xfee0_0000,
        data: 2,
    };
    assert_eq!(sent, Some(expected));
    assert_eq!(machine.function.next_interrupt(), None);
}

#[test]
fn a_queue_without_a_vector_sends_nothing_while_msix_is_enabled() {
    let (mut machine, mut driver) = running(config(retention(false)));
    driver.write(&mut machine, Register::QueueSelect, 0);
    driver.write(&mut machine, Register::QueueMsixVector, 0xffff);
    machine.use_buffers(0, 1);
    assert_eq!(machine.take_interrupts(), NONE);
    assert!(!machine.device.intx);
    driver.write(&mut machine, Register::ConfigMsixVector, 0xffff);
    change_config(&mut machine, 1);
    assert_eq!(machine.take_interrupts(), NONE);
}

#[test]
fn an_interrupt_waits_while_its_vector_is_masked() {
    let (mut machine, _) = running(config(retention(false)));
    mask_vector(&mut machine, 1, true);
    machine.use_buffers(0, 1);
    machine.use_buffers(0, 1);
    assert_eq!(machine.take_interrupts(), NONE);
    assert_eq!(pending(&mut machine), 0b10);
    mask_vector(&mut machine, 1, false);
    assert_eq!(
        machine.take_interrupts(),
        [1],
        "once, however often asked for"
    );
    assert_eq!(pending(&mut machine), 0);
}

#[test]
fn an_interrupt_waits_while_the_function_is_masked() {
    let (mut machine, driver) = running(config(retention(false)));
    let masked = pci::MSIX_ENABLE | pci::MSIX_FUNCTION_MASK;
    set_msix(&mut machine, &driver, masked);
    machine.use_buffers(1, 1);
    assert_eq!(machine.take_interrupts(), NONE);
    set_msix(&mut machine, &driver, pci::MSIX_ENABLE);
    assert_eq!(machine.take_interrupts(), [2]);
}

#[test]
fn interrupts_asked_for_during_sleep_are_delivered_once_after() {
    let (mut machine, mut driver) = running(config(retention(true)));
    driver.suspend(&mut machine, SleepPath::NoReset);
    for _ in 0..3 {
        machine.use_buffers(0, 1);
    }
    change_config(&mut machine, 1);
    assert_eq!(
        machine.take_interrupts(),
        NONE,
        "a message is a memory write"
    );
    driver.resume(&mut machine, SleepPath::NoReset);
    let mut sent = machine.take_interrupts();
    sent.retain(|&vector| vector != 2);
    assert_eq!(sent, [0, 1]);
}

#[test]
fn the_kick_signals_every_queue_again_but_not_the_configuration() {
    let (mut machine, mut driver) = running(config(retention(false)));
    driver.suspend(&mut machine, SleepPath::NoHooks);
    driver.resume(&mut machine, SleepPath::NoHooks);
    let mut sent = machine.take_interrupts();
    sent.dedup();
    assert!(!sent.contains(&0), "{sent:?}");
    assert!(sent.contains(&1) && sent.contains(&2), "{sent:?}");
}

#[test]
fn an_interrupt_that_finds_no_eventfd_yet_waits_for_it() {
    let (mut machine, mut driver) = running(vmm_owned());
    driver.suspend(&mut machine, SleepPath::NoReset);
    for vector in 0..3 {
        connect(&mut machine, vector, false);
    }
    machine.use_buffers(0, 1);
    driver.set_power_state(&mut machine, 0);
    assert_eq!(
        machine.take_interrupts(),
        NONE,
        "the kick, but no way to the guest"
    );
    connect(&mut machine, 1, true);
    connect(&mut machine, 2, true);
    assert_eq!(machine.take_interrupts(), [1, 2]);
    connect(&mut machine, 9, true);
}

#[test]
fn where_the_vmm_owns_the_table_a_connected_vector_goes_whatever_the_table_says() {
    let (mut machine, mut driver) = running(vmm_owned());
    driver.write(&mut machine, Register::QueueSelect, 0);
    mask_vector(&mut machine, 1, true);
    machine.use_buffers(0, 1);
    assert_eq!(machine.take_interrupts(), [1]);
    connect(&mut machine, 1, false);
    machine.use_buffers(0, 1);
    assert_eq!(machine.take_interrupts(), NONE);
    connect(&mut machine, 1, true);
    assert_eq!(machine.take_interrupts(), [1]);
}

#[test]
fn a_configuration_change_during_a_frozen_reset_is_told_at_driver_ok() {
    for when in 0..3 {
        let (mut machine, mut driver) = running(config(retention(false)));
        driver.suspend(&mut machine, SleepPath::NoHooks);
        if when == 0 {
            change_config(&mut machine, 1);
        }
        driver.set_power_state(&mut machine, 0);
        driver.write_command(&mut machine, 6);
        machine.device.answers = false;
        driver.write(&mut machine, Register::DeviceStatus, 0);
        if when == 1 {
            change_config(&mut machine, 1);
        }
        while machine.answer_next() {}
        if when == 2 {
            change_config(&mut machine, 1);
        }
        driver.negotiate(&mut machine);
        driver.set_status(&mut machine, DeviceStatus::DRIVER_OK);
        let sent = machine.take_interrupts();
        let told = sent.iter().filter(|&&vector| vector == 0).count();
        assert_eq!(told, 1, "{when} {sent:?}");
    }
}

#[test]
fn a_change_that_was_told_is_not_told_again_after_a_sleep() {
    let (mut machine, mut driver) = running(config(retention(false)));
    change_config(&mut machine, 1);
    assert_eq!(machine.take_interrupts(), [0]);
    driver.suspend(&mut machine, SleepPath::NoHooks);
    driver.resume(&mut machine, SleepPath::NoHooks);
    assert!(!machine.take_interrupts().contains(&0));
}

#[test]
fn a_full_reset_forgets_every_interrupt_that_waits() {
    let (mut machine, mut driver) = running(config(retention(false)));
    mask_vector(&mut machine, 0, true);
    mask_vector(&mut machine, 1, true);
    machine.use_buffers(0, 1);
    change_config(&mut machine, 1);
    driver.reset(&mut machine);
    assert_eq!(pending(&mut machine), 0);
    assert_eq!(driver.read_isr(&mut machine), 0);
    mask_vector(&mut machine, 0, false);
    mask_vector(&mut machine, 1, false);
    driver.bind(&mut machine);
    let sent = machine.take_interrupts();
    assert!(!sent.contains(&0), "{sent:?}");
}

#[test]
fn a_device_that_is_late_raises_nothing_after_a_reset() {
    let (mut machine, mut driver) = without_msix(config(retention(false)));
    driver.reset(&mut machine);
    machine.use_buffers(0, 1);
    change_config(&mut machine, 9);
    assert!(!machine.device.intx);
    assert_eq!(driver.read_isr(&mut machine), 0);
}

#[test]
fn reading_the_isr_clears_it_and_lets_go_of_the_line() {
    let (mut machine, mut driver) = without_msix(config(retention(false)));
    driver.read_isr(&mut machine);
    machine.use_buffers(0, 1);
    assert!(machine.device.intx);
    assert_ne!(
        machine.config_u16(pci::STATUS.into()) & pci::STATUS_INTERRUPT,
        0
    );
    change_config(&mut machine, 1);
    assert_eq!(driver.read_isr(&mut machine), 3);
    assert!(!machine.device.intx);
    assert_eq!(
        machine.config_u16(pci::STATUS.into()) & pci::STATUS_INTERRUPT,
        0
    );
    assert_eq!(driver.read_isr(&mut machine), 0);
}

#[test]
fn the_isr_is_read_through_the_window_too() {
    let (mut machine, _) = without_msix(config(retention(false)));
    let mut driver = Driver::probe(&mut machine, Reach::Window);
    let control = driver.capabilities().msix.expect("MSI-X") + 2;
    machine.config_write(control, &[0, 0]);
    machine.use_buffers(0, 1);
    assert!(machine.device.intx);
    assert_eq!(driver.read_isr(&mut machine) & 1, 1);
    assert!(!machine.device.intx);
}

#[test]
fn a_masked_line_stays_low_and_rises_when_it_is_unmasked() {
    let (mut machine, mut driver) = without_msix(config(retention(false)));
    driver.read_isr(&mut machine);
    let on = pci::COMMAND_MEMORY | pci::COMMAND_BUS_MASTER;
    driver.write_command(&mut machine, on | pci::COMMAND_INTX_DISABLE);
    machine.use_buffers(0, 1);
    assert!(!machine.device.intx);
    assert_ne!(
        machine.config_u16(pci::STATUS.into()) & pci::STATUS_INTERRUPT,
        0
    );
    driver.write_command(&mut machine, on);
    assert!(machine.device.intx);
    driver.write_command(&mut machine, on | pci::COMMAND_INTX_DISABLE);
    assert!(!machine.device.intx);
}

#[test]
fn enabling_msix_lets_go_of_the_line() {
    let (mut machine, driver) = without_msix(config(retention(false)));
    machine.use_buffers(0, 1);
    assert!(machine.device.intx);
    set_msix(&mut machine, &driver, pci::MSIX_ENABLE);
    assert!(!machine.device.intx);
}

#[test]
fn a_sleeping_function_does_not_drive_its_line_and_the_interrupt_is_there_after() {
    let (mut machine, mut driver) = without_msix(config(retention(true)));
    driver.read_isr(&mut machine);
    driver.set_power_state(&mut machine, pci::PMCSR_POWER_STATE);
    machine.use_buffers(0, 1);
    assert!(!machine.device.intx);
    driver.set_power_state(&mut machine, 0);
    assert!(machine.device.intx);
    assert_eq!(driver.read_isr(&mut machine) & 1, 1);
}

#[test]
fn a_driver_on_intx_is_signalled_again_at_reinstatement_and_told_of_a_change() {
    let (mut machine, mut driver) = without_msix(config(retention(false)));
    driver.read_isr(&mut machine);
    driver.write_freeze_mode(&mut machine, FreezeModeValue::FREEZE_S3);
    driver.suspend(&mut machine, SleepPath::NoHooks);
    change_config(&mut machine, 1);
    machine.function_reset();
    driver.resume(&mut machine, SleepPath::NoHooks);
    assert!(machine.device.intx);
    assert_eq!(driver.read_isr(&mut machine), 3);
}

#[test]
fn a_function_reset_that_keeps_the_queues_keeps_an_untold_change() {
    let (mut machine, mut driver) = without_msix(config(retention(true)));
    driver.read_isr(&mut machine);
    driver.suspend(&mut machine, SleepPath::NoReset);
    change_config(&mut machine, 1);
    machine.function_reset();
    driver.resume(&mut machine, SleepPath::NoReset);
    assert_eq!(driver.read_isr(&mut machine) & 2, 2);
}

#[test]
fn a_function_without_an_interrupt_pin_has_no_line() {
    let mut config = config(retention(false));
    config.identity.interrupt_pin = false;
    let (mut machine, mut driver) = without_msix(config);
    machine.use_buffers(0, 1);
    assert!(!machine.device.intx);
    assert_eq!(driver.read_isr(&mut machine) & 1, 1);
}

#[test]
fn a_device_error_is_told_once_the_driver_runs_and_not_before() {
    let (mut machine, mut driver) = running(config(retention(false)));
    let effects = machine.function.needs_reset();
    machine.carry_out(effects);
    assert_eq!(driver.status(&mut machine), 0x4f);
    assert_eq!(machine.take_interrupts(), [0]);
    driver.reset(&mut machine);
    assert_eq!(driver.status(&mut machine), 0);
    let effects = machine.function.needs_reset();
    machine.carry_out(effects);
    assert_eq!(
        driver.status(&mut machine),
        0,
        "a driver may be polling for 0"
    );
    driver.set_status(&mut machine, DeviceStatus::ACKNOWLEDGE);
    let effects = machine.function.needs_reset();
    machine.carry_out(effects);
    assert_eq!(driver.status(&mut machine), 0x41);
    assert_eq!(machine.take_interrupts(), NONE);
}

#[test]
fn a_change_owed_to_one_driver_is_not_told_to_the_next() {
    for reboots in [false, true] {
        let (mut machine, mut driver) = only(HoldSources::ALL);
        driver.reset(&mut machine);
        assert!(machine.function.transport().parked_queues().is_some());
        change_config(&mut machine, 1);
        if reboots {
            let effects = machine.function.reboot();
            machine.carry_out(effects);
        }
        let mut next = Driver::probe(&mut machine, Reach::Memory);
        next.bind(&mut machine);
        next.suspend(&mut machine, SleepPath::NoHooks);
        next.resume(&mut machine, SleepPath::NoHooks);
        assert!(!machine.take_interrupts().contains(&0), "{reboots}");
    }
}
