// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the host and the OpenGL client in a guest say to each other, with the agent in between.

use serde::{Deserialize, Serialize};

/// What the client can do, and in brackets what its reply is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SceneRequest {
    /// Says who draws ([`Client`]). The first request of all starts the client, which makes its objects.
    Describe,
    /// Draws frame `number`, shows it, and waits until KMS says that it is shown ([`Frame`]).
    Frame {
        /// Two frames of one number have the same pixels.
        number: u32,
    },
    /// Reads back what only the GPU ever wrote ([`Kept`]).
    ReadKept,
    /// Asks for results that the GPU has had since the objects were made ([`Results`]).
    Results,
    /// Draws frame after frame in the background, until the next request (null).
    Animate,
    /// Ends that ([`Animated`]).
    Stop,
}

/// A process with an OpenGL context.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Of the process, which does not change as long as it lives.
    pub pid: u32,
    /// GL_RENDERER, which names virgl unless the guest draws in software.
    pub renderer: String,
    /// GL_VERSION.
    pub version: String,
}

/// A frame, as the client read it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Of the screen, in pixels.
    pub width: u32,
    /// Of the screen, in pixels.
    pub height: u32,
    /// [`hash`] of the texture that the frame was drawn with, which it drew first.
    pub offscreen: u64,
    /// [`hash`] of what is on the screen, and on a screenshot.
    pub screen: u64,
}

/// What was drawn, computed or written once, of which the guest has no copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// [`hash`] of a texture that a shader filled.
    pub texture: u64,
    /// [`hash`] of the bytes of a buffer that transform feedback filled.
    pub buffer: u64,
    /// [`hash`] of what the processor wrote to memory that it shares with the GPU, and both still see; `None` on a
    /// device without such memory.
    pub mapped: Option<u64>,
}

/// Results that were ready long before they were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Results {
    /// How many points transform feedback captured, as its query counted.
    pub captured: u32,
    /// How many it must be.
    pub points: u32,
    /// Whether the fence after it has signalled.
    pub signalled: bool,
}

/// What a client did in the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Animated {
    /// Frames drawn and shown.
    pub frames: u32,
}

/// FNV-1a of some bytes: enough to tell two pictures apart, and quick in a guest that is emulated.
pub fn hash(bytes: impl IntoIterator<Item = u8>) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    bytes.into_iter().fold(OFFSET, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of the algorithm's authors.
    #[test]
    fn the_hash_is_fnv_1a() {
        assert_eq!(hash([]), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash(*b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(hash(*b"foobar"), 0x8594_4171_f739_67e8);
    }
}
