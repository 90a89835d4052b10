// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the GPU's thread does while nothing is asked of it, and how it is asked again.

use std::fs;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use rustix::thread::gettid;
use virtio_gpu_in_process::{GpuStart, GpuThread};
use virtio_gpu_s3_testing::request;
use virtio_gpu_worker::GpuOption;
use virtio_pci_freeze::ActivationKind;

use crate::vmm::{Gpu, Vmm, new_memory, wait_until};

/// Longer than a worker that found nothing stays awake, on a machine that does other things too.
const REST: Duration = Duration::from_millis(50);

/// A VMM with a driver, and the number of the GPU's thread.
fn observed() -> (Vmm, i32) {
    let (tell, told) = channel();
    let spawn = |gpu: GpuThread| {
        thread::Builder::new().name("gpu".into()).spawn(move || {
            tell.send(gettid()).unwrap();
            gpu.run();
        })
    };
    let option: GpuOption = "width=64,height=48".parse().unwrap();
    let gpu = Gpu::start(&option, GpuStart::default(), spawn).unwrap();
    let mut vmm = Vmm::with_gpu(gpu, new_memory());
    vmm.start_driver();
    (vmm, told.recv().unwrap().as_raw_nonzero().get())
}

/// Time that a thread of this process has run.
fn ran(thread: i32) -> Duration {
    let path = format!("/proc/self/task/{thread}/schedstat");
    let text = fs::read_to_string(path).unwrap();
    let (nanoseconds, _) = text.split_once(' ').unwrap();
    Duration::from_nanos(nanoseconds.parse().unwrap())
}

/// Has the thread used to much work, so that it would stay awake for more.
fn keep_busy(vmm: &mut Vmm) {
    for _ in 0..200 {
        let before = vmm.used(0);
        vmm.offer_question();
        vmm.ring(0);
        while vmm.used(0) == before {
            thread::yield_now();
        }
    }
}

fn assert_rests(thread: i32) {
    thread::sleep(REST);
    let before = ran(thread);
    thread::sleep(REST * 6);
    let used = ran(thread) - before;
    assert!(used < REST * 6 / 1000, "{used:?}");
}

#[test]
fn a_gpu_of_an_idle_guest_uses_no_processor_whether_awake_or_asleep() {
    let (mut vmm, thread) = observed();
    keep_busy(&mut vmm);
    assert_rests(thread);
    keep_busy(&mut vmm);
    assert!(vmm.gpu.freeze());
    let positions = vmm.gpu.reset_frozen().unwrap();
    assert_rests(thread);
    vmm.activate(ActivationKind::Reinstated, positions);
    vmm.command(0, &request::get_display_info());
    assert_rests(thread);
}

#[test]
fn a_worker_that_has_gone_to_sleep_asks_to_be_rung_for_the_next_buffer() {
    let (mut vmm, _) = observed();
    for _ in 0..3 {
        keep_busy(&mut vmm);
        wait_until("the wish for a doorbell", || {
            vmm.avail_event(0) == vmm.used(0)
        });
    }
}

#[test]
fn a_buffer_that_follows_at_once_is_taken_without_a_doorbell() {
    let (mut vmm, _) = observed();
    // A busy machine may let the worker fall asleep, but not every time.
    let served = (0..1000).any(|_| {
        keep_busy(&mut vmm);
        let before = vmm.used(0);
        vmm.offer_question();
        thread::sleep(Duration::from_millis(2));
        let served = vmm.used(0) != before;
        vmm.ring(0);
        wait_until("an answer", || vmm.used(0) != before);
        served
    });
    assert!(served);
}
