// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Outputs: what each shows, and its cursor.

use crate::command::BlobLayout;
use crate::damage::Damage;
use crate::geometry::Rect;
use crate::picture::{CursorImage, Seen};
use crate::pixel::{Frame, PixelFormat, row_bytes};
use crate::protocol::CURSOR_SIZE;
use crate::resource::{Pixels, Resource, Resources};

/// Bytes of a cursor's shape.
pub(crate) const CURSOR_BYTES: usize = 64 * 64 * 4;

#[derive(Debug, Default)]
pub(crate) struct Scanout {
    pub(crate) binding: Option<Binding>,
    pub(crate) cursor: Cursor,
    /// Changes so far, of the picture and the cursor: each has a number, and the first is 1.
    pub(crate) changes: u64,
    pub(crate) damage: Damage,
}

/// The part of a resource that a scanout shows.
#[derive(Debug)]
pub(crate) struct Binding {
    pub(crate) resource_id: u32,
    pub(crate) rect: Rect,
    pub(crate) format: PixelFormat,
    /// How a blob is shown: a blob has no picture of its own.
    pub(crate) layout: Option<BlobLayout>,
    /// `None` where the resource's pixels are with us, and need no copy.
    pub(crate) copy: Option<ScreenCopy>,
    /// True until the first flush, which shows all of it whatever the guest says is damaged; and
    /// again when a part could not be read before a sleep.
    pub(crate) stale: bool,
    /// The number of the command that flushed it last.
    pub(crate) flushed: u64,
}

/// What was last read of a picture that is in the renderer or in the guest's memory. It is charged
/// from the moment of SET_SCANOUT, so that no look finds too little memory, and made at the first.
#[derive(Debug, Default)]
pub(crate) struct ScreenCopy {
    pub(crate) pixels: Option<Pixels>,
    /// The number of the change up to which it was read.
    pub(crate) read: u64,
}

impl Scanout {
    /// Shows this from now on, or nothing. A copy of the same size and format goes on with the
    /// picture that it has, until what is new can be read.
    pub(crate) fn show(&mut self, mut binding: Option<Binding>) {
        let change = self.next_change();
        self.damage.clear();
        if let Some(new) = &mut binding {
            self.damage
                .add(change, Rect::sized(new.rect.width, new.rect.height));
            if let Some(old) = self.binding.take()
                && new.mode() == old.mode()
                && let (Some(new), Some(old)) = (&mut new.copy, old.copy)
            {
                new.pixels = old.pixels;
            }
        }
        self.binding = binding;
    }

    /// Whether it shows a part of the resource.
    pub(crate) fn shows(&self, resource_id: u32) -> bool {
        let binding = self.binding.as_ref();
        binding.is_some_and(|binding| binding.resource_id == resource_id)
    }

    /// Command number `command` says that `rect` of its resource was drawn. Whether that is in sight.
    pub(crate) fn flush(&mut self, rect: &Rect, command: u64) -> bool {
        let Some(binding) = &mut self.binding else {
            return false;
        };
        binding.flushed = command;
        let damaged = match binding.stale {
            true => Some(Rect::sized(binding.rect.width, binding.rect.height)),
            false => rect.within(&binding.rect),
        };
        let Some(damaged) = damaged else { return false };
        binding.stale = false;
        let change = self.next_change();
        self.damage.add(change, damaged);
        true
    }

    /// Copies the picture of a resource that has its pixels still.
    pub(crate) fn copy_picture(&mut self, resource: &Resource) {
        let Some(binding) = &mut self.binding else {
            return;
        };
        let width = binding.rect.width;
        let frame = resource.picture().map(Pixels::frame);
        let part = frame.and_then(|frame| frame.part(binding.rect));
        binding.copy = Some(ScreenCopy::default());
        if let (Some(copy), Some(part)) = (binding.make_copy(), part) {
            part.copy_to(&mut copy.bytes, row_bytes(width));
        }
        self.mark_read();
    }

    /// What of the picture is not in its copy yet.
    pub(crate) fn unread(&self) -> Vec<Rect> {
        let copy = self.binding.as_ref().and_then(|it| it.copy.as_ref());
        copy.map_or_else(Vec::new, |copy| self.damage.since(copy.read))
    }

    /// The copy is all that there is of the picture until the next flush, which shows all of it if
    /// something was missing.
    pub(crate) fn give_up_unread(&mut self) {
        let missing = !self.unread().is_empty();
        if let Some(binding) = &mut self.binding {
            binding.stale |= missing;
        }
        self.mark_read();
    }

    /// The copy holds everything that changed so far.
    pub(crate) fn mark_read(&mut self) {
        if let Some(copy) = self.binding.as_mut().and_then(|it| it.copy.as_mut()) {
            copy.read = self.changes;
        }
    }

    /// The damage since a viewer looked last, and what it has seen after this look.
    pub(crate) fn damage_since(&self, seen: Seen) -> (Vec<Rect>, Seen) {
        let damage = self.damage.since(self.known(seen));
        if self.unread().is_empty() {
            return (damage, Seen(self.changes));
        }
        // What could not be read is still to be seen, whenever that was.
        (self.damage.since(0), Seen::default())
    }

    /// Whether the cursor's shape is another since a viewer looked last.
    pub(crate) fn cursor_changed(&self, seen: Seen) -> bool {
        self.cursor.changed > self.known(seen)
    }

    /// A number of another device's means nothing here.
    fn known(&self, Seen(seen): Seen) -> u64 {
        if seen > self.changes { 0 } else { seen }
    }

    pub(crate) fn has_changed(&self, Seen(seen): Seen) -> bool {
        self.changes != seen
    }

    pub(crate) fn set_cursor(&mut self, shape: Option<CursorShape>) {
        if self.cursor.shape.is_some() || shape.is_some() {
            self.cursor.changed = self.next_change();
        }
        self.cursor.shape = shape;
    }

    pub(crate) fn move_cursor(&mut self, x: i32, y: i32) {
        self.next_change();
        (self.cursor.x, self.cursor.y) = (x, y);
    }

    fn next_change(&mut self) -> u64 {
        self.changes = self.changes.saturating_add(1);
        self.changes
    }
}

impl Binding {
    /// Of a resource whose pixels are with us, or not.
    pub(crate) fn new(
        resource_id: u32,
        rect: Rect,
        format: PixelFormat,
        layout: Option<BlobLayout>,
        needs_copy: bool,
    ) -> Self {
        Self {
            resource_id,
            rect,
            format,
            layout,
            copy: needs_copy.then(ScreenCopy::default),
            stale: true,
            flushed: 0,
        }
    }

    fn mode(&self) -> (u32, u32, PixelFormat) {
        (self.rect.width, self.rect.height, self.format)
    }

    /// Whether both show the same.
    pub(crate) fn shows_same(&self, other: &Self) -> bool {
        let what = |it: &Self| (it.resource_id, it.rect, it.format, it.layout);
        what(self) == what(other)
    }

    /// Host memory of its own, made or not.
    pub(crate) fn host_bytes(&self) -> u64 {
        self.copy.as_ref().map_or(0, |_| self.copy_bytes())
    }

    /// Host memory of a copy, whether it needs one or not.
    pub(crate) fn copy_bytes(&self) -> u64 {
        Pixels::size(self.rect.width, self.rect.height).unwrap_or(u64::MAX)
    }

    /// The copy's pixels, black at first. Their size was charged when this was made.
    pub(crate) fn make_copy(&mut self) -> Option<&mut Pixels> {
        let bytes = usize::try_from(self.host_bytes()).ok()?;
        let Rect { width, height, .. } = self.rect;
        let black = || Pixels::zeroed(self.format, width, height, bytes);
        Some(self.copy.as_mut()?.pixels.get_or_insert_with(black))
    }

    /// What it shows, as it lies in memory; `None` where nothing was read yet.
    pub(crate) fn frame<'a>(&'a self, resources: &'a Resources) -> Option<Frame<'a>> {
        if let Some(copy) = &self.copy {
            return copy.pixels.as_ref().map(Pixels::frame);
        }
        let picture = resources.peek(self.resource_id)?.picture()?;
        picture.frame().part(self.rect)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Cursor {
    pub(crate) shape: Option<CursorShape>,
    pub(crate) x: i32,
    pub(crate) y: i32,
    /// The number of the change that gave it its shape.
    pub(crate) changed: u64,
}

/// A copy of the cursor resource as it was at UPDATE_CURSOR, which is when it takes effect: the
/// guest may draw the next shape there, or destroy it, before anybody looks.
#[derive(Debug)]
pub(crate) struct CursorShape {
    pub(crate) hot_x: u32,
    pub(crate) hot_y: u32,
    pub(crate) format: PixelFormat,
    pub(crate) pixels: Box<[u8; CURSOR_BYTES]>,
}

impl CursorShape {
    pub(crate) fn image(&self) -> CursorImage<'_> {
        CursorImage {
            frame: Frame {
                width: CURSOR_SIZE,
                height: CURSOR_SIZE,
                stride: row_bytes(CURSOR_SIZE),
                format: self.format,
                pixels: self.pixels.as_slice(),
            },
            hot_x: self.hot_x,
            hot_y: self.hot_y,
        }
    }
}
