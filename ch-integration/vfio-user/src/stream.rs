// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Messages with files over a socket that never makes us wait.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io::{Error as IoError, IoSliceMut};
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use host_util::foreign::ForeignFile;
use host_util::peer::Peer;
use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, recvmsg, send,
};
use thiserror::Error;

use crate::limits::{MAX_MESSAGE_FDS, MESSAGE_TIME};
use crate::wire::{HEADER_SIZE, Header, HeaderError};

/// A command as it came.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) header: Header,
    pub(crate) body: Vec<u8>,
    pub(crate) files: Vec<ForeignFile>,
    /// More files came than are allowed; the kernel closed the rest.
    pub(crate) too_many_files: bool,
}

/// The end of a connection.
#[derive(Debug, Error)]
pub(crate) enum StreamError {
    #[error("it closed its connection within a message")]
    Truncated,
    #[error("it sent {0}")]
    Header(#[from] HeaderError),
    #[error("it took more than {MESSAGE_TIME:?} for {0}")]
    TooSlow(&'static str),
    #[error("{0}")]
    System(#[from] IoError),
}

/// What there is to read.
#[derive(Debug)]
pub(crate) enum Received {
    Message(Message),
    /// Nothing, or a part of a message, until the socket is readable again.
    NotYet,
    /// The client closed the connection between two messages.
    End,
}

/// The part of a message that is there.
#[derive(Debug)]
struct Partial {
    since: Instant,
    bytes: Vec<u8>,
    /// How many bytes the header or the body has, whichever is under way.
    wanted: usize,
    header: Option<Header>,
    files: Vec<ForeignFile>,
    too_many_files: bool,
}

/// A connected client.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: UnixStream,
    partial: Option<Partial>,
    unsent: VecDeque<Vec<u8>>,
    unsent_bytes: usize,
    /// Bytes of the first that went out.
    sent: usize,
    /// Since when the client has taken nothing.
    stuck: Option<Instant>,
}

impl Stream {
    pub(crate) fn new(socket: UnixStream) -> Result<Self, IoError> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            partial: None,
            unsent: VecDeque::new(),
            unsent_bytes: 0,
            sent: 0,
            stuck: None,
        })
    }

    /// The client's process, for the log; 0 where it cannot be named here.
    pub(crate) fn peer(&self) -> i32 {
        Peer::process_of(&self.socket)
    }

    pub(crate) fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// Takes at most one message. A message's files come with its header or with its body, so neither is read further
    /// than it goes.
    pub(crate) fn receive(&mut self) -> Result<Received, StreamError> {
        let mut partial = self.partial.take().unwrap_or_else(|| Partial {
            since: Instant::now(),
            bytes: Vec::new(),
            wanted: HEADER_SIZE,
            header: None,
            files: Vec::new(),
            too_many_files: false,
        });
        loop {
            match self.fill(&mut partial) {
                Ok(true) => {}
                Ok(false) if partial.header.is_none() && partial.bytes.is_empty() => {
                    return Ok(Received::End);
                }
                Ok(false) => return Err(StreamError::Truncated),
                Err(Errno::AGAIN) => {
                    if partial.header.is_some() || !partial.bytes.is_empty() {
                        self.partial = Some(partial);
                    }
                    return Ok(Received::NotYet);
                }
                Err(error) => return Err(StreamError::System(error.into())),
            }
            if partial.bytes.len() < partial.wanted {
                continue;
            }
            let bytes = mem::take(&mut partial.bytes);
            let header = match partial.header {
                Some(header) => header,
                None => {
                    let bytes = bytes.first_chunk().ok_or(StreamError::Truncated)?;
                    let header = Header::parse(bytes)?;
                    partial.wanted = header.body;
                    partial.header = Some(header);
                    if header.body > 0 {
                        continue;
                    }
                    header
                }
            };
            let body = if header.body == 0 { Vec::new() } else { bytes };
            return Ok(Received::Message(Message {
                header,
                body,
                files: partial.files,
                too_many_files: partial.too_many_files,
            }));
        }
    }

    /// Reads towards what is wanted. Returns false at the connection's end.
    fn fill(&self, partial: &mut Partial) -> Result<bool, Errno> {
        let have = partial.bytes.len();
        // A length that the client named is believed as its bytes come: no more than this is there before them.
        let step = (partial.wanted - have).min(READ_STEP);
        partial.bytes.resize(have + step, 0);
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_MESSAGE_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let target = partial.bytes.get_mut(have..).unwrap_or_default();
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let result = recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(target)],
            &mut control,
            flags,
        );
        partial
            .bytes
            .truncate(have + result.as_ref().map_or(0, |received| received.bytes));
        let received = result?;
        partial.too_many_files |= received.flags.contains(ReturnFlags::CTRUNC);
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                partial.files.extend(files.map(ForeignFile::from));
            }
        }
        if partial.files.len() > MAX_MESSAGE_FDS {
            partial.files.clear();
            partial.too_many_files = true;
        }
        Ok(received.bytes > 0)
    }

    /// Whether what is there of a message, or of the replies, has been there for too long.
    pub(crate) fn check_time(&self) -> Result<(), StreamError> {
        let late = |since: Option<Instant>| since.is_some_and(|it| it.elapsed() >= MESSAGE_TIME);
        if late(self.partial.as_ref().map(|partial| partial.since)) {
            return Err(StreamError::TooSlow("a message"));
        }
        if late(self.stuck) {
            return Err(StreamError::TooSlow("taking a reply"));
        }
        Ok(())
    }

    /// When [`Self::check_time`] is to be asked again.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let partial = self.partial.as_ref().map(|partial| partial.since);
        let since = partial.into_iter().chain(self.stuck).min();
        since.map(|since| since + MESSAGE_TIME)
    }

    pub(crate) fn unsent_bytes(&self) -> usize {
        self.unsent_bytes
    }

    /// Sends a message, or as much of it as goes; the rest goes with [`Self::flush`].
    pub(crate) fn send(&mut self, message: Vec<u8>) -> Result<(), StreamError> {
        self.unsent_bytes += message.len();
        self.unsent.push_back(message);
        self.flush()
    }

    pub(crate) fn flush(&mut self) -> Result<(), StreamError> {
        while let Some(message) = self.unsent.front() {
            let rest = message.get(self.sent..).unwrap_or_default();
            match send(
                &self.socket,
                rest,
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            ) {
                Ok(sent) => {
                    self.stuck = None;
                    self.sent += sent;
                    self.unsent_bytes -= sent;
                    if self.sent >= message.len() {
                        self.unsent.pop_front();
                        self.sent = 0;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.stuck.get_or_insert_with(Instant::now);
                    return Ok(());
                }
                Err(error) => return Err(StreamError::System(error.into())),
            }
        }
        Ok(())
    }
}

/// Bytes that a body's buffer grows by before they are there.
const READ_STEP: usize = 64 << 10;

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Waits for any of `fds`, until `deadline` where there is one. A signal ends the wait early.
pub(crate) fn wait(fds: &mut [PollFd<'_>], deadline: Option<Instant>) -> Result<(), IoError> {
    // A little longer, so that the deadline has passed for certain.
    let left =
        deadline.map(|at| at.saturating_duration_since(Instant::now()) + Duration::from_millis(1));
    let timeout = left.and_then(|left| Timespec::try_from(left).ok());
    match poll(fds, timeout.as_ref()) {
        Ok(_) => Ok(()),
        Err(Errno::INTR) => {
            // Nothing is known of them.
            for fd in fds {
                fd.clear_revents();
            }
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether the other side has closed its end.
pub(crate) fn is_hung_up(socket: &UnixStream) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::RDHUP)];
    let no_wait = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let polled = poll(&mut fds, Some(&no_wait));
    let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
    polled.is_ok() && fds.iter().any(|fd| fd.revents().intersects(gone))
}
