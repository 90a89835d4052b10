// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guest memory that every contender maps, so that all of them copy the same bytes.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process;

use anyhow::{Context, Result, ensure};
use rustix::fs::{MemfdFlags, memfd_create};
use virtio_gpu_s3_testing::GuestBuffer;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

/// Bytes of guest memory: the frames, and room for rings and for what requests carry.
pub(crate) const SIZE: u64 = 128 << 20;
/// Where allocation starts: PC firmware and its shadows are below.
const START: u64 = 2 << 20;
/// The largest backing: eight 1080p frames, or one resource of 64 MiB.
const PIXELS: u64 = 68 << 20;
const PAGE: u32 = 4096;

/// How a backing lies in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// In one piece.
    Contiguous,
    /// As single pages none of which follows its neighbour, as Linux' shmem gives them.
    Pages,
}

/// Guest memory, from guest address 0 on.
pub(crate) struct Ram {
    file: File,
    memory: GuestMemoryMmap,
    next: u64,
}

impl Ram {
    /// All of it written once, so that nobody pays for a page's first use.
    pub(crate) fn new() -> Result<Self> {
        let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC)?);
        file.set_len(SIZE)?;
        let offset = FileOffset::new(file.try_clone()?, 0);
        let range = (GuestAddress(0), usize::try_from(SIZE)?, Some(offset));
        let memory = GuestMemoryMmap::from_ranges_with_files([range])?;
        for page in 0..u32::try_from(SIZE)? / PAGE {
            memory.write_slice(&contents(page), GuestAddress(u64::from(page * PAGE)))?;
        }
        Ok(Self {
            file,
            memory,
            next: START + PIXELS,
        })
    }

    /// The mapping of this process.
    pub(crate) fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// The file that other processes map.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// A name of the file for other processes, as long as this one lives.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", process::id(), self.file.as_raw_fd())
    }

    /// A piece of memory of its own.
    pub(crate) fn allocate(&mut self, bytes: u64) -> Result<u64> {
        let at = self.next;
        self.next = at + bytes.next_multiple_of(PAGE.into());
        ensure!(self.next <= SIZE, "the guest has no memory left");
        Ok(at)
    }
}

/// No two pages are the same, so that a copy of the wrong one is found out.
fn contents(page: u32) -> Vec<u8> {
    let words = (page * PAGE..(page + 1) * PAGE).step_by(4);
    words
        .flat_map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect()
}

/// The memory of the `index`th of equal pieces that everybody draws from. The contents do not matter, so pieces of
/// different sizes may overlap.
pub(crate) fn pixels(index: u32, bytes: u32, layout: Layout) -> Result<GuestBuffer> {
    let pages = bytes.div_ceil(PAGE);
    let first = START + u64::from(index) * u64::from(pages * PAGE);
    ensure!(
        first + u64::from(pages * PAGE) <= START + PIXELS,
        "the guest has no memory left"
    );
    let page = |page: u32| (first + u64::from(page * PAGE), PAGE);
    let ranges: Vec<_> = match layout {
        Layout::Contiguous => vec![(first, pages * PAGE)],
        // Odd pages downwards, then even ones downwards.
        Layout::Pages => (0..pages)
            .rev()
            .filter(|page| page % 2 == 1)
            .chain((0..pages).rev().filter(|page| page % 2 == 0))
            .map(page)
            .collect(),
    };
    Ok(GuestBuffer::of(&ranges))
}

/// Copies ranges of guest memory as a plain program would, to compare with.
pub(crate) fn copy(
    memory: &GuestMemoryMmap,
    ranges: &[(u64, usize)],
    target: &mut [u8],
) -> Result<()> {
    let mut rest = target;
    for &(from, length) in ranges {
        let (head, tail) = rest.split_at_mut(length.min(rest.len()));
        memory.read_slice(head, GuestAddress(from))?;
        rest = tail;
    }
    Ok(())
}

/// Where each page of a backing is.
pub(crate) fn page_addresses(buffer: &GuestBuffer) -> Vec<u64> {
    let pages = buffer.entries().iter().flat_map(|entry| {
        let start = entry.addr.get();
        (start..start + u64::from(entry.length.get())).step_by(4096)
    });
    pages.collect()
}

/// The ranges that make up `length` bytes from `offset` on, each as long as it can be.
pub(crate) fn ranges(pages: &[u64], offset: u64, length: u64) -> Result<Vec<(u64, usize)>> {
    let mut found: Vec<(u64, usize)> = Vec::new();
    let (mut at, end) = (offset, offset + length);
    while at < end {
        let page = pages.get(usize::try_from(at / 4096)?);
        let from = page.context("the buffer is too short")? + at % 4096;
        let taken = (4096 - at % 4096).min(end - at);
        let bytes = usize::try_from(taken)?;
        match found.last_mut() {
            Some((start, before)) if *start + u64::try_from(*before)? == from => *before += bytes,
            _ => found.push((from, bytes)),
        }
        at += taken;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contiguous_backing_is_one_range_and_a_scattered_one_has_a_range_a_page() -> Result<()> {
        for (layout, count) in [(Layout::Contiguous, 1), (Layout::Pages, 6)] {
            let pages = page_addresses(&pixels(1, 6 * PAGE, layout)?);
            let ranges = ranges(&pages, 100, 6 * 4096 - 100)?;
            assert_eq!(ranges.len(), count, "{layout:?}");
            let bytes: usize = ranges.iter().map(|range| range.1).sum();
            assert_eq!(bytes, 6 * 4096 - 100);
        }
        Ok(())
    }

    #[test]
    fn bytes_outside_a_backing_are_refused() -> Result<()> {
        let pages = page_addresses(&pixels(0, PAGE, Layout::Pages)?);
        assert!(ranges(&pages, 4000, 97).is_err());
        assert!(ranges(&pages, 4000, 96).is_ok());
        Ok(())
    }
}
