// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Large pages for pictures: the rows of a damage rectangle are each in another small page, and
//! finding those takes longer than copying to them.
#![cfg_attr(
    target_os = "linux",
    expect(unsafe_code, reason = "the system call takes a raw address")
)]

/// A picture of zeros, on large pages where the host has them for who asks. It is committed as it
/// is drawn to, in larger pieces.
pub fn zeros(bytes: usize) -> Vec<u8> {
    let mut zeros = vec![0; bytes];
    ask(&mut zeros);
    zeros
}

#[cfg(target_os = "linux")]
fn ask(memory: &mut [u8]) {
    use rustix::mm::{Advice, madvise};

    /// The smallest that processors have beyond 4 KiB or so. A picture that holds none pays
    /// nothing.
    const LARGE: usize = 2 << 20;
    /// What the system call wants its range to begin at: the largest small page of any processor.
    const PAGE: usize = 64 << 10;

    let into = memory.as_ptr().align_offset(PAGE);
    let Some(whole) = memory.get_mut(into..) else {
        return;
    };
    let length = whole.len() & !PAGE.wrapping_sub(1);
    if length < LARGE {
        return;
    }
    // SAFETY: the range is all of this slice, which is borrowed, and the advice changes nothing of
    // what is in it. Where the host has no large pages it says so, and small ones do.
    let _ = unsafe { madvise(whole.as_mut_ptr().cast(), length, Advice::LinuxHugepage) };
}

#[cfg(not(target_os = "linux"))]
fn ask(_: &mut [u8]) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_of_every_size_are_all_zeros_and_can_be_drawn_to() {
        for bytes in [0, 1, 4096, (2 << 20) - 1, 2 << 20, (8 << 20) + 3] {
            let mut zeros = zeros(bytes);
            assert_eq!(zeros.len(), bytes);
            assert!(zeros.iter().all(|byte| *byte == 0));
            zeros.fill(7);
            assert!(zeros.iter().all(|byte| *byte == 7));
        }
    }
}
