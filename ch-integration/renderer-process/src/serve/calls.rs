// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How calls come to the renderer.

use std::collections::VecDeque;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use virtio_gpu_rutabaga::RutabagaRenderer;
use virtio_gpu_s3::Fence;
use virtio_gpu_s3::renderer::{Answer, BlobMapping};

use vm_memory::FileOffset;

use crate::channel::{Buffer, Channel, ChannelError};
use crate::line::{FenceWriter, Line, Reader, Writer};
use crate::protocol::{Encoder, MAX_FENCES, MAX_HEAD, Reply, Request, WAKE, decode};
use host_util::adaptive_polling::{AdaptivePolling, FOR_RENDERER};

/// Looks at the line between two at what takes a system call,
const LOOKS: u32 = 16;
/// and requests that are there already: together they take no longer than the looks in vain.
const REQUESTS: u32 = 64;

/// What has to be done for a renderer while nobody calls it.
pub(super) trait Idle {
    /// Readable when there is something.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;
    fn work(&mut self);
}

/// virglrenderer's fences wait for results of queries, which only the thread that calls it can fetch.
impl Idle for RutabagaRenderer {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.descriptor())
    }

    fn work(&mut self) {
        self.fetch_queries();
    }
}

/// What the device is told through the socket for fences, on whichever thread there is something to tell.
#[derive(Debug)]
pub(super) struct News {
    socket: Arc<Channel>,
    /// virglrenderer signals on its thread for fences, and on that of calls.
    fences: Mutex<FenceWriter>,
}

impl News {
    pub(super) fn new(socket: Arc<Channel>, line: Line) -> Self {
        let fences = Mutex::new(FenceWriter::new(line));
        Self { socket, fences }
    }

    /// Fences signalled. The socket never fills: the device reads it whatever else it does, and has few fences
    /// outstanding.
    pub(super) fn signalled(&self, fences: &[Fence]) {
        let mut writer = self.fences.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = writer.put(fences);
        for fences in rest.chunks(MAX_FENCES / 8) {
            self.send(fences);
        }
        if rest.is_empty() && writer.has_to_tell() {
            self.send(&[]);
        }
    }

    fn send(&self, fences: &[Fence]) {
        // Where it fails the device is gone, and this process next.
        if let Ok(message) = postcard::to_allocvec(fences) {
            drop(self.socket.send(&message, None));
        }
    }
}

/// Both ways of calls.
#[derive(Debug)]
pub(super) struct Calls<'a> {
    socket: &'a Channel,
    line: Line,
    requests: Reader,
    replies: Writer,
    news: &'a News,
    encoder: Encoder,
    buffer: Buffer,
    /// Those that came before the requests that they belong to were taken.
    files: VecDeque<OwnedFd>,
    polling: AdaptivePolling,
    looks: u32,
}

impl<'a> Calls<'a> {
    pub(super) fn new(socket: &'a Channel, line: Line, news: &'a News) -> Self {
        let (replies, requests) = line.renderer();
        Self {
            socket,
            line,
            requests,
            replies,
            news,
            encoder: Encoder::new(),
            buffer: Buffer::new(),
            files: VecDeque::new(),
            polling: AdaptivePolling::default(),
            looks: 0,
        }
    }

    /// The next request.
    pub(super) fn next(&mut self, idle: &mut impl Idle) -> Result<Request, ChannelError> {
        if self.requests.has_news() {
            self.look_around(idle, REQUESTS)?;
        } else {
            self.wait_for_request(idle)?;
        }
        let requests = &mut self.requests;
        let message = self.buffer.fill(|room| requests.take(room))?;
        Ok(decode(message)?)
    }

    fn wait_for_request(&mut self, idle: &mut impl Idle) -> Result<(), ChannelError> {
        let mut polling = mem::take(&mut self.polling);
        let mut looked = Ok(());
        polling.look(FOR_RENDERER, || {
            looked = self.look_around(idle, LOOKS);
            looked.is_err() || self.requests.has_news()
        });
        looked?;
        while self.requests.sleep() {
            let waited = self.wait(idle, None);
            self.requests.wake();
            waited?;
        }
        polling.found();
        self.polling = polling;
        Ok(())
    }

    /// The file that belongs to the request.
    pub(super) fn file(&mut self) -> Result<OwnedFd, ChannelError> {
        loop {
            if let Some(file) = self.files.pop_front() {
                return Ok(file);
            }
            self.receive()?;
        }
    }

    /// The reply to a request. `in_flight`: nobody waits for it.
    pub(super) fn reply(&mut self, reply: &Reply, in_flight: bool) -> Result<(), ChannelError> {
        let file = match reply {
            Ok(Answer::Mapped(BlobMapping { file, .. })) => file.as_ref().map(FileOffset::file),
            _ => None,
        };
        let message = self.encoder.encode(reply)?;
        let wakes = if file.is_some() || message.len() > MAX_HEAD {
            self.socket.send(message, file.map(AsFd::as_fd))?;
            self.replies.put(&[])?
        } else {
            self.replies.put(message)?
        };
        if wakes {
            self.socket.send(&WAKE, None)?;
        } else if in_flight && self.line.has_to_tell_too() {
            self.news.send(&[]);
        }
        Ok(())
    }

    /// Looks once in so many times at what takes a system call.
    fn look_around(&mut self, idle: &mut impl Idle, times: u32) -> Result<(), ChannelError> {
        self.looks = self.looks.wrapping_add(1);
        if self.looks.is_multiple_of(times) {
            self.wait(idle, Some(&Timespec::default()))?;
        }
        Ok(())
    }

    /// Waits, at most so long, for something in the socket or something to do meanwhile.
    fn wait(&mut self, idle: &mut impl Idle, limit: Option<&Timespec>) -> Result<(), ChannelError> {
        let work = idle.descriptor();
        let call = PollFd::new(self.socket, PollFlags::IN);
        let mut fds = [call.clone(), call];
        if let Some(work) = &work {
            fds[1] = PollFd::new(work, PollFlags::IN);
        }
        match poll(&mut fds, limit) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let [called, due] = fds.map(|fd| !fd.revents().is_empty());
        if work.is_some() && due {
            idle.work();
        }
        if called { self.receive() } else { Ok(()) }
    }

    /// A word that there is a request, or a request's file.
    fn receive(&mut self) -> Result<(), ChannelError> {
        let (_, file) = self.socket.receive_with_fd(&mut self.buffer)?;
        self.files.extend(file);
        Ok(())
    }
}
