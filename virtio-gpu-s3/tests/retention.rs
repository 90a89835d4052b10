// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What survives a frozen reset, and what a full one takes away.

use std::thread;

use virtio_gpu_s3::protocol::{ResponseType, feature};
use virtio_gpu_s3::{Activation, GpuConfig, Limits, OutputConfig, PixelFormat, Rect, ResetKind};
use virtio_gpu_s3_testing::{
    GpuDriver, GuestBuffer, GuestRam, Layout, WithFence, pattern, request,
};

const OK: ResponseType = ResponseType::OK_NODATA;

/// A driver with a picture on its scanout, a cursor, and a resource that has a UUID.
fn with_state() -> (GpuDriver, GuestBuffer) {
    let mut driver = GpuDriver::new(48, 48);
    let buffer = driver.framebuffer(0, 1, PixelFormat::BGRX, 48, 48);
    driver.draw(1, &buffer, &pattern(1, 48 * 48 * 4), 48, 48);
    let cursor = driver.ram.alloc(64 * 64 * 4, Layout::Pages);
    driver.create_2d(2, PixelFormat::BGRA, 64, 64);
    driver.attach(2, &cursor);
    driver.ram.write(&cursor, 0, &pattern(2, 64 * 64 * 4));
    driver.transfer(2, Rect::sized(64, 64), 0);
    driver.update_cursor(0, 2, 5, 6);
    driver.control(request::resource_assign_uuid(2));
    (driver, buffer)
}

#[test]
fn a_frozen_reset_keeps_pictures_cursor_backings_and_uuids() {
    for how in [Activation::Reinstated, Activation::Retained] {
        let (mut driver, buffer) = with_state();
        let before = driver.scanout_image(0, true).unwrap();
        let uuid = driver.control(request::resource_assign_uuid(2));
        driver.gpu().reset(ResetKind::Frozen);
        // While the guest sleeps a screenshot still shows its picture.
        assert_eq!(driver.scanout_image(0, true), Some(before.clone()));
        let features = driver.gpu().device_features();
        driver.gpu().activate(features, how);
        assert_eq!(driver.scanout_image(0, true), Some(before));
        assert_eq!(
            driver.control(request::resource_assign_uuid(2)).body,
            uuid.body
        );
        // Drawing goes on through the old backing.
        driver.draw(1, &buffer, &pattern(3, 48 * 48 * 4), 48, 48);
        let image = driver.scanout_image(0, false).unwrap();
        assert_eq!(image.pixels[2], pattern(3, 4)[0]);
    }
}

#[test]
fn a_frozen_reset_leaves_the_screen_alone() {
    let (mut driver, mut screen) = GpuDriver::with_screen(1, 32, 32);
    let buffer = driver.framebuffer(0, 1, PixelFormat::BGRX, 32, 32);
    driver.draw(1, &buffer, &pattern(1, 4096), 32, 32);
    screen.look(&mut driver);
    let (image, modes) = (screen.image(0), screen.mode_changes());
    driver.sleep_and_wake(Activation::Reinstated);
    screen.look(&mut driver);
    assert_eq!((screen.image(0), screen.mode_changes()), (image, modes));
}

#[test]
fn a_reset_without_a_hold_destroys_every_resource() {
    let (mut driver, _) = with_state();
    driver.gpu().reset(ResetKind::Full);
    let status = driver.gpu().status();
    assert_eq!(status.counters.full_resets, 1);
    assert_eq!((status.resources, status.host_bytes), (0, 0));
    assert_eq!(status.scanouts[0].resource_id, None);
    assert!(!status.scanouts[0].cursor);
    let image = driver.scanout_image(0, true).unwrap();
    assert!(image.pixels.chunks(4).all(|p| p == [0, 0, 0, 255]));
    let features = driver.gpu().device_features();
    driver.gpu().activate(features, Activation::Fresh);
    assert_eq!(driver.unref(1), ResponseType::ERR_INVALID_RESOURCE_ID);
    assert_eq!(driver.create_2d(1, PixelFormat::BGRX, 8, 8), OK);
}

#[test]
fn a_full_reset_turns_the_screen_off() {
    let (mut driver, mut screen) = GpuDriver::with_screen(2, 64, 64);
    driver.framebuffer(1, 1, PixelFormat::BGRX, 64, 64);
    driver.update_cursor(1, 1, 0, 0);
    screen.look(&mut driver);
    assert!(screen.image(1).is_some() && screen.cursor(1).is_some());
    driver.gpu().reset(ResetKind::Full);
    screen.look(&mut driver);
    assert!(screen.image(1).is_none() && screen.cursor(1).is_none());
}

#[test]
fn a_rebooted_guest_may_create_an_id_that_is_only_retained() {
    let (mut driver, _) = with_state();
    driver.sleep_and_wake(Activation::Retained);
    assert_eq!(driver.gpu().status().retained, 2);
    assert_eq!(driver.create_2d(1, PixelFormat::BGRX, 16, 16), OK);
    let status = driver.gpu().status();
    assert_eq!((status.resources, status.retained), (2, 1));
    assert_eq!(status.counters.replaced_resources, 1);
    // The picture of before goes with its resource: it is another guest's.
    assert_eq!(status.scanouts[0].resource_id, None);
    assert_eq!(
        driver.create_2d(1, PixelFormat::BGRX, 16, 16),
        ResponseType::ERR_INVALID_RESOURCE_ID
    );
}

#[test]
fn a_failed_creation_leaves_the_retained_resource_alone() {
    let (mut driver, _) = with_state();
    driver.sleep_and_wake(Activation::Retained);
    let before = driver.scanout_image(0, false);
    assert_ne!(driver.create_2d(1, PixelFormat::BGRX, 0, 16), OK);
    assert_ne!(driver.create_2d(1, PixelFormat::BGRX, 32768, 32768), OK);
    assert_eq!(driver.scanout_image(0, false), before);
}

#[test]
fn a_resource_that_a_command_names_is_live_again() {
    let (mut driver, buffer) = with_state();
    driver.sleep_and_wake(Activation::Retained);
    driver.draw(1, &buffer, &pattern(9, 48 * 48 * 4), 48, 48);
    assert_eq!(driver.gpu().status().retained, 1);
    assert_eq!(
        driver.create_2d(1, PixelFormat::BGRX, 16, 16),
        ResponseType::ERR_INVALID_RESOURCE_ID
    );
}

#[test]
fn reinstated_queues_make_everything_live() {
    let (mut driver, _) = with_state();
    driver.sleep_and_wake(Activation::Reinstated);
    assert_eq!(driver.gpu().status().retained, 0);
    for id in [1, 2] {
        assert_eq!(
            driver.create_2d(id, PixelFormat::BGRX, 16, 16),
            ResponseType::ERR_INVALID_RESOURCE_ID
        );
    }
}

#[test]
fn a_second_frozen_reset_keeps_again() {
    let (mut driver, _) = with_state();
    let before = driver.scanout_image(0, true);
    for _ in 0..5 {
        driver.gpu().reset(ResetKind::Frozen);
    }
    let features = driver.gpu().device_features();
    driver.gpu().activate(features, Activation::Reinstated);
    assert_eq!(driver.scanout_image(0, true), before);
    assert_eq!(driver.gpu().status().counters.frozen_resets, 5);
}

#[test]
fn features_end_with_every_reset() {
    for kind in [ResetKind::Frozen, ResetKind::Full] {
        let mut driver = GpuDriver::new(64, 64);
        driver.gpu().reset(kind);
        let answer = driver.control(request::get_edid(0));
        assert_eq!(answer.type_(), ResponseType::ERR_UNSPEC);
        driver.gpu().activate(feature::EDID, Activation::Fresh);
        let answer = driver.control(request::get_edid(0));
        assert_eq!(answer.type_(), ResponseType::OK_EDID);
    }
}

#[test]
fn a_display_event_survives_only_a_frozen_reset() {
    let mut driver = GpuDriver::new(64, 64);
    let larger = OutputConfig {
        width: 80,
        height: 80,
    };
    driver.gpu().resize_output(0, larger).unwrap();
    driver.gpu().reset(ResetKind::Frozen);
    assert_eq!(driver.gpu().config_space()[0], 1);
    driver.gpu().reset(ResetKind::Full);
    assert_eq!(driver.gpu().config_space()[0], 0);
}

#[test]
fn a_thousand_cycles_of_each_reset_leak_nothing() {
    let (mut driver, _) = with_state();
    let held = driver.gpu().status().host_bytes;
    for _ in 0..1000 {
        driver.sleep_and_wake(Activation::Reinstated);
    }
    let status = driver.gpu().status();
    assert_eq!((status.resources, status.host_bytes), (2, held));
    let buffer = driver.ram.alloc(32 * 32 * 4, Layout::Pages);
    for _ in 0..1000 {
        driver.gpu().reset(ResetKind::Full);
        let features = driver.gpu().device_features();
        driver.gpu().activate(features, Activation::Fresh);
        assert_eq!(driver.gpu().status().host_bytes, 0);
        assert_eq!(driver.create_2d(1, PixelFormat::BGRX, 32, 32), OK);
        assert_eq!(driver.attach(1, &buffer), OK);
        assert_eq!(driver.set_scanout(0, 1, Rect::sized(32, 32)), OK);
    }
}

#[test]
fn unseen_reboots_cannot_fill_the_device_with_leftovers() {
    let output = OutputConfig {
        width: 64,
        height: 64,
    };
    let limits = Limits {
        max_host_bytes: 10 * 64 * 64 * 4,
        ..Limits::default()
    };
    let config = GpuConfig::new(vec![output]).unwrap();
    let mut driver = GpuDriver::with_config(config.with_limits(limits).unwrap());
    // Each boot uses other ids, so nothing is replaced.
    for boot in 0..20_u32 {
        for resource in 1..=4 {
            let id = boot * 100 + resource;
            assert_eq!(driver.create_2d(id, PixelFormat::BGRX, 64, 64), OK);
            let whole = Rect::sized(64, 64);
            assert_eq!(driver.set_scanout(0, id, whole), OK);
        }
        driver.sleep_and_wake(Activation::Retained);
    }
    let status = driver.gpu().status();
    assert!(status.host_bytes <= limits.max_host_bytes);
    assert!(status.counters.evicted_resources > 0);
    // What is on the scanout is never given up.
    assert_eq!(status.scanouts[0].resource_id, Some(1904));
}

#[test]
fn live_resources_are_never_given_up_for_room() {
    let output = OutputConfig {
        width: 64,
        height: 64,
    };
    let limits = Limits {
        max_host_bytes: 4 * 64 * 64 * 4,
        ..Limits::default()
    };
    let config = GpuConfig::new(vec![output]).unwrap();
    let mut driver = GpuDriver::with_config(config.with_limits(limits).unwrap());
    for id in 1..=4 {
        assert_eq!(driver.create_2d(id, PixelFormat::BGRX, 64, 64), OK);
    }
    driver.sleep_and_wake(Activation::Reinstated);
    assert_eq!(
        driver.create_2d(5, PixelFormat::BGRX, 64, 64),
        ResponseType::ERR_OUT_OF_MEMORY
    );
    assert_eq!(driver.gpu().status().resources, 4);
}

#[test]
fn memory_mapped_elsewhere_is_read_through_the_same_guest_addresses() {
    let (mut driver, buffer) = with_state();
    let before = driver.scanout_image(0, false);
    driver.sleep_and_wake(Activation::Reinstated);
    let elsewhere = GuestRam::new(64 << 20);
    driver.transport.memory = elsewhere.memory().clone();
    let memory = elsewhere.memory().clone();
    driver.gpu().memory_changed(&memory).unwrap();
    assert_eq!(driver.scanout_image(0, false), before);
    elsewhere.write(&buffer, 0, &pattern(6, 48 * 48 * 4));
    assert_eq!(driver.transfer(1, Rect::sized(48, 48), 0), OK);
    let image = driver.scanout_image(0, false).unwrap();
    assert_eq!(image.pixels[2], pattern(6, 4)[0]);
}

#[test]
fn a_device_without_outstanding_fences_is_quiet_at_once() {
    let (mut driver, _) = with_state();
    let fence = WithFence {
        id: 1,
        ctx_id: 0,
        ring_idx: None,
    };
    let answer = driver.fenced(fence, request::resource_flush(1, Rect::sized(48, 48)));
    assert_eq!(answer.unwrap().header.fence_id.get(), 1);
    driver.quiesce().unwrap();
}

#[test]
fn a_device_can_move_to_another_thread() {
    let (driver, _) = with_state();
    let gpu = driver.transport.gpu;
    let resources = thread::spawn(move || gpu.status().resources);
    assert_eq!(resources.join().unwrap(), 2);
}
