// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A GPU that waits for its VMM's next start: a VMM makes its devices anew when the guest reboots, and virglrenderer
//! cannot be initialised twice in a process.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use virtio_gpu_worker::GpuOption;
use vm_memory::bitmap::Bitmap;

use crate::running::Running;

/// A GPU without a VMM, and without anything of the guest it had: a full reset ended the activation, and its memory with
/// it.
pub(super) struct Kept<B: Bitmap + Send + Sync + 'static> {
    pub(super) option: GpuOption,
    pub(super) running: Arc<Running<B>>,
}

static KEPT: Mutex<Option<Box<dyn Any + Send>>> = Mutex::new(None);

impl<B: Bitmap + Send + Sync + 'static> Kept<B> {
    /// Keeps a GPU that was reset.
    pub(super) fn keep(self) {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some(Box::new(self));
    }

    /// The GPU that was kept, if it is this one.
    pub(super) fn take(option: &GpuOption) -> Option<Self> {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |it: &Self| it.option == *option && !it.running.worker.is_finished();
        if !kept.as_ref()?.downcast_ref().is_some_and(same) {
            return None;
        }
        let kept = kept.take()?.downcast().ok()?;
        Some(*kept)
    }
}
