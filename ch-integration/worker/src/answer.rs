// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Waiting for the worker.

use std::hint::spin_loop;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use host_util::adaptive_polling::LIMIT;
use thiserror::Error;

/// How long a person's question waits for the worker, which may be in a long call of a renderer.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// No answer came from the worker.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoAnswer {
    /// It is busy with something else, and may do what was asked later.
    #[error("The device did not answer within {PATIENCE:?}")]
    Late,
    /// Its thread is gone.
    #[error("The device has stopped")]
    Stopped,
}

/// What an asker gets.
pub type Answered<T> = Result<T, NoAnswer>;

/// Waits for an answer, whose sender is with the worker.
pub(crate) fn wait<T>(answer: &Receiver<T>) -> Answered<T> {
    // Most answers take less than this thread takes to fall asleep and be waked.
    let start = Instant::now();
    while start.elapsed() < LIMIT {
        match answer.try_recv() {
            Err(TryRecvError::Empty) => spin_loop(),
            done => return done.map_err(|_| NoAnswer::Stopped),
        }
    }
    answer.recv_timeout(PATIENCE).map_err(|error| match error {
        RecvTimeoutError::Timeout => NoAnswer::Late,
        RecvTimeoutError::Disconnected => NoAnswer::Stopped,
    })
}
