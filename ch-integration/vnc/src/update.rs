// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The rectangles of an update (RFC 6143 §7.6.1).

use crate::desktop::{Cursor, Desktop};
use crate::encodings::{Encodings, Pixels, Pointers};
use crate::limits::UPDATE_BYTES;
use crate::message::{Area, Screen, encoding};
use crate::pixel::PixelFormat;
use crate::zrle::{Stream, TILE};

/// Tiles that one rectangle may have: 1 MiB of raw pixels.
const RECT_TILES: usize = 64;
const TILE_PIXELS: usize = TILE as usize;

/// How a viewer gets its pixels.
#[derive(Debug)]
pub(crate) struct Painter {
    pub(crate) format: PixelFormat,
    stream: Stream,
    /// A part of the desktop, and a tile of it; here so that there is one of each.
    part: Vec<u32>,
    tile: Vec<u32>,
}

impl Painter {
    pub(crate) fn new(encodings: &Encodings) -> Self {
        Self {
            format: PixelFormat::default(),
            stream: Stream::new(encodings.level),
            part: Vec::new(),
            tile: Vec::new(),
        }
    }

    /// Appends rectangles with the tiles that the viewer has not seen, and notes that it has. Returns how many.
    pub(crate) fn put_tiles(
        &mut self,
        desktop: &Desktop,
        sent: &mut [u64],
        shown: (u16, u16),
        encodings: &Encodings,
        out: &mut Vec<u8>,
    ) -> u16 {
        self.stream.set_level(encodings.level);
        let start = out.len();
        let mut count = 0_u16;
        for rect in unseen(desktop, sent) {
            if out.len().saturating_sub(start) > UPDATE_BYTES || count == u16::MAX {
                break;
            }
            for index in rect.tiles(desktop.columns()) {
                let now = desktop.tiles().get(index);
                if let (Some(sent), Some(now)) = (sent.get_mut(index), now) {
                    *sent = *now;
                }
            }
            if let Some(area) = rect.area(shown) {
                self.put_rect(desktop, area, encodings, out);
                count = count.saturating_add(1);
            }
        }
        count
    }

    fn put_rect(&mut self, desktop: &Desktop, area: Area, using: &Encodings, out: &mut Vec<u8>) {
        let drawn = using.pointers == Pointers::Drawn;
        desktop.read(area, drawn, &mut self.part);
        match using.pixels {
            Pixels::Raw => {
                put_head(area, encoding::RAW, out);
                for pixel in &self.part {
                    self.format.put(*pixel, out);
                }
            }
            Pixels::Zrle => {
                put_head(area, encoding::ZRLE, out);
                self.put_zrle(area.width.into(), out);
            }
        }
    }

    fn put_zrle(&mut self, width: usize, out: &mut Vec<u8>) {
        for band in self.part.chunks(width.saturating_mul(TILE_PIXELS).max(1)) {
            for left in (0..width).step_by(TILE_PIXELS) {
                let right = left.saturating_add(TILE_PIXELS).min(width);
                self.tile.clear();
                for row in band.chunks(width.max(1)) {
                    self.tile
                        .extend_from_slice(row.get(left..right).unwrap_or_default());
                }
                let wide = right.saturating_sub(left);
                self.stream.add_tile(&self.tile, wide, &self.format);
            }
        }
        self.stream.finish(out);
    }

    /// Appends the pointer's shape; one of no size where there is none.
    pub(crate) fn put_pointer(&self, cursor: Option<&Cursor>, how: Pointers, out: &mut Vec<u8>) {
        let hidden = Cursor::default();
        let cursor = cursor.unwrap_or(&hidden);
        let area = Area {
            x: cursor.hot.0,
            y: cursor.hot.1,
            width: cursor.width,
            height: cursor.height,
        };
        if how == Pointers::Blended {
            put_head(area, encoding::CURSOR_WITH_ALPHA, out);
            // Its pixels are raw ones, red, green, blue and alpha.
            out.extend(encoding::RAW.to_be_bytes());
            for pixel in &cursor.pixels {
                let [blue, green, red, alpha] = pixel.to_le_bytes();
                out.extend([red, green, blue, alpha]);
            }
            return;
        }
        put_head(area, encoding::CURSOR, out);
        for pixel in &cursor.pixels {
            self.format.put(pixel & 0x00ff_ffff, out);
        }
        // A bit for each pixel that is there, the leftmost of most value, each row in bytes of its own.
        for row in cursor.pixels.chunks(usize::from(cursor.width).max(1)) {
            for eight in row.chunks(8) {
                let bits = eight.iter().zip([128, 64, 32, 16, 8, 4, 2, 1]);
                let there = bits.filter(|(pixel, _)| *pixel >> 24 >= 128);
                out.push(there.fold(0, |byte, (_, bit)| byte | bit));
            }
        }
    }
}

/// Appends a rectangle's head.
pub(crate) fn put_head(area: Area, encoding: i32, out: &mut Vec<u8>) {
    for number in [area.x, area.y, area.width, area.height] {
        out.extend(number.to_be_bytes());
    }
    out.extend(encoding.to_be_bytes());
}

/// Appends the layout of a desktop of this size (ExtendedDesktopSize), for a reason and with how a viewer's wish went.
pub(crate) fn put_layout(
    (width, height): (u16, u16),
    (reason, status): (u16, u16),
    screens: &[Screen],
    out: &mut Vec<u8>,
) {
    let area = Area {
        x: reason,
        y: status,
        width,
        height,
    };
    put_head(area, encoding::EXTENDED_DESKTOP_SIZE, out);
    // There are at most 16 outputs.
    out.push(u8::try_from(screens.len()).unwrap_or(u8::MAX));
    out.extend([0; 3]);
    for Screen { id, area } in screens {
        out.extend(id.to_be_bytes());
        for number in [area.x, area.y, area.width, area.height] {
            out.extend(number.to_be_bytes());
        }
        out.extend([0; 4]);
    }
}

/// Tiles that go as one rectangle: columns and rows, each from and up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tiles {
    columns: (usize, usize),
    rows: (usize, usize),
}

impl Tiles {
    /// Their numbers.
    fn tiles(self, columns: usize) -> impl Iterator<Item = usize> {
        let (left, right) = self.columns;
        let (top, bottom) = self.rows;
        (top..bottom).flat_map(move |row| {
            let first = row.saturating_mul(columns);
            (left..right).map(move |column| first.saturating_add(column))
        })
    }

    /// Their pixels, as far as they are on a screen of this size.
    fn area(self, (width, height): (u16, u16)) -> Option<Area> {
        let span = |(from, to): (usize, usize), size: u16| {
            let start = u16::try_from(from.saturating_mul(TILE_PIXELS)).ok()?;
            let end = to.saturating_mul(TILE_PIXELS).min(size.into());
            let end = u16::try_from(end).ok()?;
            Some((start, end.checked_sub(start)?)).filter(|(_, length)| *length > 0)
        };
        let (x, width) = span(self.columns, width)?;
        let (y, height) = span(self.rows, height)?;
        Some(Area {
            x,
            y,
            width,
            height,
        })
    }

    fn count(self) -> usize {
        let (left, right) = self.columns;
        let (top, bottom) = self.rows;
        right
            .saturating_sub(left)
            .saturating_mul(bottom.saturating_sub(top))
    }
}

/// What the viewer has not seen: runs of tiles, and runs below each other as one.
fn unseen(desktop: &Desktop, sent: &[u64]) -> Vec<Tiles> {
    let columns = desktop.columns().max(1);
    let rows = desktop.tiles().chunks(columns).zip(sent.chunks(columns));
    let mut runs = Runs {
        rects: Vec::new(),
        begun: vec![None; columns],
    };
    for (row, (now, seen)) in rows.enumerate() {
        let mut dirty = now.iter().zip(seen).map(|(now, seen)| now > seen);
        let mut column = 0_usize;
        while let Some(skipped) = dirty.by_ref().position(|is| is) {
            let left = column.saturating_add(skipped);
            let more = dirty.by_ref().take_while(|is| *is).count();
            let right = left.saturating_add(more).saturating_add(1);
            // The one behind the run is clean, or there is none.
            column = right.saturating_add(1);
            runs.add((left, right), row);
        }
    }
    runs.rects
}

struct Runs {
    rects: Vec<Tiles>,
    /// The newest rectangle that begins in a column.
    begun: Vec<Option<usize>>,
}

impl Runs {
    fn add(&mut self, (left, right): (usize, usize), row: usize) {
        for left in (left..right).step_by(RECT_TILES) {
            let run = Tiles {
                columns: (left, left.saturating_add(RECT_TILES).min(right)),
                rows: (row, row.saturating_add(1)),
            };
            let begun = self.begun.get(left).copied().flatten();
            let above = begun.and_then(|index| self.rects.get_mut(index));
            let above = above.filter(|it| {
                let room = it.count().saturating_add(run.count()) <= RECT_TILES;
                it.columns == run.columns && it.rows.1 == row && room
            });
            if let Some(above) = above {
                above.rows.1 = run.rows.1;
                continue;
            }
            if let Some(begun) = self.begun.get_mut(left) {
                *begun = Some(self.rects.len());
            }
            self.rects.push(run);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desktop::Layout;

    #[test]
    fn tiles_below_each_other_go_as_one_rectangle_and_none_is_missed() {
        let mut desktop = Desktop::default();
        desktop.arrange(Layout::new([(0, (64 * 5, 64 * 3))]));
        let mut sent = desktop.tiles().to_vec();
        for dirty in [0, 1, 3, 5, 6, 14] {
            sent[dirty] = 0;
        }
        let rects = unseen(&desktop, &sent);
        let tiles = |columns, rows| Tiles { columns, rows };
        assert_eq!(
            rects,
            [
                tiles((0, 2), (0, 2)),
                tiles((3, 4), (0, 1)),
                tiles((4, 5), (2, 3))
            ]
        );
        let mut found: Vec<_> = rects.iter().flat_map(|it| it.tiles(5)).collect();
        found.sort_unstable();
        assert_eq!(found, [0, 1, 3, 5, 6, 14]);
    }

    #[test]
    fn a_rectangle_has_no_more_tiles_than_the_limit() {
        let mut desktop = Desktop::default();
        desktop.arrange(Layout::new([(0, (64 * 100, 64 * 10))]));
        let rects = unseen(&desktop, &vec![0; 1000]);
        assert!(rects.iter().all(|it| it.count() <= RECT_TILES));
        assert_eq!(rects.iter().map(|it| it.count()).sum::<usize>(), 1000);
    }
}
