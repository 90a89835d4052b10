// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A file's bytes as memory.
#![expect(unsafe_code, reason = "mapping a file has no safe form")]

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::ptr::{self, NonNull};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The first bytes of a file, mapped shared.
#[derive(Debug)]
pub(crate) struct SharedMapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping is plain memory of this process, not tied to the thread that made it.
unsafe impl Send for SharedMapping {}

impl SharedMapping {
    pub(crate) fn new(file: &File, length: usize) -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a null hint lets the kernel choose the place, so no memory in use is replaced.
        let start = unsafe { mmap(ptr::null_mut(), length, access, MapFlags::SHARED, file, 0)? };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { start, length })
    }

    /// Stores bytes from the start of the mapping on; what goes beyond its end is left out.
    pub(crate) fn store(&mut self, bytes: &[u8]) {
        let length = bytes.len().min(self.length);
        // SAFETY: both are at least `length` bytes long, and no reference to the mapping exists.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.as_ptr(), length) };
    }
}

impl Drop for SharedMapping {
    fn drop(&mut self) {
        // SAFETY: this is exactly what was mapped, and nobody else knows the address.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast::<c_void>(), self.length) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}
