// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a VMM decides about a transport.

use thiserror::Error;

use crate::queue::MAX_QUEUE_SIZE;
use crate::register::Layout;
use crate::retention::HoldSources;
use crate::spec::feature;

/// The feature bit that gates `freeze_mode` in [`Layout::Tail`]: 63.
///
/// VIRTIO 1.4 §2.2 leaves 50 to 127 to device types, none of which uses 63, and reserves 44 to 49 for itself. A bit of
/// the first 64 is one that every driver can acknowledge. The proposal's layout has no bit: its presence is the length
/// of the capability.
pub const FREEZE_FEATURE: u32 = 63;

/// Most virtqueues of one device, administration queues apart.
pub const MAX_QUEUES: usize = 1024;

/// How a transport retains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// Every reset is a full reset.
    Off,
    /// Resets under a hold are frozen resets.
    On {
        /// The hints that hold, besides what the guest asks for.
        sources: HoldSources,
        /// Tell the driver that it need not reset after D3hot (PCI PM 1.2 §3.2.4, No_Soft_Reset).
        no_soft_reset: bool,
    },
}

/// What a VMM decides about a device's transport.
#[derive(Clone, Debug)]
pub struct TransportConfig {
    /// Feature bits to offer, the device's and the queues'. VIRTIO_F_VERSION_1 is always offered.
    pub device_features: u64,
    /// Pairs (bit, bit it requires) that FEATURES_OK checks.
    pub feature_dependencies: Vec<(u32, u32)>,
    /// Largest size of each queue: powers of 2 up to 32768. With VIRTIO_F_ADMIN_VQ offered, the last one is the
    /// administration queue.
    pub queue_sizes: Vec<u16>,
    /// Vectors that the driver may assign.
    pub vectors: u16,
    /// Where `freeze_mode` is. Must be [`Layout::None`] when retention is off.
    pub layout: Layout,
    /// How resets are told from sleeps.
    pub retention: Retention,
    /// The device-specific configuration at the start (VIRTIO 1.4 §2.5).
    pub device_config: Vec<u8>,
    /// Whether the device may touch memory after power-on. A PCI function may not: its BusMaster bit starts at 0.
    pub starts_as_bus_master: bool,
}

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
    /// A shared memory region that does not fit its BAR, or an id used twice.
    #[error("Shared memory region {id}: {reason}")]
    SharedMemory {
        /// The region's id.
        id: u8,
        /// What is wrong.
        reason: &'static str,
    },
}

pub(super) fn check(config: &TransportConfig) -> Result<(), ConfigError> {
    let count = config.queue_sizes.len();
    if count > MAX_QUEUES {
        return Err(ConfigError::TooManyQueues { count });
    }
    let bad_size = |&(_, &size): &(usize, &u16)| !size.is_power_of_two() || size > MAX_QUEUE_SIZE;
    if let Some((index, &size)) = config.queue_sizes.iter().enumerate().find(bad_size) {
        return Err(ConfigError::QueueSize { index, size });
    }
    let offers = |bit| config.device_features & feature::mask(bit) != 0;
    if offers(feature::VIRTIO_F_ADMIN_VQ) && count == 0 {
        return Err(ConfigError::NoAdminQueue);
    }
    let missing = |&&(bit, requires): &&(u32, u32)| {
        offers(bit) && !offers(requires) && requires != feature::VIRTIO_F_VERSION_1
    };
    if let Some(&(bit, requires)) = config.feature_dependencies.iter().find(missing) {
        return Err(ConfigError::MissingDependency { bit, requires });
    }
    let layout = config.layout;
    let features = config.device_features & layout.excluded_features();
    if features != 0 {
        return Err(ConfigError::FeaturesOverlapLayout { features, layout });
    }
    if config.retention == Retention::Off && layout != Layout::None {
        return Err(ConfigError::LayoutWithoutRetention { layout });
    }
    Ok(())
}
