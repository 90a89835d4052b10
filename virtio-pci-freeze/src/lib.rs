// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A pure model of a modern virtio PCI function that can retain its device's state across guest sleep.

#![forbid(unsafe_code)]
#![deny(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unreachable
)]

mod bars;
mod common_config;
mod config_space;
mod device_config;
mod effect;
mod function;
pub mod guest;
mod msix;
mod queue;
mod register;
mod retention;
pub mod saved_state;
pub mod spec;
pub mod status;
#[cfg(feature = "test-utils")]
pub mod test_utils;
mod transport;

pub use bars::{BarLayout, MAX_SHARED_MEMORY_REGIONS, SharedMemoryRegion};
pub use common_config::CommonConfig;
pub use config_space::{CONFIG_SPACE_SIZE, Identity};
pub use device_config::{DeviceConfig, MAX_DEVICE_CONFIG};
pub use effect::{ActivationKind, Effect, Effects, ResetKind, ResetTicket};
pub use function::{FunctionConfig, MAX_WRITE, VirtioPciFunction};
pub use msix::{Interrupt, VectorOwner};
pub use queue::{MAX_QUEUE_SIZE, QueueSetup, RingPosition};
pub use register::{Access, Layout, Register, RegisterInfo};
pub use retention::{
    FreezeState, HoldReason, HoldSources, ParkedQueues, RELEASE_AFTER_NOTIFICATIONS,
};
pub use saved_state::{RestoreError, RestoredDevice, SavedFunction, SavedTransport};
pub use transport::{
    ConfigError, Counters, FREEZE_FEATURE, MAX_QUEUES, PowerState, ResetOutcome, Retention,
    Transport, TransportConfig,
};
