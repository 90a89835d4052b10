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

mod config;
mod driver;
mod invariants;
mod machine;
mod program;

pub use config::{function_config, retention, transport_config};
pub use driver::{Driver, DriverQueue, Reach, SleepPath};
pub use invariants::check_invariants;
pub use machine::{Device, Machine};
pub use program::{Program, Step};
