// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The one virgl renderer of a process ends by itself: one test, as there is one.

mod crashed;

use virtio_gpu_rutabaga::{RutabagaConfig, RutabagaRenderer};
use virtio_gpu_s3::protocol::ResponseType;
use virtio_gpu_s3::{Gpu, PixelFormat};
use virtio_gpu_s3_testing::{GpuDriver, config, pattern, request};

use crashed::crashed;

#[test]
fn a_renderer_that_panics_costs_3d_and_nothing_else() {
    let renderer = crashed(|wake| RutabagaRenderer::new(&RutabagaConfig::default(), wake).unwrap());
    // A device on it says why it needs a reset, and draws in 2D all the same.
    let gpu = Gpu::new(config(1, 64, 64), Box::new(renderer));
    let mut driver = GpuDriver::with_gpu(gpu.unwrap(), 1 << 20);
    assert!(driver.gpu().renderer_failure().is_some());
    let answer = driver.in_context(3, request::ctx_create(2));
    assert_eq!(answer, ResponseType::ERR_UNSPEC);
    let buffer = driver.framebuffer(0, 5, PixelFormat::BGRX, 64, 64);
    driver.draw(5, &buffer, &pattern(1, 64 * 64 * 4), 64, 64);
}
