// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A file is written from front to back, but for its first bytes.

use std::io::{Error as IoError, Seek, SeekFrom, Write};
use std::mem;

use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;
use zerocopy::IntoBytes;

use crate::layout::{Entry, FORMAT, Header, Kind, MAGIC, MAX_SECTIONS, PAGE, page_from};

/// A file that was not written.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The host has no room, or whatever else it says.
    #[error("the file could not be written")]
    Io(#[from] IoError),
    /// There is more than a file may have, which nobody would read.
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

/// Writes a file's sections.
#[derive(Debug)]
pub struct Writer<W> {
    file: W,
    /// Bytes written.
    at: u64,
    table: Vec<Entry>,
}

impl<W: Write + Seek> Writer<W> {
    /// A file without sections.
    ///
    /// # Errors
    /// It cannot be written to.
    pub fn new(mut file: W) -> Result<Self, WriteError> {
        file.seek(SeekFrom::Start(PAGE))?;
        Ok(Self {
            file,
            at: PAGE,
            table: Vec::new(),
        })
    }

    /// Adds a section, straight from where its bytes are.
    ///
    /// # Errors
    /// It cannot be written, or there are too many.
    pub fn section(&mut self, kind: Kind, version: u32, bytes: &[u8]) -> Result<(), WriteError> {
        let (asked, most) = (self.table.len(), MAX_SECTIONS);
        if asked >= most {
            return Err(WriteError::TooMuch {
                what: "sections",
                asked: (asked as u64).saturating_add(1),
                most: most as u64,
            });
        }
        self.pad()?;
        self.table.push(Entry {
            kind,
            version: version.into(),
            reserved: 0.into(),
            offset: self.at.into(),
            length: (bytes.len() as u64).into(),
            checksum: xxh3_64(bytes).into(),
        });
        self.write(bytes)
    }

    /// Ends the file, which is one only from then on; gives it as it is, in no particular place.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self) -> Result<W, WriteError> {
        self.pad()?;
        let table = self.at;
        let entries = mem::take(&mut self.table);
        self.write(entries.as_bytes())?;
        let mut header = Header {
            magic: MAGIC,
            format: FORMAT.into(),
            sections: u32::try_from(entries.len()).unwrap_or(u32::MAX).into(),
            table: table.into(),
            length: self.at.into(),
            table_checksum: xxh3_64(entries.as_bytes()).into(),
            checksum: 0.into(),
        };
        header.checksum = header.own_checksum().into();
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(header.as_bytes())?;
        self.file.flush()?;
        Ok(self.file)
    }

    fn pad(&mut self) -> Result<(), WriteError> {
        let next = page_from(self.at).ok_or_else(full)?;
        if next != self.at {
            self.file.seek(SeekFrom::Start(next))?;
            self.at = next;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.file.write_all(bytes)?;
        let at = self.at.checked_add(bytes.len() as u64);
        self.at = at.ok_or_else(full)?;
        Ok(())
    }
}

fn full() -> WriteError {
    let most = u64::MAX;
    WriteError::TooMuch {
        what: "bytes",
        asked: most,
        most,
    }
}
