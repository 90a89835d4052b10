// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's side: finding a virtio function's structures, and reaching them through configuration space.
//!
//! The PCI configuration access capability (VIRTIO 1.4 §4.1.4.9) is a window into the BARs. Through it a program that
//! may write configuration space can use `freeze_mode` without a mapped BAR and without the kernel driver's help.

mod freeze;
mod probe;

pub use freeze::{FreezeControl, FreezeError};
pub use probe::{
    Capabilities, CommonRegisters, ConfigAccess, ProbeError, StructureLocation, Window,
};
