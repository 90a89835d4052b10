// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device's side of vfio-user, for a VMM that is not trusted.
//!
//! A device implements [`Device`] and is served by [`serve`]: one VMM after the other, each for as long as it keeps to the
//! protocol. Every length that a VMM names meets a bound of [`limits`] before anything is allocated; every request is
//! answered, refused ones with an errno; and nothing that a VMM does or leaves undone makes the server wait: not half a
//! message, not a full socket, not a full eventfd, not a file that is cut short or cannot be closed.
//!
//! # Which requests get no reply
//! A request with No_reply gets none, failed ones included; those are logged. VERSION is answered all the same, as the
//! client cannot know what was agreed otherwise.
//!
//! # Threads
//! [`serve`] calls the device on the caller's thread. A second thread takes connections and does their handshakes, so that
//! a second VMM is refused while the first is served. A panic of either ends the process.

mod answer;
mod connection;
mod device;
mod dma;
mod eventfd;
mod fault;
mod interrupts;
pub mod limits;
mod lobby;
mod server;
mod stream;
mod version;
mod waker;
mod wire;

#[cfg(feature = "test-utils")]
pub mod test_utils;

pub use answer::{Answer, ReadAnswer};
pub use device::{Device, DeviceInfo, Goodbye};
pub use dma::{DmaMemory, MemoryChange};
pub use eventfd::Eventfd;
pub use interrupts::{Interrupts, IrqChange, IrqCounts};
pub use server::{ServeError, serve};
pub use wire::{Access, MAX_MESSAGE};
