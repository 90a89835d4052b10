// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Rendering with rutabaga and virglrenderer.
//!
//! What rutabaga 0.1.85 gets wrong, and what is done about it:
//!
//! | rutabaga | here |
//! |---|---|
//! | its snapshot loses pixels, and its restore destroys everything first | neither is called; a frozen reset keeps the live objects |
//! | a dropped instance cannot be followed by another; that one is silently 2D | one renderer a process, refused by `StartError::AlreadyStarted`; a reset destroys objects one by one |
//! | it computes sizes in 32 bits and allocates without limit | the device checks sizes and limits before it asks |
//! | its 2D transfers ignore an offset past the backing | its 2D component is never used; virglrenderer refuses |
//! | global fence numbers are cut to 32 bits | both kinds of numbers are our own |
//! | a debug build makes standard error a copy of standard output | standard error is put back |
//! | without a capset mask it offers capsets it has not initialised | the mask is always given |
//! | to describe a capset it tries formats in the current context, and leaves that without its framebuffer | descriptions are fetched before there is a context |
//! | reads that fail leave the buffer as it was | rows are zeroed before |
//! | a resource's iovecs are freed before virglrenderer lets go of them | they are detached before |
//! | writes from a buffer are not supported | the buffer becomes the backing for the time |
#![cfg(feature = "virgl")]
#![expect(
    unsafe_code,
    reason = "virglrenderer takes raw addresses, and its thread borrows from its callers"
)]

mod caller;
mod engine;
mod fences;
mod panics;
mod start;
mod thread;

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

#[cfg(feature = "test-utils")]
use engine::Engine;
use engine::{Given, Range};
use fences::FenceTable;
pub use start::{RutabagaConfig, StartError};
use thread::Thread;
use virtio_gpu_s3::Fence;
use virtio_gpu_s3::renderer::{
    Answer, Backing, Call, CapsetInfo, Completion, Data, GuestPages, Renderer, RendererError,
};

/// Renders with virglrenderer, in software or on a GPU, without a window system.
///
/// rutabaga lives on a thread of its own, which this is a handle to, or on the one that starts it.
/// There can be one in the life of a process.
pub struct RutabagaRenderer {
    thread: Thread,
    capsets: Vec<CapsetInfo>,
    fences: Arc<FenceTable>,
    /// A stream's one copy, which the guest cannot change, aligned for virglrenderer.
    stream: Vec<u32>,
}

impl fmt::Debug for RutabagaRenderer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RutabagaRenderer")
            .field("capsets", &self.capsets)
            .field("fences", &self.fences)
            .finish_non_exhaustive()
    }
}

impl RutabagaRenderer {
    /// Starts the renderer. `wake` is called whenever [`Renderer::poll`] has something to give,
    /// on a thread of virglrenderer; it must not wait for anything.
    ///
    /// # Errors
    /// A [`StartError`] says what is missing.
    pub fn new(
        config: &RutabagaConfig,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, StartError> {
        Self::over(wake, |fences| Thread::start(config, fences))
    }

    /// Starts the renderer on this thread, which alone can use it: for a device with a thread to
    /// itself, where no command has to go to another thread and back. On any other thread every
    /// call fails with [`RendererError::Gone`]. `wake` is as in [`new`](Self::new).
    ///
    /// virglrenderer signals no fence while results of queries wait to be fetched, which can be
    /// done on this thread only: whenever [`descriptor`](Self::descriptor) is readable, or in
    /// [`Renderer::poll`] after [`watch`](Self::watch).
    ///
    /// # Errors
    /// A [`StartError`] says what is missing.
    pub fn on_this_thread(
        config: &RutabagaConfig,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, StartError> {
        Self::over(wake, |fences| Thread::adopt(config, fences))
    }

    fn over(
        wake: impl Fn() + Send + Sync + 'static,
        start: impl FnOnce(Arc<FenceTable>) -> Result<(Thread, Vec<CapsetInfo>), StartError>,
    ) -> Result<Self, StartError> {
        let fences = Arc::new(FenceTable::new(Box::new(wake)));
        let (thread, capsets) = start(Arc::clone(&fences))?;
        Ok(Self {
            thread,
            capsets,
            fences,
            stream: Vec::new(),
        })
    }

    /// Starts a thread that calls `wake` when [`Renderer::poll`] has results of queries to fetch.
    ///
    /// # Errors
    /// The host has no thread or pipe left.
    pub fn watch(&mut self) -> Result<(), StartError> {
        self.thread.watch()
    }

    /// Readable when [`fetch_queries`](Self::fetch_queries) has something to do.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.thread.descriptor().as_fd()
    }

    /// Fetches results of queries, for which fences wait.
    pub fn fetch_queries(&mut self) {
        // Where the renderer is gone there are none.
        let _ = self.thread.post(|engine| engine.poll());
    }

    /// Has the renderer's thread panic, as a mistake of rutabaga's would, and waits for that: for
    /// tests of who must survive it.
    #[cfg(feature = "test-utils")]
    #[expect(clippy::panic, reason = "that is what it is for")]
    pub fn crash(&self) {
        let crash = |_: &mut Engine| panic!("a test said so");
        let answer: Result<(), RendererError> = self.thread.call(crash);
        debug_assert_eq!(answer, Err(RendererError::Gone));
    }

    /// Its fences, where another thread takes them.
    pub fn signalled(&self) -> SignalledFences {
        SignalledFences(Arc::clone(&self.fences))
    }
}

/// The fences that signalled, for a thread that does not have the renderer.
#[derive(Debug)]
pub struct SignalledFences(Arc<FenceTable>);

impl SignalledFences {
    /// Those since the last call, as [`Renderer::poll`] gives them: each is given once.
    pub fn take(&self) -> Vec<Fence> {
        self.0.take_signalled()
    }
}

fn ranges(pages: &dyn GuestPages) -> Result<Vec<Range>, RendererError> {
    // The device checked them; only a VMM that unmaps guest memory under it gets here.
    pages
        .host_ranges()
        .map_err(|_| RendererError::refused("guest memory that is gone", EFAULT))
}

/// As Linux numbers it everywhere.
const EFAULT: i32 = 14;

impl Renderer for RutabagaRenderer {
    fn capsets(&self) -> Vec<CapsetInfo> {
        self.capsets.clone()
    }

    /// A fence that cannot be created signals with the one before it, so nothing is to be waited
    /// for there.
    fn call(&mut self, call: Call<'_>) -> Result<Answer, RendererError> {
        let (operation, fence) = (&call.operation, call.fence);
        let given = match call.data {
            Data::None => Given::None,
            Data::Bytes(bytes) => Given::Bytes(bytes),
            Data::Room(room) => Given::Room(room),
            stream @ (Data::Stream(_) | Data::Words(_)) => {
                Given::Words(stream.words(&mut self.stream)?)
            }
            Data::Pages(pages) => match operation.backing() {
                Some((_, Backing::Begins)) => Given::Ranges(ranges(pages)?),
                // virglrenderer has them.
                _ => Given::None,
            },
        };
        self.thread.call(|engine| {
            let answer = engine.run(operation, given)?;
            if let Some(fence) = fence {
                engine.create_fence(fence);
            }
            Ok(answer)
        })
    }

    fn poll(&mut self) -> Vec<Completion> {
        self.thread.fetch_queries();
        let signalled = self.fences.take_signalled().into_iter();
        signalled.map(Completion::Fence).collect()
    }

    /// virglrenderer's fences wait for work only.
    fn release_waits(&mut self) {}

    fn failure(&self) -> Option<String> {
        self.thread.failure().map(str::to_owned)
    }

    /// virglrenderer can be initialised once in a process.
    fn restart(&mut self) -> Result<(), RendererError> {
        match self.failure() {
            None => Ok(()),
            Some(_) => Err(RendererError::Gone),
        }
    }
}
