// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The same keys in JSON: one flat object without what is as it is by itself, and in it `limits` as an object. It may be
//! flattened into a VMM's own, after what that has of the bus.
//!
//! To read checks types and names; `check` refuses impossible values, as for whoever fills in the fields.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Formatter, Result as FmtResult};
use std::marker::PhantomData;
use std::path::PathBuf;

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::grammar::Reader;
use super::key::{Key, Keys, Kind, Owner, Value};
use super::table::{GpuOption, VmmGpuOption};

const LIMITS: &str = "limits";

/// A structure of keys that is an object of its own.
trait Object: Keys {
    const READER: Reader;
    fn limits(&mut self) -> &mut BTreeMap<String, u64>;
}

fn write<T: Keys, S: Serializer>(
    option: &T,
    limits: &BTreeMap<String, u64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut object = serializer.serialize_map(None)?;
    for key in T::keys() {
        if key.owner != Owner::Limit && option.is_given(&key) {
            object.serialize_entry(key.name, &option.get(key.name))?;
        }
    }
    if !limits.is_empty() {
        object.serialize_entry(LIMITS, limits)?;
    }
    object.end()
}

/// Reads an object.
struct Entries<T>(PhantomData<T>);

impl<'de, T: Object> Visitor<'de> for Entries<T> {
    type Value = T;

    fn expecting(&self, f: &mut Formatter<'_>) -> FmtResult {
        f.write_str("an object with keys of --gpu")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let (mut option, mut seen) = (T::default(), BTreeSet::new());
        while let Some(name) = map.next_key::<String>()? {
            if name == LIMITS {
                *option.limits() = map.next_value()?;
            } else {
                let key = T::READER.find(&name).map_err(Error::custom)?;
                read(&mut option, &key, &mut map)?;
            }
            if let Some(name) = seen.replace(name) {
                return Err(Error::custom(format_args!("'{name}' is given twice")));
            }
        }
        Ok(option)
    }
}

fn read<'de, T, A>(option: &mut T, key: &Key, map: &mut A) -> Result<(), A::Error>
where
    T: Object,
    A: MapAccess<'de>,
{
    if key.owner == Owner::Bus {
        return map.next_value::<IgnoredAny>().map(drop);
    }
    let value = map.next_value_seed(key)?;
    let set = match value {
        // What is nothing by itself may be said to be.
        None => key.default.is_none(),
        Some(value) => option.put(key.name, value),
    };
    let refused = || Error::custom(format_args!("'{}' cannot be that", key.form()));
    set.then_some(()).ok_or_else(refused)
}

impl<'de> DeserializeSeed<'de> for &Key {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Self::Value, D::Error> {
        let named = |error: D::Error| Error::custom(format_args!("'{}': {error}", self.name));
        let value = match self.kind {
            Kind::Switch => Option::<bool>::deserialize(input).map(|on| on.map(Value::Switch)),
            Kind::Number { .. } | Kind::Size { .. } => {
                Option::<u64>::deserialize(input).map(|number| number.map(Value::Number))
            }
            Kind::Path => Option::<PathBuf>::deserialize(input).map(|path| path.map(Value::Path)),
            Kind::Word { .. } => {
                let word = Option::<String>::deserialize(input).map_err(named)?;
                let read = |word: String| {
                    let value = self.kind.read(&word);
                    value.ok_or_else(|| Error::custom(self.refuse(&word)))
                };
                return word.map(read).transpose();
            }
            // These stand in an object of their own, or are skipped.
            Kind::Limit { .. } | Kind::Foreign => {
                return Err(Error::custom(format_args!(
                    "'{}' belongs in '{LIMITS}'",
                    self.name
                )));
            }
        };
        value.map_err(named)
    }
}

macro_rules! object {
    ($type:ty, $reader:ident, $($limits:ident).+) => {
        impl Object for $type {
            const READER: Reader = Reader::$reader;

            fn limits(&mut self) -> &mut BTreeMap<String, u64> {
                &mut self.$($limits).+
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                write(self, &self.$($limits).+, serializer)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                input.deserialize_map(Entries(PhantomData))
            }
        }
    };
}

object!(GpuOption, Server, limits);
object!(VmmGpuOption, Vmm, gpu.limits);
