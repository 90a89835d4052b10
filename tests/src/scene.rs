// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What frames of a guest's OpenGL client must be before a sleep, for the same frames to prove something after it.

use anyhow::{Context, Result, ensure};
use guest_agent::scene::Frame;

/// Checks that no two of these frames are alike: such would be the same after a sleep by luck.
///
/// # Errors
/// Names the first frame that is like another one.
pub fn must_differ(frames: &[(u32, Frame)]) -> Result<()> {
    for (number, frame) in frames {
        let alike = |other: &&(u32, Frame)| {
            other.1.screen == frame.screen || other.1.offscreen == frame.offscreen
        };
        let same: Vec<_> = frames.iter().filter(alike).collect();
        ensure!(
            same.len() == 1,
            "frame {number} is one of several: {same:?}"
        );
    }
    Ok(())
}

/// Checks that frame `number` is what it was when it was drawn before.
///
/// # Errors
/// It is another picture, or was not drawn before.
pub fn must_be_as_before(frames: &[(u32, Frame)], number: u32, frame: &Frame) -> Result<()> {
    let expected = frames.iter().find(|(known, _)| *known == number);
    let (_, expected) = expected.context("a frame that was drawn before")?;
    ensure!(
        frame == expected,
        "frame {number} is {frame:?}, and was {expected:?}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn frame(offscreen: u64, screen: u64) -> Frame {
        Frame {
            width: 4,
            height: 4,
            offscreen,
            screen,
        }
    }

    #[test]
    fn frames_of_which_two_share_a_picture_prove_nothing() {
        must_differ(&[(1, frame(1, 2)), (2, frame(3, 4))]).unwrap();
        must_differ(&[(1, frame(1, 2)), (2, frame(3, 2))]).unwrap_err();
        must_differ(&[(1, frame(1, 2)), (2, frame(1, 4))]).unwrap_err();
    }

    #[test]
    fn a_frame_is_compared_with_the_one_of_its_own_number() {
        let frames = [(1, frame(1, 2)), (2, frame(3, 4))];
        must_be_as_before(&frames, 2, &frame(3, 4)).unwrap();
        must_be_as_before(&frames, 1, &frame(3, 4)).unwrap_err();
        must_be_as_before(&frames, 3, &frame(3, 4)).unwrap_err();
    }
}
