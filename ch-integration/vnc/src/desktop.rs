// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The picture that all viewers share: the outputs side by side, and what of it changed when.

use crate::limits::{MAX_DIMENSION, MAX_PIXELS};
use crate::message::{Area, Screen};
use crate::zrle::TILE;

/// The mouse pointer that the guest draws.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Width in pixels.
    pub width: u16,
    /// Height in pixels.
    pub height: u16,
    /// Column and row of the pixel that points.
    pub hot: (u16, u16),
    /// 0xAARRGGBB, colours multiplied by alpha, row by row.
    pub pixels: Vec<u32>,
}

/// An output's place on the desktop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    /// The scanout's number.
    pub scanout: u32,
    /// Left edge, in pixels.
    pub x: u32,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

/// The outputs, from the left to the right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout(Vec<Output>);

impl Layout {
    /// Puts scanouts of these sizes side by side, leaving out what does not fit the limits.
    pub fn new(sizes: impl IntoIterator<Item = (u32, (u32, u32))>) -> Self {
        let mut layout = Self::default();
        for (scanout, (width, height)) in sizes {
            let (x, tallest) = layout.size();
            let (right, tall) = (x.saturating_add(width), tallest.max(height));
            let pixels = u64::from(right).saturating_mul(tall.into());
            let fits = right <= MAX_DIMENSION && tall <= MAX_DIMENSION && pixels <= MAX_PIXELS;
            if fits && width > 0 && height > 0 {
                layout.0.push(Output {
                    scanout,
                    x,
                    width,
                    height,
                });
            }
        }
        layout
    }

    /// The outputs.
    pub fn outputs(&self) -> &[Output] {
        &self.0
    }

    /// Width and height of all together, in pixels.
    pub fn size(&self) -> (u32, u32) {
        let right = self.0.last().map_or(0, |it| it.x.saturating_add(it.width));
        let bottom = self.0.iter().map(|it| it.height).max();
        (right, bottom.unwrap_or(0))
    }
}

/// A part of the desktop that was read anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Left edge, in the desktop's pixels.
    pub x: u32,
    /// Upper edge, in the desktop's pixels.
    pub y: u32,
    /// Width in pixels.
    pub width: u32,
    /// 0x00RRGGBB, row by row.
    pub pixels: Vec<u32>,
}

/// The desktop.
#[derive(Debug, Default)]
pub struct Desktop {
    layout: Layout,
    width: usize,
    height: usize,
    pixels: Vec<u32>,
    /// The change that each tile has last seen, row by row.
    tiles: Vec<u64>,
    /// How many changes there were.
    change: u64,
    /// The change that put the outputs where they are; 0 before the first picture.
    arranged: u64,
    cursor: Option<Cursor>,
    /// Where it points.
    cursor_at: (i32, i32),
    /// The change that gave it its shape.
    cursor_change: u64,
}

impl Desktop {
    /// Where the outputs are.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Width and height in pixels; at least one.
    pub fn size(&self) -> (u16, u16) {
        let of = |pixels: usize| u16::try_from(pixels).unwrap_or(u16::MAX).max(1);
        (of(self.width), of(self.height))
    }

    /// How many changes there were.
    pub(crate) fn change(&self) -> u64 {
        self.change
    }

    /// The change that put the outputs where they are; 0 before there was a picture.
    pub(crate) fn arranged(&self) -> u64 {
        self.arranged
    }

    /// The layout for viewers.
    pub(crate) fn screens(&self) -> Vec<Screen> {
        let of = |pixels: u32| u16::try_from(pixels).unwrap_or(u16::MAX);
        let screens = self.layout.outputs().iter().map(|output| Screen {
            id: output.scanout,
            area: Area {
                x: of(output.x),
                y: 0,
                width: of(output.width),
                height: of(output.height),
            },
        });
        screens.collect()
    }

    /// Begins anew, in black, with the outputs elsewhere or of other sizes.
    pub fn arrange(&mut self, layout: Layout) {
        let (width, height) = layout.size();
        (self.width, self.height) = (width as usize, height as usize);
        self.layout = layout;
        self.change = self.change.saturating_add(1);
        self.arranged = self.change;
        self.pixels.clear();
        self.pixels
            .resize(self.width.saturating_mul(self.height), 0);
        self.tiles.clear();
        let tiles = self.columns().saturating_mul(self.rows());
        self.tiles.resize(tiles, self.change);
    }

    /// Puts a part in its place. Returns whether it differs from what was there.
    pub fn patch(&mut self, patch: &Patch) -> bool {
        let change = self.change.saturating_add(1);
        let columns = self.columns();
        let (x, width) = (patch.x as usize, patch.width as usize);
        let mut changed = false;
        for (row, y) in patch.pixels.chunks(width.max(1)).zip(patch.y as usize..) {
            let start = y.saturating_mul(self.width).saturating_add(x);
            let inside = x.saturating_add(row.len()) <= self.width;
            let target = start.checked_add(row.len());
            let target = target.and_then(|end| self.pixels.get_mut(start..end));
            let Some(target) = target.filter(|_| inside) else {
                break;
            };
            // In pieces, one for each tile that the row crosses.
            let mut at = x;
            let (mut target, mut row) = (target, row);
            while !row.is_empty() {
                let piece = to_next_tile(at).min(row.len());
                let (to, rest) = target.split_at_mut(piece);
                let (from, after) = row.split_at(piece);
                if to != from {
                    to.copy_from_slice(from);
                    changed = true;
                    let tile = (y / TILE_PIXELS).saturating_mul(columns);
                    let tile = tile.saturating_add(at / TILE_PIXELS);
                    if let Some(tile) = self.tiles.get_mut(tile) {
                        *tile = change;
                    }
                }
                (target, row) = (rest, after);
                at = at.saturating_add(piece);
            }
        }
        if changed {
            self.change = change;
        }
        changed
    }

    /// Gives the pointer another shape. Returns whether it is another.
    pub fn set_cursor(&mut self, cursor: Option<Cursor>) -> bool {
        let changed = self.cursor != cursor;
        if changed {
            self.change = self.change.saturating_add(1);
            self.cursor_change = self.change;
            self.cursor = cursor;
        }
        changed
    }

    /// Moves the pointer to where it points. Returns whether it was elsewhere.
    pub fn move_cursor(&mut self, to: (i32, i32)) -> bool {
        let changed = self.cursor_at != to;
        if changed {
            self.change = self.change.saturating_add(1);
            self.cursor_at = to;
        }
        changed
    }

    /// The pointer, and the change that gave it its shape.
    pub(crate) fn cursor(&self) -> (Option<&Cursor>, u64) {
        (self.cursor.as_ref(), self.cursor_change)
    }

    /// The part of the desktop that the pointer covers, if any.
    pub(crate) fn cursor_area(&self) -> Option<Area> {
        let cursor = self.cursor.as_ref()?;
        let span = |at: i32, hot: u16, size: u16, end: usize| {
            let start = i64::from(at).saturating_sub(hot.into());
            let stop = start.saturating_add(size.into());
            let end = i64::try_from(end).unwrap_or(i64::MAX);
            let (start, stop) = (start.clamp(0, end), stop.clamp(0, end));
            let length = u16::try_from(stop.saturating_sub(start)).ok()?;
            Some((u16::try_from(start).ok()?, length)).filter(|_| length > 0)
        };
        let (x, width) = span(self.cursor_at.0, cursor.hot.0, cursor.width, self.width)?;
        let (y, height) = span(self.cursor_at.1, cursor.hot.1, cursor.height, self.height)?;
        Some(Area {
            x,
            y,
            width,
            height,
        })
    }

    pub(crate) fn columns(&self) -> usize {
        self.width.div_ceil(TILE_PIXELS)
    }

    pub(crate) fn rows(&self) -> usize {
        self.height.div_ceil(TILE_PIXELS)
    }

    /// The last change of each tile, row by row.
    pub(crate) fn tiles(&self) -> &[u64] {
        &self.tiles
    }

    /// Copies the pixels of `area`, which lies inside, with the pointer on them or without.
    pub(crate) fn read(&self, area: Area, with_cursor: bool, out: &mut Vec<u32>) {
        out.clear();
        let (x, width) = (usize::from(area.x), usize::from(area.width));
        for y in usize::from(area.y)..usize::from(area.y).saturating_add(area.height.into()) {
            let start = y.saturating_mul(self.width).saturating_add(x);
            let row = self.pixels.get(start..start.saturating_add(width));
            match row {
                Some(row) => out.extend_from_slice(row),
                None => out.resize(out.len().saturating_add(width), 0),
            }
        }
        if with_cursor && let Some(cursor) = &self.cursor {
            self.blend(cursor, area, out);
        }
    }

    fn blend(&self, cursor: &Cursor, area: Area, out: &mut [u32]) {
        let corner = |at: i32, hot: u16, start: u16| {
            i64::from(at)
                .saturating_sub(hot.into())
                .saturating_sub(start.into())
        };
        let left = corner(self.cursor_at.0, cursor.hot.0, area.x);
        let top = corner(self.cursor_at.1, cursor.hot.1, area.y);
        let rows = cursor.pixels.chunks(usize::from(cursor.width).max(1));
        for (row, y) in rows.zip(top..) {
            let target = usize::try_from(y).ok();
            let mut lines = out.chunks_mut(usize::from(area.width).max(1));
            let Some(target) = target.and_then(|y| lines.nth(y)) else {
                continue;
            };
            for (from, x) in row.iter().zip(left..) {
                let to = usize::try_from(x).ok().and_then(|x| target.get_mut(x));
                if let Some(to) = to {
                    *to = over(*from, *to);
                }
            }
        }
    }
}

const TILE_PIXELS: usize = TILE as usize;

/// Pixels from column `x` to where the next tile begins.
fn to_next_tile(x: usize) -> usize {
    TILE_PIXELS.saturating_sub(x % TILE_PIXELS)
}

/// `source`, whose colours are multiplied by alpha, over an opaque `target`.
fn over(source: u32, target: u32) -> u32 {
    let [blue, green, red, alpha] = source.to_le_bytes();
    let [under_blue, under_green, under_red, _] = target.to_le_bytes();
    let rest = u16::from(u8::MAX.saturating_sub(alpha));
    let mix = |above: u8, under: u8| {
        let behind = u16::from(under).saturating_mul(rest).div_ceil(255);
        u8::try_from(u16::from(above).saturating_add(behind)).unwrap_or(u8::MAX)
    };
    u32::from_le_bytes([
        mix(blue, under_blue),
        mix(green, under_green),
        mix(red, under_red),
        0,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desktop(sizes: &[(u32, u32)]) -> Desktop {
        let mut desktop = Desktop::default();
        desktop.arrange(Layout::new((0..).zip(sizes.iter().copied())));
        desktop
    }

    #[test]
    fn outputs_stand_side_by_side_and_one_that_does_not_fit_is_left_out() {
        let layout = Layout::new([
            (0, (100, 50)),
            (1, (0, 9)),
            (2, (65_500, 10)),
            (3, (20, 80)),
        ]);
        let places: Vec<_> = layout
            .outputs()
            .iter()
            .map(|it| (it.scanout, it.x))
            .collect();
        assert_eq!(places, [(0, 0), (3, 100)]);
        assert_eq!(layout.size(), (120, 80));
        let huge = Layout::new([(0, (16384, 16384))]);
        assert_eq!(huge.size(), (0, 0));
    }

    #[test]
    fn only_the_tiles_that_differ_are_new() {
        let mut desktop = desktop(&[(130, 70)]);
        let before = desktop.tiles().to_vec();
        assert_eq!(before.len(), 6);
        let pixels = |pixel| Patch {
            x: 60,
            y: 60,
            width: 8,
            pixels: vec![pixel; 8 * 2],
        };
        assert!(!desktop.patch(&pixels(0)));
        assert_eq!(desktop.tiles(), before);
        assert!(desktop.patch(&pixels(7)));
        let new: Vec<_> = desktop.tiles().iter().map(|it| *it > before[0]).collect();
        assert_eq!(new, [true, true, false, false, false, false]);
    }

    #[test]
    fn a_patch_outside_changes_nothing() {
        let mut desktop = desktop(&[(10, 10)]);
        for (x, y, width) in [(9, 0, 2), (0, 10, 1), (u32::MAX, 0, 1), (0, 0, 11)] {
            let pixels = vec![1; width as usize];
            assert!(!desktop.patch(&Patch {
                x,
                y,
                width,
                pixels
            }));
        }
    }

    #[test]
    fn the_pointer_is_drawn_where_it_points_and_clipped_at_the_edges() {
        let mut desktop = desktop(&[(10, 10)]);
        desktop.set_cursor(Some(Cursor {
            width: 2,
            height: 2,
            hot: (1, 1),
            pixels: vec![0xff00_00ff; 4],
        }));
        let all = Area {
            x: 0,
            y: 0,
            width: 10,
            height: 10,
        };
        for (at, lit) in [((0, 0), 1), ((5, 5), 4), ((10, 10), 1), ((-5, 3), 0)] {
            desktop.move_cursor(at);
            let mut pixels = Vec::new();
            desktop.read(all, true, &mut pixels);
            assert_eq!(
                pixels.iter().filter(|it| **it == 0xff).count(),
                lit,
                "{at:?}"
            );
            assert_eq!(desktop.cursor_area().is_some(), lit > 0);
            desktop.read(all, false, &mut pixels);
            assert!(pixels.iter().all(|pixel| *pixel == 0));
        }
    }
}
