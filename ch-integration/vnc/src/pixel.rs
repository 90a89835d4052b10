// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pixels as a viewer wants them (RFC 6143 §7.4). Ours are 0x00RRGGBB.

use crate::error::ProtocolError;

/// Bytes of a PIXEL_FORMAT.
pub(crate) const FORMAT_BYTES: usize = 16;

/// A viewer's pixel format, in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PixelFormat {
    /// Bytes of a pixel: 1, 2 or 4.
    bytes: usize,
    big_endian: bool,
    /// Where the bytes of a compressed pixel lie among those (RFC 6143 §7.7.5), first and behind the last.
    compressed: (usize, usize),
    /// What each component's value becomes, in its place.
    tables: Box<[[u32; 256]; 3]>,
    /// Whether a pixel is ours as it is.
    native: bool,
}

/// Where a component lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Component {
    max: u16,
    shift: u8,
}

/// Ours: red, green, blue.
const NATIVE: [Component; 3] = [
    Component {
        max: 255,
        shift: 16,
    },
    Component { max: 255, shift: 8 },
    Component { max: 255, shift: 0 },
];

/// Our format as ServerInit tells it: 32 bits a pixel, depth 24, little-endian, true colour.
pub(crate) const NATIVE_BYTES: [u8; FORMAT_BYTES] =
    [32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0];

impl Default for PixelFormat {
    fn default() -> Self {
        Self::with(4, false, 24, NATIVE)
    }
}

impl PixelFormat {
    /// Reads the 16 bytes of a PIXEL_FORMAT.
    ///
    /// # Errors
    /// No such pixels exist, or they have a colour map.
    pub(crate) fn parse(format: &[u8; FORMAT_BYTES]) -> Result<Self, ProtocolError> {
        let wrong = |what| ProtocolError::PixelFormat { what };
        let [bits, depth, big_endian, true_colour, rest @ ..] = *format;
        let [r1, r0, g1, g0, b1, b0, red, green, blue, ..] = rest;
        if true_colour == 0 {
            return Err(wrong("a colour map"));
        }
        let bytes = match bits {
            8 => 1,
            16 => 2,
            32 => 4,
            _ => return Err(wrong("a number of bits that is not 8, 16 or 32")),
        };
        if depth > bits {
            return Err(wrong("more bits than it has"));
        }
        let component = |max, shift| Component {
            max: u16::from_be_bytes(max),
            shift,
        };
        let components = [
            component([r1, r0], red),
            component([g1, g0], green),
            component([b1, b0], blue),
        ];
        let most = u64::MAX.checked_shr(64_u32.saturating_sub(bits.into()));
        let fits = |it: &Component| {
            let top = u64::from(it.max).checked_shl(it.shift.into());
            it.shift < bits && top.is_some_and(|top| Some(top) <= most)
        };
        if !components.iter().all(fits) {
            return Err(wrong("a component outside it"));
        }
        Ok(Self::with(bytes, big_endian != 0, depth, components))
    }

    fn with(bytes: usize, big_endian: bool, depth: u8, components: [Component; 3]) -> Self {
        let tables = components.map(|Component { max, shift }| {
            let mut value = 0_u32;
            [(); 256].map(|()| {
                let scaled = value.saturating_mul(max.into()).saturating_add(127) / 255;
                value = value.saturating_add(1);
                scaled.checked_shl(shift.into()).unwrap_or(0)
            })
        });
        let used = components.iter().fold(0_u32, |used, it| {
            used | u32::from(it.max).checked_shl(it.shift.into()).unwrap_or(0)
        });
        let three = bytes == 4 && depth <= 24;
        // The three bytes of least or of most value, in the viewer's order.
        let compressed = if three && used & 0xff00_0000 == 0 {
            if big_endian { (1, 4) } else { (0, 3) }
        } else if three && used & 0xff == 0 {
            if big_endian { (0, 3) } else { (1, 4) }
        } else {
            (0, bytes)
        };
        Self {
            bytes,
            big_endian,
            compressed,
            tables: Box::new(tables),
            native: bytes == 4 && !big_endian && components == NATIVE,
        }
    }

    /// Appends a pixel.
    pub(crate) fn put(&self, pixel: u32, out: &mut Vec<u8>) {
        let bytes = self.convert(pixel);
        out.extend_from_slice(bytes.get(..self.bytes).unwrap_or_default());
    }

    /// Appends a CPIXEL (RFC 6143 §7.7.5).
    pub(crate) fn put_compressed(&self, pixel: u32, out: &mut Vec<u8>) {
        let (from, to) = self.compressed;
        let bytes = self.convert(pixel);
        out.extend_from_slice(bytes.get(from..to).unwrap_or_default());
    }

    /// Bytes of a CPIXEL.
    pub(crate) fn compressed_bytes(&self) -> usize {
        self.compressed.1.saturating_sub(self.compressed.0)
    }

    /// In the viewer's byte order, in as many bytes as the format has.
    fn convert(&self, pixel: u32) -> [u8; 4] {
        if self.native {
            return pixel.to_le_bytes();
        }
        let [blue, green, red, _] = pixel.to_le_bytes();
        let [reds, greens, blues] = &*self.tables;
        let of = |table: &[u32; 256], at: u8| table.get(usize::from(at)).copied().unwrap_or(0);
        let value = of(reds, red) | of(greens, green) | of(blues, blue);
        if !self.big_endian {
            return value.to_le_bytes();
        }
        let unused = 4_usize.saturating_sub(self.bytes);
        let mut bytes = value.to_be_bytes();
        bytes.rotate_left(unused);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(format: [u8; FORMAT_BYTES], pixel: u32) -> (Vec<u8>, Vec<u8>) {
        let format = PixelFormat::parse(&format).unwrap();
        let (mut whole, mut compressed) = (Vec::new(), Vec::new());
        format.put(pixel, &mut whole);
        format.put_compressed(pixel, &mut compressed);
        assert_eq!(compressed.len(), format.compressed_bytes());
        (whole, compressed)
    }

    #[test]
    fn our_own_format_is_what_server_init_tells() {
        assert_eq!(
            PixelFormat::parse(&NATIVE_BYTES),
            Ok(PixelFormat::default())
        );
        let (whole, compressed) = both(NATIVE_BYTES, 0x11_2233);
        assert_eq!(whole, [0x33, 0x22, 0x11, 0]);
        assert_eq!(compressed, [0x33, 0x22, 0x11]);
    }

    #[test]
    fn a_compressed_pixel_has_the_three_bytes_that_hold_colours_in_the_viewers_order() {
        let big = [32, 24, 1, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0];
        assert_eq!(both(big, 0x11_2233).0, [0, 0x11, 0x22, 0x33]);
        assert_eq!(both(big, 0x11_2233).1, [0x11, 0x22, 0x33]);
        let high = [32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 24, 16, 8, 0, 0, 0];
        assert_eq!(both(high, 0x11_2233).0, [0, 0x33, 0x22, 0x11]);
        assert_eq!(both(high, 0x11_2233).1, [0x33, 0x22, 0x11]);
        let deep = [32, 32, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0];
        assert_eq!(both(deep, 0x11_2233).1.len(), 4);
    }

    #[test]
    fn sixteen_and_eight_bits_scale_each_component() {
        let rgb565 = [16, 16, 0, 1, 0, 31, 0, 63, 0, 31, 11, 5, 0, 0, 0, 0];
        assert_eq!(both(rgb565, 0xff_ffff).0, [0xff, 0xff]);
        assert_eq!(both(rgb565, 0xff_0000).0, [0, 0xf8]);
        let big = [16, 16, 1, 1, 0, 31, 0, 63, 0, 31, 11, 5, 0, 0, 0, 0];
        assert_eq!(both(big, 0xff_0000).0, [0xf8, 0]);
        let bgr233 = [8, 8, 0, 1, 0, 7, 0, 7, 0, 3, 0, 3, 6, 0, 0, 0];
        assert_eq!(both(bgr233, 0xff_ff00).0, [0x3f]);
    }

    #[test]
    fn what_is_no_pixel_is_refused_by_name() {
        for (at, value, what) in [
            (3, 0, "a colour map"),
            (0, 24, "a number of bits that is not 8, 16 or 32"),
            (1, 33, "more bits than it has"),
            (10, 32, "a component outside it"),
            (10, 25, "a component outside it"),
        ] {
            let mut format = NATIVE_BYTES;
            format[at] = value;
            assert_eq!(
                PixelFormat::parse(&format),
                Err(ProtocolError::PixelFormat { what }),
                "{at}"
            );
        }
    }
}
