// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The same sleeps without what makes the display survive: the suites could otherwise pass by luck.

use anyhow::Result;
use guest_agent::protocol::Target;
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
    rig.sleep_losing(&picture)
}
