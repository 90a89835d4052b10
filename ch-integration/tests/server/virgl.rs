// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! 3D through a ring.

use virtio_gpu_s3::protocol::ResponseType;
use virtio_gpu_s3_testing::{request, scene};
use virtio_gpu_worker::Controlled;
use virtio_pci_freeze::Register;
use virtio_pci_freeze::spec::pci;
use vm_memory::{Bytes, GuestAddress};

use crate::vmm::{RAM_BASE, Server, Vmm, wait_until};

/// Behind the rings and buffers.
const BACKING: u64 = RAM_BASE + 0x4_0000;

/// `CLEAR` of every colour buffer, of which blue is `blue`.
pub(crate) fn clear(blue: f32) -> Vec<u8> {
    request::submit_3d(&scene::clear(blue))
}

pub(crate) fn send(vmm: &mut Vmm, request: &[u8]) -> ResponseType {
    let answer = vmm.command(0, request, 24);
    let (type_, _) = answer.split_first_chunk().unwrap();
    ResponseType(u32::from_le_bytes(*type_))
}

/// What the texture holds, through guest memory: all of one blue.
pub(crate) fn blue(vmm: &mut Vmm) -> u8 {
    assert_eq!(send(vmm, &scene::read_back()), ResponseType::OK_NODATA);
    let mut bytes = vec![0; scene::BYTES as usize];
    vmm.memory
        .read_slice(&mut bytes, GuestAddress(BACKING))
        .unwrap();
    scene::blue_of(&bytes)
}

/// A context with a surface to draw to, on memory of the guest.
pub(crate) fn make_target(vmm: &mut Vmm) {
    for request in scene::make_target(BACKING) {
        assert_eq!(send(vmm, &request), ResponseType::OK_NODATA);
    }
}

#[test]
fn a_3d_context_draws_over_a_sleep_and_a_remapping_of_memory() {
    let server = Server::start_with("backend=virgl");
    let mut vmm = Vmm::connect(&server.socket());
    vmm.connect_irqs();
    vmm.start_driver();
    make_target(&mut vmm);
    let answer = send(&mut vmm, &request::fenced(1, 2, clear(0.2)));
    assert_eq!(answer, ResponseType::OK_NODATA);
    assert_eq!(blue(&mut vmm), 51);

    // A freeze waits for the renderer, and what was taken is answered before it is acknowledged.
    let before = vmm.used(0);
    let taken = || server.device.status().unwrap().counters.commands;
    let taken_before = taken();
    vmm.offer(
        0,
        &request::fenced(1, 3, clear(0.4)),
        (RAM_BASE + 0x1_8000, 24),
    );
    wait_until("the request to be taken", || taken() > taken_before);
    vmm.write(Register::FreezeMode, 3);
    wait_until("the freeze", || vmm.read(Register::FreezeMode) == 3);
    assert_eq!(vmm.used(0), before.wrapping_add(1));
    vmm.client.reset().unwrap();
    vmm.write_config(pci::COMMAND.into(), &[6, 0]);
    vmm.reset_driver();
    vmm.negotiate();
    vmm.write(Register::DeviceStatus, 0xf);
    vmm.write(Register::FreezeMode, 0);
    assert_eq!(blue(&mut vmm), 102);
    let answer = send(&mut vmm, &request::fenced(1, 4, clear(0.6)));
    assert_eq!(answer, ResponseType::OK_NODATA);
    assert_eq!(blue(&mut vmm), 153);

    // The renderer kept host addresses: they go with the mapping, and come back with it.
    vmm.unmap();
    vmm.map();
    let answer = send(&mut vmm, &request::fenced(1, 5, clear(0.8)));
    assert_eq!(answer, ResponseType::OK_NODATA);
    assert_eq!(blue(&mut vmm), 204);

    // With its VMM a guest's objects end, and the renderer is there for the next one.
    drop(vmm);
    wait_until("the end of the guest", || {
        server.device.status().unwrap().resources == 0
    });
    let mut vmm = Vmm::connect(&server.socket());
    vmm.start_driver();
    make_target(&mut vmm);
    let answer = send(&mut vmm, &request::fenced(1, 6, clear(1.0)));
    assert_eq!(answer, ResponseType::OK_NODATA);
    assert_eq!(blue(&mut vmm), 255);
}
