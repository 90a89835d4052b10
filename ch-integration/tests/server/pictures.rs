// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is on the screen when the memory that it lies in is not the device's to read.

use virtio_gpu_s3::Rect;
use virtio_gpu_s3::protocol::{BLOB_MEM_GUEST, ResponseType};
use virtio_gpu_s3_testing::{GuestBuffer, request};
use virtio_gpu_worker::Controlled;
use virtio_pci_freeze::spec::pci;
use vm_memory::{Bytes, GuestAddress};

use crate::vmm::{RAM_BASE, Server, Vmm};

const BACKING: u64 = RAM_BASE + 0x4_0000;
const SIZE: u32 = 32;
const WHOLE: Rect = Rect::sized(SIZE, SIZE);
const RED: [u8; 4] = [0, 0, 255, 0];
const GREEN: [u8; 4] = [0, 255, 0, 0];

/// A guest whose screen is a blob of its own memory, red and flushed, and nobody looked.
fn start() -> (Server, Vmm) {
    let server = Server::start();
    let mut vmm = Vmm::connect(&server.socket());
    vmm.start_driver();
    paint(&vmm, RED);
    let bytes = SIZE * SIZE * 4;
    let backing = GuestBuffer::of(&[(BACKING, bytes)]);
    for request in [
        request::resource_create_blob(1, BLOB_MEM_GUEST, 0, bytes.into(), backing.entries()),
        request::set_scanout_blob(0, 1, WHOLE, &request::layout(SIZE, SIZE)),
        request::resource_flush(1, WHOLE),
    ] {
        let answer = vmm.command(0, &request, 24);
        assert_eq!(answer[..4], ResponseType::OK_NODATA.0.to_le_bytes());
    }
    (server, vmm)
}

fn paint(vmm: &Vmm, pixel: [u8; 4]) {
    let bytes = pixel.repeat((SIZE * SIZE) as usize);
    let written = vmm.memory.write_slice(&bytes, GuestAddress(BACKING));
    written.unwrap();
}

fn assert_red(server: &Server) {
    let image = server.device.screenshot(0, false).unwrap().image;
    assert!(
        image
            .pixels
            .chunks(4)
            .all(|pixel| pixel == [255, 0, 0, 255])
    );
}

#[test]
fn a_screen_in_guest_memory_is_read_when_bus_mastering_ends_and_not_after() {
    let (server, mut vmm) = start();
    vmm.write_config(pci::COMMAND.into(), &[2, 0]);
    paint(&vmm, GREEN);
    assert_red(&server);
}

#[test]
fn a_screen_in_guest_memory_outlives_the_memory_that_a_vmm_unmaps() {
    let (server, mut vmm) = start();
    vmm.unmap();
    assert_red(&server);
}
