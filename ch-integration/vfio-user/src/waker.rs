// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Waking a thread that waits for files.

#![forbid(unsafe_code)]

use std::io::Error as IoError;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

/// A wake-up for a thread in `poll`, that never blocks who gives it.
pub(crate) fn waker() -> Result<Arc<OwnedFd>, IoError> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    Ok(Arc::new(eventfd(0, flags)?))
}
