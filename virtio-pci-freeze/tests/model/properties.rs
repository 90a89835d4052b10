// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What holds for every program of a guest and its host.

use proptest::prelude::*;
use virtio_pci_freeze::guest::ConfigAccess;
use virtio_pci_freeze::spec::FreezeModeValue;
use virtio_pci_freeze::test_utils::{
    Driver, Machine, Program, Reach, Step, function_config, retention, transport_config,
};
use virtio_pci_freeze::{BarLayout, FreezeState, Layout, Register};

use crate::common::cases;

fn any_program() -> impl Strategy<Value = Program> {
    // Steps that lead somewhere are as frequent as all the others together.
    let leads = prop::sample::select(vec![4u8, 6, 7, 12, 14, 15, 18, 19, 20, 21]);
    let tag = prop_oneof![leads, any::<u8>()];
    let step = (tag, any::<[u8; 11]>()).prop_map(|(tag, rest)| {
        let mut bytes = [0; 12];
        bytes[0] = tag;
        bytes[1..].copy_from_slice(&rest);
        Step::decode(bytes)
    });
    let steps = prop::collection::vec(step, 0..48);
    (any::<u8>(), steps).prop_map(|(setup, steps)| Program { setup, steps })
}

/// All that a guest can read without changing anything, but for `freeze_mode`.
fn observable(machine: &mut Machine) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let mut config = vec![0; 256];
    let Ok(()) = machine.read(0, &mut config);
    let mut driver = Driver::probe(&mut machine.clone(), Reach::Memory);
    let select = driver.read(machine, Register::QueueSelect);
    let mut registers = Vec::new();
    for queue in 0..3 {
        driver.write(machine, Register::QueueSelect, queue);
        let mut bytes = [0; 56];
        machine.read_bar(BarLayout::VIRTIO, 0, &mut bytes);
        registers.extend(bytes);
    }
    driver.write(machine, Register::QueueSelect, select);
    let mut table = vec![0; 64];
    machine.read_bar(BarLayout::MSIX, 0, &mut table);
    (config, registers, table)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(512), failure_persistence: None, ..Default::default() })]

    #[test]
    fn every_program_keeps_every_invariant(program in any_program()) {
        program.run();
    }

    #[test]
    fn programs_and_bytes_are_the_same_thing(program in any_program()) {
        let bytes = program.encode();
        let again = Program::decode(&bytes);
        prop_assert_eq!(&again.steps, &program.steps);
        prop_assert_eq!(again.encode(), bytes);
    }

    #[test]
    fn freeze_then_unfreeze_is_the_identity_on_observable_state(program in any_program()) {
        let program = Program { setup: program.setup & !3, ..program };
        let mut machine = program.run();
        machine.device.answers = true;
        machine.device.can_retain = true;
        while machine.answer_next() {}
        let mut driver = Driver::probe(&mut machine.clone(), Reach::Memory);
        driver.set_power_state(&mut machine, 0);
        driver.write(&mut machine, Register::FreezeMode, 0);
        let before = observable(&mut machine);
        let status = machine.function.transport().status();
        driver.write_freeze_mode(&mut machine, FreezeModeValue::FREEZE_S3);
        prop_assert_eq!(machine.function.transport().status(), status);
        driver.write_freeze_mode(&mut machine, FreezeModeValue::UNFREEZE);
        prop_assert_eq!(machine.function.transport().freeze_state(), FreezeState::Unfrozen);
        prop_assert_eq!(observable(&mut machine), before);
    }

    #[test]
    fn any_two_accesses_that_cover_a_stored_register_equal_one(
        base in prop::sample::select(vec![0u64, 8, 12, 32, 40, 48]),
        value: u64,
        split in 1usize..8,
    ) {
        let (length, split) = if base < 32 { (4, 1 + split % 3) } else { (8, split) };
        let mut machine = Machine::new(function_config(transport_config(Layout::Seed, retention(false))));
        let mut driver = Driver::probe(&mut machine, Reach::Memory);
        driver.reset(&mut machine);
        if base >= 32 {
            driver.negotiate(&mut machine);
        }
        let mut other = machine.clone();
        let bytes = &value.to_le_bytes()[..length];
        machine.write_bar(BarLayout::VIRTIO, base, bytes);
        let (first, second) = bytes.split_at(split);
        other.write_bar(BarLayout::VIRTIO, base + split as u64, second);
        other.write_bar(BarLayout::VIRTIO, base, first);
        let mut one = [0; 68];
        let mut two = [0; 68];
        machine.read_bar(BarLayout::VIRTIO, 0, &mut one);
        other.read_bar(BarLayout::VIRTIO, 0, &mut two[..split]);
        other.read_bar(BarLayout::VIRTIO, split as u64, &mut two[split..]);
        prop_assert_eq!(one, two);
    }
}
