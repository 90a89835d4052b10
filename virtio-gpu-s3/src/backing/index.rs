// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which segment holds an offset, found in constant time where segments are alike.

use super::Segment;

/// The first segment of each slot of the backing. Slots are of equal length, a power of two, and
/// no more than there are segments: a backing of pages has a slot a page, and where a guest chose
/// ranges to differ, a binary search of those in a slot finds the one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    shift: u32,
    first: Vec<u32>,
}

impl Index {
    /// Bytes of host memory the index takes at most for each segment.
    pub(super) const BYTES_PER_SEGMENT: u64 = size_of::<u32>() as u64;

    /// The index of segments that together have `len` bytes.
    pub(super) fn new(segments: &[Segment], len: u64) -> Self {
        let Some(last) = len.checked_sub(1) else {
            return Self::default();
        };
        let last_slot = |shift: u32| last.checked_shr(shift).unwrap_or(0);
        let fits = |shift: &u32| last_slot(*shift) < segments.len() as u64;
        let shift = (0..u64::BITS).find(fits).unwrap_or(u64::BITS);
        let mut first = Vec::new();
        let mut at = 0_usize;
        for slot in 0..=last_slot(shift) {
            let start = slot.checked_shl(shift).unwrap_or(0);
            while segments.get(at).is_some_and(|it| it.end() <= start) {
                at = at.saturating_add(1);
            }
            first.push(u32::try_from(at).unwrap_or(u32::MAX));
        }
        first.shrink_to_fit();
        Self { shift, first }
    }

    pub(super) fn host_bytes(&self) -> u64 {
        (self.first.len() as u64).saturating_mul(Self::BYTES_PER_SEGMENT)
    }

    /// The first segment of the slot of `position`: of a backing of pages it is the one that holds it.
    #[inline]
    pub(super) fn likely<'a>(&self, segments: &'a [Segment], position: u64) -> Option<&'a Segment> {
        let slot = usize::try_from(position.checked_shr(self.shift)?).ok()?;
        segments.get(*self.first.get(slot)? as usize)
    }

    /// The segment that holds `position`, `None` past the end.
    #[inline]
    pub(super) fn find(&self, segments: &[Segment], position: u64) -> Option<usize> {
        let slot = usize::try_from(position.checked_shr(self.shift)?).ok()?;
        let first = *self.first.get(slot)? as usize;
        if segments.get(first)?.holds(position) {
            return Some(first);
        }
        // The first of the next slot may begin in this one.
        let next = slot.checked_add(1).and_then(|next| self.first.get(next));
        let end = next.map_or(segments.len(), |next| (*next as usize).saturating_add(1));
        let among = segments.get(first..end.min(segments.len()))?;
        let after = among.partition_point(|segment| segment.offset <= position);
        let found = first.checked_add(after.checked_sub(1)?)?;
        segments.get(found)?.holds(position).then_some(found)
    }
}
