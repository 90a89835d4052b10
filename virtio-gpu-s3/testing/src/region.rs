// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A host visible region that keeps book of what is mapped into it.

use std::collections::BTreeMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtio_gpu_s3::renderer::BlobMapping;
use virtio_gpu_s3::{HostVisible, MapError};

/// Ranges of a region, and whether the host refuses the next change.
#[derive(Clone, Debug)]
pub struct Region {
    size: u64,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    mapped: BTreeMap<u64, u64>,
    refuse: bool,
}

impl Region {
    /// An empty region.
    pub fn new(size: u64) -> Self {
        Self {
            size,
            state: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Offset and size of everything mapped.
    pub fn mapped(&self) -> Vec<(u64, u64)> {
        let state = self.lock();
        state.mapped.iter().map(|(at, size)| (*at, *size)).collect()
    }

    /// Lets the next change fail.
    pub fn refuse_next(&self) {
        self.lock().refuse = true;
    }

    fn change(&self, offset: u64, size: u64) -> Result<MutexGuard<'_, State>, MapError> {
        let mut state = self.lock();
        if mem::take(&mut state.refuse) {
            return Err(MapError {
                offset,
                size,
                why: "the test said so".to_owned(),
            });
        }
        Ok(state)
    }
}

impl HostVisible for Region {
    fn size(&self) -> u64 {
        self.size
    }

    fn map(&mut self, offset: u64, size: u64, blob: BlobMapping) -> Result<(), MapError> {
        assert!(blob.size <= size && offset + size <= self.size);
        let mut state = self.change(offset, size)?;
        let before = state.mapped.range(..offset + size).next_back();
        assert!(before.is_none_or(|(start, length)| start + length <= offset));
        state.mapped.insert(offset, size);
        Ok(())
    }

    fn unmap(&mut self, offset: u64, size: u64) -> Result<(), MapError> {
        let mut state = self.change(offset, size)?;
        assert_eq!(state.mapped.remove(&offset), Some(size));
        Ok(())
    }
}
