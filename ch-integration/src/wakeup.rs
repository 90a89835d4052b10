// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a renderer's thread wakes the worker.

use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::requests::{Request, Requests};
use crate::worker::Frontend;

/// Whether fences have signalled that the worker has not looked for: one flag, so that no number of fences grows
/// anything.
#[derive(Debug, Default)]
pub(crate) struct Wakeup {
    pending: Mutex<bool>,
    woken: Condvar,
}

impl Wakeup {
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the worker, whether it sleeps or waits for fences. Called from the renderer's threads; waits for nobody.
    pub(crate) fn wake<F: Frontend>(&self, requests: &Requests<F>) {
        let before = mem::replace(&mut *self.lock(), true);
        self.woken.notify_all();
        if !before {
            // The worker ends with the device; its renderer may outlive it by a fence.
            requests.send(Request::FencesSignalled);
        }
    }

    /// The worker looks now.
    pub(crate) fn take(&self) {
        *self.lock() = false;
    }

    /// Waits for a wake that nobody took yet, at most so long.
    pub(crate) fn wait(&self, limit: Duration) {
        let waited = self
            .woken
            .wait_timeout_while(self.lock(), limit, |pending| !*pending);
        drop(waited);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::requests::{Doorbells, Inbox, Next};
    use crate::shared::Shared;

    fn count(inbox: &mut Inbox<Shared>) -> usize {
        let doorbells = Doorbells::default();
        let mut count = 0;
        while let Next::Request(_) = inbox.next(true, &doorbells) {
            count += 1;
        }
        count
    }

    #[test]
    fn many_wakes_are_one_request_until_the_worker_looks() {
        let wakeup = Wakeup::default();
        let (requests, mut inbox) = Inbox::new();
        wakeup.wake(&requests);
        wakeup.wake(&requests);
        assert_eq!(count(&mut inbox), 1);
        let start = Instant::now();
        wakeup.wait(Duration::from_secs(60));
        assert!(start.elapsed() < Duration::from_secs(30));
        wakeup.take();
        wakeup.wake(&requests);
        assert_eq!(count(&mut inbox), 1);
    }
}
