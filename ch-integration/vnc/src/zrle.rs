// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! ZRLE (RFC 6143 §7.7.6): tiles of 64 × 64 pixels, each in whichever form is the shortest, in one zlib stream a viewer.

use flate2::{Compress, Compression, FlushCompress, Status};

use crate::pixel::PixelFormat;

/// Width and height of a tile, in pixels.
pub(crate) const TILE: u16 = 64;
/// Colours that a palette may have, where pixels are runs of them.
const PALETTE: usize = 127;
/// Colours that a palette may have, where each pixel is an index of a few bits.
const PACKED: usize = 16;
/// Room that the stream is given at a time.
const STEP: usize = 16 << 10;

/// The zlib stream of a viewer, which goes on from one rectangle to the next.
#[derive(Debug)]
pub(crate) struct Stream {
    zlib: Compress,
    /// Tiles before they are compressed; here so that there is one.
    tiles: Vec<u8>,
    level: u32,
}

impl Stream {
    pub(crate) fn new(level: u32) -> Self {
        Self {
            zlib: Compress::new(Compression::new(level), true),
            tiles: Vec::new(),
            level,
        }
    }

    /// Another effort from now on. The stream goes on: zlib takes a new level where a rectangle begins.
    pub(crate) fn set_level(&mut self, level: u32) {
        if level != self.level && self.zlib.set_level(Compression::new(level)).is_ok() {
            self.level = level;
        }
    }

    /// Adds a tile to the rectangle: rows of `width` pixels.
    pub(crate) fn add_tile(&mut self, pixels: &[u32], width: usize, format: &PixelFormat) {
        put_tile(pixels, width, format, &mut self.tiles);
    }

    /// Ends the rectangle, and appends it: its length and the stream's bytes.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend([0; 4]);
        let before = self.zlib.total_in();
        loop {
            let taken = self.zlib.total_in().saturating_sub(before);
            let rest = usize::try_from(taken)
                .ok()
                .and_then(|it| self.tiles.get(it..));
            let rest = rest.unwrap_or_default();
            out.reserve(STEP);
            let status = self.zlib.compress_vec(rest, out, FlushCompress::Sync);
            // All of it is out when there is room left.
            let full = out.len() == out.capacity();
            if !matches!(status, Ok(Status::Ok)) || !full {
                break;
            }
        }
        self.tiles.clear();
        let length = out.len().saturating_sub(start).saturating_sub(4);
        let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        if let Some(place) = out.get_mut(start..).and_then(|it| it.first_chunk_mut()) {
            *place = length;
        }
    }
}

/// What a tile is made of.
struct Tile<'a> {
    pixels: &'a [u32],
    width: usize,
    /// Its colours, unless there are more than [`PALETTE`].
    palette: Option<Vec<u32>>,
    /// Bytes that it takes as runs: of pixels, and of a palette's.
    runs: usize,
    palette_runs: usize,
}

impl<'a> Tile<'a> {
    fn new(pixels: &'a [u32], width: usize, pixel_bytes: usize) -> Self {
        let mut tile = Self {
            pixels,
            width,
            palette: Some(Vec::new()),
            runs: 0,
            palette_runs: 0,
        };
        for run in pixels.chunk_by(|a, b| a == b) {
            let length = length_bytes(run.len());
            tile.runs = tile.runs.saturating_add(pixel_bytes.saturating_add(length));
            let short = if run.len() == 1 { 0 } else { length };
            tile.palette_runs = tile.palette_runs.saturating_add(short.saturating_add(1));
            if let (Some(palette), Some(pixel)) = (&mut tile.palette, run.first())
                && !palette.contains(pixel)
            {
                palette.push(*pixel);
                if palette.len() > PALETTE {
                    tile.palette = None;
                }
            }
        }
        tile
    }
}

/// Bytes that tell how long a run is.
fn length_bytes(length: usize) -> usize {
    (length.saturating_sub(1) / 255).saturating_add(1)
}

fn put_length(length: usize, out: &mut Vec<u8>) {
    let less = length.saturating_sub(1);
    out.extend((0..less / 255).map(|_| 255));
    out.push(u8::try_from(less % 255).unwrap_or(0));
}

/// Where the indices into a palette of so many colours lie in a byte: the first pixel's bits are of most value.
fn index_shifts(colours: usize) -> &'static [u32] {
    match colours {
        0..=2 => &[7, 6, 5, 4, 3, 2, 1, 0],
        3..=4 => &[6, 4, 2, 0],
        _ => &[4, 0],
    }
}

fn put_tile(pixels: &[u32], width: usize, format: &PixelFormat, out: &mut Vec<u8>) {
    let each = format.compressed_bytes();
    let tile = Tile::new(pixels, width.max(1), each);
    let raw = pixels.len().saturating_mul(each);
    let Some(palette) = &tile.palette else {
        if tile.runs < raw {
            put_runs(&tile, format, out);
        } else {
            put_raw(&tile, format, out);
        }
        return;
    };
    if let [colour] = palette[..] {
        out.push(1);
        format.put_compressed(colour, out);
        return;
    }
    let colours = palette.len().saturating_mul(each);
    let palette_runs = colours.saturating_add(tile.palette_runs);
    let packed = if palette.len() > PACKED {
        usize::MAX
    } else {
        let row = tile.width.div_ceil(index_shifts(palette.len()).len());
        let rows = pixels.chunks(tile.width).len();
        colours.saturating_add(row.saturating_mul(rows))
    };
    let least = raw.min(tile.runs).min(palette_runs).min(packed);
    if least == packed {
        put_packed(&tile, palette, format, out);
    } else if least == palette_runs {
        put_palette_runs(&tile, palette, format, out);
    } else if least == tile.runs {
        put_runs(&tile, format, out);
    } else {
        put_raw(&tile, format, out);
    }
}

fn put_raw(tile: &Tile<'_>, format: &PixelFormat, out: &mut Vec<u8>) {
    out.push(0);
    for pixel in tile.pixels {
        format.put_compressed(*pixel, out);
    }
}

fn put_runs(tile: &Tile<'_>, format: &PixelFormat, out: &mut Vec<u8>) {
    out.push(128);
    for run in tile.pixels.chunk_by(|a, b| a == b) {
        if let Some(pixel) = run.first() {
            format.put_compressed(*pixel, out);
            put_length(run.len(), out);
        }
    }
}

fn put_palette(kind: u8, palette: &[u32], format: &PixelFormat, out: &mut Vec<u8>) {
    let count = u8::try_from(palette.len()).unwrap_or(u8::MAX);
    out.push(kind.saturating_add(count));
    for colour in palette {
        format.put_compressed(*colour, out);
    }
}

fn index_of(palette: &[u32], pixel: u32) -> u8 {
    let index = palette.iter().position(|colour| *colour == pixel);
    index.and_then(|it| u8::try_from(it).ok()).unwrap_or(0)
}

fn put_palette_runs(tile: &Tile<'_>, palette: &[u32], format: &PixelFormat, out: &mut Vec<u8>) {
    put_palette(128, palette, format, out);
    for run in tile.pixels.chunk_by(|a, b| a == b) {
        let index = run.first().map_or(0, |pixel| index_of(palette, *pixel));
        if run.len() == 1 {
            out.push(index);
        } else {
            out.push(index | 128);
            put_length(run.len(), out);
        }
    }
}

fn put_packed(tile: &Tile<'_>, palette: &[u32], format: &PixelFormat, out: &mut Vec<u8>) {
    put_palette(0, palette, format, out);
    let shifts = index_shifts(palette.len());
    for row in tile.pixels.chunks(tile.width) {
        for pixels in row.chunks(shifts.len()) {
            let indices = pixels.iter().zip(shifts);
            out.push(indices.fold(0, |byte, (pixel, shift)| {
                byte | index_of(palette, *pixel).checked_shl(*shift).unwrap_or(0)
            }));
        }
    }
}
