// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory with known contents: whatever writes where it should not meets it.

use guest_agent::protocol::MemoryReport;

use crate::{Error, read_text};

/// Bytes that Linux's pages have on x86.
const PAGE: usize = 4096;
const WORDS: usize = PAGE / 8;
/// Changed pages that a report names.
const NAMED: usize = 8;

/// Pages whose contents follow from their number.
#[derive(Debug)]
pub(crate) struct Filler {
    pages: Vec<[u64; WORDS]>,
}

impl Filler {
    /// Fills what memory there is, but for `leave_kib` KiB.
    pub(crate) fn new(leave_kib: u64) -> Result<Self, Error> {
        let kib = available_kib()?.saturating_sub(leave_kib);
        let pages = (0..kib / 4).map(page).collect();
        Ok(Self { pages })
    }

    /// What there is, as it was filled.
    pub(crate) fn whole(&self) -> MemoryReport {
        MemoryReport {
            bytes: u64::try_from(self.pages.len() * PAGE).unwrap_or(u64::MAX),
            changed: 0,
            named: Vec::new(),
        }
    }

    pub(crate) fn check(&self) -> MemoryReport {
        let changed = (0..).zip(&self.pages);
        let mut changed = changed.filter(|(number, found)| **found != page(*number));
        let named: Vec<u64> = changed.by_ref().take(NAMED).map(|(at, _)| at).collect();
        let count = named.len() + changed.count();
        MemoryReport {
            changed: u64::try_from(count).unwrap_or(u64::MAX),
            named,
            ..self.whole()
        }
    }
}

/// No two words of all pages are alike. An addition a word: an emulated processor takes its time.
fn page(number: u64) -> [u64; WORDS] {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut word = number.wrapping_mul(STEP.wrapping_mul(WORDS as u64));
    [(); WORDS].map(|()| {
        word = word.wrapping_add(STEP);
        word
    })
}

fn available_kib() -> Result<u64, Error> {
    let text = read_text("/proc/meminfo")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.ok_or(Error::Memory("MemAvailable is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_changed_is_named_and_all_are_counted() {
        let pages = (0..20).map(page).collect();
        let mut filler = Filler { pages };
        assert_eq!(filler.check().changed, 0);
        filler.pages[3][511] ^= 1;
        let report = filler.check();
        assert_eq!((report.bytes, report.changed), (20 * 4096, 1));
        assert_eq!(report.named, [3]);
        filler.pages.fill([0; WORDS]);
        assert_eq!(
            (filler.check().changed, filler.check().named.len()),
            (20, 8)
        );
    }
}
