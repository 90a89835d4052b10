// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! EDIDs as an independent reader sees them: edid-decode, where it is installed.

use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};

use virtio_gpu_s3::protocol::wire;
use virtio_gpu_s3_testing::{GpuDriver, request};

fn edid(width: u32, height: u32) -> Vec<u8> {
    let mut driver = GpuDriver::new(width, height);
    let answer: wire::RespEdid = driver.control(request::get_edid(0)).payload();
    answer.edid[..answer.size.get() as usize].to_vec()
}

/// What edid-decode says, `None` if there is none.
fn decoded(edid: &[u8]) -> Option<String> {
    let child = Command::new("edid-decode")
        .arg("--check")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => panic!("edid-decode: {error}"),
    };
    child.stdin.take().unwrap().write_all(edid).unwrap();
    let output = child.wait_with_output().unwrap();
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What a person may choose besides the preferred mode.
const USUAL: [&str; 13] = [
    "640x480",
    "800x600",
    "1024x768",
    "1280x720",
    "1280x800",
    "1280x1024",
    "1440x900",
    "1600x900",
    "1680x1050",
    "1920x1080",
    "1920x1200",
    "2560x1440",
    "3840x2160",
];

#[test]
fn edid_decode_finds_the_mode_and_no_fault() {
    for (width, height) in [
        (16, 16),
        (640, 480),
        (1280, 800),
        (1920, 1080),
        (3840, 2160),
        (4095, 4095),
        (4096, 2160),
        (5120, 2880),
        (7680, 4320),
        (16384, 16384),
    ] {
        let Some(text) = decoded(&edid(width, height)) else {
            println!("skipped: edid-decode is not installed");
            return;
        };
        assert!(text.contains("EDID conformity: PASS"), "{text}");
        assert!(text.contains(&format!(" {width}x{height} ")), "{text}");
        assert!(text.contains("Virtio GPU S3"), "{text}");
        for mode in USUAL {
            assert!(text.contains(&format!(" {mode} ")), "{mode}: {text}");
        }
    }
}
