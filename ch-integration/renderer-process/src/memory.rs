// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guest memory in the renderer's process.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;

use virtio_gpu_s3::renderer::{GuestPages, MappedRegion, RegionPiece};
use virtio_gpu_s3::{GuestError, RendererError};
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory, VolatileSlice};

use super::protocol::Piece;
use host_util::memory_file::is_too_short;

const EINVAL: i32 = 22;

/// The regions that are mapped here.
#[derive(Debug, Default)]
pub(super) struct Memory {
    regions: BTreeMap<u32, MmapRegion<()>>,
}

fn refused<T>(what: &'static str) -> Result<T, RendererError> {
    Err(RendererError::refused(what, EINVAL))
}

impl Memory {
    pub(super) fn map(
        &mut self,
        region: u32,
        file: OwnedFd,
        offset: u64,
        size: u64,
    ) -> Result<(), RendererError> {
        if self.regions.contains_key(&region) {
            return refused("a region that is mapped");
        }
        let out_of_memory = RendererError::OutOfMemory { bytes: size };
        let length = usize::try_from(size).map_err(|_| out_of_memory)?;
        let file = File::from(file);
        if is_too_short(&file, offset, size) {
            return refused("a region longer than its file");
        }
        let file = FileOffset::new(file, offset);
        match MmapRegion::from_file(file, length) {
            Ok(mapped) => {
                self.regions.insert(region, mapped);
                Ok(())
            }
            Err(_) => refused("a region that cannot be mapped"),
        }
    }

    pub(super) fn unmap(&mut self, region: u32) -> Result<(), RendererError> {
        match self.regions.remove(&region) {
            Some(_) => Ok(()),
            None => refused("a region that is not mapped"),
        }
    }

    /// The pieces as memory, if every one of them is.
    pub(super) fn pages<'a>(&'a self, pieces: &'a [Piece]) -> Result<Pages<'a>, RendererError> {
        let pages = Pages {
            memory: self,
            pieces,
        };
        match pieces.iter().all(|piece| pages.slice(piece).is_ok()) {
            true => Ok(pages),
            false => refused("guest memory outside its region"),
        }
    }
}

/// A resource's guest memory.
#[derive(Debug)]
pub(super) struct Pages<'a> {
    memory: &'a Memory,
    pieces: &'a [Piece],
}

impl Pages<'_> {
    fn slice(&self, piece: &Piece) -> Result<VolatileSlice<'_>, GuestError> {
        let no_memory = || GuestError::Memory {
            address: piece.offset,
            length: piece.length,
        };
        let region = self.memory.regions.get(&piece.region);
        let range = usize::try_from(piece.offset)
            .ok()
            .zip(usize::try_from(piece.length).ok());
        let (region, (offset, length)) = region.zip(range).ok_or_else(no_memory)?;
        let slice = region.get_slice(offset, length);
        slice.map_err(|_| no_memory())
    }

    /// Calls `copy` for each stretch of memory under the range.
    fn each(
        &self,
        offset: u64,
        length: usize,
        mut copy: impl FnMut(VolatileSlice<'_>, usize) -> Result<(), GuestError>,
    ) -> Result<(), GuestError> {
        let (mut skip, mut done) = (offset, 0_usize);
        for piece in self.pieces {
            if skip >= piece.length {
                skip -= piece.length;
                continue;
            }
            let here = (piece.length - skip).min((length - done) as u64);
            let part = Piece {
                offset: piece.offset.saturating_add(skip),
                length: here,
                ..*piece
            };
            copy(self.slice(&part)?, done)?;
            done += usize::try_from(here).unwrap_or(usize::MAX);
            skip = 0;
            if done == length {
                return Ok(());
            }
        }
        Err(GuestError::Memory {
            address: offset,
            length: length as u64,
        })
    }
}

impl GuestPages for Pages<'_> {
    fn len(&self) -> u64 {
        let lengths = self.pieces.iter().map(|piece| piece.length);
        lengths.fold(0, u64::saturating_add)
    }

    fn read(&self, offset: u64, target: &mut [u8]) -> Result<(), GuestError> {
        self.each(offset, target.len(), |slice, done| {
            let end = done + slice.len();
            drop(slice.read_slice(&mut target[done..end], 0));
            Ok(())
        })
    }

    fn write(&self, offset: u64, source: &[u8]) -> Result<(), GuestError> {
        self.each(offset, source.len(), |slice, done| {
            let end = done + slice.len();
            drop(slice.write_slice(&source[done..end], 0));
            Ok(())
        })
    }

    fn host_ranges(&self) -> Result<Vec<(usize, usize)>, GuestError> {
        let ranges = self.pieces.iter().map(|piece| {
            let slice = self.slice(piece)?;
            Ok((
                slice.ptr_guard_mut().as_ptr().expose_provenance(),
                slice.len(),
            ))
        });
        ranges.collect()
    }

    fn region_pieces(&self) -> Result<(Vec<MappedRegion>, Vec<RegionPiece>), GuestError> {
        // It goes to no third process.
        Err(GuestError::Memory {
            address: 0,
            length: self.len(),
        })
    }
}
