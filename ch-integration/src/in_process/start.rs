// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a GPU in process comes to be, on its own thread.

use std::fmt::{Debug, Formatter, Result as FmtResult};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use virtio_gpu_s3::saved_state::SavedGpu;
use virtio_gpu_s3::{Gpu, NullDisplay};
use vm_memory::bitmap::Bitmap;

use super::error::StartGpuError;
use super::frontend::InProcess;
use super::host_window::HostWindow;
use crate::model::{new_config, new_gpu, new_renderer};
use crate::options::GpuOption;
use crate::requests::Requests;
use crate::wakeup::Wakeup;

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

pub(super) fn make_gpu<B: Bitmap + Send + Sync + 'static>(
    option: &GpuOption,
    start: GpuStart,
    wakeup: &Arc<Wakeup>,
    requests: &Arc<Requests<InProcess<B>>>,
) -> Result<(Gpu, usize), StartGpuError> {
    let GpuStart {
        saved,
        host_visible,
    } = start;
    let renderer = new_renderer(option, wakeup, requests)?;
    let (gpu, max_request) = match saved {
        None => new_gpu(option, renderer)?,
        Some(saved) => {
            let config = new_config(option)?;
            let max_request = config.limits().max_command_bytes();
            let gpu = Gpu::restore(config, renderer, Box::new(NullDisplay), saved);
            (gpu.map_err(StartGpuError::Restore)?, max_request)
        }
    };
    Ok(match host_visible {
        Some(region) => (gpu.with_host_visible(Box::new(region)), max_request),
        None => (gpu, max_request),
    })
}

/// Tells the VMM's thread how the start went. Returns what there is to run.
pub(super) fn tell_start<B: Bitmap + Send + Sync + 'static>(
    made: Result<(Gpu, usize), StartGpuError>,
    front: &InProcess<B>,
    reply: &SyncSender<Result<u64, StartGpuError>>,
) -> Option<(Gpu, usize)> {
    let (told, run) = match made {
        Ok((gpu, max_request)) => {
            front.set_config(&gpu.config_space());
            (Ok(gpu.device_features()), Some((gpu, max_request)))
        }
        Err(error) => (Err(error), None),
    };
    reply.send(told).is_ok().then_some(run).flatten()
}
