// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Limits of the process, and privileges that it gives up.

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use crate::mode::Missing;

/// No process that this one starts gets more than it has, through set-user-ID programs or otherwise; seccomp and Landlock
/// ask for that. Then it has no capability, and can get none.
pub(crate) fn drop_privileges() -> Vec<Missing> {
    let done = [
        (
            "privileges may come back with a program",
            set_no_new_privs(true),
        ),
        // Both need a capability, and have no effect on who has none.
        ("the bounding set stays", empty_bounding_set()),
        ("the ambient set stays", clear_ambient_capability_set()),
        ("capabilities stay", drop_capabilities()),
    ];
    missing(done)
}

fn drop_capabilities() -> Result<(), Errno> {
    let none = CapabilitySet::empty();
    let sets = CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    set_capabilities(None, sets)
}

fn empty_bounding_set() -> Result<(), Errno> {
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match remove_capability_from_bounding_set(capability) {
            // The kernel has no more of them.
            Err(Errno::INVAL) => break,
            // Whoever has no CAP_SETPCAP has nothing that the set would bound.
            Err(Errno::PERM) => break,
            other => other?,
        }
    }
    Ok(())
}

/// No core dump: guest memory is in it. A limit of 1 stops both a file, which would be longer, and a program that takes
/// dumps (`core_pattern` with a pipe), for which the kernel ignores 0 and takes 1 for "none" (core(5)). It holds for the
/// programs that this process starts too. Nothing here needs real-time priorities or message queues, or more open files
/// than it was started with.
pub(crate) fn limit() -> Vec<Missing> {
    let files = getrlimit(Resource::Nofile).current;
    missing([
        ("core dumps stay", set(Resource::Core, Some(1))),
        ("real-time priorities stay", set(Resource::Rtprio, Some(0))),
        ("message queues stay", set(Resource::Msgqueue, Some(0))),
        (
            "the limit of open files may grow",
            set(Resource::Nofile, files),
        ),
    ])
}

fn set(resource: Resource, limit: Option<u64>) -> Result<(), Errno> {
    // What is lower already stays.
    let most = getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let limit = limit.map(|limit| limit.min(most));
    let both = Rlimit {
        current: limit,
        maximum: limit,
    };
    setrlimit(resource, both)
}

fn missing<const N: usize>(done: [(&'static str, Result<(), Errno>); N]) -> Vec<Missing> {
    let failed = done
        .into_iter()
        .filter_map(|(what, result)| Some(Missing::new(what, &result.err()?)));
    failed.collect()
}
