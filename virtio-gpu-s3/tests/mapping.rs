// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Blobs of the host in the guest's sight.

use virtio_gpu_s3::protocol::{ResponseType, wire};
use virtio_gpu_s3::{Activation, Gpu, PixelFormat, ResetKind};
use virtio_gpu_s3_testing::{GpuDriver, Layout, Region, config, request};
use virtio_gpu_s3_testing::{RendererControl, ScriptedRenderer};

const OK: ResponseType = ResponseType::OK_NODATA;
const MAPPED: ResponseType = ResponseType::OK_MAP_INFO;
const UNSPEC: ResponseType = ResponseType::ERR_UNSPEC;
const PARAMETER: ResponseType = ResponseType::ERR_INVALID_PARAMETER;

const REGION_BYTES: u64 = 64 << 10;

/// A driver with a region, context 1 and mappable blobs 1 (5000 bytes) and 2 (4096 bytes).
fn with_blobs() -> (GpuDriver, RendererControl, Region) {
    let (renderer, control) = ScriptedRenderer::new();
    let region = Region::new(REGION_BYTES);
    let gpu = Gpu::new(config(1, 64, 64), Box::new(renderer));
    let gpu = gpu.unwrap().with_host_visible(Box::new(region.clone()));
    let mut driver = GpuDriver::with_gpu(gpu, 1 << 20);
    assert_eq!(driver.in_context(1, request::ctx_create(0)), OK);
    for (id, size) in [(1, 5000), (2, 4096)] {
        let create = request::resource_create_blob(id, 2, 1, size, &[]);
        assert_eq!(driver.in_context(1, create), OK);
    }
    (driver, control, region)
}

fn map(driver: &mut GpuDriver, id: u32, offset: u64) -> ResponseType {
    let answer = driver.control(request::resource_map_blob(id, offset));
    driver.gpu().assert_consistent();
    answer.type_()
}

fn unmap(driver: &mut GpuDriver, id: u32) -> ResponseType {
    driver.control(request::resource_unmap_blob(id)).type_()
}

#[test]
fn a_blob_is_mapped_in_whole_pages_where_the_guest_says() {
    let (mut driver, _, region) = with_blobs();
    let answer = driver.control(request::resource_map_blob(1, 0x3000));
    assert_eq!(answer.type_(), MAPPED);
    let info: wire::RespMapInfo = answer.payload();
    assert_eq!(info.map_info.get(), 1);
    assert_eq!(region.mapped(), [(0x3000, 0x2000)]);
    assert_eq!(unmap(&mut driver, 1), OK);
    assert_eq!(region.mapped(), []);
    assert_eq!(map(&mut driver, 1, 0), MAPPED);
}

#[test]
fn a_mapping_that_does_not_fit_or_overlaps_is_refused_and_nothing_is_mapped() {
    // libkrun logs that it does not fit, and maps it.
    let (mut driver, control, region) = with_blobs();
    assert_eq!(map(&mut driver, 2, 0x4000), MAPPED);
    let calls = control.calls();
    for offset in [
        REGION_BYTES,
        REGION_BYTES - 0x1000,
        u64::MAX,
        u64::MAX - 0xfff,
        1,
        0x800,
        0x3000,
        0x4000,
    ] {
        assert_eq!(map(&mut driver, 1, offset), PARAMETER, "{offset:#x}");
    }
    assert_eq!(control.calls(), calls);
    assert_eq!(region.mapped(), [(0x4000, 0x1000)]);
    assert_eq!(map(&mut driver, 1, 0x2000), MAPPED);
    assert_eq!(unmap(&mut driver, 1), OK);
    assert_eq!(map(&mut driver, 1, 0x5000), MAPPED);
    assert_eq!(unmap(&mut driver, 1), OK);
    assert_eq!(map(&mut driver, 1, REGION_BYTES - 0x2000), MAPPED);
}

#[test]
fn only_a_mappable_blob_of_the_host_can_be_mapped_and_only_once() {
    let (mut driver, _, _) = with_blobs();
    let buffer = driver.ram.alloc(4096, Layout::Pages);
    driver.create_guest_blob(3, 4096, Some(&buffer));
    driver.create_2d(4, PixelFormat::BGRX, 8, 8);
    driver.in_context(1, request::resource_create_blob(5, 2, 2, 4096, &[]));
    for id in [3, 4, 5] {
        assert_eq!(map(&mut driver, id, 0), UNSPEC, "{id}");
        assert_eq!(unmap(&mut driver, id), UNSPEC, "{id}");
    }
    assert_eq!(
        map(&mut driver, 99, 0),
        ResponseType::ERR_INVALID_RESOURCE_ID
    );
    assert_eq!(
        unmap(&mut driver, 99),
        ResponseType::ERR_INVALID_RESOURCE_ID
    );
    assert_eq!(map(&mut driver, 1, 0), MAPPED);
    assert_eq!(map(&mut driver, 1, 0x8000), UNSPEC);
    assert_eq!(unmap(&mut driver, 1), OK);
    assert_eq!(unmap(&mut driver, 1), UNSPEC);
}

#[test]
fn mappings_survive_a_frozen_reset_and_end_with_a_full_one() {
    let (mut driver, control, region) = with_blobs();
    assert_eq!(map(&mut driver, 1, 0), MAPPED);
    assert_eq!(map(&mut driver, 2, 0x2000), MAPPED);
    let calls = control.calls();
    driver.sleep_and_wake(Activation::Reinstated);
    assert_eq!(region.mapped(), [(0, 0x2000), (0x2000, 0x1000)]);
    assert_eq!(control.calls(), calls);
    assert_eq!(unmap(&mut driver, 2), OK);
    driver.gpu().reset(ResetKind::Full);
    assert_eq!(region.mapped(), []);
    assert_eq!(control.objects(), 0);
    assert_eq!(driver.gpu().status().counters.errors.total(), 0);
}

#[test]
fn destroying_a_mapped_blob_takes_it_out_of_the_guests_sight() {
    let (mut driver, _, region) = with_blobs();
    assert_eq!(map(&mut driver, 1, 0), MAPPED);
    assert_eq!(driver.unref(1), OK);
    assert_eq!(region.mapped(), []);
    assert_eq!(map(&mut driver, 2, 0), MAPPED);
}

#[test]
fn a_refused_mapping_can_be_tried_again() {
    let (mut driver, control, region) = with_blobs();
    region.refuse_next();
    assert_eq!(map(&mut driver, 1, 0), UNSPEC);
    control.fail_after(0);
    assert_eq!(map(&mut driver, 1, 0), UNSPEC);
    assert_eq!(region.mapped(), []);
    assert_eq!(map(&mut driver, 1, 0), MAPPED);
}

#[test]
fn a_range_that_could_not_be_unmapped_is_never_used_again() {
    let (mut driver, _, region) = with_blobs();
    assert_eq!(map(&mut driver, 1, 0), MAPPED);
    region.refuse_next();
    assert_eq!(unmap(&mut driver, 1), OK);
    assert_eq!(map(&mut driver, 2, 0x1000), PARAMETER);
    assert_eq!(map(&mut driver, 2, 0x2000), MAPPED);
}

#[test]
fn without_a_region_nothing_can_be_mapped() {
    let (mut driver, _, _) = GpuDriver::rendering(64, 64);
    driver.in_context(1, request::ctx_create(0));
    driver.in_context(1, request::resource_create_blob(1, 2, 2, 4096, &[]));
    assert_eq!(map(&mut driver, 1, 0), UNSPEC);
    assert_eq!(unmap(&mut driver, 1), UNSPEC);
}

#[test]
fn a_blob_without_a_file_is_reached_through_the_device_while_it_is_mapped() {
    let (mut driver, _, _) = with_blobs();
    let gpu = driver.gpu();
    let mut bytes = [0; 4];
    assert!(gpu.read_mapped(1, 0, &mut bytes).is_err());
    assert!(gpu.write_mapped(1, 0, &[7; 4]).is_err());
    assert_eq!(map(&mut driver, 1, 0), MAPPED);
    let gpu = driver.gpu();
    gpu.write_mapped(1, 4996, &[7; 4]).unwrap();
    gpu.read_mapped(1, 4996, &mut bytes).unwrap();
    assert_eq!(bytes, [7; 4]);
    for offset in [4997, 5000, u64::MAX] {
        assert!(gpu.read_mapped(1, offset, &mut bytes).is_err());
        assert!(gpu.write_mapped(1, offset, &[1; 4]).is_err());
    }
    // Another blob is not meant, and one that was unmapped no more.
    assert!(gpu.read_mapped(2, 0, &mut bytes).is_err());
    assert!(gpu.read_mapped(0, 0, &mut bytes).is_err());
    driver.sleep_and_wake(Activation::Reinstated);
    driver.gpu().read_mapped(1, 4996, &mut bytes).unwrap();
    assert_eq!(bytes, [7; 4]);
    assert_eq!(unmap(&mut driver, 1), OK);
    assert!(driver.gpu().read_mapped(1, 4996, &mut bytes).is_err());
}
