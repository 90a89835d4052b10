// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! KEY=VALUE,... as text, and what must hold however the values came.

use std::collections::BTreeSet;

use virtio_gpu_s3::Limits;

use super::error::OptionError;
use super::key::{Key, Keys, Need, Owner, listed};
use super::table::all;

/// Who reads a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// The server, or whoever has the GPU alone.
    Server,
    /// A VMM.
    Vmm,
}

impl Reader {
    /// Whether a key may be there.
    fn takes(self, key: &Key) -> bool {
        self == Self::Vmm || matches!(key.owner, Owner::Gpu | Owner::Limit)
    }

    /// The keys that may be there, for a person; the limits have a table of their own.
    fn listed(self) -> String {
        let keys = all().filter(|key| self.takes(key) && key.owner != Owner::Limit);
        let names: Vec<&str> = keys.map(|key| key.name).collect();
        format!("{}, and limits", names.join(", "))
    }

    /// The row of a key.
    pub(super) fn find(self, name: &str) -> Result<Key, OptionError> {
        let (key, keys) = (name.to_owned(), self.listed());
        match all().find(|key| key.name == name) {
            Some(found) if self.takes(&found) => Ok(found),
            Some(_) => Err(OptionError::VmmKey { key, keys }),
            None => Err(OptionError::UnknownKey { key, keys }),
        }
    }
}

/// Reads a text into what is there by itself, and the keys that it gives.
pub(super) fn parse<T: Keys>(reader: Reader, text: &str) -> Result<(T, Vec<Key>), OptionError> {
    let (mut option, mut given, mut seen) = (T::default(), Vec::new(), BTreeSet::new());
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let pair = part.split_once('=');
        let (name, text) = pair.ok_or_else(|| OptionError::NotAPair { part: part.into() })?;
        if !seen.insert(name) {
            return Err(OptionError::Twice { key: name.into() });
        }
        let key = reader.find(name)?;
        if key.owner != Owner::Bus {
            let value = key.kind.read(text).ok_or_else(|| key.refuse(text))?;
            if !option.put(name, value) {
                return Err(key.refuse(text));
            }
            given.push(key);
        }
    }
    Ok((option, given))
}

/// Checks each value, and that what is given has what it needs.
pub(super) fn check<T: Keys>(option: &T) -> Result<(), OptionError> {
    let keys = T::keys();
    for key in &keys {
        if let Some(value) = option.get(key.name)
            && !key.kind.allows(&value)
        {
            return Err(key.refuse(&value.to_string()));
        }
    }
    for key in keys.iter().filter(|key| option.is_given(key)) {
        let lacks = |need: &&Need| !need.any.iter().any(|wanted| holds(option, &keys, wanted));
        if let Some(need) = key.needs.iter().find(lacks) {
            return Err(OptionError::Needs {
                key: key.name,
                needs: need.any.join(" or "),
                why: need.why,
            });
        }
    }
    Ok(())
}

/// Whether KEY=VALUE is so; where VALUE is the key's form, whether it has any.
fn holds<T: Keys>(option: &T, keys: &[Key], wanted: &str) -> bool {
    keys.iter().any(|key| match option.get(key.name) {
        Some(value) => wanted == key.form() || wanted == format!("{}={value}", key.name),
        None => false,
    })
}

/// A server's GPU takes its keys at the server.
pub(super) fn check_alone<'a>(given: impl IntoIterator<Item = &'a Key>) -> Result<(), OptionError> {
    match given.into_iter().find(|key| key.name != "socket") {
        Some(key) => Err(OptionError::KeyWithSocket { key: key.name }),
        None => Ok(()),
    }
}

/// Limits are a map, which can have names that no limit has.
pub(super) fn check_names<'a>(
    mut names: impl Iterator<Item = &'a String>,
) -> Result<(), OptionError> {
    let known: Vec<&str> = Limits::TABLE.iter().map(|info| info.name).collect();
    match names.find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(OptionError::UnknownLimit {
            name: name.clone(),
            limits: listed(&known),
        }),
        None => Ok(()),
    }
}
