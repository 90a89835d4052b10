// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A context: its sub-contexts, and what it made in streams.

use std::collections::BTreeMap;

use crate::codec::{Command, ResourceCreate, commands};
use crate::command::{Effect, Number};
use crate::loss::Loss;
use crate::sub_context::{Fault, SUB_CONTEXT_BYTES, SubContext, has_right_length};

/// What a shadow keeps of one context, in bytes: a browser has some megabytes of shaders.
pub const MAX_BYTES: u64 = 64 << 20;
/// Objects of one sub-context.
pub const MAX_OBJECTS: usize = 65_536;
/// Sub-contexts of one context. Each is an OpenGL context of the host.
pub const MAX_SUB_CONTEXTS: usize = 1024;
/// Resources that were made in a stream and not taken yet, and those that were given a type.
const MAX_RESOURCES: usize = 16_384;

/// What a resource in a table costs, in bytes.
const RESOURCE_BYTES: u64 = 96;

/// A context as it is.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) sub_contexts: BTreeMap<u32, SubContext>,
    pub(crate) current: u32,
    /// Resources made in a stream that no blob has taken, by the number that one takes them by.
    pub(crate) untaken: BTreeMap<u32, ResourceCreate>,
    /// The command that gave a resource its type, by the resource.
    pub(crate) types: BTreeMap<u32, Vec<u32>>,
    bytes: u64,
}

impl Default for Context {
    /// With sub-context 0, which there always is.
    fn default() -> Self {
        Self {
            sub_contexts: BTreeMap::from([(0, SubContext::default())]),
            current: 0,
            untaken: BTreeMap::new(),
            types: BTreeMap::new(),
            bytes: SUB_CONTEXT_BYTES,
        }
    }
}

impl Context {
    /// What it keeps, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn take(&mut self, blob_id: u32) -> Option<ResourceCreate> {
        let taken = self.untaken.remove(&blob_id)?;
        self.bytes = self.bytes.saturating_sub(RESOURCE_BYTES);
        Some(taken)
    }

    pub(crate) fn follow(&mut self, stream: &[u32]) -> Result<(), Loss> {
        for command in commands(stream) {
            let (at, command) = command.map_err(|_| Loss::Truncated)?;
            let number = command.number;
            self.follow_one(&command).map_err(|fault| match fault {
                Fault::Malformed => Loss::Malformed { number, at },
                Fault::Loss(loss) => loss,
            })?;
        }
        Ok(())
    }

    fn follow_one(&mut self, command: &Command<'_>) -> Result<(), Fault> {
        let number = command.number;
        let info = number.info().ok_or(Loss::Unknown { number })?;
        if !has_right_length(command, info) {
            return Err(Fault::Malformed);
        }
        match info.effect {
            Effect::Action => Ok(()),
            Effect::NoForm => Err(Loss::NoForm { number }.into()),
            Effect::SubContext => self.sub_context(command),
            Effect::Resource => self.resource(command),
            effect @ (Effect::Object | Effect::Sticky(_) | Effect::Query) => {
                let sub = self.sub_contexts.get_mut(&self.current);
                let sub = sub.ok_or(Fault::Malformed)?;
                let before = sub.bytes();
                let followed = sub.follow(command, effect);
                let (after, objects) = (sub.bytes(), sub.objects.len());
                self.bytes = self.bytes.saturating_sub(before).saturating_add(after);
                followed?;
                at_most("objects in a sub-context", objects, MAX_OBJECTS)?;
                self.check_bytes()
            }
        }
    }

    fn check_bytes(&self) -> Result<(), Fault> {
        if self.bytes > MAX_BYTES {
            let (what, most) = ("bytes of state", MAX_BYTES);
            return Err(Loss::TooMuch { what, most }.into());
        }
        Ok(())
    }

    /// A sub-context that is made is the current one from then on; one that there is stays as it is.
    fn sub_context(&mut self, command: &Command<'_>) -> Result<(), Fault> {
        let id = command.field(0).ok_or(Fault::Malformed)?;
        let known = self.sub_contexts.contains_key(&id);
        match command.number {
            Number::SET_SUB_CTX if known => self.current = id,
            Number::CREATE_SUB_CTX if !known => {
                let count = self.sub_contexts.len().saturating_add(1);
                at_most("sub-contexts", count, MAX_SUB_CONTEXTS)?;
                self.sub_contexts.insert(id, SubContext::default());
                self.bytes = self.bytes.saturating_add(SUB_CONTEXT_BYTES);
                self.current = id;
                self.check_bytes()?;
            }
            Number::DESTROY_SUB_CTX if id != 0 => {
                let ended = self.sub_contexts.remove(&id);
                let bytes = ended.as_ref().map_or(0, SubContext::bytes);
                self.bytes = self.bytes.saturating_sub(bytes);
                if self.current == id {
                    self.current = 0;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn resource(&mut self, command: &Command<'_>) -> Result<(), Fault> {
        let count = self.untaken.len().saturating_add(self.types.len());
        at_most("resources made or typed in streams", count, MAX_RESOURCES)?;
        if let Some(made) = command.resource_create() {
            let blob_id = made.blob_id;
            if self.untaken.insert(blob_id, made).is_some() {
                return Err(Loss::TakenTwice { blob_id }.into());
            }
            self.bytes = self.bytes.saturating_add(RESOURCE_BYTES);
        } else {
            let id = command.field(0).ok_or(Fault::Malformed)?;
            let bytes = |words: &[u32]| (words.len() as u64).saturating_mul(4);
            let before = self.types.insert(id, command.body.to_vec());
            let before = before.map_or(0, |words| bytes(&words).saturating_add(RESOURCE_BYTES));
            let after = bytes(command.body).saturating_add(RESOURCE_BYTES);
            self.bytes = self.bytes.saturating_sub(before).saturating_add(after);
        }
        self.check_bytes()
    }

    pub(crate) fn forget_resource(&mut self, id: u32) {
        if let Some(words) = self.types.remove(&id) {
            let bytes = (words.len() as u64).saturating_mul(4);
            self.bytes = self
                .bytes
                .saturating_sub(bytes.saturating_add(RESOURCE_BYTES));
        }
        for sub in self.sub_contexts.values_mut() {
            sub.forget_resource(id);
        }
    }
}

fn at_most(what: &'static str, count: usize, most: usize) -> Result<(), Fault> {
    if count > most {
        let most = most as u64;
        return Err(Loss::TooMuch { what, most }.into());
    }
    Ok(())
}
