// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pictures: from guest memory to a scanout, pixel by pixel.

use std::collections::BTreeSet;

use virtio_gpu_s3::protocol::ResponseType;
use virtio_gpu_s3::protocol::wire;
use virtio_gpu_s3::{GpuConfig, OutputConfig, PixelFormat, Rect};
use virtio_gpu_s3_testing::{GpuDriver, GuestBuffer, Layout, pattern, request};

const OK: ResponseType = ResponseType::OK_NODATA;

/// What a picture of these bytes looks like, written independently of the device: by the name of
/// the format, letter by letter.
fn expected(format: PixelFormat, bytes: &[u8]) -> Vec<u8> {
    let name = format.format().name().unwrap();
    let order: Vec<char> = name.chars().filter(|c| "RGBAX".contains(*c)).collect();
    let at = |component| order.iter().take(4).position(|c| *c == component).unwrap();
    let (red, green, blue) = (at('R'), at('G'), at('B'));
    let pixels = bytes.chunks(4);
    pixels
        .flat_map(|pixel| [pixel[red], pixel[green], pixel[blue], 255])
        .collect()
}

#[test]
fn every_format_reaches_the_screen_exactly() {
    for format in PixelFormat::ALL {
        let (mut driver, mut screen) = GpuDriver::with_screen(1, 61, 37);
        let buffer = driver.framebuffer(0, 1, format, 61, 37);
        let pixels = pattern(7, 61 * 37 * 4);
        driver.draw(1, &buffer, &pixels, 61, 37);
        let image = driver.scanout_image(0, false).unwrap();
        assert_eq!((image.width, image.height), (61, 37));
        assert_eq!(image.pixels, expected(format, &pixels));
        assert_eq!(screen.look(&mut driver).image(0), Some(image));
    }
}

#[test]
fn a_new_resource_is_black_not_what_the_host_had_in_memory() {
    let mut driver = GpuDriver::new(64, 64);
    for id in 1..20 {
        let buffer = driver.framebuffer(0, id, PixelFormat::BGRX, 64, 64);
        let image = driver.scanout_image(0, false).unwrap();
        assert!(image.pixels.chunks(4).all(|p| p == [0, 0, 0, 255]));
        driver.draw(id, &buffer, &pattern(id, 64 * 64 * 4), 64, 64);
        assert_eq!(driver.unref(id), OK);
    }
}

#[test]
fn a_rectangle_comes_from_its_offset_as_linux_computes_it() {
    for layout in [Layout::Contiguous, Layout::Pages] {
        let (width, height) = (333_u32, 100_u32);
        let mut driver = GpuDriver::new(width, height);
        let bytes = width as usize * height as usize * 4;
        let buffer = driver.ram.alloc(bytes, layout);
        driver.create_2d(1, PixelFormat::BGRX, width, height);
        driver.attach(1, &buffer);
        driver.set_scanout(0, 1, Rect::sized(width, height));
        let new = pattern(3, bytes);
        driver.ram.write(&buffer, 0, &new);
        let rect = Rect {
            x: 100,
            y: 21,
            width: 77,
            height: 50,
        };
        let offset = u64::from(rect.y * width + rect.x) * 4;
        assert_eq!(driver.transfer(1, rect, offset), OK);
        let image = driver.scanout_image(0, false).unwrap();
        let whole = expected(PixelFormat::BGRX, &new);
        for (index, pixel) in image.pixels.chunks(4).enumerate() {
            let index = u32::try_from(index).unwrap();
            let (x, y) = (index % width, index / width);
            let inside = (100..177).contains(&x) && (21..71).contains(&y);
            let at = index as usize * 4;
            let wanted = if inside {
                &whole[at..at + 4]
            } else {
                &[0, 0, 0, 255][..]
            };
            assert_eq!(pixel, wanted, "{x} {y}");
        }
    }
}

/// crosvm's descendants drop the offset.
#[test]
fn the_offset_alone_moves_a_full_transfer() {
    let mut driver = GpuDriver::new(32, 32);
    let buffer = driver.ram.alloc(3 * 4096, Layout::Pages);
    driver.create_2d(1, PixelFormat::BGRA, 32, 32);
    driver.attach(1, &buffer);
    driver.set_scanout(0, 1, Rect::sized(32, 32));
    let memory = pattern(1, 3 * 4096);
    driver.ram.write(&buffer, 0, &memory);
    assert_eq!(driver.transfer(1, Rect::sized(32, 32), 5004), OK);
    let image = driver.scanout_image(0, false).unwrap();
    assert_eq!(
        image.pixels,
        expected(PixelFormat::BGRA, &memory[5004..9100])
    );
}

#[test]
fn damage_alone_keeps_the_screen_right() {
    let (mut driver, mut screen) = GpuDriver::with_screen(1, 200, 100);
    let buffer = driver.framebuffer(0, 1, PixelFormat::BGRX, 200, 100);
    driver.draw(1, &buffer, &pattern(1, 200 * 100 * 4), 200, 100);
    driver.ram.write(&buffer, 0, &pattern(2, 200 * 100 * 4));
    screen.look(&mut driver).take_damage();
    for place in 0..40_u32 {
        let rect = Rect {
            x: place * 37 % 190,
            y: place * 11 % 93,
            width: 1 + place % 10,
            height: 1 + place % 7,
        };
        let offset = u64::from(rect.y * 200 + rect.x) * 4;
        assert_eq!(driver.transfer(1, rect, offset), OK);
        assert_eq!(driver.flush(1, rect), OK);
        assert_eq!(screen.look(&mut driver).take_damage(), [(0, rect)]);
        assert_eq!(
            screen.look(&mut driver).image(0),
            driver.scanout_image(0, false)
        );
    }
    assert_eq!(driver.gpu().status().counters.flushes, 41);
}

#[test]
fn one_resource_can_fill_several_scanouts_each_with_its_part() {
    let (mut driver, mut screen) = GpuDriver::with_screen(4, 50, 40);
    let buffer = driver.ram.alloc(100 * 80 * 4, Layout::Pages);
    driver.create_2d(9, PixelFormat::BGRX, 100, 80);
    driver.attach(9, &buffer);
    let corners = [(0, 0), (50, 0), (0, 40), (50, 40)];
    for (scanout, (x, y)) in (0..).zip(corners) {
        let rect = Rect {
            x,
            y,
            width: 50,
            height: 40,
        };
        assert_eq!(driver.set_scanout(scanout, 9, rect), OK);
    }
    let pixels = pattern(5, 100 * 80 * 4);
    driver.draw(9, &buffer, &pixels, 100, 80);
    screen.look(&mut driver).take_damage();
    let whole = expected(PixelFormat::BGRX, &pixels);
    for (scanout, (x, y)) in (0..).zip(corners) {
        let image = screen.look(&mut driver).image(scanout).unwrap();
        for row in 0..40_usize {
            let from = ((y as usize + row) * 100 + x as usize) * 4;
            assert_eq!(image.pixels[row * 200..][..200], whole[from..][..200]);
        }
    }
    // Damage across the corner the four share reaches each in its own coordinates.
    let rect = Rect {
        x: 49,
        y: 39,
        width: 2,
        height: 2,
    };
    assert_eq!(driver.flush(9, rect), OK);
    let dot = |x, y| Rect {
        x,
        y,
        width: 1,
        height: 1,
    };
    assert_eq!(
        screen.look(&mut driver).take_damage(),
        [
            (0, dot(49, 39)),
            (1, dot(0, 39)),
            (2, dot(49, 0)),
            (3, dot(0, 0))
        ]
    );
}

#[test]
fn a_page_flip_changes_no_mode_and_shows_all_of_the_new_buffer() {
    let (mut driver, mut screen) = GpuDriver::with_screen(1, 40, 30);
    let first = driver.framebuffer(0, 1, PixelFormat::BGRX, 40, 30);
    driver.draw(1, &first, &pattern(1, 40 * 30 * 4), 40, 30);
    let modes = screen.look(&mut driver).mode_changes();
    let second = driver.framebuffer(0, 2, PixelFormat::BGRX, 40, 30);
    driver.ram.write(&second, 0, &pattern(2, 40 * 30 * 4));
    driver.transfer(2, Rect::sized(40, 30), 0);
    driver.flush(2, Rect::sized(1, 1));
    assert_eq!(screen.look(&mut driver).mode_changes(), modes);
    assert_eq!(
        screen.look(&mut driver).image(0),
        driver.scanout_image(0, false)
    );
    let expected = expected(PixelFormat::BGRX, &pattern(2, 40 * 30 * 4));
    assert_eq!(screen.look(&mut driver).image(0).unwrap().pixels, expected);
}

#[test]
fn a_disabled_scanout_is_black_in_its_own_size() {
    let (mut driver, mut screen) = GpuDriver::with_screen(1, 80, 60);
    let buffer = driver.framebuffer(0, 1, PixelFormat::BGRX, 20, 20);
    driver.draw(1, &buffer, &pattern(1, 1600), 20, 20);
    assert_eq!(driver.set_scanout(0, 0, Rect::default()), OK);
    let image = driver.scanout_image(0, false).unwrap();
    assert_eq!((image.width, image.height), (80, 60));
    assert!(image.pixels.chunks(4).all(|p| p == [0, 0, 0, 255]));
    assert_eq!(screen.look(&mut driver).image(0), None);
    assert_eq!(driver.scanout_image(1, false), None);
}

#[test]
fn destroying_a_shown_resource_turns_its_scanouts_off_and_no_other() {
    let (mut driver, mut screen) = GpuDriver::with_screen(2, 16, 16);
    driver.framebuffer(0, 1, PixelFormat::BGRX, 16, 16);
    driver.framebuffer(1, 2, PixelFormat::BGRX, 16, 16);
    assert_eq!(driver.unref(1), OK);
    assert_eq!(screen.look(&mut driver).image(0), None);
    assert!(screen.look(&mut driver).image(1).is_some());
    let scanouts = driver.gpu().status().scanouts;
    assert_eq!(scanouts[0].resource_id, None);
    assert_eq!(scanouts[1].resource_id, Some(2));
}

#[test]
fn backing_can_be_detached_and_another_attached() {
    let mut driver = GpuDriver::new(16, 16);
    let buffer = driver.framebuffer(0, 1, PixelFormat::BGRA, 16, 16);
    driver.draw(1, &buffer, &pattern(1, 1024), 16, 16);
    assert_eq!(driver.detach(1), OK);
    let before = driver.scanout_image(0, false);
    assert_eq!(
        driver.transfer(1, Rect::sized(16, 16), 0),
        ResponseType::ERR_UNSPEC
    );
    assert_eq!(driver.scanout_image(0, false), before);
    let other = driver.ram.alloc(1024, Layout::Contiguous);
    assert_eq!(driver.attach(1, &other), OK);
    driver.draw(1, &other, &pattern(2, 1024), 16, 16);
    let image = driver.scanout_image(0, false).unwrap();
    assert_eq!(image.pixels, expected(PixelFormat::BGRA, &pattern(2, 1024)));
}

#[test]
fn an_empty_rectangle_moves_nothing_and_is_no_error() {
    let mut driver = GpuDriver::new(16, 16);
    driver.framebuffer(0, 1, PixelFormat::BGRA, 16, 16);
    for rect in [Rect::sized(0, 5), Rect::sized(5, 0)] {
        assert_eq!(driver.transfer(1, rect, u64::MAX), OK);
        assert_eq!(driver.flush(1, rect), OK);
    }
}

#[test]
fn display_info_and_edid_tell_the_configured_outputs() {
    let outputs = [(1280, 800), (3840, 2160), (5120, 2880)];
    let outputs = outputs.map(|(width, height)| OutputConfig { width, height });
    let mut driver = GpuDriver::with_config(GpuConfig::new(outputs.to_vec()).unwrap());
    let answer = driver.control(request::get_display_info());
    assert_eq!(answer.type_(), ResponseType::OK_DISPLAY_INFO);
    let info: wire::RespDisplayInfo = answer.payload();
    let mut x = 0;
    for (index, mode) in info.pmodes.iter().enumerate() {
        let output = outputs.get(index);
        assert_eq!(mode.enabled.get(), u32::from(output.is_some()));
        let size = output.map_or((0, 0), |output| (output.width, output.height));
        assert_eq!((mode.r.width.get(), mode.r.height.get()), size);
        assert_eq!(mode.r.x.get(), if output.is_some() { x } else { 0 });
        x += size.0;
    }
    for (scanout, size) in [(0, 128), (1, 128), (2, 256)] {
        let answer = driver.control(request::get_edid(scanout));
        assert_eq!(answer.type_(), ResponseType::OK_EDID);
        let edid: wire::RespEdid = answer.payload();
        assert_eq!(edid.size.get(), size);
        assert!(edid.edid[size as usize..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn resizing_an_output_raises_an_event_that_the_guest_clears() {
    let mut driver = GpuDriver::new(640, 480);
    let gpu = driver.gpu();
    let larger = OutputConfig {
        width: 800,
        height: 600,
    };
    gpu.resize_output(0, larger).unwrap();
    gpu.resize_output(1, larger).unwrap_err();
    assert_eq!(
        gpu.config_space()[..12],
        [1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]
    );
    gpu.write_config(0, &[0; 4]);
    gpu.write_config(4, &[2]);
    assert_eq!(gpu.config_space()[0], 1);
    // A guest may write the register's bytes one at a time, or more than the register.
    gpu.write_config(5, &[1]);
    assert_eq!(gpu.config_space()[0], 1);
    gpu.write_config(2, &[0xff, 0xff, 1, 0, 0, 0, 9, 9]);
    assert_eq!(
        gpu.config_space()[..12],
        [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]
    );
    gpu.write_config(usize::MAX, &[1, 1]);
    let info: wire::RespDisplayInfo = driver.control(request::get_display_info()).payload();
    assert_eq!(info.pmodes[0].r.width.get(), 800);
}

#[test]
fn a_uuid_stays_with_its_resource_and_is_never_given_twice() {
    let config = GpuConfig::new(vec![OutputConfig {
        width: 64,
        height: 64,
    }]);
    let mut driver = GpuDriver::with_config(config.unwrap().with_uuid_namespace(0x1234_5678));
    let mut seen = BTreeSet::new();
    for round in 0..3 {
        for id in 1..10 {
            driver.create_2d(id, PixelFormat::BGRX, 8, 8);
            let answer = driver.control(request::resource_assign_uuid(id));
            assert_eq!(answer.type_(), ResponseType::OK_RESOURCE_UUID);
            let again = driver.control(request::resource_assign_uuid(id));
            assert_eq!(again.body, answer.body);
            assert_eq!(answer.body[6] >> 4, 8);
            assert_eq!(answer.body[8] >> 6, 2);
            assert!(seen.insert(answer.body), "{round} {id}");
            assert_eq!(driver.unref(id), OK);
        }
    }
}

#[test]
fn a_backing_of_two_regions_and_odd_lengths_is_one_buffer() {
    let mut driver = GpuDriver::new(16, 16);
    // The two regions of guest memory meet at 32 MiB.
    let middle = 32 << 20;
    let buffer = GuestBuffer::of(&[(middle - 301, 600), (0x5001, 1), (0x9000, 423)]);
    driver.create_2d(1, PixelFormat::BGRA, 16, 16);
    assert_eq!(driver.attach(1, &buffer), OK);
    driver.set_scanout(0, 1, Rect::sized(16, 16));
    driver.draw(1, &buffer, &pattern(8, 1024), 16, 16);
    let image = driver.scanout_image(0, false).unwrap();
    assert_eq!(image.pixels, expected(PixelFormat::BGRA, &pattern(8, 1024)));
}
