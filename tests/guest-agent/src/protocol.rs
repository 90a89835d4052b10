// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One JSON object a line on the guest's second serial port: requests from the host, one reply each.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::scene::SceneRequest;

/// A command with the number its reply will carry.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the host; a reply to an older request is recognised by it.
    pub id: u64,
    /// What to do.
    #[serde(flatten)]
    pub command: Command,
}

/// What the agent says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// Said once when the agent starts, so once a boot.
    Ready,
    /// The request `id` is done; `value` depends on the command.
    Done {
        /// Of the request.
        id: u64,
        /// See [`Command`].
        value: Value,
    },
    /// The request `id` failed.
    Failed {
        /// Of the request.
        id: u64,
        /// What failed, with its cause.
        error: String,
    },
}

/// Where a picture goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// `/dev/fb0`, the kernel's own framebuffer.
    Fb,
    /// The same, through a mapping: the kernel flushes it some ticks after the last store, of its own
    /// accord and while user space may be frozen already.
    FbMapping,
    /// A dumb buffer of `/dev/dri/card0`, scanned out and flushed with DIRTYFB.
    Drm,
}

/// What the agent can do, and in brackets what the reply's value is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Command {
    /// Describes the guest ([`Info`]).
    Info,
    /// Kernel messages from sequence number `since` on (array of [`KernelMessage`]).
    Dmesg {
        /// 0 = all that the kernel still has.
        since: u64,
    },
    /// Fills the screen with picture `seed` ([`Drawn`]).
    Draw {
        /// Where to.
        target: Target,
        /// Of [`crate::pattern::pattern`].
        seed: u32,
    },
    /// Gives the DRM device back, so that the console shows again (null).
    ReleaseDrm,
    /// Starts to draw without pause in the background (null).
    LoadStart {
        /// Where to.
        target: Target,
    },
    /// Ends the background drawing ([`LoadReport`]).
    LoadStop,
    /// Has the OpenGL client of a guest that has one do something (see [`SceneRequest`]).
    Scene {
        /// Passed on to it.
        request: SceneRequest,
    },
    /// Fills memory with a pattern ([`MemoryReport`]).
    FillMemory {
        /// KiB of what is available to leave.
        leave_kib: u64,
    },
    /// Looks whether that is still there ([`MemoryReport`]).
    CheckMemory,
    /// Writes to `/sys/power/state` and replies after the wake ([`SleepReport`]).
    Sleep {
        /// `mem`, `freeze` or `disk`.
        state: String,
        /// Seconds until the RTC wakes the machine; none: somebody else must.
        alarm_s: Option<u32>,
        /// A level for `/sys/power/pm_test`, for this sleep only.
        pm_test: Option<String>,
        /// Have the kernel log what each device's callbacks take.
        print_times: bool,
    },
    /// The text of a file (string).
    Read {
        /// Absolute.
        path: String,
    },
    /// Writes to an existing file in one go, as sysfs wants it (null).
    Write {
        /// Absolute.
        path: String,
        /// Written as it is.
        text: String,
    },
    /// Runs a program to its end ([`RunReport`]).
    Run {
        /// Found through PATH.
        program: String,
        /// Without the name of the program.
        arguments: Vec<String>,
    },
    /// Restarts the machine; no reply but the next boot's [`Reply::Ready`].
    Reboot,
    /// Turns the machine off; no reply.
    Poweroff,
}

/// A guest, described.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Info {
    /// `uname -r`.
    pub release: String,
    /// `/sys/power/mem_sleep`, for example `s2idle [deep]`.
    pub mem_sleep: String,
    /// Names under `/dev/dri`.
    pub drm: Vec<String>,
    /// Size of `/dev/fb0` in pixels.
    pub fb: Option<(u32, u32)>,
}

/// One record of `/dev/kmsg`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KernelMessage {
    /// Sequence number.
    pub seq: u64,
    /// Microseconds of the kernel's log clock.
    pub time_us: u64,
    /// syslog severity, 3 = error, 4 = warning.
    pub severity: u8,
    /// The message.
    pub text: String,
}

/// A picture was drawn.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Drawn {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

/// What the background load did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LoadReport {
    /// Whole pictures drawn and flushed.
    pub frames: u64,
    /// Failed draws.
    pub errors: u64,
    /// The first failure.
    pub first_error: Option<String>,
}

/// A sleep that the kernel calls successful.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct SleepReport {
    /// Milliseconds the machine was asleep: what CLOCK_BOOTTIME gained on CLOCK_MONOTONIC.
    pub asleep_ms: u64,
    /// Milliseconds awake between the write to `/sys/power/state` and its return.
    pub awake_ms: u64,
    /// First kernel message of this sleep, for [`Command::Dmesg`].
    pub mark: u64,
}

/// Memory that a pattern lies in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryReport {
    /// How much there is of it.
    pub bytes: u64,
    /// Pages that changed.
    pub changed: u64,
    /// The numbers of the first few.
    pub named: Vec<u64>,
}

/// A program ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunReport {
    /// Exit status; none if a signal ended it.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}
