// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The one virgl renderer of a process, from its start to its end: one test, as there is one.

use std::fs::{File, read_link};

use rustix::stdio::dup2_stderr;
use virtio_gpu_rutabaga::{RutabagaConfig, RutabagaRenderer, StartError};
use virtio_gpu_s3::Renderer;
use virtio_gpu_s3::renderer::{Data, Operation};
use virtio_gpu_s3_testing::request;

#[test]
fn a_renderer_ends_with_all_it_holds_and_no_second_one_pretends_to_render() {
    // Not where standard output goes, whoever runs this.
    dup2_stderr(File::open("/dev/zero").unwrap()).unwrap();
    let config = RutabagaConfig::default();
    let mut renderer = RutabagaRenderer::new(&config, || {}).unwrap();
    // rutabaga's debug builds would have made it a copy of standard output.
    let stderr = read_link("/proc/self/fd/2").unwrap();
    assert_eq!(stderr.as_os_str(), "/dev/zero");
    let (ctx_id, resource_id, params) = (1, 1, request::texture(64, 64));
    let context = Operation::CreateContext {
        ctx_id,
        context_init: 0,
    };
    let name = Data::Bytes(b"last words");
    renderer.call(context.with(name)).unwrap();
    for operation in [
        Operation::CreateResource {
            resource_id,
            params,
        },
        Operation::AttachResource {
            ctx_id,
            resource_id,
        },
    ] {
        renderer.call(operation.call()).unwrap();
    }
    let second = RutabagaRenderer::new(&config, || {});
    assert_eq!(second.unwrap_err(), StartError::AlreadyStarted);
    drop(renderer);
    // rutabaga itself would say yes, and render nothing.
    let third = RutabagaRenderer::new(&config, || {});
    assert_eq!(third.unwrap_err(), StartError::AlreadyStarted);
}
