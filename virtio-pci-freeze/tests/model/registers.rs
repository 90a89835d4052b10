// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The common configuration structure: the table, widths, and who may write what when.

use virtio_pci_freeze::spec::{DeviceStatus, FreezeModeValue, feature};
use virtio_pci_freeze::test_utils::{
    Driver, Machine, Reach, function_config, retention, transport_config,
};
use virtio_pci_freeze::{Access, BarLayout, CommonConfig, Effect, Effects, Layout, Register};

use crate::common::{STRIDE, config, running};

const LAYOUTS: [Layout; 3] = [Layout::Seed, Layout::Tail, Layout::None];

fn machine(layout: Layout, features: &[u32]) -> (Machine, Driver) {
    let mut transport = transport_config(layout, retention(false));
    for &bit in features {
        transport.device_features |= feature::mask(bit);
    }
    let mut machine = Machine::new(function_config(transport));
    let driver = Driver::probe(&mut machine, Reach::Memory);
    (machine, driver)
}

fn read(machine: &mut Machine, offset: u64, length: usize) -> Vec<u8> {
    let mut data = vec![0xaa; length];
    machine.read_bar(BarLayout::VIRTIO, offset, &mut data);
    data
}

#[test]
fn the_table_is_the_standards() {
    let expected = [
        (Register::DeviceFeatureSelect, 0, 4),
        (Register::DeviceFeature, 4, 4),
        (Register::DriverFeatureSelect, 8, 4),
        (Register::DriverFeature, 12, 4),
        (Register::ConfigMsixVector, 16, 2),
        (Register::NumQueues, 18, 2),
        (Register::DeviceStatus, 20, 1),
        (Register::ConfigGeneration, 21, 1),
        (Register::QueueSelect, 22, 2),
        (Register::QueueSize, 24, 2),
        (Register::QueueMsixVector, 26, 2),
        (Register::QueueEnable, 28, 2),
        (Register::QueueNotifyOff, 30, 2),
        (Register::QueueDesc, 32, 8),
        (Register::QueueDriver, 40, 8),
        (Register::QueueDevice, 48, 8),
        (Register::QueueNotifConfigData, 56, 2),
        (Register::QueueReset, 58, 2),
        (Register::AdminQueueIndex, 60, 2),
        (Register::AdminQueueNum, 62, 2),
    ];
    let table: Vec<_> = Layout::None
        .registers()
        .map(|info| (info.register, info.offset, info.width))
        .collect();
    assert_eq!(table, expected);
    let seed: Vec<_> = Layout::Seed.registers().collect();
    let last = seed.last().expect("registers");
    assert_eq!((last.register, last.offset), (Register::FreezeMode, 56));
    let tail: Vec<_> = Layout::Tail.registers().collect();
    let last = tail.last().expect("registers");
    assert_eq!((last.register, last.offset), (Register::FreezeMode, 64));
    for layout in LAYOUTS {
        assert_eq!(Layout::of_length(layout.length()), layout);
    }
    for (length, layout) in [(0, Layout::None), (56, Layout::None), (4096, Layout::Tail)] {
        assert_eq!(Layout::of_length(length), layout);
    }
}

#[test]
fn a_read_of_any_width_shows_the_same_bytes() {
    for layout in LAYOUTS {
        let (mut machine, mut driver) = machine(layout, &[]);
        driver.bind(&mut machine);
        driver.write(&mut machine, Register::QueueSelect, 1);
        let whole = read(&mut machine, 0, 80);
        for length in (1..=16).step_by(STRIDE.min(15)) {
            for offset in 0..80 - length {
                let part = read(&mut machine, offset as u64, length);
                assert_eq!(part, whole[offset..offset + length], "{layout:?} {offset}");
            }
        }
        let end = usize::try_from(layout.length()).expect("small");
        assert!(whole[end..].iter().all(|&byte| byte == 0));
    }
}

#[test]
fn queue_addresses_written_in_any_pieces_read_back_whole() {
    let (mut machine, mut driver) = machine(Layout::Seed, &[]);
    driver.reset(&mut machine);
    driver.negotiate(&mut machine);
    let value = 0x1122_3344_5566_7788u64;
    for width in [1, 2, 4, 8] {
        for (index, register) in [
            Register::QueueDesc,
            Register::QueueDriver,
            Register::QueueDevice,
        ]
        .into_iter()
        .enumerate()
        {
            let base = 32 + index * 8;
            driver.write(&mut machine, register, 0);
            for (piece, bytes) in value.to_le_bytes().chunks(width).enumerate() {
                let at = (base + piece * width) as u64;
                machine.write_bar(BarLayout::VIRTIO, at, bytes);
            }
            assert_eq!(driver.read(&mut machine, register), value, "{width}");
        }
    }
}

#[test]
fn half_a_status_or_vector_is_ignored_and_counted() {
    let (mut machine, mut driver) = machine(Layout::Tail, &[]);
    let whole: Vec<_> = Layout::Tail
        .registers()
        .filter(|info| info.access == Access::Whole && info.width > 1)
        .collect();
    assert_eq!(whole.len(), 6);
    driver.reset(&mut machine);
    driver.negotiate(&mut machine);
    for info in whole {
        let before = read(&mut machine, 0, 68);
        let counters = machine.function.transport().counters();
        machine.write_bar(BarLayout::VIRTIO, info.offset.into(), &[1]);
        assert_eq!(read(&mut machine, 0, 68), before, "{info:?}");
        let after = machine.function.transport().counters();
        let ignored = after.register_writes_ignored - counters.register_writes_ignored;
        assert_eq!(ignored, 1, "{info:?}");
    }
}

#[test]
fn read_only_registers_stay_as_they_are() {
    for layout in LAYOUTS {
        let (mut machine, mut driver) = machine(layout, &[]);
        driver.bind(&mut machine);
        let read_only = layout
            .registers()
            .filter(|info| info.access == Access::ReadOnly);
        for info in read_only {
            let before = driver.read(&mut machine, info.register);
            driver.write(&mut machine, info.register, !before);
            assert_eq!(driver.read(&mut machine, info.register), before, "{info:?}");
        }
    }
}

#[test]
fn features_are_shown_in_windows_of_32_bits_and_nothing_beyond_64() {
    let (mut machine, mut driver) = machine(Layout::Tail, &[feature::VIRTIO_F_SUSPEND]);
    let offered = machine.function.transport().offered_features();
    assert_eq!(driver.offered(&mut machine), offered);
    assert_ne!(offered & feature::mask(feature::VIRTIO_F_VERSION_1), 0);
    for select in [2, 3, 0x8000_0000, u64::from(u32::MAX)] {
        driver.write(&mut machine, Register::DeviceFeatureSelect, select);
        assert_eq!(driver.read(&mut machine, Register::DeviceFeature), 0);
        driver.write(&mut machine, Register::DriverFeatureSelect, select);
        driver.write(&mut machine, Register::DriverFeature, 0xffff_ffff);
        assert_eq!(driver.read(&mut machine, Register::DriverFeature), 0);
    }
}

#[test]
fn features_are_fixed_once_features_ok_is_set() {
    let (mut machine, mut driver) = machine(Layout::Seed, &[]);
    driver.reset(&mut machine);
    driver.negotiate(&mut machine);
    let negotiated = machine.function.transport().negotiated_features();
    assert_eq!(negotiated, machine.function.transport().offered_features());
    driver.write(&mut machine, Register::DriverFeatureSelect, 0);
    driver.write(&mut machine, Register::DriverFeature, 0);
    assert_eq!(
        machine.function.transport().negotiated_features(),
        negotiated
    );
}

#[test]
fn an_invalid_feature_set_does_not_get_features_ok() {
    let version_1 = feature::mask(feature::VIRTIO_F_VERSION_1);
    for (what, features) in [
        ("not offered", version_1 | 1 << 20),
        ("without VERSION_1", 1),
        ("1 requires 0", version_1 | 2),
    ] {
        let (mut machine, mut driver) = machine(Layout::Seed, &[]);
        driver.reset(&mut machine);
        driver.set_status(&mut machine, DeviceStatus::ACKNOWLEDGE);
        driver.set_status(&mut machine, DeviceStatus::DRIVER);
        for (select, half) in [(0, features & 0xffff_ffff), (1, features >> 32)] {
            driver.write(&mut machine, Register::DriverFeatureSelect, select);
            driver.write(&mut machine, Register::DriverFeature, half);
        }
        driver.set_status(&mut machine, DeviceStatus::FEATURES_OK);
        assert_eq!(driver.status(&mut machine), 3, "{what}");
        assert_eq!(machine.function.transport().negotiated_features(), 0);
    }
}

#[test]
fn the_same_features_are_accepted_again_after_a_reset() {
    let (mut machine, mut driver) = machine(Layout::Seed, &[]);
    for _ in 0..3 {
        driver.bind(&mut machine);
        assert_eq!(driver.status(&mut machine), 0xf);
    }
}

#[test]
fn an_out_of_range_vector_reads_back_as_none() {
    let (mut machine, mut driver) = machine(Layout::Seed, &[]);
    for (vector, shown) in [
        (0, 0),
        (2, 2),
        (3, 0xffff),
        (0x7ff, 0xffff),
        (0xffff, 0xffff),
    ] {
        for register in [Register::ConfigMsixVector, Register::QueueMsixVector] {
            driver.write(&mut machine, register, vector);
            assert_eq!(driver.read(&mut machine, register), shown, "{register:?}");
        }
    }
}

#[test]
fn vectors_are_unmapped_by_a_reset() {
    let (mut machine, mut driver) = machine(Layout::Seed, &[]);
    driver.bind(&mut machine);
    driver.reset(&mut machine);
    for register in [Register::ConfigMsixVector, Register::QueueMsixVector] {
        assert_eq!(driver.read(&mut machine, register), 0xffff);
    }
}

#[test]
fn the_generation_moves_at_the_read_that_follows_a_change_however_many_there_were() {
    let (mut machine, mut driver) = running(config(retention(false)));
    let generation = |driver: &mut Driver, machine: &mut Machine| {
        driver.read(machine, Register::ConfigGeneration)
    };
    let before = generation(&mut driver, &mut machine);
    for value in 0..=255u8 {
        let effects = machine.function.update_device_config(0, &[value ^ 0xff]);
        machine.carry_out(effects);
    }
    assert_eq!(generation(&mut driver, &mut machine), before);
    let config = driver.capabilities().structure(4).expect("a device config");
    let mut byte = [0];
    machine.read_bar(config.bar, config.offset.into(), &mut byte);
    assert_eq!(byte, [0]);
    let after = generation(&mut driver, &mut machine);
    assert_ne!(after, before, "256 changes are not no change");
    machine.read_bar(config.bar, config.offset.into(), &mut byte);
    assert_eq!(generation(&mut driver, &mut machine), after);
}

/// Some VMMs keep device configuration and interrupts themselves, and have only these registers here.
#[test]
fn a_vmm_gives_the_generation_and_takes_the_vectors() {
    let transport = transport_config(Layout::Seed, retention(false));
    let queues = u16::try_from(transport.queue_sizes.len()).unwrap();
    let mut common = CommonConfig::new(transport).unwrap();
    common.transport_mut().set_config_generation(7);
    assert_eq!(common.read_register(Register::ConfigGeneration), 7);
    let mut effects = Effects::none();
    common.write(16, &1u16.to_le_bytes(), &mut effects);
    common.write(26, &0u16.to_le_bytes(), &mut effects);
    assert_eq!(common.transport().config_vector(), 1);
    assert_eq!(common.transport().queue_vector(0), 0);
    assert_eq!(common.transport().queue_vector(1), 0xffff);
    assert_eq!(common.transport().queue_vector(queues), 0xffff);
}

#[test]
fn the_device_configuration_can_be_read_before_features_ok() {
    let mut transport = transport_config(Layout::Seed, retention(false));
    transport.device_config = vec![1, 2, 3, 4];
    let mut machine = Machine::new(function_config(transport));
    let driver = Driver::probe(&mut machine, Reach::Memory);
    let config = driver.capabilities().structure(4).expect("a device config");
    let mut bytes = [0xaa; 6];
    machine.read_bar(config.bar, config.offset.into(), &mut bytes);
    assert_eq!(bytes, [1, 2, 3, 4, 0, 0]);
    assert_eq!(
        machine.function.transport().device_config().bytes(),
        [1, 2, 3, 4]
    );
}

#[test]
fn a_write_to_the_device_configuration_leaves_as_an_effect() {
    let (mut machine, driver) = running(config(retention(false)));
    let config = driver.capabilities().structure(4).expect("a device config");
    machine.write_bar(config.bar, u64::from(config.offset) + 4, &[1, 0, 0, 0]);
    assert_eq!(
        machine.take_log(),
        [Effect::DeviceConfigWrite {
            offset: 4,
            width: 4,
            value: 1
        }]
    );
    machine.write_bar(config.bar, config.offset.into(), &[]);
    assert_eq!(machine.take_log(), []);
}

#[test]
fn two_registers_that_one_write_reaches_both_ask_for_something() {
    let (mut machine, driver) = machine(Layout::Tail, &[feature::VIRTIO_F_RING_RESET]);
    let mut driver = driver;
    driver.bind(&mut machine);
    driver.write(&mut machine, Register::QueueSelect, 0);
    machine.device.answers = false;
    machine.take_log();
    // queue_reset is at 58, freeze_mode at 64.
    machine.write_bar(BarLayout::VIRTIO, 58, &[1, 0, 0, 0, 0, 0, 3, 0]);
    let log = machine.take_log();
    assert!(
        matches!(
            log[..],
            [Effect::ResetQueue { queue: 0 }, Effect::Freeze { .. }]
        ),
        "{log:?}"
    );
}

#[test]
fn the_structure_can_stand_without_a_pci_function() {
    let mut transport = transport_config(Layout::Seed, retention(false));
    transport.starts_as_bus_master = true;
    let mut common = CommonConfig::new(transport).expect("valid");
    assert_eq!(common.length(), 60);
    let mut effects = Effects::none();
    common.write(
        56,
        &FreezeModeValue::FREEZE_S3.0.to_le_bytes(),
        &mut effects,
    );
    let asked: Vec<Effect> = effects.into_iter().collect();
    let [Effect::Freeze { ticket }] = asked[..] else {
        panic!("{asked:?}");
    };
    common.transport_mut().freeze_done(ticket, true);
    let mut mode = [0; 2];
    common.read(56, &mut mode);
    assert_eq!(mode, [3, 0]);
}
