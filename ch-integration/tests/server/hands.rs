// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guest memory that changes hands while the function may not touch it.

use std::io::Write;
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use virtio_gpu_s3::protocol::BLOB_MEM_GUEST;
use virtio_gpu_s3_testing::cross_domain::{CAPSET, init, poll, submit};
use virtio_gpu_s3_testing::{GuestBuffer, request};
use virtio_gpu_worker::{Controlled, State};
use virtio_pci_freeze::Register;
use virtio_pci_freeze::spec::{DeviceStatus, pci};

use crate::vmm::{RAM_BASE, Server, Vmm, wait_until};

/// Rings of a context, behind the queues and buffers.
const QUERY: u64 = RAM_BASE + 0x4_0000;
const CHANNEL: u64 = RAM_BASE + 0x5_0000;

/// VIRTIO_GPU_CMD_GET_DISPLAY_INFO and the length of its answer (VIRTIO 1.4 §5.7.6.8).
const GET_DISPLAY_INFO: [u8; 24] = {
    let mut request = [0; 24];
    request[1] = 1;
    request
};
const DISPLAY_INFO_LENGTH: u32 = 408;

fn drawing() -> (Server, Vmm) {
    let server = Server::start();
    let mut vmm = Vmm::connect(&server.socket());
    vmm.connect_irqs();
    vmm.start_driver();
    for _ in 0..3 {
        vmm.command(0, &GET_DISPLAY_INFO, DISPLAY_INFO_LENGTH);
    }
    (server, vmm)
}

fn bus_master(vmm: &mut Vmm, on: bool) {
    let command = if on { 6 } else { 2 };
    vmm.write_config(pci::COMMAND.into(), &[command, 0]);
}

/// What Linux 6.1 and 6.12 do when one kernel hands the machine over to the one that it loaded from the swap device: the first
/// takes BusMaster away, the second gives it back and resets the device, and neither sets a queue up.
#[test]
fn no_byte_is_written_to_memory_that_another_kernel_has_now() {
    let (server, mut vmm) = drawing();
    bus_master(&mut vmm, false);
    vmm.fill_memory(0x5a);
    bus_master(&mut vmm, true);
    wait_until("the doubt", || {
        vmm.status().contains(DeviceStatus::DEVICE_NEEDS_RESET)
    });
    vmm.ring(0);
    vmm.reset_driver();
    vmm.negotiate();
    vmm.write(Register::DeviceStatus, 0xf);
    for queue in 0..2 {
        vmm.ring(queue);
    }
    assert!(server.device.status().is_ok(), "the worker has looked");
    assert!(vmm.whole().iter().all(|byte| *byte == 0x5a));
    let counters = server.device.status().unwrap().counters;
    assert_eq!((counters.commands, counters.bad_chains), (3, 0));
    assert_eq!(counters.transport.reinstatements, 0);
    // A driver that sets its queues up has a device as new.
    vmm.start_driver();
    let answer = vmm.command(0, &GET_DISPLAY_INFO, DISPLAY_INFO_LENGTH);
    assert_eq!(answer[..2], [0x01, 0x11]);
    assert_eq!(server.device.status().unwrap().state, State::Running);
}

/// The pages of the kernel before are as they were where the one after it had none: in memory its rings are whole. What that
/// kernel does to a function that did not sleep tells, and the device asks for a reset until it has queues.
#[test]
fn a_kernel_that_takes_a_function_over_that_did_not_sleep_gets_no_rings_however_whole_they_are() {
    let (server, mut vmm) = drawing();
    let control = vmm.msix_control();
    bus_master(&mut vmm, false);
    for value in [0xc002_u16, 0x8002] {
        vmm.write_config(control, &value.to_le_bytes());
    }
    let memory = vmm.whole();
    bus_master(&mut vmm, true);
    assert!(vmm.status().contains(DeviceStatus::DEVICE_NEEDS_RESET));
    for _ in 0..2 {
        vmm.reset_driver();
        vmm.negotiate();
        vmm.write(Register::DeviceStatus, 0xf);
        vmm.ring(0);
        wait_until("the word that only queues cure", || {
            vmm.status().contains(DeviceStatus::DEVICE_NEEDS_RESET)
        });
        let state = server.device.status().unwrap().state;
        assert_eq!(state, State::NeedsReset);
    }
    assert!(vmm.whole() == memory, "guest memory was written");
    vmm.start_driver();
    let answer = vmm.command(0, &GET_DISPLAY_INFO, DISPLAY_INFO_LENGTH);
    assert_eq!(answer[..2], [0x01, 0x11]);
}

/// The same without any reset: D3hot, or BusMaster alone.
#[test]
fn a_pause_of_any_kind_is_followed_by_a_look_at_the_rings() {
    for place in [2, 4 + 8] {
        let (_server, mut vmm) = drawing();
        bus_master(&mut vmm, false);
        vmm.write_used(0, place, &[77]);
        bus_master(&mut vmm, true);
        wait_until("the doubt", || {
            vmm.status().contains(DeviceStatus::DEVICE_NEEDS_RESET)
        });
    }
    let (server, mut vmm) = drawing();
    for used in 4..20 {
        bus_master(&mut vmm, false);
        bus_master(&mut vmm, true);
        vmm.command(0, &GET_DISPLAY_INFO, DISPLAY_INFO_LENGTH);
        assert_eq!(vmm.used(0), used);
    }
    assert_eq!(server.device.status().unwrap().state, State::Running);
}

/// A proxy in the guest waits for the compositor at any time. What that says while the function may not write waits too.
#[test]
fn a_compositor_that_speaks_while_the_function_may_not_write_is_heard_afterwards() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("wayland-0");
    let listener = UnixListener::bind(&path).unwrap();
    let server = Server::start_with(&format!("wayland={},hostmem=16M", path.display()));
    let mut vmm = Vmm::connect(&server.socket());
    vmm.connect_irqs();
    vmm.start_driver();
    let must = |vmm: &mut Vmm, request: Vec<u8>| {
        let answer = vmm.command(0, &request::in_context(1, request), 24);
        assert_eq!(answer[..2], [0, 0x11]);
    };
    must(&mut vmm, request::ctx_create(CAPSET));
    for (id, at) in [(20, QUERY), (21, CHANNEL)] {
        let backing = GuestBuffer::of(&[(at, 4096)]);
        let create = request::resource_create_blob(id, BLOB_MEM_GUEST, 0, 4096, backing.entries());
        must(&mut vmm, create);
        must(&mut vmm, request::ctx_attach_resource(id));
    }
    must(&mut vmm, submit(&init(20, 21)));
    let (mut client, _) = listener.accept().unwrap();

    let commands = || server.device.status().unwrap().counters.commands;
    let (before, taken) = (vmm.used(0), commands());
    wait_for_message(&mut vmm);
    wait_until("the device to wait too", || commands() > taken);
    bus_master(&mut vmm, false);
    assert_eq!(vmm.used(0), before + 1, "it is told that nothing was said");
    assert_eq!(said(&vmm), "");
    let memory = vmm.whole();
    client.write_all(b"good morning").unwrap();
    thread::sleep(Duration::from_millis(100));
    assert!(vmm.whole() == memory, "guest memory was written");
    bus_master(&mut vmm, true);
    let before = vmm.used(0);
    wait_for_message(&mut vmm);
    wait_until("the message", || vmm.used(0) != before);
    assert_eq!(said(&vmm), "good morning");
}

/// POLL, whose fence is on the channel's ring.
fn wait_for_message(vmm: &mut Vmm) {
    let mut request = request::fenced(1, 1, submit(&poll()));
    // VIRTIO_GPU_FLAG_INFO_RING_IDX, and the ring.
    request[4] |= 2;
    request[20] = 1;
    vmm.offer(0, &request, (RAM_BASE + 0x1_9000, 24));
}

/// The message in the channel's ring.
fn said(vmm: &Vmm) -> String {
    let memory = vmm.whole();
    let ring = &memory[(CHANNEL - RAM_BASE) as usize..];
    let length = u32::from_le_bytes(ring[12..16].try_into().unwrap()) as usize;
    String::from_utf8_lossy(&ring[352..352 + length]).into()
}
