// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Answers that a device gives at once or later, from any thread.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::mem;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::{Errno, write};

use crate::wire::{ACCESS_SIZE, Access, HEADER_SIZE, Header, Reply, emit_error};

/// Answers on their way from the device to the connection.
#[derive(Debug)]
pub(crate) struct Answers {
    state: Mutex<State>,
    /// An eventfd that wakes the connection.
    wake: Arc<OwnedFd>,
}

#[derive(Debug, Default)]
struct State {
    given: VecDeque<Given>,
    /// Requests that the device has and has not answered.
    in_flight: usize,
    /// The connection waits, and does not look here by itself.
    waiting: bool,
}

/// An answer that the connection has not sent.
#[derive(Debug)]
pub(crate) struct Given {
    /// None where the client wants none.
    pub(crate) message: Option<Vec<u8>>,
    pub(crate) failed: Option<(Header, Errno)>,
}

impl Answers {
    pub(crate) fn new(wake: Arc<OwnedFd>) -> Self {
        Self {
            state: Mutex::default(),
            wake,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn next(&self) -> Option<Given> {
        self.lock().given.pop_front()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.lock().in_flight
    }

    /// The connection is about to wait. Returns false if there is an answer already.
    pub(crate) fn start_waiting(&self) -> bool {
        let mut state = self.lock();
        state.waiting = state.given.is_empty();
        state.waiting
    }

    fn give(&self, given: Given) {
        let mut state = self.lock();
        state.in_flight -= 1;
        state.given.push_back(given);
        if mem::take(&mut state.waiting) {
            // It is ours alone and does not block; full means that the connection is awake.
            let _written = write(&*self.wake, &1u64.to_ne_bytes());
        }
    }
}

/// A request that waits for its answer. One that is dropped is answered with EIO.
#[derive(Debug)]
#[must_use]
pub struct Answer {
    header: Header,
    /// What is sent if all is well.
    message: Vec<u8>,
    to: Option<Arc<Answers>>,
}

impl Answer {
    pub(crate) fn new(header: Header, reply: &Reply<'_>, to: &Arc<Answers>) -> Self {
        to.lock().in_flight += 1;
        Self {
            header,
            message: reply.emit(&header),
            to: Some(to.clone()),
        }
    }

    /// It is done.
    pub fn done(mut self) {
        let message = mem::take(&mut self.message);
        self.give(message, None);
    }

    /// It is not, and the client is told why.
    pub fn fail(mut self, errno: Errno) {
        self.give_error(errno);
    }

    fn give_error(&mut self, errno: Errno) {
        let message = emit_error(&self.header, errno);
        self.give(message, Some((self.header, errno)));
    }

    fn give(&mut self, message: Vec<u8>, failed: Option<(Header, Errno)>) {
        if let Some(to) = self.to.take() {
            let message = (!self.header.no_reply).then_some(message);
            to.give(Given { message, failed });
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.give_error(Errno::IO);
    }
}

/// A read that waits for its bytes.
#[derive(Debug)]
#[must_use]
pub struct ReadAnswer(Answer);

impl ReadAnswer {
    pub(crate) fn new(header: Header, access: Access, to: &Arc<Answers>) -> Self {
        Self(Answer::new(header, &Reply::Read(access), to))
    }

    /// As many bytes as are read, zeros at first.
    pub fn data(&mut self) -> &mut [u8] {
        let data = self.0.message.get_mut(HEADER_SIZE + ACCESS_SIZE..);
        data.unwrap_or_default()
    }

    /// The bytes are there.
    pub fn done(self) {
        self.0.done();
    }

    /// They are not, and the client is told why.
    pub fn fail(self, errno: Errno) {
        self.0.fail(errno);
    }
}
