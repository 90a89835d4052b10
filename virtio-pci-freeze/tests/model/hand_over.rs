// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A kernel that takes the machine over from the one that loaded it from disk (hibernation), told from one that slept.

use virtio_pci_freeze::spec::{DeviceStatus, pci};
use virtio_pci_freeze::test_utils::{Driver, Machine};
use virtio_pci_freeze::{ActivationKind, Effect, HoldSources, Retention};

use crate::common::{activations, bus_master, config, rebind_without_queues, running};

fn every_hint() -> Retention {
    Retention::On {
        sources: HoldSources::ALL,
        no_soft_reset: true,
    }
}

/// What Linux 6.1, 6.12 and 7.3 do between BusMaster off and on to a device whose vectors they kept.
fn restore_msix(driver: &Driver, machine: &mut Machine) {
    let control = driver.capabilities().msix.expect("MSI-X") + 2;
    let masked = pci::MSIX_ENABLE | pci::MSIX_FUNCTION_MASK;
    machine.config_write(control, &masked.to_le_bytes());
    machine.config_write(control, &pci::MSIX_ENABLE.to_le_bytes());
}

fn use_intx(driver: &Driver, machine: &mut Machine) {
    let control = driver.capabilities().msix.expect("MSI-X") + 2;
    machine.config_write(control, &[0, 0]);
}

/// Whether the rings of before are served (`true`), or the device has given them up.
fn goes_on(machine: &mut Machine, driver: &mut Driver) -> bool {
    let log = machine.take_log();
    let (kicked, disowned) = (log.contains(&Effect::Kick), log.contains(&Effect::Disown));
    assert_ne!(kicked, disowned, "{log:?}");
    let needs_reset = driver.status(machine) & DeviceStatus::DEVICE_NEEDS_RESET != 0;
    assert_eq!(needs_reset, disowned);
    kicked
}

#[test]
fn a_kernel_that_is_handed_the_machine_gets_nothing_of_the_one_before() {
    for no_soft_reset in [false, true] {
        let (mut machine, mut driver) = running(config(Retention::On {
            sources: HoldSources::ALL,
            no_soft_reset,
        }));
        bus_master(&mut driver, &mut machine, false);
        restore_msix(&driver, &mut machine);
        machine.take_log();
        machine.take_interrupts();
        bus_master(&mut driver, &mut machine, true);
        assert!(!goes_on(&mut machine, &mut driver));
        assert_eq!(machine.take_interrupts(), [0], "the driver is told");
        // Once: what comes after that is the new kernel's.
        bus_master(&mut driver, &mut machine, false);
        bus_master(&mut driver, &mut machine, true);
        assert!(!machine.take_log().contains(&Effect::Disown));
    }
}

#[test]
fn a_suspend_that_is_aborted_restores_nothing_and_goes_on() {
    let (mut machine, mut driver) = running(config(every_hint()));
    bus_master(&mut driver, &mut machine, false);
    machine.take_log();
    bus_master(&mut driver, &mut machine, true);
    assert!(goes_on(&mut machine, &mut driver));
}

#[test]
fn a_function_that_slept_is_set_up_again_by_the_kernel_that_had_it() {
    type Sleep = fn(&mut Driver, &mut Machine);
    let sleeps: [Sleep; 3] = [
        |driver, machine| {
            driver.set_power_state(machine, pci::PMCSR_POWER_STATE);
            driver.set_power_state(machine, 0);
        },
        |_, machine| machine.function.platform_sleep(),
        |driver, machine| {
            driver.set_power_state(machine, pci::PMCSR_POWER_STATE);
            machine.function_reset();
        },
    ];
    for sleep in sleeps {
        let (mut machine, mut driver) = running(config(every_hint()));
        bus_master(&mut driver, &mut machine, false);
        sleep(&mut driver, &mut machine);
        restore_msix(&driver, &mut machine);
        machine.take_log();
        bus_master(&mut driver, &mut machine, true);
        assert!(goes_on(&mut machine, &mut driver));
    }
}

/// Without MSI-X nothing tells whether configuration space was restored: only a sleep that was seen is one.
#[test]
fn without_msix_a_function_goes_on_only_where_it_was_seen_to_sleep() {
    for slept in [false, true] {
        let (mut machine, mut driver) = running(config(every_hint()));
        use_intx(&driver, &mut machine);
        bus_master(&mut driver, &mut machine, false);
        if slept {
            driver.set_power_state(&mut machine, pci::PMCSR_POWER_STATE);
            driver.set_power_state(&mut machine, 0);
        }
        machine.take_log();
        bus_master(&mut driver, &mut machine, true);
        assert_eq!(goes_on(&mut machine, &mut driver), slept);
    }
}

/// The driver resets the device before it loses the bus, and the kernel after it expects its queues.
#[test]
fn parked_queues_are_not_served_for_a_kernel_that_was_handed_the_machine() {
    let (mut machine, mut driver) = running(config(every_hint()));
    driver.reset(&mut machine);
    bus_master(&mut driver, &mut machine, false);
    restore_msix(&driver, &mut machine);
    bus_master(&mut driver, &mut machine, true);
    machine.take_log();
    rebind_without_queues(&mut driver, &mut machine);
    assert!(!goes_on(&mut machine, &mut driver));
}

#[test]
fn a_kernel_that_sets_its_queues_up_is_served_whoever_had_the_machine_before() {
    let (mut machine, mut driver) = running(config(every_hint()));
    driver.reset(&mut machine);
    bus_master(&mut driver, &mut machine, false);
    restore_msix(&driver, &mut machine);
    bus_master(&mut driver, &mut machine, true);
    activations(&mut machine);
    driver.bind(&mut machine);
    let log = machine.take_log();
    assert!(
        log.contains(&Effect::Activate(ActivationKind::Retained)),
        "{log:?}"
    );
    assert!(log.contains(&Effect::Kick) && !log.contains(&Effect::Disown));
}
