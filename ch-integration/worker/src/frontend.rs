// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a worker needs of whoever stands between it and a VMM.

use virtio_pci_freeze::{FreezeTicket, HoldReason, ResetOutcome};
use vm_memory::GuestMemoryBackend;

/// Sizes of the control and the cursor queue. QEMU's are 64 and 16, crosvm's 512 and 16; a longer control queue lets
/// a driver batch, and 256 descriptors still fit one page.
pub const QUEUE_SIZES: [u16; 2] = [256, 16];

/// Guest memory at one moment, a value that does not change; the default one is empty.
pub trait Memory: GuestMemoryBackend + Default + Send + Sync + 'static {}

impl<M: GuestMemoryBackend + Default + Send + Sync + 'static> Memory for M {}

/// The device's registers and interrupts, wherever they are. Called on the worker's thread; no method may wait for the
/// worker.
pub trait Frontend: Send + Sync + 'static {
    /// Guest memory, as the VMM has it.
    type Memory: Memory;
    /// What a reset is asked with, and answered.
    type Ticket: Send + 'static;

    /// Buffers of this queue were used, and the driver wants to know (VIRTIO 1.4 §2.7.7).
    fn queue_used(&self, queue: u16);

    /// An error that only a reset cures (DEVICE_NEEDS_RESET, VIRTIO 1.4 §2.1.2).
    fn needs_reset(&self, reason: &str);

    /// The device configuration is this from now on (VIRTIO 1.4 §2.5).
    fn set_config(&self, config: &[u8], change: ConfigChange);

    /// What was asked is done, or refused.
    fn complete(&self, done: Completion);

    /// A reset is applied. Returns what came of it.
    fn reset_done(&self, ticket: Self::Ticket, outcome: ResetOutcome<'_>) -> ResetReport;
}

/// Why the configuration changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigChange {
    /// The driver wrote it, or reset the device.
    ByDriver,
    /// The device did, and the driver must be told.
    ByDevice,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// Every command that was taken is answered, or that could not be reached.
    Freeze {
        /// Of the request.
        ticket: FreezeTicket,
        /// Whether the device can retain its state now.
        honoured: bool,
    },
    /// The device is suspended (VIRTIO 1.4 §3.4.2), or could not be.
    Suspend {
        /// Whether it is.
        suspended: bool,
    },
    /// The device runs again.
    Resume,
    /// One queue is stopped and forgotten.
    QueueReset {
        /// Index of the queue.
        queue: u16,
    },
}

/// What came of a reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResetReport {
    /// The device's state is retained.
    Frozen {
        /// Why; empty where a VMM has its own reasons.
        holds: Vec<HoldReason>,
        /// Queues whose set-up is parked.
        parked_queues: usize,
    },
    /// Nothing is left of the device's state.
    Full,
    /// Another reset was asked for meanwhile, and is reported for itself.
    Superseded,
}
