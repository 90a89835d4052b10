// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Copies out of a backing, forwards.

use vm_memory::bitmap::MS;
use vm_memory::{Address, GuestAddress, GuestMemoryRegion, VolatileSlice};

use super::prefetch::prefetch;
use super::{Backing, Segment};
use crate::error::GuestError;
use crate::memory::GuestMemoryBackend;

/// Segments up to here are copied in steps, each with a look at the next segment. Longer ones are
/// worth the wait at their start.
const SHORT_SEGMENT: usize = 16 << 10;
/// Bytes of a step. As much of the next segment is asked for in each: more at a time only queues
/// before what is copied now.
const STEP: usize = 512;

/// Reads forward, remembering the segment and the memory region of the last byte.
pub(super) struct Reader<'a, M: GuestMemoryBackend + ?Sized> {
    backing: &'a Backing,
    at: usize,
    segment: Segment,
    mem: &'a M,
    region_start: u64,
    region: Option<VolatileSlice<'a, MS<'a, M>>>,
}

impl<'a, M: GuestMemoryBackend + ?Sized> Reader<'a, M> {
    pub(super) fn new(backing: &'a Backing, mem: &'a M) -> Self {
        Self {
            backing,
            at: 0,
            segment: Segment::EMPTY,
            mem,
            region_start: 0,
            region: None,
        }
    }

    /// `len` bytes from `position` on, if they are in one segment and in the region of the last copy.
    /// Asks for the first of them.
    #[inline]
    pub(super) fn locate(&self, position: u64, len: usize) -> Option<VolatileSlice<'a, MS<'a, M>>> {
        let segments = &self.backing.segments;
        let segment = segments.get(self.backing.index.find(segments, position)?)?;
        let into = position.saturating_sub(segment.offset);
        if segment.len.saturating_sub(into) < len as u64 {
            return None;
        }
        let memory = self.of_region(segment.address.saturating_add(into), len)?;
        prefetch(&memory, 0, 1);
        Some(memory)
    }

    /// Finds the region of `position` before anything is copied, for [`locate`](Self::locate).
    pub(super) fn aim(&mut self, position: u64) -> Result<(), GuestError> {
        self.seek(position)?;
        let into = position.saturating_sub(self.segment.offset);
        let address = self.segment.address.saturating_add(into);
        self.region_of(address).map(drop)
    }

    /// Copies from `position` on until `target` is full.
    #[inline]
    pub(super) fn read(
        &mut self,
        mut position: u64,
        mut target: &mut [u8],
    ) -> Result<(), GuestError> {
        loop {
            if !self.segment.holds(position) {
                self.seek(position)?;
            }
            let into = position.saturating_sub(self.segment.offset);
            let left = self.segment.len.saturating_sub(into);
            let address = self.segment.address.saturating_add(into);
            if target.len() as u64 <= left {
                return self.copy(address, target);
            }
            let length = usize::try_from(left).unwrap_or(usize::MAX);
            let (head, tail) = target.split_at_mut_checked(length).unwrap_or_default();
            self.copy_with_foresight(address, head, tail.len())?;
            position = position.saturating_add(left);
            target = tail;
        }
    }

    /// Finds the segment that holds `position`.
    #[inline]
    fn seek(&mut self, position: u64) -> Result<(), GuestError> {
        let segments = &self.backing.segments;
        let found = self.backing.index.find(segments, position);
        let found = found.and_then(|at| Some((at, *segments.get(at)?)));
        (self.at, self.segment) = found.ok_or(GuestError::Memory {
            address: position,
            length: 1,
        })?;
        Ok(())
    }

    /// `len` bytes, if they are in the region of the last copy.
    #[inline]
    fn of_region(&self, address: u64, len: usize) -> Option<VolatileSlice<'a, MS<'a, M>>> {
        let start = address.checked_sub(self.region_start)?;
        let start = usize::try_from(start).ok()?;
        self.region.as_ref()?.subslice(start, len).ok()
    }

    /// Copies from the region of the last copy, or else from whichever it is.
    #[inline]
    fn copy(&mut self, address: u64, target: &mut [u8]) -> Result<(), GuestError> {
        if let Some(source) = self.of_region(address, target.len()) {
            source.copy_to(target);
            return Ok(());
        }
        self.copy_slowly(address, target)
    }

    /// Copies the rest of a segment, and asks meanwhile for the next one, of which `wanted` bytes
    /// follow.
    fn copy_with_foresight(
        &mut self,
        address: u64,
        target: &mut [u8],
        wanted: usize,
    ) -> Result<(), GuestError> {
        let segments = &self.backing.segments;
        let next = self.at.checked_add(1).and_then(|at| segments.get(at));
        let next = next.and_then(|next| {
            let length = usize::try_from(next.len).unwrap_or(usize::MAX);
            self.of_region(next.address, length.min(wanted).min(SHORT_SEGMENT))
        });
        let source = self.of_region(address, target.len());
        let (Some(source), Some(next), ..=SHORT_SEGMENT) = (source, next, target.len()) else {
            return self.copy(address, target);
        };
        for (step, start) in target.chunks_mut(STEP).zip((0..).step_by(STEP)) {
            prefetch(&next, start, STEP);
            if let Ok(source) = source.subslice(start, step.len()) {
                source.copy_to(step);
            }
        }
        Ok(())
    }

    /// The memory from `address` to the end of its region, which is remembered.
    fn region_of(&mut self, address: u64) -> Result<VolatileSlice<'a, MS<'a, M>>, GuestError> {
        let no_memory = GuestError::Memory { address, length: 1 };
        let region = self.mem.find_region(GuestAddress(address));
        let region = region.ok_or_else(|| no_memory.clone())?;
        let slice = region.as_volatile_slice().map_err(|_| no_memory.clone())?;
        self.region_start = region.start_addr().raw_value();
        let start = address.saturating_sub(self.region_start);
        let memory = usize::try_from(start)
            .ok()
            .and_then(|start| slice.offset(start).ok())
            .ok_or(no_memory)?;
        self.region = Some(slice);
        Ok(memory)
    }

    /// A range that was memory when it was attached may have been unplugged since, or may span
    /// two regions.
    #[cold]
    fn copy_slowly(&mut self, mut address: u64, mut target: &mut [u8]) -> Result<(), GuestError> {
        while !target.is_empty() {
            let source = self.region_of(address)?;
            let length = source.len().min(target.len());
            let (head, tail) = target.split_at_mut(length);
            source.copy_to(head);
            address = address.saturating_add(length as u64);
            target = tail;
        }
        Ok(())
    }
}
