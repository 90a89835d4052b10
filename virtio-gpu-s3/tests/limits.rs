// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Each limit, met by a guest and then not.

use virtio_gpu_s3::protocol::{BLOB_MEM_HOST3D, CommandId, ResponseType};
use virtio_gpu_s3::renderer::{Resource3d, Transfer3d};
use virtio_gpu_s3::{Activation, Gpu, LimitInfo, Limits, PixelFormat, ResetKind};
use virtio_gpu_s3_testing::{GpuDriver, Layout, WithFence, config, request};
use virtio_gpu_s3_testing::{RendererControl, ScriptedRenderer};

const OK: ResponseType = ResponseType::OK_NODATA;
const OUT_OF_MEMORY: ResponseType = ResponseType::ERR_OUT_OF_MEMORY;
const PARAMETER: ResponseType = ResponseType::ERR_INVALID_PARAMETER;

const TEXTURE: Resource3d = request::texture(16, 16);

fn with(limit: &str, value: u64) -> (GpuDriver, RendererControl) {
    let limits = Limits::default().with(limit, value).unwrap();
    let (renderer, control) = ScriptedRenderer::new();
    let config = config(1, 64, 64).with_limits(limits).unwrap();
    let gpu = Gpu::new(config, Box::new(renderer));
    (GpuDriver::with_gpu(gpu.unwrap(), 1 << 20), control)
}

/// Has a guest meet a limit of 4, or of so much that the fifth is too much.
fn meet(limit: &str) {
    let value = match limit {
        "max_host_bytes" => 4 * 16 * 16 * 4,
        "max_renderer_bytes" => 4 * 16 * 16 * 4,
        "max_submit_bytes" => 16,
        _ => 4,
    };
    let (mut driver, control) = with(limit, value);
    let texture = request::resource_create_3d;
    match limit {
        "max_host_bytes" | "max_resources" => {
            for id in 1..=4 {
                assert_eq!(driver.create_2d(id, PixelFormat::BGRX, 16, 16), OK);
            }
            assert_eq!(
                driver.create_2d(5, PixelFormat::BGRX, 16, 16),
                OUT_OF_MEMORY
            );
            assert_eq!(driver.unref(2), OK);
            assert_eq!(driver.create_2d(5, PixelFormat::BGRX, 16, 16), OK);
        }
        "max_renderer_bytes" => {
            for id in 1..=4 {
                assert_eq!(driver.control(texture(id, &TEXTURE)).type_(), OK);
            }
            assert_eq!(driver.control(texture(5, &TEXTURE)).type_(), OUT_OF_MEMORY);
        }
        "max_blobs" => meet_blobs(&mut driver),
        "max_backing_entries" => {
            assert_eq!(driver.create_2d(1, PixelFormat::BGRX, 16, 16), OK);
            let five = driver.ram.alloc(5 * 4096, Layout::Pages);
            assert_eq!(driver.attach(1, &five), OUT_OF_MEMORY);
            let four = driver.ram.alloc(4 * 4096, Layout::Pages);
            assert_eq!(driver.attach(1, &four), OK);
        }
        "max_resource_dimension" => {
            assert_eq!(driver.create_2d(1, PixelFormat::BGRX, 4, 4), OK);
            assert_eq!(driver.create_2d(2, PixelFormat::BGRX, 5, 1), PARAMETER);
            assert_eq!(driver.control(texture(3, &TEXTURE)).type_(), PARAMETER);
        }
        "max_contexts" => {
            for id in 1..=4 {
                assert_eq!(driver.in_context(id, request::ctx_create(0)), OK);
            }
            assert_eq!(driver.in_context(5, request::ctx_create(0)), OUT_OF_MEMORY);
        }
        "max_submit_bytes" => {
            assert_eq!(driver.in_context(1, request::ctx_create(0)), OK);
            assert_eq!(driver.in_context(1, request::submit_3d(&[0; 4])), OK);
            let long = request::submit_3d(&[0; 5]);
            assert_eq!(driver.in_context(1, long), OUT_OF_MEMORY);
        }
        "max_fences" => meet_fences(&mut driver, &control),
        _ => panic!("no guest meets {limit} here"),
    }
    driver.gpu().assert_consistent();
    driver.gpu().reset(ResetKind::Full);
    assert_eq!(control.objects(), 0);
}

fn meet_blobs(driver: &mut GpuDriver) {
    let blob = |id| request::resource_create_blob(id, BLOB_MEM_HOST3D, 0, 4096, &[]);
    assert_eq!(driver.in_context(1, request::ctx_create(0)), OK);
    for id in 1..=4 {
        assert_eq!(driver.in_context(1, blob(id)), OK);
    }
    assert_eq!(driver.in_context(1, blob(5)), OUT_OF_MEMORY);
    // Those of a guest that rebooted unseen make room, one for one.
    driver.sleep_and_wake(Activation::Retained);
    assert_eq!(driver.in_context(1, request::ctx_create(0)), OK);
    for id in 3..=6 {
        assert_eq!(driver.in_context(1, blob(id)), OK, "{id}");
    }
    assert_eq!(driver.gpu().status().resources, 4);
}

fn meet_fences(driver: &mut GpuDriver, control: &RendererControl) {
    assert_eq!(driver.in_context(1, request::ctx_create(0)), OK);
    control.hold_fences(true);
    let fence = |id| WithFence {
        id,
        ctx_id: 1,
        ring_idx: None,
    };
    for id in 1..=4 {
        driver
            .fenced(fence(id), request::submit_3d(&[0]))
            .unwrap_err();
    }
    // Also a command that is done at once: it would have to wait for its turn.
    for request in [request::submit_3d(&[0]), request::resource_unref(9)] {
        let answer = driver.fenced(fence(5), request).unwrap();
        assert_eq!(answer.type_(), OUT_OF_MEMORY);
        assert_eq!(answer.header.flags.get(), 0, "it ends no earlier fence");
    }
    control.hold_fences(false);
    assert_eq!(driver.gpu().take_completed().count(), 4);
    driver
        .fenced(fence(6), request::submit_3d(&[0]))
        .unwrap_err();
    assert_eq!(driver.gpu().take_completed().count(), 1);
}

#[test]
fn a_guest_that_meets_a_limit_is_told_so_and_nothing_is_lost() {
    // Those of channels are met in `cross_domain/limits.rs`, where there is a compositor.
    let of_others = |info: &&LimitInfo| !info.name.starts_with("max_channel");
    for info in Limits::TABLE.iter().filter(of_others) {
        meet(info.name);
    }
}

#[test]
fn a_transfer_of_any_size_needs_no_memory_of_its_own() {
    // The largest box of the largest texture, from no memory at all: an answer, at once.
    let (mut driver, _) = with("max_renderer_bytes", 4 << 30);
    assert_eq!(driver.in_context(1, request::ctx_create(0)), OK);
    let transfer = Transfer3d {
        x: 0,
        y: 0,
        z: 0,
        w: u32::MAX,
        h: u32::MAX,
        d: u32::MAX,
        offset: u64::MAX,
        level: 0,
        stride: u32::MAX,
        layer_stride: u32::MAX,
    };
    let create = request::resource_create_3d(1, &TEXTURE);
    assert_eq!(driver.control(create).type_(), OK);
    let request = request::transfer_3d(CommandId::TRANSFER_TO_HOST_3D, 1, &transfer);
    assert_eq!(driver.in_context(1, request), PARAMETER);
}

/// A buffer is as large as it is wide, and its other sizes count nothing against a limit: they are 1. Found by fuzzing.
#[test]
fn a_buffer_has_one_row_and_a_guest_that_asks_for_more_gets_none_of_it() {
    let (mut driver, control) = with("max_renderer_bytes", 64);
    let buffer = Resource3d {
        target: 0,
        ..request::texture(64, 1)
    };
    let tall = Resource3d {
        height: 2,
        ..buffer
    };
    let deep = Resource3d {
        depth: 0x4001,
        ..buffer
    };
    let many = Resource3d {
        array_size: 2,
        ..buffer
    };
    for params in [tall, deep, many] {
        let create = request::resource_create_3d(1, &params);
        assert_eq!(driver.control(create).type_(), PARAMETER, "{params:?}");
    }
    assert_eq!(control.objects(), 0);
    let create = request::resource_create_3d(1, &buffer);
    assert_eq!(driver.control(create).type_(), OK);
}
