// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a 3D command costs with virglrenderer.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use virtio_gpu_s3::testing::{GpuDriver, WithFence, config, request};
use virtio_gpu_s3::{Gpu, NullDisplay, RutabagaConfig, RutabagaRenderer};

const ROUNDS: u32 = 20_000;

/// An empty stream, alone and with a fence that is waited for, and a long one.
pub(crate) fn measure() {
    let woken = Arc::new((Mutex::new(()), Condvar::new()));
    let other = Arc::clone(&woken);
    let wake = move || {
        drop(other.0.lock().unwrap());
        other.1.notify_one();
    };
    let renderer = RutabagaRenderer::new(&RutabagaConfig::default(), wake).unwrap();
    let gpu = Gpu::new(config(1, 64, 64), Box::new(renderer), Box::new(NullDisplay));
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
        let mut guard = woken.0.lock().unwrap();
        while driver.gpu().take_completed().next().is_none() {
            guard = woken.1.wait(guard).unwrap();
        }
    });
    // 16 384 commands that do nothing, of 65 536 bytes.
    let long = request::submit_3d(&vec![0; 16_384]);
    let (long, _) = typical(|_| {
        driver.in_context(1, long.clone());
    });
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    println!(
        "SUBMIT_3D of nothing: {:.1} µs, with a fence {:.1} µs (best {:.1}); of 16 384 commands \
         {:.1} µs",
        us(alone),
        us(fenced),
        us(best),
        us(long)
    );
}

/// Median and shortest time.
fn typical(mut step: impl FnMut(u32)) -> (Duration, Duration) {
    let mut times: Vec<_> = (0..ROUNDS)
        .map(|round| {
            let start = Instant::now();
            step(round);
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    (times[times.len() / 2], times[0])
}
