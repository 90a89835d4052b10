// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Copies out of a backing, forwards.

use vm_memory::bitmap::MS;
use vm_memory::{Address, GuestAddress, GuestMemoryRegion, VolatileSlice};

use super::{Backing, Rows, Segment};
use crate::error::GuestError;
use memory_hints::{prefetch, prefetch_row, prefetch_start};
use vm_memory::GuestMemoryBackend;

/// Rows that are looked up together, and the start of each asked for: finding the page is what takes
/// time.
const GROUP: usize = 16;
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
    region: Option<Region<'a, M>>,
}

/// A region of guest memory.
struct Region<'a, M: GuestMemoryBackend + ?Sized> {
    start: u64,
    memory: VolatileSlice<'a, MS<'a, M>>,
}

// Derived, it would ask that M can be copied.
impl<M: GuestMemoryBackend + ?Sized> Clone for Region<'_, M> {
    fn clone(&self) -> Self {
        Self {
            start: self.start,
            memory: self.memory.clone(),
        }
    }
}

impl<'a, M: GuestMemoryBackend + ?Sized> Region<'a, M> {
    /// Where in the memory the address is, if it is in it.
    #[inline]
    fn find(&self, address: u64) -> Option<usize> {
        let place = usize::try_from(address.checked_sub(self.start)?).ok()?;
        (place < self.memory.len()).then_some(place)
    }

    /// `len` bytes from the address on, if they are all in it.
    #[inline]
    fn part(&self, address: u64, len: usize) -> Option<VolatileSlice<'a, MS<'a, M>>> {
        self.memory.subslice(self.find(address)?, len).ok()
    }

    /// Fills `target` from a place in the memory, if there is as much.
    #[inline]
    fn copy(&self, place: usize, target: &mut [u8]) -> Option<()> {
        let source = self.memory.subslice(place, target.len()).ok()?;
        source.copy_to(target);
        Some(())
    }
}

impl<'a, M: GuestMemoryBackend + ?Sized> Reader<'a, M> {
    pub(super) fn new(backing: &'a Backing, mem: &'a M) -> Self {
        Self {
            backing,
            at: 0,
            segment: Segment::EMPTY,
            mem,
            region: None,
        }
    }

    /// Copies rows that are all inside both sides: first finds where some of them are and asks for
    /// their starts, then copies them.
    pub(super) fn read_narrow(
        &mut self,
        rows: Rows,
        target: &mut [u8],
        target_stride: usize,
    ) -> Result<(), GuestError> {
        let mut first = rows.offset;
        for group in target.chunks_mut(target_stride.saturating_mul(GROUP)) {
            // Kept here: a row in two regions changes the reader's.
            let region = self.aim(first)?;
            let mut places = [None; GROUP];
            let mut position = first;
            for (place, to) in places.iter_mut().zip(group.chunks(target_stride)) {
                *place = self.locate(&region, position, rows.len);
                prefetch_start(to);
                position = position.saturating_add(rows.stride);
            }
            position = first;
            for (place, to) in places.iter().zip(group.chunks_mut(target_stride)) {
                let to = to.get_mut(..rows.len).unwrap_or_default();
                if place.and_then(|place| region.copy(place, to)).is_none() {
                    self.read(position, to)?;
                }
                position = position.saturating_add(rows.stride);
            }
            first = position;
        }
        Ok(())
    }

    /// Where in the region the `len` bytes from `position` on are, if one segment has them all and is in
    /// it. Asks for them.
    #[inline]
    fn locate(&self, region: &Region<'a, M>, position: u64, len: usize) -> Option<usize> {
        let Backing {
            segments, index, ..
        } = self.backing;
        let segment = index.likely(segments, position)?;
        let into = position.checked_sub(segment.offset)?;
        if segment.len.checked_sub(into)? < len as u64 {
            return None;
        }
        let place = region.find(segment.address.saturating_add(into))?;
        prefetch_row(&region.memory, place, len);
        Some(place)
    }

    /// The region of `position`, before anything is copied.
    fn aim(&mut self, position: u64) -> Result<Region<'a, M>, GuestError> {
        self.seek(position)?;
        let into = position.saturating_sub(self.segment.offset);
        self.region_of(self.segment.address.saturating_add(into))
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
        self.region.as_ref()?.part(address, len)
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

    /// The region of `address`, which is remembered.
    fn region_of(&mut self, address: u64) -> Result<Region<'a, M>, GuestError> {
        if let Some(region) = self.region.as_ref().filter(|it| it.find(address).is_some()) {
            return Ok(region.clone());
        }
        let no_memory = || GuestError::Memory { address, length: 1 };
        let region = self.mem.find_region(GuestAddress(address));
        let region = region.ok_or_else(no_memory)?;
        let region = Region {
            start: region.start_addr().raw_value(),
            memory: region.as_volatile_slice().map_err(|_| no_memory())?,
        };
        self.region = Some(region.clone());
        Ok(region)
    }

    /// A range that was memory when it was attached may have been unplugged since, or may span
    /// two regions.
    #[cold]
    fn copy_slowly(&mut self, mut address: u64, mut target: &mut [u8]) -> Result<(), GuestError> {
        while !target.is_empty() {
            let region = self.region_of(address)?;
            let source = region
                .find(address)
                .and_then(|place| region.memory.offset(place).ok());
            let source = source.ok_or(GuestError::Memory { address, length: 1 })?;
            let length = source.len().min(target.len());
            let (head, tail) = target.split_at_mut(length);
            source.copy_to(head);
            address = address.saturating_add(length as u64);
            target = tail;
        }
        Ok(())
    }
}
