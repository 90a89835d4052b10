// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A file is there whole or not at all.

use std::fs::File;
use std::io::{BufWriter, Error as IoError};
use std::path::{Path, PathBuf};

use tempfile::Builder;

use crate::writer::{WriteError, Writer};

/// How much is gathered before it is written; what is longer is written as it is.
const BUFFER: usize = 64 << 10;

/// Writes a snapshot beside `path`, and puts it in its place once it is on the disk; what was there before is replaced.
/// Nobody but its owner can read it, as it has what a guest's screen shows.
///
/// # Errors
/// It cannot be written, or `fill` cannot; what was at `path` is still there.
pub fn write_file<E: From<WriteError>>(
    path: &Path,
    fill: impl FnOnce(&mut Writer<BufWriter<File>>) -> Result<(), E>,
) -> Result<(), E> {
    let io = |error: IoError| E::from(WriteError::from(error));
    let folder = folder_of(path);
    let beside = Builder::new().prefix(".snapshot-").tempfile_in(&folder);
    let (file, beside) = beside.map_err(io)?.into_parts();
    let mut writer = Writer::new(BufWriter::with_capacity(BUFFER, file))?;
    fill(&mut writer)?;
    let file = writer.finish()?.into_inner();
    let file = file.map_err(|error| io(error.into_error()))?;
    file.sync_all().map_err(io)?;
    beside.persist(path).map_err(|error| io(error.error))?;
    // The name is on the disk with the folder that has it.
    let named = File::open(&folder).and_then(|folder| folder.sync_all());
    named.map_err(io)
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}
