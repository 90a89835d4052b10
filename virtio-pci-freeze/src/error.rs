// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a VMM asked for and cannot have.

use thiserror::Error;

use crate::queue::{MAX_QUEUE_SIZE, MAX_QUEUES};
use crate::register::Layout;
use crate::spec::PCI_SUBSYSTEM_ID_MIN;

/// The caller described a device that cannot exist.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Too many queues.
    #[error("{count} queues, more than {MAX_QUEUES}")]
    TooManyQueues {
        /// How many were asked for.
        count: usize,
    },
    /// A queue size that is no power of 2, or too large.
    #[error("Queue {index} has size {size}, not a power of 2 up to {MAX_QUEUE_SIZE}")]
    QueueSize {
        /// Index of the queue.
        index: usize,
        /// The size asked for.
        size: u16,
    },
    /// The layout's `freeze_mode` register overlaps what a feature needs.
    #[error("Features {features:#x} have no registers in layout {layout:?}")]
    FeaturesOverlapLayout {
        /// The features.
        features: u64,
        /// The layout.
        layout: Layout,
    },
    /// A layout with `freeze_mode` where nothing is retained.
    #[error("Layout {layout:?} promises freeze_mode, but retention is off")]
    LayoutWithoutRetention {
        /// The layout.
        layout: Layout,
    },
    /// More device-specific configuration than its structure holds.
    #[error("{length} bytes of device configuration, more than {limit}")]
    DeviceConfigTooLong {
        /// Bytes asked for.
        length: usize,
        /// Bytes there are.
        limit: usize,
    },
    /// A feature without one that it requires (VIRTIO 1.4 §2.2.2).
    #[error("Feature {bit} is offered without feature {requires}, which it requires")]
    MissingDependency {
        /// The feature's bit number.
        bit: u32,
        /// The bit number of what it requires.
        requires: u32,
    },
    /// VIRTIO_F_ADMIN_VQ without a queue.
    #[error("VIRTIO_F_ADMIN_VQ is offered, but there is no queue to be the administration queue")]
    NoAdminQueue,
    /// An MSI-X table size outside 1 to 2048.
    #[error("{count} MSI-X vectors, not 1 to 2048")]
    Vectors {
        /// How many were asked for.
        count: u16,
    },
    /// A subsystem id by which a driver takes the function for a transitional one (VIRTIO 1.4 §4.1.2.1).
    #[error("Subsystem id {id:#x}, below {PCI_SUBSYSTEM_ID_MIN:#x}")]
    SubsystemId {
        /// The id asked for.
        id: u16,
    },
    /// A shared memory region that does not fit its BAR, or an id used twice.
    #[error("Shared memory region {id}: {reason}")]
    SharedMemory {
        /// The region's id.
        id: u8,
        /// What is wrong.
        reason: &'static str,
    },
}
