// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Contexts, 3D resources and fences, on the renderer that only keeps bytes.

mod fences;
mod in_flight;

use virtio_gpu_s3::command::BlobLayout;
use virtio_gpu_s3::protocol::{CommandId, Queue, ResponseType, wire};
use virtio_gpu_s3::renderer::{Resource3d, Transfer3d};
use virtio_gpu_s3::{Activation, Gpu, Limits, PixelFormat, Rect, ResetKind, Response};
use virtio_gpu_s3_testing::{GpuDriver, GuestBuffer, Layout, Screen, config, pattern, request};
use virtio_gpu_s3_testing::{RendererControl, ScriptedRenderer};

const OK: ResponseType = ResponseType::OK_NODATA;
const UNSPEC: ResponseType = ResponseType::ERR_UNSPEC;
const PARAMETER: ResponseType = ResponseType::ERR_INVALID_PARAMETER;
const CONTEXT_ID: ResponseType = ResponseType::ERR_INVALID_CONTEXT_ID;
const RESOURCE_ID: ResponseType = ResponseType::ERR_INVALID_RESOURCE_ID;

const TEXTURE: Resource3d = request::texture(32, 16);
const WHOLE: Rect = Rect::sized(32, 16);
const WHOLE_TRANSFER: Transfer3d = request::whole(&TEXTURE);

fn fill(resource: u32, value: u32) -> Vec<u8> {
    request::submit_3d(&[1, resource, value])
}

/// A driver of a device with one limit set.
fn limited(limit: &str, value: u64) -> (GpuDriver, RendererControl) {
    let limits = Limits::default().with(limit, value).unwrap();
    let (renderer, control) = ScriptedRenderer::new();
    let config = config(1, 32, 16).with_limits(limits).unwrap();
    let gpu = Gpu::new(config, Box::new(renderer)).unwrap();
    (GpuDriver::with_gpu(gpu, 64 << 20), control)
}

/// A driver with context 1, and texture 10 with a backing attached to it.
fn with_texture() -> (GpuDriver, RendererControl, Screen, GuestBuffer) {
    let (mut driver, control, screen) = GpuDriver::rendering(32, 16);
    let buffer = driver.ram.alloc(32 * 16 * 4, Layout::Pages);
    assert_eq!(driver.in_context(1, request::ctx_create(2)), OK);
    let create = request::resource_create_3d(10, &TEXTURE);
    assert_eq!(driver.control(create).type_(), OK);
    assert_eq!(driver.attach(10, &buffer), OK);
    assert_eq!(driver.in_context(1, request::ctx_attach_resource(10)), OK);
    (driver, control, screen, buffer)
}

#[test]
fn a_stream_draws_and_a_flush_shows_it() {
    let (mut driver, _, mut screen, _) = with_texture();
    assert_eq!(driver.set_scanout(0, 10, WHOLE), OK);
    assert_eq!(driver.in_context(1, fill(10, 0x0011_2233)), OK);
    assert_eq!(driver.flush(10, WHOLE), OK);
    let image = driver.scanout_image(0, false).unwrap();
    assert!(image.pixels.chunks(4).all(|p| p == [0x11, 0x22, 0x33, 255]));
    assert_eq!(screen.look(&mut driver).image(0), Some(image));
}

#[test]
fn transfers_go_both_ways() {
    let (mut driver, _, _, buffer) = with_texture();
    let pixels = pattern(3, 32 * 16 * 4);
    driver.ram.write(&buffer, 0, &pixels);
    let to = request::transfer_3d(CommandId::TRANSFER_TO_HOST_3D, 10, &WHOLE_TRANSFER);
    assert_eq!(driver.in_context(1, to), OK);
    driver.ram.write(&buffer, 0, &[0; 32 * 16 * 4]);
    let from = request::transfer_3d(CommandId::TRANSFER_FROM_HOST_3D, 10, &WHOLE_TRANSFER);
    assert_eq!(driver.in_context(1, from), OK);
    assert_eq!(driver.ram.read(&buffer, 0, 32 * 16 * 4), pixels);
}

#[test]
fn a_box_outside_its_level_never_reaches_the_renderer() {
    // CVE-2019-18390 and its relatives.
    let (mut driver, control, _, _) = with_texture();
    let calls = control.calls();
    let max = u32::MAX;
    for transfer in [
        Transfer3d {
            x: 1,
            ..WHOLE_TRANSFER
        },
        Transfer3d {
            y: 16,
            ..WHOLE_TRANSFER
        },
        Transfer3d {
            z: 1,
            ..WHOLE_TRANSFER
        },
        Transfer3d {
            x: max,
            w: max,
            ..WHOLE_TRANSFER
        },
        Transfer3d {
            h: max,
            ..WHOLE_TRANSFER
        },
        Transfer3d {
            d: 2,
            ..WHOLE_TRANSFER
        },
        Transfer3d {
            level: 1,
            ..WHOLE_TRANSFER
        },
        Transfer3d {
            level: max,
            ..WHOLE_TRANSFER
        },
        Transfer3d {
            offset: 1 << 40,
            ..WHOLE_TRANSFER
        },
    ] {
        for command in [
            CommandId::TRANSFER_TO_HOST_3D,
            CommandId::TRANSFER_FROM_HOST_3D,
        ] {
            let request = request::transfer_3d(command, 10, &transfer);
            assert_eq!(driver.in_context(1, request), PARAMETER, "{transfer:?}");
        }
    }
    assert_eq!(control.calls(), calls);
    assert_eq!(driver.detach(10), OK);
    let request = request::transfer_3d(CommandId::TRANSFER_TO_HOST_3D, 10, &WHOLE_TRANSFER);
    assert_eq!(driver.in_context(1, request), UNSPEC);
}

#[test]
fn textures_of_impossible_sizes_never_reach_the_renderer() {
    let (mut driver, control, _) = GpuDriver::rendering(32, 16);
    let max = u32::MAX;
    for params in [
        Resource3d {
            width: 0,
            ..TEXTURE
        },
        Resource3d {
            height: 0,
            ..TEXTURE
        },
        Resource3d {
            depth: 0,
            ..TEXTURE
        },
        Resource3d {
            array_size: 0,
            ..TEXTURE
        },
        Resource3d {
            width: max,
            ..TEXTURE
        },
        Resource3d {
            depth: max,
            ..TEXTURE
        },
        Resource3d {
            last_level: 16,
            ..TEXTURE
        },
        Resource3d {
            nr_samples: 33,
            ..TEXTURE
        },
    ] {
        let answer = driver.control(request::resource_create_3d(1, &params));
        assert_eq!(answer.type_(), PARAMETER, "{params:?}");
    }
    let cube = Resource3d {
        width: 32768,
        height: 32768,
        depth: 32768,
        ..TEXTURE
    };
    let answer = driver.control(request::resource_create_3d(1, &cube));
    assert_eq!(answer.type_(), ResponseType::ERR_OUT_OF_MEMORY);
    assert_eq!(control.calls(), 0);
}

#[test]
fn renderer_memory_is_capped_over_all_resources_and_may_be_used_up() {
    let (renderer, _) = ScriptedRenderer::new();
    let limits = Limits {
        max_renderer_bytes: 2 * 32 * 16 * 4,
        ..Limits::default()
    };
    let config = config(1, 32, 16).with_limits(limits).unwrap();
    let gpu = Gpu::new(config, Box::new(renderer));
    let mut driver = GpuDriver::with_gpu(gpu.unwrap(), 1 << 20);
    let mut create = |id, width| {
        let params = Resource3d { width, ..TEXTURE };
        driver
            .control(request::resource_create_3d(id, &params))
            .type_()
    };
    assert_eq!(create(1, 65), ResponseType::ERR_OUT_OF_MEMORY);
    assert_eq!(create(1, 64), OK);
    assert_eq!(create(2, 1), ResponseType::ERR_OUT_OF_MEMORY);
    // A 2D resource that the renderer has no room for stays one, and works.
    driver.in_context(1, request::ctx_create(0));
    assert_eq!(driver.create_2d(3, PixelFormat::BGRX, 32, 16), OK);
    let attach = request::ctx_attach_resource(3);
    assert_eq!(
        driver.in_context(1, attach),
        ResponseType::ERR_OUT_OF_MEMORY
    );
    assert_eq!(driver.set_scanout(0, 3, WHOLE), OK);
    assert_eq!(driver.flush(3, WHOLE), OK);
    driver.gpu().assert_consistent();
    assert_eq!(driver.unref(1), OK);
    assert_eq!(driver.gpu().status().renderer_bytes, 0);
}

#[test]
fn a_2d_resource_keeps_its_picture_when_a_context_attaches_it() {
    let (mut driver, control, mut screen) = GpuDriver::rendering(32, 16);
    let buffer = driver.framebuffer(0, 5, PixelFormat::BGRX, 32, 16);
    driver.draw(5, &buffer, &pattern(1, 2048), 32, 16);
    let before = driver.scanout_image(0, false);
    driver.in_context(1, request::ctx_create(0));
    assert_eq!(control.objects(), 1);
    assert_eq!(driver.in_context(1, request::ctx_attach_resource(5)), OK);
    assert_eq!(control.objects(), 2);
    assert_eq!(driver.scanout_image(0, false), before);
    assert_eq!(driver.flush(5, WHOLE), OK);
    assert_eq!(driver.scanout_image(0, false), before);
    // 2D drawing goes on, now through the renderer.
    driver.draw(5, &buffer, &pattern(2, 2048), 32, 16);
    let image = driver.scanout_image(0, false).unwrap();
    assert_eq!(image.pixels[2], pattern(2, 4)[0]);
    assert_eq!(screen.look(&mut driver).image(0), Some(image));
    assert_eq!(driver.transfer(5, WHOLE, 4096), PARAMETER);
    assert_eq!(driver.unref(5), OK);
    assert_eq!(control.objects(), 1);
}

#[test]
fn capsets_are_told_by_index_and_an_unknown_one_is_refused() {
    let (mut driver, _, _) = GpuDriver::rendering(32, 16);
    assert_eq!(driver.gpu().config_space()[12], 1);
    let answer = driver.control(request::get_capset_info(0));
    assert_eq!(answer.type_(), ResponseType::OK_CAPSET_INFO);
    let info: wire::RespCapsetInfo = answer.payload();
    assert_eq!((info.capset_id.get(), info.capset_max_size.get()), (2, 16));
    let answer = driver.control(request::get_capset(2, 1));
    assert_eq!(answer.type_(), ResponseType::OK_CAPSET);
    assert_eq!(answer.body.len(), 16);
    for request in [
        request::get_capset_info(1),
        request::get_capset_info(u32::MAX),
        request::get_capset(1, 1),
        request::get_capset(2, 2),
        request::get_capset(u32::MAX, 0),
    ] {
        assert_eq!(driver.control(request).type_(), PARAMETER);
    }
}

#[test]
fn a_reply_shorter_than_the_capset_is_cut_not_overrun() {
    // CVE-2021-3546
    let (mut driver, _, _) = GpuDriver::rendering(32, 16);
    let memory = driver.transport.memory.clone();
    let mut response = Response::new(30);
    let _ = driver
        .gpu()
        .control(&request::get_capset(2, 1), &memory, &mut response);
    assert_eq!((response.bytes().len(), response.lost()), (30, 10));
}

#[test]
fn a_capset_with_no_room_for_it_is_answered_with_its_header_alone() {
    // CVE-2016-10028
    let (mut driver, _, _) = GpuDriver::rendering(32, 16);
    let memory = driver.transport.memory.clone();
    for room in [0, 23, 24] {
        let mut response = Response::new(room);
        let request = request::get_capset(2, 0);
        let _ = driver.gpu().control(&request, &memory, &mut response);
        assert_eq!(response.bytes().len(), room);
        assert_eq!(response.lost(), 40 - room);
    }
}

#[test]
fn contexts_that_do_not_exist_or_exist_twice_are_refused() {
    let (mut driver, _, _, _) = with_texture();
    assert_eq!(driver.in_context(1, request::ctx_create(0)), CONTEXT_ID);
    assert_eq!(driver.in_context(0, request::ctx_create(0)), CONTEXT_ID);
    for ctx_id in [0, 2, u32::MAX] {
        for request in [
            request::ctx_destroy(),
            request::ctx_attach_resource(10),
            request::ctx_detach_resource(10),
            fill(10, 0),
        ] {
            assert_eq!(driver.in_context(ctx_id, request), CONTEXT_ID);
        }
    }
    assert_eq!(
        driver.in_context(1, request::ctx_attach_resource(11)),
        RESOURCE_ID
    );
    assert_eq!(
        driver.in_context(1, request::ctx_detach_resource(11)),
        RESOURCE_ID
    );
    // A capset that was not offered.
    assert_eq!(driver.in_context(3, request::ctx_create(4)), PARAMETER);
}

#[test]
fn a_stream_longer_than_the_limit_or_than_the_request_is_refused() {
    let (mut driver, control, _, _) = with_texture();
    let calls = control.calls();
    let mut request = request::submit_3d(&[0; 8]);
    request[24..28].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(driver.in_context(1, request), PARAMETER);
    let mut request = request::submit_3d(&[0; 8]);
    request[28..32].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(driver.in_context(1, request), PARAMETER);
    let long = request::submit_3d(&vec![0; (1 << 18) + 1]);
    assert_eq!(driver.in_context(1, long), ResponseType::ERR_OUT_OF_MEMORY);
    assert_eq!(control.calls(), calls);
    // What the renderer itself refuses is an error too, and the context lives on.
    assert_eq!(driver.in_context(1, request::submit_3d(&[99])), UNSPEC);
    assert_eq!(driver.in_context(1, fill(10, 1)), OK);
}

#[test]
fn contexts_and_textures_survive_a_frozen_reset() {
    let (mut driver, control, _, buffer) = with_texture();
    driver.set_scanout(0, 10, WHOLE);
    driver.in_context(1, fill(10, 0x0012_3456));
    driver.flush(10, WHOLE);
    let before = driver.scanout_image(0, false);
    let (objects, calls) = (control.objects(), control.calls());
    driver.sleep_and_wake(Activation::Reinstated);
    assert_eq!((control.objects(), control.calls()), (objects, calls));
    assert_eq!(driver.scanout_image(0, false), before);
    let from = request::transfer_3d(CommandId::TRANSFER_FROM_HOST_3D, 10, &WHOLE_TRANSFER);
    assert_eq!(driver.in_context(1, from), OK);
    let pixels = driver.ram.read(&buffer, 0, 2048);
    assert_eq!(pixels, 0x0012_3456_u32.to_le_bytes().repeat(512));
    assert_eq!(driver.in_context(1, request::ctx_create(0)), CONTEXT_ID);
}

#[test]
fn a_rebooted_guest_gets_a_new_context_under_a_retained_id() {
    let (mut driver, control, _, _) = with_texture();
    driver.sleep_and_wake(Activation::Retained);
    assert_eq!(driver.in_context(1, request::ctx_create(0)), OK);
    // The old one went with its attachments; nothing of it is left behind.
    assert_eq!(driver.in_context(1, fill(10, 1)), UNSPEC);
    let create = request::resource_create_3d(10, &TEXTURE);
    assert_eq!(driver.control(create).type_(), OK);
    assert_eq!(control.objects(), 2);
    assert_eq!(driver.gpu().status().counters.replaced_resources, 1);
}

#[test]
fn a_full_reset_leaves_nothing_in_the_renderer_and_drops_no_renderer() {
    let (mut driver, control, _, _) = with_texture();
    driver.in_context(2, request::ctx_create(0));
    driver.in_context(2, request::ctx_attach_resource(10));
    for _ in 0..1000 {
        driver.gpu().reset(ResetKind::Full);
        assert_eq!(control.objects(), 0);
        assert_eq!(driver.gpu().status().renderer_bytes, 0);
        let features = driver.gpu().device_features();
        driver.gpu().activate(features, Activation::Fresh);
        driver.in_context(1, request::ctx_create(0));
        driver.control(request::resource_create_3d(10, &TEXTURE));
        assert_eq!(driver.in_context(1, request::ctx_attach_resource(10)), OK);
    }
    assert_eq!(driver.gpu().status().counters.errors.total(), 0);
}

#[test]
fn remapped_guest_memory_is_attached_anew() {
    let (mut driver, control, _, _) = with_texture();
    let calls = control.calls();
    let memory = driver.transport.memory.clone();
    driver.gpu().memory_changed(&memory).unwrap();
    assert_eq!(control.calls(), calls + 2);
    for failing in [0, 1] {
        control.fail_after(failing);
        driver.gpu().memory_changed(&memory).unwrap_err();
        let attached = driver.gpu().memory_changed(&memory).is_ok();
        assert_eq!(attached, failing == 0);
    }
}

#[test]
fn memory_that_changes_elsewhere_costs_the_renderer_nothing() {
    let (mut driver, control, _, buffer) = with_texture();
    let calls = control.calls();
    let memory = driver.transport.memory.clone();
    let pages = buffer.entries();
    let first = pages.iter().map(|page| page.addr.get()).min().unwrap();
    let last = pages
        .iter()
        .map(|page| page.addr.get() + 0xfff)
        .max()
        .unwrap();
    for (from, to) in [(0, first - 1), (last + 1, u64::MAX)] {
        (driver.gpu().memory_changed_within(from, to, &memory)).unwrap();
    }
    assert_eq!(control.calls(), calls);
    for at in [first, last] {
        (driver.gpu().memory_changed_within(at, at, &memory)).unwrap();
    }
    assert_eq!(control.calls(), calls + 4);
}

#[test]
fn a_blob_of_a_context_can_be_shown_and_is_read_from_the_renderer() {
    let (mut driver, control, mut screen, _) = with_texture();
    let create = request::resource_create_blob(20, 2, 2, 4096, &[]);
    assert_eq!(driver.in_context(1, create), OK);
    assert_eq!(driver.in_context(1, request::ctx_attach_resource(20)), OK);
    assert_eq!(driver.in_context(1, fill(20, 0x00aa_bbcc)), OK);
    let layout = BlobLayout {
        width: 32,
        height: 16,
        format: PixelFormat::BGRX,
        stride: 256,
        offset: 0,
    };
    assert_eq!(driver.set_scanout_blob(0, 20, WHOLE, &layout), OK);
    assert_eq!(driver.flush(20, WHOLE), OK);
    assert_eq!(
        screen.look(&mut driver).image(0).unwrap().pixel(31, 15),
        Some([0xaa, 0xbb, 0xcc, 255])
    );
    assert_eq!(driver.unref(20), OK);
    assert_eq!(control.objects(), 2);
    // Mappable memory of the host needs a region to map it into.
    let mappable = request::resource_create_blob(21, 2, 1, 4096, &[]);
    assert_eq!(driver.in_context(1, mappable), PARAMETER);
    let no_context = request::resource_create_blob(21, 2, 0, 4096, &[]);
    assert_eq!(driver.in_context(9, no_context), CONTEXT_ID);
}

#[test]
fn attachments_count_as_host_memory_while_they_last() {
    let (mut driver, _, _, _) = with_texture();
    let before = driver.gpu().status().host_bytes;
    for ctx_id in 2..12 {
        driver.in_context(ctx_id, request::ctx_create(0));
        driver.in_context(ctx_id, request::ctx_attach_resource(10));
        driver.in_context(ctx_id, request::ctx_attach_resource(10));
    }
    let each = (driver.gpu().status().host_bytes - before) / 10;
    assert!(each > 0);
    driver.in_context(2, request::ctx_detach_resource(10));
    driver.in_context(3, request::ctx_destroy());
    assert_eq!(driver.gpu().status().host_bytes, before + 8 * each);
    driver.gpu().assert_consistent();
    driver.unref(10);
    assert_eq!(driver.gpu().status().host_bytes, 0);
}

#[test]
fn a_guest_blob_becomes_known_to_the_renderer_when_a_context_attaches_it() {
    let (mut driver, control, _, _) = with_texture();
    let buffer = driver.ram.alloc(4096, Layout::Pages);
    assert_eq!(driver.create_guest_blob(30, 4096, Some(&buffer)), OK);
    assert_eq!(control.objects(), 2);
    assert_eq!(driver.in_context(1, request::ctx_attach_resource(30)), OK);
    assert_eq!(control.objects(), 3);
    assert_eq!(driver.in_context(1, request::ctx_detach_resource(30)), OK);
    assert_eq!(driver.in_context(1, request::ctx_detach_resource(30)), OK);
    assert_eq!(driver.unref(30), OK);
    assert_eq!(control.objects(), 2);
}

/// One program of every kind of command, with each call of the renderer failing once.
#[test]
fn a_failing_renderer_call_is_an_error_answer_and_leaves_no_trace() {
    let program = |driver: &mut GpuDriver, buffer: &GuestBuffer| {
        let mut send = |ctx_id, request| {
            driver.ctx_id = ctx_id;
            // A deferred answer is fine here: what counts is what is left.
            let _ = driver.send(Queue::Control, request);
        };
        send(1, request::ctx_create(2));
        send(0, request::resource_create_2d(5, 2, 32, 16));
        send(0, request::resource_attach_backing(5, buffer.entries()));
        send(0, request::set_scanout(0, 5, WHOLE));
        send(1, request::ctx_attach_resource(5));
        send(0, request::resource_create_3d(6, &TEXTURE));
        send(0, request::resource_attach_backing(6, buffer.entries()));
        send(1, request::ctx_attach_resource(6));
        send(1, request::resource_create_blob(7, 2, 0, 4096, &[]));
        send(
            1,
            request::transfer_3d(CommandId::TRANSFER_TO_HOST_3D, 6, &WHOLE_TRANSFER),
        );
        send(1, fill(6, 7));
        send(0, request::resource_flush(5, WHOLE));
        send(0, request::transfer_to_host_2d(5, WHOLE, 0));
        send(0, request::resource_detach_backing(5));
        send(1, request::ctx_detach_resource(5));
        send(0, request::resource_unref(5));
        send(1, request::ctx_destroy());
    };
    let (mut driver, control, _) = GpuDriver::rendering(32, 16);
    let buffer = driver.ram.alloc(2048, Layout::Pages);
    program(&mut driver, &buffer);
    let total = control.calls();
    assert!(total > 15, "{total}");
    assert_eq!(driver.gpu().status().counters.errors.total(), 0);
    for failing in 0..total {
        let (mut driver, control, _) = GpuDriver::rendering(32, 16);
        let buffer = driver.ram.alloc(2048, Layout::Pages);
        control.fail_after(failing);
        program(&mut driver, &buffer);
        assert!(
            driver.gpu().status().counters.errors.total() > 0,
            "{failing}"
        );
        driver.gpu().reset(ResetKind::Full);
        assert_eq!(control.objects(), 0, "call {failing}");
        let status = driver.gpu().status();
        assert_eq!((status.host_bytes, status.renderer_bytes), (0, 0));
    }
}
