// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Files that hold guest memory.

use std::fs::File;

/// Whether a region goes on past the end of its file, where there is no memory but a signal (SIGBUS) that ends the
/// process. mmap() does not look. A device has no length.
pub(crate) fn is_too_short(file: &File, offset: u64, size: u64) -> bool {
    let end = offset.checked_add(size);
    file.metadata()
        .is_ok_and(|of| of.is_file() && end.is_none_or(|end| end > of.len()))
}
