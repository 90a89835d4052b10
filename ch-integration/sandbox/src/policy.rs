// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! All of a sandbox.

use std::io::Error as IoError;

use thiserror::Error;

use crate::calls::{self, Call, CallError};
use crate::files::{self, FileError, Reach};
use crate::limits;
use crate::mode::{Missing, Mode};
use crate::violation;

/// What a process needs from now on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Its system calls. The last one of a number counts.
    pub calls: Vec<Call>,
    /// Its files, beside those that it has open.
    pub reach: Vec<Reach>,
}

/// A sandbox that cannot be entered, which is its policy's fault.
#[derive(Debug, Error)]
pub enum EnterError {
    /// Of its files.
    #[error(transparent)]
    Files(#[from] FileError),
    /// Of its calls.
    #[error(transparent)]
    Calls(#[from] CallError),
    /// No handler for the signal that ends it.
    #[error("Cannot handle SIGSYS")]
    Signal(#[source] IoError),
}

impl Policy {
    /// Gives up everything else, for good. The process must have one thread; those that it makes are behind the same
    /// walls. Nothing is given up with [`Mode::Off`].
    ///
    /// Returns what this host does not have.
    ///
    /// # Errors
    /// The policy is none that the kernel takes.
    pub fn enter(&self, mode: Mode) -> Result<Vec<Missing>, EnterError> {
        if mode == Mode::Off {
            return Ok(Vec::new());
        }
        let mut missing = limits::limit();
        missing.extend(limits::drop_privileges());
        if mode == Mode::On {
            missing.extend(files::restrict(&self.reach)?);
            violation::tell().map_err(EnterError::Signal)?;
        }
        missing.extend(calls::restrict(&self.calls, mode)?);
        Ok(missing)
    }
}
