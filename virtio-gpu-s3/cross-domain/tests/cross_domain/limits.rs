// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Each limit, met.

use rustix::pipe::pipe;
use virtio_gpu_s3::{Limits, NullRenderer};
use virtio_gpu_s3_testing::cross_domain::{
    BLOB, READ_PIPE, cmd, command, create_blob, send, submit, write,
};
use virtio_gpu_s3_testing::request;

use super::compositor::{Compositor, memory};
use super::proxy::{Proxy, Said};
use super::{OK, OUT_OF_MEMORY};

fn limited(compositor: &Compositor, limits: &[(&str, u64)]) -> Proxy {
    let all = limits.iter().fold(Limits::default(), |all, (name, value)| {
        all.with(name, *value).unwrap()
    });
    Proxy::with(NullRenderer, compositor.path(), all)
}

/// Those of channels, each of which a test here sets.
const MET: [&str; 3] = ["max_channels", "max_channel_files", "max_channel_bytes"];

#[test]
fn every_limit_of_channels_is_met_here() {
    let names = Limits::TABLE.iter().map(|info| info.name);
    let of_channels = names.filter(|name| name.starts_with("max_channel"));
    assert_eq!(of_channels.collect::<Vec<_>>(), MET);
}

#[test]
fn channels_are_as_many_as_the_limit_and_one_that_ends_makes_room() {
    let compositor = Compositor::new();
    let mut proxy = limited(&compositor, &[(MET[0], 1)]);
    proxy.connect();
    let client = compositor.accept();
    proxy.share_rings(2);
    let init = submit(&command(cmd::INIT, &[20, 21, 1], &[]));
    assert_eq!(proxy.driver.in_context(2, init.clone()), OUT_OF_MEMORY);
    assert_eq!(proxy.driver.in_context(1, request::ctx_destroy()), OK);
    assert!(client.receive().0.is_empty());
    assert_eq!(proxy.driver.in_context(2, init), OK);
}

#[test]
fn files_that_nobody_takes_stay_with_the_compositor_at_the_limit_and_come_when_there_is_room() {
    let compositor = Compositor::new();
    let mut proxy = limited(&compositor, &[(MET[1], 30)]);
    proxy.connect();
    let client = compositor.accept();
    let mut held = Vec::new();
    for _ in 0..3 {
        client.send_file(b"f", memory(b"file"));
        let Said::Message(_, files) = proxy.hear() else {
            panic!("no message");
        };
        held.push(files[0].0);
    }
    // A message may have 28, and there is room for 27.
    client.send_file(b"g", memory(b"file"));
    let token = proxy.poll().unwrap_err();
    proxy.expect_quiet();
    proxy.make_blob(30, held[0], 4);
    proxy.expect_quiet();
    assert_eq!(proxy.driver.unref(30), OK);
    proxy.wait_for(token);
    assert!(matches!(proxy.said(), Said::Message(bytes, _) if bytes == b"g"));
}

#[test]
fn room_for_files_that_one_context_makes_goes_to_the_one_that_waits_for_it() {
    let compositor = Compositor::new();
    let mut proxy = limited(&compositor, &[(MET[1], 30)]);
    proxy.connect();
    let first = compositor.accept();
    proxy.share_rings(2);
    let init = submit(&command(cmd::INIT, &[20, 21, 1], &[]));
    assert_eq!(proxy.driver.in_context(2, init), OK);
    let second = compositor.accept();
    let (_reader, writer) = pipe().unwrap();
    second.send_file(b"pipe", &writer);
    let token = proxy.poll_in(2).unwrap_err();
    proxy.wait_for(token);
    let Said::Message(_, files) = proxy.said() else {
        panic!("no message");
    };
    for _ in 0..2 {
        first.send_file(b"f", memory(b"file"));
        assert!(matches!(proxy.hear(), Said::Message(..)));
    }
    // A message may have 28, and there is room for 27, until the other is done with its pipe.
    first.send_file(b"g", memory(b"file"));
    let token = proxy.poll().unwrap_err();
    proxy.expect_quiet();
    let end = submit(&write(files[0].0, true, b"end"));
    assert_eq!(proxy.driver.in_context(2, end), OK);
    proxy.wait_for(token);
    assert!(matches!(proxy.said(), Said::Message(bytes, _) if bytes == b"g"));
}

#[test]
fn blobs_and_pipes_count_as_files_too() {
    let compositor = Compositor::new();
    let mut proxy = limited(&compositor, &[(MET[1], 4)]);
    proxy.connect();
    let client = compositor.accept();
    let (blob_id, _, size) = proxy.image(64, 48, *b"XR24");
    for id in 30..33 {
        proxy.make_blob(id, blob_id, size);
    }
    // Both ends of a pipe, for a time.
    let receive = send(b"receive", &[(0x8000_0001, READ_PIPE)]);
    assert_eq!(proxy.run(&receive), OUT_OF_MEMORY);
    proxy.make_blob(33, blob_id, size);
    let create = create_blob(34, blob_id, size);
    assert_eq!(proxy.driver.in_context(1, create.clone()), OUT_OF_MEMORY);
    // One that is sent is another, until it is.
    assert_eq!(proxy.run(&send(b"x", &[(33, BLOB)])), OUT_OF_MEMORY);
    assert_eq!(proxy.driver.unref(33), OK);
    assert_eq!(proxy.run(&send(b"x", &[(32, BLOB)])), OK);
    client.expect(b"x");
    assert_eq!(proxy.driver.in_context(1, create), OK);
}

#[test]
fn bytes_that_nobody_reads_are_kept_up_to_the_limit() {
    let compositor = Compositor::new();
    let mut proxy = limited(&compositor, &[(MET[2], 100_000)]);
    proxy.connect();
    let client = compositor.accept();
    let (_reader, writer) = pipe().unwrap();
    client.send_file(b"send", &writer);
    let Said::Message(_, files) = proxy.hear() else {
        panic!("no message");
    };
    let pipe = files[0].0;
    let part = vec![0; 50_000];
    let answers: Vec<_> = (0..5)
        .map(|_| proxy.run(&write(pipe, false, &part)))
        .collect();
    // 64 KiB of them are the pipe's.
    assert_eq!(answers[..3], [OK; 3]);
    assert_eq!(answers[3], OUT_OF_MEMORY);
    // What misses a part is no use to its reader, so it ends.
    assert_ne!(answers[4], OK);
}

#[test]
fn images_and_pipes_of_a_context_are_limited() {
    let compositor = Compositor::new();
    let mut proxy = limited(&compositor, &[(MET[1], 1000)]);
    proxy.connect();
    let client = compositor.accept();
    let image = |width| command(cmd::IMAGE, &[width, 1, 0x3432_5258, 0], &[]);
    for width in 1..=1024 {
        assert_eq!(proxy.run(&image(width)), OK);
    }
    assert_eq!(proxy.run(&image(1025)), OUT_OF_MEMORY);
    assert_eq!(proxy.run(&image(1024)), OK);
    let mut ends = Vec::new();
    for count in 1..=64 {
        let pipe = send(b"p", &[(0x8000_0000 + count, READ_PIPE)]);
        assert_eq!(proxy.run(&pipe), OK);
        ends.extend(client.expect(b"p"));
    }
    let one_more = send(b"p", &[(0x8000_0041, READ_PIPE)]);
    assert_eq!(proxy.run(&one_more), OUT_OF_MEMORY);
    drop(ends);
    for _ in 0..64 {
        assert!(matches!(proxy.hear(), Said::Pipe(_, _, true)));
    }
    assert_eq!(proxy.run(&one_more), OK);
}

#[test]
fn polls_meet_the_limit_of_fences() {
    let compositor = Compositor::new();
    let mut proxy = limited(&compositor, &[("max_fences", 3)]);
    proxy.connect();
    let waiting: Vec<_> = (0..3).map(|_| proxy.poll().unwrap_err()).collect();
    // At once, and without a fence, which would say that those before have ended.
    let refused = proxy.poll().unwrap();
    assert_eq!(refused.type_(), OUT_OF_MEMORY);
    assert_eq!(refused.header.flags.get(), 0);
    assert_eq!(proxy.settle(), waiting);
}
