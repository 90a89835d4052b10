// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory that both processes see, for what is too long for a message: pixels, streams, lists of backings.
#![expect(
    unsafe_code,
    reason = "the renderer reads and writes slices, and the other process's memory is none by itself"
)]

use std::fs::File;
use std::io::Error as IoError;
use std::os::fd::OwnedFd;
use std::slice;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use thiserror::Error;
use vm_memory::mmap::MmapRegionError;
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory};

/// Holds a frame of 2560 × 1600 pixels; larger ones go in bands. The host commits it page by page.
pub(super) const SCRATCH_BYTES: usize = 16 << 20;

/// The memory cannot be had.
#[derive(Debug, Error)]
pub(super) enum ScratchError {
    /// No file for it.
    #[error("cannot make shared memory: {0}")]
    File(#[from] IoError),
    /// No address for it.
    #[error("cannot map shared memory: {0}")]
    Map(#[from] MmapRegionError),
}

/// A range outside the scratch memory: the other process's mistake.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{length} bytes are not in the scratch memory")]
pub(super) struct OutsideScratch {
    /// Bytes asked for.
    pub(super) length: usize,
}

/// The memory, mapped here.
#[derive(Debug)]
pub(super) struct Scratch {
    region: MmapRegion<()>,
}

impl Scratch {
    /// Sealed: the renderer's process cannot cut it short and so have this one killed (SIGBUS).
    pub(super) fn new() -> Result<(Self, OwnedFd), ScratchError> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = memfd_create("renderer-scratch", flags).map_err(IoError::from)?;
        ftruncate(&fd, SCRATCH_BYTES as u64).map_err(IoError::from)?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        fcntl_add_seals(&fd, seals).map_err(IoError::from)?;
        let theirs = fd.try_clone()?;
        Ok((Self::map(fd)?, theirs))
    }

    pub(super) fn map(fd: OwnedFd) -> Result<Self, ScratchError> {
        let file = FileOffset::new(File::from(fd), 0);
        let region = MmapRegion::from_file(file, SCRATCH_BYTES)?;
        Ok(Self { region })
    }

    /// Copies in.
    pub(super) fn put(&self, offset: usize, bytes: &[u8]) -> Result<(), OutsideScratch> {
        let length = bytes.len();
        let slice = self.region.get_slice(offset, length);
        let written = slice.map(|slice| slice.write_slice(bytes, 0));
        match written {
            Ok(Ok(())) => Ok(()),
            _ => Err(OutsideScratch { length }),
        }
    }

    /// Copies out.
    pub(super) fn take(&self, offset: usize, bytes: &mut [u8]) -> Result<(), OutsideScratch> {
        let length = bytes.len();
        let slice = self.region.get_slice(offset, length);
        let read = slice.map(|slice| slice.read_slice(bytes, 0));
        match read {
            Ok(Ok(())) => Ok(()),
            _ => Err(OutsideScratch { length }),
        }
    }

    /// The first bytes, for the renderer's process while it answers a call.
    pub(super) fn bytes(&mut self, length: usize) -> Result<&mut [u8], OutsideScratch> {
        if length > SCRATCH_BYTES {
            return Err(OutsideScratch { length });
        }
        // SAFETY: the region maps SCRATCH_BYTES bytes for as long as it lives, and is borrowed for as long as the
        // slice does. The process on the other side waits for this one's answer meanwhile, and touches nothing.
        Ok(unsafe { slice::from_raw_parts_mut(self.region.as_ptr(), length) })
    }
}
