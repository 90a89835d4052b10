// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The thread that waits for sockets and pipes, so that nobody else does.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{Error as IoError, PipeReader, PipeWriter, pipe};
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

/// Told that something can go on, on the watcher's thread.
pub(super) type Wake = Arc<dyn Fn() + Send + Sync>;

/// What stands for the pipe that ends the thread; no context has this id.
const END: u32 = 0;
/// Events taken at a time.
const EVENTS: usize = 16;

/// Whether a descriptor was ever waited for.
///
/// Each wait ends with the first event (EPOLLONESHOT): between that and the next
/// [`watch`](Watcher::watch) nothing that the other side does costs anything here.
#[derive(Debug, Default)]
pub(super) struct Source {
    known: bool,
}

/// What has a descriptor to wait for.
pub(super) trait Watched {
    fn parts(&mut self) -> (&mut Source, BorrowedFd<'_>);
}

/// What to wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Interest {
    pub(super) read: bool,
    pub(super) write: bool,
}

#[derive(Debug, Default)]
struct News {
    any: AtomicBool,
    contexts: Mutex<BTreeSet<u32>>,
}

pub(super) struct Watcher {
    epoll: Arc<OwnedFd>,
    news: Arc<News>,
    /// The thread ends with it.
    until: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    pub(super) fn start(wake: Wake) -> Result<Self, IoError> {
        let epoll = Arc::new(epoll::create(CreateFlags::CLOEXEC)?);
        let (ends, until) = pipe()?;
        epoll::add(
            &epoll,
            &ends,
            EventData::new_u64(END.into()),
            EventFlags::IN,
        )?;
        let news = Arc::new(News::default());
        let (waits, told) = (Arc::clone(&epoll), Arc::clone(&news));
        let thread = thread::Builder::new().name("cross-domain".into());
        let thread = thread.spawn(move || run(&waits, &told, &wake, &ends))?;
        Ok(Self {
            epoll,
            news,
            until: Some(until),
            thread: Some(thread),
        })
    }

    /// Waits for one event of `fd`, which is the context's. Without interest an earlier wait ends.
    pub(super) fn watch(
        &self,
        ctx_id: u32,
        source: &mut Source,
        fd: impl AsFd,
        interest: Interest,
    ) -> Result<(), Errno> {
        if interest == Interest::default() {
            return self.forget(source, fd);
        }
        let mut flags = EventFlags::ONESHOT;
        flags.set(EventFlags::IN, interest.read);
        flags.set(EventFlags::OUT, interest.write);
        let data = EventData::new_u64(ctx_id.into());
        if source.known {
            return epoll::modify(&self.epoll, fd, data, flags);
        }
        epoll::add(&self.epoll, fd, data, flags)?;
        source.known = true;
        Ok(())
    }

    /// Waits for it no more. Before it is closed, as another process may have it open too.
    pub(super) fn forget(&self, source: &mut Source, fd: impl AsFd) -> Result<(), Errno> {
        if !mem::take(&mut source.known) {
            return Ok(());
        }
        epoll::delete(&self.epoll, fd)
    }

    /// The contexts of descriptors with events since the last call.
    pub(super) fn take_news(&self) -> BTreeSet<u32> {
        if !self.news.any.swap(false, Ordering::AcqRel) {
            return BTreeSet::new();
        }
        let contexts = self.news.contexts.lock();
        mem::take(&mut *contexts.unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher")
            .field("news", &self.news)
            .finish_non_exhaustive()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        drop(self.until.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn run(epoll: &OwnedFd, news: &News, wake: &Wake, _ends: &PipeReader) {
    let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
    loop {
        events.clear();
        match epoll::wait(epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
        if events.is_empty() {
            continue;
        }
        let mut contexts = news.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        for event in &events {
            // Copied out of a packed structure.
            let data = event.data;
            match u32::try_from(data.u64()) {
                Ok(END) | Err(_) => return,
                Ok(ctx_id) => contexts.insert(ctx_id),
            };
        }
        drop(contexts);
        news.any.store(true, Ordering::Release);
        wake();
    }
}
