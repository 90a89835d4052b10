// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Test kit: real Linux guests under QEMU, the agent inside them, the device server beside them, and
//! the pictures they show.
//!
//! Every wait has a limit and ends early on the event it waits for. Errors carry what is needed to
//! understand them without running again: the end of the guest's console and where the logs lie.

pub mod agent;
mod archive;
pub mod channel;
pub mod daemon;
pub mod firmware;
pub mod guest;
pub mod image;
pub mod lab;
pub mod machine;
pub mod nested;
mod process;
pub mod qmp;
pub mod resume;
pub mod scene;
pub mod way;
