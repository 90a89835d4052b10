// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Files that somebody else sent, before anything is known of them.
//!
//! To close a file can take as long as whoever serves it pleases: FUSE is asked to flush it first, and any user can be a
//! server of FUSE. So what turns out to be of no use is closed on a thread that nobody waits for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::abort;
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use log::error;

/// Files that wait to be closed.
const MAX_CLOSING: usize = 256;
/// How long a further one waits for its place. If none becomes free, a file cannot be closed, and the process ends.
const CLOSING_TIME: Duration = Duration::from_secs(1);

/// A file whose kind is not known.
#[derive(Debug)]
pub struct ForeignFile(Option<OwnedFd>);

impl ForeignFile {
    /// Its kind was looked at: closing it takes no time.
    pub fn into_known(mut self) -> Option<OwnedFd> {
        self.0.take()
    }

    /// The file, for questions that ask nobody else.
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().map(AsFd::as_fd)
    }
}

impl From<OwnedFd> for ForeignFile {
    fn from(file: OwnedFd) -> Self {
        Self(Some(file))
    }
}

impl Drop for ForeignFile {
    fn drop(&mut self) {
        let Some(file) = self.0.take() else {
            return;
        };
        // Without a thread it is closed here and now.
        if let Some(closer) = closer() {
            close_on(closer, file);
        }
    }
}

#[expect(
    clippy::disallowed_macros,
    reason = "the last line that whoever sent them causes"
)]
fn close_on(closer: &SyncSender<OwnedFd>, file: OwnedFd) {
    let start = Instant::now();
    let mut result = closer.try_send(file);
    while let Err(TrySendError::Full(file)) = result {
        if start.elapsed() >= CLOSING_TIME {
            error!("Files that others sent cannot be closed");
            abort();
        }
        thread::sleep(Duration::from_millis(1));
        result = closer.try_send(file);
    }
}

fn closer() -> Option<&'static SyncSender<OwnedFd>> {
    static CLOSER: OnceLock<Option<SyncSender<OwnedFd>>> = OnceLock::new();
    let start = || {
        let (closer, files) = sync_channel(MAX_CLOSING);
        let body = move || files.into_iter().for_each(drop);
        let thread = thread::Builder::new().name("close".into()).spawn(body);
        thread.ok().map(|_| closer)
    };
    CLOSER.get_or_init(start).as_ref()
}
