// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Who is at the other end of a socket, for the log.

#![expect(
    unsafe_code,
    reason = "rustix has a process id that is never 0, and the kernel says 0 of a process outside our namespace"
)]

use std::mem::zeroed;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

/// The process that connected; 0 where it cannot be named here.
pub(crate) fn process(socket: &UnixStream) -> i32 {
    // SAFETY: All zeros is a valid `ucred`.
    let mut of: libc::ucred = unsafe { zeroed() };
    let mut length = libc::socklen_t::try_from(size_of::<libc::ucred>()).unwrap_or(0);
    // SAFETY: `of` has room for `length` bytes.
    unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut of).cast(),
            &raw mut length,
        );
    }
    of.pid
}
