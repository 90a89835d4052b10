// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Namespaces of the process's own, which need no privilege.
#![expect(
    unsafe_code,
    reason = "rustix asks of whoever unshares that no other thread shares what is left"
)]

use std::fs;
use std::io::Error as IoError;

use rustix::process::{getegid, geteuid};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::mode::{Missing, Mode};

/// The process's user and group in its namespace: somebody whom no other namespace knows. Not the kernel's 65534, which
/// every user shows as who has no number here: a check of who a socket's peer is could not tell them from ourselves.
pub const NOBODY: u32 = 65_533;

/// Leaves the host's users, network, System V objects and host name, for namespaces in which there is nothing, and in
/// which the process is [`NOBODY`]. Files, and sockets that have a path, are what they were: the kernel goes by the user
/// outside. The process must have one thread.
///
/// Returns what this host does not have.
pub fn leave(mode: Mode) -> Vec<Missing> {
    if mode == Mode::Off {
        return Vec::new();
    }
    let (user, group) = (geteuid(), getegid());
    let rest = UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    // SAFETY: No flag shares or unshares memory or files.
    let left = unsafe { unshare_unsafe(UnshareFlags::NEWUSER | rest) };
    if let Err(error) = left {
        let users = Missing::new("no user namespace: the user stays the host's", &error);
        // Root in a container may have the network's without the users'.
        // SAFETY: as above.
        let alone = unsafe { unshare_unsafe(rest) };
        let network = alone.err().map(|error| {
            Missing::new(
                "no network namespace: sockets are refused by seccomp alone",
                &error,
            )
        });
        return [Some(users), network].into_iter().flatten().collect();
    }
    let mapped = map("uid_map", user.as_raw())
        .and_then(|()| fs::write("/proc/self/setgroups", "deny"))
        .and_then(|()| map("gid_map", group.as_raw()));
    let unmapped = mapped.err().map(|error| {
        Missing::new(
            "no number in the user namespace: the user is the kernel's nobody",
            &error,
        )
    });
    unmapped.into_iter().collect()
}

fn map(file: &str, outside: u32) -> Result<(), IoError> {
    fs::write(
        format!("/proc/self/{file}"),
        format!("{NOBODY} {outside} 1"),
    )
}
