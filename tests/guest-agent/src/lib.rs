// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the agent in a lab guest and the test on the host must agree on: the wire protocol and the
//! picture that a draw command leaves on the screen; and what the programs in the guest share.

pub mod card;
pub mod pattern;
pub mod protocol;
pub mod scene;
