// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Everything between the device models and a VMM.
//!
//! [`GpuDevice`] puts a [`virtio_gpu_s3::Gpu`] behind a [`virtio_pci_freeze::VirtioPciFunction`]: a worker thread that
//! serves the queues, interrupts, events. [`vfio`] offers that as a vfio-user PCI device, to Cloud Hypervisor's
//! `--user-device` and QEMU's `vfio-user-pci`; [`control`] is the socket through which a person looks at it. Both come
//! with the feature `server`; a VMM that takes the device in process builds with `gpu` alone, and its ACPI code takes
//! [`SleepRegister`] with no feature at all. The feature `vm-memory-0_17` is for a VMM that locks vm-memory 0.17, and
//! for no other: it is not additive, so `--all-features` must not be used.

#[cfg(feature = "control")]
pub mod control;
#[cfg(feature = "gpu")]
mod device;
#[cfg(feature = "gpu")]
mod events;
#[cfg(feature = "gpu")]
mod in_process;
#[cfg(feature = "gpu")]
mod interrupts;
#[cfg(feature = "gpu")]
mod linger;
#[cfg(feature = "gpu")]
mod memory_file;
#[cfg(feature = "gpu")]
mod model;
#[cfg(feature = "gpu")]
mod options;
#[cfg(feature = "virgl")]
pub mod renderer_process;
#[cfg(feature = "gpu")]
mod requests;
#[cfg(feature = "gpu")]
mod resize;
#[cfg(feature = "gpu")]
mod screenshot;
#[cfg(feature = "gpu")]
pub mod seccomp;
#[cfg(feature = "gpu")]
mod shared;
mod sleep_register;
#[cfg(feature = "control")]
pub mod socket;
#[cfg(feature = "gpu")]
mod status;
#[cfg(feature = "server")]
pub mod vfio;
#[cfg(feature = "gpu")]
mod wakeup;
#[cfg(feature = "gpu")]
mod window;
#[cfg(feature = "gpu")]
mod worker;

#[cfg(feature = "gpu")]
pub use device::{DeviceError, GpuDevice, Memory, QUEUE_SIZES, VECTORS};
#[cfg(feature = "gpu")]
pub use events::{Event, EventKind, EventLog};
#[cfg(feature = "gpu")]
pub use in_process::{
    GpuActivation, GpuRequestError, GpuStart, GpuThread, GuestNotifier, HostWindow, InProcessGpu,
    LayoutOption, MemorySlots, StartGpuError, VmmGpuOption, queue_setup,
};
#[cfg(feature = "gpu")]
pub use options::{
    Backend, DeviceOptions, GpuOption, HoldList, OptionError, OutputSize, RendererPlace, Switch,
};
#[cfg(feature = "gpu")]
pub use resize::ResizeError;
#[cfg(feature = "gpu")]
pub use screenshot::{ScreenshotError, encode_png, save_screens};
pub use sleep_register::{
    NotAsleep, SleepRegister, SleepRequest, SleepState, SleepStatus, SleepTypes,
};
#[cfg(feature = "gpu")]
pub use status::{Counters, Scanout, State, Status};
#[cfg(feature = "gpu")]
pub use virtio_gpu_s3::{HOST_VISIBLE_SHM_ID, Image, saved_state::SavedGpu};
#[cfg(feature = "gpu")]
pub use virtio_pci_freeze::ActivationKind;
