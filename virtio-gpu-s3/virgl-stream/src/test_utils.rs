// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest's streams made of any bytes, and what must hold of a shadow after each.

use std::collections::BTreeMap;
use std::mem;

use crate::codec::{Command, commands};
use crate::command::{Effect, Keyed, Length, Names, Number, ObjectType, TABLE};
use crate::context::MAX_BYTES;
use crate::replay::Replay;
use crate::shadow::Shadow;

/// What happens to a context.
#[derive(Clone, Debug)]
pub enum Step {
    /// The renderer is given a stream.
    Feed(Vec<u32>),
    /// A resource is gone.
    Forget(u32),
    /// A blob takes what was made in a stream.
    Take(u32),
}

/// Bytes, one after the other, and zeros behind them.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> u32 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        (*first).into()
    }

    fn below(&mut self, most: u32) -> u32 {
        self.next().checked_rem(most).unwrap_or(0)
    }
}

/// Steps of a guest that mostly does what drivers do, on few handles and few resources.
pub fn program(bytes: &[u8]) -> Vec<Step> {
    let mut guest = Guest {
        bytes: Bytes(bytes),
        alive: Vec::new(),
        others: BTreeMap::new(),
        current: 0,
    };
    let mut steps = Vec::new();
    while !guest.bytes.0.is_empty() {
        steps.push(match guest.bytes.next() {
            0..=3 => Step::Forget(guest.bytes.below(9)),
            4..=7 => Step::Take(guest.bytes.below(4)),
            // Anything at all.
            8 => Step::Feed(
                (0..guest.bytes.below(8))
                    .map(|_| guest.bytes.next())
                    .collect(),
            ),
            _ => Step::Feed(guest.stream()),
        });
    }
    steps
}

struct Guest<'a> {
    bytes: Bytes<'a>,
    /// Handles of the current sub-context, as far as the guest cares, and kinds.
    alive: Vec<(u32, ObjectType)>,
    /// Those of other sub-contexts.
    others: BTreeMap<u32, Vec<(u32, ObjectType)>>,
    current: u32,
}

impl Guest<'_> {
    fn stream(&mut self) -> Vec<u32> {
        let mut stream = Vec::new();
        for _ in 0..=self.bytes.below(6) {
            let number = match self.bytes.next() {
                0..=69 => Number::CREATE_OBJECT,
                70..=99 => Number::DESTROY_OBJECT,
                100..=139 => Number::BIND_OBJECT,
                140..=149 => Number::SET_FRAMEBUFFER_STATE,
                150..=159 => Number::SET_SAMPLER_VIEWS,
                160..=169 => Number::BIND_SHADER,
                other @ 170..=222 => Number(u8::try_from(other.saturating_sub(170)).unwrap_or(0)),
                223..=230 => Number::CREATE_SUB_CTX,
                231..=250 => Number::SET_VERTEX_BUFFERS,
                251..=253 => Number::SET_SUB_CTX,
                _ => Number(u8::try_from(self.bytes.next()).unwrap_or(0)),
            };
            let (object, body) = self.command(number);
            let encoded = Command::new(number, object, &body).encode(&mut stream);
            debug_assert!(encoded.is_ok());
        }
        stream
    }

    /// One that is alive, of that kind; or none.
    fn one(&mut self, kind: ObjectType) -> u32 {
        let fitting = self.alive.iter().filter(|(_, its)| its.named_as() == kind);
        let fitting: Vec<_> = fitting.map(|(handle, _)| *handle).collect();
        let at = self.bytes.below(4) as usize;
        fitting.get(at).copied().unwrap_or(0)
    }

    fn length(&mut self, length: Length) -> usize {
        let more = self.bytes.below(3) as usize;
        match length {
            Length::Any => more,
            Length::Exactly(dwords) => dwords,
            Length::AtLeast(dwords) => dwords.saturating_add(more),
            Length::Rows { head, row } => head.saturating_add(row.saturating_mul(more)),
        }
    }

    fn body(&mut self, dwords: usize) -> Vec<u32> {
        (0..dwords).map(|_| self.bytes.below(6)).collect()
    }

    fn command(&mut self, number: Number) -> (u8, Vec<u32>) {
        match number {
            Number::CREATE_OBJECT => self.create(),
            Number::DESTROY_OBJECT => {
                let count = self.alive.len().max(1);
                let at = (self.bytes.next() as usize).checked_rem(count).unwrap_or(0);
                let dead = self.alive.get(at).copied();
                self.alive.retain(|one| Some(*one) != dead);
                (0, vec![dead.map_or(1, |(handle, _)| handle)])
            }
            Number::SET_SUB_CTX | Number::CREATE_SUB_CTX | Number::DESTROY_SUB_CTX => {
                let id = self.bytes.below(4);
                self.sub_context(number, id);
                (0, vec![id])
            }
            _ => self.other(number),
        }
    }

    fn sub_context(&mut self, number: Number, id: u32) {
        let known = id == self.current || self.others.contains_key(&id);
        let next = match number {
            Number::SET_SUB_CTX if known => id,
            Number::CREATE_SUB_CTX if !known => id,
            Number::DESTROY_SUB_CTX if id == self.current => 0,
            _ => self.current,
        };
        if next != self.current {
            let alive = self.others.remove(&next).unwrap_or_default();
            let before = mem::replace(&mut self.alive, alive);
            self.others.insert(self.current, before);
            self.current = next;
        }
        if number == Number::DESTROY_SUB_CTX && id != 0 {
            self.others.remove(&id);
        }
    }

    fn create(&mut self) -> (u8, Vec<u32>) {
        let kind = ObjectType(
            u8::try_from(self.bytes.below(11))
                .unwrap_or(0)
                .saturating_add(1),
        );
        let dwords = self.length(kind.length().unwrap_or(Length::Any));
        let mut body = self.body(dwords);
        let handle = self.bytes.below(32).saturating_add(1);
        let is_free = self.alive.iter().all(|(other, _)| *other != handle);
        match body.as_mut_slice() {
            // A long shader's second part.
            [own, _, offset, ..] if kind == ObjectType::SHADER && self.bytes.next() > 200 => {
                *own = self.one(kind);
                *offset |= 1 << 31;
            }
            [own, ..] if is_free => {
                *own = handle;
                self.alive.push((handle, kind));
            }
            [own, ..] => *own = handle,
            [] => {}
        }
        (kind.0, body)
    }

    fn other(&mut self, number: Number) -> (u8, Vec<u32>) {
        let Some(info) = number.info() else {
            return (0, Vec::new());
        };
        let dwords = self.length(info.length);
        let mut body = self.body(dwords);
        let colours = u32::try_from(dwords.saturating_sub(2)).unwrap_or(0);
        let Effect::Sticky(sticky) = info.effect else {
            if let (Effect::Query, Some(handle)) = (info.effect, body.first_mut()) {
                *handle = self.one(ObjectType::QUERY);
            }
            return (0, body);
        };
        let kind = [
            ObjectType::BLEND,
            ObjectType::RASTERIZER,
            ObjectType::DSA,
            ObjectType::VERTEX_ELEMENTS,
        ];
        let at = self.bytes.below(4) as usize;
        let kind = kind.get(at).copied().unwrap_or(ObjectType::BLEND);
        let head = match sticky.keyed {
            Keyed::Slots { staged, .. } => 1_usize.saturating_add(staged.into()),
            _ => 0,
        };
        match sticky.names {
            Names::Objects { kind, first, every } => {
                for word in body
                    .iter_mut()
                    .skip(head.saturating_add(first))
                    .step_by(every.max(1))
                {
                    *word = self.one(kind);
                }
                // Slots have one in each row, which is the object alone.
                for word in body.iter_mut().skip(head).filter(|_| head > 0) {
                    *word = self.one(kind);
                }
            }
            Names::Bound => body = vec![self.one(kind)],
            Names::Nothing | Names::Resources { .. } => {}
        }
        if let (Number::SET_FRAMEBUFFER_STATE, [count, ..]) = (number, body.as_mut_slice()) {
            *count = colours;
        }
        (kind.0, body)
    }
}

/// Has a context do all of it, and looks at its shadow after each step.
///
/// # Panics
/// A shadow is not what it should be.
#[expect(
    clippy::panic,
    clippy::expect_used,
    reason = "that is what a test does where it finds a mistake"
)]
pub fn run(steps: &[Step]) -> Shadow {
    let mut shadow = Shadow::default();
    for step in steps {
        match step {
            Step::Feed(stream) => {
                assert_eq!(&encoded_again(stream), stream);
                shadow.feed(stream);
            }
            Step::Forget(id) => shadow.forget_resource(*id),
            Step::Take(blob_id) => drop(shadow.take(*blob_id)),
        }
        // One command more than the limit, at most.
        assert!(shadow.bytes() <= MAX_BYTES + (1 << 19));
        let Ok(replay) = shadow.replay() else {
            continue;
        };
        let words = replay.words().to_vec();
        let (checked, again) = Replay::check(words).expect("a replay is one");
        assert_eq!(checked, replay);
        assert_eq!(again.replay().as_ref(), Ok(&replay), "the same state");
        assert!(again.bytes() <= shadow.bytes(), "{step:?}");
        match replay.streams(64).concat() {
            joined if joined == replay.words() => {}
            joined => panic!("{joined:?} of {replay:?}"),
        }
    }
    shadow
}

/// What a decoder and an encoder make of a stream; what is cut short stays as it is.
fn encoded_again(stream: &[u32]) -> Vec<u32> {
    let mut again = Vec::new();
    for command in commands(stream) {
        match command {
            Ok((at, command)) => {
                assert_eq!(at, again.len());
                let encoded = command.encode(&mut again);
                debug_assert!(encoded.is_ok());
            }
            Err(cut) => again.extend_from_slice(stream.get(cut.at..).unwrap_or_default()),
        }
    }
    again
}

/// Whether a replay sets that.
pub fn sets(replay: &Replay, number: Number) -> bool {
    commands(replay.words())
        .flatten()
        .any(|(_, command)| command.number == number)
}

/// Every command with slots, for tests that want each.
pub fn slotted() -> impl Iterator<Item = (Number, bool, usize)> {
    let all = (0..).zip(TABLE);
    all.filter_map(|(number, info)| match info.effect {
        Effect::Sticky(sticky) => match sticky.keyed {
            Keyed::Slots { staged, row } => Some((Number(number), staged, row)),
            _ => None,
        },
        _ => None,
    })
}
