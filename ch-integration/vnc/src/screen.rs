// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The thread that pulls the picture for all viewers, while one waits for it.
//!
//! It has one thing under way with the worker at a time, so that no number of viewers fills the worker's queue. Nobody is
//! told of a flush: who wants to know looks, at a screen's pace as long as something moves, and rarely where nothing
//! does. Without a viewer that waits it does nothing.

use std::collections::BTreeMap;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{
    Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
};
use std::time::{Duration, Instant};

use host_util::log_source::VIEWER;
use virtio_gpu_worker::{Controlled, OutputSize};

use crate::desktop::Desktop;
use crate::limits::MAX_VIEWERS;
use crate::message::Screen as Wanted;
use crate::pull::{Progress, Pulled, pull};
use crate::wake::Wake;

/// Between two looks while something moves: that of a screen that shows sixty a second.
const FRAME: Duration = Duration::from_millis(16);
/// The longest time between two looks where nothing does.
const IDLE: Duration = Duration::from_millis(100);
/// How long nothing has to move before looks become rare.
const LIVELY: Duration = Duration::from_secs(1);
/// How long a busy worker is waited for before it is looked whether anybody still wants to know.
const BUSY: Duration = Duration::from_secs(1);

/// What viewers share.
#[derive(Debug)]
pub(crate) struct Screen {
    device: Arc<dyn Controlled>,
    desktop: RwLock<Desktop>,
    state: Mutex<State>,
    asked: Condvar,
}

#[derive(Debug, Default)]
struct State {
    viewers: BTreeMap<u64, Waiter>,
    next: u64,
    /// The desktop's change that was told to those who waited.
    told: u64,
    /// The newest layout that a viewer wished for.
    wish: Option<Vec<Wanted>>,
    /// Whether a viewer did something that may show soon.
    poked: bool,
    /// The worker is gone, and nothing will change any more.
    ended: bool,
}

#[derive(Debug)]
struct Waiter {
    wake: Arc<Wake>,
    waits: bool,
}

impl Screen {
    pub(crate) fn new(device: Arc<dyn Controlled>) -> Self {
        Self {
            device,
            desktop: RwLock::default(),
            state: Mutex::default(),
            asked: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn desktop(&self) -> RwLockReadGuard<'_, Desktop> {
        self.desktop.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn desktop_mut(&self) -> RwLockWriteGuard<'_, Desktop> {
        self.desktop.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a viewer in, which is told through `wake`; `None` if there are too many.
    pub(crate) fn join(&self, wake: Arc<Wake>) -> Option<u64> {
        let mut state = self.lock();
        if state.viewers.len() >= MAX_VIEWERS || state.ended {
            return None;
        }
        let number = state.next;
        state.next = state.next.saturating_add(1);
        let waits = false;
        state.viewers.insert(number, Waiter { wake, waits });
        Some(number)
    }

    pub(crate) fn leave(&self, viewer: u64) {
        self.lock().viewers.remove(&viewer);
    }

    /// Whether nothing will change any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.lock().ended
    }

    /// Has a viewer told of the next change behind this one. Returns false if there is one already.
    pub(crate) fn wait_for(&self, viewer: u64, change: u64) -> bool {
        let mut state = self.lock();
        if state.told > change {
            return false;
        }
        if let Some(waiter) = state.viewers.get_mut(&viewer) {
            waiter.waits = true;
        }
        self.asked.notify_one();
        true
    }

    /// A viewer did something that may show soon.
    pub(crate) fn poke(&self) {
        self.lock().poked = true;
        self.asked.notify_one();
    }

    /// A viewer wants outputs of other sizes; the newest wish counts.
    pub(crate) fn wish(&self, layout: Vec<Wanted>) {
        self.lock().wish = Some(layout);
        self.asked.notify_one();
    }

    /// Pulls for as long as the worker is there.
    pub(crate) fn run(&self) {
        let mut progress = Progress::default();
        let mut moved = Instant::now();
        loop {
            if let Some(layout) = self.wait_until_wanted() {
                self.resize(&layout);
            }
            let start = Instant::now();
            let Some(pulled) = self.pull(&mut progress) else {
                break;
            };
            if !pulled.is_nothing() {
                let mut desktop = self.desktop_mut();
                let changed = pulled.apply(&mut desktop);
                let change = desktop.change();
                drop(desktop);
                if changed {
                    moved = Instant::now();
                    self.tell(change);
                }
            }
            self.pause(start, &mut moved);
        }
        VIEWER.debug(format_args!(
            "The picture for viewers has ended with the device"
        ));
        let mut state = self.lock();
        state.ended = true;
        for viewer in state.viewers.values() {
            viewer.wake.wake();
        }
    }

    fn wait_until_wanted(&self) -> Option<Vec<Wanted>> {
        let idle = |state: &mut State| {
            state.wish.is_none() && !state.viewers.values().any(|viewer| viewer.waits)
        };
        let waited = self.asked.wait_while(self.lock(), idle);
        waited.unwrap_or_else(PoisonError::into_inner).wish.take()
    }

    fn tell(&self, change: u64) {
        let mut state = self.lock();
        state.told = change;
        for viewer in state.viewers.values_mut().filter(|viewer| viewer.waits) {
            viewer.waits = false;
            viewer.wake.wake();
        }
    }

    /// Waits until the next look is due.
    fn pause(&self, start: Instant, moved: &mut Instant) {
        let mut state = self.lock();
        loop {
            if state.poked {
                state.poked = false;
                *moved = Instant::now();
            }
            let between = if moved.elapsed() < LIVELY {
                FRAME
            } else {
                IDLE
            };
            let left = between.saturating_sub(start.elapsed());
            if left.is_zero() {
                return;
            }
            let waited = self.asked.wait_timeout(state, left);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// `None` where the worker is gone. One that is busy is waited for: there is one question under way, ever.
    fn pull(&self, progress: &mut Progress) -> Option<Pulled> {
        let (reply, answer) = sync_channel(1);
        let mut theirs = progress.take();
        self.device.run(Box::new(move |access| {
            let pulled = pull(access, &mut theirs);
            // Whoever asked waits for it.
            drop(reply.send((pulled, theirs)));
        }));
        loop {
            match answer.recv_timeout(BUSY) {
                Ok((pulled, theirs)) => {
                    *progress = theirs;
                    return Some(pulled);
                }
                Err(RecvTimeoutError::Timeout) => {
                    VIEWER.debug(format_args!("The device is busy, and shows nothing"));
                }
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// The guest does as it likes with it, and one that has no such size is left as it is. Only what is an output is asked
    /// for, once each: a viewer can list more than the worker's queue has room for.
    fn resize(&self, layout: &[Wanted]) {
        let outputs = self.desktop().screens();
        for output in outputs {
            let wanted = layout.iter().find(|it| it.id == output.id);
            let Some(Wanted { id, area }) = wanted else {
                continue;
            };
            let size = OutputSize {
                width: area.width.into(),
                height: area.height.into(),
            };
            if let Err(error) = self.device.resize(*id, size) {
                VIEWER.debug(format_args!(
                    "A viewer wants an output of another size: {error}"
                ));
            }
        }
    }
}
