// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The GPU that an option asks for.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use thiserror::Error;
use virtio_gpu_cross_domain::{CrossDomainConfig, CrossDomainRenderer, CrossDomainStartError};
#[cfg(feature = "virgl")]
use virtio_gpu_renderer_process::{RemoteRenderer, StartProcessError};
#[cfg(feature = "virgl")]
use virtio_gpu_rutabaga::{RutabagaConfig, RutabagaRenderer, StartError};
use virtio_gpu_s3::{ConfigError, Gpu, GpuConfig, NullRenderer, Renderer};
use virtio_pci_freeze::spec::feature;

use crate::frontend::Frontend;
use crate::handle::WorkerLink;
use crate::options::{Backend, GpuOption, RendererPlace};

/// A GPU that cannot be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Its configuration.
    #[error("Cannot make this GPU")]
    Gpu(#[source] ConfigError),
    /// The renderer.
    #[cfg(feature = "virgl")]
    #[error("Cannot start the renderer")]
    Renderer(#[source] StartError),
    /// The host's compositor.
    #[error("Cannot reach the host's compositor")]
    Wayland(#[source] CrossDomainStartError),
    /// The renderer's process.
    #[cfg(feature = "virgl")]
    #[error("Cannot start the renderer")]
    RendererProcess(#[source] StartProcessError),
}

/// What the worker can do with rings, as a mask of features.
pub const RING_FEATURES: u64 =
    feature::mask(feature::VIRTIO_F_INDIRECT_DESC) | feature::mask(feature::VIRTIO_F_EVENT_IDX);

/// The configuration, with UUIDs of its own.
///
/// # Errors
/// It asks for what no GPU has.
pub fn new_config(option: &GpuOption) -> Result<GpuConfig, BuildError> {
    let config = option.gpu_config().map_err(BuildError::Gpu)?;
    Ok(config.with_uuid_namespace(random()))
}

/// A GPU as after power-on, and the longest request it needs to see, in bytes.
///
/// # Errors
/// The option asks for what no GPU has.
pub fn build_gpu(
    option: &GpuOption,
    renderer: Box<dyn Renderer>,
) -> Result<(Gpu, usize), BuildError> {
    let config = new_config(option)?;
    let max_request = config.limits().max_command_bytes();
    let gpu = Gpu::new(config, renderer).map_err(BuildError::Gpu)?;
    Ok((gpu, max_request))
}

/// Sets this GPU's UUIDs apart from those of another; nothing secret depends on it.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// A renderer for the thread that calls this, which is the one that the GPU lives on.
///
/// # Errors
/// What it needs of the host is missing.
pub fn new_renderer<F: Frontend>(
    option: &GpuOption,
    link: &WorkerLink<F>,
) -> Result<Box<dyn Renderer>, BuildError> {
    let renderer: Box<dyn Renderer> = match option.backend {
        Backend::TwoD => Box::new(NullRenderer),
        #[cfg(feature = "virgl")]
        Backend::Virgl => {
            let config = RutabagaConfig {
                venus: option.venus,
                ..RutabagaConfig::default()
            };
            let renderer = RutabagaRenderer::on_this_thread(&config, wake(link));
            let mut renderer = renderer.map_err(BuildError::Renderer)?;
            renderer.watch().map_err(BuildError::Renderer)?;
            Box::new(renderer)
        }
    };
    with_channels(renderer, option, link)
}

/// A renderer where `place` says; what has no C library has no place.
///
/// # Errors
/// What it needs of the host is missing.
pub fn new_renderer_in<F: Frontend>(
    place: &RendererPlace,
    option: &GpuOption,
    link: &WorkerLink<F>,
) -> Result<Box<dyn Renderer>, BuildError> {
    match (place, option.backend) {
        #[cfg(feature = "virgl")]
        (RendererPlace::Process(program), Backend::Virgl) => {
            let mut program = program.clone();
            program.venus = option.venus;
            let limits = option.gpu_config().map_err(BuildError::Gpu)?;
            program.max_request = limits.limits().max_command_bytes();
            let renderer = RemoteRenderer::new(program, wake(link));
            let renderer = renderer.map_err(BuildError::RendererProcess)?;
            let breaker = renderer.breaker();
            link.break_with(move |why| breaker.end(why));
            with_channels(Box::new(renderer), option, link)
        }
        _ => new_renderer(option, link),
    }
}

/// Adds the way to the host's compositor, if there is to be one. It has no C library, and needs the files and the memory
/// that are here; so it is here also where the renderer has a process of its own.
fn with_channels<F: Frontend>(
    renderer: Box<dyn Renderer>,
    option: &GpuOption,
    link: &WorkerLink<F>,
) -> Result<Box<dyn Renderer>, BuildError> {
    let Some(wayland) = option.wayland.clone() else {
        return Ok(renderer);
    };
    let limits = *option.gpu_config().map_err(BuildError::Gpu)?.limits();
    let config = CrossDomainConfig { wayland, limits };
    let renderer = CrossDomainRenderer::new(renderer, &config, wake(link));
    Ok(Box::new(renderer.map_err(BuildError::Wayland)?))
}

/// What a renderer's threads call.
fn wake<F: Frontend>(link: &WorkerLink<F>) -> impl Fn() + Send + Sync + 'static {
    let link = link.clone();
    move || link.wake()
}
