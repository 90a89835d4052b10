// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a guest must not do, and what it is told. Each row is a defect somebody shipped: the
//! CVEs and bugs of QEMU, virglrenderer, vhost-device-gpu, libkrun and rutabaga.

use virtio_gpu_s3::protocol::{BLOB_MEM_HOST3D, COMMANDS, CommandId, Queue, ResponseType, feature};
use virtio_gpu_s3::{Activation, ErrorKind, Limits, PixelFormat, Rect, Response};
use virtio_gpu_s3_testing::{
    Answer, GpuDriver, GuestBuffer, Layout, Transport, WithFence, config, pattern, request,
};

const OK: ResponseType = ResponseType::OK_NODATA;
const UNSPEC: ResponseType = ResponseType::ERR_UNSPEC;
const OUT_OF_MEMORY: ResponseType = ResponseType::ERR_OUT_OF_MEMORY;
const SCANOUT_ID: ResponseType = ResponseType::ERR_INVALID_SCANOUT_ID;
const RESOURCE_ID: ResponseType = ResponseType::ERR_INVALID_RESOURCE_ID;
const PARAMETER: ResponseType = ResponseType::ERR_INVALID_PARAMETER;

fn with_resource() -> GpuDriver {
    let mut driver = GpuDriver::new(64, 64);
    driver.framebuffer(0, 1, PixelFormat::BGRX, 64, 64);
    driver
}

fn with_limits(limits: Limits) -> GpuDriver {
    GpuDriver::with_config(config(1, 64, 64).with_limits(limits).unwrap())
}

#[test]
fn a_scanout_id_at_or_above_num_scanouts_is_refused_everywhere() {
    // CVE-2016-10029
    for id in [1, 15, 16, 255, u32::MAX] {
        let mut driver = with_resource();
        let rect = Rect::sized(16, 16);
        assert_eq!(driver.set_scanout(id, 1, rect), SCANOUT_ID);
        assert_eq!(driver.set_scanout(id, 0, rect), SCANOUT_ID);
        assert_eq!(driver.control(request::get_edid(id)).type_(), SCANOUT_ID);
        assert_eq!(driver.update_cursor(id, 1, 0, 0), SCANOUT_ID);
        assert_eq!(driver.update_cursor(id, 0, 0, 0), SCANOUT_ID);
        assert_eq!(driver.move_cursor(id, 0, 0), SCANOUT_ID);
        let layout = request::layout(16, 16);
        assert_eq!(driver.set_scanout_blob(id, 0, rect, &layout), SCANOUT_ID);
        assert_eq!(driver.unref(1), OK);
    }
}

#[test]
fn a_resource_id_that_does_not_exist_is_refused_everywhere() {
    let mut driver = GpuDriver::new(64, 64);
    let rect = Rect::sized(1, 1);
    let buffer = driver.ram.alloc(4096, Layout::Contiguous);
    for id in [1, 2, u32::MAX] {
        assert_eq!(driver.unref(id), RESOURCE_ID);
        assert_eq!(driver.attach(id, &buffer), RESOURCE_ID);
        assert_eq!(driver.detach(id), RESOURCE_ID);
        assert_eq!(driver.transfer(id, rect, 0), RESOURCE_ID);
        assert_eq!(driver.flush(id, rect), RESOURCE_ID);
        assert_eq!(driver.set_scanout(0, id, rect), RESOURCE_ID);
        assert_eq!(driver.update_cursor(0, id, 0, 0), RESOURCE_ID);
        let uuid = driver.control(request::resource_assign_uuid(id));
        assert_eq!(uuid.type_(), RESOURCE_ID);
    }
    assert_eq!(driver.create_2d(0, PixelFormat::BGRX, 8, 8), RESOURCE_ID);
}

#[test]
fn creating_a_live_id_is_refused_and_keeps_the_first() {
    let mut driver = with_resource();
    assert_eq!(driver.create_2d(1, PixelFormat::BGRX, 8, 8), RESOURCE_ID);
    assert_eq!(driver.create_guest_blob(1, 4096, None), RESOURCE_ID);
    assert_eq!(driver.flush(1, Rect::sized(64, 64)), OK);
}

#[test]
fn sizes_that_overflow_32_bits_are_refused_before_any_allocation() {
    // rutabaga 0.1.85: 0x40000000 × 1 panics, 65536 × 65536 allocates 16 GiB, 0 × 0 succeeds.
    let mut driver = GpuDriver::new(64, 64);
    for (width, height) in [
        (0x4000_0000, 1),
        (1, 0x4000_0000),
        (65536, 65536),
        (u32::MAX, u32::MAX),
        (0, 0),
        (0, 5),
        (5, 0),
        (32769, 1),
    ] {
        let answer = driver.create_2d(1, PixelFormat::BGRX, width, height);
        assert_eq!(answer, PARAMETER, "{width}x{height}");
    }
    // Each side is allowed, the product is not.
    assert_eq!(
        driver.create_2d(1, PixelFormat::BGRX, 32768, 32768),
        OUT_OF_MEMORY
    );
    assert_eq!(driver.gpu().status().host_bytes, 0);
}

#[test]
fn a_format_outside_the_standard_is_refused() {
    let mut driver = GpuDriver::new(64, 64);
    for format in [0, 5, 66, 69, 120, 122, 133, 135, u32::MAX] {
        let answer = driver.control(request::resource_create_2d(1, format, 8, 8));
        assert_eq!(answer.type_(), PARAMETER, "{format}");
    }
}

#[test]
fn host_memory_is_capped_over_all_resources_and_freed_with_them() {
    let mut driver = with_limits(Limits {
        max_host_bytes: 1 << 20,
        ..Limits::default()
    });
    assert_eq!(driver.create_2d(1, PixelFormat::BGRX, 256, 512), OK);
    assert_eq!(driver.create_2d(2, PixelFormat::BGRX, 256, 512), OK);
    assert_eq!(driver.create_2d(3, PixelFormat::BGRX, 1, 1), OUT_OF_MEMORY);
    assert_eq!(driver.unref(1), OK);
    assert_eq!(driver.create_2d(3, PixelFormat::BGRX, 1, 1), OK);
    assert_eq!(
        driver.gpu().status().counters.errors.get(ErrorKind::Limit),
        1
    );
}

#[test]
fn the_number_of_resources_is_capped() {
    let mut driver = with_limits(Limits {
        max_resources: 3,
        ..Limits::default()
    });
    for id in 1..=3 {
        assert_eq!(driver.create_2d(id, PixelFormat::BGRX, 1, 1), OK);
    }
    assert_eq!(driver.create_2d(4, PixelFormat::BGRX, 1, 1), OUT_OF_MEMORY);
    assert_eq!(driver.create_guest_blob(4, 4096, None), OUT_OF_MEMORY);
    assert_eq!(driver.unref(2), OK);
    assert_eq!(driver.create_2d(4, PixelFormat::BGRX, 1, 1), OK);
}

#[test]
fn rectangles_outside_the_resource_are_refused_by_every_command() {
    let mut driver = with_resource();
    for (x, y, width, height) in [
        (0, 0, 65, 1),
        (0, 0, 1, 65),
        (64, 0, 1, 1),
        (0, 64, 1, 1),
        (u32::MAX, 0, 2, 1),
        (1, 1, u32::MAX, u32::MAX),
        (0x8000_0000, 0, 0x8000_0001, 1),
        (0, u32::MAX, 1, u32::MAX),
    ] {
        let rect = Rect {
            x,
            y,
            width,
            height,
        };
        assert_eq!(driver.transfer(1, rect, 0), PARAMETER, "{rect:?}");
        assert_eq!(driver.flush(1, rect), PARAMETER, "{rect:?}");
        assert_eq!(driver.set_scanout(0, 1, rect), PARAMETER, "{rect:?}");
    }
    assert_eq!(driver.set_scanout(0, 1, Rect::sized(0, 9)), PARAMETER);
    assert_eq!(driver.gpu().status().scanouts[0].width, 64);
}

#[test]
fn a_transfer_past_the_end_of_the_backing_is_an_error_not_a_silent_success() {
    // rutabaga 0.1.85 answers Ok and copies nothing.
    let mut driver = with_resource();
    let before = driver.scanout_image(0, false);
    for offset in [1, 4, 64 * 64 * 4, u64::MAX, u64::MAX - 3, 1 << 63] {
        assert_eq!(driver.transfer(1, Rect::sized(64, 64), offset), PARAMETER);
    }
    // The last row ends at the end: the rest of its stride need not be there.
    let corner = Rect {
        x: 63,
        y: 0,
        width: 1,
        height: 64,
    };
    assert_eq!(driver.transfer(1, corner, 63 * 4), OK);
    assert_eq!(driver.transfer(1, corner, 64 * 4), PARAMETER);
    assert_eq!(driver.scanout_image(0, false), before);
}

#[test]
fn a_backing_shorter_than_the_resource_gives_nothing_beyond_its_end() {
    let mut driver = GpuDriver::new(64, 64);
    let buffer = GuestBuffer::of(&[(0x2000, 100)]);
    assert_eq!(driver.create_2d(1, PixelFormat::BGRX, 64, 64), OK);
    assert_eq!(driver.attach(1, &buffer), OK);
    assert_eq!(driver.set_scanout(0, 1, Rect::sized(64, 64)), OK);
    driver.ram.write(&buffer, 0, &pattern(1, 100));
    assert_eq!(driver.transfer(1, Rect::sized(64, 64), 0), PARAMETER);
    assert_eq!(driver.flush(1, Rect::sized(64, 64)), OK);
    let image = driver.scanout_image(0, false).unwrap();
    assert!(image.pixels.chunks(4).all(|p| p == [0, 0, 0, 255]));
    assert_eq!(driver.transfer(1, Rect::sized(25, 1), 0), OK);
}

#[test]
fn a_backing_outside_guest_memory_is_refused() {
    // CVE-2024-3446: a range that points at a device, or at nothing.
    let mut driver = GpuDriver::new(64, 64);
    driver.create_2d(1, PixelFormat::BGRX, 8, 8);
    for ranges in [
        &[(64 << 20, 4096)][..],
        &[((64 << 20) - 1, 2)],
        &[(0xfebd_0000, 4096)],
        &[(u64::MAX, 1)],
        &[(u64::MAX - 4095, 4096)],
        &[(0x1000, 4096), (1 << 62, u32::MAX)],
    ] {
        assert_eq!(driver.attach(1, &GuestBuffer::of(ranges)), PARAMETER);
    }
    let good = GuestBuffer::of(&[(0x1000, 4096)]);
    assert_eq!(driver.attach(1, &good), OK);
}

#[test]
fn a_second_backing_and_a_missing_one_are_refused() {
    let mut driver = with_resource();
    let other = driver.ram.alloc(4096, Layout::Contiguous);
    assert_eq!(driver.attach(1, &other), UNSPEC);
    assert_eq!(driver.detach(1), OK);
    assert_eq!(driver.detach(1), UNSPEC);
    assert_eq!(driver.transfer(1, Rect::sized(1, 1), 0), UNSPEC);
}

#[test]
fn a_count_of_entries_that_are_not_there_allocates_nothing() {
    // All four peers allocate for a guest's u32 here.
    let mut driver = GpuDriver::new(64, 64);
    driver.create_2d(1, PixelFormat::BGRX, 8, 8);
    let held = driver.gpu().status().host_bytes;
    let entries = driver.ram.alloc(4096, Layout::Contiguous);
    for claimed in [2, 16385, 0x1000_0000, u32::MAX] {
        let request = request::resource_attach_backing_claiming(1, entries.entries(), claimed);
        assert_eq!(driver.control(request).type_(), PARAMETER);
    }
    let mut blob = request::resource_create_blob(2, 1, 0, 4096, entries.entries());
    blob[36..40].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(driver.control(blob).type_(), PARAMETER);
    assert_eq!(driver.gpu().status().host_bytes, held);
}

#[test]
fn more_entries_than_the_limit_are_refused() {
    let mut driver = with_limits(Limits {
        max_backing_entries: 4,
        ..Limits::default()
    });
    driver.create_2d(1, PixelFormat::BGRX, 8, 8);
    let four = driver.ram.alloc(4 * 4096, Layout::Pages);
    let five = driver.ram.alloc(5 * 4096, Layout::Pages);
    assert_eq!(driver.attach(1, &five), OUT_OF_MEMORY);
    assert_eq!(driver.attach(1, &four), OK);
    assert_eq!(
        driver.create_guest_blob(2, 4096, Some(&five)),
        OUT_OF_MEMORY
    );
}

#[test]
fn the_tables_of_backings_count_as_host_memory() {
    let mut driver = with_limits(Limits {
        max_host_bytes: 64 << 10,
        ..Limits::default()
    });
    let pages = driver.ram.alloc(1000 * 4096, Layout::Pages);
    let mut attached = 0;
    for id in 1..20 {
        assert_eq!(driver.create_2d(id, PixelFormat::BGRX, 1, 1), OK);
        if driver.attach(id, &pages) == OK {
            attached += 1;
        }
    }
    assert!((1..4).contains(&attached), "{attached}");
    assert!(driver.gpu().status().host_bytes <= 64 << 10);
}

#[test]
fn every_command_refuses_every_shorter_request() {
    for info in COMMANDS {
        for len in 24..info.request_size {
            let (mut driver, _, _) = GpuDriver::rendering(64, 64);
            let answer = driver
                .send(info.queue, request::bare(info.id, len))
                .unwrap();
            assert_eq!(answer.type_(), PARAMETER, "{} of {len}", info.id);
        }
    }
}

#[test]
fn a_request_shorter_than_its_header_is_answered_without_an_echo() {
    let mut driver = with_resource();
    for len in 0..24 {
        let bytes = driver.transport.send(Queue::Control, &vec![0xff; len], 64);
        let answer = Answer::parse(&bytes.unwrap());
        assert_eq!(answer.type_(), PARAMETER);
        assert_eq!(answer.header.flags.get(), 0);
        assert_eq!(answer.header.fence_id.get(), 0);
    }
}

#[test]
fn a_longer_request_than_needed_is_accepted() {
    let mut driver = GpuDriver::new(64, 64);
    let mut request = request::resource_create_2d(1, 1, 8, 8);
    request.resize(4096, 0xaa);
    assert_eq!(driver.control(request).type_(), OK);
}

#[test]
fn every_command_without_its_feature_is_refused() {
    // vhost-device-gpu panics on a blob command it advertised; others never check.
    let (mut driver, _, _) = GpuDriver::rendering(64, 64);
    driver.gpu().activate(0, Activation::Fresh);
    for info in COMMANDS.iter().filter(|info| info.feature != 0) {
        let answer = driver.send(info.queue, request::empty(info.id)).unwrap();
        assert_eq!(answer.type_(), UNSPEC, "{}", info.id);
    }
    let errors = driver.gpu().status().counters.errors;
    let gated = COMMANDS.iter().filter(|info| info.feature != 0).count();
    let counted = errors.get(ErrorKind::FeatureNotNegotiated);
    assert_eq!(counted, u64::try_from(gated).unwrap());
}

#[test]
fn a_command_of_the_other_queue_and_an_unknown_one_are_refused() {
    let mut driver = with_resource();
    for info in COMMANDS {
        let other = match info.queue {
            Queue::Control => Queue::Cursor,
            Queue::Cursor => Queue::Control,
        };
        let answer = driver.send(other, request::empty(info.id)).unwrap();
        assert_eq!(answer.type_(), UNSPEC, "{}", info.id);
    }
    for id in [0, 0xff, 0x10e, 0x1ff, 0x20a, 0x302, 0x1100, u32::MAX] {
        for queue in [Queue::Control, Queue::Cursor] {
            let answer = driver.send(queue, request::bare(CommandId(id), 128));
            assert_eq!(answer.unwrap().type_(), UNSPEC, "{id:#x}");
        }
    }
}

#[test]
fn without_a_renderer_no_feature_of_3d_is_offered() {
    let mut driver = GpuDriver::new(64, 64);
    let features = driver.gpu().device_features();
    assert_eq!(features & (feature::VIRGL | feature::CONTEXT_INIT), 0);
    assert_eq!(driver.gpu().config_space()[12..16], [0; 4]);
    // Nor can a guest take what was not offered.
    driver.gpu().activate(u64::MAX, Activation::Fresh);
    assert_eq!(driver.in_context(1, request::ctx_create(0)), UNSPEC);
}

#[test]
fn an_error_answer_still_carries_its_fence() {
    let mut driver = GpuDriver::new(64, 64);
    let fence = WithFence {
        id: 0xdead_beef_0000_0005,
        ctx_id: 7,
        ring_idx: None,
    };
    let answer = driver.fenced(fence, request::resource_unref(99)).unwrap();
    assert_eq!(answer.type_(), RESOURCE_ID);
    assert_eq!(answer.header.flags.get(), 1);
    assert_eq!(answer.header.fence_id.get(), 0xdead_beef_0000_0005);
    assert_eq!(answer.header.ctx_id.get(), 7);
    let answer = driver.control(request::resource_unref(99));
    assert_eq!(answer.header.flags.get(), 0);
    assert_eq!(answer.header.fence_id.get(), 0);
}

#[test]
fn every_byte_of_every_reply_is_defined_and_inside_the_guests_room() {
    // CVE-2016-9845, CVE-2017-5578, CVE-2021-3545: uninitialised reply bytes.
    let (mut driver, _, _) = GpuDriver::rendering(64, 64);
    driver.framebuffer(0, 1, PixelFormat::BGRX, 64, 64);
    let memory = driver.transport.memory.clone();
    for (request, whole) in [
        (request::get_display_info(), 408),
        (request::get_edid(0), 1056),
        (request::resource_assign_uuid(1), 40),
        (request::get_capset_info(0), 40),
        (request::get_capset(2, 1), 40),
        (request::resource_flush(1, Rect::sized(1, 1)), 24),
    ] {
        for room in [0, 1, 23, 24, 25, 40, 407, 408, 1055, 1056, 5000] {
            let mut response = Response::new(room);
            let _ = driver.gpu().control(&request, &memory, &mut response);
            assert_eq!(response.bytes().len(), room.min(whole));
            assert_eq!(response.lost(), whole.saturating_sub(room));
            if let Some(padding) = response.bytes().get(21..24) {
                assert_eq!(padding, [0; 3]);
            }
            let mut again = Response::new(room);
            let _ = driver.gpu().control(&request, &memory, &mut again);
            assert_eq!(again.bytes(), response.bytes());
        }
    }
    let counters = driver.gpu().status().counters;
    assert!(counters.truncated_responses > 0);
}

#[test]
fn a_hundred_thousand_creations_hold_no_more_than_one() {
    // CVE-2016-9912, CVE-2017-5552, CVE-2017-5857, CVE-2017-9060
    let mut driver = GpuDriver::new(64, 64);
    let buffer = driver.ram.alloc(16 * 16 * 4, Layout::Pages);
    let mut peak = 0;
    for _ in 0..100_000 {
        assert_eq!(driver.create_2d(7, PixelFormat::BGRX, 16, 16), OK);
        assert_eq!(driver.attach(7, &buffer), OK);
        let held = driver.gpu().status().host_bytes;
        peak = if peak == 0 { held } else { peak };
        assert_eq!(held, peak);
        assert_eq!(driver.unref(7), OK);
    }
    assert_eq!(driver.gpu().status().host_bytes, 0);
    for _ in 0..100_000 {
        driver.create_2d(7, PixelFormat::BGRX, 1, 1);
        driver.attach(7, &buffer);
        driver.detach(7);
    }
    assert_eq!(driver.gpu().status().host_bytes, 4);
}

#[test]
fn a_blob_of_the_host_needs_a_renderer() {
    let mut driver = GpuDriver::new(64, 64);
    for blob_mem in [0, BLOB_MEM_HOST3D, 3, 4, u32::MAX] {
        let request = request::resource_create_blob(1, blob_mem, 0, 4096, &[]);
        assert_eq!(driver.control(request).type_(), PARAMETER, "{blob_mem}");
    }
}
