// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a key is, whichever it is: the values it can have, as text and in the structure, and what it needs.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter, Result as FmtResult};
use std::path::PathBuf;

use serde::{Serialize, Serializer};
use virtio_gpu_s3::Limits;

use super::error::OptionError;

/// A row of the table.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) owner: Owner,
    pub(super) kind: Kind,
    /// What it is unless given; `None` for nothing.
    pub(super) default: Option<Value>,
    /// One sentence, with units.
    pub(super) help: &'static str,
    pub(super) needs: &'static [Need],
}

/// Who reads a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The GPU, wherever it runs.
    Gpu,
    /// The GPU, as one of its limits: a key like any other in text, an object of its own in JSON.
    Limit,
    /// The VMM that the GPU is part of.
    Vmm,
    /// That VMM's own parser. The key is only skipped here.
    Bus,
}

/// What has to be given with a key: one of `any`, each as KEY=VALUE where VALUE may be the [`Kind::form`] for any value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    pub(super) any: &'static [&'static str],
    pub(super) why: &'static str,
}

/// The values that a key can have.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// `on` or `off`; true or false in JSON.
    Switch,
    /// A number of these units.
    Number {
        least: u32,
        most: u32,
        unit: &'static str,
    },
    /// A power of 2 in bytes, with K, M or G for powers of 1024.
    Size { least: u64, most: u64 },
    /// A limit, likewise with K, M or G.
    Limit { least: u64, most: u64 },
    /// A path on the host.
    Path,
    /// One of these words; `elsewhere` are those of builds with more features.
    Word {
        words: &'static [&'static str],
        elsewhere: &'static [&'static str],
    },
    /// Whatever the VMM's own parser makes of it.
    Foreign,
}

/// A value of any key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Switch(bool),
    Number(u64),
    Path(PathBuf),
    Word(&'static str),
}

impl Key {
    /// How to write it.
    pub(super) fn form(&self) -> String {
        format!("{}={}", self.name, self.kind.form())
    }

    pub(super) fn refuse(&self, value: &str) -> OptionError {
        OptionError::Value {
            key: self.name,
            value: value.into(),
            allowed: self.kind.allowed(),
        }
    }
}

impl Kind {
    /// What stands for the value where the key is explained.
    pub(super) fn form(&self) -> String {
        match self {
            Self::Switch => "on|off".into(),
            Self::Number { least, most, .. } => format!("{least}-{most}"),
            Self::Size { .. } => "SIZE".into(),
            Self::Limit { .. } => "N".into(),
            Self::Path => "PATH".into(),
            Self::Word { words, elsewhere } => [*words, *elsewhere].concat().join("|"),
            Self::Foreign => "...".into(),
        }
    }

    /// The same with its bounds.
    pub(super) fn values(&self) -> String {
        match self {
            Self::Size { least, most } => {
                let (least, most) = (Bytes(*least), Bytes(*most));
                format!("{}, a power of 2 from {least} to {most}", self.form())
            }
            Self::Limit { least, most } => format!("{least} to {most}"),
            _ => self.form(),
        }
    }

    /// What would have been right, for "is not allowed; ...".
    fn allowed(&self) -> String {
        match self {
            Self::Switch => "on and off are".into(),
            Self::Number { least, most, unit } => format!("{least} to {most} {unit} are"),
            Self::Size { least, most } => {
                let (least, most) = (Bytes(*least), Bytes(*most));
                format!("a power of 2 such as 256M, from {least} to {most}, is")
            }
            Self::Limit { least, most } => format!("{least} to {most} are"),
            Self::Path => "a path is".into(),
            Self::Foreign => "what the VMM takes is".into(),
            Self::Word { words, elsewhere } => {
                let verb = if words.len() == 1 { "is" } else { "are" };
                let here = format!("{} {verb}", listed(words));
                match elsewhere {
                    [] => here,
                    more => format!("{here}, and {} in a build with that feature", listed(more)),
                }
            }
        }
    }

    /// The value that a person wrote, `None` if it is none.
    pub(super) fn read(&self, text: &str) -> Option<Value> {
        let value = match self {
            Self::Switch => match text {
                "on" => Value::Switch(true),
                "off" => Value::Switch(false),
                _ => return None,
            },
            Self::Number { .. } => Value::Number(text.parse().ok()?),
            Self::Size { .. } | Self::Limit { .. } => Value::Number(scaled(text)?),
            Self::Path => Value::Path(text.into()),
            Self::Word { words, .. } => Value::Word(words.iter().find(|word| **word == text)?),
            Self::Foreign => return None,
        };
        self.allows(&value).then_some(value)
    }

    /// Whether it is one of the values. JSON and the structures' fields can say more than that.
    pub(super) fn allows(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Switch, Value::Switch(_)) => true,
            (Self::Number { least, most, .. }, Value::Number(number)) => {
                (u64::from(*least)..=u64::from(*most)).contains(number)
            }
            (Self::Size { least, most }, Value::Number(number)) => {
                (*least..=*most).contains(number) && number.is_power_of_two()
            }
            (Self::Limit { least, most }, Value::Number(number)) => {
                (*least..=*most).contains(number)
            }
            (Self::Path, Value::Path(path)) => !path.as_os_str().is_empty(),
            (Self::Word { words, .. }, Value::Word(word)) => words.contains(word),
            _ => false,
        }
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        match self {
            Self::Switch(true) => f.write_str("on"),
            Self::Switch(false) => f.write_str("off"),
            Self::Number(number) => Display::fmt(number, f),
            Self::Path(path) => Display::fmt(&path.display(), f),
            Self::Word(word) => f.write_str(word),
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Switch(on) => on.serialize(serializer),
            Self::Number(number) => number.serialize(serializer),
            Self::Path(path) => path.serialize(serializer),
            Self::Word(word) => word.serialize(serializer),
        }
    }
}

/// A number of bytes as a person writes it.
struct Bytes(u64);

impl Display for Bytes {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        let units = [(30, "G"), (20, "M"), (10, "K")];
        let whole = |shift: u32| self.0 != 0 && self.0.trailing_zeros() >= shift;
        match units.into_iter().find(|(shift, _)| whole(*shift)) {
            Some((shift, unit)) => write!(f, "{}{unit}", self.0 >> shift),
            None => Display::fmt(&self.0, f),
        }
    }
}

/// A number, with K, M or G for powers of 1024.
fn scaled(text: &str) -> Option<u64> {
    let suffixes = [('K', 10), ('M', 20), ('G', 30)];
    let scaled = suffixes.into_iter().find_map(|(suffix, shift)| {
        let digits = text.strip_suffix([suffix, suffix.to_ascii_lowercase()])?;
        Some((digits, shift))
    });
    let (digits, shift) = scaled.unwrap_or((text, 0));
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// "a", "a and b", "a, b and c".
pub(super) fn listed(words: &[&str]) -> String {
    match words {
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        words => words.concat(),
    }
}

/// A structure whose fields are keys.
pub(super) trait Keys: Default {
    /// Its rows, those of its parts first.
    fn keys() -> Vec<Key>;

    /// A key's value, `None` if it has none.
    fn get(&self, name: &str) -> Option<Value>;

    /// Sets a key; false if there is no such key, or it cannot hold that.
    fn put(&mut self, name: &str, value: Value) -> bool;

    /// Whether a key is other than it is by itself.
    fn is_given(&self, key: &Key) -> bool {
        let value = self.get(key.name);
        value.is_some() && value != key.default
    }
}

/// A field's type, which holds the values of a [`Kind`].
pub(super) trait Field: Sized {
    fn value(&self) -> Option<Value>;
    fn of(value: Value) -> Option<Self>;
}

/// An enumeration whose variants are words.
pub(super) trait Word: Copy + PartialEq + 'static {
    /// Each variant of this build.
    const VARIANTS: &'static [Self];
    /// Their words, in the same order.
    const WORDS: &'static [&'static str];
    /// The words of variants that other builds have.
    const ELSEWHERE: &'static [&'static str] = &[];
    /// What a key of this type can be.
    const KIND: Kind = Kind::Word {
        words: Self::WORDS,
        elsewhere: Self::ELSEWHERE,
    };

    /// The variant of that word.
    fn named(word: &str) -> Option<Self> {
        let at = Self::WORDS.iter().position(|found| *found == word)?;
        Self::VARIANTS.get(at).copied()
    }
}

impl<T: Word> Field for T {
    fn value(&self) -> Option<Value> {
        let at = Self::VARIANTS.iter().position(|found| found == self)?;
        Self::WORDS.get(at).copied().map(Value::Word)
    }

    fn of(value: Value) -> Option<Self> {
        match value {
            Value::Word(word) => Self::named(word),
            _ => None,
        }
    }
}

macro_rules! field {
    ($type:ty, $value:ident) => {
        impl Field for $type {
            fn value(&self) -> Option<Value> {
                Some(Value::$value(self.clone().into()))
            }

            fn of(value: Value) -> Option<Self> {
                match value {
                    Value::$value(value) => value.try_into().ok(),
                    _ => None,
                }
            }
        }
    };
}

field!(bool, Switch);
field!(u32, Number);
field!(u64, Number);
field!(PathBuf, Path);

impl<T: Field> Field for Option<T> {
    fn value(&self) -> Option<Value> {
        self.as_ref().and_then(Field::value)
    }

    fn of(value: Value) -> Option<Self> {
        T::of(value).map(Some)
    }
}

/// Limits by their names: those of [`Limits::TABLE`].
impl Keys for BTreeMap<String, u64> {
    fn keys() -> Vec<Key> {
        let keys = Limits::TABLE.iter().map(|info| Key {
            name: info.name,
            owner: Owner::Limit,
            kind: Kind::Limit {
                least: info.least,
                most: info.most,
            },
            default: Some(Value::Number(info.default)),
            help: info.help,
            needs: &[],
        });
        keys.collect()
    }

    fn get(&self, name: &str) -> Option<Value> {
        self.get(name).copied().map(Value::Number)
    }

    fn put(&mut self, name: &str, value: Value) -> bool {
        let number = u64::of(value).filter(|_| Limits::TABLE.iter().any(|info| info.name == name));
        number.is_some_and(|number| {
            self.insert(name.into(), number);
            true
        })
    }
}
