// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The registers of one virtqueue.

use crate::spec::VIRTIO_MSI_NO_VECTOR;

/// Largest size of a split virtqueue (VIRTIO 1.4 §2.7).
pub const MAX_QUEUE_SIZE: u16 = 32768;
/// Most virtqueues of one device, administration queues apart.
pub const MAX_QUEUES: usize = 1024;

/// How far the device has come in a virtqueue. In a split one both count buffers and wrap at 2^16 (VIRTIO 1.4 §2.7.6,
/// §2.7.8); in a packed one each is an offset with the wrap counter in bit 15 (§2.8.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RingPosition {
    /// Buffers taken from the available ring.
    pub next_avail: u16,
    /// Buffers put into the used ring.
    pub next_used: u16,
}

/// A virtqueue as the driver set it up, with the device's position in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct QueueSetup {
    /// Index of the queue.
    pub index: u16,
    /// Number of descriptors, a power of 2.
    pub size: u16,
    /// MSI-X vector, or [`VIRTIO_MSI_NO_VECTOR`].
    pub vector: u16,
    /// Guest address of the descriptor area.
    pub desc: u64,
    /// Guest address of the driver area (the available ring).
    pub driver: u64,
    /// Guest address of the device area (the used ring).
    pub device: u64,
    /// Where the device goes on.
    pub position: RingPosition,
}

/// Whether the device serves a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueStatus {
    Disabled,
    Enabled,
    /// queue_reset was written and reads 1 until the device has stopped the queue (VIRTIO 1.4 §2.6.1).
    Resetting,
}

/// The registers that queue_select chooses between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queue {
    pub(crate) max_size: u16,
    pub(crate) size: u16,
    pub(crate) vector: u16,
    pub(crate) status: QueueStatus,
    pub(crate) desc: u64,
    pub(crate) driver: u64,
    pub(crate) device: u64,
    pub(crate) position: RingPosition,
}

impl Queue {
    pub(crate) fn new(max_size: u16) -> Self {
        Self {
            max_size,
            size: max_size,
            vector: VIRTIO_MSI_NO_VECTOR,
            status: QueueStatus::Disabled,
            desc: 0,
            driver: 0,
            device: 0,
            position: RingPosition::default(),
        }
    }

    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.max_size);
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.status == QueueStatus::Enabled
    }

    pub(crate) fn is_disabled(&self) -> bool {
        self.status == QueueStatus::Disabled
    }

    /// Whether a driver may choose `size`: no larger than offered, and a power of 2 unless the queue is `packed`
    /// (VIRTIO 1.4 §4.1.4.3.2).
    pub(crate) fn allows_size(&self, size: u16, packed: bool) -> bool {
        (size.is_power_of_two() || packed) && size != 0 && size <= self.max_size
    }

    /// Whether the addresses have the alignment that the queue's layout needs: 16, 2 and 4 bytes for a split one
    /// (VIRTIO 1.4 §2.7), 16, 4 and 4 for a packed one (§2.8.10.1).
    pub(crate) fn is_aligned(&self, packed: bool) -> bool {
        self.desc.is_multiple_of(16)
            && self.driver.is_multiple_of(if packed { 4 } else { 2 })
            && self.device.is_multiple_of(4)
    }

    pub(crate) fn setup(&self, index: u16) -> Option<QueueSetup> {
        self.is_enabled().then_some(QueueSetup {
            index,
            size: self.size,
            vector: self.vector,
            desc: self.desc,
            driver: self.driver,
            device: self.device,
            position: self.position,
        })
    }

    pub(crate) fn reinstate(&mut self, setup: &QueueSetup) {
        let QueueSetup {
            index: _,
            size,
            vector,
            desc,
            driver,
            device,
            position,
        } = *setup;
        *self = Self {
            max_size: self.max_size,
            size,
            vector,
            status: QueueStatus::Enabled,
            desc,
            driver,
            device,
            position,
        };
    }
}
