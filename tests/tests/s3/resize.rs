// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An output that gets another size while the guest runs.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use guest_agent::protocol::{Command, RunReport, Target};
use tests::guest::Wake;
use tests::lab::Kernel;

use crate::on_every_kernel;
use crate::rig::{Rig, SOFT_RESET};

/// The output, as its driver knows it.
const CONNECTOR: &str = "/sys/class/drm/card0-Virtual-1";
const LIMIT: Duration = Duration::from_secs(20);

on_every_kernel!(a_guest_is_told_of_another_size_and_keeps_it_over_a_sleep);

fn a_guest_is_told_of_another_size_and_keeps_it_over_a_sleep(kernel: Kernel) -> Result<()> {
    let Some(rig) = Rig::start("resize", kernel, &SOFT_RESET)? else {
        return Ok(());
    };
    rig.server.resize(1024, 768)?;
    wait_for_mode(&rig, "1024x768")?;
    let picture = rig.show(Target::Drm, 1)?;
    ensure!(
        (picture.width, picture.height) == (1024, 768),
        "the guest draws in the old size"
    );
    rig.sleep_keeping(&picture, Wake::Host)?;
    wait_for_mode(&rig, "1024x768").context("after the wake")?;
    rig.show(Target::Drm, 2)?;
    rig.guest.must_have_no_gpu_complaint(0)
}

/// Waits until the output prefers this mode. Whoever draws asks for the modes; that alone does not make a driver look
/// at the device.
fn wait_for_mode(rig: &Rig, wanted: &str) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let script = format!("echo detect >{CONNECTOR}/status");
        let run: RunReport = rig.guest.call(Command::Run {
            program: "sh".to_owned(),
            arguments: vec!["-c".to_owned(), script],
        })?;
        ensure!(run.status == Some(0), "{run:?}");
        let path = format!("{CONNECTOR}/modes");
        let modes: String = rig.guest.call(Command::Read { path })?;
        if modes.lines().next() == Some(wanted) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "not {wanted} but {modes:?}");
        thread::sleep(Duration::from_millis(100));
    }
}
