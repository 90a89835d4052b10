// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Another size for an output, while the guest runs: it is told by VIRTIO_GPU_EVENT_DISPLAY (VIRTIO 1.4 §5.7.4).

use std::sync::mpsc::{Receiver, sync_channel};

use thiserror::Error;
use virtio_gpu_s3::{ConfigError, Gpu, OutputConfig};

use crate::device::PATIENCE;
use crate::options::OutputSize;
use crate::requests::Question;

/// An output that cannot have that size.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ResizeError {
    /// There is no such output, or no such size.
    #[error(transparent)]
    Output(#[from] ConfigError),
    /// The device's thread is gone.
    #[error("The device has stopped")]
    Stopped,
}

type Configuration = Vec<u8>;

/// What to ask of the worker, and where its answer comes: the configuration that the guest is to be told of.
pub(crate) fn question(
    scanout: u32,
    size: OutputSize,
) -> (Question, Receiver<Result<Configuration, ConfigError>>) {
    let (reply, answer) = sync_channel(1);
    let OutputSize { width, height } = size;
    let errand = move |gpu: &mut Gpu| {
        let index = usize::try_from(scanout).unwrap_or(usize::MAX);
        let resized = gpu.resize_output(index, OutputConfig { width, height });
        // Whoever asked may have given up.
        drop(reply.send(resized.map(|()| gpu.config_space().to_vec())));
    };
    (Question::Gpu(Box::new(errand)), answer)
}

pub(crate) fn wait_for(
    answer: &Receiver<Result<Configuration, ConfigError>>,
) -> Result<Configuration, ResizeError> {
    let resized = answer.recv_timeout(PATIENCE);
    Ok(resized.map_err(|_| ResizeError::Stopped)??)
}
