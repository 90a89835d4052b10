// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The levels of a resource, and the pieces in which they are moved.

use virtio_gpu_s3::renderer::{Resource3d, Transfer3d};

use crate::error::Unsaved;
use crate::format::texel_bytes;

/// Bytes that are moved at once: the memory that two processes share is not longer than it must be.
const PIECE_BYTES: u32 = 4 << 20;
/// What a cube has.
const FACES: u32 = 6;

/// A level of a resource: rows without gaps, layers without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// Which.
    pub level: u32,
    /// Texels.
    width: u32,
    height: u32,
    layers: u32,
    /// Bytes of a row.
    stride: u32,
}

/// The levels of a resource.
///
/// # Errors
/// It has contents that cannot be read back.
pub fn levels(id: u32, params: &Resource3d) -> Result<Vec<Level>, Unsaved> {
    let samples = params.nr_samples;
    if samples > 1 {
        return Err(Unsaved::Multisampled { id, samples });
    }
    let format = params.format;
    let unknown = || Unsaved::Format { id, format };
    let texel = texel_bytes(format).ok_or_else(unknown)?;
    (0..=params.last_level)
        .map(|level| {
            let minified = |size: u32| size.checked_shr(level).unwrap_or(0).max(1);
            let (width, height, layers) = match params.target {
                // PIPE_BUFFER, 1D.
                0 | 1 => (minified(params.width), 1, 1),
                // 2D, RECT.
                2 | 5 => (minified(params.width), minified(params.height), 1),
                // 3D.
                3 => (
                    minified(params.width),
                    minified(params.height),
                    minified(params.depth),
                ),
                // CUBE, 1D_ARRAY, 2D_ARRAY, CUBE_ARRAY.
                4 => (minified(params.width), minified(params.height), FACES),
                6 => (minified(params.width), 1, params.array_size.max(1)),
                7 | 8 => (
                    minified(params.width),
                    minified(params.height),
                    params.array_size.max(1),
                ),
                target => return Err(Unsaved::Target { id, target }),
            };
            let stride = width.checked_mul(texel).ok_or_else(unknown)?;
            Ok(Level {
                level,
                width,
                height,
                layers,
                stride,
            })
        })
        .collect()
}

/// A part of a level that is moved at once.
pub(crate) struct Piece {
    pub(crate) transfer: Transfer3d,
    /// Where its bytes are among the level's.
    pub(crate) start: usize,
    pub(crate) bytes: usize,
}

impl Level {
    /// Its bytes, `None` if this host cannot have so many.
    pub fn bytes(&self) -> Option<usize> {
        let layer = (self.stride as usize).checked_mul(self.height as usize)?;
        layer.checked_mul(self.layers as usize)
    }

    /// Its pieces: as many whole rows of a layer as go at once. A row of a buffer may be longer, and is cut.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = Piece> {
        let level = *self;
        let rows = PIECE_BYTES
            .checked_div(level.stride)
            .unwrap_or(1)
            .clamp(1, level.height);
        let bands = (0..level.height).step_by(rows as usize);
        let places = (0..level.layers).flat_map(move |z| bands.clone().map(move |y| (z, y)));
        places.flat_map(move |(z, y)| {
            let h = rows.min(level.height.saturating_sub(y));
            level.band(z, y, h)
        })
    }

    fn band(self, z: u32, y: u32, h: u32) -> impl Iterator<Item = Piece> {
        // More than one row is never cut.
        let columns = if self.stride > PIECE_BYTES && self.stride == self.width {
            PIECE_BYTES
        } else {
            self.width
        };
        let texel = self.stride.checked_div(self.width).unwrap_or(1);
        let rows = (z as usize)
            .saturating_mul(self.height as usize)
            .saturating_add(y as usize);
        let start = rows.saturating_mul(self.stride as usize);
        (0..self.width)
            .step_by(columns.max(1) as usize)
            .map(move |x| {
                let w = columns.min(self.width.saturating_sub(x));
                let row = w.saturating_mul(texel);
                Piece {
                    transfer: Transfer3d {
                        x,
                        y,
                        z,
                        w,
                        h,
                        d: 1,
                        offset: 0,
                        level: self.level,
                        stride: if h > 1 { self.stride } else { row },
                        layer_stride: 0,
                    },
                    start: start.saturating_add((x as usize).saturating_mul(texel as usize)),
                    bytes: (row as usize).saturating_mul(h as usize),
                }
            })
    }
}

#[cfg(test)]
#[expect(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "a test that is wrong shall panic"
)]
mod tests {
    use super::*;

    fn all(params: &Resource3d) -> Vec<(usize, usize)> {
        let levels = levels(1, params).unwrap();
        levels
            .iter()
            .map(|level| {
                let mut next = 0;
                for piece in level.pieces() {
                    assert_eq!(piece.start, next);
                    assert!(piece.bytes <= PIECE_BYTES as usize);
                    next += piece.bytes;
                }
                assert_eq!(Some(next), level.bytes());
                (next, level.pieces().count())
            })
            .collect()
    }

    const TEXTURE: Resource3d = Resource3d {
        target: 2,
        format: 1,
        bind: 2,
        width: 64,
        height: 32,
        depth: 1,
        array_size: 1,
        last_level: 0,
        nr_samples: 0,
        flags: 0,
    };

    #[test]
    fn the_pieces_of_a_level_are_all_of_it_once() {
        assert_eq!(all(&TEXTURE), [(64 * 32 * 4, 1)]);
        let mips = Resource3d {
            last_level: 6,
            ..TEXTURE
        };
        let sizes: Vec<_> = all(&mips).iter().map(|(bytes, _)| *bytes).collect();
        assert_eq!(sizes, [8192, 2048, 512, 128, 32, 8, 4]);
        let large = Resource3d {
            width: 4096,
            height: 4096,
            ..TEXTURE
        };
        assert_eq!(all(&large), [(64 << 20, 16)]);
        let buffer = Resource3d {
            target: 0,
            format: 64,
            width: (9 << 20) + 1,
            height: 1,
            ..TEXTURE
        };
        assert_eq!(all(&buffer), [((9 << 20) + 1, 3)]);
        for (target, layers) in [(3, 5), (4, 6), (7, 9), (8, 9)] {
            let layered = Resource3d {
                target,
                depth: 5,
                array_size: 9,
                ..TEXTURE
            };
            assert_eq!(all(&layered), [(8192 * layers, layers)]);
        }
    }

    #[test]
    fn what_cannot_be_read_back_is_named() {
        let (id, samples) = (7, 4);
        let params = Resource3d {
            nr_samples: samples,
            ..TEXTURE
        };
        let refused = Err(Unsaved::Multisampled { id, samples });
        assert_eq!(levels(id, &params), refused);
        // DXT1 comes in blocks, NV12 in planes; 999 is nothing.
        for format in [105, 166, 999] {
            let params = Resource3d { format, ..TEXTURE };
            assert_eq!(levels(id, &params), Err(Unsaved::Format { id, format }));
        }
        let target = 9;
        let params = Resource3d { target, ..TEXTURE };
        assert_eq!(levels(id, &params), Err(Unsaved::Target { id, target }));
    }
}
