// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The end of a process's one virgl renderer, wherever it runs. One process has one, so each place has a program.

use std::sync::mpsc::channel;
use std::time::Duration;

use virtio_gpu_rutabaga::RutabagaRenderer;
use virtio_gpu_s3::renderer::{Data, Operation};
use virtio_gpu_s3::{Renderer, RendererError};
use virtio_gpu_s3_testing::scene::TEXTURE;

/// What a renderer calls when there is news.
type Wake = Box<dyn Fn() + Send + Sync>;

/// The renderer that `start` starts, after it panicked in the middle of its work.
pub(crate) fn crashed(start: impl FnOnce(Wake) -> RutabagaRenderer) -> RutabagaRenderer {
    let (woken, wakes) = channel();
    // The test may have ended.
    let mut renderer = start(Box::new(move || woken.send(()).unwrap_or_default()));
    let context = |ctx_id| Operation::CreateContext {
        ctx_id,
        context_init: 0,
    };
    let (resource_id, params) = (1, TEXTURE);
    let texture = Operation::CreateResource {
        resource_id,
        params,
    };
    renderer.call(context(1).call()).unwrap();
    renderer.call(texture.call()).unwrap();
    assert_eq!(renderer.failure(), None);
    while wakes.try_recv().is_ok() {}
    renderer.crash();
    // Whoever waits for fences is told to look.
    wakes.recv_timeout(Duration::from_secs(20)).unwrap();
    let why = renderer.failure().unwrap();
    assert!(why.contains("a test said so"), "{why}");
    // Every call from now on returns, and says so.
    let submit = Operation::Submit {
        ctx_id: 1,
        in_fences: Vec::new(),
    };
    let mut stream = [0];
    for call in [
        context(2).call(),
        submit.with(Data::Words(&mut stream)),
        Operation::DestroyResource { resource_id }.call(),
    ] {
        assert_eq!(renderer.call(call).unwrap_err(), RendererError::Gone);
    }
    assert_eq!(renderer.restart(), Err(RendererError::Gone));
    renderer
}
