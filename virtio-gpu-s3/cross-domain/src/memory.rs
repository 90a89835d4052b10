// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A ring in guest memory.
#![expect(
    unsafe_code,
    reason = "it is kept by address, as messages come at any time"
)]

use std::ptr;

use vm_memory::{Bytes, VolatileSlice};

/// Guest memory by the addresses of its pieces in this process.
///
/// The device gives new ones where the VMM maps guest memory elsewhere, before the old ones end
/// ([`GuestPages::host_ranges`](crate::renderer::GuestPages::host_ranges)).
#[derive(Clone, Debug, Default)]
pub(super) struct GuestRing(Vec<(usize, usize)>);

impl GuestRing {
    pub(super) fn new(ranges: Vec<(usize, usize)>) -> Self {
        Self(ranges)
    }

    pub(super) fn len(&self) -> usize {
        let lengths = self.0.iter().map(|(_, length)| *length);
        lengths.fold(0, usize::saturating_add)
    }

    /// Writes the parts one behind the other, from the start; all, or nothing. The head last: a
    /// guest that looks too early finds the old one, and no half of a new one.
    pub(super) fn write(&self, head: &[u8], data: &[u8]) -> bool {
        if head.len().saturating_add(data.len()) > self.len() {
            return false;
        }
        self.write_at(head.len(), data);
        self.write_at(0, head);
        true
    }

    fn write_at(&self, offset: usize, mut source: &[u8]) {
        let mut skip = offset;
        for &(address, length) in &self.0 {
            let within = skip.min(length);
            skip = skip.saturating_sub(within);
            let room = length.saturating_sub(within);
            let (part, rest) = source.split_at(room.min(source.len()));
            let start = address.saturating_add(within);
            let target = ptr::with_exposed_provenance_mut(start);
            // SAFETY: the VMM maps `length` bytes at `address` for as long as the device says that
            // the backing is there, and `within` and `part` lie inside. The guest may write the
            // memory meanwhile, so the access is volatile.
            let slice = unsafe { VolatileSlice::new(target, part.len()) };
            // As long as the slice.
            drop(slice.write_slice(part, 0));
            source = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_crosses_the_pieces_of_a_ring_and_one_that_is_too_long_changes_nothing() {
        let mut pieces = [[0_u8; 5], [0; 5], [0; 5]];
        let ranges = pieces
            .iter_mut()
            .map(|piece| (piece.as_mut_ptr().expose_provenance(), 5));
        let ring = GuestRing::new(ranges.collect());
        assert_eq!(ring.len(), 15);
        assert!(ring.write(b"head-12", b"data"));
        assert!(!ring.write(b"0123456789", b"abcdef"));
        assert_eq!(pieces.concat(), *b"head-12data\0\0\0\0");
    }
}
