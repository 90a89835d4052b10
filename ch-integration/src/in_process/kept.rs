// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A GPU that waits for its VMM's next start: a VMM makes its devices anew when the guest reboots, and virglrenderer
//! cannot be initialised twice in a process.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use vm_memory::bitmap::Bitmap;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use super::Inner;
use crate::options::GpuOption;
use crate::requests::Request;

/// A GPU without a VMM, and without anything of the guest it had.
pub(super) struct Kept<B: Bitmap + Send + Sync + 'static> {
    pub(super) option: GpuOption,
    pub(super) inner: Arc<Inner<B>>,
    pub(super) thread: JoinHandle<()>,
    pub(super) features: u64,
}

static KEPT: Mutex<Option<Box<dyn Any + Send>>> = Mutex::new(None);

impl<B: Bitmap + Send + Sync + 'static> Kept<B> {
    /// Keeps a GPU that was reset, and lets go of its guest's memory.
    pub(super) fn keep(self) {
        self.inner.send(Request::Attach {
            memory: GuestMemoryAtomic::new(GuestMemoryMmap::new()),
            doorbells: Vec::new(),
        });
        // Whoever waits here knows that the memory is free.
        drop(self.inner.status());
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some(Box::new(self));
    }

    /// The GPU that was kept, if it is this one.
    pub(super) fn take(option: &GpuOption) -> Option<Self> {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |it: &Self| it.option == *option && !it.thread.is_finished();
        if !kept.as_ref()?.downcast_ref().is_some_and(same) {
            return None;
        }
        let kept = kept.take()?.downcast().ok()?;
        Some(*kept)
    }
}
