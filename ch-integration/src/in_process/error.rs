// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a GPU in process answers its VMM with where it cannot.

use std::io::Error as IoError;

use thiserror::Error;
use virtio_gpu_s3::saved_state::{RestoreError, SaveError};

use crate::device::{DeviceError, PATIENCE};
use crate::options::OptionError;

/// A GPU that cannot be started in process.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartGpuError {
    /// What was asked for.
    #[error("No such GPU")]
    Option(#[source] OptionError),
    /// The VMM gives another region than the option asks for.
    #[error("hostmem={asked:?} is asked for, and the VMM has a region of {given:?} bytes")]
    HostVisible {
        /// Bytes asked for.
        asked: Option<u64>,
        /// Bytes there are.
        given: Option<u64>,
    },
    /// The device itself.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Its thread, or what wakes it.
    #[error("Cannot start the GPU's thread")]
    Thread(#[source] IoError),
    /// The thread ended before the GPU was there.
    #[error("The GPU's thread ended while it started")]
    Ended,
    /// The saved state is not one of this GPU.
    #[error("Cannot restore the GPU")]
    Restore(#[source] RestoreError),
}

/// A GPU that cannot do what its VMM asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GpuRequestError {
    /// The renderer did not answer in time.
    #[error("The GPU did not come to rest within {PATIENCE:?}")]
    Busy,
    /// The device's thread is gone.
    #[error("The GPU has stopped")]
    Stopped,
    /// What the guest has in a renderer has no saved form.
    #[error("Cannot save the GPU")]
    Save(#[source] SaveError),
}
