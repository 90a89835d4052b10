// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The client of the control socket, as a person has it, and the server.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::control::start;
use crate::vmm::Vmm;

fn client(directory: &TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_virtio-gpu-s3ctl"));
    command
        .arg("--control")
        .arg(directory.path().join("control"))
        .args(arguments)
        .current_dir(directory.path());
    command
}

fn run(directory: &TempDir, arguments: &[&str]) -> Output {
    client(directory, arguments).output().unwrap()
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn size(path: &Path) -> (u32, u32) {
    let file = BufReader::new(File::open(path).unwrap());
    let reader = png::Decoder::new(file).read_info().unwrap();
    (reader.info().width, reader.info().height)
}

#[test]
fn a_person_reads_the_status_and_a_tool_its_json() {
    let (_server, directory, _person) = start();
    let text = printed(&run(&directory, &["status"]));
    for line in [
        "state: idle",
        "holds: none",
        "scanouts: active no, height 800, id 0, width 1280",
        "counters:",
        "  commands: 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
    }
    let status: Value =
        serde_json::from_str(&printed(&run(&directory, &["--json", "status"]))).unwrap();
    assert_eq!(status["state"], "idle");
}

#[test]
fn a_screenshot_is_written_by_the_clients_file_and_takes_the_place_of_a_link() {
    let (_server, directory, _person) = start();
    fs::write(directory.path().join("precious"), "precious").unwrap();
    symlink("precious", directory.path().join("screen.png")).unwrap();
    let text = printed(&run(&directory, &["screenshot", "screen.png"]));
    assert_eq!(text, "active: no\nheight: 800\nwidth: 1280\n");
    assert_eq!(size(&directory.path().join("screen.png")), (1280, 800));
    let kept = fs::read(directory.path().join("precious")).unwrap();
    assert_eq!(kept, b"precious");
    let json = printed(&run(&directory, &["--json", "screenshot", "screen.png"]));
    let answer: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        answer,
        json!({"active": false, "width": 1280, "height": 800})
    );
    let left = fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(left, 3, "the socket, the picture and the precious file");
}

#[test]
fn a_screenshot_goes_into_a_pipe() {
    let (_server, directory, _person) = start();
    let output = run(&directory, &["screenshot", "-"]);
    assert!(printed_is_png(&output), "{:?}", output.stderr);
    let mut deaf = client(&directory, &["screenshot", "-"]);
    let mut deaf = deaf.stdout(Stdio::piped()).spawn().unwrap();
    drop(deaf.stdout.take());
    assert!(!deaf.wait().unwrap().success());
}

#[test]
fn the_server_says_its_version() {
    let (_server, directory, _person) = start();
    let text = printed(&run(&directory, &["version"]));
    assert_eq!(text, format!("version: {}\n", env!("CARGO_PKG_VERSION")));
}

fn printed_is_png(output: &Output) -> bool {
    output.status.success() && output.stdout.starts_with(b"\x89PNG")
}

#[test]
fn what_the_server_refuses_is_an_error_and_leaves_the_picture_before() {
    let (_server, directory, _person) = start();
    let path = directory.path().join("screen.png");
    fs::write(&path, "before").unwrap();
    let arguments = ["screenshot", "--scanout", "1", "screen.png"];
    let output = run(&directory, &arguments);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(error, "virtio-gpu-s3ctl: There is no scanout 1\n");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(fs::read(&path).unwrap(), b"before");
    let output = run(&directory, &["--json", "resize", "640", "0"]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("640x0"), "{message}");
}

#[test]
fn events_are_printed_as_they_come() {
    let (server, directory, _person) = start();
    let mut child = client(&directory, &["events"]);
    let mut child = child.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap_or_default();
    // The answer to the request has nothing to print; then a VMM comes.
    assert_eq!(first, "listening");
    let vmm = Vmm::connect(&server.socket());
    let line = lines.next().unwrap().unwrap();
    assert!(line.starts_with("event connected, seq 1"), "{line}");
    drop(vmm);
    child.kill().unwrap();
    child.wait().unwrap();
}
