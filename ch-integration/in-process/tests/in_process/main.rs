// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The GPU in a VMM with a transport of its own: eventfds for doorbells, memory with a dirty bitmap, and every thread
//! of the GPU behind the seccomp filters that its lists make.

#![expect(
    clippy::cast_possible_truncation,
    reason = "a test's own numbers are small"
)]

mod control;
mod hands;
mod idle;
mod lifecycle;
mod rings;
mod sandbox;
#[cfg(feature = "virgl")]
mod virgl;
mod vmm;
mod wayland;
