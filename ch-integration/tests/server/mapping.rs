// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory that a guest behind a vIOMMU maps and unmaps while its device runs.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use virtio_gpu_s3::protocol::wire::MemEntry;
use virtio_gpu_s3::{Rect, protocol::ResponseType};
use virtio_gpu_s3_testing::request;
use virtio_gpu_worker::Controlled;

use crate::vmm::{Server, Vmm, memory_file};

const PAGE: u64 = 0x1000;
/// Above the guest's RAM.
const FIRST: u64 = 1 << 32;
const OK: u32 = ResponseType::OK_NODATA.0;

fn address(page: u64) -> u64 {
    FIRST + page * 2 * PAGE
}

fn map(vmm: &mut Vmm, page: u64, file: &File) {
    let fd = file.as_raw_fd();
    vmm.client.dma_map(0, address(page), PAGE, fd).unwrap();
}

fn unmap(vmm: &mut Vmm, page: u64) {
    vmm.client.dma_unmap(address(page), PAGE).unwrap();
}

fn type_of(answer: &[u8]) -> u32 {
    u32::from_le_bytes(answer[..4].try_into().unwrap())
}

/// What one of each hundred costs, ten thousand in all.
fn costs(mut of: impl FnMut(u64)) -> Vec<Duration> {
    let mut hundred = |at: u64| {
        let start = Instant::now();
        (at * 100..(at + 1) * 100).for_each(&mut of);
        start.elapsed() / 100
    };
    (0..100).map(&mut hundred).collect()
}

/// Whoever else runs on this machine makes some of them longer, and none shorter.
fn least(costs: &[Duration]) -> Duration {
    costs.iter().min().copied().unwrap_or_default()
}

#[test]
fn a_map_and_an_unmap_cost_a_running_device_the_same_however_many_maps_there_are() {
    let server = Server::start();
    let mut vmm = Vmm::connect(&server.socket());
    vmm.start_driver();
    let file = memory_file(PAGE);
    let maps = costs(|page| map(&mut vmm, page, &file));
    let unmaps = costs(|page| unmap(&mut vmm, page));
    for (what, few, many) in [
        ("map", &maps[..20], &maps[80..]),
        ("unmap", &unmaps[80..], &unmaps[..20]),
    ] {
        let (few, many) = (least(few), least(many));
        println!("a {what} of up to 2000: {few:?}, of more than 8000: {many:?}");
        // A list of maps that is copied makes it fourteen times as long.
        assert!(many < few * 4, "{what}: {few:?}, {many:?}");
    }
}

/// A driver that unmaps what the device still has has made a mistake, or means it: its buffers are its own again.
#[test]
fn what_was_unmapped_under_a_backing_is_an_error_to_the_guest_and_never_read() {
    let server = Server::start();
    let mut vmm = Vmm::connect(&server.socket());
    vmm.start_driver();
    let (secret, other) = (memory_file(PAGE), memory_file(PAGE));
    secret.write_all_at(&[0x5e; 4096], 0).unwrap();
    other.write_all_at(&[0x07; 4096], 0).unwrap();
    map(&mut vmm, 0, &secret);
    let rect = Rect {
        x: 0,
        y: 0,
        width: 32,
        height: 32,
    };
    let entry = MemEntry {
        addr: address(0).into(),
        length: (PAGE as u32).into(),
        padding: 0.into(),
    };
    let attach = request::resource_attach_backing(1, &[entry]);
    let transfer = request::transfer_to_host_2d(1, rect, 0);
    for request in [
        request::resource_create_2d(1, 2, 32, 32),
        attach,
        request::set_scanout(0, 1, rect),
    ] {
        assert_eq!(type_of(&vmm.command(0, &request, 24)), OK);
    }
    let flush = request::resource_flush(1, rect);
    let pixel = |vmm: &mut Vmm| {
        vmm.command(0, &flush, 24);
        server.device.screenshot(0, false).unwrap().image.pixels[0]
    };
    unmap(&mut vmm, 0);
    let answer = vmm.command(0, &transfer, 24);
    assert!(type_of(&answer) >= 0x1200, "an error: {answer:02x?}");
    assert_ne!(pixel(&mut vmm), 0x5e);
    // Another page in its place is what the guest means from now on.
    map(&mut vmm, 0, &other);
    assert_eq!(type_of(&vmm.command(0, &transfer, 24)), OK);
    assert_eq!(pixel(&mut vmm), 0x07);
    unmap(&mut vmm, 0);
    map(&mut vmm, 0, &secret);
    assert_eq!(type_of(&vmm.command(0, &transfer, 24)), OK);
    assert_eq!(pixel(&mut vmm), 0x5e);
}
