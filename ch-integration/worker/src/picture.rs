// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Pictures of scanouts, as PNG.

use std::fs::File;
use std::io::{BufWriter, Error as IoError, Write};
use std::path::{Path, PathBuf};

use png::{BitDepth, ColorType, Encoder, EncodingError};
use thiserror::Error;
use virtio_gpu_s3::{ConfigError, Image, LookError};

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
    /// The encoder failed.
    #[error("Cannot encode the picture")]
    Encode(#[source] EncodingError),
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

/// What a scanout showed at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Screenshot {
    /// The picture; black where the scanout is disabled.
    pub image: Image,
    /// Whether the scanout shows a resource.
    pub active: bool,
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

/// Writes `image` as an 8-bit RGB PNG. What a scanout shows has no transparency.
///
/// # Errors
/// The writer's.
pub fn encode_png(image: &Image, writer: impl Write) -> Result<(), EncodingError> {
    let mut encoder = Encoder::new(writer, image.width, image.height);
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    let rgb: Vec<u8> = image
        .pixels
        .chunks_exact(4)
        .flat_map(|pixel| [pixel[0], pixel[1], pixel[2]])
        .collect();
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&rgb)?;
    writer.finish()
}

/// Writes `image` to a file.
///
/// # Errors
/// The file cannot be made or written.
pub fn save_png(image: &Image, path: &Path) -> Result<(), PictureError> {
    let at = |source| PictureError::File {
        path: path.into(),
        source,
    };
    let mut file = BufWriter::new(File::create(path).map_err(at)?);
    encode_png(image, &mut file).map_err(PictureError::Encode)?;
    file.flush().map_err(at)
}
