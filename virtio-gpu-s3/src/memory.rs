// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One name for guest memory: vm-memory 0.18 gave `GuestMemory` of 0.17 another one.

#[cfg(feature = "vm-memory-0_17")]
pub(crate) use vm_memory::GuestMemory as GuestMemoryBackend;
#[cfg(not(feature = "vm-memory-0_17"))]
pub(crate) use vm_memory::GuestMemoryBackend;
