// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The host's end of the guest agent.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use guest_agent::protocol::{Command, Reply, Request};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::channel::Channel;

/// For a command that only computes in the guest.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// A request that was sent and not yet waited for.
#[derive(Debug)]
#[must_use]
pub struct Pending {
    id: u64,
    from: usize,
}

/// A connection to the agent.
#[derive(Debug)]
pub struct Agent {
    channel: Channel,
    next_id: AtomicU64,
}

impl Agent {
    /// Connects to QEMU's end of the serial line; the guest need not have booted.
    ///
    /// # Errors
    /// QEMU does not listen.
    pub fn connect(path: &Path, limit: Duration) -> Result<Self> {
        Ok(Self {
            channel: Channel::connect("agent", path, limit)?,
            next_id: AtomicU64::new(1),
        })
    }

    /// A place in the stream of replies to wait from.
    pub fn position(&self) -> usize {
        self.channel.position()
    }

    /// Waits until the agent has started since `from`, so until a boot is over.
    ///
    /// # Errors
    /// The guest did not get there within `limit`.
    pub fn wait_ready(&self, from: usize, limit: Duration) -> Result<()> {
        self.channel.wait(from, limit, "boot", |message| {
            matches!(parse(message), Some(Reply::Ready)).then_some(())
        })
    }

    /// Sends a request.
    ///
    /// # Errors
    /// QEMU is gone.
    pub fn start(&self, command: Command) -> Result<Pending> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let from = self.channel.position();
        self.channel
            .send(&serde_json::to_value(Request { id, command })?)?;
        Ok(Pending { id, from })
    }

    /// The request again, on the connection to another machine in which the same guest goes on.
    pub fn adopt(&self, pending: &Pending) -> Pending {
        self.next_id.store(pending.id + 1, Ordering::Relaxed);
        Pending {
            id: pending.id,
            from: 0,
        }
    }

    /// Sends what is no request, only a byte that wakes a guest from suspend-to-idle.
    ///
    /// # Errors
    /// QEMU is gone.
    pub fn nudge(&self) -> Result<()> {
        self.channel.send(&Value::Null)
    }

    /// Waits for the reply to a request.
    ///
    /// # Errors
    /// The command failed in the guest, or no reply came within `limit`.
    pub fn finish<T: DeserializeOwned>(&self, pending: &Pending, limit: Duration) -> Result<T> {
        let reply = self.channel.wait(pending.from, limit, "reply", |message| {
            parse(message).filter(|reply| answers(reply, pending.id))
        })?;
        match reply {
            Reply::Done { value, .. } => {
                serde_json::from_value(value).context("agent: unexpected value")
            }
            Reply::Failed { error, .. } => bail!("agent: {error}"),
            Reply::Ready => bail!("agent: the guest booted again"),
        }
    }

    /// Sends a request and waits for its reply.
    ///
    /// # Errors
    /// As [`Agent::start`] and [`Agent::finish`].
    pub fn call<T: DeserializeOwned>(&self, command: Command) -> Result<T> {
        let pending = self.start(command)?;
        self.finish(&pending, COMMAND_LIMIT)
    }
}

fn parse(message: &Value) -> Option<Reply> {
    serde_json::from_value(message.clone()).ok()
}

/// A new boot answers every request: nothing else will.
fn answers(reply: &Reply, wanted: u64) -> bool {
    match reply {
        Reply::Done { id, .. } | Reply::Failed { id, .. } => *id == wanted,
        Reply::Ready => true,
    }
}
