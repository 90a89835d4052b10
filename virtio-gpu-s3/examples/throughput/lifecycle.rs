// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a sleep costs the device itself, by what it holds.

use std::time::{Duration, Instant};

use virtio_gpu_s3::{
    Activation, Gpu, Limits, NullRenderer, PixelFormat, Rect, ResetKind, Response,
};
use virtio_gpu_s3_testing::{GpuDriver, Layout, config, request};

const ROUNDS: usize = 200;

/// Freezes and releases devices of 1, 100 and 1000 resources, and one of 1 GiB.
pub(crate) fn measure() {
    for (count, side) in [(1, 64), (100, 64), (1000, 64), (16, 4096)] {
        let mut driver = holding(count, side);
        let bytes = driver.gpu().status().host_bytes;
        let [freeze, reset, release] = shortest_sleep(&mut driver, side);
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        println!(
            "{count} resources of {} MiB in all: freeze to acknowledged {:.2} µs, frozen reset \
             {:.2} µs, release to first flush {:.2} µs",
            bytes >> 20,
            us(freeze),
            us(reset),
            us(release)
        );
    }
}

/// A device whose guest has drawn on all that it holds, and shows the first.
fn holding(count: u32, side: u32) -> GpuDriver {
    let limits = Limits {
        max_host_bytes: 2 << 30,
        ..Limits::default()
    };
    let config = config(1, side, side).with_limits(limits).unwrap();
    let gpu = Gpu::new(config, Box::new(NullRenderer));
    let mut driver = GpuDriver::with_gpu(gpu.unwrap(), 96 << 20);
    let rect = Rect::sized(side, side);
    for id in 1..=count {
        driver.ram.free_all();
        let bytes = side as usize * side as usize * 4;
        let buffer = driver.ram.alloc(bytes, Layout::Pages);
        driver.create_2d(id, PixelFormat::BGRX, side, side);
        driver.attach(id, &buffer);
        driver.transfer(id, rect, 0);
    }
    driver.set_scanout(0, 1, rect);
    driver.flush(1, rect);
    driver
}

/// From the guest's wish to the answer, the reset after it, and from the end of the hold to the
/// first flush.
fn shortest_sleep(driver: &mut GpuDriver, side: u32) -> [Duration; 3] {
    let flush = request::resource_flush(1, Rect::sized(side, side));
    let memory = driver.transport.memory.clone();
    let mut response = Response::new(24);
    let mut best = [Duration::MAX; 3];
    let gpu = driver.gpu();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        gpu.quiesce(&memory).unwrap();
        let frozen = Instant::now();
        gpu.reset(ResetKind::Frozen);
        let asleep = Instant::now();
        gpu.activate(gpu.device_features(), Activation::Reinstated);
        response.restart(24);
        let _ = gpu.control(&flush, &memory, &mut response);
        let shown = Instant::now();
        for (best, time) in best.iter_mut().zip([
            frozen.duration_since(start),
            asleep.duration_since(frozen),
            shown.duration_since(asleep),
        ]) {
            *best = time.min(*best);
        }
    }
    best
}
