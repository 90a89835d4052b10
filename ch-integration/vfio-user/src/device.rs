// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is served: a device, and what it owes a VMM.

#![forbid(unsafe_code)]

use std::sync::Arc;

use vfio_bindings::bindings::vfio::VFIO_PCI_NUM_REGIONS;

use crate::answer::{Answer, ReadAnswer};
use crate::dma::{DmaMemory, DmaTable, MemoryChange};
use crate::interrupts::{Interrupts, IrqChange, IrqCounts};
use crate::lobby::Seat;
use crate::wire::Access;

/// What a device is, for as long as it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Size in bytes of each region of VFIO's PCI devices, 0 where there is none; index 7 is configuration space.
    pub regions: [u64; VFIO_PCI_NUM_REGIONS as usize],
    /// Its interrupts.
    pub irqs: IrqCounts,
}

/// A device behind the protocol.
///
/// A request that comes with an [`Answer`] may be answered later and from any thread: a method must not wait for what may
/// take longer than 1 s. Requests that come after it are handed over meanwhile. Accesses lie within their region.
pub trait Device {
    /// A VMM was let in.
    fn connected(&mut self) {}

    /// The VMM is gone: its memory, interrupts and requests are to be forgotten. `goodbye` is dropped when nothing of it
    /// is in use any more, in this method or later; until then no other VMM is let in.
    fn disconnected(&mut self, goodbye: Goodbye);

    /// Reads a region.
    fn read(&mut self, access: Access, answer: ReadAnswer);

    /// Writes a region.
    fn write(&mut self, access: Access, data: &[u8], answer: Answer);

    /// Resets the function (VFIO_USER_DEVICE_RESET).
    fn reset(&mut self, answer: Answer);

    /// Guest memory is this from now on. After [`Removed`](MemoryChange::Removed) an answer says that what went is not touched any
    /// more; with [`Added`](MemoryChange::Added) it can be given at once.
    fn set_memory(&mut self, memory: &DmaMemory, change: MemoryChange, answer: Answer);

    /// Runs `change` on the device's interrupts, under whatever lock they have, and looks at what it did.
    fn with_interrupts(&mut self, change: &mut dyn FnMut(&mut Interrupts) -> IrqChange);
}

/// What a device owes a VMM that left; it is dropped when nothing of that VMM is in use any more.
#[derive(Debug)]
pub struct Goodbye {
    pub(crate) seat: Arc<Seat>,
    /// Maps that go with it, once the device has let go.
    pub(crate) memory: Option<DmaTable>,
}

impl Drop for Goodbye {
    fn drop(&mut self) {
        drop(self.memory.take());
        self.seat.leave();
    }
}
