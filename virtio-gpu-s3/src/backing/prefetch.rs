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
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

/// Asks for `bytes` bytes of `memory` from `start` on, as far as there are. Changes nothing but
/// time.
#[inline]
pub(super) fn prefetch<B: BitmapSlice>(memory: &VolatileSlice<'_, B>, start: usize, bytes: usize) {
    let guard = memory.ptr_guard();
    let end = start.saturating_add(bytes).min(memory.len());
    ask(guard.as_ptr(), start, end);
}

/// Asks for the start of `memory`, which is to be written.
#[inline]
pub(super) fn prefetch_start(memory: &[u8]) {
    ask(memory.as_ptr(), 0, 1);
}

/// Asks for what lies between `start` and `end` bytes from `base`.
#[cfg(target_arch = "x86_64")]
#[inline]
fn ask(base: *const u8, start: usize, end: usize) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

    let into_line = base.addr().wrapping_add(start) & LINE.wrapping_sub(1);
    let length = end.saturating_sub(start).saturating_add(into_line);
    let first = base.wrapping_add(start).wrapping_sub(into_line);
    for offset in (0..length).step_by(LINE) {
        let line = first.wrapping_add(offset);
        // SAFETY: a prefetch never faults, whatever the address; this line holds a byte of the
        // memory.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
    }
}

/// Other processors are left to their own foresight.
#[cfg(not(target_arch = "x86_64"))]
fn ask(_: *const u8, _: usize, _: usize) {}
