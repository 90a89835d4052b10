// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A buffer that processor and GPU use at the same time: on a virtual GPU, the host's memory in the guest's sight.
#![expect(
    unsafe_code,
    reason = "every call of OpenGL is unsafe, and the mapping is the GPU's too"
)]

use std::ptr::NonNull;

use glow::{Buffer, Context, HasContext};
use guest_agent::scene::hash;

use super::objects;
use crate::error::{Error, Result};

/// What lets a buffer be used while it is mapped.
const EXTENSION: &str = "GL_EXT_buffer_storage";
/// Of the buffer, in bytes: of several pages, none of them whole.
const SIZE: i32 = 10_000;
/// Where the notes begin, which are written once.
const NOTES: i32 = 1024;
const WORD: usize = 4;

/// The buffer, mapped for ever.
pub(super) struct Shared {
    buffer: Buffer,
    words: NonNull<u32>,
}

impl Shared {
    /// `None` where the guest's OpenGL cannot do that: on a device without shared memory.
    pub(super) fn new(gl: &Context) -> Result<Option<Self>> {
        if !gl.supported_extensions().contains(EXTENSION) {
            return Ok(None);
        }
        let access = glow::MAP_READ_BIT
            | glow::MAP_WRITE_BIT
            | glow::MAP_PERSISTENT_BIT
            | glow::MAP_COHERENT_BIT;
        // SAFETY: a context is current, and the buffer is its.
        let (buffer, mapped) = unsafe {
            let buffer = gl.create_buffer().map_err(Error::gl("create a buffer"))?;
            gl.bind_buffer(glow::COPY_READ_BUFFER, Some(buffer));
            gl.buffer_storage(glow::COPY_READ_BUFFER, SIZE, None, access);
            (
                buffer,
                gl.map_buffer_range(glow::COPY_READ_BUFFER, 0, SIZE, access),
            )
        };
        let words = NonNull::new(mapped.cast()).ok_or(Error::NoGl("mapping for ever"))?;
        let shared = Self { buffer, words };
        let notes = (NOTES..SIZE).map(|at| u8::try_from(at * 7 % 251).unwrap_or(0));
        shared.write(NOTES, &notes.collect::<Vec<_>>());
        Ok(Some(shared))
    }

    /// Has the GPU copy `bytes` to a buffer, from where they are written to here: what is drawn with that buffer is then
    /// the same as where nothing is shared.
    pub(super) fn give(&self, gl: &Context, bytes: &[u8], to: Buffer) {
        self.write(0, bytes);
        let length = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
        self.copy(gl, 0, to, length);
    }

    fn copy(&self, gl: &Context, at: i32, to: Buffer, length: i32) {
        // SAFETY: a context is current, and the buffers are its and have room.
        unsafe {
            gl.bind_buffer(glow::COPY_READ_BUFFER, Some(self.buffer));
            gl.bind_buffer(glow::COPY_WRITE_BUFFER, Some(to));
            let (from, to) = (glow::COPY_READ_BUFFER, glow::COPY_WRITE_BUFFER);
            gl.copy_buffer_sub_data(from, to, at, 0, length);
        }
    }

    /// Writes whole words, at a multiple of theirs.
    fn write(&self, at: i32, bytes: &[u8]) {
        let first = at.unsigned_abs() as usize / WORD;
        let (words, _) = bytes.as_chunks();
        for (index, word) in (first..).zip(words) {
            // SAFETY: callers stay inside the buffer, whose mapping lasts as long as the context does. The GPU reads it
            // meanwhile, so no reference to it is made.
            unsafe {
                let to = self.words.add(index);
                to.write_volatile(u32::from_ne_bytes(*word));
            }
        }
    }

    /// The notes' hash, as the processor sees them, which must be as the GPU does.
    pub(super) fn read_notes(&self, gl: &Context) -> Result<u64> {
        let (first, length) = (NOTES.unsigned_abs() as usize / WORD, SIZE - NOTES);
        let count = length.unsigned_abs() as usize / WORD;
        // SAFETY: as above.
        let word = |index| unsafe { self.words.add(index).read_volatile() };
        let seen = (first..first + count).map(word);
        let seen = hash(seen.flat_map(u32::to_ne_bytes));
        let copy = objects::empty_buffer(gl, length)?;
        self.copy(gl, NOTES, copy, length);
        let copied = objects::hash_of(gl, copy, length)?;
        // SAFETY: a context is current, and nothing else has the buffer.
        unsafe { gl.delete_buffer(copy) };
        if copied == seen {
            Ok(seen)
        } else {
            Err(Error::NoGl("copy of what the processor wrote"))
        }
    }
}
