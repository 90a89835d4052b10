// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How calls come to the renderer.

use std::mem;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use virtio_gpu_rutabaga::RutabagaRenderer;
use virtio_gpu_s3::Fence;

use crate::channel::{Buffer, Channel, ChannelError};
use crate::line::{FenceWriter, Line};
use crate::protocol::{Head, MAX_FENCES};
use host_util::adaptive_polling::{AdaptivePolling, FOR_RENDERER};

/// Looks at the line between two at what takes a system call.
const LOOKS: u32 = 16;

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

/// Both ways of calls.
#[derive(Debug)]
pub(super) struct Calls<'a> {
    socket: &'a Channel,
    line: &'a Line,
    polling: AdaptivePolling,
    looks: u32,
}

impl<'a> Calls<'a> {
    pub(super) fn new(socket: &'a Channel, line: &'a Line) -> Self {
        Self {
            socket,
            line,
            polling: AdaptivePolling::default(),
            looks: 0,
        }
    }

    /// The next call, and the file that comes with it.
    pub(super) fn next<'b>(
        &mut self,
        buffer: &'b mut Buffer,
        idle: &mut impl Idle,
    ) -> Result<(&'b [u8], Option<OwnedFd>), ChannelError> {
        let slot = self.line.calls();
        let mut called = false;
        let mut polling = mem::take(&mut self.polling);
        polling.look(FOR_RENDERER, || {
            called = self.is_called(idle);
            called || slot.is_full()
        });
        // Asleep, calls come through the socket only.
        while !called && slot.sleep() {
            called = self.is_ready(idle, None);
            slot.wake();
        }
        polling.found();
        self.polling = polling;
        if called {
            return self.socket.receive_with_fd(buffer);
        }
        let message = buffer.fill(|room| slot.take(room))?;
        Ok((message, None))
    }

    /// The answer to one that came.
    pub(super) fn answer(&self, head: &Head) -> Result<(), ChannelError> {
        if self.line.answers().put(head.bytes()) {
            return Ok(());
        }
        self.socket.send(head.bytes(), &[], None)
    }

    /// Whether there is a call in the socket, looked for now and then.
    fn is_called(&mut self, idle: &mut impl Idle) -> bool {
        self.looks = self.looks.wrapping_add(1);
        self.looks.is_multiple_of(LOOKS) && self.is_ready(idle, Some(&Timespec::default()))
    }

    /// Whether there is a call in the socket, or who makes them is gone, within the time given.
    fn is_ready(&self, idle: &mut impl Idle, limit: Option<&Timespec>) -> bool {
        let work = idle.descriptor();
        let call = PollFd::new(self.socket, PollFlags::IN);
        let mut fds = [call.clone(), call];
        if let Some(work) = &work {
            fds[1] = PollFd::new(work, PollFlags::IN);
        }
        // What fails is left to the call's own receiving.
        let failed = !matches!(poll(&mut fds, limit), Ok(_) | Err(Errno::INTR));
        let [called, due] = fds.map(|fd| !fd.revents().is_empty());
        if work.is_some() && due {
            idle.work();
        }
        failed || called
    }
}

/// Tells the device of fences, on whichever thread they signalled.
pub(super) fn tell(socket: &Channel, line: &mut FenceWriter, fences: &[Fence]) {
    if line.put(fences) {
        return;
    }
    for fences in fences.chunks(MAX_FENCES / 8) {
        // Where it fails the device is gone, and this process next.
        if let Ok(head) = Head::of(&fences) {
            drop(socket.send(head.bytes(), &[], None));
        }
    }
}
