// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The objects of a sub-context.

use std::collections::BTreeMap;

use crate::command::ObjectType;
use crate::loss::Loss;

/// What an object costs besides the dwords of its creation, in bytes.
pub(crate) const OBJECT_BYTES: u64 = 128;

/// Tells an object from one that had its handle before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Serial(pub(crate) u64);

/// An object, alive or destroyed and still bound.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) serial: Serial,
    pub(crate) handle: u32,
    pub(crate) kind: ObjectType,
    /// Its creation, as it came: headers too, and all parts of a long shader.
    pub(crate) creation: Vec<u32>,
    pub(crate) progress: Progress,
    /// How often it is bound.
    pub(crate) bound: u32,
    /// Its resource is gone.
    pub(crate) orphaned: bool,
}

/// What an object has done that is more than its creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nothing that cannot be made again.
    None,
    /// A query was begun.
    Running,
    /// A query has a result in the renderer.
    Unread,
    /// A target of transform feedback was bound.
    Filled,
}

impl Object {
    pub(crate) fn bytes(&self) -> u64 {
        (self.creation.len() as u64)
            .saturating_mul(4)
            .saturating_add(OBJECT_BYTES)
    }

    /// The resource it is made of.
    pub(crate) fn resource(&self) -> Option<u32> {
        // Behind the header.
        let at = self.kind.resource_at()?.checked_add(1)?;
        self.creation.get(at).copied().filter(|id| *id != 0)
    }

    fn loss(&self) -> Option<Loss> {
        let (handle, kind) = (self.handle, self.kind);
        match self.progress {
            Progress::Running => Some(Loss::QueryRuns { handle }),
            Progress::Unread => Some(Loss::QueryUnread { handle }),
            Progress::Filled => Some(Loss::StreamOut { handle }),
            Progress::None => self.orphaned.then_some(Loss::Orphan { handle, kind }),
        }
    }
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Objects {
    alive: BTreeMap<u32, Object>,
    /// Destroyed, and still bound: the renderer counts references.
    dead: BTreeMap<Serial, Object>,
}

impl Objects {
    pub(crate) fn len(&self) -> usize {
        self.alive.len().saturating_add(self.dead.len())
    }

    pub(crate) fn get(&self, handle: u32) -> Option<&Object> {
        self.alive.get(&handle)
    }

    /// The object of that handle, if it is what commands name so.
    pub(crate) fn named(&mut self, handle: u32, kind: ObjectType) -> Option<&mut Object> {
        let object = self.alive.get_mut(&handle);
        object.filter(|object| object.kind.named_as() == kind)
    }

    pub(crate) fn insert(&mut self, object: Object) {
        self.alive.insert(object.handle, object);
    }

    /// Ends the object of that handle; gives it if nothing has it bound.
    pub(crate) fn destroy(&mut self, handle: u32) -> Option<Object> {
        let object = self.alive.remove(&handle)?;
        if object.bound == 0 {
            return Some(object);
        }
        self.dead.insert(object.serial, object);
        None
    }

    /// One binding less; gives the object if that was the last of one that is destroyed.
    pub(crate) fn unbind(&mut self, serial: Serial, handle: u32) -> Option<Object> {
        let alive = self.alive.get_mut(&handle);
        if let Some(object) = alive.filter(|object| object.serial == serial) {
            object.bound = object.bound.saturating_sub(1);
            return None;
        }
        let object = self.dead.get_mut(&serial)?;
        object.bound = object.bound.saturating_sub(1);
        if object.bound > 0 {
            return None;
        }
        self.dead.remove(&serial)
    }

    /// In the order in which they were made.
    pub(crate) fn alive(&self) -> impl Iterator<Item = &Object> {
        let mut list: Vec<_> = self.alive.values().collect();
        list.sort_unstable_by_key(|object| object.serial);
        list.into_iter()
    }

    /// Likewise.
    pub(crate) fn dead(&self) -> impl Iterator<Item = &Object> {
        self.dead.values()
    }

    /// The dead one of that serial.
    pub(crate) fn dead_one(&self, serial: Serial) -> Option<&Object> {
        self.dead.get(&serial)
    }

    /// A handle that no object has, and none of `taken`: the greatest.
    pub(crate) fn free_handle(&self, mut below: u32) -> Option<u32> {
        while below > 0 {
            if !self.alive.contains_key(&below) {
                return Some(below);
            }
            below = below.checked_sub(1)?;
        }
        None
    }

    pub(crate) fn orphan(&mut self, resource: u32) {
        let all = self.alive.values_mut().chain(self.dead.values_mut());
        for object in all.filter(|object| object.resource() == Some(resource)) {
            object.orphaned = true;
        }
    }

    /// Why one of those alive cannot be made again.
    pub(crate) fn loss(&self) -> Option<Loss> {
        self.alive.values().find_map(Object::loss)
    }
}
