// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The renderer's fence numbers and the device's.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rutabaga_gfx::{RUTABAGA_FLAG_FENCE, RUTABAGA_FLAG_INFO_RING_IDX, RutabagaFence};

use virtio_gpu_s3::renderer::RendererError;
use virtio_gpu_s3::{Fence, Timeline};

/// Told that [`Renderer::poll`](virtio_gpu_s3::Renderer::poll) has something to give, on a thread of
/// virglrenderer.
pub(super) type Wake = Box<dyn Fn() + Send + Sync>;

/// How often results of queries are fetched while somebody waits for fences: virglrenderer signals none before.
const QUERY_INTERVAL: Duration = Duration::from_millis(1);
/// As Linux numbers it everywhere.
const EBUSY: i32 = 16;

/// Fences that virglrenderer has not signalled, and those it has.
///
/// virglrenderer numbers global fences with 32 bits, of which rutabaga hands on no more, and has
/// one ring a context of virgl. So both get numbers of our own, and every ring of such a context is
/// its ring 0: all that it does is one OpenGL queue, in order. A context of venus has rings of its
/// own, one for each Vulkan queue.
///
/// Never locked while virglrenderer is called: it may signal from within the call.
pub(super) struct FenceTable {
    state: Mutex<State>,
    idle: Condvar,
    wake: Wake,
}

#[derive(Debug, Default)]
struct State {
    last_global: u32,
    global: VecDeque<(u32, Fence)>,
    /// Never starts anew, so that a late signal for a context that is gone means nothing to one
    /// with the same id.
    last_of_contexts: u64,
    /// By context and ring.
    contexts: BTreeMap<(u32, u8), VecDeque<(u64, Fence)>>,
    signalled: Vec<Fence>,
}

impl fmt::Debug for FenceTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FenceTable")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl FenceTable {
    pub(super) fn new(wake: Wake) -> Self {
        Self {
            state: Mutex::default(),
            idle: Condvar::new(),
            wake,
        }
    }

    /// Nothing panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Books `fence` as outstanding; what to give virglrenderer for it. `rings`: the context has
    /// rings of its own.
    pub(super) fn begin(&self, fence: Fence, rings: bool) -> RutabagaFence {
        let mut state = self.lock();
        match fence.timeline {
            Timeline::Global => {
                state.last_global = state.last_global.wrapping_add(1);
                let id = state.last_global;
                state.global.push_back((id, fence));
                global(id)
            }
            Timeline::Ring { ctx_id, ring_idx } => {
                let ring_idx = if rings { ring_idx } else { 0 };
                state.last_of_contexts = state.last_of_contexts.wrapping_add(1);
                let id = state.last_of_contexts;
                state
                    .contexts
                    .entry((ctx_id, ring_idx))
                    .or_default()
                    .push_back((id, fence));
                of_context(ctx_id, ring_idx, id)
            }
        }
    }

    /// The newest fence of this timeline could not be created: it signals with the one before.
    pub(super) fn failed(&self, fence: &RutabagaFence) {
        let mut state = self.lock();
        if fence.flags & RUTABAGA_FLAG_INFO_RING_IDX == 0 {
            let done = join_predecessor(&mut state.global);
            state.signalled.extend(done);
        } else if let Some(queue) = state.contexts.get_mut(&ring_of(fence)) {
            let done = join_predecessor(queue);
            state.signalled.extend(done);
        }
        self.tell(state);
    }

    /// virglrenderer signals `fence`, and every earlier one of its timeline with it.
    pub(super) fn signal(&self, fence: &RutabagaFence) {
        let mut state = self.lock();
        if fence.flags & RUTABAGA_FLAG_INFO_RING_IDX == 0 {
            let is_it = |(id, _): &(u32, Fence)| u64::from(*id) == fence.fence_id;
            // The last, as one that failed has the number of the one before.
            if let Some(at) = state.global.iter().rposition(is_it) {
                let done = state.global.drain(..=at).map(|(_, fence)| fence);
                let done: Vec<_> = done.collect();
                state.signalled.extend(done);
            }
        } else if let Some(queue) = state.contexts.get_mut(&ring_of(fence)) {
            let count = queue.partition_point(|(id, _)| *id <= fence.fence_id);
            let done: Vec<_> = queue.drain(..count).map(|(_, fence)| fence).collect();
            if queue.is_empty() {
                state.contexts.remove(&ring_of(fence));
            }
            state.signalled.extend(done);
        }
        self.tell(state);
    }

    /// Waits for everything outstanding, of every context, so that `what` can be done. `poll` fetches results of queries.
    ///
    /// # Errors
    /// It takes longer than `limit`.
    pub(super) fn drain(
        &self,
        limit: Duration,
        what: &'static str,
        poll: impl Fn(),
    ) -> Result<(), RendererError> {
        let start = Instant::now();
        while !self.wait_idle(QUERY_INTERVAL) {
            if start.elapsed() > limit {
                return Err(RendererError::refused(what, EBUSY));
            }
            poll();
        }
        Ok(())
    }

    /// A context is gone: what waited for it is over.
    pub(super) fn end_context(&self, ctx_id: u32) {
        let mut state = self.lock();
        let rings = (ctx_id, 0)..=(ctx_id, u8::MAX);
        let rings: Vec<_> = state.contexts.range(rings).map(|(ring, _)| *ring).collect();
        for ring in rings {
            let over = state.contexts.remove(&ring).unwrap_or_default();
            let over = over.into_iter().map(|(_, fence)| fence);
            state.signalled.extend(over);
        }
        self.tell(state);
    }

    /// Fences that signalled since the last call.
    pub(super) fn take_signalled(&self) -> Vec<Fence> {
        mem::take(&mut self.lock().signalled)
    }

    /// Has the device look, for another reason than fences.
    pub(super) fn wake(&self) {
        (self.wake)();
    }

    /// Waits so long for the end of everything outstanding. True if that is reached.
    pub(super) fn wait_idle(&self, limit: Duration) -> bool {
        let state = self.lock();
        let result = self
            .idle
            .wait_timeout_while(state, limit, |state| !state.is_idle());
        result.is_ok_and(|(state, _)| state.is_idle())
    }

    fn tell(&self, state: MutexGuard<'_, State>) {
        let (news, idle) = (!state.signalled.is_empty(), state.is_idle());
        drop(state);
        if idle {
            self.idle.notify_all();
        }
        if news {
            (self.wake)();
        }
    }
}

impl State {
    fn is_idle(&self) -> bool {
        self.global.is_empty() && self.contexts.is_empty()
    }
}

/// Gives the last of `queue` the number of the one before it, or takes it out if it is alone.
fn join_predecessor<N: Copy>(queue: &mut VecDeque<(N, Fence)>) -> Option<Fence> {
    let (_, fence) = queue.pop_back()?;
    let Some(&(number, _)) = queue.back() else {
        return Some(fence);
    };
    queue.push_back((number, fence));
    None
}

fn global(id: u32) -> RutabagaFence {
    RutabagaFence {
        flags: RUTABAGA_FLAG_FENCE,
        fence_id: id.into(),
        ctx_id: 0,
        ring_idx: 0,
    }
}

fn ring_of(fence: &RutabagaFence) -> (u32, u8) {
    (fence.ctx_id, fence.ring_idx)
}

fn of_context(ctx_id: u32, ring_idx: u8, fence_id: u64) -> RutabagaFence {
    RutabagaFence {
        flags: RUTABAGA_FLAG_FENCE | RUTABAGA_FLAG_INFO_RING_IDX,
        fence_id,
        ctx_id,
        ring_idx,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const fn ring(ring_idx: u8, id: u64) -> Fence {
        let timeline = Timeline::Ring {
            ctx_id: 7,
            ring_idx,
        };
        Fence { timeline, id }
    }

    const fn on_global(id: u64) -> Fence {
        let timeline = Timeline::Global;
        Fence { timeline, id }
    }

    fn table() -> (FenceTable, Arc<AtomicUsize>) {
        let woken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&woken);
        let wake = move || {
            count.fetch_add(1, Ordering::Relaxed);
        };
        (FenceTable::new(Box::new(wake)), woken)
    }

    #[test]
    fn a_fence_number_beyond_32_bits_comes_back_whole() {
        // rutabaga cuts the number of a global fence to 32 bits: 2^32 + 5 completes as 5.
        let (table, woken) = table();
        for number in [5, (1 << 32) + 5, u64::MAX] {
            let given = table.begin(on_global(number), false);
            assert!(given.fence_id <= u64::from(u32::MAX));
            table.signal(&given);
            assert_eq!(table.take_signalled(), [on_global(number)]);
        }
        assert_eq!(woken.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn global_numbers_wrap_and_keep_their_order() {
        let (table, _) = table();
        table.lock().last_global = u32::MAX - 1;
        let given: Vec<_> = (1..=4)
            .map(|id| table.begin(on_global(id), false))
            .collect();
        table.signal(&given[2]);
        assert_eq!(table.take_signalled(), [1, 2, 3].map(on_global));
        table.signal(&given[2]);
        table.signal(&given[0]);
        assert_eq!(table.take_signalled(), []);
        table.signal(&given[3]);
        assert_eq!(table.take_signalled(), [on_global(4)]);
    }

    #[test]
    fn every_ring_of_a_context_is_its_one_queue() {
        let (table, _) = table();
        table.begin(ring(0, 1), false);
        let given = table.begin(ring(63, 1), false);
        assert_eq!(given.ring_idx, 0);
        table.begin(ring(5, 1), false);
        table.signal(&given);
        assert_eq!(table.take_signalled(), [ring(0, 1), ring(63, 1)]);
        assert!(!table.wait_idle(Duration::ZERO));
        table.end_context(7);
        assert_eq!(table.take_signalled(), [ring(5, 1)]);
        assert!(table.wait_idle(Duration::ZERO));
    }

    #[test]
    fn the_rings_of_a_context_of_venus_signal_each_for_itself() {
        let (table, _) = table();
        let first = table.begin(ring(1, 1), true);
        let second = table.begin(ring(2, 1), true);
        assert_eq!((first.ring_idx, second.ring_idx), (1, 2));
        table.signal(&second);
        assert_eq!(table.take_signalled(), [ring(2, 1)]);
        table.end_context(6);
        assert_eq!(table.take_signalled(), []);
        table.end_context(7);
        assert_eq!(table.take_signalled(), [ring(1, 1)]);
        assert!(table.wait_idle(Duration::ZERO));
    }

    #[test]
    fn a_late_signal_of_an_ended_context_means_nothing_to_its_successor() {
        let (table, _) = table();
        let late = table.begin(ring(0, 1), false);
        table.end_context(7);
        table.begin(ring(0, 2), false);
        table.take_signalled();
        table.signal(&late);
        assert_eq!(table.take_signalled(), []);
    }

    #[test]
    fn a_fence_that_failed_signals_with_the_one_before_and_not_earlier() {
        let (table, _) = table();
        let first = table.begin(on_global(1), false);
        let second = table.begin(on_global(2), false);
        table.failed(&second);
        assert_eq!(table.take_signalled(), []);
        table.signal(&first);
        assert_eq!(table.take_signalled(), [on_global(1), on_global(2)]);
        let alone = table.begin(ring(0, 3), false);
        table.failed(&alone);
        assert_eq!(table.take_signalled(), [ring(0, 3)]);
    }
}
