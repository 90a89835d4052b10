// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The other end of the control socket.

use std::error::Error;
use std::fmt::{Display, Formatter, Result as FmtResult};
use std::io::{BufRead, BufReader, Error as IoError, ErrorKind, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::cmsg_space;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::Value;

use crate::command::Command;

/// A connection to a server's control socket.
#[derive(Debug)]
pub struct Client(BufReader<UnixStream>);

/// A request that was not answered as it should be.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientError {
    /// The server refused it, for this reason.
    Refused(String),
    /// The connection failed.
    Connection(IoError),
}

impl Display for ClientError {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        match self {
            Self::Refused(message) => f.write_str(message),
            Self::Connection(error) => write!(f, "the connection to the server failed: {error}"),
        }
    }
}

impl Error for ClientError {}

impl From<IoError> for ClientError {
    fn from(error: IoError) -> Self {
        Self::Connection(error)
    }
}

impl Client {
    /// Connects to the server that listens on `path`.
    ///
    /// # Errors
    /// Nobody listens there, or not for this user.
    pub fn connect(path: &Path) -> Result<Self, IoError> {
        Ok(Self(BufReader::new(UnixStream::connect(path)?)))
    }

    /// Asks, with the file that the command speaks of, and waits for the answer.
    ///
    /// # Errors
    /// The server refused, or the connection failed.
    pub fn ask(
        &mut self,
        command: &Command,
        file: Option<BorrowedFd<'_>>,
    ) -> Result<Value, ClientError> {
        let mut line = serde_json::to_vec(command).map_err(IoError::from)?;
        line.push(b'\n');
        let sent = match file {
            Some(file) => self.send_with(&line, file)?,
            None => 0,
        };
        self.0
            .get_mut()
            .write_all(line.get(sent..).unwrap_or_default())?;
        let mut answer = self.read()?;
        if let Some(value) = answer.get_mut("return") {
            return Ok(value.take());
        }
        let message = answer.pointer("/error/message").and_then(Value::as_str);
        let message = message.map_or_else(|| answer.to_string(), str::to_owned);
        Err(ClientError::Refused(message))
    }

    /// The next object, for as long as the server sends any: events, after that command.
    ///
    /// # Errors
    /// The connection ended.
    pub fn read(&mut self) -> Result<Value, IoError> {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_slice(&line)?)
    }

    fn send_with(&self, bytes: &[u8], file: BorrowedFd<'_>) -> Result<usize, IoError> {
        let files = [file];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(&files)) {
            return Err(ErrorKind::OutOfMemory.into());
        }
        let iov = [IoSlice::new(bytes)];
        let sent = sendmsg(self.0.get_ref(), &iov, &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(sent)
    }
}
