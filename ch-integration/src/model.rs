// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The GPU that an option asks for.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use virtio_gpu_s3::{
    CrossDomainConfig, CrossDomainRenderer, Gpu, GpuConfig, NullDisplay, NullRenderer, Renderer,
};
#[cfg(feature = "virgl")]
use virtio_gpu_s3::{RutabagaConfig, RutabagaRenderer};
use virtio_pci_freeze::spec::feature;

use crate::device::DeviceError;
use crate::options::{Backend, GpuOption, RendererPlace};
#[cfg(feature = "virgl")]
use crate::renderer_process::RemoteRenderer;
use crate::requests::Requests;
use crate::wakeup::Wakeup;
use crate::worker::Frontend;

/// What the worker can do with rings, as a mask of features.
pub(crate) const RING_FEATURES: u64 =
    feature::mask(feature::VIRTIO_F_INDIRECT_DESC) | feature::mask(feature::VIRTIO_F_EVENT_IDX);

/// The configuration, with UUIDs of its own.
pub(crate) fn new_config(option: &GpuOption) -> Result<GpuConfig, DeviceError> {
    let config = option.gpu_config().map_err(DeviceError::Gpu)?;
    Ok(config.with_uuid_namespace(random()))
}

/// A GPU as after power-on, and the longest request it needs to see.
pub(crate) fn new_gpu(
    option: &GpuOption,
    renderer: Box<dyn Renderer>,
) -> Result<(Gpu, usize), DeviceError> {
    let config = new_config(option)?;
    let max_request = config.limits().max_command_bytes();
    let gpu = Gpu::new(config, renderer, Box::new(NullDisplay)).map_err(DeviceError::Gpu)?;
    Ok((gpu, max_request))
}

/// Sets this GPU's UUIDs apart from those of another; nothing secret depends on it.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// A renderer for the thread that calls this, which is the one that the GPU lives on.
pub(crate) fn new_renderer<F: Frontend>(
    option: &GpuOption,
    wakeup: &Arc<Wakeup>,
    requests: &Arc<Requests<F>>,
) -> Result<Box<dyn Renderer>, DeviceError> {
    let renderer: Box<dyn Renderer> = match option.backend {
        Backend::TwoD => Box::new(NullRenderer::default()),
        #[cfg(feature = "virgl")]
        Backend::Virgl => {
            let config = virtio_gpu_s3::RutabagaConfig {
                venus: option.venus,
                ..RutabagaConfig::default()
            };
            let renderer = RutabagaRenderer::on_this_thread(&config, wake(wakeup, requests));
            let mut renderer = renderer.map_err(DeviceError::Renderer)?;
            renderer.watch().map_err(DeviceError::Renderer)?;
            Box::new(renderer)
        }
    };
    with_channels(renderer, option, wakeup, requests)
}

/// A renderer where `place` says; what has no C library has no place.
pub(crate) fn new_renderer_in<F: Frontend>(
    place: &RendererPlace,
    option: &GpuOption,
    wakeup: &Arc<Wakeup>,
    requests: &Arc<Requests<F>>,
) -> Result<Box<dyn Renderer>, DeviceError> {
    match (place, option.backend) {
        #[cfg(feature = "virgl")]
        (RendererPlace::Process(program), Backend::Virgl) => {
            let mut program = program.clone();
            program.venus = option.venus;
            let limits = option.gpu_config().map_err(DeviceError::Gpu)?;
            program.max_request = limits.limits().max_command_bytes();
            let renderer = RemoteRenderer::new(program, wake(wakeup, requests));
            let renderer = renderer.map_err(DeviceError::RendererProcess)?;
            with_channels(Box::new(renderer), option, wakeup, requests)
        }
        _ => new_renderer(option, wakeup, requests),
    }
}

/// Adds the way to the host's compositor, if there is to be one. It has no C library, and needs the files and the memory
/// that are here; so it is here also where the renderer has a process of its own.
fn with_channels<F: Frontend>(
    renderer: Box<dyn Renderer>,
    option: &GpuOption,
    wakeup: &Arc<Wakeup>,
    requests: &Arc<Requests<F>>,
) -> Result<Box<dyn Renderer>, DeviceError> {
    let Some(wayland) = option.wayland.clone() else {
        return Ok(renderer);
    };
    let limits = *option.gpu_config().map_err(DeviceError::Gpu)?.limits();
    let config = CrossDomainConfig { wayland, limits };
    let renderer = CrossDomainRenderer::new(renderer, &config, wake(wakeup, requests));
    Ok(Box::new(renderer.map_err(DeviceError::Wayland)?))
}

/// What a renderer's threads call.
fn wake<F: Frontend>(
    wakeup: &Arc<Wakeup>,
    requests: &Arc<Requests<F>>,
) -> impl Fn() + Send + Sync + 'static {
    let (wakeup, requests) = (wakeup.clone(), Arc::downgrade(requests));
    move || {
        if let Some(requests) = requests.upgrade() {
            wakeup.wake(&requests);
        }
    }
}
