// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Rectangles, with every sum checked.

use crate::error::GuestError;
use crate::protocol::wire;

/// A rectangle of pixels; 0,0 is top left (VIRTIO 1.4 §5.7.6.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Rect {
    /// Left edge.
    pub x: u32,
    /// Upper edge.
    pub y: u32,
    /// Pixels to the right of `x`.
    pub width: u32,
    /// Pixels below `y`.
    pub height: u32,
}

impl Rect {
    /// A rectangle at the origin.
    pub const fn sized(width: u32, height: u32) -> Self {
        Self {
            x: 0,
            y: 0,
            width,
            height,
        }
    }

    /// True if it covers no pixel.
    pub const fn is_empty(&self) -> bool {
        self.width == 0 || self.height == 0
    }

    /// Pixels in it.
    pub(crate) fn area(&self) -> u64 {
        u64::from(self.width).saturating_mul(self.height.into())
    }

    /// True if all of `other` is inside.
    pub fn covers(&self, other: &Self) -> bool {
        self.x <= other.x
            && self.y <= other.y
            && self.right() >= other.right()
            && self.bottom() >= other.bottom()
    }

    /// The least rectangle that covers both, as far as 32 bits hold its size.
    pub(crate) fn around(&self, other: &Self) -> Self {
        let (x, y) = (self.x.min(other.x), self.y.min(other.y));
        let size = |end: u64, start: u32| {
            let size = end.saturating_sub(start.into());
            u32::try_from(size).unwrap_or(u32::MAX)
        };
        Self {
            x,
            y,
            width: size(self.right().max(other.right()), x),
            height: size(self.bottom().max(other.bottom()), y),
        }
    }

    /// First column right of it.
    pub fn right(&self) -> u64 {
        u64::from(self.x).saturating_add(self.width.into())
    }

    /// First row below it.
    pub fn bottom(&self) -> u64 {
        u64::from(self.y).saturating_add(self.height.into())
    }

    /// The part of `self` inside `other`, in coordinates relative to `other`'s corner.
    /// `None` if they share no pixel.
    pub fn within(&self, other: &Self) -> Option<Self> {
        let x = self.x.max(other.x);
        let y = self.y.max(other.y);
        let right = self.right().min(other.right());
        let bottom = self.bottom().min(other.bottom());
        let width = right.checked_sub(x.into())?;
        let height = bottom.checked_sub(y.into())?;
        let part = Self {
            x: x.saturating_sub(other.x),
            y: y.saturating_sub(other.y),
            width: u32::try_from(width).ok()?,
            height: u32::try_from(height).ok()?,
        };
        (!part.is_empty()).then_some(part)
    }

    /// `Ok` if the rectangle lies inside `width` × `height`.
    pub(crate) fn check_inside(&self, width: u32, height: u32) -> Result<(), GuestError> {
        if self.right() > width.into() {
            return Err(GuestError::Parameter {
                field: "r.x + r.width",
                value: self.right(),
            });
        }
        if self.bottom() > height.into() {
            return Err(GuestError::Parameter {
                field: "r.y + r.height",
                value: self.bottom(),
            });
        }
        Ok(())
    }
}

impl From<wire::Rect> for Rect {
    fn from(rect: wire::Rect) -> Self {
        Self {
            x: rect.x.get(),
            y: rect.y.get(),
            width: rect.width.get(),
            height: rect.height.get(),
        }
    }
}

impl From<Rect> for wire::Rect {
    fn from(rect: Rect) -> Self {
        Self {
            x: rect.x.into(),
            y: rect.y.into(),
            width: rect.width.into(),
            height: rect.height.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_within_another_is_relative_to_its_corner() {
        let damage = Rect {
            x: 90,
            y: 10,
            width: 20,
            height: 5,
        };
        let scanout = Rect {
            x: 100,
            y: 0,
            width: 50,
            height: 50,
        };
        assert_eq!(
            damage.within(&scanout),
            Some(Rect {
                x: 0,
                y: 10,
                width: 10,
                height: 5
            })
        );
        assert_eq!(Rect::sized(100, 100).within(&scanout), None);
    }

    #[test]
    fn the_box_around_two_rectangles_covers_both_and_no_more() {
        let left = Rect::sized(2, 3);
        let right = Rect {
            x: 10,
            y: 1,
            width: 5,
            height: 1,
        };
        let around = left.around(&right);
        assert_eq!(around, Rect::sized(15, 3));
        assert!(around.covers(&left) && around.covers(&right));
        assert!(!left.covers(&right) && !right.covers(&left));
        assert_eq!((around.area(), right.area()), (45, 5));
    }

    #[test]
    fn corners_beyond_u32_are_outside_everything() {
        let huge = Rect {
            x: u32::MAX,
            y: 1,
            width: u32::MAX,
            height: 1,
        };
        assert_eq!(huge.right(), u64::from(u32::MAX) * 2);
        huge.check_inside(u32::MAX, u32::MAX).unwrap_err();
        Rect::sized(u32::MAX, 1).check_inside(u32::MAX, 1).unwrap();
    }
}
