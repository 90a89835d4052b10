// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the device holds and what happened to it, for people and for tests.

use crate::protocol::Queue;

/// How a command can fail.

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The readable part ends before the request does.
    ShortRequest,
    /// Unknown command, or one of the other queue.
    UnknownCommand,
    /// The command's feature was not negotiated.
    FeatureNotNegotiated,
    /// No such scanout.
    ScanoutId,
    /// No such resource, or the id is taken.
    ResourceId,
    /// The resource is of another kind, or has no backing.
    WrongResource,
    /// No such context, or the id is taken.
    ContextId,
    /// A field out of range.
    Parameter,
    /// A range that is not guest memory, or outside the backing.
    Memory,
    /// A limit of the device.
    Limit,
    /// A command stream that its renderer is not to be given.
    Stream,
    /// The host failed: its renderer, or a mapping.
    Host,
}

impl ErrorKind {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::ShortRequest,
        Self::UnknownCommand,
        Self::FeatureNotNegotiated,
        Self::ScanoutId,
        Self::ResourceId,
        Self::WrongResource,
        Self::ContextId,
        Self::Parameter,
        Self::Memory,
        Self::Limit,
        Self::Stream,
        Self::Host,
    ];
}

/// Failed commands by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErrorCounters([u64; ErrorKind::ALL.len()]);

impl ErrorCounters {
    /// Failures of one kind.
    pub fn get(&self, kind: ErrorKind) -> u64 {
        self.0.get(kind as usize).copied().unwrap_or_default()
    }

    /// Failures of every kind.
    pub fn total(&self) -> u64 {
        self.0
            .iter()
            .fold(0, |total, count| total.saturating_add(*count))
    }

    pub(crate) fn count(&mut self, kind: ErrorKind) {
        if let Some(count) = self.0.get_mut(kind as usize) {
            *count = count.saturating_add(1);
        }
    }
}

/// Events since the device was made; no reset clears them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests on the control queue.
    pub control_commands: u64,
    /// Requests on the cursor queue.
    pub cursor_commands: u64,
    /// Requests answered with an error, and pictures that could not be read before a sleep.
    pub errors: ErrorCounters,
    /// Replies cut because the guest gave them too little room.
    pub truncated_responses: u64,
    /// Flushes of something that a scanout shows, once for each scanout.
    pub flushes: u64,
    /// Bytes copied from guest memory to pixels.
    pub transferred_bytes: u64,
    /// Frozen resets.
    pub frozen_resets: u64,
    /// Full resets.
    pub full_resets: u64,
    /// Retained resources replaced by a guest that began anew.
    pub replaced_resources: u64,
    /// Retained resources given up because a limit was met.
    pub evicted_resources: u64,
    /// Commands still waiting for a fence at a reset, whose answer nobody gets.
    pub abandoned_fences: u64,
}

impl Counters {
    pub(crate) fn count_command(&mut self, queue: Queue) {
        let counter = match queue {
            Queue::Control => &mut self.control_commands,
            Queue::Cursor => &mut self.cursor_commands,
        };
        *counter = counter.saturating_add(1);
    }
}

/// A scanout as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanoutStatus {
    /// The resource it shows, `None` when disabled.
    pub resource_id: Option<u32>,
    /// Width of what it shows, in pixels; the output's own when disabled.
    pub width: u32,
    /// Height likewise.
    pub height: u32,
    /// True if a cursor is shown on it.
    pub cursor: bool,
}

/// The device as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Resources, retained ones included.
    pub resources: usize,
    /// Resources that were kept over a frozen reset and not named since.
    pub retained: usize,
    /// Rendering contexts, retained ones included.
    pub contexts: usize,
    /// Host memory charged against `max_host_bytes`.
    pub host_bytes: u64,
    /// Estimated bytes in the renderer, charged against `max_renderer_bytes`.
    pub renderer_bytes: u64,
    /// Commands waiting for a fence.
    pub pending_fences: usize,
    /// Every scanout, by id.
    pub scanouts: Vec<ScanoutStatus>,
    /// What happened so far.
    pub counters: Counters,
}
