// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a viewer, and a guest through its pictures, can make this process hold and wait for.

use std::time::Duration;

/// Viewers at a time, those that have not said who they are included.
pub const MAX_VIEWERS: usize = 16;
/// Encodings that a viewer may list: those that exist are fewer than 100.
pub const MAX_ENCODINGS: u16 = 1024;
/// Bytes of text that a viewer may send at a time. Nobody gets it; this bounds how long it is read.
pub const MAX_CUT_TEXT: u32 = 1 << 20;
/// Pixels of the desktop: 8 outputs of 3840 × 2160 are 66 million. An output that does not fit is not shown.
pub const MAX_PIXELS: u64 = 1 << 26;
/// Width or height of the desktop, as RFB counts them.
pub const MAX_DIMENSION: u32 = u16::MAX as u32;
/// Bytes after which an update ends: what is missing goes with the next that the viewer asks for. A rectangle more may be
/// on top of that.
pub const UPDATE_BYTES: usize = 4 << 20;
/// Bytes that are read from a viewer before they are looked at.
pub const READ_BYTES: usize = 16 << 10;
/// From the connection to the first request of a picture.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a viewer may take nothing of what waits for it.
pub const STALLED: Duration = Duration::from_secs(30);
