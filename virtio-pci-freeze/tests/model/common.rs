// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Machines and drivers that the tests start from.

use virtio_pci_freeze::spec::{DeviceStatus, feature, pci};
use virtio_pci_freeze::test_utils::{Driver, Machine, Reach, function_config, transport_config};
use virtio_pci_freeze::{
    ActivationKind, Effect, FunctionConfig, HoldSources, Layout, ResetKind, Retention,
};

/// What the device holds before each test.
pub(crate) const RESOURCE: u32 = 7;

/// Miri interprets each instruction, a few hundred times slower: of all values of a byte it sees every so many.
pub(crate) const STRIDE: usize = if cfg!(miri) { 127 } else { 1 };

/// Likewise of so many sleeps in a row.
pub(crate) const SLEEPS: u16 = if cfg!(miri) { 2 } else { 8 };

/// Likewise of so many random programs.
pub(crate) const fn cases(native: u32) -> u32 {
    if cfg!(miri) {
        native.div_ceil(1024)
    } else {
        native
    }
}

pub(crate) fn config(retention: Retention) -> FunctionConfig {
    let layout = match retention {
        Retention::Off => Layout::None,
        Retention::On { .. } => Layout::Seed,
    };
    let mut transport = transport_config(layout, retention);
    transport.device_features |= feature::mask(feature::VIRTIO_F_SUSPEND);
    function_config(transport)
}

/// A machine whose driver runs, and whose device holds a resource.
pub(crate) fn running(config: FunctionConfig) -> (Machine, Driver) {
    let mut machine = Machine::new(config);
    let mut driver = Driver::probe(&mut machine, Reach::Memory);
    driver.bind(&mut machine);
    machine.device.resources.insert(RESOURCE);
    machine.take_log();
    machine.take_interrupts();
    (machine, driver)
}

pub(crate) fn only(sources: HoldSources) -> (Machine, Driver) {
    running(config(Retention::On {
        sources,
        no_soft_reset: false,
    }))
}

pub(crate) fn keeps_resources(machine: &Machine) -> bool {
    machine.device.resources.contains(&RESOURCE)
}

pub(crate) fn activations(machine: &mut Machine) -> Vec<ActivationKind> {
    let kind = |effect| match effect {
        Effect::Activate(kind) => Some(kind),
        _ => None,
    };
    machine.take_log().into_iter().filter_map(kind).collect()
}

pub(crate) fn resets(machine: &mut Machine) -> Vec<ResetKind> {
    let kind = |effect| match effect {
        Effect::Reset { kind, .. } => Some(kind),
        _ => None,
    };
    machine.take_log().into_iter().filter_map(kind).collect()
}

pub(crate) fn rebind_without_queues(driver: &mut Driver, machine: &mut Machine) {
    driver.reset(machine);
    driver.negotiate(machine);
    driver.set_status(machine, DeviceStatus::DRIVER_OK);
}

pub(crate) fn bus_master(driver: &mut Driver, machine: &mut Machine, on: bool) {
    let bit = if on { pci::COMMAND_BUS_MASTER } else { 0 };
    driver.write_command(machine, pci::COMMAND_MEMORY | bit);
}
