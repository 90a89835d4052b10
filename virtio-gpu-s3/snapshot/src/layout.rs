// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The bytes of a file that are not a section's. All numbers are little-endian.

use std::fmt;

use xxhash_rust::xxh3::xxh3_64;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The first bytes of a file: no text, and not what a transfer of text leaves of it.
pub(crate) const MAGIC: [u8; 8] = *b"\x89VGPUS3\n";
/// The layout written, and the only one read.
pub const FORMAT: u32 = 1;
/// Sections begin at multiples of this many bytes, so that pixels can be mapped.
pub const PAGE: u64 = 4096;
/// Sections of a file: eight pictures for each resource that a guest may have unless told otherwise.
pub const MAX_SECTIONS: usize = 1 << 17;
/// Bytes of a section that is text. A backing of scattered pages takes some 20 for each.
pub const MAX_STATE_BYTES: u64 = 256 << 20;
/// Bytes of a section of pixels: the largest picture there is.
pub const MAX_PIXEL_BYTES: u64 = 4 << 30;

/// What a section is, as it says itself: up to 32 printable characters of ASCII.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Kind([u8; 32]);

impl Kind {
    /// The kind of that name; `None` if it has no such form.
    pub const fn new(name: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        let mut rest = name.as_bytes();
        let mut room = bytes.as_mut_slice();
        while let ([first, behind @ ..], [place, more @ ..]) = (rest, room) {
            if !first.is_ascii_graphic() {
                return None;
            }
            *place = *first;
            (rest, room) = (behind, more);
        }
        if rest.is_empty() && !name.is_empty() {
            Some(Self(bytes))
        } else {
            None
        }
    }

    /// Whether it could have been made by [`new`](Self::new).
    pub(crate) fn is_proper(self) -> bool {
        let named = self.0.iter().take_while(|byte| **byte != 0).count();
        let (name, padding) = self.0.split_at_checked(named).unwrap_or_default();
        named > 0 && name.iter().all(u8::is_ascii_graphic) && padding.iter().all(|byte| *byte == 0)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.split(|byte| *byte == 0).next().unwrap_or_default();
        write!(f, "{}", name.escape_ascii())
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kind({self})")
    }
}

/// The first bytes. They are written last, so that a file that was not finished has none.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Header {
    pub(crate) magic: [u8; 8],
    pub(crate) format: U32,
    pub(crate) sections: U32,
    /// Where the table begins, which is the last thing in the file.
    pub(crate) table: U64,
    /// Bytes of the file.
    pub(crate) length: U64,
    pub(crate) table_checksum: U64,
    /// Of all before it.
    pub(crate) checksum: U64,
}

impl Header {
    /// What its checksum has to be.
    pub(crate) fn own_checksum(&self) -> u64 {
        let bytes = self.as_bytes();
        let behind = bytes.len().saturating_sub(size_of::<U64>());
        xxh3_64(bytes.get(..behind).unwrap_or_default())
    }
}

/// An entry of the table: one for each section, in the order in which they lie in the file.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) version: U32,
    /// Zero.
    pub(crate) reserved: U32,
    pub(crate) offset: U64,
    pub(crate) length: U64,
    pub(crate) checksum: U64,
}

/// The first multiple of [`PAGE`] from there on.
pub(crate) fn page_from(offset: u64) -> Option<u64> {
    offset.checked_next_multiple_of(PAGE)
}
