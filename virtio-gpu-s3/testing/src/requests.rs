// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Bytes as requests: what a guest can write to a ring, and nothing that it cannot.

use super::program::{RAM_BYTES, REGION_BYTES, small_config};
use super::{Direct, GpuDriver, Region, Transport, request};
use crate::ScriptedRenderer;
use virtio_gpu_s3::command;
use virtio_gpu_s3::protocol::{COMMANDS, Queue, wire};
use virtio_gpu_s3::renderer::Resource3d;
use virtio_gpu_s3::renderer::stream::{Growth, Target, check};
use virtio_gpu_s3::{Activation, Counters, Gpu, ResetKind};

/// Sends requests to a device whose renderer does nothing real, and reads each as a command stream
/// of virgl too. What happened.
///
/// A request is a byte of flags (bit 0: the cursor queue; bit 1: little room for the answer; bit 2:
/// only some features), its length in 16 bits, and as many bytes; the last may be shorter.
///
/// # Panics
/// The device did what no guest may bring it to.
pub fn run_requests(mut bytes: &[u8]) -> Counters {
    let (renderer, control) = ScriptedRenderer::new();
    let gpu = Gpu::new(small_config(), Box::new(renderer));
    let gpu = gpu.expect("a valid configuration");
    let gpu = gpu.with_host_visible(Box::new(Region::new(REGION_BYTES)));
    let mut driver = GpuDriver::with_gpu(gpu, RAM_BYTES);
    while let [flags, low, high, rest @ ..] = bytes {
        let length = usize::from(u16::from_le_bytes([*low, *high]));
        let (request, tail) = rest.split_at(length.min(rest.len()));
        bytes = tail;
        send(&mut driver.transport, *flags, request);
        driver.gpu().assert_consistent();
        check_stream(request);
    }
    let gpu = driver.gpu();
    let counters = gpu.status().counters;
    gpu.reset(ResetKind::Full);
    gpu.assert_consistent();
    assert_eq!(control.objects(), 0);
    counters
}

fn send(device: &mut Direct, flags: u8, request: &[u8]) {
    let queue = if flags & 1 == 0 {
        Queue::Control
    } else {
        Queue::Cursor
    };
    let room = if flags & 2 == 0 { 4096 } else { 30 };
    // A driver that negotiates anew has reset the device, which is not what is tried here.
    let offered = device.gpu.device_features();
    let features = if flags & 4 == 0 {
        offered
    } else {
        offered & u64::from(flags >> 3)
    };
    device.gpu.activate(features, Activation::Reinstated);
    check_decoded(request, queue, features);
    if let Ok(answer) = device.send(queue, request, room) {
        assert!(answer.len() <= room);
        assert!(answer.len() >= room.min(size_of::<wire::CtrlHdr>()));
    }
}

/// What is decoded is of that queue and those features, and as long as the command must be.
fn check_decoded(request: &[u8], queue: Queue, features: u64) {
    let decoded = command::decode(request, queue, features);
    if decoded.command.is_ok() {
        let number = decoded.header.type_.get();
        let known = COMMANDS.iter().find(|info| info.id.0 == number);
        let info = known.expect("a command of the standard");
        assert_eq!(info.queue, queue);
        assert_eq!(info.feature & !features, 0);
        assert!(request.len() >= info.request_size);
    }
}

fn check_stream(bytes: &[u8]) {
    const TEXTURE: Resource3d = Resource3d {
        last_level: 2,
        ..request::texture(64, 64)
    };
    let (words, _) = bytes.as_chunks::<4>();
    let words: Vec<_> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
    let target = |id: u32| {
        let params = id.is_multiple_of(2).then_some(&TEXTURE);
        let backing = u64::from(id) << 20;
        (id < 8).then_some(Target { params, backing })
    };
    let mut growth = Growth::default();
    growth.take(words.len() as u64);
    let first = check(&words, target, &mut growth);
    let again = check(&words, target, &mut growth);
    // What was in order stays so, but for what may not be made twice.
    assert!(first.is_ok() || again.is_err());
}
