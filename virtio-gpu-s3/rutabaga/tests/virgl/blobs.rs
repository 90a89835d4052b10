// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Blobs of virglrenderer's memory and of the guest's.

use virtio_gpu_s3::protocol::{ResponseType, wire};
use virtio_gpu_s3::{Activation, Rect, ResetKind};
use virtio_gpu_s3_testing::{GpuDriver, Layout, pattern, request};

use super::scene::{BIND_VERTICES, R8, Stream, command};
use super::{OK, UNSPEC, lab};

/// 32 pixels each way.
const BYTES: u32 = 4096;
/// VIRGL_RESOURCE_FLAG_MAP_PERSISTENT and _COHERENT.
const MAPPABLE: u32 = 2 | 4;

/// Blob `id` of a buffer that the context makes under the same number.
fn host_blob(driver: &mut GpuDriver, id: u32) -> ResponseType {
    let mut stream = Stream::default();
    let body = [0, R8, BIND_VERTICES, BYTES, 1, 1, 1, 0, 0, MAPPABLE, id];
    stream.add(command::CREATE_PIPE_RESOURCE, 0, &body);
    assert_eq!(driver.in_context(1, stream.request()), OK);
    let mut create = request::resource_create_blob(id, 2, 1, BYTES.into(), &[]);
    create[40..48].copy_from_slice(&u64::from(id).to_le_bytes());
    driver.in_context(1, create)
}

#[test]
fn a_host_blob_is_shown_and_mapped_and_stays_so_over_a_frozen_reset() {
    let mut lab = lab();
    let driver = &mut lab.driver;
    assert_eq!(driver.in_context(1, request::ctx_create(2)), OK);
    assert_eq!(host_blob(driver, 40), OK);
    assert_eq!(driver.in_context(1, request::ctx_attach_resource(40)), OK);
    let pixels = pattern(4, BYTES as usize);
    let mut body = vec![40, 0, 0, 0, 0, 0, 0, 0, BYTES, 1, 1];
    let (words, _) = pixels.as_chunks::<4>();
    body.extend(words.iter().map(|word| u32::from_le_bytes(*word)));
    let mut stream = Stream::default();
    stream.add(command::INLINE_WRITE, 0, &body);
    assert_eq!(driver.in_context(1, stream.request()), OK);
    let rect = Rect::sized(32, 32);
    let layout = request::layout(32, 32);
    assert_eq!(driver.set_scanout_blob(0, 40, rect, &layout), OK);
    assert_eq!(driver.flush(40, rect), OK);
    let image = driver.scanout_image(0, false).unwrap();
    let opaque = |pixel: &[u8]| [pixel[2], pixel[1], pixel[0], 255];
    let expected: Vec<u8> = pixels.chunks(4).flat_map(opaque).collect();
    assert!(image.pixels == expected, "the blob is not what is shown");

    // The guest gets the mapping that the screen is read through.
    let map = |driver: &mut GpuDriver| driver.control(request::resource_map_blob(40, 0x1000));
    let answer = map(driver);
    assert_eq!(answer.type_(), ResponseType::OK_MAP_INFO);
    let info: wire::RespMapInfo = answer.payload();
    // rutabaga mixes access rights (0x30) into the caching, where virglrenderer knows that.
    assert!(info.map_info.get() <= 3);
    driver.sleep_and_wake(Activation::Reinstated);
    assert_eq!(lab.region.mapped(), [(0x1000, 4096)]);
    let driver = &mut lab.driver;
    assert_eq!(driver.flush(40, rect), OK);
    assert_eq!(driver.scanout_image(0, false), Some(image));
    let unmap = request::resource_unmap_blob(40);
    assert_eq!(driver.control(unmap.clone()).type_(), OK);
    assert_ne!(driver.control(unmap).type_(), OK);
    assert_eq!(map(driver).type_(), ResponseType::OK_MAP_INFO);
    assert_eq!(driver.unref(40), OK);
    assert_eq!(lab.region.mapped(), []);
    assert_eq!(lab.host_errors(), 0);
}

#[test]
fn a_host_blob_of_nothing_is_refused() {
    let mut lab = lab();
    assert_eq!(lab.driver.in_context(1, request::ctx_create(2)), OK);
    let mut create = request::resource_create_blob(41, 2, 1, 4096, &[]);
    create[40..48].copy_from_slice(&99_u64.to_le_bytes());
    assert_eq!(lab.driver.in_context(1, create), UNSPEC);
    assert_eq!(lab.host_errors(), 1);
    assert_eq!(lab.driver.gpu().status().resources, 0);
    assert_eq!(host_blob(&mut lab.driver, 41), OK);
    // Mapped for the screen only, and gone with a full reset.
    lab.driver.gpu().reset(ResetKind::Full);
    assert_eq!(lab.driver.gpu().status().resources, 0);
    assert_eq!(lab.host_errors(), 1);
}

#[test]
fn a_guest_blob_becomes_known_to_a_context() {
    let mut lab = lab();
    let driver = &mut lab.driver;
    let memory = driver.ram.alloc(BYTES as usize, Layout::Contiguous);
    assert_eq!(
        driver.create_guest_blob(42, BYTES.into(), Some(&memory)),
        OK
    );
    assert_eq!(driver.in_context(1, request::ctx_create(2)), OK);
    assert_eq!(driver.in_context(1, request::ctx_attach_resource(42)), OK);
    assert_eq!(driver.in_context(1, request::ctx_detach_resource(42)), OK);
    assert_eq!(driver.unref(42), OK);
    assert_eq!(lab.host_errors(), 0);
}
