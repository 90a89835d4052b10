// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The machine that is measured on.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Longer than a device takes to end.
const PATIENCE: Duration = Duration::from_secs(3);

/// Threads that run or want to now, this one not among them.
pub(crate) fn others() -> Result<u32> {
    let text = fs::read_to_string("/proc/loadavg")?;
    let (running, _) = text
        .split_whitespace()
        .nth(3)
        .and_then(|threads| threads.split_once('/'))
        .context("/proc/loadavg")?;
    Ok(running.parse::<u32>()?.saturating_sub(1))
}

/// Waits a while until this is the process's only thread.
pub(crate) fn wait_for_threads() -> Result<()> {
    let start = Instant::now();
    while fs::read_dir("/proc/self/task")?.count() > 1 && start.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// The processor's name and the number of its cores.
pub(crate) fn processor() -> Result<String> {
    let text = fs::read_to_string("/proc/cpuinfo")?;
    let mut names = text.lines().filter_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == "model name").then_some(value.trim())
    });
    let name = names.next().unwrap_or("unknown processor");
    let cores = 1 + names.count();
    let virtual_ = if text.contains(" hypervisor") {
        "virtual "
    } else {
        ""
    };
    Ok(format!("{cores} {virtual_}cores of {name}"))
}

/// The kernel's release.
pub(crate) fn kernel() -> Result<String> {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(text.trim().to_owned())
}
