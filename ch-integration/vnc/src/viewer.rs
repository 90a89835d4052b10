// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A viewer's thread: it alone waits for this viewer, and nobody for it.

use std::io::{Error as IoError, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use thiserror::Error;

use crate::address::Stream;
use crate::error::ProtocolError;
use crate::limits::{HANDSHAKE, READ_BYTES, STALLED};
use crate::screen::Screen;
use crate::session::{Session, Wish};
use crate::wake::Wake;

/// Why a viewer is served no more.
#[derive(Debug, Error)]
pub(crate) enum Ended {
    #[error("it left")]
    Left,
    #[error("{0}")]
    Protocol(#[from] ProtocolError),
    #[error("it asked for no picture within {HANDSHAKE:?}")]
    Silent,
    #[error("it took nothing of its picture for {STALLED:?}")]
    Stalled,
    #[error("the device has stopped")]
    DeviceStopped,
    #[error("{0}")]
    Io(IoError),
}

/// A viewer.
pub(crate) struct Viewer {
    stream: Stream,
    screen: Arc<Screen>,
    number: u64,
    wake: Arc<Wake>,
    session: Session,
    /// What waits to be sent, and how much of it is.
    out: Vec<u8>,
    sent: usize,
    /// When it last took something, or there was nothing to take.
    taken: Instant,
    began: Instant,
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.screen.leave(self.number);
        self.stream.end();
    }
}

impl Viewer {
    pub(crate) fn new(stream: Stream, screen: Arc<Screen>, number: u64, wake: Arc<Wake>) -> Self {
        let mut out = Vec::new();
        let session = Session::new(&mut out);
        Self {
            stream,
            screen,
            number,
            wake,
            session,
            out,
            sent: 0,
            taken: Instant::now(),
            began: Instant::now(),
        }
    }

    /// Serves it until it leaves, or is to be served no more.
    pub(crate) fn run(mut self) -> Ended {
        loop {
            if let Err(ended) = self.turn() {
                return ended;
            }
        }
    }

    fn turn(&mut self) -> Result<(), Ended> {
        self.send()?;
        if self.out.is_empty() {
            let desktop = self.screen.desktop();
            let made = self.session.update(&desktop, &mut self.out);
            let change = desktop.change();
            drop(desktop);
            if made {
                return Ok(());
            }
            if self.session.is_waiting() && !self.screen.wait_for(self.number, change) {
                return Ok(());
            }
        }
        if self.screen.has_ended() {
            return Err(Ended::DeviceStopped);
        }
        if self.wait()? {
            self.receive()?;
        }
        Ok(())
    }

    /// Sends as much as it takes.
    fn send(&mut self) -> Result<(), Ended> {
        while let Some(rest) = self.out.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(0) => return Err(Ended::Left),
                Ok(count) => {
                    self.sent = self.sent.saturating_add(count);
                    self.taken = Instant::now();
                }
                Err(error) => return try_later(error),
            }
        }
        self.out.clear();
        self.sent = 0;
        self.taken = Instant::now();
        Ok(())
    }

    /// Waits until there is something to do. Returns whether there is something to read.
    fn wait(&self) -> Result<bool, Ended> {
        let mut wanted = PollFlags::IN;
        if !self.out.is_empty() {
            wanted |= PollFlags::OUT;
        }
        let mut files = [
            PollFd::new(&self.stream, wanted),
            PollFd::new(&*self.wake, PollFlags::IN),
        ];
        let timeout = self.patience()?.and_then(|it| Timespec::try_from(it).ok());
        match poll(&mut files, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Ended::Io(error.into())),
        }
        let [stream, _] = &files;
        // A connection that has ended is one that can be read.
        let readable = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        let readable = stream.revents().intersects(readable);
        // Whatever woke it, it is awake now.
        self.wake.clear();
        Ok(readable)
    }

    /// How long there is time, `None` for ever.
    fn patience(&self) -> Result<Option<Duration>, Ended> {
        let stalled = (!self.out.is_empty()).then_some((self.taken, STALLED, Ended::Stalled));
        let silent = (!self.session.is_running()).then_some((self.began, HANDSHAKE, Ended::Silent));
        let mut least: Option<Duration> = None;
        for (since, limit, ended) in [stalled, silent].into_iter().flatten() {
            let left = limit.saturating_sub(since.elapsed());
            if left.is_zero() {
                return Err(ended);
            }
            least = Some(least.map_or(left, |it| it.min(left)));
        }
        Ok(least)
    }

    fn receive(&mut self) -> Result<(), Ended> {
        let mut buffer = [0; READ_BYTES];
        let bytes = match self.stream.read(&mut buffer) {
            Ok(0) => return Err(Ended::Left),
            Ok(count) => buffer.get(..count).unwrap_or_default(),
            Err(error) => return try_later(error),
        };
        let mut wishes = Vec::new();
        self.session.receive(bytes, &mut self.out, &mut wishes)?;
        for wish in wishes {
            match wish {
                Wish::Layout(layout) => self.screen.wish(layout),
                Wish::Key(_) | Wish::Pointer(_) => self.screen.poke(),
            }
        }
        Ok(())
    }
}

/// Nothing to do just now is no end.
fn try_later(error: IoError) -> Result<(), Ended> {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(()),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Err(Ended::Left),
        _ => Err(Ended::Io(error)),
    }
}
