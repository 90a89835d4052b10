// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The way of an interrupt to the guest, as the VMM gives it.

use std::fmt::Debug;

/// Where a vector goes.
pub trait Signal: Debug + Send {
    /// Sends it. It is called under the device's lock and must not wait, whatever a VMM has done to what it gave.
    fn signal(&self);
}

/// A signal a vector, where the VMM gave one.
#[derive(Debug)]
pub(crate) struct Interrupts {
    vectors: Vec<Option<Box<dyn Signal>>>,
}

impl Interrupts {
    pub(crate) fn new(vectors: u16) -> Self {
        let vectors = (0..vectors).map(|_| None).collect();
        Self { vectors }
    }

    /// Replaces the way of a vector; `None` takes it away.
    pub(crate) fn connect(&mut self, vector: u16, signal: Option<Box<dyn Signal>>) {
        if let Some(slot) = self.vectors.get_mut(usize::from(vector)) {
            *slot = signal;
        }
    }

    pub(crate) fn signal(&self, vector: u16) {
        if let Some(Some(signal)) = self.vectors.get(usize::from(vector)) {
            signal.signal();
        }
    }
}
