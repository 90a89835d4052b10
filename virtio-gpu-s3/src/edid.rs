// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! EDID 1.4 of an output: the base block, and for what its fields cannot hold a DisplayID block.
//!
//! The base block's detailed timing has 12 bits for the active pixels and 16 bits (of 10 kHz) for
//! the clock, which ends short of 4096 pixels; a DisplayID 1.3 type I timing has 16 and 24 bits.
//! EDID 1.4 wants a preferred timing in its base block all the same, so there is a smaller mode of
//! the same shape then; Linux takes the larger of two preferred ones.
//!
//! Besides there are the usual modes up to 3840 × 2160, larger ones than the preferred too: a scanout can have any size, and
//! a person in the guest may want another than the VMM's.

use std::iter::repeat;

use crate::config::OutputConfig;

const BLOCK_BYTES: usize = 128;
/// Pixels per metre of a display of 96 dots per inch.
const PIXELS_PER_METRE: u64 = 3780;
/// The largest display whose size the base block can tell, in centimetres a byte.
const MAX_MILLIMETRES: u64 = 2550;

/// Established timings I and II, and the manufacturer's (EDID 1.4 §3.8): 640 × 480, 800 × 600 and 1024 × 768 at 60 Hz.
const ESTABLISHED: [u8; 3] = [0x21, 0x08, 0];
/// Widths and shapes of the standard timings, all of VESA's list (DMT) at 60 Hz.
const STANDARD: [(u16, Aspect); 8] = [
    (1280, Aspect::Sixteen9),
    (1280, Aspect::Sixteen10),
    (1280, Aspect::Five4),
    (1440, Aspect::Sixteen10),
    (1600, Aspect::Sixteen9),
    (1680, Aspect::Sixteen10),
    (1920, Aspect::Sixteen9),
    (1920, Aspect::Sixteen10),
];
/// What is too wide for a standard timing.
const LARGE: [OutputConfig; 2] = [
    OutputConfig {
        width: 2560,
        height: 1440,
    },
    OutputConfig {
        width: 3840,
        height: 2160,
    },
];

/// Aspect ratios of standard timings (EDID 1.4 §3.9), with their codes.
#[derive(Clone, Copy, Debug)]
enum Aspect {
    Sixteen10 = 0,
    Five4 = 2,
    Sixteen9 = 3,
}

/// The EDID of `output` at so many Hz, 128 or 256 bytes.
pub(crate) fn edid(index: usize, output: OutputConfig, refresh_hz: u32) -> Vec<u8> {
    let timing = Timing::reduced_blanking(output, refresh_hz);
    let (detailed, extended) = match timing.detailed() {
        Some(detailed) => (detailed, false),
        None => (smaller(output, refresh_hz, timing.millimetres), true),
    };
    let large = LARGE.iter().filter(|size| **size != output);
    let large = large.map(|size| on_glass(*size, refresh_hz, timing.millimetres).detailed());
    let detailed = [Some(detailed)].into_iter().chain(large).flatten();
    let mut block = base_block(index, &timing, detailed, extended);
    if extended {
        block.extend(display_id_block(&timing));
    }
    block
}

/// The largest half, quarter, … of `output` that the base block can hold.
fn smaller(output: OutputConfig, refresh_hz: u32, millimetres: (u64, u64)) -> [u8; 18] {
    let halves = (1..u32::BITS).map_while(|halvings| {
        let half = |pixels: u32| pixels.checked_shr(halvings).filter(|pixels| *pixels > 0);
        Some(OutputConfig {
            width: half(output.width)?,
            height: half(output.height)?,
        })
    });
    halves
        .map(|half| on_glass(half, refresh_hz, millimetres))
        .find_map(|timing| timing.detailed())
        .unwrap_or(UNUSED_DESCRIPTOR)
}

/// Another mode of a display of that size.
fn on_glass(size: OutputConfig, refresh_hz: u32, millimetres: (u64, u64)) -> Timing {
    Timing {
        millimetres,
        ..Timing::reduced_blanking(size, refresh_hz)
    }
}

/// Timing with CVT reduced blanking (version 1).
#[derive(Clone, Copy, Debug)]
struct Timing {
    width: u64,
    height: u64,
    h_blank: u64,
    v_blank: u64,
    /// Pixel clock in units of 10 kHz.
    clock: u64,
    millimetres: (u64, u64),
}

impl Timing {
    const H_BLANK: u64 = 160;
    const H_FRONT: u64 = 48;
    const H_SYNC: u64 = 32;
    const V_FRONT: u64 = 3;
    const V_SYNC: u64 = 6;

    /// Readers take a pixel clock below 10 MHz for rubbish, so the smallest modes are blank most
    /// of the time.
    const MIN_CLOCK_HZ: u64 = 10_000_000;
    const MIN_LINES: u64 = 80;

    /// What every frame spends blank, in microseconds.
    const MIN_BLANK_US: u64 = 460;

    fn reduced_blanking(output: OutputConfig, refresh_hz: u32) -> Self {
        let refresh = u64::from(refresh_hz).max(1);
        let (width, height) = (u64::from(output.width), u64::from(output.height));
        let frame_us = 1_000_000_u64.div_ceil(refresh);
        let picture_us = frame_us.saturating_sub(Self::MIN_BLANK_US).max(1);
        let blank = height
            .saturating_mul(Self::MIN_BLANK_US)
            .div_ceil(picture_us);
        let v_blank = blank
            .saturating_add(1)
            .max(Self::V_FRONT + Self::V_SYNC + 6);
        let v_blank = v_blank.max(Self::MIN_LINES.saturating_sub(height));
        let lines = height.saturating_add(v_blank);
        let least = Self::MIN_CLOCK_HZ.div_ceil(lines.saturating_mul(refresh).max(1));
        let columns = width.saturating_add(Self::H_BLANK).max(least);
        let total = columns.saturating_mul(lines);
        let densest = width
            .max(height)
            .saturating_mul(1000)
            .div_ceil(MAX_MILLIMETRES);
        let density = densest.max(PIXELS_PER_METRE);
        let millimetres = |pixels: u64| {
            let millimetres = pixels.saturating_mul(1000).checked_div(density);
            millimetres.unwrap_or_default().max(1)
        };
        Self {
            width,
            height,
            h_blank: columns.saturating_sub(width),
            v_blank,
            clock: total.saturating_mul(refresh).div_ceil(10_000),
            millimetres: (millimetres(width), millimetres(height)),
        }
    }

    /// The 18-byte detailed timing descriptor (EDID 1.4 §3.10.2), `None` if a field is too small.
    fn detailed(&self) -> Option<[u8; 18]> {
        let [clock_low, clock_high] = u16::try_from(self.clock).ok()?.to_le_bytes();
        let (width, width_high) = split12(self.width)?;
        let (h_blank, h_blank_high) = split12(self.h_blank)?;
        let (height, height_high) = split12(self.height)?;
        let (v_blank, v_blank_high) = split12(self.v_blank)?;
        let (mm_wide, mm_wide_high) = split12(self.millimetres.0)?;
        let (mm_high, mm_high_high) = split12(self.millimetres.1)?;
        let nibbles = |high: u8, low: u8| high << 4 | low;
        Some([
            clock_low,
            clock_high,
            width,
            h_blank,
            nibbles(width_high, h_blank_high),
            height,
            v_blank,
            nibbles(height_high, v_blank_high),
            u8::try_from(Self::H_FRONT).ok()?,
            u8::try_from(Self::H_SYNC).ok()?,
            u8::try_from(Self::V_FRONT << 4 | Self::V_SYNC).ok()?,
            0,
            mm_wide,
            mm_high,
            nibbles(mm_wide_high, mm_high_high),
            0,
            0,
            // Digital separate sync, horizontal positive: what reduced blanking uses.
            0x1a,
        ])
    }
}

/// Low byte and the four bits above it, `None` if there is more.
fn split12(value: u64) -> Option<(u8, u8)> {
    let [low, high, rest @ ..] = value.to_le_bytes();
    (high < 16 && rest == [0; 6]).then_some((low, high))
}

/// The display descriptors of EDID 1.4 §3.10.3 that no timing fills.
const UNUSED_DESCRIPTOR: [u8; 18] = [0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Two bytes: the width in units of 8 pixels from 248 on, the shape, and 60 Hz.
fn standard_timing((width, aspect): (u16, Aspect)) -> [u8; 2] {
    let eighths = (width / 8).saturating_sub(31);
    [
        u8::try_from(eighths).unwrap_or_default(),
        (aspect as u8) << 6,
    ]
}

fn base_block(
    index: usize,
    timing: &Timing,
    detailed: impl Iterator<Item = [u8; 18]>,
    extended: bool,
) -> Vec<u8> {
    let centimetres = |mm: u64| u8::try_from(mm.div_ceil(10)).unwrap_or(u8::MAX);
    let mut block = Vec::with_capacity(2 * BLOCK_BYTES);
    block.extend([0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]);
    // "VGS", three letters of five bits; product code; serial number; made in week 1 of 2026.
    block.extend([0x58, 0xf3, 0x01, 0x00]);
    block.extend(
        u32::try_from(index)
            .unwrap_or_default()
            .saturating_add(1)
            .to_le_bytes(),
    );
    block.extend([1, 36]);
    block.extend([1, 4]);
    // Digital, 8 bits a component, DisplayPort; size in centimetres; gamma 2.2.
    block.push(0xa5);
    block.push(centimetres(timing.millimetres.0));
    block.push(centimetres(timing.millimetres.1));
    block.push(120);
    // RGB 4:4:4, sRGB is the default colour space, the first timing is the native one.
    block.push(0x06);
    // sRGB chromaticity.
    block.extend([0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54]);
    block.extend(ESTABLISHED);
    block.extend(STANDARD.into_iter().flat_map(standard_timing));
    // Four descriptors: timings come first, the preferred one before all.
    let name = [*b"\0\0\0\xfc\0Virtio GPU S3"];
    let descriptors = detailed.chain(name).chain(repeat(UNUSED_DESCRIPTOR));
    block.extend(descriptors.take(4).flatten());
    block.push(u8::from(extended));
    push_checksum(&mut block, 0);
    block
}

/// An extension block with one DisplayID 1.3 type I detailed timing (DisplayID 1.3 §4.4.1).
fn display_id_block(timing: &Timing) -> Vec<u8> {
    let field = |value: u64| u16::try_from(value.saturating_sub(1)).unwrap_or(u16::MAX);
    let clock = u32::try_from(timing.clock.saturating_sub(1)).unwrap_or(u32::MAX);
    let [clock_low, clock_middle, clock_high, _] = clock.min(0x00ff_ffff).to_le_bytes();
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    // Extension tag; DisplayID 1.3; bytes in the section; a standalone display; no more sections.
    block.extend([0x70, 0x13, 121, 3, 0]);
    // Product identification, which comes first: as in the base block.
    block.extend([0x00, 0, 12]);
    block.extend(*b"VGS");
    block.extend([0x01, 0x00, 0, 0, 0, 0, 1, 26, 0]);
    // Type I timing data block, revision 0, one timing of 20 bytes.
    block.extend([0x03, 0, 20]);
    block.extend([clock_low, clock_middle, clock_high]);
    // Preferred, progressive, aspect ratio not given.
    block.push(0x88);
    for value in [timing.width, timing.h_blank] {
        block.extend(field(value).to_le_bytes());
    }
    // The top bit of a front porch is the polarity of its sync: horizontal positive.
    block.extend((field(Timing::H_FRONT) | 0x8000).to_le_bytes());
    for value in [
        Timing::H_SYNC,
        timing.height,
        timing.v_blank,
        Timing::V_FRONT,
        Timing::V_SYNC,
    ] {
        block.extend(field(value).to_le_bytes());
    }
    push_display(&mut block, timing);
    block.resize(BLOCK_BYTES - 2, 0);
    // The section has its own checksum, over everything but the extension tag.
    push_checksum(&mut block, 1);
    push_checksum(&mut block, 0);
    block
}

/// The other blocks that DisplayID 1.3 §3.1 wants of a standalone display.
fn push_display(block: &mut Vec<u8>, timing: &Timing) {
    // Display parameters: size in tenths of a millimetre, pixels, gamma 2.2, 8 bits a component.
    block.extend([0x01, 0, 12]);
    let (wide, high) = timing.millimetres;
    let tenths = |millimetres: u64| millimetres.saturating_mul(10);
    for value in [tenths(wide), tenths(high), timing.width, timing.height] {
        block.extend(u16::try_from(value).unwrap_or(u16::MAX).to_le_bytes());
    }
    block.extend([0, 120, 0, 0x77]);
    // Interface features: DisplayPort of four lanes, RGB of 8 bits a component.
    block.extend([0x0f, 0, 10, 0xa4, 0x11, 0x02, 0, 0, 0, 0, 0, 0, 0]);
}

fn push_checksum(block: &mut Vec<u8>, from: usize) {
    let sum = block
        .iter()
        .skip(from)
        .fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    block.push(sum.wrapping_neg());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edid_of(width: u32, height: u32) -> Vec<u8> {
        edid(0, OutputConfig { width, height }, 60)
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    #[test]
    fn every_block_has_the_length_and_checksum_of_the_standard() {
        for (width, height) in [
            (16, 16),
            (1280, 800),
            (3840, 2160),
            (5120, 2880),
            (16384, 16384),
        ] {
            let edid = edid_of(width, height);
            assert_eq!(edid.len(), BLOCK_BYTES * (1 + usize::from(edid[126])));
            for block in edid.chunks(BLOCK_BYTES) {
                assert_eq!(sum(block), 0, "{width}x{height}");
            }
        }
    }

    #[test]
    fn the_preferred_timing_of_the_base_block_is_the_configured_mode() {
        for (width, height) in [(640_u32, 480_u32), (1280, 800), (1920, 1080), (3840, 2160)] {
            let edid = edid_of(width, height);
            let timing = &edid[54..72];
            let pair = |low: usize, high: u8| u32::from(timing[low]) | u32::from(high) << 8;
            assert_eq!(pair(2, timing[4] >> 4), width);
            assert_eq!(pair(5, timing[7] >> 4), height);
            let clock = u64::from(u16::from_le_bytes([timing[0], timing[1]])) * 10_000;
            let total = u64::from(pair(2, timing[4] >> 4) + pair(3, timing[4] & 15))
                * u64::from(pair(5, timing[7] >> 4) + pair(6, timing[7] & 15));
            assert_eq!((clock + total / 2) / total, 60);
        }
    }

    #[test]
    fn every_pixel_clock_is_one_that_readers_believe() {
        for (width, height) in [(16, 16), (16, 4000), (4000, 16), (200, 150), (64, 64)] {
            let edid = edid_of(width, height);
            assert!(u16::from_le_bytes([edid[54], edid[55]]) >= 1000);
            let h_total = width + u32::from(edid[57]) + (u32::from(edid[58] & 15) << 8);
            let v_total = height + u32::from(edid[60]) + (u32::from(edid[61] & 15) << 8);
            let clock = u32::from(u16::from_le_bytes([edid[54], edid[55]])) * 10_000;
            assert_eq!((clock + h_total * v_total / 2) / (h_total * v_total), 60);
        }
    }

    #[test]
    fn a_mode_too_large_for_the_base_block_is_a_display_id_timing() {
        for (width, height) in [
            (4096_u16, 2160_u16),
            (5120, 2880),
            (7680, 4320),
            (16384, 16384),
        ] {
            let edid = edid_of(width.into(), height.into());
            let block = &edid[BLOCK_BYTES..];
            assert_eq!(block[0], 0x70);
            assert_eq!(sum(&block[1..127]), 0);
            let field = |at: usize| u16::from_le_bytes([block[at], block[at + 1]]) + 1;
            assert_eq!((field(27), field(35)), (width, height));
            // A smaller mode of the same shape stands in the base block.
            let timing = &edid[54..72];
            let pair = |low: usize, high: u8| u32::from(timing[low]) | u32::from(high) << 8;
            let small = (pair(2, timing[4] >> 4), pair(5, timing[7] >> 4));
            assert_eq!(small.0 * u32::from(height), small.1 * u32::from(width));
            assert!(u32::from(width) / small.0 <= 8);
        }
    }

    #[test]
    fn it_is_a_digital_display_with_a_name() {
        let edid = edid_of(800, 600);
        assert_eq!(edid[..8], [0, 255, 255, 255, 255, 255, 255, 0]);
        assert_eq!((edid[18], edid[19]), (1, 4));
        assert_ne!(edid[20] & 0x80, 0);
        // Behind the preferred timing and two large ones.
        assert_eq!(edid[108..126], *b"\0\0\0\xfc\0Virtio GPU S3");
    }

    /// 655.35 MHz is the fastest clock of the base block, 167 GHz that of DisplayID.
    #[test]
    fn the_clock_follows_the_refresh_rate_wherever_the_mode_stands() {
        for hz in [24, 50, 60, 75, 144, 240] {
            for (width, height) in [(1280, 800), (1920, 1080), (3840, 2160), (16384, 16384)] {
                let edid = edid(0, OutputConfig { width, height }, hz);
                let (clock, total) = if edid.len() == BLOCK_BYTES {
                    let timing = &edid[54..72];
                    let pair = |low: usize, high: u8| u64::from(timing[low]) | u64::from(high) << 8;
                    let columns = pair(2, timing[4] >> 4) + pair(3, timing[4] & 15);
                    let lines = pair(5, timing[7] >> 4) + pair(6, timing[7] & 15);
                    (pair(0, timing[1]), columns * lines)
                } else {
                    let block = &edid[BLOCK_BYTES..];
                    let field =
                        |at: usize| u64::from(u16::from_le_bytes([block[at], block[at + 1]])) + 1;
                    let clock = u32::from_le_bytes([block[23], block[24], block[25], 0]);
                    (
                        u64::from(clock) + 1,
                        (field(27) + field(29)) * (field(35) + field(37)),
                    )
                };
                let millihertz = clock * 10_000 * 1000 / total;
                let wanted = u64::from(hz) * 1000;
                assert!(
                    millihertz.abs_diff(wanted) <= 500,
                    "{width}x{height}: {millihertz} for {hz} Hz"
                );
            }
        }
    }
}
