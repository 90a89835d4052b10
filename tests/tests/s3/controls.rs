// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The same sleeps without what makes the display survive: the suites could otherwise pass by luck.

use anyhow::{Result, ensure};
use guest_agent::protocol::Target;
use tests::guest::Wake;
use tests::lab::Kernel;

use crate::on_every_kernel;
use crate::rig::{NO_RETENTION, Rig};

on_every_kernel!(
    a_device_without_retention_loses_the_display,
    a_device_told_nothing_loses_the_display
);

fn a_device_without_retention_loses_the_display(kernel: Kernel) -> Result<()> {
    must_lose("freeze-off", kernel, &NO_RETENTION)
}

fn a_device_told_nothing_loses_the_display(kernel: Kernel) -> Result<()> {
    must_lose(
        "hold-none",
        kernel,
        &["--no-soft-reset", "off", "--hold", "none"],
    )
}

fn must_lose(name: &str, kernel: Kernel, options: &[&str]) -> Result<()> {
    let Some(rig) = Rig::start(name, kernel, options)? else {
        return Ok(());
    };
    let picture = rig.show(Target::Fb, 1)?;
    let full = rig.server.counter("full_resets")?;
    rig.guest.sleep(Wake::Host, || Ok(()))?;
    ensure!(
        rig.server.counter("full_resets")? > full,
        "no reset destroyed the device's state"
    );
    let shown = rig.server.screenshot("after-wake")?;
    ensure!(
        shown.image.must_be(&picture).is_err(),
        "the picture is still there"
    );
    ensure!(!shown.active, "the output is still scanned out");
    Ok(())
}
