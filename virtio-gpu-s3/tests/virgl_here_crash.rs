// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The one virgl renderer of a process panics on the thread that started it: one test, as there is one.

use std::sync::mpsc::channel;
use std::time::Duration;

use virtio_gpu_s3::testing::request;
use virtio_gpu_s3::{Renderer, RendererError, RutabagaConfig, RutabagaRenderer};

#[test]
fn a_renderer_that_panics_on_this_thread_costs_3d_and_not_the_thread() {
    let (woken, wakes) = channel();
    // The test may have ended.
    let wake = move || woken.send(()).unwrap_or_default();
    let mut renderer = RutabagaRenderer::on_this_thread(&RutabagaConfig::default(), wake).unwrap();
    renderer.watch().unwrap();
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
    let gone = Err(RendererError::Gone);
    assert_eq!(renderer.create_context(2, 0, b""), gone);
    assert_eq!(renderer.submit(1, &[0; 4], &[]), gone);
    assert_eq!(renderer.destroy_resource(1), gone);
    assert_eq!(renderer.restart(), gone);
}
