// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The memory between the device and its renderer's process: what goes through it, and what a renderer that a guest took
//! over may write there.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use virtio_gpu_renderer_process::{RemoteRenderer, RendererProgram};
use virtio_gpu_s3::protocol::ResponseType;
use virtio_gpu_s3::renderer::Work;
use virtio_gpu_s3::{Fence, Limits, Renderer, RendererError, Timeline};
use virtio_gpu_s3_testing::request;

use crate::crash::{Patient, connect, draw};
use crate::virgl::{clear, make_target, send};
use crate::vmm::{RAM_BASE, Vmm, wait_until};

/// Behind the scratch memory; the words that both processes change are at its start.
const LINE_BYTES: u64 = 16 << 10;
/// Longer than who found nothing stays awake, on a machine that does other things too.
const REST: Duration = Duration::from_millis(50);

/// The memory that a renderer has in common with the device.
fn shared(renderer: Pid) -> File {
    let directory = format!("/proc/{}/fd", renderer.as_raw_nonzero());
    let mut paths = fs::read_dir(directory)
        .unwrap()
        .map(|fd| fd.unwrap().path());
    let is_it = |path: &PathBuf| {
        let target = fs::read_link(path).unwrap_or_default();
        target.to_string_lossy().contains("renderer-scratch")
    };
    let path = paths.find(is_it).unwrap();
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap()
}

/// Has the device and its renderer awake, with fences.
fn keep_busy(vmm: &mut Vmm) {
    for id in 0..100 {
        send(vmm, &request::fenced(1, id, clear(0.5)));
    }
}

#[test]
fn a_renderer_that_writes_nonsense_to_the_shared_memory_is_lost_and_the_device_is_not() {
    let patient = Patient::start(|_| {});
    let mut vmm = connect(&patient);
    make_target(&mut vmm);
    keep_busy(&mut vmm);
    let renderer = patient.renderer();
    let file = shared(renderer);
    let line = file.metadata().unwrap().len() - LINE_BYTES;
    // It would notice too, and end by itself.
    kill_process(renderer, Signal::STOP).unwrap();
    file.write_all_at(&[0xff; LINE_BYTES as usize], line)
        .unwrap();
    let answer = send(&mut vmm, &request::fenced(1, 3, clear(0.4)));
    assert_eq!(answer, ResponseType::ERR_UNSPEC);
    let reason = patient.crashed();
    assert!(reason.contains("makes no sense"), "{reason}");
    let display = vmm.command(0, &request::get_display_info(), 408);
    assert_eq!(display[..2], [0x01, 0x11]);
    vmm.start_driver();
    make_target(&mut vmm);
    draw(&mut vmm, 0.8, 204);
}

#[test]
fn whatever_is_written_to_the_shared_memory_the_device_answers() {
    let patient = Patient::start(|program| {
        program.call_limit = Duration::from_millis(500);
        program.restarts_a_minute = 1000;
    });
    let mut vmm = connect(&patient);
    let mut seed = 1_u32;
    let mut random = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed >> 8
    };
    for _ in 0..8 {
        make_target(&mut vmm);
        let renderer = patient.renderer();
        let file = shared(renderer);
        let line = file.metadata().unwrap().len() - LINE_BYTES;
        for id in 0..50 {
            // Words and lengths, most of them small, as those that mean something are.
            let at = [0, 128, 256, 384, 512, 4096, 8192, 12288][random() as usize % 8];
            let value = random() % 5;
            file.write_all_at(&value.to_le_bytes(), line + at).unwrap();
            if id % 10 == 0 {
                // Its fence may never come, as that of any stream that does not end.
                let answer = (RAM_BASE + 0x1_8000, 24);
                vmm.offer(0, &request::fenced(1, id, clear(0.4)), answer);
            } else {
                vmm.command(0, &request::in_context(1, clear(0.4)), 24);
            }
        }
        let display = vmm.command(0, &request::get_display_info(), 408);
        assert_eq!(display[..2], [0x01, 0x11]);
        // Where it was not ended for it.
        let _ = kill_process(renderer, Signal::KILL);
        patient.crashed();
        vmm.start_driver();
    }
    make_target(&mut vmm);
    draw(&mut vmm, 0.8, 204);
}

/// Time that a process has run, on all its threads.
fn ran(process: Pid) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.as_raw_nonzero())).unwrap();
    let nanoseconds = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.unwrap().path().join("schedstat")).ok()?;
        let (nanoseconds, _) = text.split_once(' ')?;
        nanoseconds.parse::<u64>().ok()
    });
    Duration::from_nanos(nanoseconds.sum())
}

#[test]
fn a_renderer_that_nobody_calls_uses_no_processor() {
    let patient = Patient::start(|_| {});
    let mut vmm = connect(&patient);
    make_target(&mut vmm);
    for _ in 0..3 {
        keep_busy(&mut vmm);
        thread::sleep(REST);
        let renderer = patient.renderer();
        let before = ran(renderer);
        thread::sleep(REST * 6);
        let used = ran(renderer) - before;
        assert!(used < REST * 6 / 1000, "{used:?}");
    }
}

#[test]
fn fences_are_told_to_who_sleeps_and_found_by_who_looks() {
    let told = Arc::new(AtomicUsize::new(0));
    let count = told.clone();
    let program = RendererProgram::new(env!("CARGO_BIN_EXE_virtio-gpu-s3d").into());
    let wake = move || {
        count.fetch_add(1, Ordering::SeqCst);
    };
    let mut renderer = RemoteRenderer::new(program, wake).unwrap();
    renderer.create_context(1, 2, b"").unwrap();
    let work = Work::Submit {
        ctx_id: 1,
        stream: &[0; 4],
        in_fences: &[],
    };
    for id in 1..300 {
        let looks = id % 3 > 0;
        let before = told.load(Ordering::SeqCst);
        renderer.want_wakes(!looks);
        let fence = Fence {
            timeline: Timeline::Global,
            id,
        };
        renderer.run_fenced(work, fence).unwrap();
        if !looks {
            wait_until("the wake", || told.load(Ordering::SeqCst) > before);
            assert_eq!(renderer.poll(), [fence]);
            continue;
        }
        wait_until("the fence", || renderer.poll() == [fence]);
        assert_eq!(told.load(Ordering::SeqCst), before);
    }
    // Work that is refused has none, and neither has work after it.
    let fence = Fence {
        timeline: Timeline::Global,
        id: 1000,
    };
    let nonsense = Work::Submit {
        ctx_id: 1,
        stream: &[0xff; 4],
        in_fences: &[],
    };
    renderer.run_fenced(nonsense, fence).unwrap_err();
    let fence = Fence { id: 1001, ..fence };
    renderer.run_fenced(work, fence).unwrap();
    wait_until("the fence", || renderer.poll() == [fence]);
}

#[test]
fn the_longest_stream_that_the_limits_can_allow_reaches_the_renderer() {
    let most = 1 << 26;
    let limits = Limits::default().with("max_submit_bytes", most).unwrap();
    let mut program = RendererProgram::new(env!("CARGO_BIN_EXE_virtio-gpu-s3d").into());
    program.max_request = limits.max_command_bytes();
    let mut renderer = RemoteRenderer::new(program, || {}).unwrap();
    renderer.create_context(1, 2, b"").unwrap();
    // Commands that do nothing.
    let stream = vec![0; most as usize];
    assert_eq!(renderer.submit(1, &stream, &[]), Ok(()));
    // What no limit allows is refused, and costs nothing.
    let start = Instant::now();
    let longer = vec![0; 4 * most as usize];
    let refused = renderer.submit(1, &longer, &[]);
    assert!(matches!(refused, Err(RendererError::Refused { .. })));
    assert_eq!(renderer.submit(1, &[0; 4], &[]), Ok(()));
    assert!(start.elapsed() < Duration::from_secs(10));
}
