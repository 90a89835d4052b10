// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Rings, interrupts and sleeps of one guest.

use std::os::fd::AsRawFd;
use std::sync::mpsc::Receiver;
use std::time::Duration;
use virtio_gpu_worker::Controlled;

use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_DATA_EVENTFD, VFIO_PCI_MSIX_IRQ_INDEX,
};
use virtio_gpu_worker::{Event, EventKind, State};
use virtio_pci_freeze::spec::{DeviceStatus, pci};
use virtio_pci_freeze::{HoldReason, Register};

use crate::vmm::{RAM_BASE, Server, Vmm, memory_file, wait_until};

/// VIRTIO_GPU_CMD_GET_DISPLAY_INFO and the length of its answer (VIRTIO 1.4 §5.7.6.8).
const GET_DISPLAY_INFO: [u8; 24] = command(0x100);
const DISPLAY_INFO_LENGTH: u32 = 408;
const RESP_OK_DISPLAY_INFO: [u8; 4] = 0x1101u32.to_le_bytes();

const fn command(kind: u32) -> [u8; 24] {
    let mut request = [0; 24];
    let kind = kind.to_le_bytes();
    request[0] = kind[0];
    request[1] = kind[1];
    request
}

fn start() -> (Server, Vmm) {
    let server = Server::start();
    let mut vmm = Vmm::connect(&server.socket());
    vmm.connect_irqs();
    vmm.start_driver();
    (server, vmm)
}

fn display_info(vmm: &mut Vmm) -> Vec<u8> {
    vmm.command(0, &GET_DISPLAY_INFO, DISPLAY_INFO_LENGTH)
}

fn next(events: &Receiver<Event>) -> EventKind {
    events
        .recv_timeout(Duration::from_secs(10))
        .expect("an event")
        .kind
}

#[test]
fn a_command_is_answered_with_an_interrupt() {
    let (server, mut vmm) = start();
    let answer = display_info(&mut vmm);
    assert_eq!(answer[..4], RESP_OK_DISPLAY_INFO);
    assert_eq!(answer[32..40], [0, 5, 0, 0, 0x20, 3, 0, 0], "1280 x 800");
    wait_until("the interrupt", || vmm.irqs[1].read().is_ok());
    assert_eq!(server.device.status().unwrap().counters.commands, 1);
}

#[test]
fn the_cursor_queue_is_served_and_interrupts_on_its_own_vector() {
    let (_server, mut vmm) = start();
    let mut update = [0; 56];
    update[..2].copy_from_slice(&[0x00, 0x03]);
    let answer = vmm.command(1, &update, 24);
    assert_eq!(
        answer[..4],
        0x1100u32.to_le_bytes(),
        "hiding the cursor is fine"
    );
    wait_until("the interrupt", || vmm.irqs[2].read().is_ok());
    assert!(vmm.irqs[1].read().is_err());
}

/// VIRTIO 1.4 §4.1.5.4: no MSI-X, so the ISR tells, and reading it lets go of the line.
#[test]
fn a_guest_without_msix_is_interrupted_by_its_line_until_it_reads_why() {
    let server = Server::start();
    let mut vmm = Vmm::connect(&server.socket());
    let line = vmm.connect_line();
    vmm.start_driver();
    let mut pin = [0];
    vmm.read_config(pci::INTERRUPT_PIN.into(), &mut pin);
    assert_eq!(pin, [1], "INTA#");
    display_info(&mut vmm);
    wait_until("the line", || line.read().is_ok());
    assert!(vmm.asserts_line());
    // A level that was sent masks itself, and is there again when it is unmasked too early.
    vmm.unmask_line();
    wait_until("the line", || line.read().is_ok());
    assert_eq!(vmm.read_isr(), 1);
    assert!(!vmm.asserts_line());
    vmm.unmask_line();
    assert_eq!(vmm.read_isr(), 0);
    assert!(line.read().is_err(), "nothing is left to tell");
}

#[test]
fn a_line_is_silent_in_a_sleep_and_with_the_mask_and_tells_after_them() {
    let server = Server::start();
    let mut vmm = Vmm::connect(&server.socket());
    let line = vmm.connect_line();
    vmm.start_driver();
    vmm.write_config(pci::COMMAND.into(), &[6, 4]);
    display_info(&mut vmm);
    assert!(vmm.asserts_line(), "Interrupt Status says what is masked");
    assert!(line.read().is_err(), "Interrupt Disable");
    vmm.write_config(pci::COMMAND.into(), &[6, 0]);
    wait_until("the line", || line.read().is_ok());
    // PMCSR is the second word of the first capability.
    vmm.write_config(u64::from(pci::FIRST_CAPABILITY) + 4, &[3, 0]);
    vmm.unmask_line();
    assert!(!vmm.asserts_line());
    assert!(line.read().is_err(), "D3hot");
    vmm.write_config(u64::from(pci::FIRST_CAPABILITY) + 4, &[0, 0]);
    wait_until("the line", || line.read().is_ok());
    assert_eq!(vmm.read_isr(), 1);
}

/// Trap 2 of the design notes, and trap 4: a vector with a count of 1 and no eventfd.
#[test]
fn an_interrupt_without_an_eventfd_waits_for_one() {
    let (_server, mut vmm) = start();
    let flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
    vmm.client
        .set_irqs(VFIO_PCI_MSIX_IRQ_INDEX, flags, 0, 0, &[])
        .unwrap();
    vmm.client
        .set_irqs(VFIO_PCI_MSIX_IRQ_INDEX, flags, 0, 1, &[])
        .unwrap();
    display_info(&mut vmm);
    assert!(vmm.irqs[1].read().is_err());
    vmm.connect_irqs();
    wait_until("the interrupt", || vmm.irqs[1].read().is_ok());
}

#[test]
fn a_ring_that_makes_no_sense_asks_for_a_reset_and_a_reset_cures_it() {
    let (server, mut vmm) = start();
    let events = server.device.subscribe();
    vmm.publish(0, 999);
    vmm.ring(0);
    assert!(
        matches!(next(&events), EventKind::NeedsReset { reason } if reason.starts_with("queue 0"))
    );
    assert!(vmm.status().contains(DeviceStatus::DEVICE_NEEDS_RESET));
    let state = || server.device.status().map(|status| status.state);
    assert_eq!(state(), Ok(State::NeedsReset));
    vmm.start_driver();
    assert_eq!(state(), Ok(State::Running));
    assert_eq!(display_info(&mut vmm)[..4], RESP_OK_DISPLAY_INFO);
}

#[test]
fn a_buffer_outside_guest_memory_is_used_with_nothing_written_and_counted() {
    let (server, mut vmm) = start();
    for address in [
        0,
        RAM_BASE - 4,
        RAM_BASE + (1 << 20) - 4,
        u64::MAX - 3,
        0xfebf_0000,
    ] {
        let before = vmm.used(0);
        vmm.offer(0, &GET_DISPLAY_INFO, (address, DISPLAY_INFO_LENGTH));
        wait_until("the buffer to be used", || vmm.used(0) != before);
    }
    assert_eq!(server.device.status().unwrap().counters.bad_chains, 5);
    assert_eq!(display_info(&mut vmm)[..4], RESP_OK_DISPLAY_INFO);
}

#[test]
fn memory_past_the_end_of_its_file_is_not_taken() {
    const ADDRESS: u64 = RAM_BASE + (1 << 20);
    const SIZE: u64 = 2 << 20;
    let (server, mut vmm) = start();
    let short = memory_file(SIZE / 2);
    let fd = short.as_raw_fd();
    vmm.client.dma_map(0, ADDRESS, SIZE, fd).unwrap();
    let before = vmm.used(0);
    let past_the_end = (ADDRESS + SIZE - 4096, DISPLAY_INFO_LENGTH);
    vmm.offer(0, &GET_DISPLAY_INFO, past_the_end);
    wait_until("the buffer to be used", || vmm.used(0) != before);
    assert_eq!(server.device.status().unwrap().counters.bad_chains, 1);
    assert_eq!(display_info(&mut vmm)[..4], RESP_OK_DISPLAY_INFO);
}

#[test]
fn a_doorbell_before_driver_ok_or_of_no_queue_does_nothing() {
    let server = Server::start();
    let mut vmm = Vmm::connect(&server.socket());
    vmm.reset_driver();
    vmm.ring(0);
    vmm.ring(900);
    vmm.start_driver();
    let counters = server.device.status().unwrap().counters;
    assert_eq!(
        (counters.commands, counters.transport.notifications_ignored),
        (0, 2)
    );
}

/// A whole sleep on the reset path, as the events tell it: Linux 6.1's register sequence.
#[test]
fn a_sleep_is_told_from_beginning_to_end() {
    let (server, mut vmm) = start();
    display_info(&mut vmm);
    let events = server.device.subscribe();
    let command = u64::from(pci::COMMAND);
    vmm.write_config(command, &[2, 0]);
    assert!(
        matches!(next(&events), EventKind::Sleep { holds, .. } if holds == [HoldReason::BusMasterOff])
    );
    vmm.publish(0, 2);
    vmm.ring(0);
    vmm.client.reset().unwrap();
    assert!(matches!(
        next(&events),
        EventKind::FrozenReset {
            parked_queues: 2,
            ..
        }
    ));
    vmm.write_config(command, &[6, 0]);
    vmm.reset_driver();
    vmm.negotiate();
    vmm.write(Register::DeviceStatus, 0xf);
    let mut kinds = [next(&events), next(&events)];
    kinds.sort_by_key(|kind| matches!(kind, EventKind::Wake { .. }));
    assert!(matches!(
        kinds,
        [
            EventKind::Reinstated { queues: 2, .. },
            EventKind::Wake { .. }
        ]
    ));
    wait_until("the buffer whose doorbell was lost", || vmm.used(0) == 2);
    let counters = server.device.status().unwrap().counters.transport;
    assert_eq!((counters.frozen_resets, counters.reinstatements), (1, 1));
}

#[test]
fn a_reboot_under_a_hold_is_told_by_the_sizing_of_bars() {
    let (server, mut vmm) = start();
    vmm.write(Register::FreezeMode, 3);
    wait_until("the freeze", || vmm.read(Register::FreezeMode) == 3);
    vmm.client.reset().unwrap();
    vmm.write_config(pci::BAR0.into(), &[0xff; 4]);
    wait_until("the full reset", || {
        server
            .device
            .status()
            .unwrap()
            .counters
            .transport
            .full_resets
            == 1
    });
    assert_eq!(vmm.read(Register::FreezeMode), 0);
    vmm.write_config(pci::COMMAND.into(), &[6, 0]);
    vmm.start_driver();
    assert_eq!(display_info(&mut vmm)[..4], RESP_OK_DISPLAY_INFO);
}

/// Trap 1 of the design notes: a doorbell that rings while the function may not touch memory.
#[test]
fn a_doorbell_lost_while_bus_mastering_was_off_is_made_up_for() {
    let (server, mut vmm) = start();
    display_info(&mut vmm);
    vmm.write_config(pci::COMMAND.into(), &[2, 0]);
    vmm.publish(0, 2);
    vmm.ring(0);
    let counters = server.device.status().unwrap().counters;
    assert_eq!(
        (counters.commands, counters.transport.notifications_ignored),
        (1, 1)
    );
    vmm.write_config(pci::COMMAND.into(), &[6, 0]);
    wait_until("the buffer to be used", || vmm.used(0) == 2);
    wait_until("its interrupt", || vmm.irqs[1].read().is_ok());
}

/// Linux's virtio-gpu bound again to a device that virtio-pci kept: it looks for shared memory in mid-negotiation.
#[test]
fn a_driver_bound_anew_meets_nothing_of_the_one_before_and_works() {
    let (server, mut vmm) = start();
    let mut create = [0; 40];
    create[..2].copy_from_slice(&[0x01, 0x01]);
    for (at, value) in [(24, 7u32), (28, 1), (32, 64), (36, 64)] {
        create[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    assert_eq!(vmm.command(0, &create, 24)[..4], 0x1100u32.to_le_bytes());
    vmm.reset_driver();
    assert_eq!(server.device.status().unwrap().resources, 1);
    vmm.negotiate();
    vmm.read_config(0, &mut [0; 256]);
    assert_eq!(vmm.status(), DeviceStatus(0xb));
    wait_until("the resource to go", || {
        server.device.status().unwrap().resources == 0
    });
    vmm.start_driver();
    assert_eq!(vmm.command(0, &create, 24)[..4], 0x1100u32.to_le_bytes());
}
