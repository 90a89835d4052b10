// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A socket of messages between the two processes.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::cmsg_space;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType, recv,
    recvmsg, sendmsg, shutdown, socketpair,
};
use thiserror::Error;

use super::protocol::{MAX_MESSAGE, MessageError};

/// A message that did not go or come.
#[derive(Debug, Error)]
pub(super) enum ChannelError {
    /// The other process is gone.
    #[error("the connection is closed")]
    Closed,
    /// The other process does nothing.
    #[error("there was no answer in time")]
    TimedOut,
    /// Longer than any that this protocol has.
    #[error("a message is longer than {MAX_MESSAGE} bytes")]
    TooLong,
    /// It makes no sense.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The system refused.
    #[error("the connection failed: {0}")]
    System(#[from] Errno),
}

/// One end.
#[derive(Debug)]
pub(super) struct Channel {
    socket: OwnedFd,
}

/// Room for a message that comes in.
#[derive(Debug)]
pub(super) struct Buffer(Vec<u8>);

impl Buffer {
    pub(super) fn new() -> Self {
        // One more than there may be, which shows one that is too long.
        Self(vec![0; MAX_MESSAGE + 1])
    }

    /// Has a message taken that did not come through a channel.
    pub(super) fn fill(
        &mut self,
        take: impl FnOnce(&mut [u8]) -> Result<Option<usize>, MessageError>,
    ) -> Result<&[u8], ChannelError> {
        let length = take(&mut self.0)?.ok_or(MessageError::Decode)?;
        self.0.get(..length).ok_or(ChannelError::TooLong)
    }

    fn message(&self, length: usize) -> Result<&[u8], ChannelError> {
        match length {
            0 => Err(ChannelError::Closed),
            1..=MAX_MESSAGE => self.0.get(..length).ok_or(ChannelError::TooLong),
            _ => Err(ChannelError::TooLong),
        }
    }
}

impl Channel {
    /// Messages keep their ends (SOCK_SEQPACKET), so neither side has to trust a length.
    pub(super) fn pair() -> Result<(Self, OwnedFd), ChannelError> {
        let (one, other) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self::new(one), other))
    }

    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Gives up on the other process after so long, each way.
    pub(super) fn limit(&self, limit: Duration) -> Result<(), ChannelError> {
        set_socket_timeout(&self.socket, Timeout::Recv, Some(limit))?;
        set_socket_timeout(&self.socket, Timeout::Send, Some(limit))?;
        Ok(())
    }

    /// Sends one message, and a file descriptor with it.
    pub(super) fn send(
        &self,
        message: &[u8],
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<(), ChannelError> {
        let length = message.len();
        if length > MAX_MESSAGE {
            return Err(ChannelError::TooLong);
        }
        let parts = [IoSlice::new(message)];
        let fds = fd.as_slice();
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        let flags = SendFlags::NOSIGNAL;
        let sent = retry_on_intr(|| sendmsg(&self.socket, &parts, &mut control, flags));
        match sent.map_err(lost)? {
            sent if sent == length => Ok(()),
            _ => Err(ChannelError::TooLong),
        }
    }

    /// The next message. A file descriptor that comes with it is dropped.
    pub(super) fn receive<'a>(&self, buffer: &'a mut Buffer) -> Result<&'a [u8], ChannelError> {
        let Buffer(bytes) = buffer;
        let received = retry_on_intr(|| recv(&self.socket, &mut bytes[..], RecvFlags::empty()));
        let (length, _) = received.map_err(lost)?;
        buffer.message(length)
    }

    /// The next message, and the file descriptor that came with it.
    pub(super) fn receive_with_fd<'a>(
        &self,
        buffer: &'a mut Buffer,
    ) -> Result<(&'a [u8], Option<OwnedFd>), ChannelError> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let mut buffers = [IoSliceMut::new(&mut buffer.0)];
        let received = retry_on_intr(|| recvmsg(&self.socket, &mut buffers, &mut control, flags));
        let received = received.map_err(lost)?;
        let mut fd = None;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                fd = fds.last();
            }
        }
        if received.flags.contains(ReturnFlags::TRUNC) {
            return Err(ChannelError::TooLong);
        }
        Ok((buffer.message(received.bytes)?, fd))
    }

    /// Ends the conversation, for both processes.
    pub(super) fn close(&self) {
        // It fails where it is closed already.
        let _ = shutdown(&self.socket, Shutdown::Both);
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn lost(error: Errno) -> ChannelError {
    match error {
        Errno::CONNRESET | Errno::PIPE | Errno::NOTCONN => ChannelError::Closed,
        // What a socket's time limit says.
        Errno::AGAIN => ChannelError::TimedOut,
        error => ChannelError::System(error),
    }
}
