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
//! A whole endpoint, from the accesses of a guest to the device and back. What a VMM puts in its place: the memory bus
//! calls `read_bar` and `write_bar`, the PCI bus `read_config` and `write_config`, and `inject` sends a message.
//!
//! ```
//! use virtio_pci_freeze::{
//!     BarLayout, ConfigError, Effect, Effects, FunctionConfig, HoldSources, Identity, Interrupt, Layout, ResetKind,
//!     ResetOutcome, Retention, RingPosition, TransportConfig, VectorOwner, VirtioPciFunction,
//! };
//!
//! /// The device itself. It may as well live on another thread: answers come when they come.
//! #[derive(Default)]
//! struct Device {
//!     resources: Vec<u32>,
//!     positions: [RingPosition; 2],
//! }
//!
//! impl Device {
//!     fn serve(&mut self, queue: u16) {
//!         // Take buffers, use them, and call `VirtioPciFunction::queue_used` where the driver wants to know.
//!         let _ = queue;
//!     }
//! }
//!
//! struct Endpoint {
//!     function: VirtioPciFunction,
//!     device: Device,
//! }
//!
//! impl Endpoint {
//!     fn new() -> Result<Self, ConfigError> {
//!         let transport = TransportConfig {
//!             device_features: 0,
//!             feature_dependencies: Vec::new(),
//!             queue_sizes: vec![64, 16],
//!             vectors: 3,
//!             layout: Layout::Seed,
//!             retention: Retention::On { sources: HoldSources::ALL, no_soft_reset: true },
//!             device_config: vec![0; 16],
//!             starts_as_bus_master: false,
//!         };
//!         let identity = Identity {
//!             device_type: 16,
//!             class_code: [0, 0x80, 0x03],
//!             subsystem_id: 0x1100,
//!             interrupt_pin: true,
//!         };
//!         let function = VirtioPciFunction::new(FunctionConfig {
//!             transport,
//!             identity,
//!             shared_memory: Vec::new(),
//!             vector_owner: VectorOwner::Function,
//!             power_management: true,
//!         })?;
//!         Ok(Self { function, device: Device::default() })
//!     }
//!
//!     fn read_bar(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
//!         let effects = self.function.read_bar(bar, offset, data);
//!         self.carry_out(effects);
//!     }
//!
//!     fn write_bar(&mut self, bar: u8, offset: u64, data: &[u8]) {
//!         let effects = self.function.write_bar(bar, offset, data);
//!         self.carry_out(effects);
//!     }
//!
//!     fn read_config(&mut self, offset: u16, data: &mut [u8]) {
//!         let effects = self.function.read_config(offset, data);
//!         self.carry_out(effects);
//!     }
//!
//!     fn write_config(&mut self, offset: u16, data: &[u8]) {
//!         let effects = self.function.write_config(offset, data);
//!         self.carry_out(effects);
//!     }
//!
//!     /// Carries out the effects in order, then answers those that ask for an answer.
//!     fn carry_out(&mut self, effects: Effects) {
//!         let mut asked = Vec::new();
//!         for effect in effects {
//!             match effect {
//!                 Effect::Activate(_) => {
//!                     for queue in self.function.transport().active_queues() {
//!                         self.device.positions[usize::from(queue.index)] = queue.position;
//!                     }
//!                 }
//!                 Effect::Kick => (0..2).for_each(|queue| self.device.serve(queue)),
//!                 Effect::Notify { queue, .. } | Effect::StartQueue { queue } => self.device.serve(queue),
//!                 Effect::Interrupt => {
//!                     while let Some(interrupt) = self.function.next_interrupt() {
//!                         self.inject(interrupt);
//!                     }
//!                 }
//!                 Effect::Discard | Effect::Disown => self.device.resources.clear(),
//!                 // A device on this thread touches memory only while it is called, and this one has no registers.
//!                 Effect::Pause | Effect::Unfreeze | Effect::DeviceConfigWrite { .. } => {}
//!                 Effect::Intx(_level) => { /* drive the line */ }
//!                 Effect::Reset { .. } | Effect::Freeze { .. } | Effect::Suspend | Effect::Resume
//!                 | Effect::ResetQueue { .. } => asked.push(effect),
//!             }
//!         }
//!         for effect in asked {
//!             let effects = self.answer(effect);
//!             self.carry_out(effects);
//!         }
//!     }
//!
//!     fn answer(&mut self, asked: Effect) -> Effects {
//!         let Self { function, device } = self;
//!         match asked {
//!             Effect::Reset { kind, ticket } => {
//!                 if kind == ResetKind::Full {
//!                     *device = Device::default();
//!                 }
//!                 function.reset_done(ticket, ResetOutcome::Done(&device.positions))
//!             }
//!             Effect::Suspend => function.suspend_done(true),
//!             Effect::Resume => function.resume_done(true),
//!             Effect::Freeze { ticket } => {
//!                 function.freeze_done(ticket, true);
//!                 Effects::none()
//!             }
//!             Effect::ResetQueue { queue } => {
//!                 function.queue_reset_done(queue);
//!                 Effects::none()
//!             }
//!             _ => Effects::none(),
//!         }
//!     }
//!
//!     fn inject(&mut self, interrupt: Interrupt) {
//!         let _ = (interrupt.address, interrupt.data);
//!     }
//! }
//!
//! // A guest starts the device. The offsets are those of VIRTIO 1.4 §4.1.4.3.
//! fn start(endpoint: &mut Endpoint) {
//!     endpoint.write_bar(BarLayout::VIRTIO, 20, &[1]);
//!     endpoint.write_bar(BarLayout::VIRTIO, 20, &[3]);
//!     endpoint.write_bar(BarLayout::VIRTIO, 8, &1u32.to_le_bytes());
//!     endpoint.write_bar(BarLayout::VIRTIO, 12, &1u32.to_le_bytes()); // VIRTIO_F_VERSION_1
//!     endpoint.write_bar(BarLayout::VIRTIO, 20, &[0xb]);
//! }
//!
//! let mut endpoint = Endpoint::new()?;
//! endpoint.write_config(4, &[6, 0]); // memory accesses, and BusMaster
//! start(&mut endpoint);
//! endpoint.write_bar(BarLayout::VIRTIO, 28, &[1, 0]); // queue_enable of queue 0
//! endpoint.write_bar(BarLayout::VIRTIO, 20, &[0xf]);
//! endpoint.device.resources.push(7);
//!
//! // It sleeps, and its driver resets the device when it wakes: the registers read as after any reset.
//! endpoint.function.platform_sleep();
//! endpoint.write_bar(BarLayout::VIRTIO, 20, &[0]);
//! endpoint.function.platform_wake();
//! let mut status = [0xff];
//! endpoint.read_bar(BarLayout::VIRTIO, 20, &mut status);
//! assert_eq!(status, [0]);
//!
//! // The driver sets up no queue, as Linux's virtio-gpu: it has its queue back, and the device its state.
//! start(&mut endpoint);
//! endpoint.write_bar(BarLayout::VIRTIO, 20, &[0xf]);
//! assert_eq!(endpoint.function.transport().active_queues().count(), 1);
//! assert_eq!(endpoint.device.resources, [7]);
//! let mut vendor = [0; 2];
//! endpoint.read_config(0, &mut vendor);
//! assert_eq!(vendor, [0xf4, 0x1a]);
//! # Ok::<(), ConfigError>(())
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
