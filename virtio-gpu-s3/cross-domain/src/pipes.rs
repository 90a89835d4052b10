// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pipes between a guest's clients and the host's: what is copied and pasted.

use std::collections::VecDeque;
use std::io::Error as IoError;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, read, write};
use rustix::pipe::{PipeFlags, pipe_with};

use super::files::{Budget, HostFile};
use super::watcher::{Interest, Source, Watched};
use virtio_gpu_s3::renderer::{CrossDomainError, RendererError};

/// Pipes of one context in each direction. A clipboard has one at a time.
pub(super) const MAX_PIPES: usize = 64;

/// One that the host writes and the guest reads.
#[derive(Debug)]
pub(super) struct ReadPipe {
    file: HostFile,
    source: Source,
}

impl ReadPipe {
    /// The pipe, and its other end for the host. Only this end does not wait.
    pub(super) fn new(budget: &Budget) -> Result<(Self, HostFile), RendererError> {
        let (ours, theirs) = (budget.take()?, budget.take()?);
        let made = || -> Result<_, IoError> {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
            fcntl_setfl(&reader, fcntl_getfl(&reader)? | OFlags::NONBLOCK)?;
            Ok((reader, writer))
        };
        let (reader, writer) = made().map_err(|error| no_file(&error))?;
        let pipe = Self {
            file: HostFile::new(reader, ours),
            source: Source::default(),
        };
        Ok((pipe, HostFile::new(writer, theirs)))
    }

    /// Bytes that are there: none at the end, `None` where none are there yet.
    pub(super) fn read(&self, buffer: &mut [u8]) -> Option<usize> {
        loop {
            match read(&self.file, &mut *buffer) {
                Ok(count) => return Some(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return None,
                Err(_) => return Some(0),
            }
        }
    }
}

/// One that the guest writes and the host reads.
#[derive(Debug)]
pub(super) struct WritePipe {
    file: HostFile,
    source: Source,
    /// What the reader was too slow for.
    queue: VecDeque<u8>,
    max_queued: usize,
    hung_up: bool,
}

impl WritePipe {
    pub(super) fn new(file: HostFile, max_queued: usize) -> Self {
        Self {
            file,
            source: Source::default(),
            queue: VecDeque::new(),
            max_queued,
            hung_up: false,
        }
    }

    /// Keeps `data` to write it.
    pub(super) fn push(&mut self, data: &[u8], hang_up: bool) -> Result<(), CrossDomainError> {
        let left = self.max_queued.saturating_sub(self.queue.len());
        if data.len() > left {
            return Err(CrossDomainError::limit(
                "bytes that a pipe's reader does not take",
                data.len() as u64,
                left as u64,
            ));
        }
        self.queue.extend(data);
        self.hung_up |= hang_up;
        Ok(())
    }

    /// Writes what can be. Returns whether there will be more to do.
    pub(super) fn flush(&mut self) -> bool {
        while let (bytes @ [_, ..], _) = self.queue.as_slices() {
            let written = write(&self.file, bytes);
            let most = bytes.len();
            match written {
                Ok(count) => drop(self.queue.drain(..count.min(most))),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return true,
                // Nobody reads it.
                Err(_) => return false,
            }
        }
        !self.hung_up
    }

    pub(super) fn interest(&self) -> Interest {
        Interest {
            read: false,
            write: !self.queue.is_empty(),
        }
    }
}

impl Watched for ReadPipe {
    fn parts(&mut self) -> (&mut Source, BorrowedFd<'_>) {
        (&mut self.source, self.file.as_fd())
    }
}

impl Watched for WritePipe {
    fn parts(&mut self) -> (&mut Source, BorrowedFd<'_>) {
        (&mut self.source, self.file.as_fd())
    }
}

/// As Linux numbers EIO everywhere.
const EIO: i32 = 5;

pub(super) fn no_file(error: &IoError) -> RendererError {
    RendererError::refused("a file", error.raw_os_error().unwrap_or(EIO))
}
