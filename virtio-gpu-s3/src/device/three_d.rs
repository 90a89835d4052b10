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
use crate::renderer::{Pages, Renderer, RendererError, Resource3d, Transfer3d, Work, run};
use crate::resource::{Content, Rendered, Resource};
use crate::response::Reply;
use crate::transfer::check_transfer;
use vm_memory::GuestMemoryBackend;

/// Mip levels of the largest texture there is (32768 pixels).
const MAX_LEVEL: u32 = 15;
/// More than any GPU has.
const MAX_SAMPLES: u32 = 32;

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
        self.renderer.create_resource(id, params)?;
        let content = Content::Rendered(Rendered { params: *params });
        self.resources.insert(id, Resource::new(content, None));
        Ok(Reply::NoData)
    }

    pub(super) fn transfer_3d<M: GuestMemoryBackend + ?Sized>(
        &mut self,
        direction: Direction,
        (ctx_id, fence): (u32, Option<Fence>),
        id: u32,
        transfer: &Transfer3d,
        memory: &M,
    ) -> Result<Reply, CommandError> {
        if ctx_id != 0 {
            self.context(ctx_id)?;
        }
        let resource = self.resources.name(id)?;
        if !resource.in_renderer() {
            return Err(wrong(id, "is not known to the renderer"));
        }
        let params = match &resource.content {
            Content::Rendered(rendered) => Some(&rendered.params),
            Content::Pixels(_) | Content::Blob(_) => None,
        };
        let backed = resource.backing.as_ref().map_or(0, Backing::len);
        check_transfer(params, transfer, backed)?;
        let Some(backing) = &resource.backing else {
            return Err(wrong(id, "has no backing"));
        };
        if direction == Direction::ToHost {
            resource.drawn = self.counters.control_commands;
        }
        let pages = &Pages { backing, memory };
        let resource_id = id;
        let work = match direction {
            Direction::ToHost => Work::TransferToHost {
                ctx_id,
                resource_id,
                transfer,
                pages,
            },
            Direction::FromHost => Work::TransferFromHost {
                ctx_id,
                resource_id,
                transfer,
                pages,
            },
        };
        run_work(&mut *self.renderer, work, fence)?;
        Ok(Reply::NoData)
    }

    pub(super) fn submit_3d(
        &mut self,
        (ctx_id, fence): (u32, Option<Fence>),
        stream: &[u8],
        in_fences: &[U64],
    ) -> Result<Reply, CommandError> {
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
        let in_fences: Vec<_> = in_fences.iter().map(|fence| fence.get()).collect();
        let work = Work::Submit {
            ctx_id,
            stream,
            in_fences: &in_fences,
        };
        run_work(&mut *self.renderer, work, fence)?;
        Ok(Reply::NoData)
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
        let mut result = Ok(());
        for (id, resource) in self.resources.iter() {
            if let Some(backing) = &resource.backing
                && resource.in_renderer()
            {
                let detached = self.renderer.detach_backing(id);
                let pages = Pages { backing, memory };
                let attached = self.renderer.attach_backing(id, &pages);
                result = result.and(detached).and(attached);
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

fn run_work(
    renderer: &mut dyn Renderer,
    work: Work<'_>,
    fence: Option<Fence>,
) -> Result<(), RendererError> {
    match fence {
        Some(fence) => renderer.run_fenced(work, fence),
        None => run(renderer, work),
    }
}
