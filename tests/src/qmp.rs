// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The QEMU Machine Protocol: commands and events.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::channel::Channel;

/// For a command QEMU answers at once, on a machine that is busy with two guests.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// A QMP connection.
#[derive(Debug)]
pub struct Qmp {
    channel: Channel,
    next_id: AtomicU64,
}

impl Qmp {
    /// Connects and leaves capabilities negotiation mode.
    ///
    /// # Errors
    /// QEMU does not listen or greet.
    pub fn connect(path: &Path, limit: Duration) -> Result<Self> {
        let channel = Channel::connect("QMP", path, limit)?;
        channel.wait(0, limit, "greeting", |message| {
            message.get("QMP").map(|_| ())
        })?;
        let qmp = Self {
            channel,
            next_id: AtomicU64::new(1),
        };
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and gives its return value.
    ///
    /// # Errors
    /// QEMU refused it or did not answer.
    pub fn execute(&self, command: &str, arguments: &Value) -> Result<Value> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let from = self.channel.position();
        self.channel
            .send(&json!({"execute": command, "arguments": arguments, "id": id}))?;
        let reply = self.channel.wait(from, COMMAND_LIMIT, command, |message| {
            (message.get("id") == Some(&json!(id))).then(|| message.clone())
        })?;
        match reply.get("return") {
            Some(value) => Ok(value.clone()),
            None => bail!("QMP: {command} failed: {reply}"),
        }
    }

    /// A place in the stream of events to wait or count from.
    pub fn position(&self) -> usize {
        self.channel.position()
    }

    /// Waits for the first event `name` since `from`.
    ///
    /// # Errors
    /// It did not come within `limit`.
    pub fn wait_event(&self, name: &str, from: usize, limit: Duration) -> Result<()> {
        self.channel.wait(from, limit, name, |message| {
            is_event(message, name).then_some(())
        })
    }

    /// How many events `name` came since `from`.
    pub fn count_events(&self, name: &str, from: usize) -> usize {
        self.channel
            .collect(from, |message| is_event(message, name).then_some(()))
            .len()
    }
}

fn is_event(message: &Value, name: &str) -> bool {
    message.get("event").and_then(Value::as_str) == Some(name)
}
