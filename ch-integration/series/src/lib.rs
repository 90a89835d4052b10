// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Keeps a patch series for a project of others, such as Cloud Hypervisor, without a line of that project: of what a
//! patch changes, only the lines that it adds are stored, and the names (blob ids) of what they are added to. With a
//! checkout of the project, the stored patches become commits again, the same ones everywhere, or mails to send.
//!
//! It is no patch manager: where a patch no longer fits, it says so by name, and people rebase the commits with git and
//! save them again.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

pub mod check;
pub mod edit;
pub mod git;
pub mod message;
pub mod names;
pub mod overlap;
pub mod patch;
pub mod publish;
pub mod replay;
pub mod save;
pub mod store;
mod text;
