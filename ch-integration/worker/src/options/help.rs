// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The keys as a command's help explains them.

use super::key::{Key, Keys, Kind, Owner};
use super::table::{GpuOption, VmmGpuOption, all};

impl Key {
    /// What it is unless given, as text.
    pub(super) fn usual(&self) -> String {
        self.default
            .as_ref()
            .map_or_else(|| "none".into(), ToString::to_string)
    }

    /// What has to be given with it, as text; empty for nothing.
    pub(super) fn needed(&self) -> String {
        let needs = self.needs.iter().map(|need| need.any.join(" or "));
        needs.collect::<Vec<_>>().join(" and ")
    }

    fn explained(&self) -> String {
        let (name, usual, help) = (self.name, self.usual(), self.help);
        let values = self.kind.values();
        if self.owner == Owner::Limit {
            return format!("  {name}={usual}  ({values})\n      {help}\n");
        }
        let needs = match self.needed().as_str() {
            "" => String::new(),
            needed => format!("; needs {needed}"),
        };
        format!("  {name}={values}  (default {usual}{needs})\n      {help}\n")
    }
}

impl GpuOption {
    /// Every key with its values, its default, what it needs and what it is, limits last: for a command's `--help`.
    pub fn help() -> String {
        let (limits, keys): (Vec<Key>, Vec<Key>) = Self::keys()
            .into_iter()
            .partition(|key| key.owner == Owner::Limit);
        let text = |keys: &[Key]| keys.iter().map(Key::explained).collect::<String>();
        let (keys, limits) = (text(&keys), text(&limits));
        format!("Keys of --gpu:\n{keys}\nLimits, as keys of --gpu:\n{limits}")
    }

    /// The names of every key, limits among them.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Self::keys().into_iter().map(|key| key.name)
    }
}

impl VmmGpuOption {
    /// The grammar in one line, for a VMM's help: every key with its values, limits and those of the bus among them.
    pub fn syntax() -> String {
        let form = |key: Key| match key.kind {
            Kind::Switch | Kind::Word { .. } => key.form(),
            Kind::Limit { least, most } => format!("{}=<{least}-{most}>", key.name),
            Kind::Foreign => format!("{0}=<{0}>", key.name),
            kind => format!("{}=<{}>", key.name, kind.form().to_lowercase()),
        };
        all().map(form).collect::<Vec<_>>().join(",")
    }
}
