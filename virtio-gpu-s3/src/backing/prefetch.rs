// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Asking for memory before it is needed: a processor foresees the next line of a page, but not
//! the next page of a scattered framebuffer, and that is what its copy waits for.
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
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) fn prefetch<B: BitmapSlice>(memory: &VolatileSlice<'_, B>, start: usize, bytes: usize) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

    let guard = memory.ptr_guard();
    let end = start.saturating_add(bytes).min(memory.len());
    for offset in (start..end).step_by(LINE) {
        let line = guard.as_ptr().wrapping_add(offset);
        // SAFETY: a prefetch never faults, whatever the address; this one is inside the slice.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
    }
}

/// Other processors are left to their own foresight.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn prefetch<B: BitmapSlice>(_: &VolatileSlice<'_, B>, _: usize, _: usize) {}
