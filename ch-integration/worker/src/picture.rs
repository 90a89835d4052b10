// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Pictures of scanouts, as PNG.

use std::io::{Error as IoError, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use host_util::replaced_file::replace_file;
use png::{BitDepth, ColorType, Encoder, EncodingError};
use thiserror::Error;
use virtio_gpu_s3::{ConfigError, Image, LookError, Picture};

use crate::answer::NoAnswer;

/// A picture that could not be written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PictureError {
    /// No such scanout.
    #[error("There is no scanout {scanout}")]
    NoScanout {
        /// Its number.
        scanout: u32,
    },
    /// What it shows cannot be read, from the guest's memory or the renderer.
    #[error("Cannot read the picture")]
    Look(#[source] LookError),
    /// The file could not be made.
    #[error("Cannot write '{}'", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: IoError,
    },
    /// There are too many already.
    #[error(transparent)]
    TooMany(#[from] TooManyPictures),
    /// The device does not answer.
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
}

impl From<LookError> for PictureError {
    fn from(error: LookError) -> Self {
        match error {
            LookError::NoSuchScanout { id: scanout } => Self::NoScanout { scanout },
            error => Self::Look(error),
        }
    }
}

/// Bytes of all pictures under way within one [`PictureLimit`]. One that is larger goes alone.
pub const MAX_PICTURE_BYTES: u64 = 256 << 20;
/// Pictures under way within one [`PictureLimit`]: each may have a thread that writes it.
pub const MAX_PICTURES: usize = 8;

/// No picture more can be had for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "{pictures} pictures of {bytes} bytes are under way, and no more than {MAX_PICTURES} or {MAX_PICTURE_BYTES} bytes may be"
)]
pub struct TooManyPictures {
    /// How many there are.
    pub pictures: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// What a scanout showed at one moment. Where it was asked for within a limit it counts until it is dropped.
#[derive(Debug)]
pub struct Screenshot {
    /// The picture; black where the scanout is disabled.
    pub image: Image,
    /// Whether the scanout shows a resource.
    pub active: bool,
    _room: Option<Room>,
}

impl Screenshot {
    /// A copy of what a viewer sees, if there is room for it.
    pub(crate) fn of(
        picture: &Picture<'_>,
        cursor: bool,
        limit: Option<&PictureLimit>,
    ) -> Result<Self, TooManyPictures> {
        let (width, height) = picture.size;
        let bytes = u64::from(width) * u64::from(height) * 4;
        let room = limit.map(|limit| limit.admit(bytes)).transpose()?;
        Ok(Self {
            image: picture.to_image(cursor),
            active: picture.frame.is_some(),
            _room: room,
        })
    }
}

/// How many pictures somebody may have under way at a time, and of how many bytes.
#[derive(Clone, Debug, Default)]
pub struct PictureLimit(Arc<Mutex<(usize, u64)>>);

impl PictureLimit {
    fn admit(&self, more: u64) -> Result<Room, TooManyPictures> {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (pictures, bytes) = *used;
        let fits = pictures < MAX_PICTURES && bytes.saturating_add(more) <= MAX_PICTURE_BYTES;
        if pictures > 0 && !fits {
            return Err(TooManyPictures { pictures, bytes });
        }
        *used = (pictures + 1, bytes.saturating_add(more));
        Ok(Room {
            of: self.clone(),
            bytes: more,
        })
    }
}

/// One picture's part of what may be under way.
#[derive(Debug)]
struct Room {
    of: PictureLimit,
    bytes: u64,
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut used = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (pictures, bytes) = *used;
        *used = (pictures.saturating_sub(1), bytes.saturating_sub(self.bytes));
    }
}

/// An output that cannot have a size.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ResizeError {
    /// There is no such output, or no such size.
    #[error(transparent)]
    Output(#[from] ConfigError),
    /// The device does not answer.
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
}

/// Writes `image` as an 8-bit RGB PNG, a row at a time. What a scanout shows has no transparency.
///
/// # Errors
/// The writer's.
pub fn encode_png(image: &Image, writer: impl Write) -> Result<(), EncodingError> {
    let mut encoder = Encoder::new(writer, image.width, image.height);
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    let mut rows = writer.stream_writer()?;
    let mut row = Vec::new();
    let row_bytes = (image.width as usize).saturating_mul(4).max(1);
    for pixels in image.pixels.chunks_exact(row_bytes) {
        row.clear();
        let (pixels, _) = pixels.as_chunks::<4>();
        row.extend(
            pixels
                .iter()
                .flat_map(|&[red, green, blue, _]| [red, green, blue]),
        );
        rows.write_all(&row)?;
    }
    rows.finish()?;
    writer.finish()
}

/// Writes `image` to a file, which is replaced when the picture is whole: see [`replace_file`].
///
/// # Errors
/// The file cannot be made or written; what was there stays.
pub fn save_png(image: &Image, path: &Path) -> Result<(), PictureError> {
    let written = replace_file(path, |file| encode_png(image, file).map_err(IoError::from));
    written.map_err(|source| PictureError::File {
        path: path.into(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_under_way_have_a_limit_and_a_large_one_goes_alone() {
        let limit = PictureLimit::default();
        let large = limit.admit(MAX_PICTURE_BYTES * 4).unwrap();
        let refused = limit.admit(1).unwrap_err();
        assert_eq!(
            (refused.pictures, refused.bytes),
            (1, MAX_PICTURE_BYTES * 4)
        );
        drop(large);
        let half = limit.admit(MAX_PICTURE_BYTES / 2).unwrap();
        let other = limit.admit(MAX_PICTURE_BYTES / 2).unwrap();
        limit.admit(1).unwrap_err();
        drop((half, other));
        let small: Vec<_> = (0..MAX_PICTURES).map(|_| limit.admit(4).unwrap()).collect();
        limit.admit(4).unwrap_err();
        drop(small);
        assert_eq!(*limit.0.lock().unwrap(), (0, 0));
    }
}
