// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A worker without a thread, for a test that says when it works: every run of it is the same.

use std::fmt::{Debug, Formatter, Result as FmtResult};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::frontend::Frontend;
use crate::worker::Worker;

/// The worker, one turn at a time.
pub struct DrivenWorker<F: Frontend>(Arc<Mutex<Worker<F>>>);

impl<F: Frontend> Clone for DrivenWorker<F> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<F: Frontend> Debug for DrivenWorker<F> {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        f.debug_struct("DrivenWorker").finish_non_exhaustive()
    }
}

impl<F: Frontend> DrivenWorker<F> {
    pub(crate) fn new(worker: Worker<F>) -> Self {
        Self(Arc::new(Mutex::new(worker)))
    }

    fn lock(&self) -> MutexGuard<'_, Worker<F>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does one thing, if there is one to do. Returns whether there was none, and the worker would sleep.
    pub fn step(&self) -> bool {
        self.lock().step()
    }

    /// Answers that the driver is owed.
    pub fn owed(&self) -> usize {
        self.lock().owed()
    }

    /// Whether it ended.
    pub fn is_ended(&self) -> bool {
        self.lock().is_ended()
    }
}
