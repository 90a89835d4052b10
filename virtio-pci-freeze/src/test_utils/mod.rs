// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest's driver and a small machine around the function, for tests, fuzzing and benchmarks.
//!
//! [`Machine`] is the host: it carries out the function's effects on a [`Device`] that keeps nothing but a set of
//! resource ids, which is enough to see whether a reset kept them. [`Driver`] is the guest: it performs the register
//! sequences of real drivers.

#![expect(
    clippy::expect_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "test code: a step that cannot be taken must stop the test where it stands"
)]

mod driver;
mod invariants;
mod machine;
mod program;

pub use driver::{Driver, DriverQueue, Reach, SleepPath};
pub use invariants::check_invariants;
pub use machine::{Device, Machine};
pub use program::{Program, Step};

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
