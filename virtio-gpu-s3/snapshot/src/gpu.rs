// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A GPU: one section of what it is, and one of each picture's pixels behind it.

use std::io::{Read, Seek, Write};

use serde_json::Error as JsonError;
use thiserror::Error;
use virtio_gpu_s3::Gpu;
use virtio_gpu_s3::saved_state::{KIND, SaveError, SavedGpu, VERSION};

use crate::layout::{Kind, MAX_PIXEL_BYTES, MAX_STATE_BYTES};
use crate::reader::{ReadError, Section, Snapshot};
use crate::writer::{WriteError, Writer};

/// The kind of a section that is pixels, rows without gaps.
pub const PIXELS: &str = "virtio-gpu-s3/pixels";
/// The version of those that is written, and the only one read.
const PIXELS_VERSION: u32 = 1;

const GPU_KIND: Option<Kind> = Kind::new(KIND);
const PIXELS_KIND: Option<Kind> = Kind::new(PIXELS);
const _: () = assert!(GPU_KIND.is_some() && PIXELS_KIND.is_some());

/// A GPU that was not written.
#[derive(Debug, Error)]
pub enum WriteGpuError {
    /// It cannot be saved as it is.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// It has no text.
    #[error("the device has no text")]
    Text(#[from] JsonError),
}

/// A GPU that was not read.
#[derive(Debug, Error)]
pub enum ReadGpuError {
    /// The file is not in order.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There is a section that nobody here reads, or not where it is.
    #[error(
        "section {index} is version {version} of '{kind}', where version {expected_version} of '{expected}' is read"
    )]
    Unknown {
        /// Its place in the table.
        index: usize,
        /// What it is.
        kind: Kind,
        /// Which version.
        version: u32,
        /// What would be read.
        expected: &'static str,
        /// Which version of it.
        expected_version: u32,
    },
    /// Sections are missing, or nobody needs them.
    #[error("there are {found} sections, and {needed} are needed")]
    Count {
        /// How many there are.
        found: usize,
        /// How many are needed.
        needed: usize,
    },
    /// The text says no device.
    #[error("the text is no device's")]
    Text(#[from] JsonError),
}

/// Writes a device, pixels from where it has them: one section of text, which comes after those of its pixels.
///
/// # Errors
/// It cannot be saved as it is, or not be written.
pub fn write_gpu<W: Write + Seek>(writer: &mut Writer<W>, gpu: &Gpu) -> Result<(), WriteGpuError> {
    let (Some(kind), Some(pixels)) = (GPU_KIND, PIXELS_KIND) else {
        return Ok(());
    };
    let mut written = Ok(());
    let saved = gpu.save_apart(|bytes| {
        if written.is_ok() {
            written = writer.section(pixels, PIXELS_VERSION, bytes);
        }
    })?;
    written?;
    let text = serde_json::to_vec(&saved)?;
    if text.len() as u64 > MAX_STATE_BYTES {
        return Err(WriteGpuError::Write(WriteError::TooMuch {
            what: "bytes of the device's text",
            asked: text.len() as u64,
            most: MAX_STATE_BYTES,
        }));
    }
    Ok(writer.section(kind, saved.version, &text)?)
}

/// Reads a device that is all of a file, and checks all of the file.
///
/// What the device is may still be impossible: [`Gpu::restore`] looks.
///
/// # Errors
/// The file is not in order, or has what nobody here reads.
pub fn read_gpu<R: Read + Seek>(snapshot: &mut Snapshot<R>) -> Result<SavedGpu, ReadGpuError> {
    let found = snapshot.sections().len();
    let Some(last) = found.checked_sub(1) else {
        return Err(ReadGpuError::Count { found, needed: 1 });
    };
    expect(snapshot.sections(), last, KIND, VERSION)?;
    let text = snapshot.read(last, MAX_STATE_BYTES)?;
    let mut saved: SavedGpu = serde_json::from_slice(&text)?;
    drop(text);
    let needed = saved.pictures_mut().count().saturating_add(1);
    if found != needed {
        return Err(ReadGpuError::Count { found, needed });
    }
    for (index, picture) in saved.pictures_mut().enumerate() {
        expect(snapshot.sections(), index, PIXELS, PIXELS_VERSION)?;
        picture.bytes = snapshot.read(index, MAX_PIXEL_BYTES)?;
    }
    Ok(saved)
}

fn expect(
    sections: &[Section],
    index: usize,
    expected: &'static str,
    expected_version: u32,
) -> Result<(), ReadGpuError> {
    let section = sections.get(index);
    match section {
        Some(section)
            if Kind::new(expected) == Some(section.kind) && section.version == expected_version =>
        {
            Ok(())
        }
        Some(&Section { kind, version, .. }) => Err(ReadGpuError::Unknown {
            index,
            kind,
            version,
            expected,
            expected_version,
        }),
        None => Err(ReadGpuError::Count {
            found: sections.len(),
            needed: index.saturating_add(1),
        }),
    }
}
