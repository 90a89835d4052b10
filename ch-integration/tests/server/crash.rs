// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Renderers that crash, hang, or never were any.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::time::Duration;
use virtio_gpu_worker::Controlled;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::{TempDir, tempfile};
use virtio_gpu_renderer_process::{RemoteRenderer, RendererProgram};
use virtio_gpu_s3::Rect;
use virtio_gpu_s3::protocol::ResponseType;
use virtio_gpu_s3_testing::request;
use virtio_gpu_s3_testing::scene::{self, TEXTURE};
use virtio_gpu_worker::{Event, EventKind, RendererPlace};
use virtio_pci_freeze::Register;
use virtio_pci_freeze::spec::{DeviceStatus, pci};

use crate::blobs::{self, MAPPED};
use crate::virgl::{blue, clear, make_target, send};
use crate::vmm::{RAM_BASE, Server, Vmm, wait_until};

const NEEDS_RESET: u8 = DeviceStatus::DEVICE_NEEDS_RESET;
/// All of the guest's picture.
pub(crate) const WHOLE: Rect = Rect::sized(TEXTURE.width, TEXTURE.height);
/// Longer than a renderer takes to start on a busy machine.
const EVENT_LIMIT: Duration = Duration::from_secs(30);

/// A server whose renderer writes down its process number.
pub(crate) struct Patient {
    pub(crate) server: Server,
    events: Receiver<Event>,
    directory: TempDir,
}

fn script(directory: &Path, text: &str) -> PathBuf {
    let path = directory.join("renderer");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    path
}

impl Patient {
    pub(crate) fn start(change: impl FnOnce(&mut RendererProgram)) -> Self {
        Self::start_with("backend=virgl", change)
    }

    fn start_with(gpu: &str, change: impl FnOnce(&mut RendererProgram)) -> Self {
        let directory = TempDir::new().unwrap();
        let number = directory.path().join("number");
        let program = env!("CARGO_BIN_EXE_virtio-gpu-s3d");
        let text = format!(
            "echo $$ >{0}.new && mv {0}.new {0} && exec {program} \"$@\"",
            number.display()
        );
        let mut program = RendererProgram::new(script(directory.path(), &text));
        change(&mut program);
        let server = Server::start_in(RendererPlace::Process(program), gpu);
        let events = server.device.subscribe();
        Self {
            server,
            events,
            directory,
        }
    }

    pub(crate) fn renderer(&self) -> Pid {
        let number = fs::read_to_string(self.directory.path().join("number")).unwrap();
        Pid::from_raw(number.trim().parse().unwrap()).unwrap()
    }

    /// A signal that somebody else sends is no fault to Rust's handler, which takes the first one for its own.
    fn crash(&self, renderer: Pid) {
        let gone = || kill_process(renderer, Signal::SEGV).is_err();
        wait_until("the renderer's end", gone);
    }

    /// The next event that is about the renderer or a reset.
    pub(crate) fn crashed(&self) -> String {
        loop {
            let event = self.events.recv_timeout(EVENT_LIMIT).unwrap();
            if let EventKind::RendererCrashed { reason } = event.kind {
                return reason;
            }
        }
    }

    fn resources(&self) -> usize {
        self.server.device.status().unwrap().resources
    }
}

pub(crate) fn connect(patient: &Patient) -> Vmm {
    let mut vmm = Vmm::connect(&patient.server.socket());
    vmm.connect_irqs();
    vmm.start_driver();
    vmm
}

pub(crate) fn draw(vmm: &mut Vmm, value: f32, expected: u8) {
    let answer = send(vmm, &request::fenced(1, 2, clear(value)));
    assert_eq!(answer, ResponseType::OK_NODATA);
    assert_eq!(blue(vmm), expected);
}

/// A guest with a picture on its output that was flushed and that nobody has looked at: blue is 51 everywhere.
pub(crate) fn connect_and_show(patient: &Patient) -> Vmm {
    let mut vmm = connect(patient);
    make_target(&mut vmm);
    draw(&mut vmm, 0.2, 51);
    for request in [
        request::set_scanout(0, scene::ID, WHOLE),
        request::resource_flush(scene::ID, WHOLE),
    ] {
        assert_eq!(send(&mut vmm, &request), ResponseType::OK_NODATA);
    }
    vmm
}

#[test]
fn a_crash_in_the_middle_of_a_scene_costs_the_scene_and_a_reset_brings_a_new_renderer() {
    let patient = Patient::start(|_| {});
    let mut vmm = connect(&patient);
    make_target(&mut vmm);
    draw(&mut vmm, 0.2, 51);

    let renderer = patient.renderer();
    kill_process(renderer, Signal::STOP).unwrap();
    let before = vmm.used(0);
    let at = RAM_BASE + 0x1_8000;
    vmm.offer(0, &request::fenced(1, 3, clear(0.4)), (at, 24));
    kill_process(renderer, Signal::SEGV).unwrap();
    kill_process(renderer, Signal::CONT).unwrap();
    patient.crash(renderer);
    let reason = patient.crashed();
    assert!(reason.contains("SIGSEGV"), "{reason}");
    wait_until("the request's answer", || vmm.used(0) != before);
    wait_until("the call for a reset", || {
        vmm.status().contains(NEEDS_RESET)
    });

    // The VMM has its device, the guest its picture in 2D and errors in 3D.
    let display = vmm.command(0, &request::get_display_info(), 408);
    assert_eq!(display[..2], [0x01, 0x11]);
    let answer = send(&mut vmm, &request::fenced(1, 4, clear(0.6)));
    assert_eq!(answer, ResponseType::ERR_UNSPEC);
    let status = patient.server.device.status().unwrap();
    assert!(status.counters.errors_by_kind["host"] > 0);

    vmm.start_driver();
    assert_eq!(patient.resources(), 0);
    make_target(&mut vmm);
    draw(&mut vmm, 0.8, 204);
    assert_ne!(patient.renderer(), renderer);
}

#[test]
fn a_crash_of_an_idle_renderer_is_told_at_once() {
    let patient = Patient::start(|_| {});
    let mut vmm = connect(&patient);
    make_target(&mut vmm);
    kill_process(patient.renderer(), Signal::KILL).unwrap();
    let reason = patient.crashed();
    assert!(reason.contains("SIGKILL"), "{reason}");
    wait_until("the call for a reset", || {
        vmm.status().contains(NEEDS_RESET)
    });
}

#[test]
fn a_guest_whose_renderer_crashed_cannot_freeze_and_its_next_reset_is_a_full_one() {
    let patient = Patient::start(|_| {});
    let mut vmm = connect(&patient);
    make_target(&mut vmm);
    vmm.write(Register::FreezeMode, 3);
    wait_until("the freeze", || vmm.read(Register::FreezeMode) == 3);
    kill_process(patient.renderer(), Signal::KILL).unwrap();
    patient.crashed();
    vmm.client.reset().unwrap();
    let counters = patient.server.device.status().unwrap().counters.transport;
    assert_eq!((counters.full_resets, counters.frozen_resets), (1, 0));
    assert_eq!(patient.resources(), 0);
    vmm.write_config(pci::COMMAND.into(), &[6, 0]);
    vmm.start_driver();
    make_target(&mut vmm);
    draw(&mut vmm, 0.2, 51);
}

#[test]
fn the_screen_of_a_guest_that_sleeps_outlives_its_renderer_though_nobody_looked_before() {
    let patient = Patient::start(|_| {});
    let mut vmm = connect_and_show(&patient);
    vmm.write(Register::FreezeMode, 3);
    wait_until("the freeze", || vmm.read(Register::FreezeMode) == 3);
    kill_process(patient.renderer(), Signal::KILL).unwrap();
    patient.crashed();
    let image = patient.server.device.screenshot(0, false).unwrap().image;
    assert_eq!((image.width, image.height), (TEXTURE.width, TEXTURE.height));
    assert!(image.pixels.chunks(4).all(|pixel| pixel == [0, 0, 51, 255]));
}

#[test]
fn a_renderer_that_hangs_is_ended() {
    let patient = Patient::start(|program| program.call_limit = Duration::from_secs(1));
    let mut vmm = connect(&patient);
    make_target(&mut vmm);
    let renderer = patient.renderer();
    kill_process(renderer, Signal::STOP).unwrap();
    let answer = send(&mut vmm, &request::fenced(1, 3, clear(0.4)));
    assert_eq!(answer, ResponseType::ERR_UNSPEC);
    let reason = patient.crashed();
    assert!(reason.contains("no answer in time"), "{reason}");
    assert!(kill_process(renderer, Signal::CONT).is_err());
}

#[test]
fn a_renderer_that_crashes_too_often_stays_away_and_the_device_says_so() {
    let patient = Patient::start(|program| program.restarts_a_minute = 1);
    let mut vmm = connect(&patient);
    for _ in 0..2 {
        make_target(&mut vmm);
        kill_process(patient.renderer(), Signal::KILL).unwrap();
        patient.crashed();
        vmm.start_driver();
    }
    let answer = send(&mut vmm, &request::resource_create_3d(10, &TEXTURE));
    assert_eq!(answer, ResponseType::ERR_UNSPEC);
    let reason = patient.crashed();
    assert!(reason.contains("1 times within 60 s"), "{reason}");
    wait_until("the call for a reset", || {
        vmm.status().contains(NEEDS_RESET)
    });
    let display = vmm.command(0, &request::get_display_info(), 408);
    assert_eq!(display[..2], [0x01, 0x11]);
}

#[test]
fn the_renderer_holds_guest_memory_only_while_a_resource_needs_it() {
    let patient = Patient::start(|_| {});
    let mut vmm = connect(&patient);
    let inode = vmm.ram().metadata().unwrap().ino().to_string();
    let mapped = || {
        let maps = format!("/proc/{}/maps", patient.renderer().as_raw_nonzero());
        let maps = fs::read_to_string(maps).unwrap();
        let of_ram = |line: &&str| line.split_whitespace().nth(4) == Some(&inode);
        maps.lines().filter(of_ram).count()
    };
    let open = || {
        let fds = format!("/proc/{}/fd", patient.renderer().as_raw_nonzero());
        let fds = fs::read_dir(fds).unwrap();
        let inodes = fds.filter_map(|fd| fs::metadata(fd.unwrap().path()).ok());
        inodes
            .filter(|file| file.ino().to_string() == inode)
            .count()
    };
    assert_eq!((mapped(), open()), (0, 0));
    make_target(&mut vmm);
    assert_eq!((mapped(), open()), (1, 1));
    // Mapped anew, and once.
    vmm.unmap();
    vmm.map();
    assert_eq!((mapped(), open()), (1, 1));
    draw(&mut vmm, 0.2, 51);
    // With its guest it goes whole.
    drop(vmm);
    wait_until("the end of the guest", || (mapped(), open()) == (0, 0));
}

#[test]
fn the_renderer_has_no_file_of_the_servers() {
    let secret = tempfile().unwrap();
    // As the files that a VMM sends are: not closed in a child.
    fcntl_setfd(&secret, FdFlags::empty()).unwrap();
    let inode = secret.metadata().unwrap().ino();
    let patient = Patient::start(|_| {});
    let fds = format!("/proc/{}/fd", patient.renderer().as_raw_nonzero());
    let fds: Vec<_> = fs::read_dir(fds).unwrap().collect();
    assert!(fds.len() > 3);
    let files = fds
        .into_iter()
        .filter_map(|fd| fs::metadata(fd.unwrap().path()).ok());
    assert!(files.into_iter().all(|file| file.ino() != inode));
}

#[test]
fn a_program_that_is_no_renderer_is_named_with_what_it_did() {
    let directory = TempDir::new().unwrap();
    for (text, expected) in [
        ("exit 3", "exit status: 3"),
        (
            "head -c 1 <&0; printf nonsense >&0; sleep 60",
            "makes no sense",
        ),
    ] {
        let program = RendererProgram::new(script(directory.path(), text));
        let error = RemoteRenderer::new(program, || {}).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let missing = RendererProgram::new(directory.path().join("missing"));
    let error = RemoteRenderer::new(missing, || {}).unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
}

#[test]
fn a_blob_that_crashed_with_its_renderer_reads_zeros_and_a_reset_makes_room_for_the_next() {
    let patient = Patient::start_with("backend=virgl,hostmem=16M", |_| {});
    let mut vmm = connect(&patient);
    for value in [7, 9] {
        blobs::make_buffers(&mut vmm);
        assert_eq!(blobs::map(&mut vmm, 40, 0x1000), MAPPED);
        blobs::write(&mut vmm, 0x1000, &[value; 4]);
        assert_eq!(blobs::read(&mut vmm, 0x1000, 4), [value; 4]);
        patient.crash(patient.renderer());
        patient.crashed();
        assert_eq!(blobs::read(&mut vmm, 0x1000, 4), [0; 4]);
        blobs::write(&mut vmm, 0x1000, &[1; 4]);
        assert_ne!(vmm.status().0 & NEEDS_RESET, 0);
        vmm.start_driver();
        assert_eq!(patient.resources(), 0);
        assert_eq!(blobs::read(&mut vmm, 0x1000, 4), [0; 4]);
    }
}
