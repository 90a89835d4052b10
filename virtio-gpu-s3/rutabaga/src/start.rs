// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How to render, and what may be missing for it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use thiserror::Error;

/// The renderer cannot be started: the host's or the caller's mistake.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StartError {
    /// virglrenderer can be initialised once in a process.
    #[error("This process has or had a virgl renderer, and can have no other")]
    AlreadyStarted,
    /// A library that is loaded by name is not installed.
    #[error("The library {name} cannot be loaded; is it installed?")]
    NoLibrary {
        /// Its file name.
        name: String,
    },
    /// rutabaga refused.
    #[error("rutabaga cannot be built: {why}")]
    Build {
        /// What it said.
        why: String,
    },
    /// virglrenderer could not be initialised; its log says why.
    #[error("virglrenderer cannot be initialised; are EGL and a Mesa driver installed?")]
    NotVirgl,
    /// virglrenderer was initialised, but without venus.
    #[error("virglrenderer has no venus; is its render server installed?")]
    NotVenus,
    /// The host has no thread or pipe left.
    #[error("The renderer's threads cannot be started: {why}")]
    Thread {
        /// What the host said.
        why: String,
    },
}

/// How to render.
#[derive(Clone, Debug, Default)]
pub struct RutabagaConfig {
    /// With OpenGL ES instead of desktop OpenGL, which not every driver has. OpenGL ES writes
    /// textures faster but cannot read all of them back.
    pub gles: bool,
    /// Venus, Vulkan's protocol, beside virgl: it needs a Vulkan driver and virglrenderer's render
    /// server (Debian's virgl-server), which it runs a process of for each context.
    pub venus: bool,
    /// A connection to a render server that somebody else started: a socket of messages (SOCK_SEQPACKET) whose other end
    /// it was given with `--socket-fd`.
    pub render_server: Option<Arc<OwnedFd>>,
}
