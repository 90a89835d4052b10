// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The cursor queue.

use virtio_gpu_s3::protocol::{Queue, ResponseType};
use virtio_gpu_s3::{PixelFormat, Rect};
use virtio_gpu_s3_testing::{GpuDriver, Layout, Screen, Transport, request};

const OK: ResponseType = ResponseType::OK_NODATA;

/// A driver with a black scanout and a 64 × 64 resource of opaque red under id 2.
fn with_cursor() -> (GpuDriver, Screen) {
    let (mut driver, screen) = GpuDriver::with_screen(1, 200, 200);
    driver.framebuffer(0, 1, PixelFormat::BGRX, 200, 200);
    make_cursor(&mut driver, 2, [0, 0, 255, 255]);
    (driver, screen)
}

/// A resource of 64 × 64 such pixels.
fn make_cursor(driver: &mut GpuDriver, id: u32, pixel: [u8; 4]) {
    let buffer = driver.ram.alloc(64 * 64 * 4, Layout::Pages);
    driver.create_2d(id, PixelFormat::BGRA, 64, 64);
    driver.attach(id, &buffer);
    driver.ram.write(&buffer, 0, &pixel.repeat(64 * 64));
    driver.transfer(id, Rect::sized(64, 64), 0);
}

fn red_pixels(driver: &mut GpuDriver) -> usize {
    let image = driver.scanout_image(0, true).unwrap();
    image
        .pixels
        .chunks(4)
        .filter(|p| *p == [255, 0, 0, 255])
        .count()
}

#[test]
fn a_cursor_is_shown_where_the_guest_puts_it_even_half_outside() {
    let (mut driver, mut screen) = with_cursor();
    assert_eq!(driver.update_cursor(0, 2, 10, 20), OK);
    let image = driver.scanout_image(0, true).unwrap();
    assert_eq!(image.pixel(10, 20), Some([255, 0, 0, 255]));
    assert_eq!(image.pixel(73, 83), Some([255, 0, 0, 255]));
    assert_eq!(image.pixel(9, 20), Some([0, 0, 0, 255]));
    assert_eq!(image.pixel(74, 83), Some([0, 0, 0, 255]));
    assert!(screen.look(&mut driver).cursor(0).is_some());
    for (x, y, visible) in [
        (-32, 0, 32 * 64),
        (0, -63, 64),
        (199, 199, 1),
        (200, 0, 0),
        (i32::MIN, i32::MAX, 0),
        (i32::MAX, i32::MIN, 0),
    ] {
        assert_eq!(driver.move_cursor(0, x, y), OK);
        assert_eq!(red_pixels(&mut driver), visible, "{x} {y}");
        assert_eq!(screen.look(&mut driver).cursor_position(0), (x, y));
    }
}

#[test]
fn a_screenshot_can_leave_the_cursor_out() {
    let (mut driver, _) = with_cursor();
    driver.update_cursor(0, 2, 0, 0);
    let image = driver.scanout_image(0, false).unwrap();
    assert!(image.pixels.chunks(4).all(|p| p == [0, 0, 0, 255]));
}

#[test]
fn resource_0_hides_the_cursor() {
    let (mut driver, mut screen) = with_cursor();
    driver.update_cursor(0, 2, 0, 0);
    assert_eq!(driver.update_cursor(0, 0, 0, 0), OK);
    assert_eq!(red_pixels(&mut driver), 0);
    assert!(screen.look(&mut driver).cursor(0).is_none());
}

#[test]
fn the_shape_is_the_one_of_the_update_not_of_later_drawing() {
    let (mut driver, _) = with_cursor();
    driver.update_cursor(0, 2, 0, 0);
    assert_eq!(driver.unref(2), OK);
    assert_eq!(red_pixels(&mut driver), 64 * 64);
    driver.move_cursor(0, 1, 1);
    assert_eq!(red_pixels(&mut driver), 64 * 64);
}

#[test]
fn a_cursor_of_another_size_is_refused_and_the_old_one_stays() {
    let (mut driver, _) = with_cursor();
    driver.update_cursor(0, 2, 0, 0);
    for (id, width, height) in [(3, 63, 64), (4, 64, 65), (5, 128, 32)] {
        driver.create_2d(id, PixelFormat::BGRA, width, height);
        assert_eq!(driver.update_cursor(0, id, 9, 9), ResponseType::ERR_UNSPEC);
    }
    let image = driver.scanout_image(0, true).unwrap();
    assert_eq!(image.pixel(0, 0), Some([255, 0, 0, 255]));
}

#[test]
fn a_blob_can_be_a_cursor() {
    let (mut driver, _) = with_cursor();
    let buffer = driver.ram.alloc(64 * 64 * 4, Layout::Pages);
    driver
        .ram
        .write(&buffer, 0, &[0, 0, 255, 255].repeat(64 * 64));
    assert_eq!(driver.create_guest_blob(7, 64 * 64 * 4, Some(&buffer)), OK);
    assert_eq!(driver.update_cursor(0, 7, 0, 0), OK);
    assert_eq!(red_pixels(&mut driver), 64 * 64);
    // QEMU's rule for a blob too small for a cursor; here it is an error, not silence.
    assert_eq!(driver.create_guest_blob(8, 4096, Some(&buffer)), OK);
    let short = driver.ram.alloc(4096, Layout::Pages);
    assert_eq!(driver.create_guest_blob(9, 4096, Some(&short)), OK);
    assert_eq!(
        driver.update_cursor(0, 9, 0, 0),
        ResponseType::ERR_INVALID_PARAMETER
    );
}

#[test]
fn a_texture_of_the_renderer_can_be_a_cursor() {
    let (mut driver, _, _) = GpuDriver::rendering(200, 200);
    driver.framebuffer(0, 1, PixelFormat::BGRX, 200, 200);
    driver.in_context(1, request::ctx_create(0));
    for (id, side) in [(7, 64), (8, 65)] {
        let create = request::resource_create_3d(id, &request::texture(side, side));
        assert_eq!(driver.control(create).type_(), OK);
    }
    driver.in_context(1, request::ctx_attach_resource(7));
    // The renderer fills it with opaque red.
    let fill = request::submit_3d(&[1, 7, 0xffff_0000]);
    assert_eq!(driver.in_context(1, fill), OK);
    assert_eq!(driver.update_cursor(0, 7, 0, 0), OK);
    assert_eq!(red_pixels(&mut driver), 64 * 64);
    assert_eq!(driver.update_cursor(0, 8, 0, 0), ResponseType::ERR_UNSPEC);
    assert_eq!(red_pixels(&mut driver), 64 * 64);
}

#[test]
fn a_driver_that_gives_no_room_for_an_answer_counts_as_no_truncation() {
    let (mut driver, _) = with_cursor();
    let request = request::update_cursor(0, 2, 0, 0, 0, 0);
    assert_eq!(
        driver.transport.send(Queue::Cursor, &request, 0),
        Ok(vec![])
    );
    let counters = driver.gpu().status().counters;
    assert_eq!(
        (counters.truncated_responses, counters.cursor_commands),
        (0, 1)
    );
}

#[test]
fn a_half_transparent_cursor_lets_the_picture_through() {
    let (mut driver, _) = with_cursor();
    let picture = driver.framebuffer(0, 3, PixelFormat::BGRX, 200, 200);
    driver.draw(3, &picture, &[100, 100, 100, 0].repeat(200 * 200), 200, 200);
    make_cursor(&mut driver, 4, [0, 128, 0, 128]);
    driver.update_cursor(0, 4, 0, 0);
    let image = driver.scanout_image(0, true).unwrap();
    assert_eq!(image.pixel(5, 5), Some([50, 178, 50, 255]));
    assert_eq!(image.pixel(64, 64), Some([100, 100, 100, 255]));
}
