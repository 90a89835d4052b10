// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A resource's guest memory: a table of ranges, found by offset.
//!
//! Linux backs a framebuffer with single pages in any order, and sends small damage rectangles.
//! Walking the table from its start for each row, as other devices do, makes such a rectangle
//! cost as much as the whole frame; here a row costs a step forward, or a binary search.
//! Addresses are the guest's: they stay good over a frozen reset and when the VMM remaps memory,
//! which a host pointer would not.

use vm_memory::bitmap::MS;
use vm_memory::{Address, GuestAddress, GuestMemoryBackend, GuestMemoryRegion, VolatileSlice};

use crate::error::GuestError;
use crate::protocol::wire::MemEntry;

/// Guest memory ranges that together back a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backing {
    segments: Vec<Segment>,
    len: u64,
}

/// A contiguous guest range and where in the backing it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    offset: u64,
    address: u64,
    len: u64,
}

impl Segment {
    const EMPTY: Self = Self {
        offset: 0,
        address: 0,
        len: 0,
    };

    fn holds(&self, position: u64) -> bool {
        self.offset <= position && position < self.end()
    }

    fn end(&self) -> u64 {
        self.offset.saturating_add(self.len)
    }
}

/// Rows of bytes at equal distances.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    /// Where the first row starts.
    pub(crate) offset: u64,
    /// From the start of a row to the start of the next.
    pub(crate) stride: u64,
    /// Bytes of a row.
    pub(crate) len: usize,
    /// How many rows.
    pub(crate) count: u32,
}

impl Rows {
    fn outside(&self) -> GuestError {
        GuestError::Memory {
            address: self.offset,
            length: (self.len as u64).saturating_mul(self.count.into()),
        }
    }

    /// One past the last byte, `None` if no u64 holds it.
    fn end(&self) -> Option<u64> {
        let Some(last) = self.count.checked_sub(1) else {
            return Some(self.offset);
        };
        self.stride
            .checked_mul(last.into())?
            .checked_add(self.offset)?
            .checked_add(self.len as u64)
    }
}

impl Backing {
    /// Bytes of host memory an entry costs at most.
    pub(crate) const BYTES_PER_ENTRY: u64 = size_of::<Segment>() as u64;

    /// Checks that every entry is guest memory, and merges neighbours.
    pub(crate) fn new<M: GuestMemoryBackend + ?Sized>(
        entries: &[MemEntry],
        mem: &M,
    ) -> Result<Self, GuestError> {
        let mut backing = Self {
            segments: Vec::with_capacity(entries.len()),
            len: 0,
        };
        for entry in entries {
            let address = entry.addr.get();
            let length = u64::from(entry.length.get());
            let no_memory = GuestError::Memory { address, length };
            let in_memory = usize::try_from(length)
                .is_ok_and(|length| mem.check_range(GuestAddress(address), length));
            if !in_memory {
                return Err(no_memory);
            }
            backing.push(address, length).ok_or(no_memory)?;
        }
        backing.segments.shrink_to_fit();
        Ok(backing)
    }

    /// A backing of ranges that another device had, `None` if one wraps around.
    pub(crate) fn of_ranges(ranges: &[(u64, u64)]) -> Option<Self> {
        let mut backing = Self::default();
        for (address, len) in ranges {
            backing.push(*address, *len)?;
        }
        backing.segments.shrink_to_fit();
        Some(backing)
    }

    /// Guest address and length of each range.
    pub(crate) fn ranges(&self) -> Vec<(u64, u64)> {
        let segments = self.segments.iter();
        segments.map(|it| (it.address, it.len)).collect()
    }

    fn push(&mut self, address: u64, len: u64) -> Option<()> {
        let offset = self.len;
        let end = offset.checked_add(len)?;
        address.checked_add(len)?;
        if len == 0 {
            return Some(());
        }
        match self.segments.last_mut() {
            Some(last) if last.address.checked_add(last.len) == Some(address) => {
                last.len = last.len.checked_add(len)?;
            }
            _ => self.segments.push(Segment {
                offset,
                address,
                len,
            }),
        }
        self.len = end;
        Some(())
    }

    /// Bytes backed.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes of host memory the table takes.
    pub(crate) fn host_bytes(&self) -> u64 {
        (self.segments.len() as u64).saturating_mul(Self::BYTES_PER_ENTRY)
    }

    /// Guest address and length of each piece of `len` bytes from `offset` on.
    pub(crate) fn pieces(&self, offset: u64, len: u64) -> Result<Vec<(u64, u64)>, GuestError> {
        let end = offset.checked_add(len).filter(|end| *end <= self.len);
        let end = end.ok_or(GuestError::Memory {
            address: offset,
            length: len,
        })?;
        let first = self
            .segments
            .partition_point(|segment| segment.end() <= offset);
        let tail = self.segments.get(first..).unwrap_or_default();
        let piece = |segment: &Segment| {
            let start = segment.offset.max(offset);
            let into = start.saturating_sub(segment.offset);
            let length = segment.end().min(end).saturating_sub(start);
            (segment.address.saturating_add(into), length)
        };
        let inside = tail.iter().take_while(|segment| segment.offset < end);
        Ok(inside.map(piece).collect())
    }

    /// `Ok` if all the rows lie inside the backing.
    pub(crate) fn check_rows(&self, rows: Rows) -> Result<(), GuestError> {
        if rows.end().is_none_or(|end| end > self.len) {
            return Err(rows.outside());
        }
        Ok(())
    }

    /// Copies rows of the backing to `target`, whose rows are `target_stride` bytes apart and
    /// whose first byte is the first byte of the first row. Nothing is copied on an error that
    /// the arguments tell; if memory vanishes midway, `target` holds part of the rows.
    pub(crate) fn read_rows<M: GuestMemoryBackend + ?Sized>(
        &self,
        mem: &M,
        rows: Rows,
        target: &mut [u8],
        target_stride: usize,
    ) -> Result<(), GuestError> {
        let outside = rows.outside();
        if rows.len == 0 || rows.count == 0 {
            return Ok(());
        }
        self.check_rows(rows)?;
        let mut reader = Reader::new(&self.segments, mem);
        if rows.stride == rows.len as u64 && target_stride == rows.len {
            // Rows without gaps on both sides are one long row.
            let total = rows.len.checked_mul(rows.count as usize);
            let target = total.and_then(|total| target.get_mut(..total));
            return reader.read(rows.offset, target.ok_or(outside)?);
        }
        let mut position = rows.offset;
        let mut rest = target;
        for row in 0..rows.count {
            let (head, tail) = rest
                .split_at_mut_checked(rows.len)
                .ok_or_else(|| outside.clone())?;
            reader.read(position, head)?;
            if row.saturating_add(1) < rows.count {
                let gap = target_stride.checked_sub(rows.len);
                rest = gap
                    .and_then(|gap| tail.get_mut(gap..))
                    .ok_or_else(|| outside.clone())?;
                position = position.saturating_add(rows.stride);
            } else {
                rest = tail;
            }
        }
        Ok(())
    }
}

/// Reads forward, remembering the segment and the memory region of the last byte.
struct Reader<'a, M: GuestMemoryBackend + ?Sized> {
    segments: &'a [Segment],
    index: usize,
    segment: Segment,
    mem: &'a M,
    region_start: u64,
    region: Option<VolatileSlice<'a, MS<'a, M>>>,
}

impl<'a, M: GuestMemoryBackend + ?Sized> Reader<'a, M> {
    fn new(segments: &'a [Segment], mem: &'a M) -> Self {
        Self {
            segments,
            index: 0,
            segment: segments.first().copied().unwrap_or(Segment::EMPTY),
            mem,
            region_start: 0,
            region: None,
        }
    }

    fn read(&mut self, mut position: u64, mut target: &mut [u8]) -> Result<(), GuestError> {
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
            self.copy(address, head)?;
            position = position.saturating_add(left);
            target = tail;
        }
    }

    /// Finds the segment that holds `position`. The next row of a rectangle lies as many segments
    /// ahead as the distance holds segments of this length, if all are pages; else a binary
    /// search finds it.
    fn seek(&mut self, position: u64) -> Result<(), GuestError> {
        let ahead = position
            .checked_sub(self.segment.offset)
            .and_then(|distance| distance.checked_div(self.segment.len))
            .and_then(|ahead| self.index.checked_add(usize::try_from(ahead).ok()?));
        let guess = ahead.and_then(|index| Some((index, *self.segments.get(index)?)));
        let found = guess
            .filter(|(_, segment)| segment.holds(position))
            .or_else(|| {
                let after = self
                    .segments
                    .partition_point(|segment| segment.offset <= position);
                let index = after.checked_sub(1)?;
                let segment = *self.segments.get(index)?;
                segment.holds(position).then_some((index, segment))
            });
        (self.index, self.segment) = found.ok_or(GuestError::Memory {
            address: position,
            length: 1,
        })?;
        Ok(())
    }

    /// Copies from the region of the last copy, or else from whichever it is.
    fn copy(&mut self, address: u64, target: &mut [u8]) -> Result<(), GuestError> {
        if let Some(region) = &self.region
            && let Some(start) = address.checked_sub(self.region_start)
            && let Ok(start) = usize::try_from(start)
            && let Ok(source) = region.subslice(start, target.len())
        {
            source.copy_to(target);
            return Ok(());
        }
        self.copy_slowly(address, target)
    }

    /// A range that was memory when it was attached may have been unplugged since, or may span
    /// two regions.
    fn copy_slowly(&mut self, mut address: u64, mut target: &mut [u8]) -> Result<(), GuestError> {
        while !target.is_empty() {
            let no_memory = GuestError::Memory {
                address,
                length: target.len() as u64,
            };
            let region = self.mem.find_region(GuestAddress(address));
            let region = region.ok_or_else(|| no_memory.clone())?;
            let slice = region.as_volatile_slice().map_err(|_| no_memory.clone())?;
            self.region_start = region.start_addr().raw_value();
            let start = address.saturating_sub(self.region_start);
            let source = usize::try_from(start)
                .ok()
                .and_then(|start| slice.offset(start).ok())
                .ok_or(no_memory)?;
            self.region = Some(slice);
            let length = source.len().min(target.len());
            let (head, tail) = target.split_at_mut(length);
            source.copy_to(head);
            address = address.saturating_add(length as u64);
            target = tail;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
