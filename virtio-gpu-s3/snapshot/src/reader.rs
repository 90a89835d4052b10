// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A file that anybody may have written.

use std::io::{Error as IoError, ErrorKind, Read, Seek, SeekFrom};

use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::layout::{Entry, FORMAT, Header, Kind, MAGIC, MAX_SECTIONS, PAGE, page_from};

/// A file that is no snapshot, or no whole one.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The host cannot read it.
    #[error("the file could not be read")]
    Io(#[from] IoError),
    /// It does not begin as one does: it is something else, or was never finished.
    #[error("the file is no snapshot, or was not finished")]
    NoSnapshot,
    /// A layout that this crate does not read.
    #[error("layout {found} of a snapshot is not known; {FORMAT} is")]
    Format {
        /// The layout.
        found: u32,
    },
    /// Part of it is not what was written.
    #[error("{what} of the snapshot is damaged")]
    Damaged {
        /// Which part.
        what: &'static str,
    },
    /// A section is not what was written.
    #[error("section {index} ({kind}) of the snapshot is damaged")]
    Section {
        /// Its place in the table.
        index: usize,
        /// What it says it is.
        kind: Kind,
    },
    /// The table cannot be.
    #[error("entry {index} of the snapshot's table: {what}")]
    Entry {
        /// Which.
        index: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// There is more than a file may have.
    #[error("{what} are {asked}, and at most {most} can be")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// How many.
        asked: u64,
        /// How many there may be.
        most: u64,
    },
}

/// A section, as the table has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// What it is.
    pub kind: Kind,
    /// Which version of that.
    pub version: u32,
    /// Where it begins.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    checksum: u64,
}

/// A file whose table is in order.
#[derive(Debug)]
pub struct Snapshot<R> {
    file: R,
    sections: Vec<Section>,
}

impl<R: Read + Seek> Snapshot<R> {
    /// Reads the table. Nothing larger than the file is allocated.
    ///
    /// # Errors
    /// It is no snapshot, or not as it was written.
    pub fn open(mut file: R) -> Result<Self, ReadError> {
        let length = file.seek(SeekFrom::End(0))?;
        let header = read_header(&mut file)?;
        if header.length.get() != length {
            return Err(ReadError::Damaged { what: "the length" });
        }
        let count = header.sections.get() as usize;
        if count > MAX_SECTIONS {
            return Err(ReadError::TooMuch {
                what: "sections",
                asked: count as u64,
                most: MAX_SECTIONS as u64,
            });
        }
        let (table, size) = (header.table.get(), size_of::<Entry>() as u64);
        let end = size
            .checked_mul(count as u64)
            .and_then(|bytes| bytes.checked_add(table));
        if end != Some(length) || table < PAGE {
            return Err(ReadError::Damaged { what: "the table" });
        }
        file.seek(SeekFrom::Start(table))?;
        let mut entries = vec![Entry::new_zeroed(); count];
        file.read_exact(entries.as_mut_bytes())?;
        if xxh3_64(entries.as_bytes()) != header.table_checksum.get() {
            return Err(ReadError::Damaged { what: "the table" });
        }
        let sections = check_entries(&entries, table)?;
        Ok(Self { file, sections })
    }

    /// All sections, in the order in which they were written.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The bytes of a section.
    ///
    /// # Errors
    /// There is none at `index`, it is longer than `most`, or not what was written.
    pub fn read(&mut self, index: usize, most: u64) -> Result<Vec<u8>, ReadError> {
        let section = self.sections.get(index).copied();
        let missing = ReadError::Damaged {
            what: "the number of sections",
        };
        let section = section.ok_or(missing)?;
        let refused = ReadError::TooMuch {
            what: "bytes of a section",
            asked: section.length,
            most,
        };
        let length = usize::try_from(section.length).ok();
        let Some(length) = length.filter(|_| section.length <= most) else {
            return Err(refused);
        };
        self.file.seek(SeekFrom::Start(section.offset))?;
        let mut bytes = vec![0; length];
        self.file.read_exact(&mut bytes)?;
        if xxh3_64(&bytes) != section.checksum {
            let kind = section.kind;
            return Err(ReadError::Section { index, kind });
        }
        Ok(bytes)
    }
}

fn read_header(file: &mut (impl Read + Seek)) -> Result<Header, ReadError> {
    file.seek(SeekFrom::Start(0))?;
    let mut bytes = [0; size_of::<Header>()];
    file.read_exact(&mut bytes).map_err(|error| {
        if error.kind() == ErrorKind::UnexpectedEof {
            ReadError::NoSnapshot
        } else {
            error.into()
        }
    })?;
    let header = Header::read_from_bytes(&bytes).map_err(|_| ReadError::NoSnapshot)?;
    if header.magic != MAGIC {
        return Err(ReadError::NoSnapshot);
    }
    // Before the checksum: another layout may have another one.
    let found = header.format.get();
    if found != FORMAT {
        return Err(ReadError::Format { found });
    }
    if header.checksum.get() != header.own_checksum() {
        return Err(ReadError::Damaged { what: "the header" });
    }
    Ok(header)
}

/// Sections lie one behind the other on whole pages, with less than a page between two.
fn check_entries(entries: &[Entry], table: u64) -> Result<Vec<Section>, ReadError> {
    let mut next = Some(PAGE);
    let mut sections = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let refuse = |what| Err(ReadError::Entry { index, what });
        if !entry.kind.is_proper() {
            return refuse("it has no kind");
        }
        if entry.reserved.get() != 0 {
            return refuse("it has something where nothing is known");
        }
        let (offset, length) = (entry.offset.get(), entry.length.get());
        if Some(offset) != next {
            return refuse("it does not begin where the one before it ends");
        }
        next = offset.checked_add(length).and_then(page_from);
        if next.is_none_or(|next| next > table) {
            return refuse("it ends behind the table");
        }
        sections.push(Section {
            kind: entry.kind,
            version: entry.version.get(),
            offset,
            length,
            checksum: entry.checksum.get(),
        });
    }
    if next != Some(table) {
        return Err(ReadError::Damaged { what: "the table" });
    }
    Ok(sections)
}
