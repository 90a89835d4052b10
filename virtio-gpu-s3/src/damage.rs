// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which parts of a picture changed, and when: one bounded list for any number of viewers.

use crate::geometry::Rect;

/// Rectangles that are told apart. A flush looks at each of them, so there are few; beyond them the
/// two that come one after the other and have the least between them become one.
pub(crate) const MAX_DAMAGE_RECTS: usize = 16;

/// Rectangles by the number of the change that damaged them, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Damage(Vec<(u64, Rect)>);

impl Damage {
    /// Change number `change`, the newest so far, damages `rect`.
    pub(crate) fn add(&mut self, change: u64, rect: Rect) {
        let Self(rects) = self;
        if let Some((newest, last)) = rects.last_mut()
            && *last == rect
        {
            *newest = change;
            return;
        }
        rects.retain(|(_, old)| !rect.covers(old));
        if rects.len() >= MAX_DAMAGE_RECTS {
            merge_two(rects);
        }
        rects.push((change, rect));
    }

    /// Forgets everything: there is another picture.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// What changed after change number `seen`: that, and possibly more. None lies in another.
    pub(crate) fn since(&self, seen: u64) -> Vec<Rect> {
        let mut damaged: Vec<Rect> = Vec::new();
        for (_, rect) in self.0.iter().filter(|(change, _)| *change > seen) {
            if !damaged.iter().any(|other| other.covers(rect)) {
                damaged.retain(|other| !rect.covers(other));
                damaged.push(*rect);
            }
        }
        damaged
    }
}

/// Merges the neighbours whose box adds the least to the newer of them: whoever has seen only the
/// older one is told so much too much.
fn merge_two(rects: &mut Vec<(u64, Rect)>) {
    let pairs = rects.iter().zip(rects.iter().skip(1)).enumerate();
    let boxed = pairs.map(|(index, ((_, older), (change, newer)))| {
        let around = older.around(newer);
        let added = around.area().saturating_sub(newer.area());
        (added, index, (*change, around))
    });
    if let Some((_, index, merged)) = boxed.min_by_key(|(added, ..)| *added) {
        rects.remove(index);
        if let Some(newer) = rects.get_mut(index) {
            *newer = merged;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const WHOLE: Rect = Rect::sized(100, 100);

    fn dot(x: u32, y: u32) -> Rect {
        Rect {
            x,
            y,
            width: 1,
            height: 1,
        }
    }

    fn pixels(rects: &[Rect]) -> Vec<bool> {
        let covered = |at: u32| rects.iter().any(|it| it.covers(&dot(at % 100, at / 100)));
        (0..100 * 100).map(covered).collect()
    }

    #[test]
    fn a_viewer_is_told_what_changed_since_it_looked_and_no_more() {
        let mut damage = Damage::default();
        damage.add(1, WHOLE);
        damage.add(2, dot(1, 1));
        damage.add(3, dot(9, 9));
        assert_eq!(damage.since(0), [WHOLE]);
        assert_eq!(damage.since(1), [dot(1, 1), dot(9, 9)]);
        assert_eq!(damage.since(2), [dot(9, 9)]);
        assert_eq!(damage.since(3), []);
        damage.clear();
        assert_eq!(damage.since(0), []);
    }

    #[test]
    fn the_same_places_damaged_for_ever_are_a_rectangle_each() {
        let mut damage = Damage::default();
        damage.add(1, WHOLE);
        for change in 2..1000 {
            damage.add(change, dot(5, 5));
            damage.add(change, dot(5, 5));
            damage.add(change, dot(7, 7));
        }
        assert_eq!(damage.0.len(), 3);
        assert_eq!(damage.since(998), [dot(5, 5), dot(7, 7)]);
        assert_eq!(damage.since(999), []);
    }

    #[test]
    fn what_a_merge_adds_to_the_newer_counts_and_not_how_large_it_is() {
        let mut damage = Damage::default();
        // These two have 40 pixels between them, and neighbours among the dots 200.
        let large = Rect {
            y: 60,
            ..Rect::sized(40, 40)
        };
        damage.add(1, dot(40, 60));
        damage.add(2, large);
        for change in 3..=16 {
            let number = u32::try_from(change).unwrap();
            damage.add(change, dot(number * 3, number % 2 * 50));
        }
        damage.add(17, dot(99, 99));
        assert_eq!(damage.since(0)[0], Rect { width: 41, ..large });
    }

    #[test]
    fn neighbours_merge_before_what_is_far_apart() {
        let mut damage = Damage::default();
        damage.add(1, WHOLE);
        for change in 2..=16 {
            damage.add(change, dot(u32::try_from(change).unwrap() * 5, 50));
        }
        damage.add(17, dot(90, 90));
        // Two of the line became one; the old picture is not told anew, nor is what is far away.
        assert_eq!(damage.since(1).len(), 15);
        assert_eq!(damage.since(16), [dot(90, 90)]);
        assert!(damage.since(1).iter().all(|rect| rect.area() <= 6));
    }

    fn rect() -> impl Strategy<Value = Rect> {
        (0..90_u32, 0..90_u32, 1..10_u32, 1..10_u32).prop_map(|(x, y, width, height)| Rect {
            x,
            y,
            width,
            height,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn no_viewer_misses_a_pixel_and_the_list_stays_short(rects in vec(rect(), 1..60)) {
            let mut damage = Damage::default();
            for (change, rect) in (1..).zip(&rects) {
                damage.add(change, *rect);
                prop_assert!(damage.0.len() <= MAX_DAMAGE_RECTS);
            }
            for seen in 0..rects.len() {
                let told = pixels(&damage.since(seen as u64));
                let changed = pixels(&rects[seen..]);
                prop_assert!(changed.iter().zip(&told).all(|(changed, told)| told >= changed));
            }
            // The one that looks after each flush is told exactly.
            let before_last = rects.len().saturating_sub(1) as u64;
            prop_assert_eq!(damage.since(before_last), [*rects.last().unwrap()]);
        }
    }
}
