// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Vsock both ways, and across a sleep. For a machine with `--vsock cid=3,socket=/tmp/vsock`.

use anyhow::{Result, ensure};
use tests::nested::Nested;

use crate::wait::until;

/// In the guest, and on the host.
const PORT: u32 = 1234;
const SOCKET: &str = "/tmp/vsock";

/// Starts an echo on both sides.
pub(crate) fn prepare(nested: &Nested) -> Result<()> {
    let detached = "</dev/null >/tmp/echo.log 2>&1 &";
    nested.inner_run(&format!("setsid guest-agent vsock-echo {PORT} {detached}"))?;
    nested.run(&format!(
        "setsid guest-agent host-echo {SOCKET}_{PORT} {detached}"
    ))?;
    let listens = "grep listening /tmp/echo.log";
    until("an echo in the guest", || {
        Ok(nested.inner_run(listens).is_ok())
    })?;
    until("an echo on the host", || Ok(nested.run(listens).is_ok()))
}

/// Each side calls the other.
pub(crate) fn must_work(nested: &Nested, word: &str) -> Result<()> {
    let answer = nested.run(&format!(
        "echo {word} | guest-agent host-talk {SOCKET} {PORT}"
    ))?;
    ensure!(answer.trim() == word, "the guest says {answer:?}");
    let answer = nested.inner_run(&format!("echo {word} | guest-agent vsock-talk {PORT}"))?;
    ensure!(answer.trim() == word, "the host says {answer:?}");
    Ok(())
}

/// What is said on a connection from before a sleep is heard after it.
pub(crate) fn must_keep_a_connection(
    nested: &Nested,
    sleep: impl FnOnce() -> Result<()>,
) -> Result<()> {
    // A pipe ends with its last writer, so one stays.
    nested.run(&format!(
        "mkfifo /tmp/say && (setsid sleep 100000 >/tmp/say </dev/null 2>/dev/null &) && \
         setsid guest-agent host-talk {SOCKET} {PORT} </tmp/say >/tmp/heard 2>&1 &"
    ))?;
    must_hear(nested, "before")?;
    sleep()?;
    must_hear(nested, "after")
}

fn must_hear(nested: &Nested, word: &str) -> Result<()> {
    nested.run(&format!("echo {word} >/tmp/say"))?;
    let heard = format!("tail -n 1 /tmp/heard | grep -x {word}");
    until(word, || Ok(nested.run(&heard).is_ok()))
}
