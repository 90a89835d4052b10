// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Fences and their timelines.

use virtio_gpu_s3::protocol::feature;
use virtio_gpu_s3::{Activation, ResetKind, Timeline, Token};
use virtio_gpu_s3_testing::{Answer, GpuDriver, WithFence, request};

use super::{OK, PARAMETER, RESOURCE_ID, WHOLE, fill, with_texture};

fn ring(id: u64, ring_idx: u8) -> WithFence {
    WithFence {
        id,
        ctx_id: 1,
        ring_idx: Some(ring_idx),
    }
}

fn completed(driver: &mut GpuDriver) -> Vec<(Token, Answer)> {
    let done = driver.gpu().take_completed();
    done.map(|done| (done.token, Answer::parse(done.response.bytes())))
        .collect()
}

#[test]
fn a_ring_fence_completes_and_echoes_its_numbers() {
    // vhost-device-gpu 0.2.0 advertises CONTEXT_INIT and never completes one.
    let (mut driver, _, _, _) = with_texture();
    for ring_idx in [0, 1, 63] {
        let fence = ring(0xffff_ffff_0000_0001, ring_idx);
        let token = driver.fenced(fence, fill(10, 1)).unwrap_err();
        let done = completed(&mut driver);
        assert_eq!(done.len(), 1);
        assert_eq!(done[0].0, token);
        let header = done[0].1.header;
        assert_eq!(done[0].1.type_(), OK);
        assert_eq!(header.flags.get(), 3);
        assert_eq!(header.fence_id.get(), 0xffff_ffff_0000_0001);
        assert_eq!((header.ctx_id.get(), header.ring_idx), (1, ring_idx));
    }
    let answer = driver.fenced(ring(1, 64), fill(10, 1)).unwrap();
    assert_eq!(answer.type_(), PARAMETER);
}

#[test]
fn fences_wait_for_the_renderer_and_keep_the_order_of_their_timeline() {
    let (mut driver, control, _, _) = with_texture();
    control.hold_fences(true);
    let global = |id| WithFence {
        id,
        ctx_id: 1,
        ring_idx: None,
    };
    let first = driver.fenced(global(1), fill(10, 1)).unwrap_err();
    // Done at once, but Linux would take its answer as the end of fence 1.
    let flush = request::resource_flush(10, WHOLE);
    let second = driver.fenced(global(2), flush.clone()).unwrap_err();
    // An error must not overtake either.
    let third = driver
        .fenced(global(3), request::resource_unref(99))
        .unwrap_err();
    // Another timeline does not wait, nor does what has no fence.
    assert_eq!(
        driver.fenced(ring(9, 2), flush.clone()).unwrap().type_(),
        OK
    );
    assert_eq!(driver.control(flush).type_(), OK);
    assert_eq!(completed(&mut driver), []);
    assert_eq!(driver.gpu().status().pending_fences, 3);
    let outstanding = driver.quiesce().unwrap_err();
    assert_eq!(outstanding.fences, 3);
    assert_eq!(outstanding.timelines, [(Timeline::Global, 3)]);
    control.hold_fences(false);
    let done = completed(&mut driver);
    let tokens: Vec<_> = done.iter().map(|done| done.0).collect();
    assert_eq!(tokens, [first, second, third]);
    assert_eq!(done[2].1.type_(), RESOURCE_ID);
    driver.quiesce().unwrap();
}

#[test]
fn a_destroyed_context_answers_everything_on_its_rings() {
    let (mut driver, control, _, _) = with_texture();
    control.hold_fences(true);
    let on_ring = driver.fenced(ring(1, 1), fill(10, 1)).unwrap_err();
    assert_eq!(driver.in_context(1, request::ctx_destroy()), OK);
    let done = completed(&mut driver);
    assert_eq!(done.len(), 1);
    assert_eq!(done[0].0, on_ring);
    // The renderer's late signal means nothing any more.
    control.hold_fences(false);
    assert_eq!(completed(&mut driver), []);
    driver.quiesce().unwrap();
}

#[test]
fn tokens_outstanding_at_a_reset_are_void_and_counted() {
    let (mut driver, control, _, _) = with_texture();
    control.hold_fences(true);
    driver.fenced(ring(1, 1), fill(10, 1)).unwrap_err();
    driver.gpu().reset(ResetKind::Frozen);
    assert_eq!(driver.gpu().status().counters.abandoned_fences, 1);
    control.hold_fences(false);
    assert_eq!(completed(&mut driver), []);
}

#[test]
fn context_init_needs_its_feature() {
    let (mut driver, _, _) = GpuDriver::rendering(32, 16);
    driver.gpu().activate(feature::VIRGL, Activation::Fresh);
    assert_eq!(driver.in_context(1, request::ctx_create(2)), PARAMETER);
    assert_eq!(driver.in_context(1, request::ctx_create(0)), OK);
    // So do rings: without them the fence is on the global timeline, and says so.
    let token = driver
        .fenced(ring(9, 3), request::submit_3d(&[0]))
        .unwrap_err();
    let done = completed(&mut driver);
    assert_eq!(done[0].0, token);
    assert_eq!(done[0].1.header.flags.get(), 1);
    assert_eq!(done[0].1.header.ring_idx, 0);
}
