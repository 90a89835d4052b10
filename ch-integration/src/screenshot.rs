// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Pictures of scanouts, as PNG.

use std::fs::File;
use std::io::{BufWriter, Error as IoError, Write};
use std::path::{Path, PathBuf};

use png::{BitDepth, ColorType, Encoder, EncodingError};
use thiserror::Error;
use virtio_gpu_s3::Image;

/// A picture that could not be written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ScreenshotError {
    /// No such scanout.
    #[error("There is no scanout {scanout}")]
    NoScanout {
        /// Its number.
        scanout: u32,
    },
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
    /// The device's thread is gone.
    #[error("The device has stopped")]
    Stopped,
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
pub(crate) fn save_png(image: &Image, path: &Path) -> Result<(), ScreenshotError> {
    let at = |source| ScreenshotError::File {
        path: path.into(),
        source,
    };
    let mut file = BufWriter::new(File::create(path).map_err(at)?);
    encode_png(image, &mut file).map_err(ScreenshotError::Encode)?;
    file.flush().map_err(at)
}
