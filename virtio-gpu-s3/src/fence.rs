// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Commands whose answer waits, in the order of their timeline (VIRTIO 1.4 §5.7.6.7).
//!
//! Linux takes an answered fence as the end of every earlier one on its timeline. So a fenced
//! command that is done at once still waits behind one that is not.

use std::collections::{BTreeMap, VecDeque};
use std::mem;

use crate::protocol::ResponseType;
use crate::response::Response;

/// The order that a fence belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Timeline {
    /// Fences without `VIRTIO_GPU_FLAG_INFO_RING_IDX`.
    Global,
    /// Fences on a ring of a context.
    Ring {
        /// The context.
        ctx_id: u32,
        /// The ring, 0 to 63.
        ring_idx: u8,
    },
}

/// A fence as the renderer knows it.
///
/// The numbers are this device's own, from 1 up, and none is ever used twice, so that a late signal
/// for a context that is gone means nothing to its successor. (The guest's numbers may use all 64
/// bits, which virglrenderer does not.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Fence {
    /// Its timeline.
    pub timeline: Timeline,
    /// Its place on it.
    pub id: u64,
}

/// Stands for a request whose answer comes later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(u64);

/// A request that is now answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completed {
    /// What [`Outcome::Deferred`](crate::Outcome::Deferred) gave.
    pub token: Token,
    /// What to write to the guest.
    pub response: Response,
}

#[derive(Debug)]
struct Pending {
    token: Token,
    /// `None`: done, and only waiting for its turn.
    fence: Option<u64>,
    response: Response,
}

#[derive(Debug, Default)]
pub(crate) struct Fences {
    waiting: BTreeMap<Timeline, VecDeque<Pending>>,
    last_fence: u64,
    ready: VecDeque<Completed>,
    last_token: u64,
}

impl Fences {
    /// Fences not yet answered, ready ones included.
    pub(crate) fn len(&self) -> usize {
        let waiting = self.waiting.values().map(VecDeque::len);
        waiting.fold(self.ready.len(), usize::saturating_add)
    }

    /// True if a command on `timeline` waits.
    pub(crate) fn is_busy(&self, timeline: Timeline) -> bool {
        self.waiting.contains_key(&timeline)
    }

    /// Timelines with commands that wait, and how many.
    pub(crate) fn waiting(&self) -> Vec<(Timeline, usize)> {
        let lengths = self.waiting.iter();
        lengths.map(|(line, queue)| (*line, queue.len())).collect()
    }

    /// The next fence for the renderer to create on `timeline`.
    pub(crate) fn next(&mut self, timeline: Timeline) -> Fence {
        self.last_fence = self.last_fence.saturating_add(1);
        Fence {
            timeline,
            id: self.last_fence,
        }
    }

    /// Keeps an answer until `fence` signals, or if `None`, until those before it are answered.
    pub(crate) fn defer(
        &mut self,
        timeline: Timeline,
        fence: Option<Fence>,
        response: Response,
    ) -> Token {
        self.last_token = self.last_token.saturating_add(1);
        let token = Token(self.last_token);
        self.waiting
            .entry(timeline)
            .or_default()
            .push_back(Pending {
                token,
                fence: fence.map(|fence| fence.id),
                response,
            });
        token
    }

    /// Answers everything on the timeline up to `fence`.
    pub(crate) fn signal(&mut self, fence: Fence) {
        let Some(queue) = self.waiting.get_mut(&fence.timeline) else {
            return;
        };
        let due = |pending: &Pending| pending.fence.is_none_or(|id| id <= fence.id);
        while queue.front().is_some_and(due)
            && let Some(pending) = queue.pop_front()
        {
            self.ready.push_back(Completed {
                token: pending.token,
                response: pending.response,
            });
        }
        if queue.is_empty() {
            self.waiting.remove(&fence.timeline);
        }
    }

    /// Answers everything on the rings of a context that is gone.
    pub(crate) fn finish_context(&mut self, gone: u32) {
        let on_it =
            |line: &Timeline| matches!(line, Timeline::Ring { ctx_id, .. } if *ctx_id == gone);
        let lines: Vec<_> = self.waiting.keys().copied().filter(on_it).collect();
        for timeline in lines {
            self.signal(Fence {
                timeline,
                id: u64::MAX,
            });
        }
    }

    /// Answers everything: what waited for a fence with an error, as its work is lost.
    pub(crate) fn fail(&mut self) {
        for pending in mem::take(&mut self.waiting).into_values().flatten() {
            let Pending {
                token,
                fence,
                mut response,
            } = pending;
            if fence.is_some() {
                response.fail(ResponseType::ERR_UNSPEC);
            }
            self.ready.push_back(Completed { token, response });
        }
    }

    /// Forgets every answer that is due. Numbers go on, so a late signal means nothing.
    pub(crate) fn abandon(&mut self) {
        self.waiting.clear();
        self.ready.clear();
    }

    pub(crate) fn drain_ready(&mut self) -> impl Iterator<Item = Completed> + '_ {
        self.ready.drain(..)
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;
    use crate::protocol::wire;

    const RING: Timeline = Timeline::Ring {
        ctx_id: 1,
        ring_idx: 2,
    };

    fn completed(fences: &mut Fences) -> Vec<Token> {
        fences.drain_ready().map(|done| done.token).collect()
    }

    #[test]
    fn a_signal_answers_every_earlier_fence_of_its_timeline_and_no_other() {
        let mut fences = Fences::default();
        let mut defer = |timeline| {
            let fence = fences.next(timeline);
            (
                fence,
                fences.defer(timeline, Some(fence), Response::new(24)),
            )
        };
        let (_, first) = defer(RING);
        let (second_fence, second) = defer(RING);
        let (_, third) = defer(RING);
        let (other_fence, other) = defer(Timeline::Global);
        fences.signal(second_fence);
        assert_eq!(completed(&mut fences), [first, second]);
        assert!(fences.is_busy(RING));
        fences.signal(other_fence);
        assert_eq!(completed(&mut fences), [other]);
        fences.signal(Fence {
            timeline: RING,
            id: 9,
        });
        assert_eq!(completed(&mut fences), [third]);
        assert_eq!(fences.len(), 0);
    }

    #[test]
    fn a_command_done_at_once_waits_behind_an_unfinished_one() {
        let mut fences = Fences::default();
        let fence = fences.next(RING);
        let first = fences.defer(RING, Some(fence), Response::new(24));
        let second = fences.defer(RING, None, Response::new(24));
        assert_eq!(completed(&mut fences), []);
        fences.signal(fence);
        assert_eq!(completed(&mut fences), [first, second]);
    }

    #[test]
    fn a_renderer_that_is_gone_fails_what_waited_for_it_and_nothing_else() {
        let mut fences = Fences::default();
        let ok = || {
            let mut response = Response::new(24);
            let mut header = wire::CtrlHdr::new_zeroed();
            header.type_ = ResponseType::OK_NODATA.0.into();
            header.fence_id = 7.into();
            response.set(&header, &[]);
            response
        };
        let fence = fences.next(RING);
        let lost = fences.defer(RING, Some(fence), ok());
        let done = fences.defer(RING, None, ok());
        fences.fail();
        assert!(!fences.is_busy(RING));
        let ready: Vec<_> = fences.drain_ready().collect();
        assert_eq!((ready[0].token, ready[1].token), (lost, done));
        assert_eq!(ready[0].response.bytes()[..2], [0x00, 0x12]);
        assert_eq!(ready[0].response.bytes()[8], 7);
        assert_eq!(ready[1].response, ok());
    }

    #[test]
    fn a_signal_for_nothing_is_ignored() {
        let mut fences = Fences::default();
        fences.signal(Fence {
            timeline: RING,
            id: u64::MAX,
        });
        assert_eq!(fences.len(), 0);
    }
}
