// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What can fail in a client that draws.

use std::{io, result};

/// Of this program's functions.
pub(crate) type Result<T> = result::Result<T, Error>;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A library of the guest could not be used.
    #[error("load: {0}")]
    Library(#[from] libloading::Error),
    /// The guest's EGL is older than 1.5.
    #[error("load EGL: {0}")]
    LoadEgl(String),
    /// EGL refused.
    #[error("EGL: {what}: {source}")]
    Egl {
        what: &'static str,
        source: khronos_egl::Error,
    },
    /// EGL had nothing to give.
    #[error("EGL gave no {0}")]
    NoEgl(&'static str),
    /// libgbm refused.
    #[error("GBM gave not {0}")]
    Gbm(&'static str),
    /// KMS refused.
    #[error("KMS: {what}: {source}")]
    Kms {
        what: &'static str,
        source: io::Error,
    },
    /// There is nothing to show a picture on.
    #[error("card0 has no {0}")]
    NoOutput(&'static str),
    /// OpenGL could not make an object.
    #[error("OpenGL: {what}: {why}")]
    Gl { what: &'static str, why: String },
    /// OpenGL had nothing to give.
    #[error("OpenGL gave no {0}")]
    NoGl(&'static str),
    /// OpenGL reported an error.
    #[error("OpenGL: error {code:#06x} in {what}")]
    GlCode { what: &'static str, code: u32 },
    /// A reply that is no JSON.
    #[error("reply: {0}")]
    Reply(#[from] serde_json::Error),
}

impl Error {
    pub(crate) fn kms(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Kms { what, source }
    }

    pub(crate) fn egl(what: &'static str) -> impl FnOnce(khronos_egl::Error) -> Self {
        move |source| Self::Egl { what, source }
    }

    pub(crate) fn gl(what: &'static str) -> impl FnOnce(String) -> Self {
        move |why| Self::Gl { what, why }
    }
}
