// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! VMMs come and go, some of them badly.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use virtio_gpu_worker::Controlled;

use host_util::socket::{SocketError, listen};
use tempfile::TempDir;
use virtio_pci_freeze::spec::{DeviceStatus, pci};

use crate::vmm::{Server, Vmm, wait_until};

#[test]
fn a_vmm_finds_a_virtio_gpu() {
    let server = Server::start();
    let mut vmm = Vmm::connect(&server.socket());
    let mut id = [0; 4];
    vmm.read_config(pci::VENDOR_ID.into(), &mut id);
    assert_eq!(id, [0xf4, 0x1a, 0x50, 0x10]);
    assert_eq!(
        vmm.client.region(0).unwrap().size,
        server.device.bar_size(0)
    );
}

#[test]
fn a_second_vmm_finds_the_device_as_new() {
    let server = Server::start();
    let mut first = Vmm::connect(&server.socket());
    first.start_driver();
    drop(first);
    let mut second = Vmm::connect(&server.socket());
    assert_eq!(second.status(), DeviceStatus(0));
    let counters = server.device.status().unwrap().counters.transport;
    assert_eq!(counters.full_resets, 1);
    second.start_driver();
}

#[test]
fn a_vmm_that_breaks_off_in_a_message_costs_only_its_connection() {
    let server = Server::start();
    let header_of_region_write = [0u8, 0, 10, 0, 200, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let version_shorter_than_itself =
        [0u8, 0, 1, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    let unknown_command = [0u8, 0, 99, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for message in [
        &header_of_region_write[..],
        &header_of_region_write[..7],
        &version_shorter_than_itself,
        &unknown_command,
    ] {
        let mut stream = UnixStream::connect(server.socket()).unwrap();
        stream.write_all(message).unwrap();
        drop(stream);
        let mut vmm = Vmm::connect(&server.socket());
        vmm.start_driver();
    }
}

#[test]
fn guest_memory_that_was_taken_away_is_not_touched() {
    let server = Server::start();
    let mut vmm = Vmm::connect(&server.socket());
    vmm.start_driver();
    vmm.command(0, &get_display_info(), 408);
    let used = vmm.used(0);
    vmm.unmap();
    vmm.publish(0, 2);
    vmm.ring(0);
    let needs_reset = DeviceStatus::DEVICE_NEEDS_RESET;
    wait_until("the device to ask for a reset", || {
        vmm.status().contains(needs_reset)
    });
    assert_eq!(vmm.used(0), used);
    vmm.map();
    vmm.start_driver();
    assert_eq!(vmm.command(0, &get_display_info(), 408)[..2], [0x01, 0x11]);
}

#[test]
fn a_socket_in_use_is_refused_and_one_left_behind_is_taken() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("socket");
    let (listener, _) = listen(&path).unwrap();
    let error = listen(&path).unwrap_err();
    assert!(matches!(error, SocketError::InUse { path: named } if named == path));
    drop(listener);
    let (listener, _) = listen(&path).unwrap();
    drop(listener);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    let error = listen(&path).unwrap_err();
    assert!(matches!(error, SocketError::NotASocket { .. }));
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

fn get_display_info() -> [u8; 24] {
    let mut request = [0; 24];
    request[1] = 1;
    request
}
