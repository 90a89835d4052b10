// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Queue registers, per-queue reset and doorbells.

use virtio_pci_freeze::spec::{DeviceStatus, feature};
use virtio_pci_freeze::test_utils::{
    Driver, Machine, Reach, function_config, retention, transport_config,
};
use virtio_pci_freeze::{BarLayout, Effect, Layout, Register, RingPosition};

use crate::common::{config, running};

fn machine(features: &[u32]) -> (Machine, Driver) {
    let mut transport = transport_config(Layout::None, retention(false));
    for &bit in features {
        transport.device_features |= feature::mask(bit);
    }
    let mut machine = Machine::new(function_config(transport));
    let driver = Driver::probe(&mut machine, Reach::Memory);
    (machine, driver)
}

fn negotiated(features: &[u32]) -> (Machine, Driver) {
    let (mut machine, mut driver) = machine(features);
    driver.reset(&mut machine);
    driver.negotiate(&mut machine);
    (machine, driver)
}

fn is_enabled(machine: &mut Machine, driver: &mut Driver, queue: u64) -> bool {
    driver.write(machine, Register::QueueSelect, queue);
    driver.read(machine, Register::QueueEnable) == 1
}

#[test]
fn a_queue_that_does_not_exist_reads_size_0_and_takes_nothing() {
    let (mut machine, mut driver) = negotiated(&[feature::VIRTIO_F_RING_RESET]);
    for select in [2, 3, 0x100, 0xffff] {
        driver.write(&mut machine, Register::QueueSelect, select);
        for (register, value) in [
            (Register::QueueSize, 16),
            (Register::QueueMsixVector, 1),
            (Register::QueueDesc, 0x1000),
            (Register::QueueEnable, 1),
            (Register::QueueReset, 1),
        ] {
            driver.write(&mut machine, register, value);
            let empty = if register == Register::QueueMsixVector {
                0xffff
            } else {
                0
            };
            assert_eq!(driver.read(&mut machine, register), empty, "{register:?}");
        }
        assert_eq!(driver.read(&mut machine, Register::QueueNotifyOff), 0);
        assert_eq!(driver.read(&mut machine, Register::QueueNotifConfigData), 0);
        assert_eq!(driver.read(&mut machine, Register::QueueSelect), select);
    }
}

#[test]
fn a_size_must_be_a_power_of_2_no_larger_than_offered() {
    let (mut machine, mut driver) = negotiated(&[]);
    for (asked, shown) in [
        (0, 64),
        (3, 64),
        (65, 64),
        (128, 64),
        (32, 32),
        (1, 1),
        (64, 64),
    ] {
        driver.write(&mut machine, Register::QueueSize, asked);
        let size = driver.read(&mut machine, Register::QueueSize);
        assert_eq!(size, shown, "{asked}");
    }
}

#[test]
fn a_packed_queue_may_have_any_size_but_0() {
    let (mut machine, mut driver) = negotiated(&[feature::VIRTIO_F_RING_PACKED]);
    for (asked, shown) in [(0, 64), (3, 3), (65, 3), (48, 48)] {
        driver.write(&mut machine, Register::QueueSize, asked);
        let size = driver.read(&mut machine, Register::QueueSize);
        assert_eq!(size, shown, "{asked}");
    }
    driver.write(&mut machine, Register::QueueDriver, 2);
    driver.write(&mut machine, Register::QueueEnable, 1);
    assert!(!is_enabled(&mut machine, &mut driver, 0), "misaligned by 2");
    driver.write(&mut machine, Register::QueueDriver, 4);
    driver.write(&mut machine, Register::QueueEnable, 1);
    assert!(is_enabled(&mut machine, &mut driver, 0));
}

#[test]
fn queue_registers_are_closed_before_features_ok_and_after_driver_ok() {
    let (mut machine, mut driver) = machine(&[]);
    driver.reset(&mut machine);
    driver.set_status(
        &mut machine,
        DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER,
    );
    driver.write(&mut machine, Register::QueueDesc, 0x1000);
    driver.write(&mut machine, Register::QueueEnable, 1);
    assert_eq!(driver.read(&mut machine, Register::QueueDesc), 0);
    assert!(!is_enabled(&mut machine, &mut driver, 0));
    driver.bind(&mut machine);
    let address = driver.read(&mut machine, Register::QueueDesc);
    driver.write(&mut machine, Register::QueueDesc, 0x1000);
    assert_eq!(driver.read(&mut machine, Register::QueueDesc), address);
}

#[test]
fn an_enabled_queue_is_not_changed_and_not_disabled_by_writing_0() {
    let (mut machine, mut driver) = negotiated(&[]);
    driver.set_up_queues(&mut machine);
    driver.write(&mut machine, Register::QueueSelect, 0);
    driver.write(&mut machine, Register::QueueSize, 2);
    assert_eq!(driver.read(&mut machine, Register::QueueSize), 64);
    driver.write(&mut machine, Register::QueueEnable, 0);
    assert!(is_enabled(&mut machine, &mut driver, 0));
    for other in [2, 0x101, 0xffff] {
        driver.write(&mut machine, Register::QueueSelect, 1);
        driver.write(&mut machine, Register::QueueEnable, other);
    }
    assert!(is_enabled(&mut machine, &mut driver, 1));
}

#[test]
fn a_misaligned_queue_stays_disabled() {
    for (register, bad) in [
        (Register::QueueDesc, 8),
        (Register::QueueDriver, 1),
        (Register::QueueDevice, 2),
    ] {
        let (mut machine, mut driver) = negotiated(&[]);
        driver.write(&mut machine, register, bad);
        driver.write(&mut machine, Register::QueueEnable, 1);
        assert!(!is_enabled(&mut machine, &mut driver, 0), "{register:?}");
    }
}

#[test]
fn a_doorbell_reaches_the_queue_it_is_written_to_with_what_is_written() {
    let (mut machine, driver) = running(config(retention(false)));
    let notify = driver.capabilities().structure(2).expect("doorbells");
    for (data, value) in [(&[7u8, 0][..], 7), (&[1, 0, 5, 0], 0x5_0001), (&[9], 9)] {
        machine.write_bar(notify.bar, u64::from(notify.offset) + 4, data);
        let expected = Effect::Notify {
            queue: 1,
            data: value,
        };
        assert_eq!(machine.take_log(), [expected]);
    }
}

#[test]
fn doorbells_of_no_queue_are_ignored_and_counted() {
    let (mut machine, driver) = running(config(retention(false)));
    let notify = driver.capabilities().structure(2).expect("doorbells");
    for offset in [1, 2, 8, 0xffc] {
        machine.write_bar(notify.bar, u64::from(notify.offset) + offset, &[0, 0]);
        assert_eq!(machine.take_log(), [], "{offset}");
    }
    assert_eq!(
        machine
            .function
            .transport()
            .counters()
            .notifications_ignored,
        4
    );
    let mut byte = [0xaa];
    machine.read_bar(notify.bar, notify.offset.into(), &mut byte);
    assert_eq!(byte, [0], "a doorbell reads as 0");
}

#[test]
fn a_doorbell_before_driver_ok_starts_nothing() {
    let (mut machine, mut driver) = negotiated(&[]);
    driver.set_up_queues(&mut machine);
    machine.take_log();
    driver.notify(&mut machine, 0);
    assert_eq!(machine.take_log(), []);
}

#[test]
fn one_queue_is_reset_and_set_up_again_while_the_other_runs() {
    let (mut machine, mut driver) = negotiated(&[feature::VIRTIO_F_RING_RESET]);
    driver.set_up_queues(&mut machine);
    driver.set_status(&mut machine, DeviceStatus::DRIVER_OK);
    machine.device.answers = false;
    machine.take_log();
    driver.write(&mut machine, Register::QueueSelect, 1);
    assert_eq!(driver.read(&mut machine, Register::QueueReset), 0);
    driver.write(&mut machine, Register::QueueReset, 1);
    assert_eq!(machine.take_log(), [Effect::ResetQueue { queue: 1 }]);
    assert_eq!(
        driver.read(&mut machine, Register::QueueReset),
        1,
        "under way"
    );
    driver.notify(&mut machine, 1);
    driver.notify(&mut machine, 0);
    assert_eq!(machine.take_log(), [Effect::Notify { queue: 0, data: 0 }]);
    assert!(machine.answer_next());
    assert_eq!(driver.read(&mut machine, Register::QueueReset), 0);
    assert!(!is_enabled(&mut machine, &mut driver, 1));
    assert!(is_enabled(&mut machine, &mut driver, 0));
    driver.set_up_queue(&mut machine, 1);
    driver.write(&mut machine, Register::QueueEnable, 1);
    assert_eq!(machine.take_log(), [Effect::StartQueue { queue: 1 }]);
    assert_eq!(driver.read(&mut machine, Register::QueueReset), 0);
}

#[test]
fn a_queue_is_reset_before_driver_ok_without_the_devices_help() {
    let (mut machine, mut driver) = negotiated(&[feature::VIRTIO_F_RING_RESET]);
    driver.set_up_queues(&mut machine);
    machine.take_log();
    driver.write(&mut machine, Register::QueueReset, 1);
    assert_eq!(machine.take_log(), []);
    assert!(!is_enabled(&mut machine, &mut driver, 1));
}

#[test]
fn queue_reset_without_the_feature_is_ignored() {
    let (mut machine, mut driver) = negotiated(&[]);
    driver.set_up_queues(&mut machine);
    driver.set_status(&mut machine, DeviceStatus::DRIVER_OK);
    machine.take_log();
    driver.write(&mut machine, Register::QueueReset, 1);
    assert_eq!(driver.read(&mut machine, Register::QueueReset), 0);
    assert_eq!(machine.take_log(), []);
}

#[test]
fn a_device_reset_ends_a_queue_reset() {
    let (mut machine, mut driver) = negotiated(&[feature::VIRTIO_F_RING_RESET]);
    driver.set_up_queues(&mut machine);
    driver.set_status(&mut machine, DeviceStatus::DRIVER_OK);
    machine.device.answers = false;
    driver.write(&mut machine, Register::QueueReset, 1);
    driver.reset(&mut machine);
    assert_eq!(driver.read(&mut machine, Register::QueueReset), 0);
    assert!(!is_enabled(&mut machine, &mut driver, 1));
}

#[test]
fn a_queue_under_reset_is_not_parked() {
    let (mut machine, mut driver) = negotiated(&[feature::VIRTIO_F_RING_RESET]);
    driver.set_up_queues(&mut machine);
    driver.set_status(&mut machine, DeviceStatus::DRIVER_OK);
    machine.device.answers = false;
    driver.write(&mut machine, Register::QueueReset, 1);
    machine.function.platform_sleep();
    driver.reset(&mut machine);
    let parked = machine.function.transport().parked_queues();
    let indices: Vec<_> = parked
        .expect("parked")
        .queues
        .iter()
        .map(|q| q.index)
        .collect();
    assert_eq!(indices, [0]);
}

#[test]
fn notification_data_and_configured_doorbell_values_come_through() {
    let (mut machine, mut driver) = negotiated(&[
        feature::VIRTIO_F_NOTIFICATION_DATA,
        feature::VIRTIO_F_NOTIF_CONFIG_DATA,
    ]);
    driver.set_up_queues(&mut machine);
    driver.set_status(&mut machine, DeviceStatus::DRIVER_OK);
    driver.write(&mut machine, Register::QueueSelect, 1);
    let value = driver.read(&mut machine, Register::QueueNotifConfigData);
    assert_eq!(value, 1);
    machine.take_log();
    let notify = driver.capabilities().structure(2).expect("doorbells");
    machine.write_bar(
        notify.bar,
        u64::from(notify.offset) + 4,
        &[1, 0, 0x34, 0x12],
    );
    let data = 0x1234_0001;
    assert_eq!(machine.take_log(), [Effect::Notify { queue: 1, data }]);
}

#[test]
fn the_last_queue_is_the_administration_queue_where_that_is_offered() {
    let (mut machine, mut driver) = negotiated(&[feature::VIRTIO_F_ADMIN_VQ]);
    assert_eq!(driver.read(&mut machine, Register::NumQueues), 1);
    assert_eq!(driver.read(&mut machine, Register::AdminQueueIndex), 1);
    assert_eq!(driver.read(&mut machine, Register::AdminQueueNum), 1);
    driver.set_up_queue(&mut machine, 1);
    driver.write(&mut machine, Register::QueueEnable, 1);
    assert!(is_enabled(&mut machine, &mut driver, 1));
    let (mut machine, mut driver) = negotiated(&[]);
    assert_eq!(driver.read(&mut machine, Register::NumQueues), 2);
    assert_eq!(driver.read(&mut machine, Register::AdminQueueNum), 0);
}

#[test]
#[cfg_attr(miri, ignore = "minutes, for the code of a small device")]
fn every_doorbell_of_the_largest_device_fits_its_structure() {
    let mut transport = transport_config(Layout::None, retention(false));
    transport.queue_sizes = vec![2; virtio_pci_freeze::MAX_QUEUES];
    let mut machine = Machine::new(function_config(transport));
    let mut driver = Driver::probe(&mut machine, Reach::Memory);
    driver.bind(&mut machine);
    let last = u16::try_from(virtio_pci_freeze::MAX_QUEUES - 1).expect("16 bits");
    machine.take_log();
    driver.notify(&mut machine, last);
    let data = last.into();
    assert_eq!(machine.take_log(), [Effect::Notify { queue: last, data }]);
    let notify = driver.capabilities().structure(2).expect("doorbells");
    assert!(notify.length >= u32::from(last) * 4 + 4);
    assert!(
        machine.function.bars().size(BarLayout::VIRTIO) >= u64::from(notify.offset + notify.length)
    );
}

#[test]
fn a_queue_that_was_reset_notifies_nobody() {
    let (mut machine, mut driver) = negotiated(&[feature::VIRTIO_F_RING_RESET]);
    driver.msix = false;
    let control = driver.capabilities().msix.expect("MSI-X") + 2;
    machine.config_write(control, &[0, 0]);
    driver.set_up_queues(&mut machine);
    driver.set_status(&mut machine, DeviceStatus::DRIVER_OK);
    driver.write(&mut machine, Register::QueueReset, 1);
    driver.read_isr(&mut machine);
    machine.use_buffers(1, 1);
    assert_eq!(driver.read_isr(&mut machine), 0);
    for register in [
        Register::QueueDesc,
        Register::QueueDriver,
        Register::QueueDevice,
    ] {
        assert_eq!(driver.read(&mut machine, register), 0);
    }
    assert_eq!(driver.read(&mut machine, Register::QueueSize), 16);
    driver.set_up_queue(&mut machine, 1);
    driver.write(&mut machine, Register::QueueEnable, 1);
    let queue = machine.function.transport().active_queues().nth(1);
    assert_eq!(queue.expect("a queue").position, RingPosition::default());
    machine.use_buffers(1, 1);
    assert_eq!(driver.read_isr(&mut machine), 1);
}

#[test]
fn a_queue_that_is_enabled_again_may_be_another_one() {
    let (mut machine, mut driver) = negotiated(&[feature::VIRTIO_F_RING_RESET]);
    driver.set_up_queues(&mut machine);
    driver.set_status(&mut machine, DeviceStatus::DRIVER_OK);
    driver.write(&mut machine, Register::QueueReset, 1);
    for (register, value) in [
        (Register::QueueSize, 4),
        (Register::QueueDesc, 0x7_0000),
        (Register::QueueDriver, 0x7_1000),
        (Register::QueueDevice, 0x7_2000),
        (Register::QueueMsixVector, 0),
        (Register::QueueEnable, 1),
    ] {
        driver.write(&mut machine, register, value);
    }
    let queue = machine.function.transport().active_queues().nth(1);
    let queue = queue.expect("a queue");
    assert_eq!((queue.size, queue.vector, queue.desc), (4, 0, 0x7_0000));
    assert_eq!((queue.driver, queue.device), (0x7_1000, 0x7_2000));
}

#[test]
fn only_1_enables_a_queue() {
    let (mut machine, mut driver) = negotiated(&[]);
    for value in [0, 2, 3, 0x100, 0x101, 0xffff] {
        driver.write(&mut machine, Register::QueueEnable, value);
        assert!(!is_enabled(&mut machine, &mut driver, 0), "{value:#x}");
    }
    driver.write(&mut machine, Register::QueueEnable, 1);
    assert!(is_enabled(&mut machine, &mut driver, 0));
}
