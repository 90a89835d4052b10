// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a VMM decides about a transport.

use crate::error::ConfigError;
use crate::queue::{MAX_QUEUE_SIZE, MAX_QUEUES};
use crate::register::Layout;
use crate::retention::HoldSources;
use crate::spec::feature;

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
