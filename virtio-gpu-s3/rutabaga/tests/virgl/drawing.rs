// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is drawn is what is read.

use virtio_gpu_s3::protocol::{CommandId, ResponseType, wire};
use virtio_gpu_s3::renderer::Transfer3d;
use virtio_gpu_s3::{PixelFormat, Rect};
use virtio_gpu_s3_testing::{Layout, pattern, request};

use super::scene::{SIZE, Stream, TEXTURE, TO_HOST, create, frame, scene, target};
use super::{OK, PARAMETER, WHOLE, lab};

const FROM_HOST: CommandId = CommandId::TRANSFER_FROM_HOST_3D;
const BYTES: usize = (SIZE * SIZE * 4) as usize;

#[test]
fn both_virgl_capsets_are_offered_with_their_descriptions_and_no_other() {
    let mut lab = lab();
    let driver = &mut lab.driver;
    assert_eq!(driver.gpu().config_space()[12], 2);
    for (index, id) in [(0, 1), (1, 2)] {
        let answer = driver.control(request::get_capset_info(index));
        let info: wire::RespCapsetInfo = answer.payload();
        assert_eq!(info.capset_id.get(), id);
        let version = info.capset_max_version.get();
        let answer = driver.control(request::get_capset(id, version));
        assert_eq!(answer.type_(), ResponseType::OK_CAPSET);
        assert_eq!(answer.body.len(), info.capset_max_size.get() as usize);
        // max_version, then formats: something is supported.
        assert!(answer.body[4..].iter().any(|byte| *byte != 0));
        let newer = request::get_capset(id, version + 1);
        assert_eq!(driver.control(newer).type_(), PARAMETER);
    }
    // Without a mask rutabaga would offer venus (4) and DRM (6), which nobody initialised.
    for id in [0, 3, 4, 5, 6] {
        assert_eq!(
            driver.control(request::get_capset(id, 0)).type_(),
            PARAMETER
        );
    }
    assert_eq!(
        driver.control(request::get_capset_info(2)).type_(),
        PARAMETER
    );
}

#[test]
fn contexts_of_either_capset_or_none_are_made() {
    let mut lab = lab();
    for (ctx_id, capset) in [(1, 0), (2, 1), (3, 2)] {
        let made = lab.driver.in_context(ctx_id, request::ctx_create(capset));
        assert_eq!(made, OK, "capset {capset}");
    }
    assert_eq!(lab.driver.gpu().status().contexts, 3);
}

#[test]
fn a_clear_reaches_guest_memory_and_the_screen() {
    let mut lab = lab();
    let memory = target(&mut lab.driver);
    let mut stream = Stream::default();
    let clear = stream.clear([1.0, 0.5, 0.25, 1.0]).request();
    assert_eq!(lab.driver.in_context(1, clear), OK);
    let read = request::transfer_3d(FROM_HOST, 10, &request::whole(&TEXTURE));
    assert_eq!(lab.driver.in_context(1, read), OK);
    let bytes = lab.driver.ram.read(&memory, 0, BYTES);
    let bgra = [0x40, 0x80, 0xff, 0xff];
    assert!(bytes.chunks(4).all(|pixel| pixel == bgra));
    let image = lab.shown(10);
    let rgba = [0xff, 0x80, 0x40, 0xff];
    assert!(image.pixels.chunks(4).all(|pixel| pixel == rgba));
}

#[test]
fn a_box_goes_to_its_place_from_an_offset_in_scattered_pages() {
    let mut lab = lab();
    let driver = &mut lab.driver;
    let memory = target(driver);
    let pixels = pattern(9, BYTES);
    driver.ram.write(&memory, 0, &pixels);
    let to_host = request::transfer_3d(TO_HOST, 10, &request::whole(&TEXTURE));
    assert_eq!(driver.in_context(1, to_host), OK);
    driver.ram.write(&memory, 0, &vec![0; BYTES]);
    // Rows 20 and on, from column 8, to the same place.
    let stride = SIZE * 4;
    let part = Transfer3d {
        x: 8,
        y: 20,
        w: SIZE - 8,
        h: SIZE - 20,
        offset: u64::from(20 * stride + 8 * 4),
        stride,
        ..request::whole(&TEXTURE)
    };
    let from_host = request::transfer_3d(FROM_HOST, 10, &part);
    assert_eq!(driver.in_context(1, from_host), OK);
    let bytes = driver.ram.read(&memory, 0, BYTES);
    for (at, (byte, pixel)) in bytes.iter().zip(&pixels).enumerate() {
        let (row, column) = (at / 256, at % 256 / 4);
        let inside = row >= 20 && column >= 8;
        assert_eq!(*byte, if inside { *pixel } else { 0 }, "at {row}, {column}");
    }
}

#[test]
fn a_flush_of_a_corner_shows_that_corner_only() {
    let mut lab = lab();
    target(&mut lab.driver);
    let mut red = Stream::default();
    red.clear([1.0, 0.0, 0.0, 1.0]);
    assert_eq!(lab.driver.in_context(1, red.request()), OK);
    lab.shown(10);
    let mut green = Stream::default();
    green.clear([0.0, 1.0, 0.0, 1.0]);
    assert_eq!(lab.driver.in_context(1, green.request()), OK);
    let corner = Rect {
        x: SIZE - 5,
        y: SIZE - 3,
        width: 5,
        height: 3,
    };
    assert_eq!(lab.driver.flush(10, corner), OK);
    let image = lab.driver.scanout_image(0, false).unwrap();
    let green = [0, 255, 0, 255];
    for (at, pixel) in image.pixels.chunks(4).enumerate() {
        let at = u32::try_from(at).unwrap();
        let inside = at % SIZE >= corner.x && at / SIZE >= corner.y;
        assert_eq!(pixel == green, inside, "at {at}");
    }
}

#[test]
fn a_scene_of_shaders_and_vertices_is_drawn() {
    let mut lab = lab();
    scene(&mut lab.driver);
    assert_eq!(lab.driver.in_context(1, frame()), OK);
    let image = lab.shown(10);
    let pixel = |x: usize, y: usize| &image.pixels[(y * 64 + x) * 4..][..3];
    // Background, the first triangle, and the second blended over it.
    assert_eq!(pixel(0, 32), [26, 26, 102]);
    assert_eq!(pixel(12, 4), [255, 51, 20]);
    assert_ne!(pixel(45, 4), pixel(0, 32));
    assert_ne!(pixel(45, 4), pixel(12, 4));
    assert_eq!(lab.host_errors(), 0);
}

#[test]
fn a_2d_resource_keeps_its_picture_when_a_context_attaches_it() {
    // rutabaga cannot write from a buffer to virglrenderer.
    let mut lab = lab();
    let buffer = lab.driver.framebuffer(0, 5, PixelFormat::BGRX, SIZE, SIZE);
    lab.driver.draw(5, &buffer, &pattern(1, BYTES), SIZE, SIZE);
    let before = lab.driver.scanout_image(0, false);
    assert_eq!(lab.driver.in_context(1, request::ctx_create(0)), OK);
    assert_eq!(
        lab.driver.in_context(1, request::ctx_attach_resource(5)),
        OK
    );
    assert_eq!(lab.driver.flush(5, WHOLE), OK);
    assert_eq!(lab.driver.scanout_image(0, false), before);
    // Its own memory is the backing again: 2D drawing goes on through the renderer.
    lab.driver.draw(5, &buffer, &pattern(2, BYTES), SIZE, SIZE);
    let after = lab.driver.scanout_image(0, false).unwrap();
    assert_eq!(after.pixels[2], pattern(2, 4)[0]);
    assert_eq!(lab.host_errors(), 0);
}

#[test]
fn a_texture_and_a_buffer_never_written_read_as_zeros() {
    // CVE-2022-0175
    let mut lab = lab();
    let driver = &mut lab.driver;
    assert_eq!(driver.in_context(1, request::ctx_create(2)), OK);
    let buffer = super::scene::buffer(super::scene::BIND_VERTICES, 4096);
    for (id, params, bytes) in [(20, TEXTURE, BYTES), (21, buffer, 4096)] {
        let memory = create(driver, id, &params, Layout::Pages);
        driver.ram.write(&memory, 0, &vec![0xaa; bytes]);
        let read = request::transfer_3d(FROM_HOST, id, &request::whole(&params));
        assert_eq!(driver.in_context(1, read), OK);
        assert_eq!(driver.ram.read(&memory, 0, bytes), vec![0; bytes]);
    }
}

#[test]
fn a_capset_that_is_asked_for_between_two_frames_disturbs_neither() {
    // virglrenderer tries out what OpenGL can do, and leaves the current context without its framebuffer.
    let mut lab = lab();
    scene(&mut lab.driver);
    assert_eq!(lab.driver.in_context(1, frame()), OK);
    let before = lab.shown(10);
    for (id, version) in [(1, 1), (2, 2)] {
        // A look is on another context, so it comes last.
        assert_eq!(lab.driver.in_context(1, frame()), OK);
        let answer = lab.driver.control(request::get_capset(id, version));
        assert_eq!(answer.type_(), ResponseType::OK_CAPSET);
        assert_eq!(lab.driver.in_context(1, frame()), OK);
        assert_eq!(lab.shown(10), before);
    }
    assert_eq!(lab.host_errors(), 0);
}
