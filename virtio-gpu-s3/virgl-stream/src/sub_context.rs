// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A sub-context: an OpenGL context of a guest's, with its objects and its state.

use std::mem;

use crate::codec::Command;
use crate::command::{
    Effect, Info, Keyed, Length, MAX_SLOTS, Names, Number, ObjectType, STAGES, Sticky,
};
use crate::loss::{Loss, Warning};
use crate::object::{Object, Objects, Progress, Serial};
use crate::state::{Bound, Key, Value, Values, objects_named, places};

/// What a sub-context costs besides what is in it, in bytes.
pub(crate) const SUB_CONTEXT_BYTES: u64 = 512;
/// The part of a shader that follows others has this bit.
const CONTINUES: u32 = 1 << 31;

/// Why a command is not followed.
pub(crate) enum Fault {
    /// It cannot be as it is.
    Malformed,
    Loss(Loss),
}

impl From<Loss> for Fault {
    fn from(loss: Loss) -> Self {
        Self::Loss(loss)
    }
}

type Followed = Result<(), Fault>;

#[derive(Clone, Debug)]
pub(crate) struct SubContext {
    pub(crate) objects: Objects,
    pub(crate) values: Values,
    bytes: u64,
    next: u64,
    /// What the value under construction names.
    scratch: Vec<Bound>,
}

impl Default for SubContext {
    fn default() -> Self {
        Self {
            objects: Objects::default(),
            values: Values::default(),
            bytes: SUB_CONTEXT_BYTES,
            next: 0,
            scratch: Vec::new(),
        }
    }
}

impl SubContext {
    /// What it keeps, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A command that is this sub-context's alone, of the right length.
    pub(crate) fn follow(&mut self, command: &Command<'_>, effect: Effect) -> Followed {
        match effect {
            Effect::Object if command.number == Number::CREATE_OBJECT => self.create(command),
            Effect::Object => self.destroy(command.field(0).ok_or(Fault::Malformed)?),
            Effect::Sticky(sticky) => self.stick(command, sticky),
            Effect::Query => self.query(command),
            Effect::Action | Effect::SubContext | Effect::Resource | Effect::NoForm => Ok(()),
        }
    }

    fn create(&mut self, command: &Command<'_>) -> Followed {
        let handle = command.field(0).unwrap_or(0);
        let kind = command.object;
        let length = kind.length().ok_or(Fault::Malformed)?;
        if handle == 0 || !length.allows(command.body.len()) {
            return Err(Fault::Malformed);
        }
        if kind == ObjectType::SHADER && command.field(2).unwrap_or(0) & CONTINUES != 0 {
            return self.continue_shader(handle, command);
        }
        if self.objects.get(handle).is_some() {
            return Err(Loss::Twice { handle }.into());
        }
        let mut creation = Vec::with_capacity(command.body.len().saturating_add(1));
        command
            .encode(&mut creation)
            .map_err(|_| Fault::Malformed)?;
        let object = Object {
            serial: Serial(self.next),
            handle,
            kind,
            creation,
            progress: Progress::None,
            bound: 0,
            orphaned: false,
        };
        self.next = self.next.saturating_add(1);
        self.bytes = self.bytes.saturating_add(object.bytes());
        self.objects.insert(object);
        Ok(())
    }

    fn continue_shader(&mut self, handle: u32, command: &Command<'_>) -> Followed {
        let shader = self.objects.named(handle, ObjectType::SHADER);
        let shader = shader.ok_or(Fault::Malformed)?;
        let before = shader.bytes();
        command
            .encode(&mut shader.creation)
            .map_err(|_| Fault::Malformed)?;
        let after = shader.bytes();
        self.bytes = self.bytes.saturating_sub(before).saturating_add(after);
        Ok(())
    }

    /// The renderer takes some from where they are bound; of others it has a copy or a reference there.
    fn destroy(&mut self, handle: u32) -> Followed {
        let Some(object) = self.objects.get(handle) else {
            return Ok(());
        };
        let (serial, bound) = (object.serial, object.bound > 0);
        let unbinds = match object.kind {
            ObjectType::VERTEX_ELEMENTS => Some(Number::BIND_OBJECT),
            ObjectType::SAMPLER_STATE => Some(Number::BIND_SAMPLER_STATES),
            ObjectType::STREAMOUT_TARGET => Some(Number::SET_STREAMOUT_TARGETS),
            _ => None,
        };
        if let Some(number) = unbinds.filter(|_| bound) {
            for key in self.values.naming(number, serial) {
                self.unset(key);
            }
        }
        let ended = self.objects.destroy(handle);
        self.refund(ended.as_ref());
        Ok(())
    }

    fn refund(&mut self, ended: Option<&Object>) {
        let bytes = ended.map_or(0, Object::bytes);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    fn unset(&mut self, key: Key) {
        let Some(value) = self.values.remove(key) else {
            return;
        };
        self.bytes = self.bytes.saturating_sub(value.bytes());
        self.release(&value.bound);
    }

    fn release(&mut self, bound: &[Bound]) {
        for Bound { handle, serial, .. } in bound {
            let ended = self.objects.unbind(*serial, *handle);
            self.refund(ended.as_ref());
        }
    }

    fn stick(&mut self, command: &Command<'_>, sticky: Sticky) -> Followed {
        let Command {
            number,
            object,
            body,
        } = *command;
        let field = |at| command.field(at).ok_or(Fault::Malformed);
        let stage =
            |at| field(at).and_then(|it| (it < STAGES).then_some(it).ok_or(Fault::Malformed));
        let key = match sticky.keyed {
            Keyed::Once => Key::only(number),
            Keyed::ByObjectType => Key::of(number, object.0.into()),
            Keyed::ByStageAt(at) => Key::of(number, stage(at)?),
            Keyed::ByFirst(1) => Key::of(number, field(0)?),
            Keyed::ByFirst(_) => Key {
                second: field(1)?,
                ..Key::of(number, stage(0)?)
            },
            Keyed::Slots { staged, row } => {
                let (first, head) = if staged { (stage(0)?, 2_usize) } else { (0, 1) };
                let start = field(head.saturating_sub(1))?;
                let rows = body.get(head..).unwrap_or_default();
                return self.stick_slots(command, sticky.names, (first, start), rows, row);
            }
        };
        if number == Number::BIND_OBJECT && !can_be_bound(object) {
            return Err(Fault::Malformed);
        }
        let counted = || field(0)?.checked_add(2).ok_or(Fault::Malformed);
        if number == Number::SET_FRAMEBUFFER_STATE && counted()? as usize != body.len() {
            return Err(Fault::Malformed);
        }
        self.put(key, object, body, sticky.names)
    }

    fn stick_slots(
        &mut self,
        command: &Command<'_>,
        names: Names,
        (first, start): (u32, u32),
        rows: &[u32],
        row: usize,
    ) -> Followed {
        let count = rows.len().checked_div(row).unwrap_or(0);
        let end = u32::try_from(count).unwrap_or(u32::MAX);
        let end = end.saturating_add(start);
        if end > MAX_SLOTS {
            return Err(Fault::Malformed);
        }
        for (slot, words) in (start..end).zip(rows.chunks_exact(row.max(1))) {
            let key = Key {
                number: command.number,
                first,
                second: slot,
            };
            self.put(key, command.object, words, names)?;
        }
        if command.number == Number::SET_SAMPLER_VIEWS {
            let behind = Key {
                number: command.number,
                first,
                second: end,
            };
            let behind: Vec<_> = self.values.slots_from(behind).collect();
            for key in behind {
                self.unset(key);
            }
        }
        Ok(())
    }

    fn put(&mut self, key: Key, in_header: ObjectType, words: &[u32], names: Names) -> Followed {
        self.scratch.clear();
        if let Some((kind, first, every)) = objects_named(names, in_header) {
            for at in places(first, every, words.len()) {
                let handle = words.get(at).copied().unwrap_or(0);
                match self.find(key, handle, kind) {
                    Found::None => {}
                    Found::Object(serial) => self.scratch.push(Bound { at, handle, serial }),
                    Found::Ignored => return Ok(()),
                    Found::Missing => {
                        self.forget_scratch();
                        return Err(Fault::Malformed);
                    }
                }
            }
        }
        if is_as_never_set(key.number, words, names, self.scratch.is_empty()) {
            self.unset(key);
            return Ok(());
        }
        let (more, fewer) = self.values.put(key, words, &mut self.scratch);
        self.bytes = self.bytes.saturating_sub(fewer).saturating_add(more);
        self.forget_scratch();
        Ok(())
    }

    /// What it has is bound no more: what the last value named, or what one names that is not set.
    fn forget_scratch(&mut self) {
        let mut bound = mem::take(&mut self.scratch);
        self.release(&bound);
        bound.clear();
        self.scratch = bound;
    }

    /// The object of that handle, which is bound from now on.
    fn find(&mut self, key: Key, handle: u32, kind: ObjectType) -> Found {
        if handle == 0 {
            return Found::None;
        }
        let object = self.objects.named(handle, kind);
        let fits = |object: &Object| {
            // Behind the header and the handle.
            kind != ObjectType::SHADER || object.creation.get(2) == Some(&key.first)
        };
        match (object, kind) {
            (Some(object), _) if fits(object) => {
                object.bound = object.bound.saturating_add(1);
                if kind == ObjectType::STREAMOUT_TARGET {
                    object.progress = Progress::Filled;
                }
                Found::Object(object.serial)
            }
            (_, ObjectType::SHADER) => Found::Ignored,
            (_, ObjectType::SAMPLER_STATE) => Found::None,
            _ => Found::Missing,
        }
    }

    fn query(&mut self, command: &Command<'_>) -> Followed {
        let handle = command.field(0).ok_or(Fault::Malformed)?;
        let query = self.objects.named(handle, ObjectType::QUERY);
        let query = query.ok_or(Fault::Malformed)?;
        query.progress = match command.number {
            Number::BEGIN_QUERY => Progress::Running,
            Number::END_QUERY => Progress::Unread,
            // Where it is not there yet the renderer keeps it, and a device at rest has waited for that.
            Number::GET_QUERY_RESULT if query.progress == Progress::Unread => Progress::None,
            _ => query.progress,
        };
        Ok(())
    }

    pub(crate) fn forget_resource(&mut self, id: u32) {
        self.objects.orphan(id);
        self.values.forget_resource(id);
    }

    pub(crate) fn loss(&self) -> Option<Loss> {
        let condition = self.values.get(Key::only(Number::SET_RENDER_CONDITION));
        let conditional = condition.map(|_| Loss::Conditional);
        conditional.or_else(|| self.objects.loss())
    }

    /// What a value names that is made of a resource that is gone.
    pub(crate) fn names_gone(&self, value: &Value) -> bool {
        let dead = |bound: &Bound| self.objects.dead_one(bound.serial);
        value
            .bound
            .iter()
            .filter_map(dead)
            .any(|object| object.orphaned)
    }

    pub(crate) fn warnings(&self) -> Vec<Warning> {
        let by_object = self
            .values
            .iter()
            .filter(|(_, value)| self.names_gone(value));
        let by_object = by_object.map(|(key, _)| Warning::GoneResource { number: key.number });
        self.values.warnings().chain(by_object).collect()
    }
}

enum Found {
    /// Nothing is to be bound.
    None,
    Object(Serial),
    /// The renderer does nothing.
    Ignored,
    /// The renderer refuses.
    Missing,
}

fn can_be_bound(kind: ObjectType) -> bool {
    matches!(
        kind,
        ObjectType::BLEND | ObjectType::RASTERIZER | ObjectType::DSA | ObjectType::VERTEX_ELEMENTS
    )
}

/// Whether the renderer is as if the value had never been set.
pub(crate) fn is_as_never_set(
    number: Number,
    words: &[u32],
    names: Names,
    no_object: bool,
) -> bool {
    match (number, names) {
        // Without surfaces it still says that there are none.
        (Number::SET_FRAMEBUFFER_STATE, _) => false,
        (Number::SET_VERTEX_BUFFERS, _) => words.is_empty(),
        (_, Names::Nothing) => false,
        (_, Names::Objects { .. } | Names::Bound) => no_object,
        (_, Names::Resources { first, .. }) => words.get(first).is_none_or(|id| *id == 0),
    }
}

/// Whether the command's length can be.
pub(crate) fn has_right_length(command: &Command<'_>, info: &Info) -> bool {
    match info.length {
        // One of both.
        Length::Rows { .. } if command.number == Number::SET_INDEX_BUFFER => {
            matches!(command.body.len(), 1 | 3)
        }
        length => length.allows(command.body.len()),
    }
}
