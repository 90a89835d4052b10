// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The program itself, and what it leaves when it or its VMM ends.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;
use std::process::{Child, Command};
#[cfg(feature = "virgl")]
use std::thread;
#[cfg(feature = "virgl")]
use std::time::Duration;

use png::Decoder;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use virtio_gpu_s3::Rect;
use virtio_gpu_s3::protocol::ResponseType;
#[cfg(feature = "virgl")]
use virtio_gpu_s3_testing::scene;
use virtio_gpu_s3_testing::{GuestBuffer, request};
use virtio_gpu_worker::GpuOption;
use vm_memory::{Bytes, GuestAddress};

#[cfg(feature = "virgl")]
use crate::virgl::make_target;
use crate::vmm::{RAM_BASE, Vmm, wait_until};

const BACKING: u64 = RAM_BASE + 0x4_0000;
const SIZE: u32 = 32;
const WHOLE: Rect = Rect {
    x: 0,
    y: 0,
    width: SIZE,
    height: SIZE,
};

/// Killed when dropped.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn start(directory: &Path, gpu: &str) -> Program {
    start_with(directory, gpu, &[])
}

fn start_with(directory: &Path, gpu: &str, options: &[&str]) -> Program {
    let child = Command::new(env!("CARGO_BIN_EXE_virtio-gpu-s3d"))
        .arg("--socket")
        .arg(directory.join("socket"))
        .arg("--screenshot-on-exit")
        .arg(directory.join("screen.png"))
        .args(["--gpu", gpu, "--log-level", "warn"])
        .args(options)
        .spawn()
        .unwrap();
    wait_until("the socket", || directory.join("socket").exists());
    Program(child)
}

/// Shows one colour on an output.
fn show(vmm: &mut Vmm, output: u32, pixel: [u8; 4]) {
    let id = output + 1;
    let bytes = pixel.repeat((SIZE * SIZE) as usize);
    vmm.memory
        .write_slice(&bytes, GuestAddress(BACKING))
        .unwrap();
    let backing = GuestBuffer::of(&[(BACKING, SIZE * SIZE * 4)]);
    for request in [
        request::resource_create_2d(id, 2, SIZE, SIZE),
        request::resource_attach_backing(id, backing.entries()),
        request::transfer_to_host_2d(id, WHOLE, 0),
        request::set_scanout(output, id, WHOLE),
        request::resource_flush(id, WHOLE),
    ] {
        let answer = vmm.command(0, &request, 24);
        assert_eq!(answer[..4], ResponseType::OK_NODATA.0.to_le_bytes());
    }
}

/// The one colour of a picture.
fn colour(path: &Path) -> [u8; 3] {
    let mut reader = Decoder::new(BufReader::new(File::open(path).unwrap()))
        .read_info()
        .unwrap();
    let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut bytes).unwrap();
    assert_eq!((frame.width, frame.height), (SIZE, SIZE));
    let first = [bytes[0], bytes[1], bytes[2]];
    assert!(bytes.chunks(3).all(|pixel| pixel == first));
    first
}

#[test]
fn the_last_picture_is_there_when_the_vmm_leaves_and_when_the_server_ends() {
    let directory = TempDir::new().unwrap();
    let screen = directory.path().join("screen.png");
    let mut program = start(directory.path(), "width=32,height=32");
    let mut vmm = Vmm::connect(&directory.path().join("socket"));
    vmm.start_driver();
    show(&mut vmm, 0, [10, 20, 30, 0]);
    assert!(!screen.exists());
    drop(vmm);
    wait_until("the picture", || screen.exists());
    wait_until("the whole picture", || {
        fs::metadata(&screen).unwrap().len() > 60
    });
    assert_eq!(colour(&screen), [30, 20, 10]);

    let mut vmm = Vmm::connect(&directory.path().join("socket"));
    vmm.start_driver();
    show(&mut vmm, 0, [40, 50, 60, 0]);
    end(&mut program);
    assert_eq!(colour(&screen), [60, 50, 40]);
    assert!(!directory.path().join("socket").exists());
}

#[test]
fn each_output_that_shows_something_has_a_picture() {
    let directory = TempDir::new().unwrap();
    let mut program = start(directory.path(), "outputs=3,width=32,height=32");
    let mut vmm = Vmm::connect(&directory.path().join("socket"));
    vmm.start_driver();
    show(&mut vmm, 0, [1, 2, 3, 0]);
    show(&mut vmm, 2, [4, 5, 6, 0]);
    end(&mut program);
    assert_eq!(colour(&directory.path().join("screen-0.png")), [3, 2, 1]);
    assert_eq!(colour(&directory.path().join("screen-2.png")), [6, 5, 4]);
    assert!(!directory.path().join("screen-1.png").exists());
    assert!(!directory.path().join("screen.png").exists());
}

#[test]
fn the_help_explains_every_key_and_every_limit_with_its_default() {
    let output = Command::new(env!("CARGO_BIN_EXE_virtio-gpu-s3d"))
        .arg("--help")
        .output()
        .unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    for name in GpuOption::names() {
        assert!(
            help.contains(&format!("{name}=")),
            "{name} is not in\n{help}"
        );
    }
    for info in GpuOption::limits() {
        let row = format!("{}={}", info.name, info.default);
        assert!(help.contains(&row), "{row} is not in\n{help}");
    }
}

#[test]
fn a_person_who_runs_the_renderer_by_hand_is_told_what_it_is() {
    let output = Command::new(env!("CARGO_BIN_EXE_virtio-gpu-s3d"))
        .args(["renderer"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(!output.stderr.is_empty());
}

/// Mesa's exit handlers take away what its threads still work with, and kill the process where these are at it.
#[cfg(feature = "virgl")]
#[test]
fn a_server_that_is_ended_while_it_draws_ends_well() {
    const TIMES: u64 = 20;
    for place in ["thread", "process"] {
        for round in 0..TIMES {
            let directory = TempDir::new().unwrap();
            let option = ["--renderer", place];
            let mut program = start_with(directory.path(), "backend=virgl", &option);
            let mut vmm = Vmm::connect(&directory.path().join("socket"));
            vmm.start_driver();
            let answer = (RAM_BASE + 0x1_8000, 24);
            if round % 2 == 0 {
                // Making contexts has Mesa compile.
                let create = request::fenced(1, 1, request::ctx_create(2));
                vmm.offer(0, &create, answer);
            } else {
                make_target(&mut vmm);
                let stream = scene::clear(0.5).repeat(500);
                let draw = request::fenced(1, 1, request::submit_3d(&stream));
                for _ in 0..8 {
                    vmm.offer(0, &draw, answer);
                }
            }
            thread::sleep(Duration::from_micros(298 * round));
            end(&mut program);
        }
    }
}

fn end(program: &mut Program) {
    let id = Pid::from_raw(program.0.id().try_into().unwrap()).unwrap();
    kill_process(id, Signal::TERM).unwrap();
    assert!(program.0.wait().unwrap().success());
}
