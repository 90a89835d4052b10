// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The screen before there is an operating system: UEFI firmware has a virtio-gpu driver of its own.

use std::net::TcpListener;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::daemon::Daemon;
use tests::firmware::Firmware;
use tests::image::Image;
use tests::lab::{Kernel, Lab};
use tests::machine::{Gpu, Machine};

/// The firmware's shell is there after 10 s on an idle machine, and waits 5 s for a key.
const LIMIT: Duration = Duration::from_secs(120);
const INTERVAL: Duration = Duration::from_millis(500);
/// The logo, and a shell with its prompt, have more pixels lit than that.
const LIT: usize = 1000;

fn lit(pixels: &[u32]) -> usize {
    pixels.iter().filter(|pixel| **pixel != 0).count()
}

/// On our device and on QEMU's, one beside the other, until both show the same for two seconds.
#[test]
fn the_firmwares_screen_is_the_one_that_qemus_own_device_shows() -> Result<()> {
    let Some(lab) = Lab::find()? else {
        return Ok(());
    };
    if lab.firmware()?.is_none() {
        return Ok(());
    }
    let port = free_port()?;
    let server = Daemon::start(&lab, "firmware", &["--vnc", &format!("127.0.0.1:{port}")])?;
    let machine = |name, gpu| Machine::new(name, Kernel::V6_1, gpu);
    let _ours = Firmware::start(
        &lab,
        machine("firmware-ours", Gpu::VfioUser(server.device_socket())),
    )?;
    let theirs = Firmware::start(&lab, machine("firmware-qemu", Gpu::Qemu("")))?;
    let deadline = Instant::now() + LIMIT;
    let mut same = 0;
    while same < 4 {
        let (shown, expected) = (server.screenshot("shell")?, theirs.screendump("shell")?);
        let alike = shown.image.must_be(&expected);
        let lit = lit(&shown.image.pixels);
        same = if shown.active && lit > LIT && alike.is_ok() {
            same + 1
        } else {
            0
        };
        ensure!(
            Instant::now() < deadline,
            "{lit} pixels are lit, active: {}, {alike:?}; {}",
            shown.active,
            server.status()?
        );
        thread::sleep(INTERVAL);
    }
    must_be_seen_by_vnc(&server, port)
}

/// VNC's clients count displays from this port on.
const FIRST_PORT: u16 = 5900;

fn free_port() -> Result<u16> {
    let free = (FIRST_PORT + 20..FIRST_PORT + 90)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.context("a free port for VNC")
}

/// A client of others' making sees what the server says that it shows: gtk-vnc's, which GNOME's viewers are made of.
fn must_be_seen_by_vnc(server: &Daemon, port: u16) -> Result<()> {
    let picture = server.picture("vnc");
    let display = format!("127.0.0.1:{}", port - FIRST_PORT);
    let run = Command::new("gvnccapture")
        .arg(display)
        .arg(&picture)
        .output()
        .context("gvnccapture, of the package gvncviewer")?;
    ensure!(run.status.success(), "{run:?}");
    let shown = server.screenshot("shell")?;
    Image::read(&picture)?.must_be(&shown.image)
}
