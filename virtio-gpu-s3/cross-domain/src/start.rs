// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is needed of the host.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::net::SocketAddrUnix;
use thiserror::Error;

use virtio_gpu_s3::Limits;

/// What a guest may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrossDomainConfig {
    /// Socket of the host's Wayland compositor.
    pub wayland: PathBuf,
    /// Those of channels.
    pub limits: Limits,
}

/// The way to the compositor cannot be had: the caller's or the host's mistake.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CrossDomainStartError {
    /// Nothing is there, or it cannot be looked at.
    #[error("The Wayland socket {path} cannot be found: {why}")]
    Missing {
        /// The path.
        path: PathBuf,
        /// What the host said.
        why: String,
    },
    /// Something else is there.
    #[error("{path} is not a socket, so no Wayland compositor listens there")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// Addresses of sockets have 107 bytes.
    #[error("The path {path} is too long for a socket")]
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// The host has no thread or pipe left.
    #[error("The thread that waits for the compositor cannot be started: {why}")]
    Thread {
        /// What the host said.
        why: String,
    },
}

/// That a compositor may listen there. It need not now: each channel connects anew.
pub(super) fn check_socket(path: &Path) -> Result<(), CrossDomainStartError> {
    let path = path.to_owned();
    match fs::metadata(&path) {
        Err(error) => {
            let why = error.to_string();
            Err(CrossDomainStartError::Missing { path, why })
        }
        Ok(of) if !of.file_type().is_socket() => Err(CrossDomainStartError::NotASocket { path }),
        Ok(_) if SocketAddrUnix::new(&path).is_err() => {
            Err(CrossDomainStartError::TooLong { path })
        }
        Ok(_) => Ok(()),
    }
}
