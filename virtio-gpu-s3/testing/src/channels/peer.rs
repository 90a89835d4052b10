// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The host's side: a compositor on a real socket, with real files, that never waits.

use std::collections::VecDeque;
use std::fs;
use std::io::{ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, process};

use rustix::cmsg_space;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::{Errno, pwrite, read, write};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

/// A message that is in order has 28 at most.
const MOST_FILES: usize = 40;
/// Files that are kept, of each sort; the oldest goes.
const MOST_KEPT: usize = 12;
/// What a pipe takes at once when it has room at all.
const PIPE_BUF: usize = 4096;

pub(super) struct Peer {
    path: PathBuf,
    listener: Option<UnixListener>,
    clients: Vec<Client>,
    /// The other ends of pipes that went to the guest.
    readers: Vec<OwnedFd>,
    /// What came with messages.
    taken: Vec<OwnedFd>,
}

struct Client {
    stream: UnixStream,
    ctx_id: u32,
    /// What was said to it and not heard, as far as that is known.
    said: Option<VecDeque<u8>>,
}

/// What a step said to the compositor.
pub(super) enum Said {
    Nothing,
    /// These bytes, whole.
    Bytes(u32, Vec<u8>),
    /// Nobody but the device knows.
    Unknown(u32),
}

impl Peer {
    pub(super) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("channels-{}-{count}", process::id()));
        let mut peer = Self {
            path,
            listener: None,
            clients: Vec::new(),
            readers: Vec::new(),
            taken: Vec::new(),
        };
        peer.come_or_go();
        peer
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Files that are open here.
    pub(super) fn files(&self) -> usize {
        let kept = self.readers.len() + self.taken.len();
        usize::from(self.listener.is_some()) + self.clients.len() + kept
    }

    /// The compositor ends, or starts again; connections that there are stay.
    pub(super) fn come_or_go(&mut self) {
        if self.listener.take().is_some() {
            return fs::remove_file(&self.path).unwrap();
        }
        let listener = UnixListener::bind(&self.path).unwrap();
        listener.set_nonblocking(true).unwrap();
        self.listener = Some(listener);
    }

    /// Takes the connections that wait, which are this context's, and forgets those that ended. How
    /// many there are.
    pub(super) fn accept(&mut self, ctx_id: u32) -> usize {
        if let Some(listener) = &self.listener {
            let end = loop {
                match listener.accept() {
                    Ok((stream, _)) => self.clients.push(Client {
                        stream,
                        ctx_id,
                        said: Some(VecDeque::new()),
                    }),
                    Err(error) => break error,
                }
            };
            assert_eq!(end.kind(), ErrorKind::WouldBlock, "{end}");
        }
        self.clients
            .retain(|client| !has_ended(client.stream.as_fd()));
        self.clients.len()
    }

    pub(super) fn note(&mut self, said: Said) {
        let ctx_id = match said {
            Said::Nothing => return,
            Said::Bytes(ctx_id, _) | Said::Unknown(ctx_id) => ctx_id,
        };
        let mut clients = self.clients.iter_mut();
        let Some(client) = clients.rfind(|client| client.ctx_id == ctx_id) else {
            return;
        };
        match (said, &mut client.said) {
            (Said::Bytes(_, bytes), Some(said)) => said.extend(bytes),
            _ => client.said = None,
        }
    }

    /// Says so many bytes, with files of these kinds. What the other side does not take is lost.
    pub(super) fn speak(&mut self, which: usize, bytes: usize, kinds: &[u8]) {
        let kinds = kinds.iter().take(MOST_FILES);
        let (files, readers): (Vec<_>, Vec<_>) = kinds.map(|kind| new_file(*kind)).unzip();
        let Some(client) = pick(&self.clients, which) else {
            return;
        };
        let fds: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST_FILES))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        }
        let said = vec![7; bytes];
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let _ = sendmsg(&client.stream, &[IoSlice::new(&said)], &mut control, flags);
        self.readers.extend(readers.into_iter().flatten());
        keep_few(&mut self.readers);
    }

    /// Hears so many bytes, which are the next that were said, and keeps the files.
    pub(super) fn hear(&mut self, which: usize, bytes: usize) {
        let which = which % self.clients.len().max(1);
        let Some(client) = self.clients.get_mut(which) else {
            return;
        };
        let mut heard = vec![0; bytes];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST_FILES))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let mut slices = [IoSliceMut::new(&mut heard)];
        let Ok(message) = recvmsg(&client.stream, &mut slices, &mut control, flags) else {
            return;
        };
        if let Some(said) = &mut client.said {
            assert!(message.bytes <= said.len(), "more than was said");
            assert!(
                said.drain(..message.bytes)
                    .eq(heard[..message.bytes].iter().copied())
            );
        }
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                self.taken.extend(files);
            }
        }
        keep_few(&mut self.taken);
    }

    /// Writes to what came: the guest's memory, or a pipe that it reads.
    pub(super) fn write(&self, which: usize, bytes: usize) {
        let Some(file) = pick(&self.taken, which) else {
            return;
        };
        let bytes = vec![9; bytes.min(PIPE_BUF)];
        let events = events(file.as_fd(), PollFlags::OUT);
        if events.contains(PollFlags::OUT) && !events.contains(PollFlags::ERR) {
            let _ = pwrite(file, &bytes, 0).or_else(|_| write(file, &bytes));
        }
    }

    /// Reads of a pipe that the guest writes.
    pub(super) fn read(&self, which: usize, bytes: usize) {
        if let Some(reader) = pick(&self.readers, which) {
            let _ = read(reader, vec![0; bytes].as_mut_slice());
        }
    }

    /// Closes a connection, or an end of a pipe, or a file that came.
    pub(super) fn close(&mut self, what: u8, which: usize) {
        match what % 3 {
            0 => take(&mut self.clients, which),
            1 => take(&mut self.readers, which),
            _ => take(&mut self.taken, which),
        }
    }

    /// That the other side let go of everything.
    pub(super) fn assert_alone(mut self) {
        self.taken.clear();
        assert_eq!(self.accept(0), 0, "connections stay");
        let mut buffer = vec![0; 1 << 16];
        for reader in &self.readers {
            while read(reader, buffer.as_mut_slice()).expect("nobody has the pipe") > 0 {}
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if self.listener.is_some() {
            self.come_or_go();
        }
    }
}

fn pick<T>(all: &[T], which: usize) -> Option<&T> {
    all.get(which % all.len().max(1))
}

fn take<T>(all: &mut Vec<T>, which: usize) {
    if !all.is_empty() {
        drop(all.remove(which % all.len()));
    }
}

fn keep_few(files: &mut Vec<OwnedFd>) {
    let surplus = files.len().saturating_sub(MOST_KEPT);
    files.drain(..surplus);
}

fn events(fd: BorrowedFd<'_>, wanted: PollFlags) -> PollFlags {
    let mut fds = [PollFd::from_borrowed_fd(fd, wanted)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    loop {
        match poll(&mut fds, Some(&now)) {
            Err(Errno::INTR) => {}
            found => {
                found.expect("poll");
                return fds[0].revents();
            }
        }
    }
}

fn has_ended(fd: BorrowedFd<'_>) -> bool {
    events(fd, PollFlags::IN).contains(PollFlags::HUP)
}

/// A file to send, and the other end of it, if it has one that is to stay.
fn new_file(kind: u8) -> (OwnedFd, Option<OwnedFd>) {
    let memory = |flags, bytes: usize, seals| {
        let memory = memfd_create("peer", MemfdFlags::CLOEXEC | flags).unwrap();
        assert_eq!(pwrite(&memory, &vec![5; bytes], 0), Ok(bytes));
        if flags.contains(MemfdFlags::ALLOW_SEALING) {
            fcntl_add_seals(&memory, seals).unwrap();
        }
        (memory, None)
    };
    let bytes = 1 + 40 * usize::from(kind);
    match kind % 8 {
        0 => memory(MemfdFlags::ALLOW_SEALING, bytes, SealFlags::empty()),
        1 => memory(MemfdFlags::ALLOW_SEALING, bytes, SealFlags::WRITE),
        2 => memory(MemfdFlags::empty(), bytes, SealFlags::empty()),
        3 => memory(MemfdFlags::empty(), 0, SealFlags::empty()),
        4 | 5 => {
            let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
            let (reader, writer) = pipe_with(flags).unwrap();
            // As small as pipes can be. Where they cannot be it is only slower.
            let _ = fcntl_setpipe_size(&writer, PIPE_BUF);
            match kind % 8 {
                4 => (writer, Some(reader)),
                _ => (reader, None),
            }
        }
        6 => (eventfd(0, EventfdFlags::CLOEXEC).unwrap(), None),
        _ => (UnixStream::pair().unwrap().0.into(), None),
    }
}
