// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Blobs of guest memory, as Linux uses them for framebuffers once it can.

use virtio_gpu_s3::command::BlobLayout;
use virtio_gpu_s3::protocol::ResponseType;
use virtio_gpu_s3::{Activation, LookError, PixelFormat, Rect, ResetKind, Seen};
use virtio_gpu_s3_testing::{GpuDriver, GuestBuffer, Layout, Screen, pattern, request};

const OK: ResponseType = ResponseType::OK_NODATA;
const UNSPEC: ResponseType = ResponseType::ERR_UNSPEC;
const PARAMETER: ResponseType = ResponseType::ERR_INVALID_PARAMETER;

const WIDTH: u32 = 50;
const HEIGHT: u32 = 40;
const WHOLE: Rect = Rect::sized(WIDTH, HEIGHT);
/// A stride as dumb buffers have it, wider than the picture.
const LAYOUT: BlobLayout = BlobLayout {
    width: WIDTH,
    height: HEIGHT,
    format: PixelFormat::BGRX,
    stride: 256,
    offset: 0,
};
const BLOB_BYTES: usize = 3 * 4096;

fn with_blob() -> (GpuDriver, Screen, GuestBuffer) {
    let (mut driver, screen) = GpuDriver::with_screen(1, WIDTH, HEIGHT);
    let buffer = driver.ram.alloc(BLOB_BYTES, Layout::Pages);
    let size = u64::try_from(BLOB_BYTES).unwrap();
    assert_eq!(driver.create_guest_blob(1, size, Some(&buffer)), OK);
    assert_eq!(driver.set_scanout_blob(0, 1, WHOLE, &LAYOUT), OK);
    (driver, screen, buffer)
}

/// The picture that `memory` holds by `LAYOUT`.
fn picture(memory: &[u8]) -> Vec<u8> {
    let rows = memory.chunks(LAYOUT.stride as usize).take(HEIGHT as usize);
    let pixels = rows.flat_map(|row| row[..WIDTH as usize * 4].chunks(4));
    pixels.flat_map(|p| [p[2], p[1], p[0], 255]).collect()
}

#[test]
fn a_flush_shows_what_the_guest_wrote_without_a_transfer() {
    let (mut driver, mut screen, buffer) = with_blob();
    let memory = pattern(1, BLOB_BYTES);
    driver.ram.write(&buffer, 0, &memory);
    assert_eq!(driver.flush(1, WHOLE), OK);
    let image = driver.scanout_image(0, false).unwrap();
    assert_eq!(image.pixels, picture(&memory));
    assert_eq!(screen.look(&mut driver).image(0), Some(image));
}

#[test]
fn a_look_reads_guest_memory_where_a_shown_blob_has_it_and_nowhere_else() {
    let (mut driver, _, buffer) = with_blob();
    let other = driver.ram.alloc(4096, Layout::Pages);
    assert_eq!(driver.create_guest_blob(2, 4096, Some(&other)), OK);
    let gpu = driver.gpu();
    for page in buffer.entries() {
        let first = page.addr.get();
        assert!(gpu.shows_memory_within(first, first), "{first:#x}");
    }
    for page in other.entries() {
        let first = page.addr.get();
        assert!(
            !gpu.shows_memory_within(first, first + 0xfff),
            "nobody sees it"
        );
    }
    assert!(gpu.shows_memory_within(0, u64::MAX));
    driver.control(request::set_scanout(0, 0, Rect::default()));
    assert!(!driver.gpu().shows_memory_within(0, u64::MAX));
}

#[test]
fn what_the_guest_writes_after_a_look_is_not_shown_before_the_next_flush() {
    let (mut driver, _, buffer) = with_blob();
    driver.ram.write(&buffer, 0, &pattern(1, BLOB_BYTES));
    driver.flush(1, WHOLE);
    let before = driver.scanout_image(0, false);
    driver.ram.write(&buffer, 0, &pattern(2, BLOB_BYTES));
    assert_eq!(driver.scanout_image(0, false), before);
}

#[test]
fn only_the_damaged_part_is_read() {
    let (mut driver, mut screen, buffer) = with_blob();
    let old = pattern(1, BLOB_BYTES);
    driver.ram.write(&buffer, 0, &old);
    driver.flush(1, WHOLE);
    screen.look(&mut driver);
    driver.ram.write(&buffer, 0, &pattern(2, BLOB_BYTES));
    let rect = Rect {
        x: 10,
        y: 5,
        width: 7,
        height: 30,
    };
    assert_eq!(driver.flush(1, rect), OK);
    let (old, new) = (picture(&old), picture(&pattern(2, BLOB_BYTES)));
    let image = driver.scanout_image(0, false).unwrap();
    for (index, pixel) in image.pixels.chunks(4).enumerate() {
        let index = u32::try_from(index).unwrap();
        let (x, y) = (index % WIDTH, index / WIDTH);
        let inside = (10..17).contains(&x) && (5..35).contains(&y);
        let from = if inside { &new } else { &old };
        assert_eq!(pixel, &from[index as usize * 4..][..4], "{x} {y}");
    }
    assert_eq!(screen.look(&mut driver).image(0), Some(image));
}

#[test]
fn a_part_of_a_blob_at_an_offset_can_fill_a_scanout() {
    let (mut driver, mut screen) = GpuDriver::with_screen(1, 32, 32);
    let buffer = driver.ram.alloc(BLOB_BYTES, Layout::Pages);
    driver.create_guest_blob(1, 12_000, Some(&buffer));
    let layout = BlobLayout {
        offset: 1004,
        ..LAYOUT
    };
    let rect = Rect {
        x: 30,
        y: 30,
        width: 20,
        height: 10,
    };
    assert_eq!(driver.set_scanout_blob(0, 1, rect, &layout), OK);
    let memory = pattern(4, BLOB_BYTES);
    driver.ram.write(&buffer, 0, &memory);
    driver.flush(1, WHOLE);
    let image = screen.look(&mut driver).image(0).unwrap();
    for y in 0..10_u32 {
        for x in 0..20_u32 {
            let at = (1004 + (y + 30) * 256 + (x + 30) * 4) as usize;
            let expected = [memory[at + 2], memory[at + 1], memory[at], 255];
            assert_eq!(image.pixel(x, y), Some(expected));
        }
    }
}

#[test]
fn a_flip_between_blobs_shows_all_of_the_new_one_and_never_black() {
    let (mut driver, mut screen, buffer) = with_blob();
    driver.ram.write(&buffer, 0, &pattern(1, BLOB_BYTES));
    driver.flush(1, WHOLE);
    let modes = screen.look(&mut driver).mode_changes();
    let other = driver.ram.alloc(BLOB_BYTES, Layout::Pages);
    driver.create_guest_blob(2, 12_288, Some(&other));
    driver.ram.write(&other, 0, &pattern(2, BLOB_BYTES));
    driver.set_scanout_blob(0, 2, WHOLE, &LAYOUT);
    let image = driver.scanout_image(0, false).unwrap();
    assert_eq!(image.pixels, picture(&pattern(2, BLOB_BYTES)));
    driver.ram.write(&other, 0, &pattern(3, BLOB_BYTES));
    driver.flush(2, Rect::sized(1, 1));
    let image = driver.scanout_image(0, false).unwrap();
    assert_eq!(image.pixels, picture(&pattern(3, BLOB_BYTES)));
    screen.look(&mut driver);
    assert_eq!(
        (screen.image(0), screen.mode_changes()),
        (Some(image), modes)
    );
}

#[test]
fn a_blob_picture_survives_a_frozen_reset() {
    let (mut driver, _, buffer) = with_blob();
    driver.ram.write(&buffer, 0, &pattern(1, BLOB_BYTES));
    driver.flush(1, WHOLE);
    let before = driver.scanout_image(0, false);
    driver.sleep_and_wake(Activation::Reinstated);
    assert_eq!(driver.scanout_image(0, false), before);
    driver.ram.write(&buffer, 0, &pattern(2, BLOB_BYTES));
    assert_eq!(driver.flush(1, WHOLE), OK);
    let image = driver.scanout_image(0, false).unwrap();
    assert_eq!(image.pixels, picture(&pattern(2, BLOB_BYTES)));
}

#[test]
fn a_scanouts_copy_of_a_blob_counts_as_host_memory_until_it_ends() {
    let (mut driver, _, _) = with_blob();
    let with_scanout = driver.gpu().status().host_bytes;
    driver.set_scanout_blob(0, 1, WHOLE, &LAYOUT);
    assert_eq!(driver.gpu().status().host_bytes, with_scanout);
    driver.set_scanout_blob(0, 0, WHOLE, &LAYOUT);
    let without = driver.gpu().status().host_bytes;
    assert_eq!(with_scanout - without, u64::from(WIDTH * HEIGHT * 4));
    driver.set_scanout_blob(0, 1, WHOLE, &LAYOUT);
    driver.gpu().reset(ResetKind::Full);
    assert_eq!(driver.gpu().status().host_bytes, 0);
}

#[test]
fn a_blob_larger_than_its_backing_is_refused() {
    // QEMU #4112: a 1-byte backing and a 16 KiB scanout send the host's heap to the viewer.
    let mut driver = GpuDriver::new(64, 64);
    let one_byte = GuestBuffer::of(&[(0x5000, 1)]);
    assert_eq!(
        driver.create_guest_blob(1, 16384, Some(&one_byte)),
        PARAMETER
    );
    // The backing may also come later; it then has the same rule.
    assert_eq!(driver.create_guest_blob(1, 16384, None), OK);
    let layout = BlobLayout {
        width: 64,
        height: 64,
        stride: 256,
        ..LAYOUT
    };
    let rect = Rect::sized(64, 64);
    assert_eq!(driver.set_scanout_blob(0, 1, rect, &layout), OK);
    assert_eq!(driver.attach(1, &one_byte), PARAMETER);
    assert_eq!(driver.flush(1, rect), UNSPEC);
    let memory = driver.transport.memory.clone();
    let looked = driver.gpu().look(0, Seen::default(), &memory);
    assert!(matches!(looked, Err(LookError::Guest(_))), "{looked:?}");
    let picture = driver.gpu().last_picture(0, Seen::default()).unwrap();
    let image = picture.to_image(false);
    assert!(image.pixels.chunks(4).all(|p| p == [0, 0, 0, 255]));
    assert_eq!(driver.gpu().status().counters.flushes, 0);
    let buffer = driver.ram.alloc(16384, Layout::Pages);
    assert_eq!(driver.attach(1, &buffer), OK);
    assert_eq!(driver.flush(1, rect), OK);
}

#[test]
fn offsets_strides_and_heights_near_2_to_the_32_are_refused() {
    // QEMU #3871: a 32-bit sum in SET_SCANOUT_BLOB.
    let (mut driver, _, _) = with_blob();
    let max = u32::MAX;
    for layout in [
        BlobLayout {
            offset: max,
            ..LAYOUT
        },
        BlobLayout {
            offset: max - 255,
            ..LAYOUT
        },
        BlobLayout {
            stride: max,
            ..LAYOUT
        },
        BlobLayout {
            stride: 0x1000_0000,
            offset: 0x9000_0000,
            ..LAYOUT
        },
        BlobLayout {
            stride: WIDTH * 4 - 1,
            ..LAYOUT
        },
        BlobLayout {
            stride: 0,
            ..LAYOUT
        },
        BlobLayout {
            height: max,
            ..LAYOUT
        },
        BlobLayout {
            width: max,
            ..LAYOUT
        },
        BlobLayout { width: 0, ..LAYOUT },
        BlobLayout {
            height: 0,
            ..LAYOUT
        },
        // One row too many for the blob.
        BlobLayout {
            height: 49,
            ..LAYOUT
        },
    ] {
        let answer = driver.set_scanout_blob(0, 1, Rect::sized(16, 16), &layout);
        assert_eq!(answer, PARAMETER, "{layout:?}");
    }
    let outside = Rect::sized(WIDTH + 1, 1);
    assert_eq!(driver.set_scanout_blob(0, 1, outside, &LAYOUT), PARAMETER);
    assert_eq!(
        driver.set_scanout_blob(0, 1, Rect::sized(0, 1), &LAYOUT),
        PARAMETER
    );
    assert_eq!(driver.gpu().status().scanouts[0].width, WIDTH);
}

#[test]
fn commands_of_the_other_kind_of_resource_are_refused() {
    let (mut driver, _, _) = with_blob();
    assert_eq!(driver.set_scanout(0, 1, Rect::sized(1, 1)), UNSPEC);
    driver.create_2d(2, PixelFormat::BGRX, 64, 64);
    assert_eq!(driver.set_scanout_blob(0, 2, WHOLE, &LAYOUT), UNSPEC);
}

#[test]
fn the_transfer_that_linux_sends_before_a_flush_does_nothing_to_a_blob() {
    let (mut driver, mut screen, buffer) = with_blob();
    driver.ram.write(&buffer, 0, &pattern(1, BLOB_BYTES));
    screen.look(&mut driver).take_damage();
    let before = driver.gpu().status();
    assert_eq!(driver.transfer(1, WHOLE, 0), OK);
    assert_eq!(screen.look(&mut driver).take_damage(), []);
    let after = driver.gpu().status().counters;
    assert_eq!(after.transferred_bytes, before.counters.transferred_bytes);
}

#[test]
fn flags_the_standard_does_not_define_and_a_size_of_0_are_refused() {
    let mut driver = GpuDriver::new(64, 64);
    for (flags, size) in [(8, 4096), (u32::MAX, 4096), (0, 0)] {
        let request = request::resource_create_blob(1, 1, flags, size, &[]);
        assert_eq!(driver.control(request).type_(), PARAMETER);
    }
    // Nothing is allocated for the size a guest names for its own memory.
    assert_eq!(driver.create_guest_blob(1, u64::MAX, None), OK);
    assert_eq!(driver.gpu().status().host_bytes, 0);
}

#[test]
fn a_format_outside_the_standard_is_refused_unless_the_scanout_goes_off() {
    let (mut driver, mut screen, _) = with_blob();
    let mut off = request::set_scanout_blob(0, 0, Rect::default(), &LAYOUT);
    let mut on = request::set_scanout_blob(0, 1, WHOLE, &LAYOUT);
    for request in [&mut off, &mut on] {
        request[56..60].copy_from_slice(&0_u32.to_le_bytes());
    }
    assert_eq!(driver.control(on).type_(), PARAMETER);
    assert!(screen.look(&mut driver).image(0).is_some());
    assert_eq!(driver.control(off).type_(), OK);
    assert!(screen.look(&mut driver).image(0).is_none());
}
