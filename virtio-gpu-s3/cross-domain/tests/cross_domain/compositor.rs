// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The host's side: a socket where a compositor would listen.

use std::fs;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{env, process};

use rustix::cmsg_space;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::pwrite;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Longer than anything takes.
const LIMIT: Duration = Duration::from_secs(10);

/// A path that nothing else has.
pub(crate) fn new_path(what: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    env::temp_dir().join(format!("cross-domain-{}-{count}-{what}", process::id()))
}

/// Memory to send.
pub(crate) fn memory(bytes: &[u8]) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = memfd_create("compositor", flags).unwrap();
    assert_eq!(pwrite(&memory, bytes, 0), Ok(bytes.len()));
    memory
}

/// Listens, and has a connection for each channel.
pub(crate) struct Compositor {
    listener: UnixListener,
    path: PathBuf,
}

impl Compositor {
    pub(crate) fn new() -> Self {
        let path = new_path("wayland");
        let listener = UnixListener::bind(&path).unwrap();
        Self { listener, path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The next channel; it is there already.
    pub(crate) fn accept(&self) -> Client {
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Client(stream)
    }
}

impl Drop for Compositor {
    fn drop(&mut self) {
        fs::remove_file(&self.path).unwrap();
    }
}

/// A guest's connection, from the host's side.
pub(crate) struct Client(UnixStream);

impl Client {
    pub(crate) fn send(&self, bytes: &[u8], files: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(28))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(files)));
        }
        let slices = [IoSlice::new(bytes)];
        let sent = sendmsg(&self.0, &slices, &mut control, SendFlags::NOSIGNAL);
        assert_eq!(sent, Ok(bytes.len()));
    }

    pub(crate) fn send_file(&self, bytes: &[u8], file: impl AsFd) {
        self.send(bytes, &[file.as_fd()]);
    }

    /// What comes next; nothing at the end.
    pub(crate) fn receive(&self) -> (Vec<u8>, Vec<OwnedFd>) {
        let mut bytes = vec![0; 1 << 16];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(28))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let message = recvmsg(&self.0, &mut slices, &mut control, flags).unwrap();
        let rights = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => Some(files),
            _ => None,
        });
        let files = rights.flatten().collect();
        bytes.truncate(message.bytes);
        (bytes, files)
    }

    pub(crate) fn expect(&self, bytes: &[u8]) -> Vec<OwnedFd> {
        let (found, files) = self.receive();
        assert_eq!(found, bytes);
        files
    }
}
