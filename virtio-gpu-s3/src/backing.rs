// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A resource's guest memory: a table of ranges, found by offset.
//!
//! Linux backs a framebuffer with single pages in any order, and sends small damage rectangles.
//! Walking the table from its start for each row, as other devices do, makes such a rectangle
//! cost as much as the whole frame; here an index tells about where a row starts.
//! Addresses are the guest's: they stay good over a frozen reset and when the VMM remaps memory,
//! which a host pointer would not.

mod index;
mod reader;

use vm_memory::GuestAddress;

use crate::error::GuestError;
use crate::protocol::wire::MemEntry;
use index::Index;
use reader::Reader;
use vm_memory::GuestMemoryBackend;

/// Rows up to here are over before the processor has seen where the copy goes, so the next ones are
/// asked for. Longer ones it foresees itself.
const NARROW_ROW: usize = 1024;
/// Guest memory ranges that together back a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backing {
    segments: Vec<Segment>,
    index: Index,
    len: u64,
    /// The lowest guest address, and the highest.
    span: (u64, u64),
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

    /// Its last guest address; none is empty.
    fn last(&self) -> u64 {
        self.address.saturating_add(self.len.saturating_sub(1))
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
    pub(crate) const BYTES_PER_ENTRY: u64 = size_of::<Segment>() as u64 + Index::BYTES_PER_SEGMENT;

    /// Checks that every entry is guest memory, and merges neighbours.
    pub(crate) fn new<M: GuestMemoryBackend + ?Sized>(
        entries: &[MemEntry],
        mem: &M,
    ) -> Result<Self, GuestError> {
        let mut backing = Self {
            segments: Vec::with_capacity(entries.len()),
            ..Self::default()
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
        backing.finish();
        Ok(backing)
    }

    /// A backing of ranges that another device had, `None` if one wraps around.
    pub(crate) fn of_ranges(ranges: &[(u64, u64)]) -> Option<Self> {
        let mut backing = Self::default();
        for (address, len) in ranges {
            backing.push(*address, *len)?;
        }
        backing.finish();
        Some(backing)
    }

    fn finish(&mut self) {
        self.segments.shrink_to_fit();
        self.index = Index::new(&self.segments, self.len);
        let lowest = self.segments.iter().map(|it| it.address).min();
        let highest = self.segments.iter().map(Segment::last).max();
        self.span = lowest.zip(highest).unwrap_or_default();
    }

    /// Whether a byte of it lies from one guest address to another, both included.
    pub(crate) fn touches(&self, first: u64, last: u64) -> bool {
        let (lowest, highest) = self.span;
        let near = lowest <= last && first <= highest;
        near && self
            .segments
            .iter()
            .any(|it| it.address <= last && first <= it.last())
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
        let segments = (self.segments.len() as u64).saturating_mul(size_of::<Segment>() as u64);
        segments.saturating_add(self.index.host_bytes())
    }

    /// Guest address and length of each piece of `len` bytes from `offset` on.
    pub(crate) fn pieces(&self, offset: u64, len: u64) -> Result<Vec<(u64, u64)>, GuestError> {
        let end = offset.checked_add(len).filter(|end| *end <= self.len);
        let end = end.ok_or(GuestError::Memory {
            address: offset,
            length: len,
        })?;
        let first = self.index.find(&self.segments, offset);
        let first = first.unwrap_or(self.segments.len());
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
        let mut reader = Reader::new(self, mem);
        if rows.stride == rows.len as u64 && target_stride == rows.len {
            // Rows without gaps on both sides are one long row.
            let total = rows.len.checked_mul(rows.count as usize);
            let target = total.and_then(|total| target.get_mut(..total));
            return reader.read(rows.offset, target.ok_or(outside)?);
        }
        let last = (rows.count as usize).saturating_sub(1);
        let needed = target_stride
            .checked_mul(last)
            .and_then(|before| before.checked_add(rows.len))
            .filter(|_| target_stride >= rows.len)
            .and_then(|needed| target.get_mut(..needed))
            .ok_or(outside)?;
        if rows.len <= NARROW_ROW && rows.count > 1 {
            return reader.read_narrow(rows, needed, target_stride);
        }
        let mut position = rows.offset;
        for row in needed.chunks_mut(target_stride) {
            reader.read(position, row.get_mut(..rows.len).unwrap_or_default())?;
            position = position.saturating_add(rows.stride);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
