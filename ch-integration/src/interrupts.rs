// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The way of an interrupt to the guest: eventfds that the VMM hands over.

use std::fs::File;
use std::io::Write;

use log::debug;

/// An eventfd a vector, where the VMM gave one.
#[derive(Debug)]
pub(crate) struct Interrupts {
    vectors: Vec<Option<File>>,
}

impl Interrupts {
    pub(crate) fn new(vectors: u16) -> Self {
        let vectors = (0..vectors).map(|_| None).collect();
        Self { vectors }
    }

    /// Replaces the eventfd of a vector; `None` takes its way away.
    pub(crate) fn connect(&mut self, vector: u16, eventfd: Option<File>) {
        if let Some(slot) = self.vectors.get_mut(usize::from(vector)) {
            *slot = eventfd;
        }
    }

    pub(crate) fn signal(&mut self, vector: u16) {
        let eventfd = self
            .vectors
            .get_mut(usize::from(vector))
            .and_then(Option::as_mut);
        if let Some(eventfd) = eventfd
            && let Err(error) = eventfd.write_all(&1u64.to_ne_bytes())
        {
            debug!("Vector {vector} has a bad eventfd: {error}");
        }
    }
}
