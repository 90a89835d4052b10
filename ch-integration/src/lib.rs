// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Everything between the device models and a VMM.
//!
//! [`GpuDevice`] puts a [`virtio_gpu_s3::Gpu`] behind a [`virtio_pci_freeze::VirtioPciFunction`]: a worker thread that
//! serves the queues, interrupts, events. [`vfio`] offers that as a vfio-user PCI device, to Cloud Hypervisor's
//! `--user-device` and QEMU's `vfio-user-pci`; [`control`] is the socket through which a person looks at it. Both come
//! with the feature `server`; a VMM that takes the device in process builds without it.

#[cfg(feature = "server")]
pub mod control;
mod device;
mod events;
mod interrupts;
mod options;
mod screenshot;
mod sleep_register;
#[cfg(feature = "server")]
pub mod socket;
mod status;
#[cfg(feature = "server")]
pub mod vfio;
mod wakeup;
mod worker;

pub use device::{DeviceError, GpuDevice, Memory, QUEUE_SIZES, VECTORS};
pub use events::{Event, EventKind, EventLog};
pub use options::{Backend, DeviceOptions, GpuOption, HoldList, OptionError, OutputSize, Switch};
pub use screenshot::{ScreenshotError, encode_png};
pub use sleep_register::{NotAsleep, SleepRegister, SleepRequest, SleepStatus, SleepTypes};
pub use status::Status;
