// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Plain data to a renderer. It is untrusted: all of it is checked before anything is made.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use virgl_stream::{Replay, Shadow};
use virtio_gpu_s3::renderer::{Data, Operation, Resource3d};
use virtio_gpu_s3::{Renderer, RendererError};

use crate::error::RestoreError;
use crate::followed::{Context, Followed, Held, Speaks, is_virgl};
use crate::level::{Level, levels};
use crate::save::save_capsets;
use crate::saved::{KIND, SavedContext, SavedRenderer, SavedResource, VERSION};

/// The largest texture there is, as a guest of the device may make it.
const MAX_DIMENSION: u32 = 32_768;
/// Its mip levels, less one.
const MAX_LEVEL: u32 = 15;
/// Dwords of a stream: what a device takes from a guest at once unless told otherwise, in bytes.
const STREAM_DWORDS: usize = (1 << 20) / 4;

/// A saved state that is in order.
struct Checked {
    resources: BTreeMap<u32, (Resource3d, Vec<Level>)>,
    contexts: Vec<(SavedContext, Replay, Shadow)>,
}

impl<R: Renderer> Followed<R> {
    /// Makes what was saved in a renderer that has nothing yet, of which the resources take at most so many bytes.
    /// `contents` gives the bytes of each level, in the order in which [`save`](Self::save) gave them.
    ///
    /// # Errors
    /// The state is none, or none for this renderer, which then still has nothing; or the renderer fails.
    pub fn restore(
        &mut self,
        saved: SavedRenderer,
        most_bytes: u64,
        mut contents: impl FnMut(u32, &Level) -> Vec<u8>,
    ) -> Result<(), RestoreError> {
        if !self.contexts.is_empty() || !self.resources.is_empty() {
            return Err(RestoreError::NotEmpty);
        }
        self.check_capsets(&saved)?;
        let checked = check(saved, most_bytes)?;
        let made = self.make(&checked, &mut contents);
        if made.is_err() {
            self.end_all();
            return made;
        }
        for (id, (params, _)) in checked.resources {
            self.resources.insert(id, Held::Rendered(params));
        }
        for (saved, _, shadow) in checked.contexts {
            let context = Context {
                context_init: saved.context_init,
                name: saved.name,
                attached: saved.attached.into_iter().collect(),
                speaks: Speaks::Virgl(Box::new(shadow)),
            };
            self.contexts.insert(saved.id, context);
        }
        Ok(())
    }

    /// What the guest was told of its renderer stays true.
    fn check_capsets(&mut self, saved: &SavedRenderer) -> Result<(), RestoreError> {
        let SavedRenderer { kind, version, .. } = saved;
        if kind != KIND || *version != VERSION {
            return Err(RestoreError::Unknown {
                kind: kind.chars().take(64).collect(),
                version: *version,
            });
        }
        let own = save_capsets(&mut self.inner).map_err(failed("its capsets"))?;
        let changed = saved.capsets.iter().find(|capset| !own.contains(capset));
        let missing = own.iter().find(|capset| !saved.capsets.contains(capset));
        match changed.or(missing) {
            Some(capset) => Err(RestoreError::Capset { id: capset.info.id }),
            None => Ok(()),
        }
    }

    fn make(
        &mut self,
        checked: &Checked,
        contents: &mut dyn FnMut(u32, &Level) -> Vec<u8>,
    ) -> Result<(), RestoreError> {
        for (context, ..) in &checked.contexts {
            let create = Operation::CreateContext {
                ctx_id: context.id,
                context_init: context.context_init,
            };
            let made = self.inner.call(create.with(Data::Bytes(&context.name)));
            made.map_err(failed("a context"))?;
            // For the end, should it come to that.
            let context_init = context.context_init;
            self.contexts.insert(context.id, unmade(context_init));
        }
        for (id, (params, levels)) in &checked.resources {
            let (resource_id, params) = (*id, *params);
            let create = Operation::CreateResource {
                resource_id,
                params,
            };
            let made = self.inner.call(create.call());
            made.map_err(failed("a resource"))?;
            self.resources.insert(resource_id, Held::Rendered(params));
            for level in levels {
                self.fill(resource_id, level, &contents(resource_id, level))?;
            }
        }
        for (context, replay, _) in &checked.contexts {
            self.make_context(context, replay)?;
        }
        Ok(())
    }

    fn fill(&mut self, id: u32, level: &Level, bytes: &[u8]) -> Result<(), RestoreError> {
        let wrong = || RestoreError::Contents {
            id,
            level: level.level,
            found: bytes.len(),
            needed: level.bytes().unwrap_or(usize::MAX),
        };
        if level.bytes() != Some(bytes.len()) {
            return Err(wrong());
        }
        for piece in level.pieces() {
            let end = piece.start.saturating_add(piece.bytes);
            let source = bytes.get(piece.start..end).ok_or_else(wrong)?;
            let write = Operation::WriteLevel {
                resource_id: id,
                transfer: piece.transfer,
            };
            let written = self.inner.call(write.with(Data::Bytes(source)));
            written.map_err(failed("the contents of a resource"))?;
        }
        Ok(())
    }

    fn make_context(
        &mut self,
        context: &SavedContext,
        replay: &Replay,
    ) -> Result<(), RestoreError> {
        let ctx_id = context.id;
        for id in &context.attached {
            let attach = Operation::AttachResource {
                ctx_id,
                resource_id: *id,
            };
            let attached = self.inner.call(attach.call());
            attached.map_err(failed("an attachment"))?;
        }
        for stream in replay.streams(STREAM_DWORDS) {
            let mut words = stream.to_vec();
            let submit = Operation::Submit {
                ctx_id,
                in_fences: Vec::new(),
            };
            let ran = self.inner.call(submit.with(Data::Words(&mut words)));
            ran.map_err(failed("a context's state"))?;
        }
        Ok(())
    }

    /// What was made is gone again, for the renderer and for us; a renderer that cannot do that has ended.
    fn end_all(&mut self) {
        for ctx_id in mem::take(&mut self.contexts).into_keys() {
            drop(self.inner.call(Operation::DestroyContext { ctx_id }.call()));
        }
        for resource_id in mem::take(&mut self.resources).into_keys() {
            let destroy = Operation::DestroyResource { resource_id };
            drop(self.inner.call(destroy.call()));
        }
    }
}

fn unmade(context_init: u32) -> Context {
    Context {
        context_init,
        name: Vec::new(),
        attached: BTreeSet::new(),
        speaks: Speaks::Virgl(Box::default()),
    }
}

fn failed(what: &'static str) -> impl Fn(RendererError) -> RestoreError {
    move |source| RestoreError::Renderer { what, source }
}

fn check(saved: SavedRenderer, most_bytes: u64) -> Result<Checked, RestoreError> {
    let mut left = most_bytes;
    let mut resources = BTreeMap::new();
    for resource in &saved.resources {
        let SavedResource { id, params } = *resource;
        let refuse = |what| Err(RestoreError::Resource { id, what });
        if id == 0 || resources.contains_key(&id) {
            return refuse("its id is taken");
        }
        if !is_possible(&params) {
            return refuse("no guest can make one of such a size");
        }
        let Ok(levels) = levels(id, &params) else {
            return refuse("it could not have been saved");
        };
        for level in &levels {
            let bytes = level.bytes().and_then(|bytes| u64::try_from(bytes).ok());
            let rest = bytes.and_then(|bytes| left.checked_sub(bytes));
            let Some(rest) = rest else {
                return refuse("there is no room for it");
            };
            left = rest;
        }
        resources.insert(id, (params, levels));
    }
    let (mut contexts, mut ids) = (Vec::new(), BTreeSet::new());
    for mut context in saved.contexts {
        let ctx_id = context.id;
        let refuse = |what| Err(RestoreError::Context { ctx_id, what });
        if ctx_id == 0 || !ids.insert(ctx_id) {
            return refuse("its id is taken");
        }
        if !is_virgl(context.context_init) {
            return refuse("its streams are not virgl's");
        }
        let mut attached = context.attached.iter();
        if attached.any(|id| !resources.contains_key(id)) {
            return refuse("it uses a resource that does not exist");
        }
        let words = mem::take(&mut context.replay);
        let (replay, shadow) =
            Replay::check(words).map_err(|source| RestoreError::Replay { ctx_id, source })?;
        contexts.push((context, replay, shadow));
    }
    Ok(Checked {
        resources,
        contexts,
    })
}

/// What the device lets a guest make; one of one sample, as others cannot be saved.
fn is_possible(params: &Resource3d) -> bool {
    let Resource3d {
        target,
        format: _,
        bind: _,
        width,
        height,
        depth,
        array_size,
        last_level,
        nr_samples,
        flags: _,
    } = *params;
    let (widest, others) = if target == 0 {
        (u32::MAX, 1)
    } else {
        (MAX_DIMENSION, MAX_DIMENSION)
    };
    (1..=widest).contains(&width)
        && [height, depth, array_size]
            .iter()
            .all(|size| (1..=others).contains(size))
        && last_level <= MAX_LEVEL
        && nr_samples <= 1
}
