// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A device in a process of its own.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// Until a process listens.
const LIMIT: Duration = Duration::from_secs(20);

/// A process, killed when dropped, and a directory for its sockets.
pub(crate) struct Process {
    child: Child,
    directory: TempDir,
}

impl Process {
    /// Starts what `command` makes of the path of a socket. Its messages are of interest only if it fails.
    pub(crate) fn start(
        program: &Path,
        arguments: impl FnOnce(&Path) -> Vec<String>,
    ) -> Result<Self> {
        let directory = TempDir::new()?;
        let arguments = arguments(&directory.path().join("socket"));
        Self::start_in(directory, program, &arguments)
    }

    /// As [`Process::start`], with sockets that exist already.
    pub(crate) fn start_in(
        directory: TempDir,
        program: &Path,
        arguments: &[String],
    ) -> Result<Self> {
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        Ok(Self { child, directory })
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// Waits until the socket is there, and its server with it.
    pub(crate) fn wait_for_socket(&mut self) -> Result<()> {
        let start = Instant::now();
        while !self.socket().exists() {
            if let Some(status) = self.child.try_wait()? {
                bail!("the process ended: {status}");
            }
            if start.elapsed() > LIMIT {
                bail!("the process does not listen");
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Connects to the socket as soon as somebody listens there.
    pub(crate) fn connect(&mut self) -> Result<UnixStream> {
        self.wait_for_socket()?;
        let start = Instant::now();
        loop {
            match UnixStream::connect(self.socket()) {
                Err(_) if start.elapsed() < LIMIT => thread::sleep(Duration::from_millis(5)),
                connected => return connected.context("connect to the process"),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
