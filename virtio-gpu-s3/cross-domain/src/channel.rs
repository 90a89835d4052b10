// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A connection to the host's compositor. Nothing here ever waits.

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix, SocketFlags,
    SocketType, connect, recvmsg, sendmsg, shutdown, socket_with,
};

use super::files::{HostFile, Permit};
use super::protocol::MAX_IDENTIFIERS;
use super::watcher::{Interest, Source, Watched};
use virtio_gpu_s3::renderer::CrossDomainError;

/// What a look at the socket found.
#[derive(Debug)]
pub(super) enum Arrival {
    /// Nothing, for now.
    Nothing,
    /// So many bytes, and what came with them.
    Message(usize, Vec<OwnedFd>),
    /// The end, which is told once.
    End,
}

/// Whether the other side can still say something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listening {
    Yes,
    /// It ended, and the guest does not know.
    Ended,
    Told,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Channel {
    socket: OwnedFd,
    source: Source,
    /// What the other side was too slow for.
    queue: VecDeque<Part>,
    queued: usize,
    max_queued: usize,
    speaking: bool,
    listening: Listening,
    _permit: Permit,
}

#[derive(Debug)]
struct Part {
    bytes: Vec<u8>,
    sent: usize,
    /// They go with the first byte.
    files: Vec<HostFile>,
}

impl Channel {
    /// Connects. A compositor with too many that wait is as good as none.
    pub(super) fn open(path: &Path, max_queued: usize, permit: Permit) -> Result<Self, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self {
            socket,
            source: Source::default(),
            queue: VecDeque::new(),
            queued: 0,
            max_queued,
            speaking: true,
            listening: Listening::Yes,
            _permit: permit,
        })
    }

    /// Sends, or keeps until it can be sent. Where too much is kept already the channel ends: a
    /// stream with a hole means nothing.
    pub(super) fn send(
        &mut self,
        data: &[u8],
        files: Vec<HostFile>,
    ) -> Result<(), CrossDomainError> {
        if !self.speaking {
            return Err(CrossDomainError::Ended);
        }
        let left = self.max_queued.saturating_sub(self.queued);
        if data.len() > left {
            self.end();
            return Err(CrossDomainError::limit(
                "bytes that the other side does not read",
                data.len() as u64,
                left as u64,
            ));
        }
        if data.is_empty() {
            return Ok(());
        }
        self.queued = self.queued.saturating_add(data.len());
        self.queue.push_back(Part {
            bytes: data.to_vec(),
            sent: 0,
            files,
        });
        self.flush();
        Ok(())
    }

    /// Sends what can be.
    pub(super) fn flush(&mut self) {
        while let Some(part) = self.queue.front_mut() {
            let rest = part.bytes.get(part.sent..).unwrap_or_default();
            match send_part(self.socket.as_fd(), rest, &part.files) {
                Ok(count) => {
                    part.sent = part.sent.saturating_add(count);
                    part.files.clear();
                    self.queued = self.queued.saturating_sub(count);
                    if part.sent >= part.bytes.len() {
                        self.queue.pop_front();
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => return self.stop_speaking(),
            }
        }
    }

    /// Takes what came, of which there is room for so much.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Arrival {
        match self.listening {
            Listening::Told => return Arrival::Nothing,
            Listening::Ended => return Arrival::End,
            Listening::Yes => {}
        }
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_IDENTIFIERS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(buffer)];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let message = loop {
            match recvmsg(&self.socket, &mut slices, &mut control, flags) {
                Ok(message) => break message,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Arrival::Nothing,
                Err(_) => return self.ended(),
            }
        };
        let rights = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => Some(files),
            _ => None,
        });
        let files: Vec<_> = rights.flatten().collect();
        let lost = message.flags.contains(ReturnFlags::CTRUNC) || files.len() > MAX_IDENTIFIERS;
        if message.bytes == 0 || lost {
            return self.ended();
        }
        Arrival::Message(message.bytes, files)
    }

    /// The guest knows of the end.
    pub(super) fn told(&mut self) {
        self.listening = Listening::Told;
    }

    /// Ends it from this side.
    pub(super) fn end(&mut self) {
        self.stop_speaking();
        // Where it cannot be it is not connected any more.
        let _ = shutdown(&self.socket, Shutdown::Both);
        if self.listening == Listening::Yes {
            self.listening = Listening::Ended;
        }
    }

    /// What to wait for, if somebody listens.
    pub(super) fn interest(&self, listens: bool) -> Interest {
        Interest {
            read: listens && self.listening == Listening::Yes,
            write: !self.queue.is_empty(),
        }
    }

    fn ended(&mut self) -> Arrival {
        self.end();
        Arrival::End
    }

    /// What was said before, such as why, can still be heard.
    fn stop_speaking(&mut self) {
        self.speaking = false;
        self.queue.clear();
        self.queued = 0;
    }
}

impl Watched for Channel {
    fn parts(&mut self) -> (&mut Source, BorrowedFd<'_>) {
        (&mut self.source, self.socket.as_fd())
    }
}

fn send_part(socket: BorrowedFd<'_>, bytes: &[u8], files: &[HostFile]) -> Result<usize, Errno> {
    let fds: Vec<_> = files.iter().map(HostFile::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_IDENTIFIERS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Errno::NOBUFS);
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)
}
