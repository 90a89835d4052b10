// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A renderer around a renderer, which notes what calls leave behind.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use virgl_stream::Shadow;
use virtio_gpu_s3::renderer::{
    Answer, Begun, Call, CapsetInfo, Completion, Data, Operation, Resource3d, Ticket,
};
use virtio_gpu_s3::{Renderer, RendererError};

use crate::error::Unsaved;
use crate::level::levels;

/// Bytes of state of all contexts. A guest can have 1024 of them, each with what one may have.
const MAX_STATE_BYTES: u64 = 256 << 20;
/// The part of `context_init` that names a capset (VIRTIO 1.4 §5.7.6.9); 0 is any.
const CAPSET_MASK: u32 = 0xff;
/// Those that are virgl.
const VIRGL: [u32; 3] = [0, 1, 2];

/// A renderer that hands every call on to another, and notes what it leaves behind there.
#[derive(Debug)]
pub struct Followed<R> {
    pub(crate) inner: R,
    pub(crate) contexts: BTreeMap<u32, Context>,
    pub(crate) resources: BTreeMap<u32, Held>,
    /// Calls in flight, and whose stream each is, if it is one.
    in_flight: BTreeMap<Ticket, Option<u32>>,
    /// A stream's copy, which nobody else can change.
    stream: Vec<u32>,
}

/// A context, as far as it can be made again.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) context_init: u32,
    pub(crate) name: Vec<u8>,
    pub(crate) attached: BTreeSet<u32>,
    pub(crate) speaks: Speaks,
}

/// Whether the streams of a context that was made with that are virgl's.
pub(crate) fn is_virgl(context_init: u32) -> bool {
    VIRGL.contains(&(context_init & CAPSET_MASK))
}

/// What a context's streams are.
#[derive(Debug)]
pub(crate) enum Speaks {
    Virgl(Box<Shadow>),
    /// Another protocol, by its capset: nothing is known of it.
    Other(u32),
}

impl Context {
    fn new(context_init: u32, name: Vec<u8>) -> Self {
        Self {
            context_init,
            name,
            attached: BTreeSet::new(),
            speaks: if is_virgl(context_init) {
                Speaks::Virgl(Box::default())
            } else {
                Speaks::Other(context_init & CAPSET_MASK)
            },
        }
    }

    fn forget(&mut self, resource_id: u32) {
        if self.attached.remove(&resource_id)
            && let Speaks::Virgl(shadow) = &mut self.speaks
        {
            shadow.forget_resource(resource_id);
        }
    }
}

/// A resource of the renderer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    Rendered(Resource3d),
    Blob,
}

/// What a call leaves behind, if it succeeds; an end is one in any case.
enum Change {
    Nothing,
    Context {
        id: u32,
        context: Context,
    },
    ContextEnds(u32),
    Attached {
        ctx_id: u32,
        id: u32,
    },
    Detached {
        ctx_id: u32,
        id: u32,
    },
    Resource {
        id: u32,
        held: Held,
        taken: Option<(u32, u64)>,
    },
    ResourceEnds(u32),
}

impl Change {
    fn of(operation: &Operation, data: &Data<'_>) -> Self {
        match *operation {
            Operation::CreateContext {
                ctx_id,
                context_init,
            } => {
                let name = match data {
                    Data::Bytes(name) => name.to_vec(),
                    _ => Vec::new(),
                };
                Self::Context {
                    id: ctx_id,
                    context: Context::new(context_init, name),
                }
            }
            Operation::DestroyContext { ctx_id } => Self::ContextEnds(ctx_id),
            Operation::AttachResource {
                ctx_id,
                resource_id: id,
            } => Self::Attached { ctx_id, id },
            Operation::DetachResource {
                ctx_id,
                resource_id: id,
            } => Self::Detached { ctx_id, id },
            Operation::CreateResource {
                resource_id: id,
                params,
            } => Self::Resource {
                id,
                held: Held::Rendered(params),
                taken: None,
            },
            Operation::CreateBlob {
                ctx_id,
                resource_id: id,
                params,
            } => Self::Resource {
                id,
                held: Held::Blob,
                taken: Some((ctx_id, params.blob_id)),
            },
            Operation::DestroyResource { resource_id } => Self::ResourceEnds(resource_id),
            _ => Self::Nothing,
        }
    }
}

impl<R: Renderer> Followed<R> {
    /// Follows a renderer that has nothing of a guest's yet.
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            contexts: BTreeMap::new(),
            resources: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            stream: Vec::new(),
        }
    }

    /// The renderer itself.
    pub fn inner(&self) -> &R {
        &self.inner
    }

    /// Why it cannot be saved now; `None` if it can.
    pub fn unsaved(&self) -> Option<Unsaved> {
        if !self.in_flight.is_empty() {
            let calls = self.in_flight.len();
            return Some(Unsaved::InFlight { calls });
        }
        let context = self.contexts.iter().find_map(|(id, context)| {
            let ctx_id = *id;
            match &context.speaks {
                Speaks::Virgl(shadow) => {
                    let loss = shadow.loss()?;
                    Some(Unsaved::Context { ctx_id, loss })
                }
                Speaks::Other(capset) => Some(Unsaved::Capset {
                    ctx_id,
                    capset: *capset,
                }),
            }
        });
        let resource = || {
            self.resources.iter().find_map(|(id, held)| match held {
                Held::Rendered(params) => levels(*id, params).err(),
                Held::Blob => Some(Unsaved::Blob { id: *id }),
            })
        };
        context.or_else(resource)
    }

    /// Bytes that are kept for contexts' state.
    pub fn state_bytes(&self) -> u64 {
        let all = self.contexts.values().map(|context| match &context.speaks {
            Speaks::Virgl(shadow) => shadow.bytes(),
            Speaks::Other(_) => 0,
        });
        all.fold(0, u64::saturating_add)
    }

    /// Hands a call on with `go`, and notes what it leaves behind.
    fn follow(&mut self, call: Call<'_>, go: impl FnOnce(&mut R, Call<'_>) -> Begun) -> Begun {
        if let Operation::Submit { ctx_id, .. } = call.operation
            && let Some(Context {
                speaks: Speaks::Virgl(_),
                ..
            }) = self.contexts.get(&ctx_id)
        {
            return self.submit(ctx_id, call, go);
        }
        let change = Change::of(&call.operation, &call.data);
        let is_end = call.operation.is_an_end();
        let begun = go(&mut self.inner, call);
        if is_end || !matches!(begun, Begun::Answered(Err(_))) {
            self.apply(change);
        }
        begun
    }

    /// What is fed is what the renderer gets: nobody can change the copy in between.
    fn submit(
        &mut self,
        ctx_id: u32,
        call: Call<'_>,
        go: impl FnOnce(&mut R, Call<'_>) -> Begun,
    ) -> Begun {
        let Call {
            operation,
            data,
            fence,
        } = call;
        let mut buffer = mem::take(&mut self.stream);
        let begun = match data.words(&mut buffer) {
            Err(error) => Begun::Answered(Err(error)),
            Ok(words) => {
                self.feed(ctx_id, words);
                let call = operation.with(Data::Words(words)).fenced(fence);
                go(&mut self.inner, call)
            }
        };
        self.stream = buffer;
        if let Begun::Answered(Err(_)) = begun {
            self.refused(ctx_id);
        }
        begun
    }

    fn feed(&mut self, ctx_id: u32, words: &[u32]) {
        if let Some(Speaks::Virgl(shadow)) = self.speaks(ctx_id) {
            let before = shadow.bytes();
            shadow.feed(words);
            // The sum is taken where it can have become too large only.
            if shadow.bytes() > before
                && self.state_bytes() > MAX_STATE_BYTES
                && let Some(Speaks::Virgl(shadow)) = self.speaks(ctx_id)
            {
                shadow.give_up(MAX_STATE_BYTES);
            }
        }
    }

    fn speaks(&mut self, ctx_id: u32) -> Option<&mut Speaks> {
        Some(&mut self.contexts.get_mut(&ctx_id)?.speaks)
    }

    fn refused(&mut self, ctx_id: u32) {
        if let Some(Speaks::Virgl(shadow)) = self.speaks(ctx_id) {
            shadow.refused();
        }
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Nothing => {}
            Change::Context { id, context } => {
                self.contexts.insert(id, context);
            }
            Change::ContextEnds(id) => {
                self.contexts.remove(&id);
            }
            Change::Attached { ctx_id, id } => {
                if let Some(context) = self.contexts.get_mut(&ctx_id) {
                    context.attached.insert(id);
                }
            }
            Change::Detached { ctx_id, id } => {
                if let Some(context) = self.contexts.get_mut(&ctx_id) {
                    context.forget(id);
                }
            }
            Change::Resource { id, held, taken } => {
                self.resources.insert(id, held);
                if let Some((ctx_id, blob_id)) = taken
                    && let Ok(blob_id) = u32::try_from(blob_id)
                    && let Some(Speaks::Virgl(shadow)) = self.speaks(ctx_id)
                {
                    shadow.take(blob_id);
                }
            }
            Change::ResourceEnds(id) => {
                self.resources.remove(&id);
                for context in self.contexts.values_mut() {
                    context.forget(id);
                }
            }
        }
    }
}

impl<R: Renderer> Renderer for Followed<R> {
    fn capsets(&self) -> Vec<CapsetInfo> {
        self.inner.capsets()
    }

    fn call(&mut self, call: Call<'_>) -> Result<Answer, RendererError> {
        let begun = self.follow(call, |inner, call| Begun::Answered(inner.call(call)));
        match begun {
            Begun::Answered(answer) => answer,
            // `call` answers.
            Begun::InFlight => Err(RendererError::Gone),
        }
    }

    fn begin(&mut self, call: Call<'_>, ticket: Ticket) -> Begun {
        let stream_of = match call.operation {
            Operation::Submit { ctx_id, .. } => Some(ctx_id),
            _ => None,
        };
        let begun = self.follow(call, |inner, call| inner.begin(call, ticket));
        if let Begun::InFlight = begun {
            self.in_flight.insert(ticket, stream_of);
        }
        begun
    }

    fn poll(&mut self) -> Vec<Completion> {
        let completions = self.inner.poll();
        for completion in &completions {
            let Completion::Call { ticket, result } = completion else {
                continue;
            };
            let stream_of = self.in_flight.remove(ticket).flatten();
            if let (Some(ctx_id), Err(_)) = (stream_of, result) {
                self.refused(ctx_id);
            }
        }
        completions
    }

    fn want_wakes(&mut self, wanted: bool) {
        self.inner.want_wakes(wanted);
    }

    fn release_waits(&mut self) {
        self.inner.release_waits();
    }

    fn failure(&self) -> Option<String> {
        self.inner.failure()
    }

    /// It holds nothing then, and neither does this.
    fn restart(&mut self) -> Result<(), RendererError> {
        self.inner.restart()?;
        self.contexts.clear();
        self.resources.clear();
        self.in_flight.clear();
        Ok(())
    }
}
