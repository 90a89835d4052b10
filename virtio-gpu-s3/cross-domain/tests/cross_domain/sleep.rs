// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's sleep, and its end.

use std::fs;
use std::time::{Duration, Instant};

use virtio_gpu_s3::saved_state::SaveError;
use virtio_gpu_s3::{Activation, Limits, NullRenderer, ResetKind};
use virtio_gpu_s3_testing::cross_domain::{BLOB, READ_PIPE, send};
use virtio_gpu_s3_testing::{GuestRam, Layout, request};

use super::compositor::{Compositor, memory};
use super::proxy::{PAGE, Proxy, Said};
use super::{OK, text};

/// What a proxy makes nothing of: no bytes, no files.
const NOTHING: &[u8] = b"";

#[test]
fn a_freeze_does_not_wait_for_a_compositor_that_says_nothing() {
    let compositor = Compositor::new();
    let mut proxy = Proxy::connected(compositor.path());
    let client = compositor.accept();
    client.send(b"last", &[]);
    assert_eq!(proxy.hear(), text(b"last"));
    let waiting = [proxy.poll().unwrap_err(), proxy.poll().unwrap_err()];
    let start = Instant::now();
    assert_eq!(proxy.settle(), waiting);
    assert!(start.elapsed() < Duration::from_millis(100));
    // The last message would be taken for a new one.
    assert_eq!(proxy.said(), text(NOTHING));
    // The worker hears of it without being asked, as it waits for a wake.
    assert!(proxy.wakes.wait(Duration::ZERO));
}

#[test]
fn the_connection_lives_through_a_sleep_and_what_is_said_meanwhile_comes_after_it() {
    for how in [Activation::Reinstated, Activation::Retained] {
        let compositor = Compositor::new();
        let mut proxy = Proxy::connected(compositor.path());
        let client = compositor.accept();
        let (blob_id, _, size) = proxy.image(64, 48, *b"XR24");
        proxy.make_blob(30, blob_id, size);
        let token = proxy.poll().unwrap_err();
        assert_eq!(proxy.settle(), [token]);
        proxy.driver.gpu().reset(ResetKind::Frozen);
        let ring = proxy.driver.ram.read(&proxy.channel, 0, PAGE);
        client.send(b"while it slept", &[]);
        // Nobody writes to the memory of a guest that sleeps.
        assert!(!proxy.wakes.wait(Duration::from_millis(50)) || proxy.answered().is_empty());
        assert_eq!(proxy.driver.ram.read(&proxy.channel, 0, PAGE), ring);
        let features = proxy.driver.gpu().device_features();
        proxy.driver.gpu().activate(features, how);
        assert_eq!(proxy.hear(), text(b"while it slept"));
        assert_eq!(proxy.run(&send(b"awake", &[(30, BLOB)])), OK);
        assert_eq!(client.expect(b"awake").len(), 1);
        assert_eq!(proxy.read_blob(30, 4), [0; 4]);
        client.send(b"good morning", &[]);
        assert_eq!(proxy.hear(), text(b"good morning"));
    }
}

#[test]
fn what_the_guest_said_before_its_sleep_is_sent_while_it_sleeps() {
    let compositor = Compositor::new();
    let mut proxy = Proxy::connected(compositor.path());
    let client = compositor.accept();
    // More than the socket holds, less than is kept.
    let part = vec![3; 60_000];
    let parts = 10;
    for _ in 0..parts {
        assert_eq!(proxy.run(&send(&part, &[])), OK);
    }
    proxy.settle();
    proxy.driver.gpu().reset(ResetKind::Frozen);
    let mut total = 0;
    while total < parts * part.len() {
        let (bytes, _) = client.receive();
        assert!(!bytes.is_empty());
        total += bytes.len();
        // The worker is woken, and looks.
        if proxy.wakes.wait(Duration::from_millis(5)) {
            assert_eq!(proxy.answered(), []);
        }
    }
    assert_eq!(total, parts * part.len());
}

#[test]
fn a_reset_with_a_poll_outstanding_loses_no_message_to_it() {
    // A caller that does not settle first.
    let compositor = Compositor::new();
    let mut proxy = Proxy::connected(compositor.path());
    let client = compositor.accept();
    proxy.poll().unwrap_err();
    proxy.driver.gpu().reset(ResetKind::Frozen);
    let ring = proxy.driver.ram.read(&proxy.channel, 0, PAGE);
    client.send(b"not for a forgotten command", &[]);
    proxy.expect_quiet();
    assert_eq!(proxy.driver.ram.read(&proxy.channel, 0, PAGE), ring);
    let features = proxy.driver.gpu().device_features();
    proxy
        .driver
        .gpu()
        .activate(features, Activation::Reinstated);
    assert_eq!(proxy.hear(), text(b"not for a forgotten command"));
}

#[test]
fn a_full_reset_hangs_up_and_nothing_is_left_of_200_guests() {
    let compositor = Compositor::new();
    let mut proxy = Proxy::new(compositor.path());
    let files = || fs::read_dir("/proc/self/fd").unwrap().count();
    let mut before = 0;
    for cycle in 0..200 {
        proxy.connect();
        let client = compositor.accept();
        let (blob_id, _, size) = proxy.image(64, 48, *b"XR24");
        proxy.make_blob(30, blob_id, size);
        let message = send(b"all", &[(30, BLOB), (0x8000_0001, READ_PIPE)]);
        assert_eq!(proxy.run(&message), OK);
        let held = client.expect(b"all");
        client.send_file(b"never taken", memory(b"x"));
        assert!(matches!(proxy.hear(), Said::Message(..)));
        proxy.poll().unwrap_err();
        proxy.driver.gpu().reset(ResetKind::Full);
        assert!(client.receive().0.is_empty());
        assert_eq!(proxy.driver.gpu().status().contexts, 0);
        let features = proxy.driver.gpu().device_features();
        proxy.driver.gpu().activate(features, Activation::Fresh);
        drop((client, held));
        if cycle == 10 {
            before = files();
        }
    }
    // Other tests of this process open and close some too.
    assert!(files() < before + 100, "{before} files became {}", files());
}

#[test]
fn a_context_that_ends_hangs_up_and_answers_what_waited() {
    let compositor = Compositor::new();
    let mut proxy = Proxy::connected(compositor.path());
    let client = compositor.accept();
    let token = proxy.poll().unwrap_err();
    assert_eq!(proxy.driver.in_context(1, request::ctx_destroy()), OK);
    assert_eq!(proxy.answered(), [token]);
    assert!(client.receive().0.is_empty());
}

#[test]
fn a_ring_follows_guest_memory_that_moves() {
    let compositor = Compositor::new();
    let mut proxy = Proxy::connected(compositor.path());
    let client = compositor.accept();
    let token = proxy.poll().unwrap_err();
    let old = proxy.driver.ram.read(&proxy.channel, 0, PAGE);
    // The same addresses of the guest, other ones of this process.
    let mut moved = GuestRam::new(8 << 20);
    moved.alloc(2 * PAGE, Layout::Pages);
    let memory = moved.memory().clone();
    proxy.driver.gpu().memory_changed(&memory).unwrap();
    client.send(b"to the new place", &[]);
    proxy.wait_for(token);
    assert_eq!(proxy.driver.ram.read(&proxy.channel, 0, PAGE), old);
    proxy.driver.ram = moved;
    assert_eq!(proxy.said(), text(b"to the new place"));
}

#[test]
fn a_device_with_a_channel_refuses_to_be_saved() {
    let compositor = Compositor::new();
    let mut proxy = Proxy::connected(compositor.path());
    proxy.settle();
    let error = proxy.driver.gpu().save().unwrap_err();
    assert_eq!(error, SaveError::Context { ctx_id: 1 });
    // With the option alone, and nobody connected, it can be.
    let mut idle = Proxy::with(NullRenderer, compositor.path(), Limits::default());
    idle.driver.gpu().save().unwrap();
}
