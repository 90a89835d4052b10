// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The last value of each piece of sticky state.

use std::collections::BTreeMap;
use std::mem;

use crate::command::{Names, Number, ObjectType};
use crate::loss::Warning;
use crate::object::Serial;

/// What a value costs besides its dwords, in bytes.
pub(crate) const VALUE_BYTES: u64 = 96;

/// What a value is told from others by; the order is that of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) number: Number,
    /// The stage, the kind of object, or whatever its first dword is.
    pub(crate) first: u32,
    /// The slot.
    pub(crate) second: u32,
}

impl Key {
    pub(crate) const fn only(number: Number) -> Self {
        Self::of(number, 0)
    }

    pub(crate) const fn of(number: Number, first: u32) -> Self {
        Self {
            number,
            first,
            second: 0,
        }
    }
}

/// An object that a value names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    /// Which dword of the value.
    pub(crate) at: usize,
    pub(crate) handle: u32,
    pub(crate) serial: Serial,
}

/// A value.
#[derive(Clone, Debug, Default)]
pub(crate) struct Value {
    /// A command's dwords, or those of one slot.
    pub(crate) words: Vec<u32>,
    pub(crate) bound: Vec<Bound>,
    /// A resource that it named is gone, and it names none there.
    pub(crate) gone: bool,
}

impl Value {
    pub(crate) fn bytes(&self) -> u64 {
        let words = (self.words.len() as u64).saturating_mul(4);
        let bound = (self.bound.len() as u64).saturating_mul(size_of::<Bound>() as u64);
        VALUE_BYTES.saturating_add(words).saturating_add(bound)
    }
}

/// Where the names of a value are: `first`, and `every` from there on.
pub(crate) fn places(first: usize, every: usize, length: usize) -> impl Iterator<Item = usize> {
    (first..length).step_by(every.max(1))
}

/// The kind of object that a value names, and where.
pub(crate) fn objects_named(
    names: Names,
    in_header: ObjectType,
) -> Option<(ObjectType, usize, usize)> {
    match names {
        Names::Objects { kind, first, every } => Some((kind, first, every)),
        Names::Bound => Some((in_header, 0, usize::MAX)),
        Names::Nothing | Names::Resources { .. } => None,
    }
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Values(BTreeMap<Key, Value>);

impl Values {
    pub(crate) fn get(&self, key: Key) -> Option<&Value> {
        self.0.get(&key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &Value)> {
        self.0.iter()
    }

    /// Puts a value there; `bound` is what it names, and becomes what the last value named. Gives how many bytes the
    /// values have more, and fewer.
    pub(crate) fn put(&mut self, key: Key, words: &[u32], bound: &mut Vec<Bound>) -> (u64, u64) {
        let mut before = 0;
        let value = self
            .0
            .entry(key)
            .and_modify(|value| before = value.bytes())
            .or_default();
        value.words.clear();
        value.words.extend_from_slice(words);
        value.gone = false;
        mem::swap(&mut value.bound, bound);
        (value.bytes(), before)
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<Value> {
        self.0.remove(&key)
    }

    /// The keys of a command's slots, for that stage, from `slot` on.
    pub(crate) fn slots_from(&self, key: Key) -> impl Iterator<Item = Key> {
        let last = Key {
            second: u32::MAX,
            ..key
        };
        self.0.range(key..=last).map(|(key, _)| *key)
    }

    /// The keys of those of a command that name that object.
    pub(crate) fn naming(&self, number: Number, serial: Serial) -> Vec<Key> {
        let last = Key {
            number,
            first: u32::MAX,
            second: u32::MAX,
        };
        let all = self.0.range(Key::only(number)..=last);
        let naming =
            all.filter(|(_, value)| value.bound.iter().any(|bound| bound.serial == serial));
        naming.map(|(key, _)| *key).collect()
    }

    /// None names that resource any more.
    pub(crate) fn forget_resource(&mut self, id: u32) {
        for (key, value) in &mut self.0 {
            let Some((first, every)) = resources_named(key.number) else {
                continue;
            };
            for at in places(first, every, value.words.len()) {
                if let Some(word) = value.words.get_mut(at).filter(|word| **word == id) {
                    *word = 0;
                    value.gone = true;
                }
            }
        }
    }

    pub(crate) fn warnings(&self) -> impl Iterator<Item = Warning> {
        let gone = self.0.iter().filter(|(_, value)| value.gone);
        gone.map(|(key, _)| Warning::GoneResource { number: key.number })
    }
}

/// Where values of a command name resources.
fn resources_named(number: Number) -> Option<(usize, usize)> {
    use crate::command::{Effect, Sticky};
    match number.info()?.effect {
        Effect::Sticky(Sticky {
            names: Names::Resources { first, every },
            ..
        }) => Some((first, every)),
        _ => None,
    }
}
