// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The one virgl renderer of a process panics on the thread that started it: one test, as there is one.

mod crashed;

use virtio_gpu_rutabaga::{RutabagaConfig, RutabagaRenderer};
use virtio_gpu_s3::Renderer;

use crashed::crashed;

#[test]
fn a_renderer_that_panics_on_this_thread_costs_3d_and_not_the_thread() {
    let renderer = crashed(|wake| {
        let renderer = RutabagaRenderer::on_this_thread(&RutabagaConfig::default(), wake);
        let mut renderer = renderer.unwrap();
        renderer.watch().unwrap();
        renderer
    });
    assert!(renderer.failure().is_some());
}
