// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The control socket of a GPU that comes and goes with its VMM.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use ch_integration::control::{Control, ControlThread};
use ch_integration::seccomp;
use ch_integration::socket::listen;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::vmm::{Vmm, spawn_filtered};

fn control(vmm: &Vmm, directory: &TempDir) -> (Control, BufReader<UnixStream>) {
    let path = directory.path().join("control");
    let spawn = |thread: ControlThread| {
        spawn_filtered(&[seccomp::GPU_2D, seccomp::CONTROL], || thread.run())
    };
    let control = vmm.gpu.control(listen(&path).unwrap(), spawn).unwrap();
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
