// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Commands whose answer waits, in the order of their timeline (VIRTIO 1.4 §5.7.6.7).
//!
//! Linux takes an answered fence as the end of every earlier one on its timeline. So a fenced
//! command that is done at once still waits behind one that is not. A command without a fence waits
//! for nothing but the renderer's answer to its call.

use std::collections::{BTreeMap, VecDeque};
use std::mem;

use crate::protocol::ResponseType;
use crate::renderer::Ticket;
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

impl Token {
    /// What the request's call to the renderer is begun with.
    pub(crate) const fn ticket(self) -> Ticket {
        Ticket(self.0)
    }
}

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
    /// The renderer has not answered the command's call.
    in_flight: bool,
    /// `None`: it has signalled, or there is none.
    fence: Option<u64>,
    response: Response,
}

impl Pending {
    fn is_done(&self) -> bool {
        !self.in_flight && self.fence.is_none()
    }

    fn completed(self) -> Completed {
        Completed {
            token: self.token,
            response: self.response,
        }
    }

    /// The work is lost, if there was any.
    fn failed(mut self) -> Completed {
        if !self.is_done() {
            self.response.fail(ResponseType::ERR_UNSPEC);
        }
        self.completed()
    }
}

/// Where the command of a call in flight waits.
#[derive(Debug)]
enum Place {
    /// On a timeline, where it is the first whose call is in flight.
    Timeline(Timeline),
    /// In no order.
    Alone(Pending),
}

/// Why an answer is not given at once.
#[derive(Debug)]
pub(crate) struct Deferral {
    /// The token that was [made](Fences::token) for the command.
    pub(crate) token: Token,
    /// Where it has its turn, if it is fenced.
    pub(crate) timeline: Option<Timeline>,
    /// The renderer's fence that it waits for.
    pub(crate) fence: Option<Fence>,
    /// Whether its call is in flight, under the token's [ticket](Token::ticket).
    pub(crate) in_flight: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Fences {
    waiting: BTreeMap<Timeline, VecDeque<Pending>>,
    /// Calls in flight, in the order in which they are answered.
    calls: VecDeque<(Ticket, Place)>,
    last_fence: u64,
    ready: VecDeque<Completed>,
    last_token: u64,
    /// All that wait and are ready.
    count: usize,
}

impl Fences {
    /// Commands not yet answered, ready ones included.
    pub(crate) fn len(&self) -> usize {
        self.count
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

    /// A token for a command that may have to be deferred.
    pub(crate) fn token(&mut self) -> Token {
        self.last_token = self.last_token.saturating_add(1);
        Token(self.last_token)
    }

    /// Keeps an answer until its call is answered, its fence has signalled, and those before it on its timeline are
    /// answered.
    pub(crate) fn defer(&mut self, deferral: &Deferral, response: Response) {
        let Deferral {
            token,
            timeline,
            fence,
            in_flight,
        } = *deferral;
        self.count = self.count.saturating_add(1);
        let pending = Pending {
            token,
            in_flight,
            fence: fence.map(|fence| fence.id),
            response,
        };
        let place = match timeline {
            Some(timeline) => {
                let queue = self.waiting.entry(timeline).or_default();
                queue.push_back(pending);
                Place::Timeline(timeline)
            }
            None => Place::Alone(pending),
        };
        if in_flight {
            self.calls.push_back((token.ticket(), place));
        }
    }

    /// The renderer has answered the oldest call in flight. One that is refused has no fence.
    pub(crate) fn answer(&mut self, ticket: Ticket, error: Option<ResponseType>) {
        // Another is of a command that was forgotten.
        if self.calls.front().is_none_or(|(first, _)| *first != ticket) {
            return;
        }
        let settle = |pending: &mut Pending| {
            pending.in_flight = false;
            if let Some(error) = error {
                pending.fence = None;
                pending.response.fail(error);
            }
        };
        match self.calls.pop_front() {
            Some((_, Place::Alone(mut pending))) => {
                settle(&mut pending);
                self.ready.push_back(pending.completed());
            }
            Some((_, Place::Timeline(timeline))) => {
                let queue = self.waiting.get_mut(&timeline);
                let mut queue = queue.into_iter().flatten();
                if let Some(pending) = queue.find(|pending| pending.in_flight) {
                    settle(pending);
                }
                self.advance(timeline);
            }
            None => {}
        }
    }

    /// A fence has signalled, and with it every one before on its timeline.
    pub(crate) fn signal(&mut self, fence: Fence) {
        let Some(queue) = self.waiting.get_mut(&fence.timeline) else {
            return;
        };
        for pending in queue.iter_mut() {
            match pending.fence {
                Some(id) if id > fence.id => break,
                _ => pending.fence = None,
            }
        }
        self.advance(fence.timeline);
    }

    /// Answers what has its turn and is done.
    fn advance(&mut self, timeline: Timeline) {
        let Some(queue) = self.waiting.get_mut(&timeline) else {
            return;
        };
        while queue.front().is_some_and(Pending::is_done)
            && let Some(pending) = queue.pop_front()
        {
            self.ready.push_back(pending.completed());
        }
        if queue.is_empty() {
            self.waiting.remove(&timeline);
        }
    }

    /// Signals everything on the rings of a context that is gone.
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

    /// Answers everything: what waited for the renderer with an error, as its work is lost. Returns how many calls were
    /// in flight.
    pub(crate) fn fail(&mut self) -> usize {
        let calls = mem::take(&mut self.calls);
        let count = calls.len();
        for (_, place) in calls {
            if let Place::Alone(pending) = place {
                self.ready.push_back(pending.failed());
            }
        }
        let waiting = mem::take(&mut self.waiting).into_values().flatten();
        self.ready.extend(waiting.map(Pending::failed));
        count
    }

    /// Forgets every answer that is due. Numbers go on, so a late answer or signal means nothing.
    pub(crate) fn abandon(&mut self) {
        self.waiting.clear();
        self.calls.clear();
        self.ready.clear();
        self.count = 0;
    }

    pub(crate) fn drain_ready(&mut self) -> impl Iterator<Item = Completed> + '_ {
        self.count = self.count.saturating_sub(self.ready.len());
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

    fn ok() -> Response {
        let mut response = Response::new(24);
        let mut header = wire::CtrlHdr::new_zeroed();
        header.type_ = ResponseType::OK_NODATA.0.into();
        header.fence_id = 7.into();
        response.set(&header, &[]);
        response
    }

    fn defer(fences: &mut Fences, timeline: Timeline, fence: Option<Fence>) -> Token {
        let token = fences.token();
        let deferral = Deferral {
            token,
            timeline: Some(timeline),
            fence,
            in_flight: false,
        };
        fences.defer(&deferral, ok());
        token
    }

    fn begin(fences: &mut Fences, timeline: Option<Timeline>) -> (Token, Option<Fence>) {
        let fence = timeline.map(|timeline| fences.next(timeline));
        let token = fences.token();
        let deferral = Deferral {
            token,
            timeline,
            fence,
            in_flight: true,
        };
        fences.defer(&deferral, ok());
        (token, fence)
    }

    fn types(fences: &mut Fences) -> Vec<(Token, ResponseType)> {
        let type_of = |done: &Completed| {
            let (type_, _) = done.response.bytes().split_first_chunk().unwrap();
            ResponseType(u32::from_le_bytes(*type_))
        };
        let ready = fences.drain_ready();
        ready.map(|done| (done.token, type_of(&done))).collect()
    }

    fn completed(fences: &mut Fences) -> Vec<Token> {
        fences.drain_ready().map(|done| done.token).collect()
    }

    #[test]
    fn a_signal_answers_every_earlier_fence_of_its_timeline_and_no_other() {
        let mut fences = Fences::default();
        let mut fenced = |timeline| {
            let fence = fences.next(timeline);
            (fence, defer(&mut fences, timeline, Some(fence)))
        };
        let (_, first) = fenced(RING);
        let (second_fence, second) = fenced(RING);
        let (_, third) = fenced(RING);
        let (other_fence, other) = fenced(Timeline::Global);
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
        let first = defer(&mut fences, RING, Some(fence));
        let second = defer(&mut fences, RING, None);
        assert_eq!(completed(&mut fences), []);
        fences.signal(fence);
        assert_eq!(completed(&mut fences), [first, second]);
    }

    #[test]
    fn a_renderer_that_is_gone_fails_what_waited_for_it_and_nothing_else() {
        let mut fences = Fences::default();
        let fence = fences.next(RING);
        let lost = defer(&mut fences, RING, Some(fence));
        let done = defer(&mut fences, RING, None);
        assert_eq!(fences.fail(), 0);
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

    const OK: ResponseType = ResponseType::OK_NODATA;
    const REFUSED: ResponseType = ResponseType::ERR_INVALID_PARAMETER;

    #[test]
    fn an_error_reaches_the_command_whose_call_was_refused_and_no_other() {
        let mut fences = Fences::default();
        let (first, _) = begin(&mut fences, None);
        let (second, _) = begin(&mut fences, None);
        let (third, _) = begin(&mut fences, None);
        fences.answer(first.ticket(), None);
        fences.answer(second.ticket(), Some(REFUSED));
        fences.answer(third.ticket(), None);
        let expected = [(first, OK), (second, REFUSED), (third, OK)];
        assert_eq!(types(&mut fences), expected);
    }

    #[test]
    fn a_fenced_command_is_answered_when_its_call_and_its_fence_are_whichever_comes_first() {
        for answer_first in [true, false] {
            let mut fences = Fences::default();
            let (token, fence) = begin(&mut fences, Some(RING));
            let fence = fence.unwrap();
            if answer_first {
                fences.answer(token.ticket(), None);
            } else {
                fences.signal(fence);
            }
            assert_eq!(completed(&mut fences), []);
            fences.answer(token.ticket(), None);
            fences.signal(fence);
            assert_eq!(types(&mut fences), [(token, OK)]);
            assert_eq!(fences.len(), 0);
        }
    }

    #[test]
    fn a_refused_command_has_no_fence_and_still_waits_for_its_turn() {
        let mut fences = Fences::default();
        let (first, fence) = begin(&mut fences, Some(RING));
        let (refused, _) = begin(&mut fences, Some(RING));
        fences.answer(first.ticket(), None);
        fences.answer(refused.ticket(), Some(REFUSED));
        assert_eq!(completed(&mut fences), []);
        fences.signal(fence.unwrap());
        assert_eq!(types(&mut fences), [(first, OK), (refused, REFUSED)]);
    }

    #[test]
    fn a_renderer_that_is_gone_fails_every_call_in_flight() {
        let mut fences = Fences::default();
        let (alone, _) = begin(&mut fences, None);
        let (fenced, _) = begin(&mut fences, Some(RING));
        assert_eq!(fences.fail(), 2);
        let error = ResponseType::ERR_UNSPEC;
        assert_eq!(types(&mut fences), [(alone, error), (fenced, error)]);
        assert_eq!(fences.len(), 0);
    }

    #[test]
    fn an_answer_to_a_forgotten_command_means_nothing_to_the_next() {
        let mut fences = Fences::default();
        let (forgotten, _) = begin(&mut fences, None);
        fences.abandon();
        let (next, _) = begin(&mut fences, None);
        fences.answer(forgotten.ticket(), Some(REFUSED));
        assert_eq!(completed(&mut fences), []);
        fences.answer(next.ticket(), None);
        assert_eq!(types(&mut fences), [(next, OK)]);
    }
}
