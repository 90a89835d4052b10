// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Waiting for what nothing announces.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

/// For a guest that boots or sleeps, on a machine under full load.
const LIMIT: Duration = Duration::from_secs(240);
const INTERVAL: Duration = Duration::from_millis(500);

/// Waits until `is` holds, looking now and then.
pub(crate) fn until(what: &str, is: impl Fn() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while !is()? {
        ensure!(Instant::now() < deadline, "not within {LIMIT:?}: {what}");
        thread::sleep(INTERVAL);
    }
    Ok(())
}
