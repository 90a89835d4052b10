// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which parts of the scratch memory calls in flight have.

use std::collections::VecDeque;

use super::protocol::Range;

/// Streams begin at a line of the processor's cache, and so at a word.
const ALIGNMENT: usize = 64;

/// Ranges that are given back in the order in which they were taken.
#[derive(Debug)]
pub(super) struct Arena {
    length: usize,
    /// Behind the newest range.
    end: usize,
    /// Where those in use begin, oldest first.
    starts: VecDeque<usize>,
}

impl Arena {
    pub(super) fn new(length: usize) -> Self {
        Self {
            length,
            end: 0,
            starts: VecDeque::new(),
        }
    }

    /// So many bytes in one piece, if they are free.
    pub(super) fn take(&mut self, bytes: usize) -> Option<Range> {
        let size = bytes.max(1).checked_next_multiple_of(ALIGNMENT)?;
        let start = match self.starts.front() {
            None => (size <= self.length).then_some(0),
            // In use up to `end`, or from the oldest on round to `end`. The two never meet, so that full is not empty.
            Some(&oldest) if oldest < self.end => {
                let behind = self.end.checked_add(size).filter(|end| *end <= self.length);
                behind
                    .map(|_| self.end)
                    .or_else(|| (size < oldest).then_some(0))
            }
            Some(&oldest) => {
                let behind = self.end.checked_add(size).filter(|end| *end < oldest);
                behind.map(|_| self.end)
            }
        }?;
        self.starts.push_back(start);
        self.end = start.checked_add(size)?;
        Some(Range {
            at: start as u64,
            length: bytes as u64,
        })
    }

    /// The newest range is free, as nobody came to use it.
    pub(super) fn take_back(&mut self) {
        if let Some(start) = self.starts.pop_back() {
            self.end = start;
        }
    }

    /// The oldest range is free.
    pub(super) fn give_back(&mut self) {
        self.starts.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_in_use_never_overlap_and_all_of_it_is_free_again_at_the_end() {
        const LENGTH: usize = 4096;
        let mut arena = Arena::new(LENGTH);
        let mut used: VecDeque<Range> = VecDeque::new();
        let mut seed = 1_u32;
        let mut refused = 0;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let bytes = (seed >> 16) as usize % 900;
            match arena.take(bytes) {
                Some(range) => {
                    let end = range.at + range.length;
                    assert!(end <= LENGTH as u64 && range.at % ALIGNMENT as u64 == 0);
                    let apart = |it: &Range| end <= it.at || it.at + it.length <= range.at;
                    assert!(used.iter().all(apart));
                    used.push_back(range);
                }
                None => refused += 1,
            }
            if used.len() > (seed >> 8) as usize % 16 {
                used.pop_front();
                arena.give_back();
            }
        }
        assert!(refused > 0);
        for _ in used {
            arena.give_back();
        }
        assert_eq!(arena.take(LENGTH).map(|range| range.at), Some(0));
        assert!(arena.take(1).is_none());
    }

    #[test]
    fn what_is_longer_than_all_of_it_is_refused() {
        for bytes in [4097, usize::MAX] {
            assert!(Arena::new(4096).take(bytes).is_none());
        }
    }
}
