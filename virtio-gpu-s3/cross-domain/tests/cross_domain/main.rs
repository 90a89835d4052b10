// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest's proxy and a host's compositor, and the channel between them.

mod beside;
mod compositor;
mod hostile;
mod limits;
mod proxy;
mod sleep;
mod weston;

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use rustix::fs::{SealFlags, fcntl_add_seals, ftruncate};
use rustix::io::{Errno, pread, pwrite, read, write};
use rustix::pipe::{PipeFlags, pipe_with};
use virtio_gpu_cross_domain::{CrossDomainConfig, CrossDomainRenderer};
use virtio_gpu_s3::protocol::{ResponseType, feature};
use virtio_gpu_s3::{Limits, NullRenderer};
use virtio_gpu_s3_testing::ScriptedRenderer;
use virtio_gpu_s3_testing::cross_domain::{
    BLOB, READ_PIPE, WRITE_PIPE, cmd, command, create_blob, send, submit, write as write_to,
};
use virtio_gpu_s3_testing::{GpuDriver, WithFence, request};

use compositor::{Compositor, memory, new_path};
use proxy::{Proxy, Said};

const OK: ResponseType = ResponseType::OK_NODATA;
const UNSPEC: ResponseType = ResponseType::ERR_UNSPEC;
const PARAMETER: ResponseType = ResponseType::ERR_INVALID_PARAMETER;
const RESOURCE_ID: ResponseType = ResponseType::ERR_INVALID_RESOURCE_ID;
const OUT_OF_MEMORY: ResponseType = ResponseType::ERR_OUT_OF_MEMORY;

fn text(bytes: &[u8]) -> Said {
    Said::Message(bytes.to_vec(), Vec::new())
}

#[test]
fn the_capset_is_there_with_a_channel_and_only_then() {
    let mut without = GpuDriver::new(64, 48);
    assert_eq!(without.gpu().device_features() & feature::CONTEXT_INIT, 0);
    let compositor = Compositor::new();
    let mut proxy = Proxy::new(compositor.path());
    let features = proxy.driver.gpu().device_features();
    let of_contexts = feature::VIRGL | feature::CONTEXT_INIT;
    assert_eq!(features & of_contexts, of_contexts);
    let info = proxy.driver.control(request::get_capset_info(0));
    assert_eq!(info.body[..12], [5, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0]);
    let capset = proxy.driver.control(request::get_capset(5, 0));
    // Version 1, channels of Wayland only, no memory of a GPU.
    assert_eq!(
        capset.body,
        [1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    );
    assert_ne!(proxy.driver.in_context(1, request::ctx_create(2)), OK);
}

#[test]
fn bytes_go_both_ways_and_a_poll_waits_for_them() {
    let compositor = Compositor::new();
    let mut proxy = Proxy::connected(compositor.path());
    let client = compositor.accept();
    let token = proxy.poll().unwrap_err();
    proxy.expect_quiet();
    assert_eq!(proxy.said(), Said::Nothing);
    assert_eq!(proxy.run(&send(b"hello", &[])), OK);
    assert!(client.expect(b"hello").is_empty());
    client.send(b"and back", &[]);
    proxy.wait_for(token);
    assert_eq!(proxy.said(), text(b"and back"));
    // What is said before it is asked for is not lost, and each POLL takes one message.
    client.send_file(b"one", memory(b"x"));
    client.send_file(b"two", memory(b"y"));
    assert!(matches!(proxy.hear(), Said::Message(bytes, _) if bytes == b"one"));
    assert!(matches!(proxy.hear(), Said::Message(bytes, _) if bytes == b"two"));
}

#[test]
fn a_window_that_the_guest_draws_is_memory_that_the_compositor_shows() {
    let compositor = Compositor::new();
    let mut proxy = Proxy::connected(compositor.path());
    let client = compositor.accept();
    let (blob_id, stride, size) = proxy.image(64, 48, *b"XR24");
    assert_eq!((stride, size), (256, 64 * 48 * 4));
    // Asked again it is the same, so that asking costs nothing.
    assert_eq!(proxy.image(64, 48, *b"XR24").0, blob_id);
    proxy.make_blob(30, blob_id, size);
    proxy.make_blob(31, blob_id, size);
    assert_eq!(proxy.run(&send(b"pool", &[(30, BLOB)])), OK);
    let files = client.expect(b"pool");
    assert_eq!(pwrite(&files[0], b"drawn", 100), Ok(5));
    assert_eq!(proxy.read_blob(30, 105)[100..], *b"drawn");
    assert_eq!(proxy.read_blob(31, 105)[100..], [0; 5]);
    // The compositor cannot take it away from those who map it.
    assert!(ftruncate(&files[0], 0).is_err());
}

#[test]
fn memory_of_the_compositor_is_a_blob_of_the_guest() {
    let compositor = Compositor::new();
    let mut proxy = Proxy::connected(compositor.path());
    let client = compositor.accept();
    let shared = memory(b"of the compositor");
    client.send_file(b"take it", &shared);
    let Said::Message(bytes, files) = proxy.hear() else {
        panic!("no message");
    };
    assert_eq!(bytes, b"take it");
    let [(blob_id, BLOB, 17)] = files[..] else {
        panic!("{files:?}");
    };
    proxy.make_blob(30, blob_id, 17);
    assert_eq!(proxy.read_blob(30, 17), b"of the compositor");
    assert_eq!(pwrite(&shared, b"ON", 0), Ok(2));
    assert_eq!(proxy.read_blob(30, 6), b"ON the");
    // It is there once.
    let again = create_blob(31, blob_id, 17);
    assert_eq!(proxy.driver.in_context(1, again), PARAMETER);
    // Another can have it from this guest: the file goes back.
    assert_eq!(proxy.run(&send(b"back", &[(30, BLOB)])), OK);
    let files = client.expect(b"back");
    let mut bytes = [0; 6];
    assert_eq!(pread(&files[0], &mut bytes, 0), Ok(6));
    assert_eq!(&bytes, b"ON the");
}

#[test]
fn a_keymap_that_is_sealed_can_be_mapped_all_the_same() {
    let compositor = Compositor::new();
    let mut proxy = Proxy::connected(compositor.path());
    let client = compositor.accept();
    let keymap = memory(b"xkb_keymap");
    fcntl_add_seals(&keymap, SealFlags::SHRINK | SealFlags::WRITE).unwrap();
    client.send_file(b"keymap", &keymap);
    let Said::Message(_, files) = proxy.hear() else {
        panic!("no message");
    };
    proxy.make_blob(30, files[0].0, 10);
    assert_eq!(proxy.read_blob(30, 10), b"xkb_keymap");
    assert_eq!(proxy.driver.gpu().write_mapped(30, 0, b"own copy"), Ok(()));
}

#[test]
fn what_is_pasted_comes_through_a_pipe_until_it_ends() {
    let compositor = Compositor::new();
    let mut proxy = Proxy::connected(compositor.path());
    let client = compositor.accept();
    // The guest knows the number in advance.
    assert_eq!(
        proxy.run(&send(b"receive", &[(0x8000_0001, READ_PIPE)])),
        OK
    );
    let files = client.expect(b"receive");
    let token = proxy.poll().unwrap_err();
    proxy.expect_quiet();
    let long = vec![7; 10_000];
    assert_eq!(write(&files[0], &long), Ok(long.len()));
    proxy.wait_for(token);
    let mut heard = Vec::new();
    let mut said = proxy.said();
    while let Said::Pipe(0x8000_0001, bytes, false) = said {
        assert!(!bytes.is_empty());
        heard.extend(bytes);
        if heard.len() == long.len() {
            break;
        }
        said = proxy.hear();
    }
    assert_eq!(heard, long);
    drop(files);
    assert_eq!(proxy.hear(), Said::Pipe(0x8000_0001, Vec::new(), true));
    // The next has the next number.
    let wrong = send(b"receive", &[(0x8000_0001, READ_PIPE)]);
    assert_eq!(proxy.run(&wrong), PARAMETER);
    let right = send(b"receive", &[(0x8000_0002, READ_PIPE)]);
    assert_eq!(proxy.run(&right), OK);
}

#[test]
fn what_is_copied_goes_through_a_pipe_of_which_a_slow_reader_keeps_nobody_waiting() {
    let compositor = Compositor::new();
    let mut proxy = Proxy::connected(compositor.path());
    let client = compositor.accept();
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
    client.send_file(b"send", &writer);
    drop(writer);
    let Said::Message(_, files) = proxy.hear() else {
        panic!("no message");
    };
    let [(pipe, WRITE_PIPE, 0)] = files[..] else {
        panic!("{files:?}");
    };
    // Four times what a pipe holds, before anybody reads.
    let part = vec![9; 16 << 10];
    for count in 1..=16 {
        assert_eq!(proxy.run(&write_to(pipe, count == 16, &part)), OK);
    }
    assert_eq!(read_all(&reader, &mut proxy), 16 * part.len());
    assert_eq!(proxy.run(&write_to(pipe, true, b"late")), PARAMETER);
}

/// Reads to the end, while the device writes. How many bytes.
fn read_all(pipe: &OwnedFd, proxy: &mut Proxy) -> usize {
    let mut total = 0;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match read(pipe, buffer.as_mut_slice()) {
            Ok(0) => return total,
            Ok(count) => {
                assert!(buffer[..count].iter().all(|byte| *byte == 9));
                total += count;
            }
            Err(Errno::AGAIN) => {
                proxy.wakes.wait(proxy::QUIET);
                assert_eq!(proxy.answered(), []);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn contexts_of_another_renderer_go_on_beside_a_poll_that_waits() {
    let compositor = Compositor::new();
    let (inner, control) = ScriptedRenderer::new();
    let mut proxy = Proxy::with(inner, compositor.path(), Limits::default());
    proxy.connect();
    let client = compositor.accept();
    let waiting = proxy.poll().unwrap_err();
    let texture = request::texture(32, 16);
    assert_eq!(proxy.driver.in_context(2, request::ctx_create(2)), OK);
    let create = request::resource_create_3d(10, &texture);
    assert_eq!(proxy.driver.control(create).type_(), OK);
    let attach = request::ctx_attach_resource(10);
    assert_eq!(proxy.driver.in_context(2, attach), OK);
    control.hold_fences(true);
    for (ctx_id, ring_idx) in [(2, Some(1)), (2, None), (1, None)] {
        let fence = WithFence {
            id: 7,
            ctx_id,
            ring_idx,
        };
        let stream = match ctx_id {
            2 => request::submit_3d(&[1, 10, 5]),
            _ => submit(&send(b"frame", &[])),
        };
        let token = proxy.driver.fenced(fence, stream).unwrap_err();
        // Even a message's fence waits for the work before it on the global timeline.
        assert_eq!(proxy.answered(), []);
        control.hold_fences(false);
        assert_eq!(proxy.answered(), [token]);
        control.hold_fences(true);
    }
    assert!(client.expect(b"frame").is_empty());
    client.send(b"done", &[]);
    proxy.wait_for(waiting);
    // Guest memory is known to both, and ends in both.
    let objects = control.objects();
    proxy.driver.unref(20);
    assert_eq!(control.objects(), objects - 1);
}

#[test]
fn a_way_to_no_compositor_is_refused_by_name() {
    let missing = new_path("missing");
    let file = new_path("file");
    fs::write(&file, b"").unwrap();
    let long = new_path(&"x".repeat(100));
    for (path, expected) in [
        (&missing, "cannot be found"),
        (&file, "is not a socket"),
        (&long, "cannot be found"),
    ] {
        let config = CrossDomainConfig {
            wayland: path.clone(),
            limits: Limits::default(),
        };
        let inner = Box::new(NullRenderer);
        let error = CrossDomainRenderer::new(inner, &config, || {}).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    fs::remove_file(file).unwrap();
}

#[test]
fn a_compositor_that_is_gone_is_told_to_the_guest_and_its_return_is_found() {
    let compositor = Compositor::new();
    let path = compositor.path().to_owned();
    let mut proxy = Proxy::new(&path);
    drop(compositor);
    assert_eq!(proxy.driver.in_context(1, request::ctx_create(5)), OK);
    assert_eq!(
        proxy
            .driver
            .create_guest_blob(20, 4096, Some(&proxy.query.clone())),
        OK
    );
    assert_eq!(
        proxy.driver.in_context(1, request::ctx_attach_resource(20)),
        OK
    );
    let init = command(cmd::INIT, &[20, 1], &[]);
    assert_eq!(proxy.run(&init), UNSPEC);
    let listener = UnixListener::bind(&path).unwrap();
    // INIT as it was at first, with one ring.
    assert_eq!(proxy.run(&init), OK);
    listener.accept().unwrap();
    fs::remove_file(path).unwrap();
}

#[test]
fn a_blob_of_the_channel_serves_only_its_own_contexts() {
    let compositor = Compositor::new();
    let (inner, _) = ScriptedRenderer::new();
    let mut proxy = Proxy::with(inner, compositor.path(), Limits::default());
    proxy.connect();
    let (blob_id, _, size) = proxy.image(64, 48, *b"AR24");
    proxy.make_blob(30, blob_id, size);
    assert_eq!(proxy.driver.in_context(2, request::ctx_create(2)), OK);
    let attach = request::ctx_attach_resource(30);
    assert_eq!(proxy.driver.in_context(2, attach), UNSPEC);
    // Mapped once, and not beyond its end.
    let map = request::resource_map_blob(30, 0);
    assert_eq!(proxy.driver.control(map).type_(), UNSPEC);
    let mut bytes = [0; 8];
    let outside = proxy.driver.gpu().read_mapped(30, size - 4, &mut bytes);
    outside.unwrap_err();
    proxy
        .driver
        .gpu()
        .write_mapped(30, u64::MAX, &bytes)
        .unwrap_err();
    assert_eq!(proxy.driver.unref(30), OK);
}
