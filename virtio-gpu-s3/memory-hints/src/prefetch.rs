// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Asking for memory before it is needed: a processor foresees the next line of a page, but not
//! the next page of a scattered framebuffer nor the next row of a rectangle, and that is what a
//! copy waits for.
#![cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "the instruction takes a raw address")
)]

use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;

/// Bytes that one request brings.
const LINE: usize = 64;
/// Bytes of a row that are asked for. What is behind them the processor foresees.
const START: usize = 256;

/// Asks for `bytes` bytes of `memory` from `start` on, as far as there are. Changes nothing but
/// time.
#[inline]
pub fn prefetch<B: BitmapSlice>(memory: &VolatileSlice<'_, B>, start: usize, bytes: usize) {
    let guard = memory.ptr_guard();
    let end = start.saturating_add(bytes).min(memory.len());
    ask(guard.as_ptr(), start, end);
}

/// Asks for the first `START` bytes of the `len` from `place` of `memory` on.
#[inline]
pub fn prefetch_row<B: BitmapSlice>(memory: &VolatileSlice<'_, B>, place: usize, len: usize) {
    let row = memory.ptr_guard().as_ptr().wrapping_add(place);
    // As many whatever the length: a loop that must count costs more than asking twice.
    for at in (0..START).step_by(LINE) {
        ask_line(row.wrapping_add(at.min(len.saturating_sub(1))));
    }
}

/// Asks for the start of `memory`, which is to be written.
#[inline]
pub fn prefetch_start(memory: &[u8]) {
    ask_line(memory.as_ptr());
}

/// Asks for what lies between `start` and `end` bytes from `base`.
#[cfg(target_arch = "x86_64")]
#[inline]
fn ask(base: *const u8, start: usize, end: usize) {
    let into_line = base.addr().wrapping_add(start) & LINE.wrapping_sub(1);
    let length = end.saturating_sub(start).saturating_add(into_line);
    let first = base.wrapping_add(start).wrapping_sub(into_line);
    for offset in (0..length).step_by(LINE) {
        ask_line(first.wrapping_add(offset));
    }
}

/// Asks for the line of a byte.
#[cfg(target_arch = "x86_64")]
#[inline]
fn ask_line(byte: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

    // SAFETY: a prefetch never faults, whatever the address, and changes nothing
    // that a program can see but time.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(byte.cast()) };
}

/// Other processors are left to their own foresight.
#[cfg(not(target_arch = "x86_64"))]
fn ask(_: *const u8, _: usize, _: usize) {}

/// Other processors are left to their own foresight.
#[cfg(not(target_arch = "x86_64"))]
fn ask_line(_: *const u8) {}
