// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The vfio-user server, driven by the client that Cloud Hypervisor uses.

#![expect(
    clippy::cast_possible_truncation,
    reason = "a test's own numbers are small"
)]

#[cfg(feature = "virgl")]
mod blobs;
mod confined;
mod connection;
mod control;
mod control_client;
mod control_hostile;
#[cfg(feature = "virgl")]
mod crash;
mod device;
mod exit;
mod hands;
mod mapping;
#[cfg(feature = "virgl")]
mod patience;
mod pictures;
#[cfg(feature = "virgl")]
mod renderer;
#[cfg(feature = "virgl")]
mod virgl;
mod vmm;
mod vnc;
