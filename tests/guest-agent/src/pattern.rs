// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The picture a test draws: a pure function, so that the host knows every pixel in advance.

/// Side, in pixels, of the squares the picture is made of.
const TILE: u32 = 8;

/// The XRGB8888 value (X is 0) of pixel (`x`, `y`) of picture `seed`.
///
/// Each tile has a colour of its own and each pixel differs from its neighbours, so a picture that is
/// stale, shifted, torn or has its channels swapped differs from the expected one.
pub fn pattern(seed: u32, x: u32, y: u32) -> u32 {
    let tile = mix(seed ^ mix((x / TILE) ^ mix((y / TILE) ^ 0x9e37_79b9)));
    let texture = (x % TILE) * 0x0002_0408 + (y % TILE) * 0x0001_0301;
    (tile ^ texture) & 0x00ff_ffff
}

/// Row `y` of picture `seed`, `width` pixels, as little-endian XRGB8888 (bytes B, G, R, 0).
pub fn row(seed: u32, y: u32, width: u32) -> Vec<u8> {
    (0..width)
        .flat_map(|x| pattern(seed, x, y).to_le_bytes())
        .collect()
}

/// The finalizer of MurmurHash3: every input bit reaches every output bit.
fn mix(mut value: u32) -> u32 {
    value ^= value >> 16;
    value = value.wrapping_mul(0x85eb_ca6b);
    value ^= value >> 13;
    value = value.wrapping_mul(0xc2b2_ae35);
    value ^ (value >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_of_different_seeds_differ_in_nearly_every_pixel() {
        let same = (0..100)
            .flat_map(|y| (0..100).map(move |x| (x, y)))
            .filter(|&(x, y)| pattern(1, x, y) == pattern(2, x, y))
            .count();
        assert!(same < 10, "{same} of 10000 pixels are the same");
    }

    #[test]
    fn a_pixel_differs_from_its_right_and_lower_neighbours() {
        for (x, y) in (0..64).flat_map(|y| (0..64).map(move |x| (x, y))) {
            assert_ne!(pattern(7, x, y), pattern(7, x + 1, y), "({x}, {y})");
            assert_ne!(pattern(7, x, y), pattern(7, x, y + 1), "({x}, {y})");
        }
    }

    #[test]
    fn a_row_is_the_pattern_in_blue_green_red_order() {
        let [b, g, r, _] = pattern(3, 1, 2).to_le_bytes();
        assert_eq!(row(3, 2, 2).get(4..8), Some(&[b, g, r, 0][..]));
    }
}
