// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whether the worker may touch guest memory, and whether it does.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The worker may touch guest memory,
const OPEN: u32 = 1;
/// it does so now,
const INSIDE: u32 = 2;
/// somebody waits for it to have stopped,
const WAITED_FOR: u32 = 4;
/// and it shall take no further buffer, as a reset is under way.
const ENDING: u32 = 8;
/// Guest memory may have changed hands since the worker was inside last.
const DOUBTED: u32 = 16;

/// A front end opens and shuts it; the worker goes in before it reads or writes guest memory, or has a renderer do so, and
/// comes out after a batch. Closed at first.
///
/// One word, changed with two instructions a batch: it stands in the way of every command.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: AtomicU32,
    waiting: Mutex<()>,
    left: Condvar,
}

/// The worker is inside for as long as this lives.
#[derive(Debug)]
pub(crate) struct Inside<'a> {
    gate: &'a Gate,
    doubted: bool,
}

impl Inside<'_> {
    /// Whether guest memory may have changed hands since the last time: to be found out before anything else.
    pub(crate) fn is_doubted(&self) -> bool {
        self.doubted
    }

    /// It could not be found out: whoever enters next has to.
    pub(crate) fn leave_in_doubt(self) {
        self.gate.doubt();
    }
}

impl Gate {
    pub(crate) fn open(&self) {
        self.state.fetch_or(OPEN, Ordering::AcqRel);
    }

    /// Takes effect after the buffer that is being processed; [`wait_until_left`](Self::wait_until_left) waits for that.
    pub(crate) fn shut(&self) {
        self.state.fetch_and(!OPEN, Ordering::AcqRel);
    }

    /// The same where the guest takes memory away from the device (BusMaster off, D3hot): who has it afterwards is to be found
    /// out. One step, as the worker may enter at any time.
    pub(crate) fn shut_by_guest(&self) {
        let shut = |state| Some(state & !(OPEN | ENDING) | DOUBTED);
        // It always changes.
        let _ = self.change(shut);
    }

    /// Whose guest memory is has to be found out.
    pub(crate) fn doubt(&self) {
        self.state.fetch_or(DOUBTED, Ordering::AcqRel);
    }

    /// The driver handed its memory over just now.
    pub(crate) fn trust(&self) {
        self.state.fetch_and(!DOUBTED, Ordering::AcqRel);
    }

    /// No buffer is taken from here on, whatever a driver offers; answers that are owed may still be given.
    pub(crate) fn end(&self) {
        self.state.fetch_or(ENDING, Ordering::AcqRel);
    }

    /// The reset is applied: shut, until it is opened for the next driver.
    pub(crate) fn ended(&self) {
        self.state.fetch_and(!(OPEN | ENDING), Ordering::AcqRel);
    }

    pub(crate) fn may_take(&self) -> bool {
        self.state.load(Ordering::Acquire) & (OPEN | ENDING) == OPEN
    }

    /// For the worker alone, which is inside once at most. `None` where it is shut.
    pub(crate) fn enter(&self) -> Option<Inside<'_>> {
        let may = |state| (state & OPEN != 0).then_some((state | INSIDE) & !DOUBTED);
        let before = self.change(may).ok()?;
        let doubted = before & DOUBTED != 0;
        Some(Inside {
            gate: self,
            doubted,
        })
    }

    fn change(&self, to: impl FnMut(u32) -> Option<u32>) -> Result<u32, u32> {
        self.state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, to)
    }

    /// Waits until the worker is not inside. Returns whether that was reached within `limit`. Where the gate stays shut, it
    /// then does not touch guest memory until the gate is opened.
    pub(crate) fn wait_until_left(&self, limit: Duration) -> bool {
        let start = Instant::now();
        let mut guard = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if self.state.fetch_or(WAITED_FOR, Ordering::AcqRel) & INSIDE == 0 {
                self.state.fetch_and(!WAITED_FOR, Ordering::AcqRel);
                return true;
            }
            let left = limit.saturating_sub(start.elapsed());
            if left.is_zero() {
                return false;
            }
            let waited = self.left.wait_timeout(guard, left);
            guard = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let before = self.gate.state.fetch_and(!INSIDE, Ordering::AcqRel);
        if before & WAITED_FOR != 0 {
            // Whoever waits either has not looked yet, or waits by the time that this has the lock.
            let _guard = self
                .gate
                .waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            self.gate.left.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn nobody_enters_a_gate_that_is_shut_and_whoever_is_inside_is_waited_for() {
        let gate = Arc::new(Gate::default());
        assert!(gate.enter().is_none());
        gate.open();
        let inside = gate.enter().unwrap();
        gate.shut();
        assert!(!gate.wait_until_left(Duration::from_millis(10)));
        let other = Arc::clone(&gate);
        let waiter = thread::spawn(move || other.wait_until_left(LONG));
        thread::sleep(Duration::from_millis(20));
        assert!(!waiter.is_finished());
        let left = Instant::now();
        drop(inside);
        assert!(waiter.join().unwrap());
        assert!(left.elapsed() < LONG / 2, "it is waked");
        assert!(gate.enter().is_none());
    }

    #[test]
    fn a_gate_that_nobody_is_inside_of_keeps_nobody_waiting() {
        let gate = Gate::default();
        gate.open();
        drop(gate.enter());
        gate.shut();
        assert!(gate.wait_until_left(Duration::ZERO));
    }

    #[test]
    fn a_reset_lets_answers_out_and_no_buffer_in() {
        let gate = Gate::default();
        gate.open();
        gate.end();
        assert!(!gate.may_take());
        assert!(gate.enter().is_some());
        gate.ended();
        assert!(gate.enter().is_none());
        gate.open();
        assert!(gate.may_take());
    }

    #[test]
    fn whoever_enters_after_the_guest_took_memory_away_is_told_so_once() {
        let gate = Gate::default();
        let is_doubted = || gate.enter().unwrap().is_doubted();
        gate.open();
        assert!(!is_doubted());
        gate.shut();
        gate.open();
        assert!(!is_doubted(), "the VMM shut it, and the guest did not run");
        for take in [Gate::shut_by_guest, Gate::doubt] {
            take(&gate);
            gate.open();
            assert!(is_doubted());
            assert!(!is_doubted());
        }
        // It is shut while the worker is inside: it looks again when it is back.
        let inside = gate.enter().unwrap();
        gate.shut_by_guest();
        drop(inside);
        gate.open();
        gate.enter().unwrap().leave_in_doubt();
        assert!(is_doubted());
        gate.shut_by_guest();
        gate.trust();
        gate.open();
        assert!(!is_doubted());
    }

    /// What a front end does to memory after the wait must never meet the worker.
    #[test]
    fn memory_is_nobodys_after_the_wait_however_often_the_gate_turns() {
        let gate = Arc::new(Gate::default());
        let busy = Arc::new(AtomicU32::new(0));
        let (theirs, flag) = (Arc::clone(&gate), Arc::clone(&busy));
        let worker = thread::spawn(move || {
            let mut entered = 0;
            while entered < 20_000 {
                if let Some(_inside) = theirs.enter() {
                    flag.store(1, Ordering::SeqCst);
                    flag.store(0, Ordering::SeqCst);
                    entered += 1;
                } else {
                    thread::yield_now();
                }
            }
        });
        while !worker.is_finished() {
            gate.open();
            thread::yield_now();
            gate.shut();
            assert!(gate.wait_until_left(LONG));
            assert_eq!(busy.load(Ordering::SeqCst), 0);
        }
        worker.join().unwrap();
    }
}
