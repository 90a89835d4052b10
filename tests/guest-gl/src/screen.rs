// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! OpenGL ES on a whole screen, as a display server has it: EGL on GBM, frames shown by page flips.
#![expect(unsafe_code, reason = "EGL trusts native handles")]

use std::ffi::c_void;
use std::os::fd::AsFd;
use std::ptr;
use std::rc::Rc;

use drm::buffer::DrmFourcc;
use drm::control::{Device, Event, PageFlipFlags, framebuffer};
use glow::Context;
use guest_agent::card::{Card, Output};
use khronos_egl::{self as egl, DynamicInstance, EGL1_5};

use crate::error::{Error, Result};
use crate::gbm::{FrontBuffer, Surface};

const EGL: &str = "libEGL.so.1";
/// EGL_PLATFORM_GBM_KHR
const PLATFORM_GBM: egl::Enum = 0x31d7;

/// A buffer as KMS knows it.
#[derive(Debug)]
struct Shown {
    framebuffer: framebuffer::Handle,
    buffer: FrontBuffer,
}

/// An output with a context that draws to it.
#[derive(Debug)]
pub(crate) struct Screen {
    output: Output,
    shown: Option<Shown>,
    egl: DynamicInstance<EGL1_5>,
    display: egl::Display,
    window: egl::Surface,
    surface: Surface,
    card: Card,
    size: (u16, u16),
}

impl Screen {
    /// Takes the first connected output. The context given is current on this thread.
    pub(crate) fn open() -> Result<(Self, Rc<Context>)> {
        let card = Card::open().map_err(Error::kms("open"))?;
        let output = card.output().map_err(Error::kms("find an output"))?;
        let output = output.ok_or(Error::NoOutput("connected output"))?;
        let size = output.mode.size();
        let surface = Surface::new(card.as_fd(), (size.0.into(), size.1.into()))?;
        // SAFETY: the library is the guest's libglvnd; its initialisers have no requirements.
        let egl = unsafe { DynamicInstance::<EGL1_5>::load_required_from_filename(EGL) };
        let egl = egl.map_err(|error| Error::LoadEgl(error.to_string()))?;
        // SAFETY: the device is one of GBM and outlives the display.
        let display = unsafe {
            egl.get_platform_display(PLATFORM_GBM, surface.device(), &[egl::ATTRIB_NONE])
        };
        let display = display.map_err(Error::egl("get a display"))?;
        egl.initialize(display).map_err(Error::egl("initialize"))?;
        let config = choose_config(&egl, display)?;
        // SAFETY: the window is one of the display's device and outlives the surface.
        let window = unsafe {
            let attributes = [egl::ATTRIB_NONE];
            egl.create_platform_window_surface(display, config, surface.window(), &attributes)
        };
        let window = window.map_err(Error::egl("make a window"))?;
        make_current(&egl, display, config, window)?;
        // SAFETY: a context is current, and the functions are asked of its EGL.
        let gl = unsafe {
            Context::from_loader_function(|name| {
                egl.get_proc_address(name)
                    .map_or(ptr::null(), |function| function as *const c_void)
            })
        };
        let screen = Self {
            output,
            shown: None,
            egl,
            display,
            window,
            surface,
            card,
            size,
        };
        Ok((screen, Rc::new(gl)))
    }

    /// In pixels.
    pub(crate) fn size(&self) -> (u16, u16) {
        self.size
    }

    /// Shows what was drawn, and waits until it is shown.
    pub(crate) fn show(&mut self) -> Result<()> {
        self.egl
            .swap_buffers(self.display, self.window)
            .map_err(Error::egl("swap buffers"))?;
        let buffer = self.surface.lock_front()?;
        let framebuffer = self
            .card
            .add_framebuffer(&buffer, 24, 32)
            .map_err(Error::kms("add a framebuffer"))?;
        let next = Shown {
            framebuffer,
            buffer,
        };
        match self.shown.take() {
            None => self.set_mode(&next)?,
            Some(last) => {
                self.flip(&next)?;
                self.card
                    .destroy_framebuffer(last.framebuffer)
                    .map_err(Error::kms("remove a framebuffer"))?;
                self.surface.release(&last.buffer);
            }
        }
        self.shown = Some(next);
        Ok(())
    }

    fn set_mode(&self, first: &Shown) -> Result<()> {
        let Output {
            connector,
            crtc,
            mode,
        } = self.output;
        self.card
            .set_crtc(
                crtc,
                Some(first.framebuffer),
                (0, 0),
                &[connector],
                Some(mode),
            )
            .map_err(Error::kms("set a mode"))
    }

    fn flip(&self, next: &Shown) -> Result<()> {
        self.card
            .page_flip(
                self.output.crtc,
                next.framebuffer,
                PageFlipFlags::EVENT,
                None,
            )
            .map_err(Error::kms("flip"))?;
        loop {
            let mut events = self
                .card
                .receive_events()
                .map_err(Error::kms("wait for a flip"))?;
            if events.any(|event| matches!(event, Event::PageFlip(_))) {
                return Ok(());
            }
        }
    }
}

/// A configuration whose pixels are those of the buffers.
fn choose_config(egl: &DynamicInstance<EGL1_5>, display: egl::Display) -> Result<egl::Config> {
    let wanted = [
        egl::SURFACE_TYPE,
        egl::WINDOW_BIT,
        egl::RENDERABLE_TYPE,
        egl::OPENGL_ES3_BIT,
        egl::RED_SIZE,
        8,
        egl::DEPTH_SIZE,
        24,
        egl::SAMPLES,
        0,
        egl::NONE,
    ];
    let mut configs = Vec::with_capacity(256);
    egl.choose_config(display, &wanted, &mut configs)
        .map_err(Error::egl("choose a configuration"))?;
    let pixels = DrmFourcc::Xrgb8888 as u32;
    let fits = |config: &egl::Config| {
        egl.get_config_attrib(display, *config, egl::NATIVE_VISUAL_ID)
            .is_ok_and(|visual| u32::try_from(visual) == Ok(pixels))
    };
    configs
        .into_iter()
        .find(fits)
        .ok_or(Error::NoEgl("configuration for XRGB8888"))
}

fn make_current(
    egl: &DynamicInstance<EGL1_5>,
    display: egl::Display,
    config: egl::Config,
    window: egl::Surface,
) -> Result<()> {
    egl.bind_api(egl::OPENGL_ES_API)
        .map_err(Error::egl("bind OpenGL ES"))?;
    let version = [
        egl::CONTEXT_MAJOR_VERSION,
        3,
        egl::CONTEXT_MINOR_VERSION,
        0,
        egl::NONE,
    ];
    let context = egl
        .create_context(display, config, None, &version)
        .map_err(Error::egl("make a context"))?;
    egl.make_current(display, Some(window), Some(window), Some(context))
        .map_err(Error::egl("make a context current"))
}
