// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A function like a GPU's, to begin a test with.

use crate::bars::SharedMemoryRegion;
use crate::config_space::Identity;
use crate::function::FunctionConfig;
use crate::msix::VectorOwner;
use crate::register::Layout;
use crate::retention::HoldSources;
use crate::transport::{Retention, TransportConfig};

/// Retention with every hint of a sleep, and No_Soft_Reset as given. A driver's reset of a device that nothing holds is
/// a full one.
pub const fn retention(no_soft_reset: bool) -> Retention {
    Retention::On {
        sources: HoldSources {
            same_driver: false,
            ..HoldSources::ALL
        },
        no_soft_reset,
    }
}

/// A transport with two queues of 64 and 16 entries and three vectors, like a GPU's.
pub fn transport_config(layout: Layout, retention: Retention) -> TransportConfig {
    TransportConfig {
        device_features: 0x1000_0003,
        feature_dependencies: vec![(1, 0)],
        queue_sizes: vec![64, 16],
        vectors: 3,
        layout,
        retention,
        device_config: vec![0; 16],
        starts_as_bus_master: false,
    }
}

/// A GPU-like function around `transport`, with every part that a function can have.
pub fn function_config(transport: TransportConfig) -> FunctionConfig {
    FunctionConfig {
        transport,
        identity: Identity {
            device_type: 16,
            class_code: [0, 0x80, 0x03],
            subsystem_id: 0x1100,
            interrupt_pin: true,
        },
        shared_memory: vec![SharedMemoryRegion {
            id: 1,
            offset: 0,
            length: 0x10_0000,
        }],
        vector_owner: VectorOwner::Function,
        power_management: true,
    }
}
