// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a reset keeps and what it ends.

use std::fs::{read_dir, read_to_string};

use virtio_gpu_s3::protocol::{CommandId, ResponseType};
use virtio_gpu_s3::{Activation, ResetKind};
use virtio_gpu_s3_testing::{GuestRam, Layout, WithFence, request};
use vm_memory::GuestMemoryMmap;

use super::scene::{Stream, TEXTURE, TO_HOST, create, frame, scene, target};
use super::{OK, UNSPEC, lab};

#[test]
fn what_was_made_before_sleep_draws_the_same_frame_after() {
    for how in [Activation::Reinstated, Activation::Retained] {
        let mut lab = lab();
        scene(&mut lab.driver);
        assert_eq!(lab.driver.in_context(1, frame()), OK);
        let before = lab.shown(10);
        let fence = WithFence {
            id: 1,
            ctx_id: 1,
            ring_idx: Some(0),
        };
        let mut dark = Stream::default();
        dark.clear([0.0; 4]);
        lab.driver.fenced(fence, dark.request()).unwrap_err();
        lab.completed(1);

        lab.driver.sleep_and_wake(how);
        // The screen is back before the guest does anything.
        assert_eq!(lab.driver.scanout_image(0, false).as_ref(), Some(&before));
        let status = lab.driver.gpu().status();
        assert_eq!((status.resources, status.contexts), (2, 1));
        // Nothing is made anew: sub-context, shaders, states, vertices and surface are there.
        assert_eq!(lab.driver.in_context(1, frame()), OK);
        assert_eq!(lab.driver.flush(10, super::WHOLE), OK);
        let after = lab.driver.scanout_image(0, false);
        assert_eq!(after, Some(before), "{how:?}");
        // The memory behind the vertices is still theirs.
        let vertices = super::scene::buffer(super::scene::BIND_VERTICES, 6 * 32);
        let to_host = request::transfer_3d(TO_HOST, 11, &request::whole(&vertices));
        assert_eq!(lab.driver.in_context(1, to_host), OK);
        assert_eq!(lab.host_errors(), 0);
    }
}

#[test]
fn sleep_waits_for_fences_and_says_which() {
    let mut lab = lab();
    scene(&mut lab.driver);
    let fence = WithFence {
        id: 1,
        ctx_id: 1,
        ring_idx: None,
    };
    for _ in 0..20 {
        lab.driver.fenced(fence, frame()).unwrap_err();
    }
    let outstanding = lab.driver.quiesce().unwrap_err();
    assert_eq!(outstanding.fences, 20);
    assert_eq!(lab.completed(20).len(), 20);
    assert_eq!(lab.driver.quiesce(), Ok(()));
}

#[test]
fn a_guest_that_rebooted_unseen_makes_the_same_ids_anew() {
    let mut lab = lab();
    scene(&mut lab.driver);
    assert_eq!(lab.driver.in_context(1, frame()), OK);
    let before = lab.shown(10);
    lab.driver.sleep_and_wake(Activation::Retained);
    lab.driver.ram.free_all();
    scene(&mut lab.driver);
    assert_eq!(lab.driver.in_context(1, frame()), OK);
    assert_eq!(lab.shown(10), before);
    assert_eq!(lab.host_errors(), 0);
}

#[test]
fn a_full_reset_ends_everything() {
    let mut lab = lab();
    scene(&mut lab.driver);
    lab.driver.gpu().reset(ResetKind::Full);
    lab.activate(Activation::Fresh);
    let status = lab.driver.gpu().status();
    assert_eq!((status.resources, status.contexts), (0, 0));
    let no_context = ResponseType::ERR_INVALID_CONTEXT_ID;
    assert_eq!(lab.driver.in_context(1, frame()), no_context);
}

/// Resident kibibytes and open files of this process.
fn held() -> (u64, usize) {
    let status = read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    (
        kib.parse().unwrap(),
        read_dir("/proc/self/fd").unwrap().count(),
    )
}

#[test]
fn a_thousand_full_resets_leave_a_renderer_that_draws_and_holds_no_more() {
    // CVE-2016-10163 and CVE-2016-10214 were leaks of this kind.
    let mut lab = lab();
    let mut at_first = (0, 0);
    for cycle in 0..1000 {
        target(&mut lab.driver);
        let mut stream = Stream::default();
        stream.clear([1.0, 1.0, 0.0, 1.0]);
        assert_eq!(lab.driver.in_context(1, stream.request()), OK);
        if cycle % 100 == 99 {
            let image = lab.shown(10);
            assert_eq!(image.pixels[..4], [255, 255, 0, 255]);
        }
        lab.driver.gpu().reset(ResetKind::Full);
        lab.activate(Activation::Fresh);
        lab.driver.ram.free_all();
        if cycle == 199 {
            at_first = held();
        }
    }
    let (kib, files) = held();
    assert_eq!(files, at_first.1);
    // 800 textures alone are 12 800 KiB.
    assert!(kib < at_first.0 + 6_000, "{} KiB, then {kib}", at_first.0);
    assert_eq!(lab.host_errors(), 0);
}

#[test]
fn memory_that_moved_is_read_where_it_is_now_and_memory_that_went_is_left_alone() {
    let mut lab = lab();
    let memory = target(&mut lab.driver);
    create(&mut lab.driver, 12, &TEXTURE, Layout::Contiguous);
    // The same guest memory at other host addresses, as after a VMM's remapping.
    let moved = GuestRam::new(16 << 20);
    moved.write(&memory, 0, &[0x77; 64 * 64 * 4]);
    lab.driver.gpu().memory_changed(moved.memory()).unwrap();
    lab.driver.transport.memory = moved.memory().clone();
    lab.driver.ram = moved;
    let to_host = request::transfer_3d(TO_HOST, 10, &request::whole(&TEXTURE));
    assert_eq!(lab.driver.in_context(1, to_host.clone()), OK);
    let image = lab.shown(10);
    assert!(image.pixels.chunks(4).all(|pixel| pixel[..3] == [0x77; 3]));
    // All of it is gone: every backing is, not only those before the first that failed.
    let gone = lab
        .driver
        .gpu()
        .memory_changed(&GuestMemoryMmap::<()>::new());
    assert!(gone.is_err());
    assert_eq!(lab.driver.in_context(1, to_host), UNSPEC);
    let from_host = request::transfer_3d(
        CommandId::TRANSFER_FROM_HOST_3D,
        12,
        &request::whole(&TEXTURE),
    );
    assert_eq!(lab.driver.in_context(1, from_host), UNSPEC);
}
