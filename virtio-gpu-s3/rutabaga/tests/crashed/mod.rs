// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The end of a process's one virgl renderer, wherever it runs. One process has one, so each place has a program.

use std::sync::mpsc::channel;
use std::time::Duration;

use virtio_gpu_rutabaga::RutabagaRenderer;
use virtio_gpu_s3::{Renderer, RendererError};
use virtio_gpu_s3_testing::scene::TEXTURE;

/// What a renderer calls when there is news.
type Wake = Box<dyn Fn() + Send + Sync>;

/// The renderer that `start` starts, after it panicked in the middle of its work.
pub(crate) fn crashed(start: impl FnOnce(Wake) -> RutabagaRenderer) -> RutabagaRenderer {
    let (woken, wakes) = channel();
    // The test may have ended.
    let mut renderer = start(Box::new(move || woken.send(()).unwrap_or_default()));
    renderer.create_context(1, 0, b"doomed").unwrap();
    renderer.create_resource(1, &TEXTURE).unwrap();
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
    assert_eq!(renderer.restart(), gone);
    renderer
}
