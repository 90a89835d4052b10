// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory that both processes see: the [`Line`], and before it room for what is too long for a message, which is pixels,
//! streams and lists of backings.
#![expect(
    unsafe_code,
    reason = "the renderer reads and writes slices, and the other process's memory is none by itself"
)]

use std::fs::File;
use std::io::Error as IoError;
use std::os::fd::OwnedFd;
use std::slice;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use thiserror::Error;
use vm_memory::mmap::MmapRegionError;
use vm_memory::{FileOffset, MmapRegion, VolatileMemory, VolatileSlice};

use super::line::{LINE_BYTES, Line};
use super::protocol::Range;
use host_util::memory_file::is_too_short;

/// The least that there is: it holds a frame of 2560 × 1600 pixels, and larger ones go in bands. The host commits it page
/// by page, so that there may be more for a long stream costs nothing.
pub(super) const LEAST_SCRATCH_BYTES: usize = 16 << 20;
/// The line's words are aligned.
const PAGE: usize = 4096;

/// The memory cannot be had.
#[derive(Debug, Error)]
pub(super) enum ScratchError {
    /// No file for it.
    #[error("cannot make shared memory: {0}")]
    File(#[from] IoError),
    /// No address for it.
    #[error("cannot map shared memory: {0}")]
    Map(#[from] MmapRegionError),
    /// It cannot be that long.
    #[error(transparent)]
    Length(#[from] OutsideScratch),
}

/// A range outside the scratch memory.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{length} bytes are not in the scratch memory")]
pub(super) struct OutsideScratch {
    /// Bytes asked for.
    pub(super) length: usize,
}

/// The memory, mapped here.
#[derive(Debug)]
pub(super) struct Scratch {
    region: Arc<MmapRegion<()>>,
    length: usize,
}

impl Scratch {
    /// So many bytes. Sealed: the renderer's process cannot cut it short and so have this one killed (SIGBUS).
    pub(super) fn new(length: usize) -> Result<(Self, OwnedFd), ScratchError> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = memfd_create("renderer-scratch", flags).map_err(IoError::from)?;
        let length = length
            .max(LEAST_SCRATCH_BYTES)
            .checked_next_multiple_of(PAGE)
            .ok_or(OutsideScratch { length })?;
        let all = length.saturating_add(LINE_BYTES);
        ftruncate(&fd, all as u64).map_err(IoError::from)?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        fcntl_add_seals(&fd, seals).map_err(IoError::from)?;
        let theirs = fd.try_clone()?;
        Ok((Self::map(fd, length)?, theirs))
    }

    /// That of the other process.
    pub(super) fn map(fd: OwnedFd, length: usize) -> Result<Self, ScratchError> {
        let all = length.checked_add(LINE_BYTES);
        let all = all.filter(|_| length.is_multiple_of(PAGE));
        let all = all.ok_or(OutsideScratch { length })?;
        let file = File::from(fd);
        if is_too_short(&file, 0, all as u64) {
            return Err(OutsideScratch { length }.into());
        }
        let region = MmapRegion::from_file(FileOffset::new(file, 0), all)?;
        let region = Arc::new(region);
        Ok(Self { region, length })
    }

    /// Bytes without those of the line.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    pub(super) fn line(&self) -> Line {
        Line::new(self.region.clone(), self.length)
    }

    /// A range, to copy to and from.
    pub(super) fn slice(&self, range: Range) -> Result<VolatileSlice<'_, ()>, OutsideScratch> {
        let (at, length) = self.inside(range)?;
        let slice = self.region.get_slice(at, length);
        slice.map_err(|_| OutsideScratch { length })
    }

    /// A range, for the renderer's process while it answers the call that has it.
    pub(super) fn bytes(&mut self, range: Range) -> Result<&mut [u8], OutsideScratch> {
        let (at, length) = self.inside(range)?;
        let start = self.region.as_ptr().wrapping_add(at);
        // SAFETY: the region maps that range for as long as it lives, and is borrowed for as long as the slice does; the
        // line lies behind it. The process on the other side leaves a range alone until the call that has it is answered.
        Ok(unsafe { slice::from_raw_parts_mut(start, length) })
    }

    fn inside(&self, range: Range) -> Result<(usize, usize), OutsideScratch> {
        let (at, length) = (usize::try_from(range.at), usize::try_from(range.length));
        let (Ok(at), Ok(length)) = (at, length) else {
            let length = usize::MAX;
            return Err(OutsideScratch { length });
        };
        match at.checked_add(length) {
            Some(end) if end <= self.length => Ok((at, length)),
            _ => Err(OutsideScratch { length }),
        }
    }
}
