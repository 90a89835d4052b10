// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a GPU in process comes to be, on its own thread.

use std::fmt::{Debug, Formatter, Result as FmtResult};
use std::sync::Arc;

use virtio_gpu_s3::Gpu;
use virtio_gpu_s3::saved_state::SavedGpu;
use virtio_gpu_worker::{GpuOption, WorkerLink, build_gpu, new_config, new_renderer};
use vm_memory::bitmap::Bitmap;

use crate::error::StartGpuError;
use crate::frontend::InProcess;
use crate::host_window::HostWindow;

/// How a GPU starts.
#[derive(Default)]
pub struct GpuStart {
    /// The state to go on from; the GPU then stays paused until
    /// [`InProcessGpu::resume`](super::InProcessGpu::resume).
    pub saved: Option<SavedGpu>,
    /// The host visible shared memory region, of the size that `hostmem=` asks for.
    pub host_visible: Option<HostWindow>,
}

impl Debug for GpuStart {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        f.debug_struct("GpuStart")
            .field("saved", &self.saved.is_some())
            .field("host_visible", &self.host_visible)
            .finish()
    }
}

pub(super) fn check(option: &GpuOption, start: &GpuStart) -> Result<(), StartGpuError> {
    option.check().map_err(StartGpuError::Option)?;
    let asked = option.hostmem;
    let given = start.host_visible.as_ref().map(HostWindow::size);
    if asked == given {
        Ok(())
    } else {
        Err(StartGpuError::HostVisible { asked, given })
    }
}

/// The GPU, the longest request that it needs to see, and what the VMM sees of it.
pub(super) fn make<B: Bitmap + Send + Sync + 'static>(
    option: &GpuOption,
    start: GpuStart,
    link: &WorkerLink<InProcess<B>>,
) -> Result<(Gpu, usize, Arc<InProcess<B>>), StartGpuError> {
    let GpuStart {
        saved,
        host_visible,
    } = start;
    let paused = saved.is_some();
    let renderer = new_renderer(option, link)?;
    let (mut gpu, max_request) = match saved {
        None => build_gpu(option, renderer)?,
        Some(saved) => {
            let config = new_config(option)?;
            let max_request = config.limits().max_command_bytes();
            let gpu = Gpu::restore(config, renderer, saved);
            (gpu.map_err(StartGpuError::Restore)?, max_request)
        }
    };
    if let Some(region) = host_visible {
        gpu = gpu.with_host_visible(Box::new(region));
    }
    let front = Arc::new(InProcess::new(gpu.config_space(), paused));
    Ok((gpu, max_request, front))
}
