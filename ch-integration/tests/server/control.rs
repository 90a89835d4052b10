// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The control socket.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use host_util::socket::listen;
use serde_json::{Value, json};
use tempfile::TempDir;
use virtio_gpu_s3_testing::request;
use virtio_pci_freeze::Register;

use crate::vmm::{Server, Vmm, wait_until};

pub(crate) struct Person {
    pub(crate) reader: BufReader<UnixStream>,
}

impl Person {
    pub(crate) fn ask(&mut self, line: &str) -> Value {
        self.reader.get_mut().write_all(line.as_bytes()).unwrap();
        self.reader.get_mut().write_all(b"\n").unwrap();
        self.answer()
    }

    pub(crate) fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

pub(crate) fn start() -> (Server, TempDir, Person) {
    let server = Server::start();
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("control");
    virtio_gpu_control::serve(listen(&path).unwrap().0, server.device.clone()).unwrap();
    let reader = BufReader::new(UnixStream::connect(path).unwrap());
    (server, directory, Person { reader })
}

#[test]
fn a_malformed_request_gets_an_error_and_the_next_one_an_answer() {
    let (_server, _directory, mut person) = start();
    for line in [
        "",
        "{",
        "{\"command\":\"dance\"}",
        "{\"command\":\"screenshot\",\"depth\":3}",
        "[1,2",
    ] {
        let answer = person.ask(line);
        assert!(answer["error"]["message"].is_string(), "{line}: {answer}");
    }
    let status = person.ask("{\"command\":\"status\"}");
    assert_eq!(status["return"]["state"], "idle");
    assert_eq!(
        status["return"]["scanouts"],
        json!([{"id": 0, "active": false, "width": 1280, "height": 800}])
    );
}

#[test]
fn a_request_that_is_too_long_is_refused_and_skipped() {
    let (_server, _directory, mut person) = start();
    let answer = person.ask(&"x".repeat(20_000));
    assert_eq!(
        answer["error"]["message"],
        "a request is longer than 16384 bytes"
    );
}

#[test]
fn a_screenshot_of_a_disabled_scanout_is_black_and_says_so() {
    let (_server, directory, mut person) = start();
    let path = directory.path().join("screen.png");
    let request = json!({"command": "screenshot", "path": path});
    let answer = person.ask(&request.to_string());
    assert_eq!(
        answer["return"],
        json!({"width": 1280, "height": 800, "active": false})
    );
    assert!(fs::metadata(path).unwrap().len() > 100);
    let answer = person.ask("{\"command\":\"screenshot\"}");
    assert!(
        answer["return"]["png"]
            .as_str()
            .unwrap()
            .starts_with("iVBORw0KGgo")
    );
    let answer = person.ask("{\"command\":\"screenshot\",\"scanout\":1}");
    assert_eq!(answer["error"]["message"], "There is no scanout 1");
    let answer = person.ask("{\"command\":\"screenshot\",\"path\":\"/nonexistent/x.png\"}");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("Cannot write '/nonexistent/x.png': "),
        "{message}"
    );
}

#[test]
fn a_resized_output_is_told_to_the_driver_by_an_interrupt() {
    let (server, _directory, mut person) = start();
    let mut vmm = Vmm::connect(&server.socket());
    vmm.connect_irqs();
    vmm.start_driver();
    vmm.write(Register::ConfigMsixVector, 0);
    let answer = person.ask("{\"command\":\"resize\",\"width\":640,\"height\":480}");
    assert_eq!(answer, json!({"return": {}}));
    wait_until("the interrupt", || vmm.irqs[0].read().is_ok());
    let answer = vmm.command(0, &request::get_display_info(), 408);
    assert_eq!(answer[32..40], [0x80, 2, 0, 0, 0xe0, 1, 0, 0]);
}

#[test]
fn events_are_streamed_with_their_numbers() {
    let (server, _directory, mut person) = start();
    assert_eq!(
        person.ask("{\"command\":\"events\"}"),
        json!({"return": {}})
    );
    let vmm = Vmm::connect(&server.socket());
    assert_eq!(person.answer()["event"], "connected");
    drop(vmm);
    let event = person.answer();
    assert_eq!(
        (&event["event"], &event["seq"]),
        (&json!("disconnected"), &json!(2))
    );
}

#[test]
fn a_seventeenth_person_is_refused_with_a_reason_and_served_when_another_left() {
    let (_server, directory, first) = start();
    let connect = || {
        let path = directory.path().join("control");
        let reader = BufReader::new(UnixStream::connect(path).unwrap());
        Person { reader }
    };
    const STATUS: &str = "{\"command\":\"status\"}";
    let mut people = vec![first];
    people.extend((1..16).map(|_| connect()));
    for person in &mut people {
        assert!(person.ask(STATUS)["return"].is_object());
    }
    let refused = connect().answer();
    assert_eq!(refused["error"]["message"], "more than 16 connections");
    people.pop();
    wait_until("a place", || {
        let mut person = connect();
        let asked = person.reader.get_mut().write_all(STATUS.as_bytes());
        let ended = person.reader.get_mut().write_all(b"\n");
        let mut line = String::new();
        asked.is_ok()
            && ended.is_ok()
            && person.reader.read_line(&mut line).is_ok()
            && line.contains("return")
    });
}
