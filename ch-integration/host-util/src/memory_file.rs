// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Files that hold the guest's memory, or a renderer's.

use std::fs::File;
use std::io::{Error as IoError, Seek, SeekFrom};

use rustix::fs::{SealFlags, fcntl_add_seals, fcntl_get_seals, fstatfs};
use thiserror::Error;

/// Whether a region goes on past the end of its file, where there is no memory but a signal (SIGBUS) that ends the
/// process. mmap() does not look. A device has no length.
pub fn is_too_short(file: &File, offset: u64, size: u64) -> bool {
    let end = offset.checked_add(size);
    file.metadata()
        .is_ok_and(|of| of.is_file() && end.is_none_or(|end| end > of.len()))
}

/// A blob's file that must not be mapped.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BlobFileError {
    /// It ends before the blob does.
    #[error("its file has {length} bytes, and the blob {size}")]
    TooShort {
        /// Bytes of the file.
        length: u64,
        /// Bytes of the blob.
        size: u64,
    },
    /// Its owner could take pages away that are mapped.
    #[error("its file can be cut short, and is neither a memfd nor a dma-buf")]
    CanShrink,
    /// The system refused.
    #[error("its file cannot be asked: {0}")]
    System(#[from] IoError),
}

/// DMA_BUF_MAGIC of Linux: what statfs() says of a dma-buf.
const DMA_BUF: i64 = 0x444d_4142;

/// Checks that a blob's file holds it, and will: who maps memory that its owner can take away dies of it (SIGBUS), and a
/// guest that meets such memory ends its VMM. A memfd is sealed against that, and a dma-buf keeps its size.
///
/// # Errors
/// A [`BlobFileError`] says what is wrong with it.
pub fn check_blob_file(file: &File, size: u64) -> Result<(), BlobFileError> {
    match fcntl_get_seals(file) {
        Ok(seals) if seals.contains(SealFlags::SHRINK) => {}
        // One that allows no seals refuses.
        Ok(_) => {
            let sealed = fcntl_add_seals(file, SealFlags::SHRINK);
            sealed.map_err(|_| BlobFileError::CanShrink)?;
        }
        Err(_) => {
            let of = fstatfs(file).map_err(IoError::from)?;
            if of.f_type != DMA_BUF {
                return Err(BlobFileError::CanShrink);
            }
        }
    }
    let length = { file }.seek(SeekFrom::End(0))?;
    if length < size {
        return Err(BlobFileError::TooShort { length, size });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::*;

    fn memfd(flags: MemfdFlags) -> File {
        let file = File::from(memfd_create("blob", flags | MemfdFlags::CLOEXEC).unwrap());
        ftruncate(&file, 5000).unwrap();
        file
    }

    #[test]
    fn a_memory_file_that_holds_its_blob_is_sealed_and_cannot_be_cut_short() {
        let file = memfd(MemfdFlags::ALLOW_SEALING);
        check_blob_file(&file, 5000).unwrap();
        assert!(ftruncate(&file, 4096).is_err());
        check_blob_file(&file, 4096).unwrap();
        let error = check_blob_file(&file, 5001).unwrap_err();
        let text = "its file has 5000 bytes, and the blob 5001";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn a_file_that_its_owner_can_cut_short_is_refused() {
        let mut unsealable = memfd(MemfdFlags::empty());
        let mut on_disk = tempfile::tempfile().unwrap();
        on_disk.set_len(5000).unwrap();
        let mut device = File::open("/dev/zero").unwrap();
        for file in [&mut unsealable, &mut on_disk, &mut device] {
            let error = check_blob_file(file, 4096).unwrap_err();
            assert!(matches!(error, BlobFileError::CanShrink), "{error}");
        }
    }
}
