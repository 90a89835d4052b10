// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Configuration space, BARs, power management and the window.

use virtio_pci_freeze::spec::{cap_type, feature, pci};
use virtio_pci_freeze::test_utils::{
    Driver, Machine, Reach, function_config, retention, transport_config,
};
use virtio_pci_freeze::{
    BarLayout, CONFIG_SPACE_SIZE, ConfigError, FunctionConfig, Layout, MAX_DEVICE_CONFIG,
    MAX_QUEUES, MAX_WRITE, Register, Retention, SharedMemoryRegion, VirtioPciFunction,
};

use crate::common::{config, running};

fn dump(machine: &mut Machine) -> Vec<u8> {
    let mut bytes = vec![0; CONFIG_SPACE_SIZE];
    let effects = machine.function.read_config(0, &mut bytes);
    machine.carry_out(effects);
    bytes
}

fn refused(change: impl FnOnce(&mut FunctionConfig)) -> ConfigError {
    let mut config = config(retention(false));
    change(&mut config);
    VirtioPciFunction::new(config)
        .map(drop)
        .expect_err("refused")
}

fn region(id: u8, offset: u64, length: u64) -> SharedMemoryRegion {
    SharedMemoryRegion { id, offset, length }
}

#[test]
fn a_function_shows_the_ids_of_its_device_type() {
    let (mut machine, _) = running(config(retention(false)));
    assert_eq!(machine.config_u16(0), 0x1af4);
    assert_eq!(machine.config_u16(2), 0x1050);
    assert_eq!(machine.config_u32(8), 0x0380_0001);
    assert_eq!(machine.config_u32(0x2c), 0x1100_1af4);
    assert_eq!(machine.config_u16(pci::INTERRUPT_PIN.into()), 1);
}

/// The whole range below 0x40 is the legacy interface's: UEFI's driver for modern devices leaves such a function alone.
#[test]
fn a_subsystem_id_of_the_legacy_interface_is_refused() {
    for id in [0, 1, 16, 0x3f] {
        assert_eq!(
            refused(|config| config.identity.subsystem_id = id),
            ConfigError::SubsystemId { id }
        );
    }
    let mut config = config(retention(false));
    config.identity.subsystem_id = 0x40;
    VirtioPciFunction::new(config).expect("the lowest of a modern device");
}

#[test]
fn every_structure_lies_inside_its_bar_and_is_aligned() {
    let (mut machine, mut driver) = running(config(retention(false)));
    let masks = driver.size_bars(&mut machine);
    assert_eq!(
        masks,
        [0xffff_c004, u32::MAX, 0xfff0_000c, u32::MAX, 0xffff_e000, 0]
    );
    for kind in [1, 2, 3, 4, 8] {
        let structure = driver.capabilities().structure(kind).expect("a structure");
        let size = machine.function.bars().size(structure.bar);
        let end = u64::from(structure.offset) + u64::from(structure.length);
        assert!(end <= size, "{structure:?}");
        assert!(structure.offset.is_multiple_of(4));
        assert_eq!(structure.capability % 4, 0);
    }
}

#[test]
fn cap_len_covers_what_follows_the_generic_part() {
    let (mut machine, driver) = running(config(retention(false)));
    let bytes = dump(&mut machine);
    for structure in &driver.capabilities().structures {
        let length = bytes[usize::from(structure.capability) + 2];
        let expected = match structure.cap_type {
            cap_type::NOTIFY_CFG | cap_type::PCI_CFG => 20,
            cap_type::SHARED_MEMORY_CFG => 24,
            _ => 16,
        };
        assert_eq!(length, expected, "{structure:?}");
    }
    let notify = driver.capabilities().structure(cap_type::NOTIFY_CFG);
    let multiplier = usize::from(notify.expect("doorbells").capability) + 16;
    assert_eq!(bytes[multiplier..multiplier + 4], [4, 0, 0, 0]);
}

#[test]
fn two_regions_of_shared_memory_fit_with_everything_else() {
    let mut config = config(retention(true));
    config.shared_memory = vec![region(1, 0, 1 << 33), region(2, 1 << 33, 0x1000)];
    let (mut machine, driver) = running(config);
    let bytes = dump(&mut machine);
    let shared: Vec<_> = driver
        .capabilities()
        .structures
        .iter()
        .filter(|structure| structure.cap_type == cap_type::SHARED_MEMORY_CFG)
        .collect();
    assert_eq!(shared.len(), 2);
    let (first, second) = (
        usize::from(shared[0].capability),
        usize::from(shared[1].capability),
    );
    assert_eq!((bytes[first + 5], bytes[second + 5]), (1, 2));
    assert_eq!(bytes[first + 20..first + 24], [2, 0, 0, 0], "length_hi");
    assert_eq!(bytes[second + 16..second + 20], [2, 0, 0, 0], "offset_hi");
    assert_eq!(
        machine.function.bars().size(BarLayout::SHARED_MEMORY),
        1 << 34
    );
    let window = driver.capabilities().structure(cap_type::PCI_CFG);
    assert!(window.expect("a window").capability <= 256 - 20);
    assert_eq!(machine.function.bars().shared_memory().len(), 2);
}

#[test]
fn a_function_without_shared_memory_has_no_bar_for_it() {
    let mut config = config(retention(false));
    config.shared_memory.clear();
    let (mut machine, mut driver) = running(config);
    assert_eq!(machine.function.bars().size(BarLayout::SHARED_MEMORY), 0);
    assert_eq!(driver.size_bars(&mut machine)[2..4], [0, 0]);
    assert_eq!(machine.function.bars().size(1), 0);
}

#[test]
fn only_the_writable_bits_of_configuration_space_change() {
    let (mut machine, driver) = running(config(retention(false)));
    let before = dump(&mut machine);
    let window = driver.capabilities().structure(cap_type::PCI_CFG);
    let window = window.expect("a window").capability;
    let power = driver.capabilities().power_management.expect("PM");
    for offset in (0..window).filter(|&offset| offset != power + 4) {
        let at = usize::from(offset);
        machine.config_write(offset, &[!before[at]]);
        let changed = dump(&mut machine)[at] ^ before[at];
        let expected = match offset {
            4 => 0x47,
            5 => 0x05,
            0x0c | 0x3c => 0xff,
            0x10..=0x23 => changed,
            _ if Some(offset) == driver.capabilities().msix.map(|msix| msix + 3) => 0xc0,
            _ => 0,
        };
        assert_eq!(changed, expected, "{offset:#x}");
        machine.config_write(offset, &[before[at]]);
    }
}

#[test]
fn accesses_beyond_configuration_space_read_0_and_change_nothing() {
    let (mut machine, _) = running(config(retention(false)));
    let mut data = [0xaa; 8];
    let effects = machine.function.read_config(252, &mut data);
    machine.carry_out(effects);
    assert_eq!(data[4..], [0; 4]);
    let mut page = vec![0xaa; 4096];
    let effects = machine.function.read_config(0, &mut page);
    machine.carry_out(effects);
    assert!(page[256..].iter().all(|&byte| byte == 0));
    assert_eq!(page[..2], [0xf4, 0x1a]);
    let before = dump(&mut machine);
    machine.config_write(256, &[0xff; 4]);
    machine.config_write(u16::MAX, &[0xff; 4]);
    assert_eq!(dump(&mut machine), before);
}

#[test]
fn writes_longer_than_any_bus_makes_are_ignored_and_counted() {
    let (mut machine, _) = running(config(retention(false)));
    let before = machine.function.transport().counters().accesses_ignored;
    machine.config_write(4, &[0; MAX_WRITE + 1]);
    machine.write_bar(BarLayout::VIRTIO, 20, &[0; MAX_WRITE + 1]);
    let after = machine.function.transport().counters().accesses_ignored;
    assert_eq!(after - before, 2);
    assert_eq!(machine.function.transport().status().0, 0xf);
}

#[test]
fn accesses_that_reach_nothing_read_0_and_are_counted() {
    let (mut machine, _) = running(config(retention(false)));
    let before = machine.function.transport().counters().accesses_ignored;
    let mut data = [0xaa; 4];
    for (bar, offset) in [
        (BarLayout::VIRTIO, 0x4000),
        (BarLayout::VIRTIO, u64::MAX),
        (BarLayout::MSIX, 0x100),
        (BarLayout::MSIX, 0x2000),
        (BarLayout::MSIX, u64::MAX - 1),
        (BarLayout::SHARED_MEMORY, 0),
        (1, 0),
        (6, 0),
        (255, 0),
    ] {
        machine.read_bar(bar, offset, &mut data);
        assert_eq!(data, [0; 4], "{bar} {offset:#x}");
        machine.write_bar(bar, offset, &data);
    }
    machine.write_bar(BarLayout::VIRTIO, 0x1000, &[1]);
    let pending = machine.function.bars().pending_offset();
    machine.write_bar(BarLayout::MSIX, pending.into(), &[1]);
    let after = machine.function.transport().counters().accesses_ignored;
    assert_eq!(after - before, 20);
}

#[test]
fn in_d3hot_no_register_answers_and_none_is_written() {
    for reach in [Reach::Memory, Reach::Window] {
        let (mut machine, _) = running(config(retention(false)));
        let mut driver = Driver::probe(&mut machine, reach);
        driver.set_power_state(&mut machine, pci::PMCSR_POWER_STATE);
        assert_eq!(driver.status(&mut machine), 0xff, "{reach:?}");
        driver.write(&mut machine, Register::DeviceStatus, 0);
        driver.set_power_state(&mut machine, 0);
        assert_eq!(driver.status(&mut machine), 0xf, "{reach:?}");
    }
}

#[test]
fn d1_and_d2_are_not_entered() {
    let (mut machine, mut driver) = running(config(retention(true)));
    let at = driver.capabilities().power_management.expect("PM") + 4;
    for state in [1, 2] {
        driver.set_power_state(&mut machine, state);
        assert_eq!(machine.config_u16(at), pci::PMCSR_NO_SOFT_RESET);
    }
    driver.set_power_state(&mut machine, 3);
    driver.set_power_state(&mut machine, 1);
    assert_eq!(machine.config_u16(at) & 3, 3);
}

#[test]
fn the_power_management_capability_says_what_was_asked_for_and_claims_no_pme() {
    for (no_soft_reset, bit) in [(false, 0), (true, pci::PMCSR_NO_SOFT_RESET)] {
        let (mut machine, driver) = running(config(retention(no_soft_reset)));
        let at = driver.capabilities().power_management.expect("PM");
        assert_eq!(
            machine.config_u16(at + 2),
            3,
            "version 3, no PME, no D1, no D2"
        );
        assert_eq!(machine.config_u16(at + 4), bit);
        machine.config_write(at + 4, &[0, 0xff]);
        assert_eq!(machine.config_u16(at + 4), bit);
    }
    let mut config = config(retention(true));
    config.power_management = false;
    let (_, driver) = running(config);
    assert_eq!(driver.capabilities().power_management, None);
}

#[test]
fn the_window_does_nothing_with_a_bad_length_or_a_misaligned_offset() {
    let (mut machine, mut driver) = running(config(retention(false)));
    let at = driver.capabilities().structure(cap_type::PCI_CFG);
    let at = at.expect("a window").capability;
    for (offset, length) in [(20u32, 3u32), (21, 2), (20, 0), (20, 8), (20, u32::MAX)] {
        machine.config_write(at + 8, &offset.to_le_bytes());
        machine.config_write(at + 12, &length.to_le_bytes());
        machine.config_write(at + 16, &[0; 4]);
        assert_eq!(driver.status(&mut machine), 0xf, "{offset} {length}");
        assert_eq!(machine.config_u32(at + 16), 0, "{offset} {length}");
    }
}

#[test]
fn the_window_writes_only_once_all_its_bytes_are_there() {
    let (mut machine, mut driver) = running(config(retention(false)));
    let at = driver.capabilities().structure(cap_type::PCI_CFG);
    let at = at.expect("a window").capability;
    machine.config_write(at + 8, &22u32.to_le_bytes());
    machine.config_write(at + 12, &2u32.to_le_bytes());
    machine.config_write(at + 16, &[1]);
    machine.config_write(at + 17, &[1]);
    assert_eq!(
        driver.read(&mut machine, Register::QueueSelect),
        1,
        "the last queue set up"
    );
    machine.config_write(at + 16, &[7, 0, 0, 0]);
    assert_eq!(driver.read(&mut machine, Register::QueueSelect), 7);
    assert_eq!(machine.config_u16(at + 16), 7, "and reads it back");
    machine.config_write(at + 14, &[0, 0, 9, 0]);
    assert_eq!(
        driver.read(&mut machine, Register::QueueSelect),
        9,
        "straddling"
    );
}

/// Points the window at shared memory, and returns where its data are.
fn open_window(machine: &mut Machine, driver: &Driver, offset: u32, length: u32) -> u16 {
    let at = driver.capabilities().structure(cap_type::PCI_CFG);
    let at = at.expect("a window").capability;
    machine.config_write(at + 4, &[BarLayout::SHARED_MEMORY]);
    machine.config_write(at + 8, &offset.to_le_bytes());
    machine.config_write(at + 12, &length.to_le_bytes());
    at + 16
}

#[test]
fn the_window_reaches_shared_memory_by_way_of_the_vmm() {
    let (mut machine, driver) = running(config(retention(false)));
    for length in [1u16, 2, 4] {
        let at = open_window(&mut machine, &driver, 0x1230, length.into());
        let width = usize::from(length);
        let function = &machine.function;
        let asked = function.shared_memory_read(at, 4).expect("a read");
        assert_eq!((asked.offset, asked.what), (0x1230, width));
        // Any access that touches the data, from either side, and no other one.
        assert!(function.shared_memory_read(0, 256).is_some());
        assert!(function.shared_memory_read(at + 3, 1).is_some());
        assert_eq!(function.shared_memory_read(at - 4, 4), None);
        let mut data = [0xaa; 4];
        let found = [1, 2, 3, 4];
        let effects = machine
            .function
            .read_config_with(at, &mut data, &found[..width]);
        machine.carry_out(effects);
        assert_eq!(data[..width], found[..width]);
        assert_eq!(
            data[width..],
            [0; 4][width..],
            "what is behind it is not shown"
        );

        let bytes = [9, 8, 7, 6];
        machine.config_write(at, &bytes);
        let write = machine.function.shared_memory_write(at, &bytes);
        let write = write.expect("a write");
        assert_eq!(write.offset, 0x1230);
        assert_eq!(write.what[..], bytes[..width]);
        if length > 1 {
            machine.config_write(at, &[5]);
            let write = machine.function.shared_memory_write(at, &[5]);
            assert_eq!(write, None, "not all its bytes");
        }
    }
}

#[test]
fn the_window_does_not_reach_shared_memory_that_is_not_there_or_sleeps() {
    let none = |machine: &Machine, at| {
        assert_eq!(machine.function.shared_memory_read(at, 4), None);
        assert_eq!(machine.function.shared_memory_write(at, &[0; 4]), None);
    };
    let (mut machine, mut driver) = running(config(retention(false)));
    let size = machine.function.bars().size(BarLayout::SHARED_MEMORY);
    let behind = u32::try_from(size).expect("a small region");
    for (offset, length) in [(behind, 4), (u32::MAX - 3, 4), (2, 4), (0, 3)] {
        let at = open_window(&mut machine, &driver, offset, length);
        none(&machine, at);
        assert_eq!(machine.config_u32(at), 0);
    }
    let at = open_window(&mut machine, &driver, 0, 4);
    machine.config_write(at, &[0; MAX_WRITE + 1]);
    let long = machine
        .function
        .shared_memory_write(at, &[0; MAX_WRITE + 1]);
    assert_eq!(long, None);
    driver.set_power_state(&mut machine, pci::PMCSR_POWER_STATE);
    none(&machine, at);
    assert_eq!(machine.config_u32(at), u32::MAX);

    let mut without = config(retention(false));
    without.shared_memory.clear();
    let (mut machine, driver) = running(without);
    let at = open_window(&mut machine, &driver, 0, 4);
    none(&machine, at);
    assert_eq!(machine.config_u32(at), 0);
}

#[test]
fn the_msix_table_is_plain_memory_and_the_pending_bits_are_read_only() {
    let (mut machine, driver) = running(config(retention(false)));
    machine.write_bar(BarLayout::MSIX, 16, &[1, 2, 3, 4, 5, 6, 7, 8]);
    let mut data = [0; 12];
    machine.read_bar(BarLayout::MSIX, 14, &mut data);
    assert_eq!(data, [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 1, 0]);
    machine.function_reset();
    machine.read_bar(BarLayout::MSIX, 16, &mut data);
    assert_eq!(data, [0; 12]);
    let control = driver.capabilities().msix.expect("MSI-X") + 2;
    assert_eq!(machine.config_u16(control), 2, "disabled, three vectors");
}

#[test]
fn what_cannot_exist_is_refused_with_the_numbers() {
    let count = MAX_QUEUES + 1;
    assert_eq!(
        refused(|c| c.transport.queue_sizes = vec![2; count]),
        ConfigError::TooManyQueues { count }
    );
    for size in [0, 3, 0x8001] {
        assert_eq!(
            refused(|c| c.transport.queue_sizes = vec![2, size]),
            ConfigError::QueueSize { index: 1, size }
        );
    }
    for bit in [
        feature::VIRTIO_F_NOTIF_CONFIG_DATA,
        feature::VIRTIO_F_RING_RESET,
        feature::VIRTIO_F_ADMIN_VQ,
    ] {
        let features = feature::mask(bit);
        let layout = Layout::Seed;
        assert_eq!(
            refused(|c| c.transport.device_features |= features),
            ConfigError::FeaturesOverlapLayout { features, layout }
        );
    }
    assert_eq!(
        refused(|c| c.transport.retention = Retention::Off),
        ConfigError::LayoutWithoutRetention {
            layout: Layout::Seed
        }
    );
    assert_eq!(
        refused(|c| c.transport.device_config = vec![0; MAX_DEVICE_CONFIG + 1]),
        ConfigError::DeviceConfigTooLong {
            length: MAX_DEVICE_CONFIG + 1,
            limit: MAX_DEVICE_CONFIG
        }
    );
    assert_eq!(
        refused(|c| c.transport.feature_dependencies = vec![(1, 9)]),
        ConfigError::MissingDependency {
            bit: 1,
            requires: 9
        }
    );
    assert_eq!(
        refused(|c| {
            c.transport.layout = Layout::None;
            c.transport.device_features |= feature::mask(feature::VIRTIO_F_ADMIN_VQ);
            c.transport.queue_sizes.clear();
        }),
        ConfigError::NoAdminQueue
    );
    for count in [0, pci::MSIX_MAX_VECTORS + 1] {
        assert_eq!(
            refused(|c| c.transport.vectors = count),
            ConfigError::Vectors { count }
        );
    }
}

#[test]
fn shared_memory_that_cannot_exist_is_refused_by_name() {
    for (regions, id, reason) in [
        (
            vec![region(1, 0, 1), region(2, 1, 1), region(3, 2, 1)],
            3,
            "its capability has no room",
        ),
        (vec![region(4, 0, 0)], 4, "it is empty"),
        (vec![region(5, u64::MAX, 1)], 5, "it ends beyond 64 TiB"),
        (vec![region(6, 1 << 46, 1)], 6, "it ends beyond 64 TiB"),
        (
            vec![region(7, 0, 1), region(7, 1, 1)],
            7,
            "the id is used twice",
        ),
    ] {
        let error = refused(|c| c.shared_memory = regions);
        assert_eq!(error, ConfigError::SharedMemory { id, reason });
    }
}

#[test]
#[cfg_attr(miri, ignore = "minutes, for the code of a small function")]
fn the_largest_function_is_accepted() {
    let mut transport = transport_config(Layout::Tail, retention(true));
    transport.queue_sizes = vec![32768; MAX_QUEUES];
    transport.vectors = pci::MSIX_MAX_VECTORS;
    transport.device_config = vec![1; MAX_DEVICE_CONFIG];
    let mut config = function_config(transport);
    config.shared_memory = vec![region(1, 0, 1 << 46)];
    let mut machine = Machine::new(config);
    let mut driver = Driver::probe(&mut machine, Reach::Memory);
    driver.bind(&mut machine);
    assert_eq!(
        machine.function.transport().active_queues().count(),
        MAX_QUEUES
    );
    let size = machine.function.bars().size(BarLayout::MSIX);
    let pending = u64::from(machine.function.bars().pending_offset());
    assert!(pending >= 2048 * 16 && size >= pending + 2048 / 8);
    assert_eq!(machine.function.bars().vectors(), 2048);
}
