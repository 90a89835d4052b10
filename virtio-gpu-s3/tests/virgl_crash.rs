// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The one virgl renderer of a process ends by itself: one test, as there is one.

use std::sync::mpsc::channel;
use std::time::Duration;

use virtio_gpu_s3::protocol::ResponseType;
use virtio_gpu_s3::testing::{GpuDriver, config, pattern, request};
use virtio_gpu_s3::{
    Gpu, NullDisplay, PixelFormat, Renderer, RendererError, RutabagaConfig, RutabagaRenderer,
};

#[test]
fn a_renderer_that_panics_costs_3d_and_nothing_else() {
    let (woken, wakes) = channel();
    // The test may have ended.
    let wake = move || woken.send(()).unwrap_or_default();
    let mut renderer = RutabagaRenderer::new(&RutabagaConfig::default(), wake).unwrap();
    renderer.create_context(1, 0, b"doomed").unwrap();
    renderer
        .create_resource(1, &request::texture(64, 64))
        .unwrap();
    assert_eq!(renderer.failure(), None);
    while wakes.try_recv().is_ok() {}
    renderer.crash();
    // Whoever waits for fences is told to look.
    wakes.recv_timeout(Duration::from_secs(20)).unwrap();
    let why = renderer.failure().unwrap();
    assert!(why.contains("a test said so"), "{why}");
    // Every call from now on returns, and says so.
    let gone = Err(RendererError::Gone);
    assert_eq!(renderer.create_context(2, 0, b""), gone);
    assert_eq!(renderer.submit(1, &[0; 4], &[]), gone);
    assert_eq!(renderer.destroy_resource(1), gone);
    // A device on it says why it needs a reset, and draws in 2D all the same.
    let gpu = Gpu::new(config(1, 64, 64), Box::new(renderer), Box::new(NullDisplay));
    let mut driver = GpuDriver::with_gpu(gpu.unwrap(), 1 << 20);
    assert!(driver.gpu().renderer_failure().is_some());
    let answer = driver.in_context(3, request::ctx_create(2));
    assert_eq!(answer, ResponseType::ERR_UNSPEC);
    let buffer = driver.framebuffer(0, 5, PixelFormat::BGRX, 64, 64);
    driver.draw(5, &buffer, &pattern(1, 64 * 64 * 4), 64, 64);
}
