// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The way a device takes through a sleep, as its counters show it.

use anyhow::{Result, ensure};

/// The way a device takes through a sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// No_Soft_Reset: the driver touches no register.
    Untouched,
    /// A driver without sleep hooks resets the function and takes its queues for still set up.
    Reinstated,
    /// A driver with hooks (Linux 7.3) resets the device on the way to sleep, before anything but
    /// freeze_mode tells of it, and comes back without looking for its registers. It sets its queues up
    /// again, but not its resources.
    Requeued,
}

impl Way {
    /// Checks that a sleep between two looks at the counters went this way.
    ///
    /// # Errors
    /// It went another; the error has both looks.
    pub fn must_lead(self, before: Resets, after: Resets) -> Result<()> {
        let taken = (
            after.reinstatements - before.reinstatements,
            after.frozen > before.frozen,
            after.full > before.full,
        );
        let expected = match self {
            Self::Untouched => (0, false, false),
            Self::Reinstated => (1, true, false),
            Self::Requeued => (0, true, false),
        };
        ensure!(taken == expected, "{self:?}: {before:?} -> {after:?}");
        Ok(())
    }
}

/// What the server counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resets {
    /// Parked queues put back.
    pub reinstatements: u64,
    /// Resets that retained.
    pub frozen: u64,
    /// Resets that did not.
    pub full: u64,
}

impl Resets {
    /// Reads the counters, each by its name in the server's status.
    ///
    /// # Errors
    /// Those of `counter`.
    pub fn read(counter: impl Fn(&str) -> Result<u64>) -> Result<Self> {
        Ok(Self {
            reinstatements: counter("reinstatements")?,
            frozen: counter("frozen_resets")?,
            full: counter("full_resets")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_is_told_from_the_others_and_from_a_full_reset() {
        let before = Resets {
            reinstatements: 1,
            frozen: 2,
            full: 3,
        };
        let after = |reinstatements, frozen, full| Resets {
            reinstatements: before.reinstatements + reinstatements,
            frozen: before.frozen + frozen,
            full: before.full + full,
        };
        let ways = [
            (Way::Untouched, after(0, 0, 0)),
            (Way::Reinstated, after(1, 1, 0)),
            (Way::Requeued, after(0, 2, 0)),
        ];
        for (way, _) in ways {
            for (other, taken) in ways {
                assert_eq!(way.must_lead(before, taken).is_ok(), way == other);
            }
            assert!(way.must_lead(before, after(0, 0, 1)).is_err());
        }
    }
}
