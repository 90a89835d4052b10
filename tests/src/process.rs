// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Processes and sockets that end with their owner.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// Between two looks whether a process has ended.
const WAIT_INTERVAL: Duration = Duration::from_millis(50);

static SERIAL: AtomicU32 = AtomicU32::new(0);

/// A directory for sockets, whose paths may have 108 bytes only.
#[derive(Debug)]
pub(crate) struct Sockets(PathBuf);

impl Sockets {
    pub(crate) fn create() -> Result<Self> {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("virtio-lab-{}-{serial}", process::id()));
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        // Left-over sockets in the temporary directory hurt nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A child process, killed and reaped when dropped.
#[derive(Debug)]
pub(crate) struct Running(Child);

impl Running {
    /// Starts `program` with both outputs going to the file `log`.
    pub(crate) fn start<S: AsRef<OsStr>>(
        program: &Path,
        arguments: impl IntoIterator<Item = S>,
        log: &Path,
    ) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("create {}", log.display()))?;
        // A test process that is killed drops nothing: the kernel must end its children then.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("share the log")?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        Ok(Self(child))
    }
}

impl Running {
    /// The process's number.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// It runs on after `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while self.0.try_wait().context("wait for a process")?.is_none() {
            ensure!(Instant::now() < deadline, "it still runs after {limit:?}");
            thread::sleep(WAIT_INTERVAL);
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Either fails only for a process that has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
