// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a guest's proxy sends to a context of the cross-domain protocol, as bytes.
//!
//! A command is its number, a byte that counts for nothing, its length in 16 bits, 4 bytes more of nothing, and its
//! words.

use super::request;
use virtio_gpu_s3::protocol::{BLOB_FLAG_USE_MAPPABLE, BLOB_MEM_HOST3D};

/// `VIRTIO_GPU_CAPSET_CROSS_DOMAIN`, for CTX_CREATE.
pub const CAPSET: u32 = 5;

/// Numbers of commands.
pub mod cmd {
    /// Rings and a channel.
    pub const INIT: u8 = 1;
    /// What an image needs.
    pub const IMAGE: u8 = 2;
    /// Its fence waits for a message.
    pub const POLL: u8 = 3;
    /// A message to the host.
    pub const SEND: u8 = 4;
    /// One from it.
    pub const RECEIVE: u8 = 5;
    /// From a pipe.
    pub const READ: u8 = 6;
    /// To a pipe.
    pub const WRITE: u8 = 7;
}

/// A type of file: memory.
pub const BLOB: u32 = 1;
/// A pipe that the guest reads.
pub const READ_PIPE: u32 = 3;
/// A pipe that it writes.
pub const WRITE_PIPE: u32 = 4;

/// A command: its head, words, and bytes.
pub fn command(cmd: u8, words: &[u32], bytes: &[u8]) -> Vec<u8> {
    let size = u16::try_from(8 + words.len() * 4 + bytes.len()).unwrap();
    let mut command = vec![cmd, 0];
    command.extend(size.to_le_bytes());
    command.extend([0; 4]);
    command.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    command.extend(bytes);
    command
}

/// INIT with a channel of Wayland.
pub fn init(query_ring: u32, channel_ring: u32) -> Vec<u8> {
    command(cmd::INIT, &[query_ring, channel_ring, 1], &[])
}

/// GET_IMAGE_REQUIREMENTS of an image in a format of DRM's.
pub fn query_image(width: u32, height: u32, format: [u8; 4]) -> Vec<u8> {
    let format = u32::from_le_bytes(format);
    command(cmd::IMAGE, &[width, height, format, 0], &[])
}

/// POLL
pub fn poll() -> Vec<u8> {
    command(cmd::POLL, &[0, 0], &[])
}

/// SEND of these files by number and type.
pub fn send(bytes: &[u8], files: &[(u32, u32)]) -> Vec<u8> {
    let mut words = vec![0; 2 + 3 * 28];
    words[0] = u32::try_from(files.len()).unwrap();
    words[1] = u32::try_from(bytes.len()).unwrap();
    for (at, (id, kind)) in files.iter().enumerate().take(28) {
        words[2 + at] = *id;
        words[30 + at] = *kind;
    }
    command(cmd::SEND, &words, bytes)
}

/// WRITE to a pipe, the last one or not.
pub fn write(pipe: u32, hang_up: bool, bytes: &[u8]) -> Vec<u8> {
    let count = u32::try_from(bytes.len()).unwrap();
    command(cmd::WRITE, &[pipe, u32::from(hang_up), count, 0], bytes)
}

/// SUBMIT_3D of any bytes.
pub fn submit(stream: &[u8]) -> Vec<u8> {
    let mut request = request::submit_3d(&[]);
    let size = u32::try_from(stream.len()).unwrap();
    request[24..28].copy_from_slice(&size.to_le_bytes());
    request.extend(stream);
    request
}

/// RESOURCE_CREATE_BLOB of the host's memory.
pub fn create_blob(id: u32, blob_id: u32, size: u64) -> Vec<u8> {
    let mut request =
        request::resource_create_blob(id, BLOB_MEM_HOST3D, BLOB_FLAG_USE_MAPPABLE, size, &[]);
    request[40..48].copy_from_slice(&u64::from(blob_id).to_le_bytes());
    request
}
