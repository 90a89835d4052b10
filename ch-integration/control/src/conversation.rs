// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One client's requests and answers.

use std::io::{BufWriter, Error as IoError, ErrorKind, IoSliceMut, Write};
use std::mem::{self, MaybeUninit};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use host_util::foreign::ForeignFile;
use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde::Serialize;
use serde_json::{Value, json};
use virtio_gpu_worker::{Controlled, PictureLimit, Screenshot};

use crate::command::{Command, Outcome, Target};
use crate::picture::{self, Written};

/// Longest request in bytes; paths are at most 4096.
const MAX_LINE: usize = 16 * 1024;
/// How long a client may leave an answer untaken.
pub(crate) const SENDING_TIME: Duration = Duration::from_secs(10);
/// How often a client that waits for events is looked after: it may have left.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    Return(Value),
    Error { message: String },
}

/// Serves one client until it leaves.
pub(crate) fn converse(
    stream: &UnixStream,
    device: &dyn Controlled,
    pictures: &PictureLimit,
) -> Result<(), IoError> {
    let mut requests = Requests::new(stream);
    while let Some(line) = requests.next()? {
        let Line::Whole(line) = line else {
            let message = format!("a request is longer than {MAX_LINE} bytes");
            send_line(stream, &Answer::Error { message })?;
            continue;
        };
        let outcome = serde_json::from_slice(&line)
            .map_err(|error| error.to_string())
            .and_then(|command: Command| command.execute(device, pictures));
        match outcome {
            Ok(Outcome::Value(value)) => send_line(stream, &Answer::Return(value))?,
            Ok(Outcome::Events) => return stream_events(stream, device),
            Ok(Outcome::Picture(shot, Target::Answer)) => send_picture(stream, &shot)?,
            Ok(Outcome::Picture(shot, target)) => {
                write_picture(stream, *shot, target, &mut requests)?;
            }
            Err(message) => send_line(stream, &Answer::Error { message })?,
        }
    }
    Ok(())
}

fn write_picture(
    stream: &UnixStream,
    shot: Screenshot,
    target: Target,
    requests: &mut Requests<'_>,
) -> Result<(), IoError> {
    let fields = picture::fields(&shot);
    let file = (target == Target::File).then(|| requests.file.take());
    match picture::write(shot, target, file.flatten()) {
        Written::Done => writeln!({ stream }, "{{\"return\":{{{fields}}}}}"),
        Written::Failed(message) => send_line(stream, &Answer::Error { message }),
        Written::Late => {
            let message = format!("the picture was not written in {:?}", picture::WRITING_TIME);
            send_line(stream, &Answer::Error { message })?;
            Err(ErrorKind::TimedOut.into())
        }
    }
}

/// The picture in the answer. What goes wrong within it ends the conversation, as half of an answer is sent.
fn send_picture(stream: &UnixStream, shot: &Screenshot) -> Result<(), IoError> {
    let mut writer = BufWriter::with_capacity(1 << 16, stream);
    write!(
        writer,
        "{{\"return\":{{{},\"png\":\"",
        picture::fields(shot)
    )?;
    picture::write_text(shot, &mut writer)?;
    writer.write_all(b"\"}}\n")?;
    writer.flush()
}

fn stream_events(stream: &UnixStream, device: &dyn Controlled) -> Result<(), IoError> {
    let events = device.subscribe();
    send_line(stream, &Answer::Return(json!({})))?;
    loop {
        match events.recv_timeout(LOOK) {
            Ok(event) => send_line(stream, &event)?,
            Err(RecvTimeoutError::Timeout) if has_left(stream)? => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// Whether the client closed its socket. One that only has nothing more to ask is still there.
fn has_left(stream: &UnixStream) -> Result<bool, IoError> {
    let mut fds = [PollFd::new(stream, PollFlags::empty())];
    match poll(&mut fds, Some(&Timespec::default())) {
        Ok(found) => Ok(found > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Sends one object.
pub(crate) fn send_line(mut stream: &UnixStream, value: &impl Serialize) -> Result<(), IoError> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line)
}

enum Line {
    Whole(Vec<u8>),
    TooLong,
}

/// What a client sends: lines, and the file that one of them speaks of.
struct Requests<'a> {
    stream: &'a UnixStream,
    /// Received, and not a whole line yet.
    bytes: Vec<u8>,
    /// The line that is received is too long, and none of it is kept.
    skips: bool,
    /// Waits for the request that names it.
    file: Option<ForeignFile>,
}

impl<'a> Requests<'a> {
    fn new(stream: &'a UnixStream) -> Self {
        Self {
            stream,
            bytes: Vec::new(),
            skips: false,
            file: None,
        }
    }

    /// The next line, `None` at the end.
    fn next(&mut self) -> Result<Option<Line>, IoError> {
        loop {
            if let Some(end) = self.bytes.iter().position(|&byte| byte == b'\n') {
                let rest = self.bytes.split_off(end + 1);
                return Ok(Some(self.take(rest)));
            }
            if self.bytes.len() >= MAX_LINE {
                self.skips = true;
            }
            if self.skips {
                self.bytes.clear();
            }
            if !self.receive()? {
                let nothing = self.bytes.is_empty() && !self.skips;
                return Ok((!nothing).then(|| self.take(Vec::new())));
            }
        }
    }

    fn take(&mut self, rest: Vec<u8>) -> Line {
        let line = mem::replace(&mut self.bytes, rest);
        if mem::take(&mut self.skips) {
            Line::TooLong
        } else {
            Line::Whole(line)
        }
    }

    /// Returns whether anything came.
    fn receive(&mut self) -> Result<bool, IoError> {
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let iov = &mut [IoSliceMut::new(&mut bytes)];
        let received = match recvmsg(self.stream, iov, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => return Ok(true),
            received => received?,
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                for file in files.map(ForeignFile::from) {
                    if self.file.replace(file).is_some() {
                        return Err(IoError::other("two files for one request"));
                    }
                }
            }
        }
        self.bytes
            .extend_from_slice(bytes.get(..received.bytes).unwrap_or_default());
        Ok(received.bytes > 0)
    }
}
