// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A renderer that crashes again and again. Alone in its process, as it counts that process's files.

use std::fs;
use std::process;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use virtio_gpu_renderer_process::{RemoteRenderer, RendererProgram};
use virtio_gpu_s3::renderer::{Data, Operation};
use virtio_gpu_s3::{Rect, Renderer, RendererError};
use virtio_gpu_s3_testing::scene::{self, TEXTURE};

const RESTARTS: usize = 100;

fn entries(directory: &str) -> usize {
    fs::read_dir(directory).unwrap().count()
}

/// Files and threads of this process, and its children, dead ones too.
fn held() -> [usize; 3] {
    let own = process::id().to_string();
    let is_child = |stat: &String| {
        // The name, in parentheses, may hold anything.
        let (_, fields) = stat.rsplit_once(')').unwrap();
        fields.split_whitespace().nth(1) == Some(&own)
    };
    let processes = fs::read_dir("/proc").unwrap();
    let stats = processes.filter_map(|entry| {
        let path = entry.unwrap().path().join("stat");
        fs::read_to_string(path).ok()
    });
    let children = stats.filter(is_child).count();
    [
        entries("/proc/self/fd"),
        entries("/proc/self/task"),
        children,
    ]
}

const CONTEXT: Operation = Operation::CreateContext {
    ctx_id: 1,
    context_init: 2,
};

fn draw(renderer: &mut RemoteRenderer) {
    let (ctx_id, resource_id, params) = (1, scene::ID, TEXTURE);
    for operation in [
        CONTEXT,
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
    let words = [scene::TARGET.as_slice(), &scene::clear(0.4)].concat();
    let stream: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
    let stream = stream.as_slice();
    let in_fences = Vec::new();
    let submit = Operation::Submit { ctx_id, in_fences };
    let submit = submit.with(Data::Stream(&stream));
    renderer.call(submit).unwrap();
    let mut pixels = vec![0; scene::BYTES as usize];
    let whole = Rect::sized(TEXTURE.width, TEXTURE.height);
    let stride = (TEXTURE.width * 4) as usize;
    let read = Operation::ReadPixels {
        resource_id,
        rect: whole,
        stride,
    };
    renderer.call(read.with(Data::Room(&mut pixels))).unwrap();
    assert_eq!(scene::blue_of(&pixels), 102);
}

fn crash(renderer: &RemoteRenderer) {
    let id = renderer.process_id().unwrap();
    let id = Pid::from_raw(id.try_into().unwrap()).unwrap();
    kill_process(id, Signal::KILL).unwrap();
    wait_until(|| renderer.failure().is_some());
}

fn wait_until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10));
        sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_hundred_crashes_and_restarts_leave_no_file_thread_or_zombie() {
    let mut program = RendererProgram::new(env!("CARGO_BIN_EXE_virtio-gpu-s3d").into());
    program.restarts_a_minute = RESTARTS + 1;
    let before = held();
    let mut renderer = RemoteRenderer::new(program, || {}).unwrap();
    draw(&mut renderer);
    let running = held();
    for _ in 0..RESTARTS {
        crash(&renderer);
        let end = Operation::DestroyContext { ctx_id: 1 };
        assert!(renderer.call(end.call()).is_ok());
        let again = renderer.call(CONTEXT.call());
        assert_eq!(again.unwrap_err(), RendererError::Gone);
        renderer.restart().unwrap();
        assert_eq!(renderer.failure(), None);
        draw(&mut renderer);
        wait_until(|| held() == running);
    }
    drop(renderer);
    wait_until(|| held() == before);
}
