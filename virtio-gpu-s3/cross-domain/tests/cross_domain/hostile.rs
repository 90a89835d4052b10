// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What neither side may do to the device: streams that make no sense, and hosts that do not listen.

use std::os::fd::AsFd;

use proptest::prelude::*;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io;
use rustix::pipe::{PipeFlags, pipe_with};
use virtio_gpu_s3_testing::cross_domain::{
    BLOB, READ_PIPE, cmd, command, create_blob, send, submit, write,
};
use virtio_gpu_s3_testing::{WithFence, request};

use super::compositor::{Client, Compositor, memory};
use super::proxy::{Proxy, Said};
use super::{OK, OUT_OF_MEMORY, PARAMETER, RESOURCE_ID, UNSPEC, text};

/// That the channel does what it is for.
fn expect_alive(proxy: &mut Proxy, client: &Client) {
    assert_eq!(proxy.run(&send(b"ping", &[])), OK);
    client.expect(b"ping");
    client.send(b"pong", &[]);
    assert_eq!(proxy.hear(), text(b"pong"));
}

#[test]
fn a_stream_that_makes_no_sense_is_refused_whole_and_harms_nothing() {
    let compositor = Compositor::new();
    let mut proxy = Proxy::connected(compositor.path());
    let client = compositor.accept();
    let good = send(b"before", &[]);
    let mut no_size = command(cmd::POLL, &[0, 0], &[]);
    no_size[2] = 0;
    let mut long = command(cmd::POLL, &[0, 0], &[]);
    long[2] = 17;
    let mut too_many = send(b"x", &[]);
    too_many[8] = 29;
    let mut no_end = send(b"x", &[]);
    no_end[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut pipe_end = write(2, false, b"x");
    pipe_end[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
    for bad in [
        no_size,
        long,
        too_many,
        no_end,
        pipe_end,
        vec![cmd::POLL; 7],
        command(0, &[], &[]),
        command(cmd::RECEIVE, &[0; 80], &[]),
        command(cmd::READ, &[0; 8], &[]),
        command(8, &[0; 8], &[]),
        command(255, &[], &[]),
        command(cmd::INIT, &[20], &[]),
        command(cmd::INIT, &[20, 21, 1, 0], &[]),
        command(cmd::IMAGE, &[1, 1], &[]),
        command(cmd::SEND, &[0, 0], &[]),
        command(cmd::WRITE, &[1, 1], &[]),
    ] {
        assert_eq!(proxy.run(&[&good[..], &bad].concat()), PARAMETER, "{bad:?}");
    }
    // Nothing of them came.
    expect_alive(&mut proxy, &client);
}

#[test]
fn commands_on_what_is_not_there_are_refused_by_name() {
    let compositor = Compositor::new();
    let mut proxy = Proxy::connected(compositor.path());
    let client = compositor.accept();
    let (image, _, size) = proxy.image(64, 48, *b"XR24");
    for (stream, expected) in [
        (send(b"x", &[(99, BLOB)]), PARAMETER),
        // A ring is no memory of the host.
        (send(b"x", &[(20, BLOB)]), PARAMETER),
        (send(b"x", &[(0x8000_0002, READ_PIPE)]), PARAMETER),
        (send(b"x", &[(1, READ_PIPE)]), PARAMETER),
        (send(b"x", &[(1, 2)]), PARAMETER),
        (send(b"x", &[(1, u32::MAX)]), PARAMETER),
        (send(b"", &[(0x8000_0001, READ_PIPE)]), PARAMETER),
        (write(99, false, b"x"), PARAMETER),
        (command(cmd::IMAGE, &[0, 1, 0x3432_5258, 0], &[]), PARAMETER),
        (command(cmd::IMAGE, &[u32::MAX; 4], &[]), PARAMETER),
        // A second INIT, of any kind.
        (command(cmd::INIT, &[20, 21, 1], &[]), PARAMETER),
        (command(cmd::INIT, &[20, 0], &[]), PARAMETER),
    ] {
        assert_eq!(proxy.run(&stream), expected);
    }
    for (blob_id, size) in [
        (image, size + 4096),
        (image, 1),
        (0, 4096),
        (99, 4096),
        (1 << 31, 4096),
    ] {
        let create = create_blob(30, blob_id, size);
        assert_eq!(proxy.driver.in_context(1, create), PARAMETER);
    }
    let other = request::resource_create_blob(30, 3, 0, 4096, &[]);
    assert_eq!(proxy.driver.in_context(1, other), UNSPEC);
    expect_alive(&mut proxy, &client);
}

#[test]
fn a_channel_of_another_kind_or_with_no_ring_is_not_opened() {
    let compositor = Compositor::new();
    let mut proxy = Proxy::new(compositor.path());
    assert_eq!(proxy.driver.in_context(1, request::ctx_create(5)), OK);
    let ring = proxy.query.clone();
    for (id, backed) in [(20, true), (21, true), (22, false)] {
        let backing = backed.then_some(&ring);
        assert_eq!(proxy.driver.create_guest_blob(id, 4096, backing), OK);
    }
    let init = |query, channel, kind| command(cmd::INIT, &[query, channel, kind], &[]);
    // It exists, and is not the context's.
    assert_eq!(proxy.run(&init(20, 21, 1)), RESOURCE_ID);
    for id in [20, 21, 22] {
        proxy.driver.in_context(1, request::ctx_attach_resource(id));
    }
    assert_eq!(proxy.run(&init(20, 99, 1)), RESOURCE_ID);
    // One without memory.
    assert_eq!(proxy.run(&init(20, 22, 1)), RESOURCE_ID);
    for kind in [2, 16, 17, u32::MAX] {
        assert_eq!(proxy.run(&init(20, 21, kind)), PARAMETER, "{kind}");
    }
    for early in [
        send(b"x", &[]),
        command(cmd::IMAGE, &[1, 1, 0x3432_5258, 0], &[]),
    ] {
        assert_eq!(proxy.run(&early), PARAMETER);
    }
    assert_eq!(proxy.run(&init(20, 21, 1)), OK);
    expect_alive_on(&mut proxy, &compositor.accept());
}

fn expect_alive_on(proxy: &mut Proxy, client: &Client) {
    assert_eq!(proxy.run(&send(b"alive", &[])), OK);
    client.expect(b"alive");
}

#[test]
fn a_fence_on_a_ring_that_no_channel_has_is_an_error_at_once_and_nothing_is_said() {
    let compositor = Compositor::new();
    let mut proxy = Proxy::connected(compositor.path());
    let client = compositor.accept();
    for ring_idx in [2, 63] {
        let fence = WithFence {
            id: 1,
            ctx_id: 1,
            ring_idx: Some(ring_idx),
        };
        for stream in [command(cmd::POLL, &[0, 0], &[]), send(b"said", &[])] {
            let answer = proxy.driver.fenced(fence, submit(&stream));
            assert_eq!(answer.unwrap().type_(), UNSPEC);
        }
    }
    expect_alive(&mut proxy, &client);
}

#[test]
fn a_ring_that_the_guest_takes_away_keeps_the_message_for_the_next() {
    let compositor = Compositor::new();
    let mut proxy = Proxy::connected(compositor.path());
    let client = compositor.accept();
    let token = proxy.poll().unwrap_err();
    assert_eq!(proxy.driver.detach(21), OK);
    let before = proxy.driver.ram.read(&proxy.channel, 0, 4096);
    client.send(b"nowhere to go", &[]);
    proxy.expect_quiet();
    assert_eq!(proxy.driver.ram.read(&proxy.channel, 0, 4096), before);
    assert_eq!(proxy.driver.attach(21, &proxy.channel.clone()), OK);
    proxy.wait_for(token);
    assert_eq!(proxy.said(), text(b"nowhere to go"));
    let token = proxy.poll().unwrap_err();
    assert_eq!(proxy.driver.unref(21), OK);
    client.send(b"nowhere for ever", &[]);
    proxy.expect_quiet();
    assert_eq!(proxy.settle(), [token]);
}

#[test]
fn a_ring_that_leaves_its_context_and_comes_back_has_what_was_said_meanwhile() {
    let compositor = Compositor::new();
    let mut proxy = Proxy::connected(compositor.path());
    let client = compositor.accept();
    let token = proxy.poll().unwrap_err();
    let detach = request::ctx_detach_resource(21);
    assert_eq!(proxy.driver.in_context(1, detach), OK);
    client.send(b"meanwhile", &[]);
    proxy.expect_quiet();
    let attach = request::ctx_attach_resource(21);
    assert_eq!(proxy.driver.in_context(1, attach), OK);
    proxy.wait_for(token);
    assert_eq!(proxy.said(), text(b"meanwhile"));
}

#[test]
fn a_flood_comes_in_messages_that_fit_the_ring_and_no_faster_than_it_is_asked_for() {
    let compositor = Compositor::new();
    let mut proxy = Proxy::connected(compositor.path());
    let client = compositor.accept();
    let flood: Vec<u8> = (0..100_000_u32).map(|at| at.to_le_bytes()[1]).collect();
    client.send(&flood, &[]);
    let mut heard = Vec::new();
    while heard.len() < flood.len() {
        let Said::Message(bytes, files) = proxy.hear() else {
            panic!("no message");
        };
        assert!(files.is_empty());
        assert!(!bytes.is_empty() && bytes.len() <= 4096 - 352);
        heard.extend(bytes);
    }
    assert!(heard == flood);
}

#[test]
fn the_end_is_told_once_and_no_guest_turns_in_circles_over_it() {
    let compositor = Compositor::new();
    let mut proxy = Proxy::connected(compositor.path());
    let client = compositor.accept();
    client.send(b"why", &[]);
    drop(client);
    // Sending fails, and why can still be heard.
    let sent = proxy.run(&send(b"late", &[]));
    assert!([OK, UNSPEC].contains(&sent));
    assert_eq!(proxy.run(&send(b"later", &[])), UNSPEC);
    assert_eq!(proxy.hear(), text(b"why"));
    assert_eq!(proxy.hear(), text(b""));
    let token = proxy.poll().unwrap_err();
    proxy.expect_quiet();
    assert_eq!(proxy.settle(), [token]);
}

#[test]
fn a_file_that_cannot_be_carried_ends_the_channel_and_is_not_lost_in_silence() {
    let compositor = Compositor::new();
    let mut proxy = Proxy::connected(compositor.path());
    let client = compositor.accept();
    let event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    client.send_file(b"what is this", event);
    assert_eq!(proxy.hear(), text(b""));
    assert_eq!(proxy.run(&send(b"x", &[])), UNSPEC);
    assert!(client.receive().0.is_empty());
}

#[test]
fn a_file_beside_one_that_cannot_be_carried_is_not_kept_either() {
    let compositor = Compositor::new();
    let mut proxy = Proxy::connected(compositor.path());
    let client = compositor.accept();
    let event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
    client.send(b"both", &[writer.as_fd(), event.as_fd()]);
    drop(writer);
    assert_eq!(proxy.hear(), text(b""));
    // The end, as nobody has it who could write.
    assert_eq!(io::read(&reader, &mut [0; 4]), Ok(0));
}

#[test]
fn a_compositor_that_does_not_read_ends_the_channel_at_the_limit_and_keeps_nobody_waiting() {
    let compositor = Compositor::new();
    let mut proxy = Proxy::connected(compositor.path());
    let client = compositor.accept();
    let part = vec![1; 60_000];
    let mut sent = 0;
    let refused = loop {
        match proxy.run(&send(&part, &[])) {
            OK => sent += part.len(),
            other => break other,
        }
        assert!(sent < 4 << 20);
    };
    assert_eq!(refused, OUT_OF_MEMORY);
    assert!(sent >= 1 << 20);
    assert_eq!(proxy.run(&send(b"x", &[])), UNSPEC);
    assert_eq!(proxy.hear(), text(b""));
    drop(client);
}

#[test]
fn pipes_and_messages_do_not_starve_each_other() {
    let compositor = Compositor::new();
    let mut proxy = Proxy::connected(compositor.path());
    let client = compositor.accept();
    assert_eq!(proxy.run(&send(b"p", &[(0x8000_0001, READ_PIPE)])), OK);
    let files = client.expect(b"p");
    io::write(&files[0], &[1; 60_000]).unwrap();
    client.send(&[2; 60_000], &[]);
    let mut kinds = Vec::new();
    for _ in 0..6 {
        kinds.push(matches!(proxy.hear(), Said::Pipe(..)));
    }
    let pipes = kinds.iter().filter(|pipe| **pipe).count();
    assert_eq!(pipes, 3, "{kinds:?}");
}

fn any_command() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![0..40_u32, Just(0x8000_0001), Just(u32::MAX), any::<u32>()];
    let words = prop::collection::vec(word, 0..90);
    let bytes = prop::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        (0..10_u8, words, bytes.clone())
            .prop_map(|(cmd, words, bytes)| command(cmd, &words, &bytes)),
        (bytes.clone(), 0..4_u32, 20..33_u32)
            .prop_map(|(bytes, kind, id)| send(&bytes, &[(id, kind)])),
        (any::<bool>(), 0..6_u32, bytes).prop_map(|(end, id, bytes)| write(id, end, &bytes)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_stream_is_answered(streams in prop::collection::vec((any_command(), any::<bool>(), any::<bool>()), 1..40)) {
        let compositor = Compositor::new();
        let mut proxy = Proxy::connected(compositor.path());
        let client = compositor.accept();
        for (stream, fenced, speaks) in streams {
            if speaks {
                client.send_file(b"said", memory(b"x"));
            }
            if fenced {
                let fence = WithFence { id: 1, ctx_id: 1, ring_idx: Some(1) };
                drop(proxy.driver.fenced(fence, submit(&stream)));
            } else {
                let answer = proxy.driver.in_context(1, submit(&stream));
                let known = [OK, PARAMETER, UNSPEC, OUT_OF_MEMORY, RESOURCE_ID];
                prop_assert!(known.contains(&answer), "{answer:?}");
            }
            proxy.driver.in_context(1, create_blob(30, 1, 4096));
            // Errors too, which keep the order of the ring.
            let _ = proxy.driver.gpu().take_completed().count();
            proxy.driver.gpu().assert_consistent();
        }
        drop(proxy.driver.quiesce());
        let _ = proxy.driver.gpu().take_completed().count();
        proxy.driver.quiesce().unwrap();
    }
}
