// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pictures, compared pixel for pixel.

use std::fmt;
use std::fs;
use std::io::Cursor;
use std::path::Path;

use anyhow::{Context, Result, bail};
use guest_agent::{pattern, scene};
use png::{ColorType, Decoder, Transformations};

/// A picture of opaque pixels.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Row by row, 0x00RRGGBB.
    pub pixels: Vec<u32>,
}

impl Image {
    /// What [`guest_agent::protocol::Command::Draw`] leaves on a screen of this size.
    pub fn of_pattern(seed: u32, width: u32, height: u32) -> Self {
        let pixels = (0..height)
            .flat_map(|y| (0..width).map(move |x| pattern::pattern(seed, x, y)))
            .collect();
        Self {
            width,
            height,
            pixels,
        }
    }

    /// Reads a PNG file.
    ///
    /// # Errors
    /// It is no PNG of RGB or RGBA pixels.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        Self::decode(&bytes).with_context(|| format!("decode {}", path.display()))
    }

    /// Reads the bytes of a PNG file.
    ///
    /// # Errors
    /// As [`Image::read`].
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut decoder = Decoder::new(Cursor::new(bytes));
        decoder.set_transformations(Transformations::normalize_to_color8());
        let mut reader = decoder.read_info()?;
        let mut buffer = vec![0; reader.output_buffer_size().context("picture too large")?];
        let frame = reader.next_frame(&mut buffer)?;
        let bytes_per_pixel = match frame.color_type {
            ColorType::Rgb => 3,
            ColorType::Rgba => 4,
            other => bail!("{other:?} pixels"),
        };
        let pixels = buffer
            .get(..frame.buffer_size())
            .context("short picture")?
            .chunks_exact(bytes_per_pixel)
            .map(|pixel| u32::from_be_bytes([0, pixel[0], pixel[1], pixel[2]]))
            .collect();
        Ok(Self {
            width: frame.width,
            height: frame.height,
            pixels,
        })
    }

    /// What an OpenGL client says of a frame that looks like this.
    pub fn hash(&self) -> u64 {
        let colours = self.pixels.iter();
        scene::hash(colours.flat_map(|pixel| pixel.to_be_bytes().into_iter().skip(1)))
    }

    /// Whether no pixel is lit.
    pub fn is_black(&self) -> bool {
        self.pixels.iter().all(|&pixel| pixel == 0)
    }

    /// Compares with the picture that ought to be there.
    ///
    /// # Errors
    /// They differ; the error names the first pixel that does and how many do.
    pub fn must_be(&self, expected: &Self) -> Result<()> {
        if (self.width, self.height) != (expected.width, expected.height) {
            bail!("the picture is {self:?}, expected {expected:?}");
        }
        let differing = || {
            self.pixels
                .iter()
                .zip(&expected.pixels)
                .zip(0u32..)
                .filter(|((is, ought), _)| is != ought)
        };
        match differing().next() {
            None => Ok(()),
            Some(((is, ought), index)) => bail!(
                "{} of {} pixels differ, first ({}, {}): is {is:06x}, expected {ought:06x}",
                differing().count(),
                self.pixels.len(),
                index % self.width,
                index / self.width,
            ),
        }
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let black = if self.is_black() { ", black" } else { "" };
        write!(formatter, "Image({}x{}{black})", self.width, self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(image: &Image) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, image.width, image.height);
        encoder.set_color(ColorType::Rgb);
        let rgb: Vec<u8> = image
            .pixels
            .iter()
            .flat_map(|pixel| pixel.to_be_bytes().into_iter().skip(1))
            .collect();
        encoder
            .write_header()
            .unwrap()
            .write_image_data(&rgb)
            .unwrap();
        bytes
    }

    #[test]
    fn a_picture_survives_its_png() {
        let image = Image::of_pattern(5, 33, 9);
        Image::decode(&encode(&image))
            .unwrap()
            .must_be(&image)
            .unwrap();
    }

    #[test]
    fn one_wrong_pixel_is_found_and_named() {
        let image = Image::of_pattern(5, 10, 10);
        let mut wrong = image.clone();
        wrong.pixels[23] ^= 1;
        let error = wrong.must_be(&image).unwrap_err().to_string();
        assert!(
            error.starts_with("1 of 100 pixels differ, first (3, 2)"),
            "{error}"
        );
    }

    #[test]
    fn pictures_of_different_shape_differ_even_with_the_same_pixels() {
        let wide = Image {
            width: 4,
            height: 1,
            pixels: vec![0; 4],
        };
        let tall = Image {
            width: 1,
            height: 4,
            pixels: vec![0; 4],
        };
        assert!(wide.must_be(&tall).is_err());
    }
}
