// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
use std::fs::File;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vm_memory::{FileOffset, GuestMemoryMmap};

use super::*;
use crate::protocol::wire::MemEntry;

const REGION: usize = 0x4000;
/// Where the first region's memory is in its file.
const FILE_START: u64 = 0x2000;

fn file() -> File {
    let file = memfd_create("pages", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, 0x8000).unwrap();
    file.into()
}

/// Two regions that touch, the first of a file and the second anonymous, and one apart, of a file.
fn memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges_with_files([
        (
            GuestAddress(0),
            REGION,
            Some(FileOffset::new(file(), FILE_START)),
        ),
        (GuestAddress(0x4000), REGION, None),
        (
            GuestAddress(0x1_0000),
            REGION,
            Some(FileOffset::new(file(), 0)),
        ),
    ])
    .unwrap()
}

/// Over the border of two regions, which the second range goes on from; then in the third, then back in the first.
const RANGES: [(u64, u32); 4] = [
    (0x3000, 0x2000),
    (0x5000, 0x100),
    (0x1_0010, 0x30),
    (0x10, 0x20),
];

fn backing(memory: &GuestMemoryMmap) -> Backing {
    let entries = RANGES.map(|(address, length)| MemEntry {
        addr: address.into(),
        length: length.into(),
        padding: 0.into(),
    });
    Backing::new(&entries, memory).unwrap()
}

#[test]
fn pieces_are_told_by_region_and_each_region_once_with_its_file() {
    let memory = memory();
    let backing = backing(&memory);
    let pages = Pages {
        backing: &backing,
        memory: &memory,
    };
    assert_eq!(pages.len(), 0x2150);
    assert!(!pages.is_empty());
    let (regions, pieces) = pages.region_pieces().unwrap();
    let regions: Vec<_> = regions
        .iter()
        .map(|region| (region.size, region.file.as_ref().map(FileOffset::start)))
        .collect();
    let size = REGION as u64;
    assert_eq!(
        regions,
        [(size, Some(FILE_START)), (size, None), (size, Some(0))]
    );
    let pieces: Vec<_> = pieces
        .iter()
        .map(|piece| (piece.region, piece.offset, piece.len))
        .collect();
    assert_eq!(
        pieces,
        [
            (0, 0x3000, 0x1000),
            (1, 0, 0x1100),
            (2, 0x10, 0x30),
            (0, 0x10, 0x20)
        ]
    );
}

#[test]
fn host_ranges_are_where_the_memory_is_mapped() {
    let memory = memory();
    let backing = backing(&memory);
    let pages = Pages {
        backing: &backing,
        memory: &memory,
    };
    let expected = [
        (0x3000, 0x1000),
        (0x4000, 0x1100),
        (0x1_0010, 0x30),
        (0x10, 0x20),
    ]
    .map(|(address, length)| {
        let host = GuestMemoryBackend::get_host_address(&memory, GuestAddress(address));
        (host.unwrap().addr(), length)
    });
    assert_eq!(pages.host_ranges().unwrap(), expected);
}

#[test]
fn what_is_written_goes_to_every_piece_and_is_read_back() {
    let memory = memory();
    let backing = backing(&memory);
    let pages = Pages {
        backing: &backing,
        memory: &memory,
    };
    let bytes: Vec<u8> = (0..0x2150 - 7_u32).map(|at| at.to_le_bytes()[0]).collect();
    pages.write(5, &bytes).unwrap();
    let mut back = vec![0; bytes.len()];
    pages.read(5, &mut back).unwrap();
    assert_eq!(back, bytes);
    let mut at = 0;
    for (address, length) in [(0x3005, 0x20fb), (0x1_0010, 0x30), (0x10, 0x1e)] {
        let mut found = vec![0; length];
        memory
            .read_slice(&mut found, GuestAddress(address))
            .unwrap();
        assert_eq!(found, bytes[at..at + length], "at {address:#x}");
        at += length;
    }
    let mut after = [1; 2];
    memory.read_slice(&mut after, GuestAddress(0x2e)).unwrap();
    assert_eq!(after, [0; 2], "behind the last byte");
    pages.write(0x214f, &[0; 2]).unwrap_err();
    pages.read(0x214f, &mut [0; 2]).unwrap_err();
}

#[test]
fn memory_that_the_vmm_took_away_is_refused() {
    let backing = backing(&memory());
    let less = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), REGION)]).unwrap();
    let pages = Pages {
        backing: &backing,
        memory: &less,
    };
    let gone = |error| matches!(error, GuestError::Memory { .. });
    assert!(gone(pages.host_ranges().unwrap_err()));
    assert!(gone(pages.region_pieces().unwrap_err()));
    assert!(gone(pages.write(0, &[0; 0x2000]).unwrap_err()));
    assert!(gone(pages.read(0, &mut [0; 0x2000]).unwrap_err()));
    // What is still there is not lost with it.
    pages.write(0, &[7; 0x1000]).unwrap();
}
