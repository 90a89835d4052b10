// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guest memory and what a guest allocates of it.

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use virtio_gpu_s3::protocol::wire::MemEntry;

const PAGE: usize = 4096;

/// How an allocation lies in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// In one piece.
    Contiguous,
    /// As single pages none of which follows its neighbour, as Linux' shmem gives them.
    Pages,
}

/// Memory ranges that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestBuffer {
    entries: Vec<MemEntry>,
}

impl GuestBuffer {
    /// A buffer of any ranges, valid or not.
    pub fn of(ranges: &[(u64, u32)]) -> Self {
        let entries = ranges.iter().map(|(addr, length)| MemEntry {
            addr: (*addr).into(),
            length: (*length).into(),
            padding: 0.into(),
        });
        Self {
            entries: entries.collect(),
        }
    }

    /// Its ranges.
    pub fn entries(&self) -> &[MemEntry] {
        &self.entries
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.entries
            .iter()
            .map(|entry| entry.length.get() as usize)
            .sum()
    }

    /// True if it has no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Guest memory of two regions, so that allocations can cross from one into the other.
#[derive(Clone, Debug)]
pub struct GuestRam {
    memory: GuestMemoryMmap,
    next: usize,
    size: usize,
}

impl GuestRam {
    /// So many bytes from address 0 on.
    pub fn new(bytes: usize) -> Self {
        let half = bytes / 2 / PAGE * PAGE;
        let at = u64::try_from(half).unwrap();
        let memory = GuestMemoryMmap::from_ranges(&[
            (GuestAddress(0), half),
            (GuestAddress(at), bytes - half),
        ]);
        Self {
            memory: memory.expect("host memory"),
            next: PAGE,
            size: bytes,
        }
    }

    /// The memory, as the device takes it.
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// Forgets every allocation.
    pub fn free_all(&mut self) {
        self.next = PAGE;
    }

    /// Allocates whole pages for `bytes` bytes.
    pub fn alloc(&mut self, bytes: usize, layout: Layout) -> GuestBuffer {
        let pages = bytes.div_ceil(PAGE).max(1);
        let first = self.next;
        self.next += pages * PAGE;
        assert!(self.next <= self.size, "the guest has no memory left");
        let address = |page: usize| u64::try_from(first + page * PAGE).unwrap();
        let ranges: Vec<_> = match layout {
            Layout::Contiguous => vec![(address(0), u32::try_from(pages * PAGE).unwrap())],
            // Odd pages downwards, then even ones downwards.
            Layout::Pages => (0..pages)
                .rev()
                .filter(|page| page % 2 == 1)
                .chain((0..pages).rev().filter(|page| page % 2 == 0))
                .map(|page| (address(page), u32::try_from(PAGE).unwrap()))
                .collect(),
        };
        GuestBuffer::of(&ranges)
    }

    /// Writes `bytes` to the buffer from `offset` on.
    pub fn write(&self, buffer: &GuestBuffer, offset: usize, bytes: &[u8]) {
        let mut rest = bytes;
        for (addr, room) in pieces(buffer, offset) {
            let (head, tail) = rest.split_at(room.min(rest.len()));
            self.memory
                .write_slice(head, GuestAddress(addr))
                .expect("guest memory");
            rest = tail;
        }
        assert!(rest.is_empty(), "the buffer is too short");
    }

    /// Reads `len` bytes of the buffer from `offset` on.
    pub fn read(&self, buffer: &GuestBuffer, offset: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let mut rest = bytes.as_mut_slice();
        for (addr, room) in pieces(buffer, offset) {
            let (head, tail) = rest.split_at_mut(room.min(rest.len()));
            self.memory
                .read_slice(head, GuestAddress(addr))
                .expect("guest memory");
            rest = tail;
        }
        assert!(rest.is_empty(), "the buffer is too short");
        bytes
    }
}

/// Address and length of each piece from `offset` on.
fn pieces(buffer: &GuestBuffer, offset: usize) -> impl Iterator<Item = (u64, usize)> + '_ {
    let mut skip = offset;
    buffer.entries.iter().filter_map(move |entry| {
        let len = entry.length.get() as usize;
        let into = skip.min(len);
        skip -= into;
        (into < len).then(|| (entry.addr.get() + into as u64, len - into))
    })
}
