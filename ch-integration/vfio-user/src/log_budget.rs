// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How much a VMM may have us write to the log.

#![forbid(unsafe_code)]

use std::mem;
use std::time::{Duration, Instant};

/// Lines in each [`WINDOW`].
const LINES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(10);

/// What is left of it.
#[derive(Debug)]
pub(crate) struct LogBudget {
    since: Instant,
    used: u32,
    dropped: u64,
}

impl LogBudget {
    pub(crate) fn new() -> Self {
        Self {
            since: Instant::now(),
            used: 0,
            dropped: 0,
        }
    }

    /// Whether a line may be written; if so, how many were not since the last.
    pub(crate) fn take(&mut self) -> Option<u64> {
        if self.since.elapsed() >= WINDOW {
            self.since = Instant::now();
            self.used = 0;
        }
        if self.used >= LINES {
            self.dropped = self.dropped.saturating_add(1);
            return None;
        }
        self.used += 1;
        Some(mem::take(&mut self.dropped))
    }

    /// Writes a warning, or counts it.
    pub(crate) fn warn(&mut self, line: impl FnOnce() -> String) {
        match self.take() {
            Some(0) => log::warn!("{}", line()),
            Some(dropped) => log::warn!("{} ({dropped} lines before were left out)", line()),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_budget_are_counted_and_not_written() {
        let mut budget = LogBudget::new();
        let written = (0..1000).filter(|_| budget.take().is_some()).count();
        assert_eq!(written, LINES as usize);
        budget.since -= WINDOW;
        assert_eq!(budget.take(), Some(1000 - u64::from(LINES)));
        assert_eq!(budget.take(), Some(0));
    }
}
