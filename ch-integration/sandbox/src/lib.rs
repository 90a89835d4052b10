// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a process that serves a guest gives up before the guest's first byte.
//!
//! In this order, each by a function that is called once, while the process has one thread:
//!
//! 1. [`user::become_user`]: another user, where root asked for one;
//! 2. [`namespaces::leave`]: a user namespace of its own, with no capability and no network;
//! 3. [`Policy::enter`]: limits, no new privileges, files by Landlock, system calls by seccomp.
//!
//! Everything that the process makes afterwards, threads and processes, is behind the same walls. A kernel or a container
//! may not have a part. That is told as [`Missing`], and the others are put up all the same: a host without one of them
//! shall have the rest. What a policy itself gets wrong is an error.

mod calls;
mod files;
mod limits;
mod mode;
pub mod namespaces;
mod policy;
pub mod user;
mod violation;

pub use calls::{Argument, Call, CallError, Test, Verdict};
pub use files::{Access, FileError, Reach};
pub use mode::{Missing, Mode};
pub use policy::{EnterError, Policy};
