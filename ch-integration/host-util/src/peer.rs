// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Who is at the other end of a Unix socket.

#![expect(
    unsafe_code,
    reason = "rustix has a process id that is never 0, and the kernel says 0 of a process outside our namespace"
)]

use std::io::Error as IoError;
use std::mem::zeroed;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

/// Whoever connected, as this process's namespaces number them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The process; 0 where it has no number here.
    pub process: i32,
    /// The user; the kernel's 65534 where they have no number here.
    pub user: u32,
}

impl Peer {
    /// Who was at the other end of the socket when it was connected (SO_PEERCRED).
    ///
    /// # Errors
    /// The system does not say.
    pub fn of(socket: &UnixStream) -> Result<Self, IoError> {
        // SAFETY: All zeros is a valid `ucred`.
        let mut of: libc::ucred = unsafe { zeroed() };
        let mut length = libc::socklen_t::try_from(size_of::<libc::ucred>()).unwrap_or(0);
        // SAFETY: `of` has room for `length` bytes.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut of).cast(),
                &raw mut length,
            )
        };
        if result != 0 {
            return Err(IoError::last_os_error());
        }
        Ok(Self {
            process: of.pid,
            user: of.uid,
        })
    }

    /// The process for the log; 0 where it cannot be named.
    pub fn process_of(socket: &UnixStream) -> i32 {
        Self::of(socket).map_or(0, |peer| peer.process)
    }
}
