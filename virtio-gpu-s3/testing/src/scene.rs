// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The smallest scene of virgl: one texture of one colour, whatever carries the requests.
//!
//! In a stream the header is the command's number of virgl_protocol.h, an object's kind, and how many words follow.

use super::{GuestBuffer, request};
use virtio_gpu_s3::protocol::CommandId;
use virtio_gpu_s3::renderer::Resource3d;

/// What is drawn to, as resource [`ID`].
pub const TEXTURE: Resource3d = request::texture(64, 64);
/// Its id.
pub const ID: u32 = 10;
/// Its bytes.
pub const BYTES: u32 = TEXTURE.width * TEXTURE.height * 4;

/// A surface of the texture, and a framebuffer of it.
pub const TARGET: [u32; 10] = [1 | 8 << 8 | 5 << 16, 7, ID, 1, 0, 0, 5 | 3 << 16, 1, 0, 7];

/// `CLEAR` of every colour buffer, of which blue is `blue`.
pub const fn clear(blue: f32) -> [u32; 9] {
    [7 | 8 << 16, 4, 0, 0, blue.to_bits(), 0, 0, 0, 0]
}

/// Makes context 1 with the texture as its target, on guest memory at `backing`. The last has fence 1.
pub fn make_target(backing: u64) -> [Vec<u8>; 5] {
    let backing = GuestBuffer::of(&[(backing, BYTES)]);
    [
        request::in_context(1, request::ctx_create(2)),
        request::resource_create_3d(ID, &TEXTURE),
        request::resource_attach_backing(ID, backing.entries()),
        request::in_context(1, request::ctx_attach_resource(ID)),
        request::fenced(1, 1, request::submit_3d(&TARGET)),
    ]
}

/// Copies the texture to its guest memory.
pub fn read_back() -> Vec<u8> {
    let whole = request::whole(&TEXTURE);
    let read = request::transfer_3d(CommandId::TRANSFER_FROM_HOST_3D, ID, &whole);
    request::in_context(1, read)
}

/// The blue of a texture that is all of one blue.
pub fn blue_of(pixels: &[u8]) -> u8 {
    let blue = pixels[0];
    assert!(pixels.chunks(4).all(|pixel| pixel == [blue, 0, 0, 0]));
    blue
}
