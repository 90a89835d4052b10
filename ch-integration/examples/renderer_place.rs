// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a 3D command costs with the renderer on a thread and in a process of its own.
//!
//! Build the server first, with the same profile:
//! `scripts/virgl run cargo build --release -p ch-integration --features virgl --bin virtio-gpu-s3d`, then
//! `scripts/virgl run cargo run --release -p ch-integration --features virgl --example renderer_place -- SERVER`.

use std::env;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use virtio_gpu_renderer_process::{RemoteRenderer, RendererProgram};
use virtio_gpu_rutabaga::{RutabagaConfig, RutabagaRenderer};
use virtio_gpu_s3::{Gpu, Rect, Renderer};
use virtio_gpu_s3_testing::{GpuDriver, WithFence, config, request};

const ROUNDS: u32 = 20_000;
const FRAMES: u32 = 300;

#[derive(Clone, Default)]
struct Woken(Arc<(Mutex<()>, Condvar)>);

impl Woken {
    fn wake(&self) {
        drop(self.0.0.lock().unwrap());
        self.0.1.notify_one();
    }
}

fn main() {
    let server = env::args_os().nth(1).expect("the path of virtio-gpu-s3d");
    let program = RendererProgram::new(server.into());
    let woken = Woken::default();
    let other = woken.clone();
    let remote = RemoteRenderer::new(program, move || other.wake()).unwrap();
    let process = measure("process", Box::new(remote), &woken);
    let other = woken.clone();
    let local = RutabagaRenderer::new(&RutabagaConfig::default(), move || other.wake()).unwrap();
    let thread = measure("thread", Box::new(local), &woken);
    let ratio = |at: usize| process[at].as_secs_f64() / thread[at].as_secs_f64();
    println!(
        "process : thread = {:.2} alone, {:.2} with a fence, {:.2} for 64 KiB",
        ratio(0),
        ratio(1),
        ratio(2)
    );
}

fn measure(name: &str, renderer: Box<dyn Renderer>, woken: &Woken) -> [Duration; 3] {
    let gpu = Gpu::new(config(1, 64, 64), renderer);
    let mut driver = GpuDriver::with_gpu(gpu.unwrap(), 1 << 20);
    driver.in_context(1, request::ctx_create(2));
    let empty = request::submit_3d(&[0]);
    let (alone, _) = typical(|_| {
        driver.in_context(1, empty.clone());
    });
    let (fenced, best) = typical(|id| {
        let fence = WithFence {
            id: id.into(),
            ctx_id: 1,
            ring_idx: None,
        };
        driver.fenced(fence, empty.clone()).unwrap_err();
        let mut guard = woken.0.0.lock().unwrap();
        while driver.gpu().take_completed().next().is_none() {
            guard = woken.0.1.wait(guard).unwrap();
        }
    });
    frames(name, &mut driver);
    let long = request::submit_3d(&vec![0; 16_384]);
    let (long, _) = typical(|_| {
        driver.in_context(1, long.clone());
    });
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    println!(
        "{name}: SUBMIT_3D of nothing {:.1} µs, with a fence {:.1} µs (best {:.1}), of 64 KiB {:.1} µs",
        us(alone),
        us(fenced),
        us(best),
        us(long)
    );
    [alone, fenced, long]
}

/// A frame of 1080p in the renderer: its flush while nobody looks, beside one of a resource that no scanout shows, and
/// a look after each flush.
fn frames(name: &str, driver: &mut GpuDriver) {
    let whole = Rect::sized(1920, 1080);
    for id in [1, 2] {
        driver.control(request::resource_create_3d(
            id,
            &request::texture(1920, 1080),
        ));
    }
    driver.set_scanout(0, 1, whole);
    let flush = |driver: &mut GpuDriver, id| {
        driver.flush(id, whole);
    };
    let (shown, _) = typical_of(FRAMES, |_| flush(driver, 1));
    let (hidden, _) = typical_of(FRAMES, |_| flush(driver, 2));
    let (seen, _) = typical_of(FRAMES, |_| {
        flush(driver, 1);
        driver.scanout_image(0, false).expect("a picture");
    });
    let (image, _) = typical_of(FRAMES, |_| {
        driver.scanout_image(0, false).expect("a picture");
    });
    println!(
        "{name}: 1080p flush that nobody looks at {:.2} µs, that shows nothing {:.2} µs; with a look and its copy \
         {:.2} ms, of which the copy is {:.2} ms",
        shown.as_secs_f64() * 1e6,
        hidden.as_secs_f64() * 1e6,
        seen.as_secs_f64() * 1e3,
        image.as_secs_f64() * 1e3
    );
}

/// Median and shortest time.
fn typical(step: impl FnMut(u32)) -> (Duration, Duration) {
    typical_of(ROUNDS, step)
}

fn typical_of(rounds: u32, mut step: impl FnMut(u32)) -> (Duration, Duration) {
    let mut times: Vec<_> = (0..rounds)
        .map(|round| {
            let start = Instant::now();
            step(round);
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    (times[times.len() / 2], times[0])
}
