// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A limit on lines of the log that somebody else causes.

use std::mem;
use std::time::{Duration, Instant};

/// Lines on stderr in one [`WINDOW`]. Every event but a VMM's coming and going is a guest's doing, and one that resets
/// its device in a loop must not fill the host's disk. A guest that only sleeps stays far below.
const LINES: u32 = 100;
const WINDOW: Duration = Duration::from_secs(10);

/// Which lines are printed.
#[derive(Debug)]
pub struct RateLimit {
    window: Instant,
    printed: u32,
    dropped: u64,
}

impl RateLimit {
    /// Nothing printed yet.
    pub fn new(now: Instant) -> Self {
        Self {
            window: now,
            printed: 0,
            dropped: 0,
        }
    }

    /// Whether an event may be printed now, and if so how many were not since the last one that was.
    pub fn admit(&mut self, now: Instant) -> Option<u64> {
        if now.duration_since(self.window) >= WINDOW {
            self.window = now;
            self.printed = 0;
        }
        if self.printed >= LINES {
            self.dropped = self.dropped.saturating_add(1);
            return None;
        }
        self.printed += 1;
        Some(mem::take(&mut self.dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_never_stops_gets_so_many_lines_a_window_and_the_rest_are_counted() {
        let start = Instant::now();
        let mut lines = RateLimit::new(start);
        let printed = (0..1000).filter(|_| lines.admit(start).is_some()).count();
        assert_eq!(printed, LINES as usize);
        assert_eq!(lines.admit(start + WINDOW / 2), None);
        assert_eq!(lines.admit(start + WINDOW), Some(1001 - u64::from(LINES)));
        assert_eq!(lines.admit(start + WINDOW), Some(0));
    }
}
