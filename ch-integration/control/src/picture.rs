// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Pictures on their way to where a client wants them.
//!
//! A file can take as long as whoever serves it pleases (FUSE, a network, the reader of a pipe), so each is written on a
//! thread of its own, and the conversation waits so long and no longer. How many there are is limited with the pictures
//! (see [`Screenshot`]).

use std::fs::File;
use std::io::{Error as IoError, ErrorKind, Write};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use base64::engine::general_purpose::STANDARD;
use base64::write::EncoderWriter;
use host_util::foreign::ForeignFile;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use virtio_gpu_worker::{Screenshot, encode_png, save_png};

use crate::command::{Target, told};

/// How long a picture may take to be written to a file. The largest one, of 16384 × 16384 pixels, takes a third of it.
pub(crate) const WRITING_TIME: Duration = Duration::from_secs(30);
/// The same for a pipe, whose reader is the client's to choose.
const PIPE_TIME: Duration = Duration::from_secs(5);
/// So many bytes a pipe that can be written to takes at once, without waiting (PIPE_BUF of pipe(7)).
const PIPE_BYTES: usize = 4096;

/// What became of a picture.
pub(crate) enum Written {
    Done,
    Failed(String),
    /// It takes too long: it is given up, and so is the client.
    Late,
}

/// Writes a picture to where the server or the client has it.
pub(crate) fn write(shot: Screenshot, target: Target, file: Option<ForeignFile>) -> Written {
    let (done, result) = sync_channel(1);
    let body = move || {
        let written = match (target, file) {
            (Target::Path(path), _) => save_png(&shot.image, &path).map_err(|error| told(&error)),
            (_, Some(file)) => to_file(&shot, file),
            (_, None) => Err("no file came with the request".into()),
        };
        // The room that the picture took is free before anybody hears of it.
        drop(shot);
        drop(done.send(written));
    };
    let thread = thread::Builder::new().name("picture".into()).spawn(body);
    if let Err(error) = thread {
        return Written::Failed(format!("cannot write a picture: {error}"));
    }
    match result.recv_timeout(WRITING_TIME) {
        Ok(Ok(())) => Written::Done,
        Ok(Err(message)) => Written::Failed(message),
        Err(RecvTimeoutError::Timeout) => Written::Late,
        Err(RecvTimeoutError::Disconnected) => {
            Written::Failed("the thread that wrote the picture panicked".into())
        }
    }
}

fn to_file(shot: &Screenshot, file: ForeignFile) -> Result<(), String> {
    let known = file.into_known().ok_or("no file came with the request")?;
    let result = fstat(&known).map_err(IoError::from).and_then(|of| {
        let file = File::from(known);
        match FileType::from_raw_mode(of.st_mode) {
            FileType::RegularFile => encode(shot, file),
            FileType::Fifo => encode(shot, BoundedPipe::new(file)),
            _ => Err(IoError::other("it is neither a file nor a pipe")),
        }
    });
    result.map_err(|error| format!("cannot write to the file that came: {error}"))
}

fn encode(shot: &Screenshot, writer: impl Write) -> Result<(), IoError> {
    encode_png(&shot.image, writer).map_err(IoError::from)
}

/// A pipe that is written to only when it takes something. Whether a write to it waits is for the client to say at any
/// time, as both have the same open file.
struct BoundedPipe {
    pipe: File,
    deadline: Instant,
}

impl BoundedPipe {
    fn new(pipe: File) -> Self {
        let deadline = Instant::now() + PIPE_TIME;
        Self { pipe, deadline }
    }
}

impl Write for BoundedPipe {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, IoError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|_| ErrorKind::TimedOut)?;
        match poll(&mut [PollFd::new(&self.pipe, PollFlags::OUT)], Some(&left)) {
            Ok(0) => return Err(ErrorKind::TimedOut.into()),
            // Nothing was written, and the caller comes again.
            Err(Errno::INTR) => return Err(ErrorKind::Interrupted.into()),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let bytes = bytes.get(..PIPE_BYTES).unwrap_or(bytes);
        match self.pipe.write(bytes) {
            // Somebody else filled it first.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Err(ErrorKind::Interrupted.into())
            }
            result => result,
        }
    }

    fn flush(&mut self) -> Result<(), IoError> {
        Ok(())
    }
}

/// The fields of an answer about a picture, as JSON without its braces.
pub(crate) fn fields(shot: &Screenshot) -> String {
    let Screenshot { image, active, .. } = shot;
    let (width, height) = (image.width, image.height);
    format!("\"width\":{width},\"height\":{height},\"active\":{active}")
}

/// Writes a picture as text of JSON, a row at a time.
pub(crate) fn write_text(shot: &Screenshot, writer: impl Write) -> Result<(), IoError> {
    let mut text = EncoderWriter::new(writer, &STANDARD);
    encode(shot, &mut text)?;
    text.finish().map(drop)
}
