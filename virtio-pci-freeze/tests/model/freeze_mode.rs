// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The `freeze_mode` register.

use virtio_pci_freeze::spec::{FreezeModeValue, feature};
use virtio_pci_freeze::test_utils::{
    Driver, Machine, Reach, function_config, retention, transport_config,
};
use virtio_pci_freeze::{
    ActivationKind, Effect, Effects, FREEZE_FEATURE, FreezeState, HoldSources, Layout, Transport,
};

use crate::common::{activations, config, keeps_resources, only, rebind_without_queues, running};

#[test]
fn freeze_mode_alone_holds_and_survives_the_reset_it_is_for() {
    let (mut machine, mut driver) = only(HoldSources::NONE);
    driver.write_freeze_mode(&mut machine, FreezeModeValue::FREEZE_S3);
    rebind_without_queues(&mut driver, &mut machine);
    assert!(keeps_resources(&machine));
    let shown = driver.freeze_mode(&mut machine);
    assert_eq!(shown, FreezeModeValue::FREEZE_S3);
    driver.write_freeze_mode(&mut machine, FreezeModeValue::UNFREEZE);
    assert!(!machine.function.transport().is_held());
    driver.reset(&mut machine);
    assert!(!keeps_resources(&machine));
}

#[test]
fn freeze_mode_reads_back_only_once_the_device_has_honoured_it() {
    let (mut machine, mut driver) = running(config(retention(false)));
    machine.device.answers = false;
    driver.write_freeze_mode(&mut machine, FreezeModeValue::FREEZE_S3);
    let unfrozen = FreezeModeValue::UNFREEZE;
    assert_eq!(driver.freeze_mode(&mut machine), unfrozen);
    let transport = machine.function.transport();
    assert_eq!(transport.freeze_state(), FreezeState::Freezing);
    assert!(
        transport.is_held(),
        "the request holds before it is honoured"
    );
    assert!(machine.answer_next());
    let frozen = FreezeModeValue::FREEZE_S3;
    assert_eq!(driver.freeze_mode(&mut machine), frozen);
}

#[test]
fn a_refused_freeze_reads_unfreeze_and_is_counted() {
    let (mut machine, mut driver) = running(config(retention(false)));
    machine.device.can_retain = false;
    driver.write_freeze_mode(&mut machine, FreezeModeValue::FREEZE_S3);
    let unfrozen = FreezeModeValue::UNFREEZE;
    assert_eq!(driver.freeze_mode(&mut machine), unfrozen);
    assert!(!machine.function.transport().is_held());
    assert_eq!(machine.function.transport().counters().freezes_refused, 1);
}

#[test]
fn an_answer_to_a_freeze_that_was_taken_back_is_ignored() {
    let (mut machine, mut driver) = running(config(retention(false)));
    machine.device.answers = false;
    driver.write_freeze_mode(&mut machine, FreezeModeValue::FREEZE_S3);
    driver.write_freeze_mode(&mut machine, FreezeModeValue::UNFREEZE);
    assert!(machine.answer_next());
    let transport = machine.function.transport();
    assert_eq!(transport.freeze_state(), FreezeState::Unfrozen);
}

#[test]
fn an_answer_to_a_freeze_that_was_taken_back_is_not_one_to_the_next() {
    let (mut machine, mut driver) = running(config(retention(false)));
    machine.device.answers = false;
    driver.write_freeze_mode(&mut machine, FreezeModeValue::FREEZE_S3);
    driver.write_freeze_mode(&mut machine, FreezeModeValue::UNFREEZE);
    driver.write_freeze_mode(&mut machine, FreezeModeValue::FREEZE_S3);
    assert!(machine.answer_next());
    let shown = driver.freeze_mode(&mut machine);
    assert_eq!(shown, FreezeModeValue::UNFREEZE);
    assert!(machine.answer_next());
    let shown = driver.freeze_mode(&mut machine);
    assert_eq!(shown, FreezeModeValue::FREEZE_S3);
}

#[test]
fn other_values_of_freeze_mode_are_ignored_and_counted() {
    let (mut machine, mut driver) = running(config(retention(false)));
    for value in [1, 2, 4, 5, 0x103, 0x300, u16::MAX] {
        driver.write_freeze_mode(&mut machine, FreezeModeValue(value));
        assert!(!machine.function.transport().is_held(), "{value:#x}");
    }
    let counters = machine.function.transport().counters();
    assert_eq!(counters.freeze_writes_ignored, 7);
    driver.write_freeze_mode(&mut machine, FreezeModeValue::FREEZE_S3);
    driver.write_freeze_mode(&mut machine, FreezeModeValue(1));
    let frozen = FreezeModeValue::FREEZE_S3;
    assert_eq!(driver.freeze_mode(&mut machine), frozen);
}

#[test]
fn freezing_does_not_stop_the_queues() {
    let (mut machine, mut driver) = running(config(retention(false)));
    driver.write_freeze_mode(&mut machine, FreezeModeValue::FREEZE_S3);
    machine.take_log();
    driver.notify(&mut machine, 0);
    assert_eq!(machine.take_log(), [Effect::Notify { queue: 0, data: 0 }]);
    machine.use_buffers(0, 1);
    assert_eq!(machine.take_interrupts(), [1]);
    rebind_without_queues(&mut driver, &mut machine);
    driver.notify(&mut machine, 1);
    let notified = Effect::Notify { queue: 1, data: 1 };
    assert!(
        machine.take_log().contains(&notified),
        "and not after DRIVER_OK"
    );
}

#[test]
fn in_the_tail_layout_freeze_mode_counts_only_once_negotiated() {
    let transport = transport_config(Layout::Tail, retention(false));
    let mut machine = Machine::new(function_config(transport));
    let mut driver = Driver::probe(&mut machine, Reach::Memory);
    driver.wanted = feature::mask(feature::VIRTIO_F_VERSION_1);
    driver.bind(&mut machine);
    driver.write_freeze_mode(&mut machine, FreezeModeValue::FREEZE_S3);
    assert!(!machine.function.transport().is_held());
    driver.wanted = u64::MAX;
    driver.bind(&mut machine);
    driver.write_freeze_mode(&mut machine, FreezeModeValue::FREEZE_S3);
    assert!(machine.function.transport().is_held());
}

/// VIRTIO 1.4 §2.2: device types have 0 to 23, 41, 42 and 50 to 127, extensions 24 to 40 and 43, and 44 to 49 are free.
/// On a network device, 63 is VIRTIO_NET_F_SPEED_DUPLEX, and a driver that accepts it reads a speed that is not there.
#[test]
fn the_feature_bit_of_the_tail_layout_belongs_to_no_device_type_and_to_no_extension() {
    assert!((44..=49).contains(&FREEZE_FEATURE), "{FREEZE_FEATURE}");
    let offered = |layout| {
        let config = transport_config(layout, retention(false));
        Transport::new(config).expect("valid").offered_features()
    };
    let added = offered(Layout::Tail) & !offered(Layout::None);
    assert_eq!(added, feature::mask(FREEZE_FEATURE));
}

#[test]
fn a_driver_hears_of_a_lost_state_from_freeze_mode() {
    let (mut machine, mut driver) = running(config(retention(false)));
    driver.write_freeze_mode(&mut machine, FreezeModeValue::FREEZE_S3);
    machine.device.can_retain = false;
    driver.reset(&mut machine);
    let unfrozen = FreezeModeValue::UNFREEZE;
    assert_eq!(driver.freeze_mode(&mut machine), unfrozen);
    assert!(machine.function.transport().parked_queues().is_none());
    driver.bind(&mut machine);
    assert!(activations(&mut machine).contains(&ActivationKind::Fresh));
}

#[test]
fn a_transport_without_the_register_takes_no_freeze_from_any_front_end() {
    let config = transport_config(Layout::None, retention(false));
    let mut transport = Transport::new(config).expect("valid");
    let mut effects = Effects::none();
    transport.write_freeze_mode(FreezeModeValue::FREEZE_S3.0, &mut effects);
    assert!(effects.is_empty() && !transport.is_held());
    assert_eq!(transport.counters().freeze_writes_ignored, 1);
}
