// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How long one looks for what comes next before one sleeps.
//!
//! Waking a thread takes 5 µs where a core is awake for it and 30 where none is, which is more than most commands take.
//! So who just had something to do looks a while for more. Looking costs a core, though: there is none where the last
//! wait was long, and after looks in vain ever fewer. A guest that draws a frame now and then pays one look a frame,
//! and one that sleeps pays nothing.

use std::hint::spin_loop;
use std::thread;
use std::time::{Duration, Instant};

/// About twice what waking a thread takes, so looking in vain costs no more than having slept too early would.
pub const LIMIT: Duration = Duration::from_micros(50);

/// A wait up to here may have been short but for the waking.
const SHORT: Duration = Duration::from_micros(100);

/// Looks for a guest between two chances for others on this core: its processors are others, mostly.
pub const FOR_GUEST: u32 = 8;
/// Looks for a renderer, which may have to run here before there is anything to find.
pub const FOR_RENDERER: u32 = 2;

/// Short waits without a look after many looks in vain.
const MOST_SKIPPED: u32 = 63;

/// Looks as long as waits are short.
#[derive(Debug, Default)]
pub struct AdaptivePolling {
    idle_since: Option<Instant>,
    /// Whether the last wait was short.
    worthwhile: bool,
    /// How many short waits go by without a look.
    skipped: u32,
    /// How many that was after the last look in vain; none after one that was not.
    penalty: u32,
}

impl AdaptivePolling {
    /// There is nothing to do: looks for something, or not, so many times between two chances for others. Returns whether
    /// there is.
    pub fn look(&mut self, times: u32, mut found: impl FnMut() -> bool) -> bool {
        let start = *self.idle_since.get_or_insert_with(Instant::now);
        if !self.worthwhile || self.skipped > 0 {
            return false;
        }
        while start.elapsed() < LIMIT {
            for _ in 0..times {
                if found() {
                    self.penalty = 0;
                    return true;
                }
                spin_loop();
            }
            thread::yield_now();
        }
        self.penalty = (self.penalty * 2 + 1).min(MOST_SKIPPED);
        self.skipped = self.penalty;
        false
    }

    /// There is something to do.
    pub fn found(&mut self) {
        if let Some(since) = self.idle_since.take() {
            self.worthwhile = since.elapsed() < SHORT;
            if self.worthwhile {
                self.skipped = self.skipped.saturating_sub(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EAGER: AdaptivePolling = AdaptivePolling {
        idle_since: None,
        worthwhile: true,
        skipped: 0,
        penalty: 0,
    };

    #[test]
    fn nobody_looks_whose_last_wait_was_long() {
        let mut polling = AdaptivePolling { ..EAGER };
        polling.look(FOR_GUEST, || false);
        thread::sleep(SHORT * 2);
        polling.found();
        assert!(!polling.look(FOR_GUEST, || true));
    }

    #[test]
    fn a_look_in_vain_ends_in_time() {
        let mut polling = AdaptivePolling { ..EAGER };
        let (start, mut looks) = (Instant::now(), 0_u32);
        assert!(!polling.look(FOR_GUEST, || {
            looks += 1;
            false
        }));
        assert!(looks > 0 && start.elapsed() >= LIMIT);
    }

    #[test]
    fn work_that_comes_at_once_makes_the_next_look_worthwhile() {
        // A busy machine may take this thread away for longer than the limit, but not always.
        let soon = (0..1000).any(|_| {
            let mut polling = AdaptivePolling::default();
            polling.look(FOR_GUEST, || false);
            polling.found();
            polling.look(FOR_GUEST, || true)
        });
        assert!(soon);
    }

    #[test]
    fn looks_in_vain_become_rare_and_one_that_is_not_makes_them_frequent_again() {
        let mut polling = AdaptivePolling { ..EAGER };
        let mut looks = 0;
        for _ in 0..1000 {
            let mut looked = false;
            polling.look(FOR_GUEST, || {
                looked = true;
                false
            });
            looks += u32::from(looked);
            polling.worthwhile = true;
            polling.skipped = polling.skipped.saturating_sub(1);
            polling.idle_since = None;
        }
        assert!((10..30).contains(&looks), "{looks}");
        polling.skipped = 0;
        assert!(polling.look(FOR_GUEST, || true));
        assert_eq!(polling.penalty, 0);
    }
}
