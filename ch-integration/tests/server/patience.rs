// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! VMMs that wait for a device whose renderer does not answer.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use virtio_gpu_s3::protocol::ResponseType;
use virtio_gpu_s3_testing::request;
use virtio_gpu_s3_testing::scene;
use virtio_gpu_worker::{Controlled, VMM_PATIENCE};
use virtio_pci_freeze::spec::{DeviceStatus, pci};

use crate::crash::{Patient, WHOLE, connect, connect_and_show, draw};
use crate::virgl::{blue, make_target, send};
use crate::vmm::{RAM_BASE, Vmm, wait_until};

/// What QEMU gives up after, which is what counts. A busy machine adds to what is waited for.
const QEMU_LIMIT: Duration = Duration::from_secs(5);
const ANSWER: u64 = RAM_BASE + 0x1_8000;

fn set_bus_master(vmm: &mut Vmm, on: bool) -> Duration {
    let start = Instant::now();
    vmm.write_config(pci::COMMAND.into(), &[if on { 6 } else { 2 }, 0]);
    start.elapsed()
}

/// The renderer stands still, and the worker waits for it.
fn stop_within_a_command(patient: &Patient, vmm: &mut Vmm) {
    kill_process(patient.renderer(), Signal::STOP).unwrap();
    let create = request::in_context(2, request::ctx_create(2));
    vmm.offer(0, &create, (ANSWER, 24));
    thread::sleep(Duration::from_millis(100));
}

/// A guest that falls asleep with a picture that nobody has read yet.
#[test]
fn a_sleep_waits_for_the_picture_no_longer_than_its_vmm_may_and_the_guest_goes_on_after_it() {
    let patient = Patient::start(|_| {});
    let mut vmm = connect_and_show(&patient);
    let renderer = patient.renderer();
    kill_process(renderer, Signal::STOP).unwrap();
    let waited = set_bus_master(&mut vmm, false);
    assert!(waited >= VMM_PATIENCE && waited < QEMU_LIMIT, "{waited:?}");
    kill_process(renderer, Signal::CONT).unwrap();
    set_bus_master(&mut vmm, true);
    assert_eq!(blue(&mut vmm), 51);
    let needs_reset = DeviceStatus(DeviceStatus::DEVICE_NEEDS_RESET);
    assert!(!vmm.status().contains(needs_reset.0));
    // Only the picture was given up, until the guest flushes again.
    let flush = request::resource_flush(scene::ID, WHOLE);
    assert_eq!(send(&mut vmm, &flush), ResponseType::OK_NODATA);
    let image = patient.server.device.screenshot(0, false).unwrap().image;
    assert!(image.pixels.chunks(4).all(|pixel| pixel == [0, 0, 51, 255]));
}

/// The worker is in the midst of a command, and may write its answer: nothing else than the end of the wait will do.
#[test]
fn a_renderer_that_a_sleep_would_wait_for_is_ended_and_the_guest_is_told() {
    let patient = Patient::start(|_| {});
    let mut vmm = connect(&patient);
    make_target(&mut vmm);
    stop_within_a_command(&patient, &mut vmm);
    let waited = set_bus_master(&mut vmm, false);
    assert!(
        waited >= VMM_PATIENCE / 2 && waited < QEMU_LIMIT,
        "{waited:?}"
    );
    let reason = patient.crashed();
    assert!(reason.contains("a VMM waited for it"), "{reason}");
    set_bus_master(&mut vmm, true);
    wait_until("the call for a reset", || {
        vmm.status().contains(DeviceStatus::DEVICE_NEEDS_RESET)
    });
    vmm.start_driver();
    make_target(&mut vmm);
    draw(&mut vmm, 0.2, 51);
}

#[test]
fn a_renderer_that_a_reset_would_wait_for_is_ended() {
    let patient = Patient::start(|_| {});
    let mut vmm = connect(&patient);
    make_target(&mut vmm);
    stop_within_a_command(&patient, &mut vmm);
    let start = Instant::now();
    vmm.client.reset().unwrap();
    let waited = start.elapsed();
    assert!(
        waited >= VMM_PATIENCE / 2 && waited < QEMU_LIMIT,
        "{waited:?}"
    );
    let reason = patient.crashed();
    assert!(reason.contains("a VMM waited for it"), "{reason}");
}
