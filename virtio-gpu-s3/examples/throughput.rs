// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How fast the 2D path copies, beside a plain copy of the same frames in the same run.
//!
//! `cargo run --release -p virtio-gpu-s3 --example throughput`
#![expect(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a measurement that goes wrong shall stop"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use virtio_gpu_s3::testing::{GpuDriver, GuestBuffer, Layout, pattern, request};
use virtio_gpu_s3::{
    Activation, Gpu, GpuConfig, NullDisplay, NullRenderer, OutputConfig, PixelFormat, Rect,
    Response,
};

const WIDTH: u32 = 1920;
const HEIGHT: u32 = 1080;
const FRAME: u32 = 1920 * 1080 * 4;
const FRAME_BYTES: usize = FRAME as usize;
const RAM_BYTES: usize = 96 << 20;
/// Enough that no cache holds them all.
const FRAMES: u32 = 8;
const RUN: Duration = Duration::from_millis(150);
const ROUNDS: usize = 6;

fn main() {
    for (layout, name) in [
        (Layout::Contiguous, "1 range"),
        (Layout::Pages, "4 KiB pages"),
    ] {
        let (mut driver, buffers) = driver(layout);
        let row = [GuestBuffer::of(&[(0, FRAME)])];
        let (mut whole, mut pieces, mut moved) = (0.0_f64, 0.0_f64, 0.0_f64);
        // In turn, and the best of each: what else the machine does hits all three.
        for _ in 0..ROUNDS {
            whole = whole.max(copy_frames(&row));
            pieces = pieces.max(copy_frames(&buffers));
            moved = moved.max(transfer_frames(&mut driver));
        }
        println!(
            "1080p frames, {name}: {moved:.1} GB/s; memcpy of the same pieces {pieces:.1}, ratio \
             {:.2}; of whole frames {whole:.1}, ratio {:.2}",
            moved / pieces,
            moved / whole
        );
        for size in [64, 16] {
            let rounds = (0..ROUNDS).map(|_| rects(&mut driver, size));
            let rate = rounds.fold(0.0, f64::max);
            println!("{size}x{size} rects, {name}: {rate:.2} M/s");
        }
        println!("1080p screenshot: {:.1} ms", screenshot(&mut driver));
    }
}

/// Milliseconds for a screenshot.
fn screenshot(driver: &mut GpuDriver) -> f64 {
    driver.set_scanout(0, 1, Rect::sized(WIDTH, HEIGHT));
    let rate = rate(|_| {
        black_box(driver.gpu().scanout_image(0, true));
    });
    1e3 / rate
}

fn driver(layout: Layout) -> (GpuDriver, Vec<GuestBuffer>) {
    let config = GpuConfig::new(vec![OutputConfig {
        width: WIDTH,
        height: HEIGHT,
    }]);
    let renderer = Box::new(NullRenderer::default());
    let mut gpu = Gpu::new(config.unwrap(), renderer, Box::new(NullDisplay)).unwrap();
    gpu.activate(gpu.device_features(), Activation::Fresh);
    let mut driver = GpuDriver::with_gpu(gpu, RAM_BYTES);
    let buffers = (1..=FRAMES).map(|id| {
        let buffer = driver.ram.alloc(FRAME_BYTES, layout);
        driver.ram.write(&buffer, 0, &pattern(id, FRAME_BYTES));
        driver.create_2d(id, PixelFormat::BGRX, WIDTH, HEIGHT);
        driver.attach(id, &buffer);
        buffer
    });
    let buffers = buffers.collect();
    (driver, buffers)
}

/// Calls `step` with 0, 1, 2, … for a while; calls per second.
fn rate(mut step: impl FnMut(u32)) -> f64 {
    for count in 0..4 * FRAMES {
        step(count);
    }
    let start = Instant::now();
    let mut count = 0_u32;
    while start.elapsed() < RUN {
        for _ in 0..FRAMES {
            step(count);
            count = count.wrapping_add(1);
        }
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}

/// Plain copies of as many frames, each in the pieces of a buffer.
fn copy_frames(buffers: &[GuestBuffer]) -> f64 {
    let memory = pattern(1, RAM_BYTES);
    let mut targets = vec![vec![0_u8; FRAME_BYTES]; FRAMES as usize];
    let rate = rate(|count| {
        let index = (count % FRAMES) as usize;
        let buffer = &buffers[index % buffers.len()];
        // A single buffer stands for a row of them.
        let shift = if buffers.len() == 1 {
            index * FRAME_BYTES
        } else {
            0
        };
        let mut rest = targets[index].as_mut_slice();
        for entry in buffer.entries() {
            let from = shift + usize::try_from(entry.addr.get()).unwrap();
            let length = rest.len().min(entry.length.get() as usize);
            let (head, tail) = rest.split_at_mut(length);
            head.copy_from_slice(&memory[from..from + length]);
            rest = tail;
        }
        black_box(&targets);
    });
    rate * FRAME_BYTES as f64 / 1e9
}

fn transfer_frames(driver: &mut GpuDriver) -> f64 {
    let requests: Vec<_> = (1..=FRAMES)
        .map(|id| request::transfer_to_host_2d(id, Rect::sized(WIDTH, HEIGHT), 0))
        .collect();
    run(driver, &requests) * FRAME_BYTES as f64 / 1e9
}

/// Million small rectangles per second, all over one frame.
fn rects(driver: &mut GpuDriver, size: u32) -> f64 {
    let places = (0..64).map(|place| Rect {
        x: place * 29 % (WIDTH - size),
        y: place * 61 % (HEIGHT - size),
        width: size,
        height: size,
    });
    let requests: Vec<_> = places
        .map(|rect| {
            let offset = (u64::from(rect.y) * u64::from(WIDTH) + u64::from(rect.x)) * 4;
            request::transfer_to_host_2d(1, rect, offset)
        })
        .collect();
    run(driver, &requests) / 1e6
}

fn run(driver: &mut GpuDriver, requests: &[Vec<u8>]) -> f64 {
    let memory = driver.transport.memory.clone();
    let mut response = Response::new(24);
    let gpu = driver.gpu();
    let rate = rate(|count| {
        if let Some(request) = requests.get(count as usize % requests.len()) {
            response.restart(24);
            let _ = gpu.control(request, &memory, &mut response);
        }
    });
    assert_eq!(gpu.status().counters.errors.total(), 0);
    rate
}
