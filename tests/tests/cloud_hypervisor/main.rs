// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guests of the real Cloud Hypervisor. `CLOUD_HYPERVISOR` names its binary; without it the suite is
//! skipped. What needs our series runs where `CH_REMOTE` names that build's `ch-remote` too, and 3D where
//! `CLOUD_HYPERVISOR_VIRGL` names a build with the feature `gpu_virgl`.

mod devices;
mod gpu;
mod kit;
mod latency;
mod rig;
mod s3;
mod server_loss;
mod sleep;
mod unmodified;
mod virgl;
mod vsock;
mod wait;
