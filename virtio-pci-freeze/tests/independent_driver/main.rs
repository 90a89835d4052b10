// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A driver that others wrote, `virtio-drivers`, on the model: discovery, negotiation, queues, resets and sleeps.
//!
//! The driver is used as it is. Its loads and stores reach the model through faults, which is why this runs on x86-64
//! Linux only.

#![cfg(all(target_os = "linux", target_arch = "x86_64", not(miri)))]

mod hal;
mod host;
mod trap;

use virtio_drivers::device::rng::VirtIORng;
use virtio_drivers::transport::pci::bus::{
    BarInfo, Command, DeviceFunction, MemoryBarType, PciRoot,
};
use virtio_drivers::transport::pci::{PciTransport, virtio_device_type};
use virtio_drivers::transport::{DeviceType, InterruptStatus};
use virtio_pci_freeze::test_utils::{Machine, function_config, retention, transport_config};
use virtio_pci_freeze::{BarLayout, Layout};

use crate::hal::{Bus, TestHal, memory};
use crate::host::{ENTROPY, Host};
use crate::trap::{install, with_host};

type Rng = VirtIORng<TestHal, PciTransport>;

const FUNCTION: DeviceFunction = DeviceFunction {
    bus: 0,
    device: 0,
    function: 0,
};

fn start() -> PciRoot<Bus> {
    let mut transport = transport_config(Layout::Seed, retention(false));
    transport.device_features = 0x3000_0000;
    transport.feature_dependencies.clear();
    transport.queue_sizes = vec![8];
    let mut config = function_config(transport);
    config.identity.device_type = 4;
    let bar = install(Host::new(Machine::new(config), memory().clone()));
    let mut root = PciRoot::new(Bus);
    root.set_bar_64(FUNCTION, BarLayout::VIRTIO, bar);
    root.set_command(FUNCTION, Command::MEMORY_SPACE | Command::BUS_MASTER);
    root
}

fn transport(root: &mut PciRoot<Bus>) -> PciTransport {
    PciTransport::new::<TestHal, Bus>(root, FUNCTION).expect("a transport")
}

fn get_entropy(rng: &mut Rng) {
    for length in [1, 16, 4096, 10_000] {
        let mut bytes = vec![0; length];
        assert_eq!(rng.request_entropy(&mut bytes), Ok(length));
        assert!(bytes.iter().all(|&byte| byte == ENTROPY));
    }
}

fn discover(root: &mut PciRoot<Bus>) {
    let found: Vec<_> = root.enumerate_bus(0).collect();
    assert_eq!(found.len(), 1);
    assert_eq!(
        virtio_device_type(&found[0].1),
        Some(DeviceType::EntropySource)
    );
    let bar = |root: &mut PciRoot<Bus>, index| root.bar_info(FUNCTION, index).expect("a BAR");
    let virtio = bar(root, BarLayout::VIRTIO);
    assert!(matches!(
        virtio,
        Some(BarInfo::Memory {
            address_type: MemoryBarType::Width64,
            prefetchable: false,
            size: 0x4000,
            ..
        })
    ));
    assert!(matches!(
        bar(root, BarLayout::MSIX),
        Some(BarInfo::Memory {
            address_type: MemoryBarType::Width32,
            size: 0x2000,
            ..
        })
    ));
    let capabilities: Vec<_> = root.capabilities(FUNCTION).map(|c| c.id).collect();
    assert_eq!(capabilities, [1, 0x11, 9, 9, 9, 9, 9, 9]);
}

/// The process has one set of fault handlers, so the scenes follow each other in one test.
#[test]
fn virtio_drivers_finds_negotiates_works_resets_and_works_across_a_frozen_reset() {
    let mut root = start();
    discover(&mut root);

    let mut rng = Rng::new(transport(&mut root)).expect("a driver");
    get_entropy(&mut rng);
    assert!(rng.ack_interrupt() == InterruptStatus::QUEUE_INTERRUPT);
    with_host(|host| {
        let transport = host.machine.function.transport();
        assert_eq!(transport.negotiated_features(), 0x1_3000_0000);
        let queue = transport.active_queues().next().expect("a queue");
        assert!(host.is_memory(queue.desc) && host.is_memory(queue.device));
        host.machine.device.resources.insert(1);
    });

    // Dropping the transport resets the device and waits for status 0.
    drop(rng);
    with_host(|host| {
        assert_eq!(host.machine.function.transport().status().0, 0);
        assert!(host.machine.device.resources.is_empty());
    });

    let mut rng = Rng::new(transport(&mut root)).expect("the driver again");
    get_entropy(&mut rng);
    with_host(|host| {
        host.machine.device.resources.insert(2);
        host.machine.function.platform_sleep();
    });
    drop(rng);
    with_host(|host| {
        assert!(host.machine.device.resources.contains(&2), "retained");
        let parked = host.machine.function.transport().parked_queues();
        assert_eq!(parked.map(|parked| parked.queues.len()), Some(1));
        assert_eq!(
            host.machine.function.transport().counters().frozen_resets,
            1
        );
        host.machine.function.platform_wake();
    });

    let mut rng = Rng::new(transport(&mut root)).expect("the driver after the sleep");
    get_entropy(&mut rng);
    with_host(|host| {
        assert!(host.machine.device.resources.contains(&2));
        assert!(!host.machine.function.transport().is_held());
    });
}
