// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The control socket of a GPU that comes and goes with its VMM.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;

use host_util::socket::listen;
use serde_json::{Value, json};
use tempfile::TempDir;
use virtio_gpu_control::{Control, ControlThread};
use virtio_gpu_s3_testing::request;
use virtio_gpu_worker::seccomp;

use crate::vmm::{Vmm, spawn_filtered};

fn control(vmm: &Vmm, directory: &TempDir) -> (Control, BufReader<UnixStream>) {
    let path = directory.path().join("control");
    let spawn = |thread: ControlThread| {
        spawn_filtered(&[seccomp::GPU_2D, seccomp::CONTROL], || thread.run())
    };
    let control = Control::start(listen(&path).unwrap().0, vmm.gpu.controlled(), spawn).unwrap();
    (control, BufReader::new(UnixStream::connect(path).unwrap()))
}

fn ask(person: &mut BufReader<UnixStream>, question: &Value) -> Value {
    writeln!(person.get_mut(), "{question}").unwrap();
    answer(person)
}

fn answer(person: &mut BufReader<UnixStream>) -> Value {
    let mut line = String::new();
    person.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

#[test]
fn a_person_sees_the_picture_the_state_and_what_happens() {
    let mut vmm = Vmm::running();
    let directory = TempDir::new().unwrap();
    let (_control, mut person) = control(&vmm, &directory);
    vmm.show(1);
    let status = ask(&mut person, &json!({"command": "status"}));
    assert_eq!(status["return"]["state"], "running");
    assert_eq!(status["return"]["resources"], 1);
    let picture = ask(&mut person, &json!({"command": "screenshot"}));
    assert_eq!(picture["return"]["active"], true);
    assert!(picture["return"]["png"].is_string());
    let path = directory.path().join("screen.png");
    let saved = ask(&mut person, &json!({"command": "screenshot", "path": path}));
    assert_eq!(saved["return"]["width"], 64);
    assert!(path.is_file());
    let events = ask(&mut person, &json!({"command": "events"}));
    assert_eq!(events, json!({"return": {}}));
    vmm.gpu.reset();
    assert_eq!(answer(&mut person)["event"], "full-reset");
}

#[test]
fn a_person_resizes_an_output_and_the_driver_is_told() {
    let mut vmm = Vmm::running();
    let directory = TempDir::new().unwrap();
    let (_control, mut person) = control(&vmm, &directory);
    let resize = json!({"command": "resize", "width": 800, "height": 600});
    assert_eq!(ask(&mut person, &resize), json!({"return": {}}));
    assert_eq!(vmm.interrupts.config_changes.load(Ordering::SeqCst), 1);
    let mut events = [0; 4];
    vmm.gpu.read_config(0, &mut events);
    assert_eq!(events, [1, 0, 0, 0], "VIRTIO_GPU_EVENT_DISPLAY");
    let answer = vmm.command(0, &request::get_display_info());
    assert_eq!(answer[32..40], [0x20, 3, 0, 0, 0x58, 2, 0, 0]);
    for (impossible, message) in [
        (
            json!({"command": "resize", "width": 800, "height": 0}),
            "800x0",
        ),
        (
            json!({"command": "resize", "scanout": 1, "width": 800, "height": 600}),
            "no output 1",
        ),
        (json!({"command": "resize", "width": 800}), "height"),
    ] {
        let answer = ask(&mut person, &impossible);
        let text = answer["error"]["message"].as_str().unwrap();
        assert!(text.contains(message), "{text}");
    }
    assert_eq!(vmm.interrupts.config_changes.load(Ordering::SeqCst), 1);
}

#[test]
fn conversations_end_with_the_gpu() {
    let vmm = Vmm::running();
    let directory = TempDir::new().unwrap();
    let (control, mut waiting) = control(&vmm, &directory);
    let mut watching =
        BufReader::new(UnixStream::connect(directory.path().join("control")).unwrap());
    assert_eq!(
        ask(&mut watching, &json!({"command": "events"})),
        json!({"return": {}})
    );
    assert!(ask(&mut waiting, &json!({"command": "status"}))["return"].is_object());
    drop(control);
    drop(vmm);
    for person in [&mut waiting, &mut watching] {
        assert_eq!(person.read_line(&mut String::new()).unwrap(), 0);
    }
}
