// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The eight pixel formats of VIRTIO 1.4 §5.7.6.8, and images in one of them.

use crate::error::GuestError;
use crate::geometry::Rect;
use crate::protocol::Format;

/// Bytes of a pixel: the same in every format of the standard.
pub const BYTES_PER_PIXEL: usize = 4;

/// A format this device can show: where each component lies in a pixel's four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PixelFormat {
    format: Format,
    red: u8,
    green: u8,
    blue: u8,
    alpha: Option<u8>,
}

impl PixelFormat {
    /// Blue, green, red, alpha: the byte order of most displays and of Linux' cursors.
    pub const BGRA: Self = Self::new(Format::B8G8R8A8_UNORM, 2, 1, 0, Some(3));
    /// Blue, green, red, unused: Linux' console.
    pub const BGRX: Self = Self::new(Format::B8G8R8X8_UNORM, 2, 1, 0, None);
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::BGRA,
        Self::BGRX,
        Self::new(Format::A8R8G8B8_UNORM, 1, 2, 3, Some(0)),
        Self::new(Format::X8R8G8B8_UNORM, 1, 2, 3, None),
        Self::new(Format::R8G8B8A8_UNORM, 0, 1, 2, Some(3)),
        Self::new(Format::X8B8G8R8_UNORM, 3, 2, 1, None),
        Self::new(Format::A8B8G8R8_UNORM, 3, 2, 1, Some(0)),
        Self::new(Format::R8G8B8X8_UNORM, 0, 1, 2, None),
    ];

    const fn new(format: Format, red: u8, green: u8, blue: u8, alpha: Option<u8>) -> Self {
        Self {
            format,
            red,
            green,
            blue,
            alpha,
        }
    }

    /// The standard's number.
    pub const fn format(self) -> Format {
        self.format
    }

    /// True if pixels carry an alpha component.
    pub const fn has_alpha(self) -> bool {
        self.alpha.is_some()
    }

    /// Red, green, blue and alpha (255 without an alpha component) of one pixel.
    pub fn to_rgba(self, pixel: [u8; BYTES_PER_PIXEL]) -> [u8; 4] {
        let at = |index: u8| pixel.get(usize::from(index)).copied().unwrap_or_default();
        [
            at(self.red),
            at(self.green),
            at(self.blue),
            self.alpha.map_or(u8::MAX, at),
        ]
    }
}

impl TryFrom<Format> for PixelFormat {
    type Error = GuestError;

    fn try_from(format: Format) -> Result<Self, GuestError> {
        Self::ALL
            .into_iter()
            .find(|known| known.format == format)
            .ok_or(GuestError::Parameter {
                field: "format",
                value: format.0.into(),
            })
    }
}

/// A view of a scanout's pixels as they lie in memory.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Bytes from one row to the next.
    pub stride: usize,
    /// Order of the components.
    pub format: PixelFormat,
    /// From the first byte of the first row to the last byte of the last row.
    pub pixels: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The bytes of row `y`, `None` below the last.
    pub fn row(&self, y: u32) -> Option<&'a [u8]> {
        if y >= self.height {
            return None;
        }
        let start = (y as usize).checked_mul(self.stride)?;
        let end = start.checked_add(row_bytes(self.width))?;
        self.pixels.get(start..end)
    }

    /// The part of the frame under `rect`, `None` if it is not all inside.
    pub fn part(&self, rect: Rect) -> Option<Self> {
        rect.check_inside(self.width, self.height).ok()?;
        let start = (rect.y as usize)
            .checked_mul(self.stride)?
            .checked_add(row_bytes(rect.x))?;
        Some(Self {
            width: rect.width,
            height: rect.height,
            pixels: self.pixels.get(start..).unwrap_or_default(),
            ..*self
        })
    }

    /// Copies its rows to where they begin so many bytes apart.
    pub(crate) fn copy_to(&self, target: &mut [u8], stride: usize) {
        for (target, y) in target.chunks_mut(stride.max(1)).zip(0..) {
            let Some(row) = self.row(y) else { break };
            if let Some(target) = target.get_mut(..row.len()) {
                target.copy_from_slice(row);
            }
        }
    }

    /// A copy in red, green, blue, alpha order. Alpha is opaque: nothing lies behind a scanout.
    pub fn to_image(&self) -> Image {
        let mut image = Image::black(self.width, self.height);
        let rows = image.pixels.chunks_exact_mut(row_bytes(self.width).max(1));
        for (row, y) in rows.zip(0..) {
            let Some(source) = self.row(y) else { break };
            let (source, _) = source.as_chunks::<BYTES_PER_PIXEL>();
            let (target, _) = row.as_chunks_mut::<BYTES_PER_PIXEL>();
            for (to, from) in target.iter_mut().zip(source) {
                let [red, green, blue, _] = self.format.to_rgba(*from);
                *to = [red, green, blue, u8::MAX];
            }
        }
        image
    }
}

/// An image of its own, for screenshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Red, green, blue, alpha of each pixel, row by row without gaps.
    pub pixels: Vec<u8>,
}

impl Image {
    /// An opaque black image.
    pub fn black(width: u32, height: u32) -> Self {
        let pixels = (width as usize).saturating_mul(height as usize);
        Self {
            width,
            height,
            pixels: [0, 0, 0, u8::MAX].repeat(pixels),
        }
    }

    /// Red, green, blue and alpha at `x`, `y`, `None` outside.
    pub fn pixel(&self, x: u32, y: u32) -> Option<[u8; 4]> {
        if x >= self.width {
            return None;
        }
        let index = (y as usize)
            .checked_mul(self.width as usize)?
            .checked_add(x as usize)?;
        self.pixels
            .as_chunks::<BYTES_PER_PIXEL>()
            .0
            .get(index)
            .copied()
    }

    /// Draws `cursor`, whose colours are already multiplied by alpha as DRM hands them over, with
    /// its corner at `left`, `top`.
    pub(crate) fn blend(&mut self, cursor: &Frame<'_>, left: i64, top: i64) {
        let Self {
            width,
            height: _,
            pixels,
        } = self;
        let width = *width as usize;
        let (pixels, _) = pixels.as_chunks_mut::<BYTES_PER_PIXEL>();
        for (row, y) in pixels.chunks_exact_mut(width.max(1)).zip(0_i64..) {
            let source = y
                .checked_sub(top)
                .and_then(|y| u32::try_from(y).ok())
                .and_then(|y| cursor.row(y));
            let Some(source) = source else { continue };
            let (source, _) = source.as_chunks::<BYTES_PER_PIXEL>();
            for (to, x) in row.iter_mut().zip(0_i64..) {
                let from = x
                    .checked_sub(left)
                    .and_then(|x| usize::try_from(x).ok())
                    .and_then(|x| source.get(x));
                if let Some(from) = from {
                    *to = over(cursor.format.to_rgba(*from), *to);
                }
            }
        }
    }
}

/// `source` over `target`, both multiplied by alpha.
fn over(source: [u8; 4], target: [u8; 4]) -> [u8; 4] {
    let [red, green, blue, alpha] = source;
    let rest = u16::from(u8::MAX.saturating_sub(alpha));
    let mix = |source: u8, target: u8| {
        let behind = u16::from(target).saturating_mul(rest).div_ceil(255);
        let sum = u16::from(source).saturating_add(behind);
        u8::try_from(sum).unwrap_or(u8::MAX)
    };
    let [under_red, under_green, under_blue, _] = target;
    [
        mix(red, under_red),
        mix(green, under_green),
        mix(blue, under_blue),
        u8::MAX,
    ]
}

/// Bytes of a row of `width` pixels without a gap.
pub const fn row_bytes(width: u32) -> usize {
    (width as usize).saturating_mul(BYTES_PER_PIXEL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_puts_its_components_where_its_name_says() {
        for format in PixelFormat::ALL {
            let name = format.format().name().unwrap();
            let mut pixel = [0; 4];
            for (component, byte) in name.split('8').zip(&mut pixel) {
                *byte = match component {
                    "R" => 10,
                    "G" => 20,
                    "B" => 30,
                    "A" => 40,
                    _ => 99,
                };
            }
            let alpha = if name.contains('A') { 40 } else { 255 };
            assert_eq!(format.to_rgba(pixel), [10, 20, 30, alpha], "{name}");
            assert_eq!(format.has_alpha(), name.contains('A'), "{name}");
        }
    }

    #[test]
    fn there_is_no_pixel_outside_an_image() {
        let image = Image::black(3, 2);
        assert_eq!(image.pixel(2, 1), Some([0, 0, 0, 255]));
        for (x, y) in [(3, 0), (0, 2), (u32::MAX, 0), (0, u32::MAX)] {
            assert_eq!(image.pixel(x, y), None);
        }
    }

    #[test]
    fn a_transparent_cursor_pixel_keeps_what_is_below() {
        assert_eq!(over([0, 0, 0, 0], [1, 2, 3, 255]), [1, 2, 3, 255]);
        assert_eq!(over([9, 8, 7, 255], [1, 2, 3, 255]), [9, 8, 7, 255]);
        assert_eq!(over([100, 0, 0, 128], [200, 200, 200, 255])[1], 100);
    }

    #[test]
    fn a_cursor_partly_outside_is_clipped_on_every_side() {
        let white = [255; 64];
        let cursor = Frame {
            width: 4,
            height: 4,
            stride: 16,
            format: PixelFormat::BGRA,
            pixels: &white,
        };
        for (left, top, covered) in [(-2, -2, 4), (2, 2, 4), (0, 0, 16), (9, 0, 0), (0, -9, 0)] {
            let mut image = Image::black(4, 4);
            image.blend(&cursor, left, top);
            let count = image.pixels.chunks(4).filter(|p| p[0] == 255).count();
            assert_eq!(count, covered, "{left} {top}");
        }
    }
}
