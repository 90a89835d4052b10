// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A pure model of a modern virtio PCI function that can retain its device's state across guest sleep.
//!
//! Configuration space, capabilities (virtio, MSI-X, power management), the common configuration of VIRTIO 1.4 with
//! per-queue reset, administration queue and suspend, interrupts, and the one thing that no other transport has: it
//! knows a reset from a sleep. Register accesses and the platform's events go in; values and [`Effects`] come out.
//!
//! # Why
//!
//! A guest that enters ACPI S3 resets its virtio devices when it wakes, and a device that drops its state at that reset
//! drops what the guest still counts on: for a GPU, everything on the screen. The guest's `freeze_mode` register, the
//! PCI power state, BusMaster, the VMM's own knowledge and VIRTIO_F_SUSPEND all tell a sleep. They are inputs to *one*
//! state machine: each is a [`HoldReason`], and while one stands a reset is a *frozen* one. The registers read as after
//! any reset, so that drivers that set everything up again work; the device keeps its state; and the queues are
//! *parked*, so that drivers that set nothing up again (Linux's virtio-gpu) get them back at DRIVER_OK.
//!
//! # What it is not
//!
//! No file descriptor, thread, clock, guest memory or KVM: those are the VMM's, and effects say what to do with them.
//! No queue processing: [`Transport::active_queues`] says where the rings are. No legacy interface, no port I/O BAR.
//!
//! # The decision that shapes it
//!
//! The device may live on another thread, so nothing here waits for it. What needs its answer ([`Effect::Reset`],
//! [`Effect::Freeze`], [`Effect::Suspend`], [`Effect::Resume`], [`Effect::ResetQueue`]) is a state of its own until the
//! answer comes, and the guest sees it: the status does not read 0 before the reset is done, `freeze_mode` does not
//! read FREEZE_S3 before the device can keep its promise. Drivers poll for both.
//!
//! # Example
//!
//! ```
//! use virtio_pci_freeze::{
//!     BarLayout, Effect, FunctionConfig, HoldSources, Identity, Layout, ResetKind, ResetOutcome,
//!     Retention, RingPosition, TransportConfig, VectorOwner, VirtioPciFunction,
//! };
//!
//! let mut function = VirtioPciFunction::new(FunctionConfig {
//!     transport: TransportConfig {
//!         device_features: 0,
//!         feature_dependencies: Vec::new(),
//!         queue_sizes: vec![64, 16],
//!         vectors: 3,
//!         layout: Layout::Seed,
//!         retention: Retention::On { sources: HoldSources::ALL, no_soft_reset: true },
//!         device_config: vec![0; 16],
//!         starts_as_bus_master: false,
//!     },
//!     identity: Identity {
//!         device_type: 16,
//!         class_code: [0, 0x80, 0x03],
//!         subsystem_id: 0x1100,
//!         interrupt_pin: true,
//!     },
//!     shared_memory: Vec::new(),
//!     vector_owner: VectorOwner::Function,
//!     power_management: true,
//! })?;
//!
//! // The VMM passes the guest's accesses on and carries out what they ask for, in order.
//! let mut answers = Vec::new();
//! for effect in function.write_bar(BarLayout::VIRTIO, 20, &[0]) {
//!     match effect {
//!         Effect::Reset { kind, ticket } => {
//!             // Finish what was taken from the queues. A full reset drops the device's state, a frozen one keeps it.
//!             let kept = kind == ResetKind::Frozen;
//!             answers.push((ticket, kept));
//!         }
//!         Effect::Activate(_) => { /* start with function.transport().active_queues() */ }
//!         Effect::Kick => { /* process every queue */ }
//!         Effect::Notify { queue, .. } => { /* process this one */ let _ = queue; }
//!         Effect::Interrupt => while let Some(message) = function.next_interrupt() {
//!             // inject message.address and message.data
//!             let _ = message;
//!         },
//!         _ => { /* see each one's documentation */ }
//!     }
//! }
//! // Answers come when they come, from any thread that can reach the function.
//! for (ticket, _) in answers {
//!     let positions = [RingPosition::default(); 2];
//!     let _effects = function.reset_done(ticket, ResetOutcome::Done(&positions));
//! }
//! assert_eq!(function.transport().status().0, 0);
//! # Ok::<(), virtio_pci_freeze::ConfigError>(())
//! ```
//!
//! # Features
//!
//! - `serde`: the types of [`saved_state`] can be serialised.
//! - `test-utils`: a guest's driver and a machine around the function, for tests, fuzzing and benchmarks.
//!
//! The program `virtio-freezectl` is the guest's side; [`guest`] has its logic.

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
mod error;
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

pub use bars::{BarLayout, MAX_SHARED_MEMORY_REGIONS, SharedMemoryAccess, SharedMemoryRegion};
pub use common_config::CommonConfig;
pub use config_space::{CONFIG_SPACE_SIZE, Identity};
pub use device_config::{DeviceConfig, MAX_DEVICE_CONFIG};
pub use effect::{ActivationKind, Effect, Effects, FreezeTicket, ResetKind, ResetTicket};
pub use error::ConfigError;
pub use function::{FunctionConfig, MAX_WRITE, VirtioPciFunction};
pub use msix::{Interrupt, VectorOwner};
pub use queue::{MAX_QUEUE_SIZE, MAX_QUEUES, QueueSetup, RingPosition};
pub use register::{Access, FREEZE_FEATURE, Layout, Register, RegisterInfo};
pub use retention::{
    FreezeState, HoldReason, HoldSources, ParkedQueues, RELEASE_AFTER_NOTIFICATIONS,
};
pub use saved_state::{RestoreError, RestoredDevice, SavedFunction, SavedTransport};
pub use transport::{Counters, PowerState, ResetOutcome, Retention, Transport, TransportConfig};
