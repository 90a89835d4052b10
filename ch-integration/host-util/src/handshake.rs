// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How one who falls asleep and one who has news for him miss each other never.
//!
//! The sleeper says in a word that he falls asleep, and then looks a last time. Whoever has news puts it where it is looked
//! for, and then looks at the word. One of the two sees the other, as there is a fence between the two steps of both:
//! without it a processor may let the second overtake the first. The tests go through every order in which that can
//! happen, as the memory model has it.

use std::sync::atomic::{AtomicU32, Ordering, fence};

/// The word: 0 while its owner is awake.
pub trait Word {
    /// As [`AtomicU32::load`].
    fn load(&self, order: Ordering) -> u32;
    /// As [`AtomicU32::store`].
    fn store(&self, value: u32, order: Ordering);
    /// As [`AtomicU32::swap`].
    fn swap(&self, value: u32, order: Ordering) -> u32;
    /// As [`fence`].
    fn fence(order: Ordering);
}

impl Word for AtomicU32 {
    fn load(&self, order: Ordering) -> u32 {
        self.load(order)
    }

    fn store(&self, value: u32, order: Ordering) {
        self.store(value, order);
    }

    fn swap(&self, value: u32, order: Ordering) -> u32 {
        self.swap(value, order)
    }

    fn fence(order: Ordering) {
        fence(order);
    }
}

/// The owner wants to be waked from now on. What he looks at after this he must look at before he sleeps.
pub fn fall_asleep(word: &impl Word) {
    word.store(1, Ordering::Relaxed);
    order(word);
}

/// The owner looks by himself from now on.
pub fn wake_up(word: &impl Word) {
    word.store(0, Ordering::Relaxed);
}

/// There is news, where it is looked for. Returns whether the owner has to be waked: once, however often there is.
pub fn must_wake(word: &impl Word) -> bool {
    order(word);
    must_wake_too(word)
}

/// The same of a second word for the same news.
pub fn must_wake_too(word: &impl Word) -> bool {
    word.load(Ordering::Relaxed) != 0 && word.swap(0, Ordering::Relaxed) != 0
}

fn order<W: Word>(_: &W) {
    W::fence(Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use loom::sync::Arc;
    use loom::sync::atomic::{self, AtomicU32};
    use loom::thread;

    use super::*;

    impl Word for AtomicU32 {
        fn load(&self, order: Ordering) -> u32 {
            self.load(order)
        }

        fn store(&self, value: u32, order: Ordering) {
            self.store(value, order);
        }

        fn swap(&self, value: u32, order: Ordering) -> u32 {
            self.swap(value, order)
        }

        fn fence(order: Ordering) {
            atomic::fence(order);
        }
    }

    #[derive(Default)]
    struct Shared {
        put: AtomicU32,
        asleep: AtomicU32,
        also_asleep: AtomicU32,
        wakes: AtomicU32,
    }

    impl Shared {
        fn put(&self, number: u32) {
            self.put.store(number, Ordering::Release);
            if must_wake(&self.asleep) {
                self.wakes.fetch_add(1, Ordering::Release);
            }
        }

        /// Whether it sleeps, with `taken` of what was put.
        fn sleeps(&self, taken: u32) -> bool {
            fall_asleep(&self.asleep);
            if self.put.load(Ordering::Relaxed) == taken {
                return true;
            }
            wake_up(&self.asleep);
            false
        }
    }

    #[test]
    fn who_sleeps_is_waked_or_saw_the_news_in_every_order_there_is() {
        loom::model(|| {
            let shared = Arc::new(Shared::default());
            let theirs = Arc::clone(&shared);
            let writer = thread::spawn(move || theirs.put(1));
            let sleeps = shared.sleeps(0);
            writer.join().unwrap();
            let wakes = shared.wakes.load(Ordering::Acquire);
            assert!(!sleeps || wakes == 1, "asleep for ever");
        });
    }

    #[test]
    fn two_writers_wake_a_sleeper_once() {
        loom::model(|| {
            let shared = Arc::new(Shared::default());
            fall_asleep(&shared.asleep);
            let theirs = Arc::clone(&shared);
            let other = thread::spawn(move || theirs.put(1));
            shared.put(2);
            other.join().unwrap();
            assert_eq!(shared.wakes.load(Ordering::Acquire), 1);
        });
    }

    #[test]
    fn one_fence_is_enough_for_two_words() {
        loom::model(|| {
            let shared = Arc::new(Shared::default());
            let theirs = Arc::clone(&shared);
            let writer = thread::spawn(move || {
                theirs.put.store(1, Ordering::Release);
                let first = must_wake(&theirs.asleep);
                (first, must_wake_too(&theirs.also_asleep))
            });
            fall_asleep(&shared.also_asleep);
            let sleeps = shared.put.load(Ordering::Relaxed) == 0;
            let (_, second) = writer.join().unwrap();
            assert!(!sleeps || second, "asleep for ever");
        });
    }
}
