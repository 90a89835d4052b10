// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest-side command's logic against the model.

use core::convert::Infallible;

use virtio_pci_freeze::guest::{
    Capabilities, CommonRegisters, ConfigAccess, FreezeControl, FreezeError, ProbeError, Window,
};
use virtio_pci_freeze::spec::{DeviceStatus, FreezeModeValue, cap_type, feature};
use virtio_pci_freeze::test_utils::{
    Driver, Machine, Reach, function_config, retention, transport_config,
};
use virtio_pci_freeze::{FreezeState, Layout, Register};

use crate::common::{config, running};

fn control(machine: &mut Machine) -> FreezeControl<&mut Machine> {
    let capabilities = Capabilities::read(machine).expect("capabilities");
    FreezeControl::new(machine, &capabilities).expect("a device with freeze_mode")
}

/// A configuration space of plain bytes, for what no device of ours shows.
#[derive(Debug)]
struct Bytes([u8; 256]);

impl ConfigAccess for Bytes {
    type Error = usize;

    fn read(&mut self, offset: u16, data: &mut [u8]) -> Result<(), usize> {
        let offset = usize::from(offset);
        let source = self.0.get(offset..offset + data.len()).ok_or(offset)?;
        data.copy_from_slice(source);
        Ok(())
    }

    fn write(&mut self, offset: u16, _data: &[u8]) -> Result<(), usize> {
        Err(offset.into())
    }
}

fn snapshot(machine: &mut Machine) -> Bytes {
    let mut bytes = Bytes([0; 256]);
    let Ok(()) = machine.read(0, &mut bytes.0);
    bytes
}

#[test]
fn a_program_freezes_and_unfreezes_without_a_mapped_bar() {
    let (mut machine, mut driver) = running(config(retention(false)));
    let mut control = control(&mut machine);
    assert_eq!(control.layout(), Layout::Seed);
    assert_eq!(control.device_status(), Ok(DeviceStatus(0xf)));
    let frozen = FreezeModeValue::FREEZE_S3;
    assert_eq!(control.request(frozen, || false), Ok(()));
    assert_eq!(control.mode(), Ok(frozen));
    control.close().expect("closed");
    assert_eq!(driver.freeze_mode(&mut machine), frozen);
    let mut control = self::control(&mut machine);
    let unfrozen = FreezeModeValue::UNFREEZE;
    assert_eq!(control.request(unfrozen, || false), Ok(()));
    assert_eq!(driver.freeze_mode(&mut machine), unfrozen);
}

#[test]
fn a_program_waits_for_the_acknowledgement_and_gives_up_when_told_to() {
    let (mut machine, _) = running(config(retention(false)));
    machine.device.answers = false;
    let mut waits = 0;
    let asked = control(&mut machine).request(FreezeModeValue::FREEZE_S3, || {
        waits += 1;
        waits < 4
    });
    assert_eq!(waits, 4);
    assert_eq!(
        asked,
        Err(FreezeError::NotAcknowledged { asked: 3, shown: 0 })
    );
    assert!(machine.answer_next());
    let state = machine.function.transport().freeze_state();
    assert_eq!(state, FreezeState::Frozen, "the request stands");
}

#[test]
fn a_refused_freeze_is_told_from_an_honoured_one() {
    let (mut machine, _) = running(config(retention(false)));
    machine.device.can_retain = false;
    let asked = control(&mut machine).request(FreezeModeValue::FREEZE_S3, || false);
    let refused = FreezeError::NotAcknowledged { asked: 3, shown: 0 };
    assert_eq!(asked, Err(refused));
}

#[test]
fn a_device_without_the_register_is_named_as_such() {
    let transport = transport_config(Layout::None, retention(false));
    let mut machine = Machine::new(function_config(transport));
    let capabilities = Capabilities::read(&mut machine).expect("capabilities");
    let refused = FreezeControl::new(&mut machine, &capabilities).map(drop);
    assert_eq!(refused, Err(FreezeError::NoFreezeMode { length: 64 }));
}

#[test]
fn in_the_tail_layout_a_program_learns_that_the_driver_did_not_negotiate() {
    let transport = transport_config(Layout::Tail, retention(false));
    let mut machine = Machine::new(function_config(transport));
    let mut driver = Driver::probe(&mut machine, Reach::Memory);
    driver.wanted = feature::mask(feature::VIRTIO_F_VERSION_1);
    driver.bind(&mut machine);
    driver.write(&mut machine, Register::DriverFeatureSelect, 5);
    let frozen = FreezeModeValue::FREEZE_S3;
    let asked = control(&mut machine).request(frozen, || false);
    assert_eq!(asked, Err(FreezeError::NotNegotiated));
    let select = driver.read(&mut machine, Register::DriverFeatureSelect);
    assert_eq!(select, 5, "the kernel's selector is as it was");
    driver.wanted = u64::MAX;
    driver.bind(&mut machine);
    assert_eq!(control(&mut machine).request(frozen, || false), Ok(()));
}

#[test]
fn a_sleeping_function_is_left_alone() {
    let (mut machine, mut driver) = running(config(retention(false)));
    driver.set_power_state(&mut machine, 3);
    let capabilities = Capabilities::read(&mut machine).expect("capabilities");
    let refused = FreezeControl::new(&mut machine, &capabilities).map(drop);
    assert_eq!(refused, Err(FreezeError::Asleep));
}

#[test]
fn a_closed_window_reads_nothing_when_configuration_space_is_dumped() {
    let (mut machine, mut driver) = running(config(retention(false)));
    let capabilities = Capabilities::read(&mut machine).expect("capabilities");
    let isr = capabilities.structure(cap_type::ISR_CFG).expect("an ISR");
    let mut window = Window::new(&mut machine, &capabilities).expect("a window");
    let mut byte = [0];
    window.read(isr.bar, isr.offset, &mut byte).expect("read");
    window.close().expect("closed");
    let effects = machine.function.update_device_config(0, &[1]);
    machine.carry_out(effects);
    snapshot(&mut machine);
    assert_eq!(driver.read_isr(&mut machine), 2, "the dump has not read it");
}

#[test]
fn what_is_no_modern_virtio_function_is_named_with_its_ids() {
    let (mut machine, _) = running(config(retention(false)));
    let mut bytes = snapshot(&mut machine);
    bytes.0[2..4].copy_from_slice(&0x1005u16.to_le_bytes());
    let found = Capabilities::read(&mut bytes);
    let (vendor, device) = (0x1af4, 0x1005);
    assert_eq!(found, Err(ProbeError::NotVirtio { vendor, device }));
}

#[test]
fn a_capability_list_with_a_loop_ends() {
    let (mut machine, _) = running(config(retention(false)));
    let mut bytes = snapshot(&mut machine);
    let first = bytes.0[0x34];
    bytes.0[usize::from(first) + 1] = first;
    assert_eq!(Capabilities::read(&mut bytes), Err(ProbeError::EndlessList));
}

#[test]
fn capabilities_beyond_what_may_be_read_are_an_access_error() {
    struct HeaderOnly(Bytes);
    impl ConfigAccess for HeaderOnly {
        type Error = usize;
        fn read(&mut self, offset: u16, data: &mut [u8]) -> Result<(), usize> {
            if offset < 64 {
                self.0.read(offset, data)
            } else {
                Err(64)
            }
        }
        fn write(&mut self, offset: u16, _data: &[u8]) -> Result<(), usize> {
            Err(offset.into())
        }
    }
    let (mut machine, _) = running(config(retention(false)));
    let mut bytes = HeaderOnly(snapshot(&mut machine));
    let found = Capabilities::read(&mut bytes);
    let (offset, source) = (64, 64);
    assert_eq!(found, Err(ProbeError::Access { offset, source }));
}

#[test]
fn a_window_that_may_not_be_written_is_an_access_error() {
    let (mut machine, _) = running(config(retention(false)));
    let mut bytes = snapshot(&mut machine);
    let capabilities = Capabilities::read(&mut bytes).expect("capabilities");
    let mut control = FreezeControl::new(bytes, &capabilities).expect("no write so far");
    assert!(matches!(
        control.request(FreezeModeValue::FREEZE_S3, || false),
        Err(FreezeError::Probe(ProbeError::Access { .. }))
    ));
}

#[test]
fn missing_structures_and_reserved_bars_are_found_out() {
    let (mut machine, _) = running(config(retention(false)));
    let mut bytes = snapshot(&mut machine);
    let capabilities = Capabilities::read(&mut bytes).expect("capabilities");
    let common = capabilities.structure(cap_type::COMMON_CFG);
    let common = common.expect("a common configuration");
    bytes.0[usize::from(common.capability) + 4] = 6;
    let without_common = Capabilities::read(&mut bytes).expect("capabilities");
    let name = "common configuration";
    let found = CommonRegisters::new(&mut bytes, &without_common).map(drop);
    assert_eq!(found, Err(ProbeError::NoCapability { name }));

    let mut without_window = capabilities.clone();
    without_window
        .structures
        .retain(|structure| structure.cap_type != cap_type::PCI_CFG);
    let name = "PCI configuration access";
    let found = Window::new(&mut bytes, &without_window).map(drop);
    assert_eq!(found, Err(ProbeError::NoCapability { name }));

    let mut short = capabilities;
    for structure in &mut short.structures {
        structure.length = 20;
    }
    let mut registers = CommonRegisters::new(&mut bytes, &short).expect("registers");
    let status = registers.read(Register::DeviceStatus);
    assert!(matches!(
        status,
        Err(ProbeError::TooShort { length: 20, .. })
    ));
}

#[test]
fn errors_of_an_infallible_machine_cannot_be_access_errors() {
    let (mut machine, _) = running(config(retention(false)));
    let read: Result<Capabilities, ProbeError<Infallible>> = Capabilities::read(&mut machine);
    let capabilities = read.expect("capabilities");
    assert_eq!(capabilities.device_type, 16);
    assert!(capabilities.power_management.is_some() && capabilities.msix.is_some());
}
