// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! 3D resources, transfers and command streams.

use zerocopy::little_endian::U64;

use super::Gpu;
use super::two_d::wrong;
use crate::backing::Backing;
use crate::command_error::CommandError;
use crate::error::GuestError;
use crate::fence::Fence;
use crate::renderer::{
    Begun, Call, Data, Operation, Pages, Renderer, RendererError, Resource3d, StreamSource, Ticket,
    Transfer3d,
};
use crate::request::GuestStream;
use crate::resource::{Content, Rendered, Resource};
use crate::response::Reply;
use crate::transfer::check_transfer;
use vm_memory::GuestMemoryBackend;

/// Mip levels of the largest texture there is (32768 pixels).
const MAX_LEVEL: u32 = 15;
/// More than any GPU has.
const MAX_SAMPLES: u32 = 32;

/// What a command of the renderer's goes with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    pub(super) ctx_id: u32,
    /// The renderer's fence, if the command is to have one.
    pub(super) fence: Option<Fence>,
    /// What its call is begun with; `None` if it is to be answered at once.
    pub(super) ticket: Option<Ticket>,
}

impl Order {
    /// Makes the call, with its fence.
    fn begin(self, renderer: &mut dyn Renderer, mut call: Call<'_>) -> Result<Reply, CommandError> {
        call.fence = self.fence;
        let begun = match self.ticket {
            Some(ticket) => renderer.begin(call, ticket),
            None => Begun::Answered(renderer.call(call)),
        };
        match begun {
            Begun::InFlight => Ok(Reply::InFlight),
            Begun::Answered(Ok(_)) => Ok(Reply::NoData),
            Begun::Answered(Err(error)) => Err(error.into()),
        }
    }
}

/// Which way a transfer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    ToHost,
    FromHost,
}

impl Gpu {
    pub(super) fn resource_create_3d(
        &mut self,
        id: u32,
        params: &Resource3d,
    ) -> Result<Reply, CommandError> {
        self.check_new_resource_id(id)?;
        self.check_resource_3d(params)?;
        self.room_for_resource(id, 0, Rendered::estimate(params))?;
        let (resource_id, params) = (id, *params);
        let create = Operation::CreateResource {
            resource_id,
            params,
        };
        self.renderer.call(create.call())?;
        let content = Content::Rendered(Rendered { params });
        self.resources.insert(id, Resource::new(content, None));
        Ok(Reply::NoData)
    }

    pub(super) fn transfer_3d<M: GuestMemoryBackend + ?Sized>(
        &mut self,
        order: Order,
        direction: Direction,
        resource_id: u32,
        transfer: &Transfer3d,
        memory: &M,
    ) -> Result<Reply, CommandError> {
        let ctx_id = order.ctx_id;
        if ctx_id != 0 {
            self.context(ctx_id)?;
        }
        let resource = self.resources.name(resource_id)?;
        if !resource.in_renderer() {
            return Err(wrong(resource_id, "is not known to the renderer"));
        }
        let params = match &resource.content {
            Content::Rendered(rendered) => Some(&rendered.params),
            Content::Pixels(_) | Content::Blob(_) => None,
        };
        let backed = resource.backing.as_ref().map_or(0, Backing::len);
        check_transfer(params, transfer, backed)?;
        let Some(backing) = &resource.backing else {
            return Err(wrong(resource_id, "has no backing"));
        };
        if direction == Direction::ToHost {
            resource.drawn = self.counters.control_commands;
        }
        let transfer = *transfer;
        let operation = match direction {
            Direction::ToHost => Operation::TransferToHost {
                ctx_id,
                resource_id,
                transfer,
            },
            Direction::FromHost => Operation::TransferFromHost {
                ctx_id,
                resource_id,
                transfer,
            },
        };
        let pages = Pages { backing, memory };
        let call = operation.with(Data::Pages(&pages));
        order.begin(&mut *self.renderer, call)
    }

    pub(super) fn submit_3d<M: GuestMemoryBackend + ?Sized>(
        &mut self,
        order: Order,
        stream: &GuestStream<'_, M>,
        in_fences: &[U64],
    ) -> Result<Reply, CommandError> {
        let ctx_id = order.ctx_id;
        let now = self.counters.control_commands;
        self.context(ctx_id)?.drawn = now;
        let max = u64::from(self.config.limits().max_submit_bytes);
        let size = stream.len() as u64;
        if size > max {
            return Err(CommandError::Guest(GuestError::Limit {
                what: "size",
                asked: size,
                left: max,
            }));
        }
        let in_fences = in_fences.iter().map(|fence| fence.get()).collect();
        let operation = Operation::Submit { ctx_id, in_fences };
        order.begin(&mut *self.renderer, operation.with(Data::Stream(stream)))
    }

    /// The VMM mapped guest memory elsewhere. A renderer that kept host addresses gets new ones;
    /// the backings themselves are guest addresses and stay. The caller has quiesced the device,
    /// and keeps the old mappings until this returns.
    ///
    /// # Errors
    /// The renderer failed, or a backing is no longer memory. It then has no backing where it has
    /// no valid one, so that it touches no old address in any case.
    pub fn memory_changed<M: GuestMemoryBackend + ?Sized>(
        &mut self,
        memory: &M,
    ) -> Result<(), RendererError> {
        self.memory_changed_within(0, u64::MAX, memory)
    }

    /// The same where only what lies from one guest address to another changed, both included: no other backing is
    /// touched.
    ///
    /// # Errors
    /// As those of [`memory_changed`](Self::memory_changed).
    pub fn memory_changed_within<M: GuestMemoryBackend + ?Sized>(
        &mut self,
        first: u64,
        last: u64,
        memory: &M,
    ) -> Result<(), RendererError> {
        let mut result = Ok(());
        for (id, resource) in self.resources.iter() {
            if let Some(backing) = &resource.backing
                && resource.in_renderer()
                && backing.touches(first, last)
            {
                let resource_id = id;
                let detached = self
                    .renderer
                    .call(Operation::DetachBacking { resource_id }.call());
                let pages = Pages { backing, memory };
                let attach = Operation::AttachBacking { resource_id };
                let attached = self.renderer.call(attach.with(Data::Pages(&pages)));
                result = result.and(detached.map(drop)).and(attached.map(drop));
            }
        }
        result
    }

    fn check_resource_3d(&self, params: &Resource3d) -> Result<(), GuestError> {
        let max = self.config.limits().max_resource_dimension;
        // The width of a buffer counts bytes, and is all that the limit on the renderer's memory counts of it.
        let (max_width, max_others) = if params.target == Rendered::BUFFER {
            (u32::MAX, 1)
        } else {
            (max, max)
        };
        for (field, value, least, most) in [
            ("width", params.width, 1, max_width),
            ("height", params.height, 1, max_others),
            ("depth", params.depth, 1, max_others),
            ("array_size", params.array_size, 1, max_others),
            ("last_level", params.last_level, 0, MAX_LEVEL),
            ("nr_samples", params.nr_samples, 0, MAX_SAMPLES),
        ] {
            if value < least || value > most {
                return Err(GuestError::Parameter {
                    field,
                    value: value.into(),
                });
            }
        }
        Ok(())
    }
}
