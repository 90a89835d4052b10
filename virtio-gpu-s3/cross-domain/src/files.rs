// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Files of the host that a guest makes us hold, each of them counted.

use std::io::Error as IoError;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{
    FileType, MemfdFlags, OFlags, SealFlags, SeekFrom, fcntl_add_seals, fcntl_get_seals,
    fcntl_getfl, fcntl_setfl, fstat, fstatfs, ftruncate, memfd_create, seek,
};
use rustix::io::{Errno, fcntl_dupfd_cloexec, pread, pwrite};

use virtio_gpu_s3::renderer::CrossDomainError;

/// What can be had so many times only.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    what: &'static str,
    most: usize,
    used: Arc<AtomicUsize>,
}

/// One of them, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Permit(Arc<AtomicUsize>);

impl Budget {
    pub(super) fn new(what: &'static str, most: usize) -> Self {
        Self {
            what,
            most,
            used: Arc::default(),
        }
    }

    pub(super) fn left(&self) -> usize {
        self.most.saturating_sub(self.used.load(Ordering::Relaxed))
    }

    /// Only the thread that has the renderer takes; so nobody is faster.
    pub(super) fn take(&self) -> Result<Permit, CrossDomainError> {
        if self.left() == 0 {
            return Err(CrossDomainError::limit(self.what, 1, 0));
        }
        self.used.fetch_add(1, Ordering::Relaxed);
        Ok(Permit(Arc::clone(&self.used)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A file of the host.
#[derive(Debug)]
pub(super) struct HostFile {
    fd: OwnedFd,
    _permit: Permit,
}

impl AsFd for HostFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What the other side sent.
#[derive(Debug)]
pub(super) enum Received {
    /// Memory, and how many bytes.
    Memory(HostFile, u32),
    /// The end of a pipe that the guest is to write.
    WritePipe(HostFile),
}

impl Received {
    pub(super) fn is_pipe(&self) -> bool {
        matches!(self, Self::WritePipe(_))
    }
}

/// What a dma-buf's file system says (DMA_BUF_MAGIC of Linux).
const DMA_BUF: i64 = 0x444d_4142;
/// What is copied at most: keymaps have 64 KiB, tables of formats less.
const MAX_COPY: u32 = 1 << 20;
/// A piece of a copy.
const COPY: usize = 1 << 16;

impl HostFile {
    pub(super) fn new(fd: OwnedFd, permit: Permit) -> Self {
        Self {
            fd,
            _permit: permit,
        }
    }

    /// New memory, which nobody can cut short under those who map it.
    pub(super) fn memory(size: u64, permit: Permit) -> Result<Self, IoError> {
        Ok(Self::new(memory(size)?, permit))
    }

    pub(super) fn duplicate(&self, permit: Permit) -> Result<Self, IoError> {
        Ok(Self::new(fcntl_dupfd_cloexec(&self.fd, 3)?, permit))
    }

    /// What a file is that came with a message. `None` of what this protocol cannot carry.
    pub(super) fn classify(fd: OwnedFd, permit: Permit) -> Option<Received> {
        let stat = fstat(&fd).ok()?;
        let size = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Fifo => {
                // Of the open file, which the other side may have too; it gave it away to be written.
                let flags = fcntl_getfl(&fd).ok()?;
                let writable = flags.intersects(OFlags::WRONLY | OFlags::RDWR);
                fcntl_setfl(&fd, flags | OFlags::NONBLOCK).ok()?;
                return writable.then(|| Received::WritePipe(Self::new(fd, permit)));
            }
            FileType::RegularFile => u64::try_from(stat.st_size).ok()?,
            _ if fstatfs(&fd).ok()?.f_type == DMA_BUF => seek(&fd, SeekFrom::End(0)).ok()?,
            _ => return None,
        };
        let size = u32::try_from(size).ok().filter(|size| *size > 0)?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        let fd = if is_file && !is_shareable(&fd) && size <= MAX_COPY {
            copy(&fd, size).ok()?
        } else {
            fd
        };
        Some(Received::Memory(Self::new(fd, permit), size))
    }
}

/// Whether a guest can map it, and write: not if it is sealed against that or open for reading, as
/// compositors have keymaps, nor if its owner can cut it short and nobody can seal it against that,
/// as who maps it for a guest does. A copy serves for these, as nobody means to change them.
fn is_shareable(fd: &OwnedFd) -> bool {
    let read_only = SealFlags::WRITE | SealFlags::FUTURE_WRITE;
    let seals = fcntl_get_seals(fd).is_ok_and(|seals| {
        let stays = seals.contains(SealFlags::SHRINK) || !seals.contains(SealFlags::SEAL);
        stays && !seals.intersects(read_only)
    });
    seals && fcntl_getfl(fd).is_ok_and(|flags| flags.contains(OFlags::RDWR))
}

fn memory(size: u64) -> Result<OwnedFd, IoError> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = memfd_create("cross-domain", flags)?;
    ftruncate(&memory, size)?;
    fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW)?;
    Ok(memory)
}

fn copy(from: &OwnedFd, size: u32) -> Result<OwnedFd, IoError> {
    let to = memory(size.into())?;
    let mut buffer = vec![0; COPY.min(size as usize)];
    let mut at = 0;
    while at < u64::from(size) {
        let count = pread(from, buffer.as_mut_slice(), at)?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            let written = pwrite(&to, rest, at)?;
            if written == 0 {
                return Err(Errno::NOSPC.into());
            }
            rest = rest.get(written..).unwrap_or_default();
            at = at.saturating_add(written as u64);
        }
    }
    Ok(to)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write, pipe};
    use std::os::unix::net::UnixStream;

    use rustix::io::write;

    use super::*;

    fn received(fd: impl Into<OwnedFd>) -> Option<Received> {
        let budget = Budget::new("files", 1);
        HostFile::classify(fd.into(), budget.take().unwrap())
    }

    #[test]
    fn a_budget_ends_and_what_is_dropped_can_be_had_again() {
        let budget = Budget::new("files", 2);
        let first = budget.take().unwrap();
        let _second = budget.take().unwrap();
        let error = budget.take().unwrap_err();
        assert_eq!(error.to_string(), "files: 1 asked for, 0 left");
        drop(first);
        budget.take().unwrap();
        assert_eq!(budget.left(), 1);
    }

    #[test]
    fn memory_that_can_be_shared_is_and_a_sealed_keymap_is_copied() {
        let shared = memfd_create("test", MemfdFlags::ALLOW_SEALING).unwrap();
        let sealed = memfd_create("test", MemfdFlags::ALLOW_SEALING).unwrap();
        for (fd, seals) in [
            (&shared, SealFlags::SHRINK),
            (
                &sealed,
                SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
            ),
        ] {
            File::from(fd.try_clone().unwrap())
                .write_all(b"keymap")
                .unwrap();
            fcntl_add_seals(fd, seals).unwrap();
        }
        let inode = |fd: BorrowedFd<'_>| fstat(fd).unwrap().st_ino;
        for (fd, same) in [(shared, true), (sealed, false)] {
            let before = inode(fd.as_fd());
            let file = match received(fd) {
                Some(Received::Memory(file, 6)) => Some(file),
                _ => None,
            }
            .unwrap();
            assert_eq!(inode(file.as_fd()) == before, same);
            assert!(is_shareable(&file.fd));
            let mut bytes = [0; 8];
            assert_eq!(pread(&file, &mut bytes, 0), Ok(6));
            assert_eq!(&bytes[..6], b"keymap");
        }
    }

    #[test]
    fn the_end_of_a_pipe_for_writing_no_longer_blocks_and_other_files_are_not_carried() {
        let (mut reader, writer) = pipe().unwrap();
        let pipe = match received(writer) {
            Some(Received::WritePipe(pipe)) => Some(pipe),
            _ => None,
        }
        .unwrap();
        while write(&pipe, &[7; 4096]) != Err(Errno::AGAIN) {}
        let mut byte = [0];
        reader.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [7]);
        assert!(received(reader).is_none());
        assert!(received(UnixStream::pair().unwrap().0).is_none());
        assert!(received(File::open("/dev/null").unwrap()).is_none());
        let empty = memfd_create("test", MemfdFlags::empty()).unwrap();
        assert!(received(empty).is_none());
    }
}
