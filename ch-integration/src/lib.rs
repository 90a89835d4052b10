// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! virtio-gpu that survives guest S3, for any VMM that speaks vfio-user.
//!
//! [`GpuDevice`] puts a GPU with its worker behind a [`virtio_pci_freeze::VirtioPciFunction`]. [`vfio`] offers that as a
//! vfio-user PCI device, to Cloud Hypervisor's `--user-device` and QEMU's `vfio-user-pci`; the command `virtio-gpu-s3d` is
//! that with a control socket. A VMM that has a virtio transport of its own takes the crate `virtio-gpu-in-process` instead.

#[cfg(feature = "virgl")]
pub mod children;
pub mod confine;
mod device;
pub mod ending;
mod function;
mod sleep;
pub mod vfio;
mod window;

pub use device::{DeviceError, GpuDevice};
pub use function::VECTORS;
use vfio_user_device::DmaMemory;
use vm_memory::GuestMemoryAtomic;

/// Guest memory, replaced whole when the VMM maps or unmaps.
pub type Memory = GuestMemoryAtomic<DmaMemory>;
