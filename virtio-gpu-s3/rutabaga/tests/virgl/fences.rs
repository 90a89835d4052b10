// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Fences of virglrenderer, signalled from its own thread.

use virtio_gpu_s3_testing::{Layout, WithFence, request};

use super::scene::{BIND_CUSTOM, Stream, buffer, command, create, frame, object, scene};
use super::{OK, lab};

#[test]
fn fences_on_every_timeline_complete_in_order_and_echo_their_numbers() {
    // vhost-device-gpu 0.2.0 completes none with a ring; rutabaga cuts numbers to 32 bits.
    let mut lab = lab();
    scene(&mut lab.driver);
    let high = 0xffff_ffff_0000_0000_u64;
    let mut sent = Vec::new();
    for round in 0..50 {
        for ring_idx in [None, Some(0), Some(63)] {
            let fence = WithFence {
                id: high + round,
                ctx_id: 1,
                ring_idx,
            };
            let token = lab.driver.fenced(fence, frame()).unwrap_err();
            sent.push((token, fence));
        }
    }
    let done = lab.completed(sent.len());
    assert_eq!(done.len(), sent.len());
    for ring_idx in [None, Some(0), Some(63)] {
        let on_it = sent.iter().filter(|(_, fence)| fence.ring_idx == ring_idx);
        let tokens: Vec<_> = on_it.clone().map(|(token, _)| *token).collect();
        let finished = done.iter().filter(|(token, _)| tokens.contains(token));
        let order: Vec<_> = finished.clone().map(|(token, _)| *token).collect();
        assert_eq!(order, tokens);
        for ((_, fence), (_, answer)) in on_it.zip(finished) {
            assert_eq!(answer.type_(), OK);
            assert_eq!(answer.header.fence_id.get(), fence.id);
            assert_eq!(answer.header.ctx_id.get(), 1);
            assert_eq!(answer.header.ring_idx, ring_idx.unwrap_or(0));
            let flags = if ring_idx.is_some() { 3 } else { 1 };
            assert_eq!(answer.header.flags.get(), flags);
        }
    }
    assert_eq!(lab.driver.quiesce(), Ok(()));
}

#[test]
fn a_fence_behind_a_query_completes_with_the_result_in_guest_memory() {
    // virglrenderer holds fences back until it is polled for results of queries.
    let mut lab = lab();
    let driver = &mut lab.driver;
    scene(driver);
    let result = buffer(BIND_CUSTOM, 4096);
    let memory = create(driver, 30, &result, Layout::Contiguous);
    driver.ram.write(&memory, 0, &[0; 16]);
    let mut stream = Stream::default();
    // An occlusion counter.
    stream
        .add(command::CREATE_OBJECT, object::QUERY, &[50, 0, 0, 30])
        .add(command::BEGIN_QUERY, 0, &[50])
        .draw(0, 6)
        .add(command::END_QUERY, 0, &[50])
        .add(command::GET_QUERY_RESULT, 0, &[50, 0]);
    let fence = WithFence {
        id: 1,
        ctx_id: 1,
        ring_idx: None,
    };
    let token = driver.fenced(fence, stream.request()).unwrap_err();
    assert_eq!(lab.completed(1)[0].0, token);
    // State (1 is done), size of the result, result.
    let bytes = lab.driver.ram.read(&memory, 0, 16);
    assert_eq!(bytes[..4], 1_u32.to_le_bytes());
    assert_ne!(bytes[8..], [0; 8], "the triangles have pixels");
}

#[test]
fn a_stream_that_names_fences_runs_after_them() {
    // rutabaga refuses such streams where virglrenderer's unstable interface is off.
    let mut lab = lab();
    scene(&mut lab.driver);
    let fence = |id, ring_idx| WithFence {
        id,
        ctx_id: 1,
        ring_idx,
    };
    let first = lab.driver.fenced(fence(1, Some(0)), frame()).unwrap_err();
    let mut naming = frame();
    naming[28..32].copy_from_slice(&1_u32.to_le_bytes());
    naming.splice(32..32, 1_u64.to_le_bytes());
    let second = lab.driver.fenced(fence(2, Some(1)), naming).unwrap_err();
    let tokens: Vec<_> = lab.completed(2).into_iter().map(|it| it.0).collect();
    assert_eq!(tokens, [first, second]);
}

#[test]
fn the_end_of_a_context_answers_its_fences() {
    let mut lab = lab();
    scene(&mut lab.driver);
    let fence = WithFence {
        id: 1,
        ctx_id: 1,
        ring_idx: Some(0),
    };
    let token = lab.driver.fenced(fence, frame()).unwrap_err();
    assert_eq!(lab.driver.in_context(1, request::ctx_destroy()), OK);
    assert_eq!(lab.completed(1)[0].0, token);
}

/// virglrenderer's own thread may be signalling one of them at that moment, or one of another context.
#[test]
fn contexts_end_while_fences_of_theirs_and_of_others_signal() {
    const ROUNDS: u64 = 100;
    let mut lab = lab();
    assert_eq!(lab.driver.in_context(1, request::ctx_create(2)), OK);
    for round in 0..ROUNDS {
        assert_eq!(lab.driver.in_context(2, request::ctx_create(2)), OK);
        let sent = [(1, None), (1, Some(0)), (2, Some(0))].map(|(ctx_id, ring_idx)| {
            let fence = WithFence {
                id: round,
                ctx_id,
                ring_idx,
            };
            let nothing = request::submit_3d(&[0]);
            lab.driver.fenced(fence, nothing).unwrap_err()
        });
        assert_eq!(lab.driver.in_context(2, request::ctx_destroy()), OK);
        let done: Vec<_> = lab.completed(3).into_iter().map(|it| it.0).collect();
        assert!(sent.iter().all(|token| done.contains(token)), "{round}");
    }
}
