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
use virtio_gpu_s3::renderer::{Begun, Completion, Data, Operation, Ticket};
use virtio_gpu_s3::{Fence, Limits, Renderer, RendererError, Timeline};
use virtio_gpu_s3_testing::request;

use crate::crash::{Patient, connect, draw};
use crate::virgl::{clear, make_target, send};
use crate::vmm::{RAM_BASE, Vmm, wait_until};

/// Behind the scratch memory; the words that both processes change are at its start.
const LINE_BYTES: u64 = (4 << 10) + 2 * (64 << 10) + (4 << 10);
/// Longer than who found nothing stays awake, on a machine that does other things too.
const REST: Duration = Duration::from_millis(50);

const CONTEXT: Operation = Operation::CreateContext {
    ctx_id: 1,
    context_init: 2,
};
const SUBMIT: Operation = Operation::Submit {
    ctx_id: 1,
    in_fences: Vec::new(),
};

fn submit(
    renderer: &mut RemoteRenderer,
    stream: &[u8],
    fence: Option<Fence>,
) -> Result<(), RendererError> {
    let call = SUBMIT.with(Data::Stream(&stream)).fenced(fence);
    renderer.call(call).map(drop)
}

const fn on_global(id: u64) -> Fence {
    let timeline = Timeline::Global;
    Fence { timeline, id }
}

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
            let words = [0, 128, 256, 384, 512, 640, 768, 4096, 5120, 69_632, 70_656];
            let at = words[random() as usize % words.len()];
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

#[test]
fn commands_of_one_doorbell_are_answered_each_with_its_own_error() {
    let patient = Patient::start(|_| {});
    let mut vmm = connect(&patient);
    make_target(&mut vmm);
    let mut id = 10;
    for round in 0..100_u32 {
        let is_nonsense = |index: u32| (index * 5 + round).is_multiple_of(3);
        let requests = (0..8).map(|index| {
            let stream = if is_nonsense(index) {
                request::submit_3d(&[0xff])
            } else {
                clear(0.4)
            };
            id += 1;
            match index % 2 {
                0 => request::in_context(1, stream),
                _ => request::fenced(1, id, stream),
            }
        });
        let answers = vmm.command_all(&requests.collect::<Vec<_>>());
        for (index, answer) in (0..).zip(answers) {
            let expected = if is_nonsense(index) {
                ResponseType::ERR_UNSPEC
            } else {
                ResponseType::OK_NODATA
            };
            assert_eq!(ResponseType(answer), expected, "{round}, {index}");
        }
    }
    draw(&mut vmm, 0.2, 51);
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
    renderer.call(CONTEXT.call()).unwrap();
    for id in 1..300 {
        let looks = id % 3 > 0;
        let before = told.load(Ordering::SeqCst);
        renderer.want_wakes(!looks);
        let fence = on_global(id);
        submit(&mut renderer, &[0; 4], Some(fence)).unwrap();
        if !looks {
            wait_until("the wake", || told.load(Ordering::SeqCst) > before);
            assert_eq!(renderer.poll(), [Completion::Fence(fence)]);
            continue;
        }
        let signalled = [Completion::Fence(fence)];
        wait_until("the fence", || renderer.poll() == signalled);
        assert_eq!(told.load(Ordering::SeqCst), before);
    }
    // Work that is refused has none, and neither has work after it.
    submit(&mut renderer, &[0xff; 4], Some(on_global(1000))).unwrap_err();
    let fence = on_global(1001);
    submit(&mut renderer, &[0; 4], Some(fence)).unwrap();
    let signalled = [Completion::Fence(fence)];
    wait_until("the fence", || renderer.poll() == signalled);
}

/// What has come of calls in flight, without fences, until `count` are answered.
fn answers(renderer: &mut RemoteRenderer, count: usize) -> Vec<(Ticket, bool)> {
    let mut answers = Vec::new();
    wait_until("the answers", || {
        let calls = renderer.poll().into_iter().filter_map(|it| match it {
            Completion::Call { ticket, result } => Some((ticket, result.is_ok())),
            Completion::Fence(_) => None,
        });
        answers.extend(calls);
        answers.len() >= count
    });
    answers
}

fn begin(renderer: &mut RemoteRenderer, stream: &[u8], ticket: u64) {
    let call = SUBMIT.with(Data::Stream(&stream));
    let begun = renderer.begin(call, Ticket(ticket));
    assert!(matches!(begun, Begun::InFlight), "{begun:?}");
}

#[test]
fn calls_in_flight_are_answered_in_order_and_each_error_is_its_own_calls() {
    let program = RendererProgram::new(env!("CARGO_BIN_EXE_virtio-gpu-s3d").into());
    let mut renderer = RemoteRenderer::new(program, || {}).unwrap();
    renderer.call(CONTEXT.call()).unwrap();
    // More than may be in flight, and some of them longer than a page.
    let is_nonsense = |id: u64| id % 7 == 3;
    let nothing = [0; 9000];
    for id in 0..500 {
        let stream: &[u8] = match id {
            id if is_nonsense(id) => &[0xff; 4],
            id if id % 5 == 0 => &nothing,
            _ => &nothing[..4],
        };
        begin(&mut renderer, stream, id);
    }
    // A call that is waited for comes behind them all.
    submit(&mut renderer, &[0; 4], None).unwrap();
    let expected: Vec<_> = (0..500).map(|id| (Ticket(id), !is_nonsense(id))).collect();
    assert_eq!(answers(&mut renderer, 500), expected);
}

#[test]
fn who_sleeps_is_told_of_answers_to_calls_in_flight() {
    let told = Arc::new(AtomicUsize::new(0));
    let count = told.clone();
    let program = RendererProgram::new(env!("CARGO_BIN_EXE_virtio-gpu-s3d").into());
    let wake = move || {
        count.fetch_add(1, Ordering::SeqCst);
    };
    let mut renderer = RemoteRenderer::new(program, wake).unwrap();
    renderer.call(CONTEXT.call()).unwrap();
    for id in 0..300 {
        renderer.want_wakes(true);
        let before = told.load(Ordering::SeqCst);
        begin(&mut renderer, &[0; 4], id);
        let mut done = Vec::new();
        while done.is_empty() {
            wait_until("the wake", || told.load(Ordering::SeqCst) > before);
            done = renderer.poll();
        }
        let ticket = Ticket(id);
        let result = Ok(());
        assert_eq!(done, [Completion::Call { ticket, result }]);
    }
}

#[test]
fn a_renderer_that_dies_with_calls_in_flight_says_so_and_answers_none_of_them_twice() {
    let program = RendererProgram::new(env!("CARGO_BIN_EXE_virtio-gpu-s3d").into());
    let mut renderer = RemoteRenderer::new(program, || {}).unwrap();
    renderer.call(CONTEXT.call()).unwrap();
    let process = renderer.process_id().unwrap();
    let process = Pid::from_raw(process.try_into().unwrap()).unwrap();
    kill_process(process, Signal::STOP).unwrap();
    for id in 0..40 {
        begin(&mut renderer, &[0; 4], id);
    }
    kill_process(process, Signal::KILL).unwrap();
    wait_until("the end", || renderer.failure().is_some());
    assert_eq!(renderer.poll(), []);
    let gone = submit(&mut renderer, &[0; 4], None);
    assert_eq!(gone.unwrap_err(), RendererError::Gone);
    // The next has nothing of theirs.
    renderer.restart().unwrap();
    renderer.call(CONTEXT.call()).unwrap();
    begin(&mut renderer, &[0; 4], 40);
    assert_eq!(answers(&mut renderer, 1), [(Ticket(40), true)]);
}

#[test]
fn a_renderer_that_hangs_is_ended_also_where_nobody_waits_for_it() {
    let mut program = RendererProgram::new(env!("CARGO_BIN_EXE_virtio-gpu-s3d").into());
    program.call_limit = Duration::from_millis(500);
    let mut renderer = RemoteRenderer::new(program, || {}).unwrap();
    renderer.call(CONTEXT.call()).unwrap();
    // One that only has nothing to do stays.
    thread::sleep(Duration::from_millis(1800));
    assert_eq!(renderer.failure(), None);
    let process = renderer.process_id().unwrap();
    let process = Pid::from_raw(process.try_into().unwrap()).unwrap();
    kill_process(process, Signal::STOP).unwrap();
    begin(&mut renderer, &[0; 4], 1);
    wait_until("the end", || renderer.failure().is_some());
    let why = renderer.failure().unwrap();
    assert!(why.contains("no answer in time"), "{why}");
}

#[test]
fn the_longest_stream_that_the_limits_can_allow_reaches_the_renderer() {
    let most = 1 << 26;
    let limits = Limits::default().with("max_submit_bytes", most).unwrap();
    let mut program = RendererProgram::new(env!("CARGO_BIN_EXE_virtio-gpu-s3d").into());
    program.max_request = limits.max_command_bytes();
    let mut renderer = RemoteRenderer::new(program, || {}).unwrap();
    renderer.call(CONTEXT.call()).unwrap();
    // Commands that do nothing.
    let stream = vec![0; most as usize];
    submit(&mut renderer, &stream, None).unwrap();
    // What no limit allows is refused, and costs nothing.
    let start = Instant::now();
    let longer = vec![0; 4 * most as usize];
    let refused = submit(&mut renderer, &longer, None);
    assert!(matches!(refused, Err(RendererError::Refused { .. })));
    submit(&mut renderer, &[0; 4], None).unwrap();
    assert!(start.elapsed() < Duration::from_secs(10));
}
