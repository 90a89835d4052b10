// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The commands that make a context again.

use std::collections::BTreeMap;

use crate::codec::{Command, commands};
use crate::command::{Effect, Keyed, Number, Sticky};
use crate::context::Context;
use crate::loss::Loss;
use crate::object::{Object, Serial};
use crate::state::{Bound, Key, Value};
use crate::sub_context::{SubContext, is_as_never_set};

/// The commands that make a context again in a renderer where it was just made, and where its resources are.
///
/// They draw nothing and move no bytes, so that they can be given at any time; [`Replay::check`] holds that for words
/// that come from elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    words: Vec<u32>,
}

/// Destroyed objects that are bound, by the handles that they have while the context is made again.
type Revived = BTreeMap<Serial, u32>;

impl Replay {
    /// Words that were checked.
    pub(crate) fn from_words(words: Vec<u32>) -> Self {
        Self { words }
    }

    /// All of them, as one stream.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// All of them, in streams of at most so many dwords; a longer command is a stream by itself.
    pub fn streams(&self, most: usize) -> Vec<&[u32]> {
        let mut streams = Vec::new();
        let mut start = 0_usize;
        for (at, command) in commands(&self.words).flatten() {
            let end = at.saturating_add(command.body.len()).saturating_add(1);
            if end.saturating_sub(start) > most && at > start {
                streams.extend(self.words.get(start..at));
                start = at;
            }
        }
        streams.extend(self.words.get(start..).filter(|rest| !rest.is_empty()));
        streams
    }

    /// What gives resources their types comes first, as objects are made of them.
    pub(crate) fn of(context: &Context) -> Result<Self, Loss> {
        let mut replay = Self::default();
        for body in context.types.values() {
            replay.add(Number::PIPE_RESOURCE_SET_TYPE, 0, body);
        }
        for made in context.untaken.values() {
            let mut body = made.params.to_vec();
            body.push(made.blob_id);
            replay.add(Number::PIPE_RESOURCE_CREATE, 0, &body);
        }
        for (id, sub) in &context.sub_contexts {
            if *id != 0 {
                replay.add(Number::CREATE_SUB_CTX, 0, &[*id]);
            }
            replay.add(Number::SET_SUB_CTX, 0, &[*id]);
            replay.add_sub_context(sub)?;
        }
        replay.add(Number::SET_SUB_CTX, 0, &[context.current]);
        Ok(replay)
    }

    /// What is put here came from a command, or is shorter, so that it fits one.
    fn add(&mut self, number: Number, object: u8, body: &[u32]) {
        let command = Command::new(number, object, body);
        let fits = command.encode(&mut self.words);
        debug_assert!(fits.is_ok());
    }

    /// The dead come first: while a long shader is not whole there can be no other of its stage.
    fn add_sub_context(&mut self, sub: &SubContext) -> Result<(), Loss> {
        let mut revived = Revived::new();
        let mut below = u32::MAX;
        for object in sub.objects.dead().filter(|object| !object.orphaned) {
            let (handle, kind) = (object.handle, object.kind);
            let free = sub.objects.free_handle(below);
            let free = free.ok_or(Loss::Orphan { handle, kind })?;
            below = free.saturating_sub(1);
            revived.insert(object.serial, free);
            self.add_object(object, free);
        }
        for object in sub.objects.alive() {
            self.add_object(object, object.handle);
        }
        self.add_values(sub, &revived);
        for handle in revived.values() {
            self.add(Number::DESTROY_OBJECT, 0, &[*handle]);
        }
        Ok(())
    }

    /// Each of its parts under that handle.
    fn add_object(&mut self, object: &Object, handle: u32) {
        for (_, part) in commands(&object.creation).flatten() {
            let mut body = part.body.to_vec();
            if let Some(own) = body.first_mut() {
                *own = handle;
            }
            self.add(part.number, part.object.0, &body);
        }
    }

    fn add_values(&mut self, sub: &SubContext, revived: &Revived) {
        let mut run = Run::default();
        for (key, value) in sub.values.iter() {
            let words = without_empty_buffers(*key, renamed(sub, value, revived));
            let Some(Effect::Sticky(Sticky { keyed, names })) =
                key.number.info().map(|info| info.effect)
            else {
                continue;
            };
            let is_gone = |bound: &Bound| words.get(bound.at).is_none_or(|handle| *handle == 0);
            if is_as_never_set(key.number, &words, names, value.bound.iter().all(is_gone)) {
                continue;
            }
            if let Keyed::Slots { staged, .. } = keyed {
                if !run.continues(*key) {
                    self.end_run(&mut run);
                    run.begin(*key, staged);
                }
                run.push(*key, &words);
            } else {
                self.end_run(&mut run);
                let kind = match key.number {
                    Number::BIND_OBJECT => u8::try_from(key.first).unwrap_or(0),
                    _ => 0,
                };
                self.add(key.number, kind, &words);
            }
        }
        self.end_run(&mut run);
    }

    fn end_run(&mut self, run: &mut Run) {
        if let Some(key) = run.last.take() {
            self.add(key.number, 0, &run.body);
            run.body.clear();
        }
    }
}

/// A value with the handles that its objects have now; 0 for what is gone with its resource.
fn renamed(sub: &SubContext, value: &Value, revived: &Revived) -> Vec<u32> {
    let mut words = value.words.clone();
    for bound in &value.bound {
        if sub.objects.dead_one(bound.serial).is_some()
            && let Some(word) = words.get_mut(bound.at)
        {
            *word = revived.get(&bound.serial).copied().unwrap_or(0);
        }
    }
    words
}

/// virglrenderer refuses a framebuffer that says it has colour buffers and has none.
fn without_empty_buffers(key: Key, mut words: Vec<u32>) -> Vec<u32> {
    let colours = words.get(2..).unwrap_or_default();
    if key.number == Number::SET_FRAMEBUFFER_STATE && colours.iter().all(|id| *id == 0) {
        words.truncate(2);
        if let Some(count) = words.first_mut() {
            *count = 0;
        }
    }
    words
}

/// Slots that one command sets.
#[derive(Default)]
struct Run {
    last: Option<Key>,
    body: Vec<u32>,
}

impl Run {
    /// Whether the slot follows the last one. A command for sampler views unsets all behind it, and one for the states
    /// of samplers says how many there are, so both have all of a stage, with 0 where there is none.
    fn continues(&self, key: Key) -> bool {
        self.last.is_some_and(|last| {
            (last.number, last.first) == (key.number, key.first)
                && (is_dense(key.number) || last.second.checked_add(1) == Some(key.second))
        })
    }

    fn begin(&mut self, key: Key, staged: bool) {
        self.body.clear();
        if staged {
            self.body.push(key.first);
        }
        if is_dense(key.number) {
            self.body.push(0);
            self.pad(0, key.second);
        } else {
            self.body.push(key.second);
        }
    }

    fn push(&mut self, key: Key, words: &[u32]) {
        if let Some(last) = self.last {
            self.pad(last.second.saturating_add(1), key.second);
        }
        self.last = Some(key);
        self.body.extend_from_slice(words);
    }

    fn pad(&mut self, from: u32, to: u32) {
        self.body.extend((from..to).map(|_| 0));
    }
}

fn is_dense(number: Number) -> bool {
    matches!(
        number,
        Number::SET_SAMPLER_VIEWS | Number::BIND_SAMPLER_STATES
    )
}
