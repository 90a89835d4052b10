// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The one virgl renderer of a process, on the thread that started it: one test, as there is one.

use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use virtio_gpu_rutabaga::{RutabagaConfig, RutabagaRenderer};
use virtio_gpu_s3::Gpu;
use virtio_gpu_s3::protocol::ResponseType;
use virtio_gpu_s3::renderer::Resource3d;
use virtio_gpu_s3_testing::{GpuDriver, Layout, WithFence, config, request};

/// A fence takes milliseconds, also on a loaded machine; what takes this long never comes.
const PATIENCE: Duration = Duration::from_secs(20);
/// Commands of virgl, by their numbers in virgl_protocol.h: the header is the number, an object's kind, and how many
/// words follow.
const CREATE_QUERY: u32 = 1 | 9 << 8 | 4 << 16;
const BEGIN_QUERY: u32 = 19 | 1 << 16;
const END_QUERY: u32 = 20 | 1 << 16;
const GET_QUERY_RESULT: u32 = 21 | 2 << 16;
const CREATE_SUB_CONTEXT: u32 = 29 | 1 << 16;
const SET_SUB_CONTEXT: u32 = 28 | 1 << 16;

/// R8_UNORM, and memory of the guest that the host writes results to.
const RESULT: Resource3d = Resource3d {
    target: 0,
    format: 64,
    bind: 1 << 17,
    width: 4096,
    height: 1,
    ..request::texture(1, 1)
};

/// Waits for the one answer, woken by the renderer and by nothing else.
fn wait_for_answer(driver: &mut GpuDriver, wakes: &Receiver<()>) {
    while driver.gpu().take_completed().next().is_none() {
        wakes.recv_timeout(PATIENCE).unwrap();
    }
}

fn fence(id: u64) -> WithFence {
    WithFence {
        id,
        ctx_id: 1,
        ring_idx: None,
    }
}

#[test]
fn a_renderer_on_this_thread_signals_what_waits_for_queries_and_serves_no_other_thread() {
    let (woken, wakes) = channel();
    // The test may have ended.
    let wake = move || woken.send(()).unwrap_or_default();
    let mut renderer = RutabagaRenderer::on_this_thread(&RutabagaConfig::default(), wake).unwrap();
    renderer.watch().unwrap();
    let gpu = Gpu::new(config(1, 64, 64), Box::new(renderer));
    let mut driver = GpuDriver::with_gpu(gpu.unwrap(), 1 << 20);
    let ok = ResponseType::OK_NODATA;
    assert_eq!(driver.in_context(1, request::ctx_create(2)), ok);
    let memory = driver.ram.alloc(4096, Layout::Contiguous);
    driver.ram.write(&memory, 0, &[0; 16]);
    let create = request::resource_create_3d(30, &RESULT);
    assert_eq!(driver.control(create).type_(), ok);
    assert_eq!(driver.attach(30, &memory), ok);
    assert_eq!(driver.in_context(1, request::ctx_attach_resource(30)), ok);
    #[rustfmt::skip]
    let stream = [
        CREATE_SUB_CONTEXT, 1,
        SET_SUB_CONTEXT, 1,
        // An occlusion counter.
        CREATE_QUERY, 50, 0, 0, 30,
        BEGIN_QUERY, 50,
        END_QUERY, 50,
        GET_QUERY_RESULT, 50, 0,
    ];
    for id in 1..20 {
        // virglrenderer holds fences back until it is polled for results of queries, on this thread.
        let stream = if id == 1 { &stream[..] } else { &stream[9..] };
        driver
            .fenced(fence(id), request::submit_3d(stream))
            .unwrap_err();
        wait_for_answer(&mut driver, &wakes);
        assert_eq!(driver.ram.read(&memory, 0, 4), 1_u32.to_le_bytes());
        driver.ram.write(&memory, 0, &[0; 16]);
    }
    let elsewhere = thread::spawn(move || {
        let answer = driver.in_context(1, request::submit_3d(&[0]));
        (driver, answer)
    });
    let (mut driver, answer) = elsewhere.join().unwrap();
    assert_eq!(answer, ResponseType::ERR_UNSPEC);
    // Here it is as it was.
    driver
        .fenced(fence(20), request::submit_3d(&[0]))
        .unwrap_err();
    wait_for_answer(&mut driver, &wakes);
}
