// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a GPU in process answers its VMM with where it cannot.

use thiserror::Error;
use virtio_gpu_s3::saved_state::{RestoreError, SaveError};

use virtio_gpu_worker::{BuildError, NoAnswer, OptionError, StartFailure};

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
    /// The GPU itself.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Its thread.
    #[error(transparent)]
    Thread(#[from] StartFailure),
    /// It does not answer.
    #[error(transparent)]
    NoAnswer(NoAnswer),
    /// The saved state is not one of this GPU.
    #[error("Cannot restore the GPU")]
    Restore(#[source] RestoreError),
}

/// A GPU that cannot do what its VMM asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GpuRequestError {
    /// The renderer did not come to rest in time.
    #[error("The GPU did not come to rest")]
    Busy,
    /// The GPU does not answer.
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
    /// What the guest has in a renderer has no saved form.
    #[error("Cannot save the GPU")]
    Save(#[source] SaveError),
}
