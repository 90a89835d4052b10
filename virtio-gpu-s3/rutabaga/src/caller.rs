// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! rutabaga on the thread that started it, for a device that has a thread to itself: handing a
//! command to another thread and back takes longer than most commands.

use std::cell::RefCell;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use super::engine::Engine;
use super::panics::message_of;
use virtio_gpu_s3::renderer::RendererError;

/// rutabaga, for the thread that made it. Others may have it, and cannot use it.
pub(super) struct Caller {
    home: ThreadId,
    /// `None` after a panic.
    engine: RefCell<Option<Engine>>,
}

// SAFETY: moving the value touches nothing inside. Every method that does looks first whether it
// runs on the thread that made the value, and so does the end of it.
unsafe impl Send for Caller {}

impl Caller {
    pub(super) fn new(engine: Engine) -> Self {
        Self {
            home: thread::current().id(),
            engine: RefCell::new(Some(engine)),
        }
    }

    fn is_home(&self) -> bool {
        thread::current().id() == self.home
    }

    /// Does `job` at once. `panicked` hears why it panicked, and that nothing can follow it.
    pub(super) fn call<T>(
        &self,
        job: impl FnOnce(&mut Engine) -> T,
        panicked: impl FnOnce(String),
    ) -> Result<T, RendererError> {
        if !self.is_home() {
            return Err(RendererError::Gone);
        }
        let mut slot = self.engine.try_borrow_mut();
        let slot = slot.as_deref_mut().map_err(|_| RendererError::Gone)?;
        let engine = slot.as_mut().ok_or(RendererError::Gone)?;
        match catch_unwind(AssertUnwindSafe(|| job(engine))) {
            Ok(value) => Ok(value),
            Err(panic) => {
                // Half a call may have been made, so none can follow, not even those that end
                // things.
                mem::forget(slot.take());
                panicked(message_of(panic.as_ref()));
                Err(RendererError::Gone)
            }
        }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let engine = self.engine.get_mut().take();
        if self.is_home() {
            if let Some(engine) = engine {
                engine.finish();
            }
        } else {
            // OpenGL is this other thread's for ever; the process cannot have a second renderer
            // anyway.
            mem::forget(engine);
        }
    }
}

/// Whether results of queries wait to be fetched on the renderer's thread.
#[derive(Debug, Default)]
pub(super) struct Queries {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    due: bool,
    ended: bool,
}

impl Queries {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// They wait. `tell` has the renderer's thread look, which this waits for. False at the end.
    pub(super) fn wait_until_fetched(&self, tell: impl FnOnce()) -> bool {
        self.lock().due = true;
        tell();
        let waiting = |state: &mut State| state.due && !state.ended;
        let state = self.changed.wait_while(self.lock(), waiting);
        !state.unwrap_or_else(PoisonError::into_inner).ended
    }

    /// Whether they waited: the caller fetches them, and then says so with [`fetched`](Self::fetched).
    pub(super) fn are_due(&self) -> bool {
        self.lock().due
    }

    pub(super) fn fetched(&self) {
        self.lock().due = false;
        self.changed.notify_all();
    }

    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn who_waits_for_queries_goes_on_when_they_are_fetched_and_at_the_end() {
        let queries = Arc::new(Queries::default());
        let other = Arc::clone(&queries);
        let watcher = thread::spawn(move || {
            let rounds = (0..).take_while(|_| other.wait_until_fetched(|| {}));
            rounds.count()
        });
        for _ in 0..3 {
            while !queries.are_due() {
                thread::yield_now();
            }
            queries.fetched();
        }
        while !queries.are_due() {
            thread::yield_now();
        }
        queries.end();
        assert_eq!(watcher.join().unwrap(), 3);
    }
}
