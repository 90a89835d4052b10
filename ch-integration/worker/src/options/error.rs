// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is wrong with an option, for the person who wrote it.

use thiserror::Error;

/// An option that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OptionError {
    /// A part that is not KEY=VALUE.
    #[error("'{part}' is not KEY=VALUE")]
    NotAPair {
        /// The part.
        part: String,
    },
    /// A key that does not exist.
    #[error("unknown key '{key}'; the keys are {keys}")]
    UnknownKey {
        /// The key.
        key: String,
        /// Those that exist.
        keys: String,
    },
    /// A key of a VMM's grammar only.
    #[error("'{key}' belongs to a VMM's --gpu; here the keys are {keys}")]
    VmmKey {
        /// The key.
        key: String,
        /// Those that are read here.
        keys: String,
    },
    /// A key beside the socket of a server that has the GPU.
    #[error("'{key}' has no effect beside 'socket': give it to the server")]
    KeyWithSocket {
        /// The key.
        key: &'static str,
    },
    /// A key without another that it needs.
    #[error("'{key}' needs {needs}: {why}")]
    Needs {
        /// The key.
        key: &'static str,
        /// What has to be given with it.
        needs: String,
        /// Why.
        why: &'static str,
    },
    /// A key given twice.
    #[error("'{key}' is given twice")]
    Twice {
        /// The key.
        key: String,
    },
    /// A value that does not fit its key.
    #[error("'{key}={value}' is not allowed; {allowed}")]
    Value {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// What would be.
        allowed: String,
    },
    /// A limit that does not exist.
    #[error("there is no limit '{name}'; the limits are {limits}")]
    UnknownLimit {
        /// Its name.
        name: String,
        /// Those that exist.
        limits: String,
    },
    /// A hold that does not exist.
    #[error(
        "unknown hint '{hint}'; the hints are d3hot, bus-master, function-reset and same-driver, or none"
    )]
    UnknownHint {
        /// What was written.
        hint: String,
    },
}
