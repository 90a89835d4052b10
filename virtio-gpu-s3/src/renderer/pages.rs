// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A backing and the memory it lies in, as a renderer sees them.

use std::collections::BTreeMap;

use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryRegion};

use super::{GuestPages, MappedRegion, RegionPiece};
use crate::backing::{Backing, Rows};
use crate::error::GuestError;
use vm_memory::GuestMemoryBackend;

pub(crate) struct Pages<'a, M: ?Sized> {
    pub(crate) backing: &'a Backing,
    pub(crate) memory: &'a M,
}

impl<M: GuestMemoryBackend + ?Sized> GuestPages for Pages<'_, M> {
    fn len(&self) -> u64 {
        self.backing.len()
    }

    fn read(&self, offset: u64, target: &mut [u8]) -> Result<(), GuestError> {
        let rows = Rows {
            offset,
            stride: target.len() as u64,
            len: target.len(),
            count: 1,
        };
        let stride = target.len();
        self.backing.read_rows(self.memory, rows, target, stride)
    }

    fn write(&self, offset: u64, source: &[u8]) -> Result<(), GuestError> {
        let mut rest = source;
        for (address, length) in self.backing.pieces(offset, source.len() as u64)? {
            let split = usize::try_from(length)
                .ok()
                .and_then(|length| rest.split_at_checked(length));
            let no_memory = GuestError::Memory { address, length };
            let (head, tail) = split.ok_or_else(|| no_memory.clone())?;
            self.memory
                .write_slice(head, GuestAddress(address))
                .map_err(|_| no_memory)?;
            rest = tail;
        }
        Ok(())
    }

    fn host_ranges(&self) -> Result<Vec<(usize, usize)>, GuestError> {
        let mut ranges = Vec::new();
        for (address, length) in self.backing.pieces(0, self.backing.len())? {
            let no_memory = GuestError::Memory { address, length };
            let count = usize::try_from(length).map_err(|_| no_memory.clone())?;
            for slice in GuestMemoryBackend::get_slices(self.memory, GuestAddress(address), count) {
                let slice = slice.map_err(|_| no_memory.clone())?;
                ranges.push((slice.ptr_guard_mut().as_ptr().addr(), slice.len()));
            }
        }
        Ok(ranges)
    }

    fn region_pieces(&self) -> Result<(Vec<MappedRegion>, Vec<RegionPiece>), GuestError> {
        let mut known = BTreeMap::new();
        let mut regions = Vec::new();
        let mut pieces: Vec<RegionPiece> = Vec::new();
        for (address, length) in self.backing.pieces(0, self.backing.len())? {
            let no_memory = GuestError::Memory { address, length };
            let (mut at, mut left) = (GuestAddress(address), length);
            while left > 0 {
                let found = self.memory.to_region_addr(at);
                let (region, offset) = found.ok_or_else(|| no_memory.clone())?;
                let index = *known.entry(region.start_addr()).or_insert_with(|| {
                    regions.push(MappedRegion {
                        file: region.file_offset().cloned(),
                        size: region.len(),
                    });
                    regions.len().saturating_sub(1)
                });
                let offset = offset.raw_value();
                let len = left.min(region.len().saturating_sub(offset));
                // What follows on in the region is in the same range already: a backing joins those.
                pieces.push(RegionPiece {
                    region: index,
                    offset,
                    len,
                });
                left = left.saturating_sub(len);
                at = GuestAddress(at.raw_value().saturating_add(len));
            }
        }
        Ok((regions, pieces))
    }
}

#[cfg(test)]
mod tests;
