// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a guest may get wrong, without harm to another.

use virtio_gpu_s3::protocol::CommandId;
use virtio_gpu_s3::renderer::{Resource3d, Transfer3d};
use virtio_gpu_s3_testing::{Layout, request};

use super::scene::{SIZE, Stream, TEXTURE, TO_HOST, command, create, frame, scene, target};
use super::{OK, PARAMETER, UNSPEC, lab};

const FROM_HOST: CommandId = CommandId::TRANSFER_FROM_HOST_3D;

#[test]
fn a_bad_stream_is_an_error_of_its_context_alone() {
    let mut lab = lab();
    scene(&mut lab.driver);
    assert_eq!(lab.driver.in_context(1, frame()), OK);
    let before = lab.shown(10);
    assert_eq!(lab.driver.in_context(2, request::ctx_create(2)), OK);
    for stream in [
        // No such command.
        vec![0xff],
        // A surface of a resource that does not exist.
        vec![command::CREATE_OBJECT | 8 << 8 | 5 << 16, 1, 999, 1, 0, 0],
        // An object of no known type.
        vec![command::CREATE_OBJECT | 77 << 8 | 1 << 16, 1],
    ] {
        let answer = lab.driver.in_context(2, request::submit_3d(&stream));
        assert_eq!(answer, UNSPEC, "{stream:x?}");
    }
    // virglrenderer would drop a command that is longer than the stream without a word.
    for stream in [
        vec![command::CLEAR | 8 << 16, 4],
        vec![command::DRAW | 0xffff << 16],
    ] {
        let stream = request::submit_3d(&stream);
        assert_eq!(lab.driver.in_context(2, stream), PARAMETER);
    }
    assert_eq!(lab.driver.in_context(1, frame()), OK);
    assert_eq!(lab.shown(10), before);
}

#[test]
fn a_transfer_beyond_a_short_backing_is_refused() {
    // CVE-2019-18391; rutabaga's 2D transfers ignore an offset past the backing.
    let mut lab = lab();
    let driver = &mut lab.driver;
    assert_eq!(driver.in_context(1, request::ctx_create(2)), OK);
    let create = request::resource_create_3d(10, &TEXTURE);
    assert_eq!(driver.control(create).type_(), OK);
    let page = driver.ram.alloc(4096, Layout::Contiguous);
    assert_eq!(driver.attach(10, &page), OK);
    assert_eq!(driver.in_context(1, request::ctx_attach_resource(10)), OK);
    let row = Transfer3d {
        h: 1,
        ..request::whole(&TEXTURE)
    };
    for command in [TO_HOST, FROM_HOST] {
        let mut send = |transfer: &Transfer3d| {
            driver.in_context(1, request::transfer_3d(command, 10, transfer))
        };
        assert_eq!(send(&row), OK);
        assert_eq!(send(&request::whole(&TEXTURE)), UNSPEC);
        let offset = 4096 - 255;
        assert_eq!(send(&Transfer3d { offset, ..row }), UNSPEC);
        let offset = 4097;
        assert_eq!(send(&Transfer3d { offset, ..row }), PARAMETER);
        let offset = u64::MAX;
        assert_eq!(send(&Transfer3d { offset, ..row }), PARAMETER);
        // virglrenderer 0.10.4 computes the end of this in 32 bits, finds it inside, and says OK.
        let stride = u32::MAX;
        let rows = Transfer3d {
            h: 2,
            stride,
            ..row
        };
        assert_eq!(send(&rows), PARAMETER);
    }
}

#[test]
fn a_transfer_in_a_stream_beyond_its_memory_is_refused_and_the_stream_with_it() {
    // virglrenderer 0.10.4 adds up rows in 32 bits, so a stride near 2^32 wraps to a small end.
    let mut lab = lab();
    let memory = target(&mut lab.driver);
    let driver = &mut lab.driver;
    driver.ram.write(&memory, 0, &[0x5a; 64]);
    // Resource, level, usage, strides, box, offset, to the host.
    let transfer = |stride: u32, height: u32, offset: u32| {
        let body = [10, 0, 0, stride, 0, 0, 0, 0, 16, height, 1, offset, 1];
        let mut stream = Stream::default();
        stream.add(command::TRANSFER3D, 0, &body);
        stream
    };
    assert_eq!(driver.in_context(1, transfer(0, 1, 0).request()), OK);
    for bad in [
        transfer(u32::MAX, 2, 0),
        transfer(0x8000_0000, 3, 0),
        transfer(0, 65, 0),
        transfer(0, 1, SIZE * SIZE * 4 + 1),
    ] {
        let mut stream = Stream::default();
        stream.clear([1.0, 1.0, 1.0, 1.0]);
        stream.0.extend(bad.0);
        assert_eq!(driver.in_context(1, stream.request()), PARAMETER);
    }
    // Not even what came before the bad command ran.
    let image = lab.shown(10);
    assert_eq!(image.pixel(0, 0), Some([0x5a, 0x5a, 0x5a, 255]));
    assert_eq!(image.pixel(40, 40), Some([0, 0, 0, 255]));
    assert_eq!(lab.host_errors(), 0);
}

#[test]
fn a_resource_that_virglrenderer_cannot_make_leaves_nothing() {
    let mut lab = lab();
    for params in [
        Resource3d {
            format: 0xffff,
            ..TEXTURE
        },
        Resource3d {
            target: 99,
            ..TEXTURE
        },
        Resource3d {
            bind: 1 << 31,
            ..TEXTURE
        },
        // CVE-2019-18388 and its relatives: a texture of one dimension with two.
        Resource3d {
            target: 1,
            height: 7,
            ..TEXTURE
        },
    ] {
        let create = request::resource_create_3d(10, &params);
        assert_eq!(lab.driver.control(create).type_(), UNSPEC, "{params:?}");
    }
    assert_eq!(lab.driver.gpu().status().resources, 0);
    let create = request::resource_create_3d(10, &TEXTURE);
    assert_eq!(lab.driver.control(create).type_(), OK);
}

#[test]
fn a_resource_of_another_context_is_out_of_reach() {
    let mut lab = lab();
    let driver = &mut lab.driver;
    target(driver);
    assert_eq!(driver.in_context(2, request::ctx_create(2)), OK);
    let transfer = request::transfer_3d(TO_HOST, 10, &request::whole(&TEXTURE));
    assert_eq!(driver.in_context(1, transfer.clone()), OK);
    assert_eq!(driver.in_context(2, transfer), UNSPEC);
    let mut stream = Stream::default();
    stream.add(command::CREATE_OBJECT, 8, &[1, 10, 1, 0, 0]);
    assert_eq!(driver.in_context(2, stream.request()), UNSPEC);
}

#[test]
fn a_texture_unreferenced_while_it_is_drawn_to_harms_nobody() {
    // rutabaga frees its backing's list while virglrenderer keeps the texture for the surface.
    let mut lab = lab();
    scene(&mut lab.driver);
    assert_eq!(lab.driver.unref(10), OK);
    for _ in 0..10 {
        assert_eq!(lab.driver.in_context(1, frame()), OK);
    }
    let transfer = request::transfer_3d(TO_HOST, 10, &request::whole(&TEXTURE));
    assert_ne!(lab.driver.in_context(1, transfer), OK);
    create(&mut lab.driver, 10, &TEXTURE, Layout::Pages);
    assert_eq!(lab.host_errors(), 0);
    let image = lab.shown(10);
    assert_eq!(image.pixels.len(), (SIZE * SIZE * 4) as usize);
}
