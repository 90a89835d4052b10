// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What no device can be.

use thiserror::Error;

/// Refused by the constructor: the caller's mistake, never the guest's.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// A GPU has 1 to 16 outputs (VIRTIO 1.4 §5.7.4).
    #[error("A GPU cannot have {count} outputs, only 1 to 16")]
    OutputCount {
        /// How many were asked for.
        count: usize,
    },
    /// An output is too small or too large.
    #[error("Output {index} cannot be {width}x{height}, only 16 to 16384 each way")]
    OutputSize {
        /// Which output.
        index: usize,
        /// Its width in pixels.
        width: u32,
        /// Its height in pixels.
        height: u32,
    },
    /// There is no such output.
    #[error("There is no output {index}, only {count}")]
    NoSuchOutput {
        /// Which output.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// A limit outside the bounds that [`Limits::TABLE`](crate::Limits::TABLE) gives it.
    #[error("The limit {limit} cannot be {value}")]
    Limit {
        /// The limit's name.
        limit: &'static str,
        /// Its value.
        value: u64,
    },
    /// There is no such limit.
    #[error("There is no limit {name}")]
    UnknownLimit {
        /// What was asked for.
        name: String,
    },
    /// A refresh rate that no display has.
    #[error("Outputs cannot have {hz} Hz, only 24 to 240")]
    RefreshRate {
        /// The rate in Hz.
        hz: u32,
    },
    /// A feature this device does not implement.
    #[error("The features {features:#x} cannot be offered")]
    Features {
        /// The features (as a mask) at fault.
        features: u64,
    },
}
