// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest that makes and ends things for ever costs the process nothing: one test, so that no
//! other uses memory meanwhile.

use std::fs;

use virtio_gpu_s3::protocol::{BLOB_MEM_HOST3D, ResponseType};
use virtio_gpu_s3::renderer::Resource3d;
use virtio_gpu_s3::{Gpu, PixelFormat, Rect};
use virtio_gpu_s3_testing::ScriptedRenderer;
use virtio_gpu_s3_testing::{GpuDriver, GuestBuffer, Layout, WithFence, config, request};

const OK: ResponseType = ResponseType::OK_NODATA;
const ROUNDS: u32 = 100_000;
/// What an allocator may keep for itself.
const SLACK_KIB: u64 = 512;

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let field = line.and_then(|line| line.split_whitespace().nth(1));
    field.unwrap().parse().unwrap()
}

const TEXTURE: Resource3d = request::texture(16, 16);

/// Everything that a guest can make, made and ended in one of several orders.
fn round(driver: &mut GpuDriver, memory: &GuestBuffer, number: u32) {
    let rect = Rect::sized(16, 16);
    // CVE-2016-9912, CVE-2017-5552, CVE-2017-5857, CVE-2017-9060: with its backing still there.
    assert_eq!(driver.create_2d(1, PixelFormat::BGRX, 16, 16), OK);
    assert_eq!(driver.attach(1, memory), OK);
    assert_eq!(driver.transfer(1, rect, 0), OK);
    assert_eq!(driver.set_scanout(0, 1, rect), OK);
    assert_eq!(driver.flush(1, rect), OK);
    // CVE-2016-10163, CVE-2016-10214: a context, and what it is attached to.
    assert_eq!(driver.in_context(1, request::ctx_create(0)), OK);
    let create = request::resource_create_3d(2, &TEXTURE);
    assert_eq!(driver.control(create).type_(), OK);
    assert_eq!(driver.attach(2, memory), OK);
    for id in [1, 2] {
        assert_eq!(driver.in_context(1, request::ctx_attach_resource(id)), OK);
    }
    let blob = request::resource_create_blob(3, BLOB_MEM_HOST3D, 0, 4096, &[]);
    assert_eq!(driver.in_context(1, blob), OK);
    let fence = WithFence {
        id: number.into(),
        ctx_id: 1,
        ring_idx: Some(u8::try_from(number % 64).unwrap()),
    };
    driver.fenced(fence, request::submit_3d(&[0])).unwrap_err();
    assert_eq!(driver.gpu().take_completed().count(), 1);
    // vhost-device-gpu removes the resource and then refuses, and keeps what it held.
    assert_ne!(driver.unref(4), OK);
    assert_ne!(driver.attach(1, memory), OK);
    if number.is_multiple_of(2) {
        assert_eq!(driver.in_context(1, request::ctx_destroy()), OK);
    }
    for id in [1, 2, 3] {
        assert_eq!(driver.unref(id), OK);
    }
    if !number.is_multiple_of(2) {
        assert_eq!(driver.in_context(1, request::ctx_destroy()), OK);
    }
}

#[test]
fn a_hundred_thousand_rounds_of_everything_take_no_memory() {
    let (renderer, control) = ScriptedRenderer::new();
    let gpu = Gpu::new(config(1, 64, 64), Box::new(renderer));
    let mut driver = GpuDriver::with_gpu(gpu.unwrap(), 1 << 20);
    let memory = driver.ram.alloc(16 * 16 * 4, Layout::Pages);
    for number in 0..1000 {
        round(&mut driver, &memory, number);
    }
    let before = resident_kib();
    for number in 0..ROUNDS {
        round(&mut driver, &memory, number);
    }
    let grown = resident_kib().saturating_sub(before);
    assert!(grown <= SLACK_KIB, "{grown} KiB more");
    let status = driver.gpu().status();
    assert_eq!((status.resources, status.contexts), (0, 0));
    assert_eq!((status.host_bytes, status.renderer_bytes), (0, 0));
    assert_eq!(control.objects(), 0);
}
