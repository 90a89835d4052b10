// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Unix sockets that other programs connect to.

use std::fs;
use std::io::{Error as IoError, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
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

/// The file of a socket that this process made. Whoever made it removes it, and nothing that took its place since.
#[derive(Clone, Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn made_at(path: &Path) -> Result<Self, SocketError> {
        let made = fs::symlink_metadata(path).map_err(|source| at(path, source))?;
        Ok(Self {
            path: path.into(),
            device: made.dev(),
            inode: made.ino(),
        })
    }

    /// Removes it, if it is still there. Returns whether it did.
    pub fn remove(&self) -> bool {
        let found = fs::symlink_metadata(&self.path);
        found.is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode))
            && fs::remove_file(&self.path).is_ok()
    }
}

/// Listens on `path`. A socket that a dead process left behind is replaced.
///
/// # Errors
/// A [`SocketError`] names the path and the reason.
pub fn listen(path: &Path) -> Result<(UnixListener, SocketFile), SocketError> {
    let listens = UnixStream::connect(path);
    if !listens.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        && fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_socket())
    {
        return Err(SocketError::InUse { path: path.into() });
    }
    take_over(path)
}

/// Listens on `path` in place of whoever does: a VM that was migrated within a host comes while the one that it was
/// still listens.
///
/// # Errors
/// A [`SocketError`] names the path and the reason.
pub fn take_over(path: &Path) -> Result<(UnixListener, SocketFile), SocketError> {
    if let Ok(there) = fs::symlink_metadata(path) {
        if !there.file_type().is_socket() {
            return Err(SocketError::NotASocket { path: path.into() });
        }
        fs::remove_file(path).map_err(|source| at(path, source))?;
    }
    let listener = UnixListener::bind(path).map_err(|source| at(path, source))?;
    Ok((listener, SocketFile::made_at(path)?))
}

fn at(path: &Path, source: IoError) -> SocketError {
    SocketError::Listen {
        path: path.into(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn a_socket_is_removed_by_who_made_it() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("socket");
        let (_listener, file) = listen(&path).unwrap();
        assert!(file.remove());
        assert!(!path.exists());
        assert!(!file.remove());
    }

    /// A migration within a host: the socket of the VM that came outlives the VM that left.
    #[test]
    fn a_socket_that_was_taken_over_is_not_removed_by_who_had_it() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("socket");
        let (old, of_old) = listen(&path).unwrap();
        assert!(matches!(listen(&path), Err(SocketError::InUse { .. })));
        let (new, of_new) = take_over(&path).unwrap();
        assert!(!of_old.remove());
        drop(old);
        UnixStream::connect(&path).unwrap();
        drop(new);
        assert!(of_new.remove());
    }

    #[test]
    fn nothing_but_a_socket_is_taken_over() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "precious").unwrap();
        for open in [listen, take_over] {
            let error = open(&path).unwrap_err();
            assert!(matches!(error, SocketError::NotASocket { .. }));
        }
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
