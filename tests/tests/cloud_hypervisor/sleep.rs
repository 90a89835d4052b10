// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The deepest sleep that the Cloud Hypervisor under test lets a guest have.

use std::env;
use std::process::Command as Process;

use anyhow::{Context, Result};
use guest_agent::protocol::{Command, Info};
use serde_json::Value;
use tests::agent::Pending;
use tests::nested::Nested;

use crate::wait::until;

/// Whether the VMM's help has this word: a build may have only some parts of the series.
pub(crate) fn vmm_knows(word: &str) -> Result<bool> {
    let Some(vmm) = env::var_os("CLOUD_HYPERVISOR") else {
        return Ok(false);
    };
    let help = Process::new(vmm).arg("--help").output()?.stdout;
    Ok(String::from_utf8_lossy(&help).contains(word))
}

/// Whether the VMM says that the guest sleeps.
pub(crate) fn is_asleep(nested: &Nested) -> Result<bool> {
    let info: Value = serde_json::from_str(&nested.ch_remote("info")?)?;
    let asleep = info["asleep"].as_bool();
    asleep.with_context(|| format!("vm.info does not say: {info}"))
}

/// Sends the guest to ACPI S3, and waits until it has written its sleep control register.
pub(crate) fn fall_asleep(nested: &Nested) -> Result<Pending> {
    let pending = nested.start_sleep("mem")?;
    nested.explain(until("asleep", || is_asleep(nested)))?;
    Ok(pending)
}

/// ACPI S3 where the guest is offered it, with `asleep` run meanwhile, or else a sleep that the kernel cuts short once
/// every device is suspended. Says which it was.
pub(crate) fn as_deep_as_offered(
    nested: &Nested,
    asleep: impl FnOnce() -> Result<()>,
) -> Result<String> {
    let info: Info = nested.call(Command::Info)?;
    if !info.mem_sleep.contains("deep") {
        let report = nested.abort_sleep()?;
        return Ok(format!("pm_test=devices, {report:?}"));
    }
    let pending = fall_asleep(nested)?;
    asleep().context("while the guest slept")?;
    nested.explain(nested.ch_remote("wakeup"))?;
    let report = nested.finish_sleep(&pending)?;
    Ok(format!("deep, {report:?}"))
}
