// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
use vm_memory::{Bytes, GuestMemoryMmap};

use super::*;

fn entry(addr: u64, length: u32) -> MemEntry {
    MemEntry {
        addr: addr.into(),
        length: length.into(),
        padding: 0.into(),
    }
}

/// Two regions that touch, and one apart; every byte tells its address.
fn memory() -> GuestMemoryMmap {
    let ranges = [(0, 0x4000), (0x4000, 0x4000), (0x10000, 0x4000)]
        .map(|(start, len)| (GuestAddress(start), len));
    let mem = GuestMemoryMmap::from_ranges(&ranges).unwrap();
    for (start, len) in ranges {
        for at in (start.0..).take(len) {
            mem.write_obj(byte_at(at), GuestAddress(at)).unwrap();
        }
    }
    mem
}

fn byte_at(address: u64) -> u8 {
    (address ^ (address >> 8)).to_le_bytes()[0]
}

#[test]
fn ranges_that_touch_become_one_segment() {
    let mem = memory();
    let entries = [entry(0x1000, 0x1000), entry(0x2000, 0x1000), entry(0, 16)];
    let backing = Backing::new(&entries, &mem).unwrap();
    assert_eq!(backing.segments.len(), 2);
    assert_eq!(backing.len(), 0x2010);
}

#[test]
fn a_range_outside_memory_is_refused_at_attach() {
    let mem = memory();
    for bad in [
        entry(0x8000, 1),
        entry(0x7fff, 2),
        entry(u64::MAX, 2),
        entry(u64::MAX - 1, u32::MAX),
    ] {
        Backing::new(&[entry(0, 16), bad], &mem).unwrap_err();
    }
}

#[test]
fn an_empty_range_backs_nothing() {
    let backing = Backing::new(&[entry(0, 0), entry(8, 8), entry(0, 0)], &memory()).unwrap();
    assert_eq!((backing.len(), backing.segments.len()), (8, 1));
}

#[test]
fn rows_are_read_across_segments_and_regions() {
    let mem = memory();
    let pieces = [(0x10010, 100), (0x3ff0, 0x30), (0x100, 7), (0x13f00, 0x100)];
    let entries = pieces.map(|(addr, len)| entry(addr, len));
    let backing = Backing::new(&entries, &mem).unwrap();
    let flat: Vec<u8> = pieces
        .iter()
        .flat_map(|(addr, len)| (*addr..).take(*len as usize))
        .map(byte_at)
        .collect();
    for (offset, stride, len, count) in [
        (0_usize, 20_usize, 13_usize, 5_usize),
        (95, 3, 60, 40),
        (1, 50, 50, 7),
        (0, 0, 9, 3),
    ] {
        let rows = Rows {
            offset: offset as u64,
            stride: stride as u64,
            len,
            count: u32::try_from(count).unwrap(),
        };
        let pitch = len + 5;
        let mut target = vec![0; pitch * count];
        backing.read_rows(&mem, rows, &mut target, pitch).unwrap();
        for row in 0..count {
            let from = offset + row * stride;
            assert_eq!(target[row * pitch..][..len], flat[from..][..len]);
            assert_eq!(target[row * pitch + len..][..5], [0; 5]);
        }
    }
}

#[test]
fn rows_that_change_between_regions_are_each_read_from_their_own() {
    let mem = memory();
    let read = |address| mem.read_obj::<u8>(GuestAddress(address)).unwrap();
    for at in 0..0x2000 {
        mem.write_obj(!byte_at(at), GuestAddress(0x10000 + at))
            .unwrap();
    }
    // Pieces of two regions in turn, at the same places in both; each third row is in two of them.
    let entries: Vec<_> = (0..24)
        .map(|at| entry(0x100 + at * 0x80 + (at % 2) * 0x10000, 96))
        .collect();
    let backing = Backing::new(&entries, &mem).unwrap();
    let flat: Vec<u8> = entries
        .iter()
        .flat_map(|it| (it.addr.get()..).take(96))
        .map(read)
        .collect();
    for len in [1, 40, 64] {
        let rows = Rows {
            offset: 0,
            stride: 64,
            len,
            count: 36,
        };
        let mut target = vec![0; len * 36];
        backing.read_rows(&mem, rows, &mut target, len).unwrap();
        for (row, expected) in target.chunks(len).zip(flat.chunks(64)) {
            assert_eq!(row, &expected[..len]);
        }
    }
}

#[test]
fn rows_that_end_past_the_backing_are_refused_and_leave_the_target_alone() {
    let mem = memory();
    let backing = Backing::new(&[entry(0, 256)], &mem).unwrap();
    let rows = |offset, stride, len, count| Rows {
        offset,
        stride,
        len,
        count,
    };
    for bad in [
        rows(0, 64, 65, 4),
        rows(256, 64, 1, 1),
        rows(u64::MAX, 64, 64, 2),
        rows(0, u64::MAX, 1, 3),
        rows(1, 64, 64, 4),
    ] {
        let mut target = [0; 4096];
        backing.read_rows(&mem, bad, &mut target, 80).unwrap_err();
        assert_eq!(target, [0; 4096], "{bad:?}");
    }
    let mut target = [0; 256];
    backing
        .read_rows(&mem, rows(0, 64, 64, 4), &mut target, 64)
        .unwrap();
}

#[test]
fn pieces_cover_exactly_what_is_asked_up_to_the_end() {
    let mem = memory();
    let entries = [entry(0x100, 10), entry(0x300, 10), entry(0x200, 10)];
    let backing = Backing::new(&entries, &mem).unwrap();
    for (offset, len, expected) in [
        (0, 30, &[(0x100, 10), (0x300, 10), (0x200, 10)][..]),
        (9, 2, &[(0x109, 1), (0x300, 1)]),
        (10, 10, &[(0x300, 10)]),
        (29, 1, &[(0x209, 1)]),
        (30, 0, &[]),
    ] {
        assert_eq!(backing.pieces(offset, len).unwrap(), expected);
    }
    for (offset, len) in [(30, 1), (0, 31), (u64::MAX, 1), (1, u64::MAX)] {
        backing.pieces(offset, len).unwrap_err();
    }
}

#[test]
fn memory_that_was_unplugged_since_is_an_error() {
    let backing = Backing::new(&[entry(0x10000, 16)], &memory()).unwrap();
    let smaller = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x4000)]).unwrap();
    let rows = Rows {
        offset: 0,
        stride: 16,
        len: 16,
        count: 1,
    };
    backing
        .read_rows(&smaller, rows, &mut [0; 16], 16)
        .unwrap_err();
    let apart = Rows {
        stride: 8,
        len: 4,
        count: 2,
        ..rows
    };
    backing
        .read_rows(&smaller, apart, &mut [0; 16], 8)
        .unwrap_err();
}

#[test]
fn the_index_finds_every_offset_whatever_the_lengths_of_the_segments() {
    let mem = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    let lengths: [&[u32]; 7] = [
        &[4096; 9],
        &[1; 40],
        &[1, 1, 1, 60_000, 1, 1],
        &[60_000, 1, 2, 3, 4, 5, 6, 7],
        &[4096, 8192, 4096, 4096, 12_288, 4096, 17],
        &[3],
        &[5, 4096, 5, 4096, 5],
    ];
    for lengths in lengths {
        // A gap after each, so that none are merged.
        let mut next = 0;
        let entries: Vec<_> = lengths
            .iter()
            .map(|length| {
                let start = next;
                next += u64::from(*length) + 1;
                entry(start, *length)
            })
            .collect();
        let backing = Backing::new(&entries, &mem).unwrap();
        assert_eq!(backing.segments.len(), lengths.len());
        let most = Backing::BYTES_PER_ENTRY * lengths.len() as u64;
        assert!(backing.host_bytes() <= most);
        for position in 0..backing.len() {
            let slow = backing.segments.iter().position(|it| it.holds(position));
            let found = backing.index.find(&backing.segments, position);
            assert_eq!(found, slow, "{position} of {lengths:?}");
        }
        for position in [backing.len(), backing.len() + 1, u64::MAX] {
            assert_eq!(backing.index.find(&backing.segments, position), None);
        }
    }
}

#[test]
fn scattered_pages_are_copied_whole_with_steps_and_without() {
    let mem = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 1 << 18)]).unwrap();
    for at in 0..1_u64 << 18 {
        mem.write_obj(byte_at(at), GuestAddress(at)).unwrap();
    }
    // Down through memory: a short segment at each end, a long one in the middle.
    let entries = [
        entry(0x3f001, 700),
        entry(0x30000, 4096),
        entry(0x20000, 0x8000),
        entry(0x10000, 4095),
        entry(7, 513),
    ];
    let backing = Backing::new(&entries, &mem).unwrap();
    let len = usize::try_from(backing.len()).unwrap();
    let rows = Rows {
        offset: 0,
        stride: backing.len(),
        len,
        count: 1,
    };
    let mut copy = vec![0; len];
    backing.read_rows(&mem, rows, &mut copy, len).unwrap();
    let expected = entries.iter().flat_map(|entry| {
        let start = entry.addr.get();
        (start..start + u64::from(entry.length.get())).map(byte_at)
    });
    assert!(copy.into_iter().eq(expected));
}
