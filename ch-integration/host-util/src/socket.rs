// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Unix sockets that other programs connect to.

use std::fs;
use std::io::{Error as IoError, ErrorKind};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A socket that cannot be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SocketError {
    /// Somebody listens there.
    #[error("Socket '{}' is in use by another process", path.display())]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// Something that is no socket lies there.
    #[error("'{}' exists and is not a socket", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The system refused.
    #[error("Cannot listen on '{}'", path.display())]
    Listen {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: IoError,
    },
}

/// Listens on `path`. A socket that a dead process left behind is replaced.
///
/// # Errors
/// A [`SocketError`] names the path and the reason.
pub fn listen(path: &Path) -> Result<UnixListener, SocketError> {
    if let Ok(metadata) = fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            return Err(SocketError::NotASocket { path: path.into() });
        }
        match UnixStream::connect(path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(|source| at(path, source))?;
            }
            _ => return Err(SocketError::InUse { path: path.into() }),
        }
    }
    UnixListener::bind(path).map_err(|source| at(path, source))
}

fn at(path: &Path, source: IoError) -> SocketError {
    SocketError::Listen {
        path: path.into(),
        source,
    }
}
