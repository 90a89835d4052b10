// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the host's side of a device needs in more than one place: adaptive polling and falling asleep after it, checks of
//! files that are to be mapped or were sent, files that are replaced, quotas for lines of the log, and sockets to listen
//! on.

pub mod adaptive_polling;
pub mod foreign;
pub mod handshake;
pub mod log_source;
pub mod memory_file;
pub mod peer;
pub mod replaced_file;
pub mod socket;
