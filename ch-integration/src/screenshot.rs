// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Pictures of scanouts, as PNG.

use std::fs::File;
use std::io::{BufWriter, Error as IoError, Write};
use std::path::{Path, PathBuf};

use png::{BitDepth, ColorType, Encoder, EncodingError};
use thiserror::Error;
use virtio_gpu_s3::Image;

use crate::device::GpuDevice;

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

/// Writes what every active output shows, with its cursor, as a person would have seen it: to `path`, or where the
/// device has several outputs to names with their numbers in them, such as `screen-1.png`. An output that shows nothing
/// leaves its file as it is. Returns how many were written.
///
/// # Errors
/// One cannot be had or written; those before it are.
pub fn save_screens(device: &GpuDevice, path: &Path) -> Result<usize, ScreenshotError> {
    let status = device.status().ok_or(ScreenshotError::Stopped)?;
    let several = status.scanouts.len() > 1;
    let active = status.scanouts.iter().filter(|scanout| scanout.active);
    let mut written = 0;
    for scanout in active {
        let id = u32::try_from(scanout.id).unwrap_or(u32::MAX);
        let image = device.screenshot(id, true)?;
        let target = if several {
            numbered(path, id)
        } else {
            path.into()
        };
        save_png(&image, &target)?;
        written += 1;
    }
    Ok(written)
}

fn numbered(path: &Path, id: u32) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_os_string();
    name.push(format!("-{id}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_output_has_a_file_of_its_own() {
        for (path, expected) in [
            ("/tmp/screen.png", "/tmp/screen-3.png"),
            ("screen", "screen-3"),
            ("a.b/screen.of.mine.png", "a.b/screen.of.mine-3.png"),
        ] {
            assert_eq!(numbered(Path::new(path), 3), Path::new(expected));
        }
    }
}
