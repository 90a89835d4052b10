// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Rendering contexts and capsets.

use std::collections::BTreeSet;

use super::Gpu;
use crate::command_error::CommandError;
use crate::error::GuestError;
use crate::geometry::Rect;
use crate::pixel::row_bytes;
use crate::protocol::{feature, wire};
use crate::renderer::{Data, Operation, Pages};
use crate::resource::{Content, Rendered, Retention};
use crate::response::Reply;
use crate::status::ErrorKind;
use vm_memory::GuestMemoryBackend;

/// A guest's rendering context, as far as it is not the renderer's.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) attached: BTreeSet<u32>,
    pub(super) retention: Retention,
    /// The number of its last command stream's command.
    pub(super) drawn: u64,
}

/// Host memory that an attachment is counted with: an entry of a set and its share of a node.
/// Contexts times resources is a number that a guest chooses.
pub(super) const ATTACHMENT_BYTES: u64 = 32;

/// The part of `context_init` that names a capset (VIRTIO 1.4 §5.7.6.9).
const CONTEXT_INIT_CAPSET_ID_MASK: u32 = 0xff;

impl Gpu {
    pub(super) fn get_capset_info(&self, index: u32) -> Result<Reply, CommandError> {
        let capsets = self.renderer.capsets();
        let capset = capsets.get(index as usize).ok_or(GuestError::Parameter {
            field: "capset_index",
            value: index.into(),
        })?;
        Ok(Reply::CapsetInfo(wire::RespCapsetInfo {
            capset_id: capset.id.into(),
            capset_max_version: capset.max_version.into(),
            capset_max_size: capset.max_size.into(),
            padding: 0.into(),
        }))
    }

    pub(super) fn get_capset(&mut self, id: u32, version: u32) -> Result<Reply, CommandError> {
        let capsets = self.renderer.capsets();
        let known = capsets.iter().find(|capset| capset.id == id);
        let capset = known.ok_or(GuestError::Parameter {
            field: "capset_id",
            value: id.into(),
        })?;
        if version > capset.max_version {
            return Err(CommandError::Guest(GuestError::Parameter {
                field: "capset_version",
                value: version.into(),
            }));
        }
        let describe = Operation::Capset { id, version };
        let mut bytes = self.renderer.call(describe.call())?.capset()?;
        bytes.truncate(capset.max_size as usize);
        Ok(Reply::Capset(bytes))
    }

    pub(super) fn ctx_create(
        &mut self,
        id: u32,
        context_init: u32,
        debug_name: &[u8],
    ) -> Result<Reply, CommandError> {
        let known = self.contexts.get(&id);
        if id == 0 || known.is_some_and(|known| known.retention == Retention::Live) {
            return Err(GuestError::ContextIdTaken { id }.into());
        }
        self.check_context_init(context_init)?;
        self.destroy_context(id);
        let max = self.config.limits().max_contexts;
        if self.contexts.len() >= max {
            return Err(CommandError::Guest(GuestError::Limit {
                what: "contexts",
                asked: 1,
                left: 0,
            }));
        }
        let create = Operation::CreateContext {
            ctx_id: id,
            context_init,
        };
        self.renderer.call(create.with(Data::Bytes(debug_name)))?;
        let context = Context {
            attached: BTreeSet::new(),
            retention: Retention::Live,
            drawn: 0,
        };
        self.contexts.insert(id, context);
        Ok(Reply::NoData)
    }

    pub(super) fn ctx_destroy(&mut self, id: u32) -> Result<Reply, CommandError> {
        self.context(id)?;
        self.destroy_context(id);
        Ok(Reply::NoData)
    }

    pub(super) fn ctx_attach_resource<M: GuestMemoryBackend + ?Sized>(
        &mut self,
        ctx_id: u32,
        resource_id: u32,
        memory: &M,
    ) -> Result<Reply, CommandError> {
        let attached = self.context(ctx_id)?.attached.contains(&resource_id);
        self.resources.name(resource_id)?;
        if attached {
            return Ok(Reply::NoData);
        }
        self.make_room(resource_id, ATTACHMENT_BYTES, 0)?;
        self.promote(resource_id, memory)?;
        let attach = Operation::AttachResource {
            ctx_id,
            resource_id,
        };
        self.renderer.call(attach.call())?;
        self.context(ctx_id)?.attached.insert(resource_id);
        self.resources.charge(ATTACHMENT_BYTES);
        Ok(Reply::NoData)
    }

    /// Linux detaches what it closes whether it was attached or not.
    pub(super) fn ctx_detach_resource(
        &mut self,
        ctx_id: u32,
        resource_id: u32,
    ) -> Result<Reply, CommandError> {
        self.resources.name(resource_id)?;
        if self.context(ctx_id)?.attached.remove(&resource_id) {
            self.resources.refund(ATTACHMENT_BYTES);
            let detach = Operation::DetachResource {
                ctx_id,
                resource_id,
            };
            self.renderer.call(detach.call())?;
        }
        Ok(Reply::NoData)
    }

    /// The context that a command names: from now on it is live.
    pub(super) fn context(&mut self, id: u32) -> Result<&mut Context, GuestError> {
        let context = self.contexts.get_mut(&id);
        let context = context.ok_or(GuestError::NoSuchContext { id })?;
        context.retention = Retention::Live;
        Ok(context)
    }

    /// Ends a context, if there is one, with every fence on its rings.
    pub(super) fn destroy_context(&mut self, id: u32) {
        let Some(context) = self.contexts.remove(&id) else {
            return;
        };
        for resource_id in context.attached {
            self.resources.refund(ATTACHMENT_BYTES);
            self.end(Operation::DetachResource {
                ctx_id: id,
                resource_id,
            });
        }
        self.end(Operation::DestroyContext { ctx_id: id });
        self.fences.finish_context(id);
    }

    /// Has the renderer end something, which is gone for the device in any case.
    pub(super) fn end(&mut self, operation: Operation) {
        if self.renderer.call(operation.call()).is_err() {
            self.counters.errors.count(ErrorKind::Host);
        }
    }

    fn check_context_init(&self, context_init: u32) -> Result<(), GuestError> {
        let refused = GuestError::Parameter {
            field: "context_init",
            value: context_init.into(),
        };
        let capset = context_init & CONTEXT_INIT_CAPSET_ID_MASK;
        let negotiated = self.negotiated & feature::CONTEXT_INIT != 0;
        let capsets = self.renderer.capsets();
        match (context_init, capset) {
            (0, _) => Ok(()),
            (_, 0) if negotiated => Ok(()),
            (_, capset) if negotiated && capsets.iter().any(|known| known.id == capset) => Ok(()),
            _ => Err(refused),
        }
    }

    /// Makes a 2D resource or a guest's blob known to the renderer. A picture comes along.
    fn promote<M: GuestMemoryBackend + ?Sized>(
        &mut self,
        id: u32,
        memory: &M,
    ) -> Result<(), CommandError> {
        let resource = self.resources.name(id)?;
        if resource.in_renderer() {
            return Ok(());
        }
        match &resource.content {
            Content::Pixels(pixels) => {
                let bytes = Rendered::estimate(&Rendered::params_of(pixels));
                let own = pixels.bytes.len() as u64;
                self.make_room(id, self.copies_of(id).saturating_sub(own), bytes)?;
                if let Err(error) = self.render_pixels(id, memory) {
                    // Half a resource is none; whether there was one is the renderer's to know.
                    let destroy = Operation::DestroyResource { resource_id: id };
                    let _ = self.renderer.call(destroy.call());
                    return Err(error);
                }
                self.copy_before_promotion(id);
                self.resources.promote(id)?;
            }
            Content::Blob(blob) => {
                let create = Operation::CreateBlob {
                    ctx_id: 0,
                    resource_id: id,
                    params: blob.params,
                };
                let backing = resource.backing.as_ref();
                let pages = backing.map(|backing| Pages { backing, memory });
                let call = create.with(Data::of_pages(pages.as_ref()));
                self.renderer.call(call)?;
                self.resources.promote(id)?;
            }
            Content::Rendered(_) => {}
        }
        Ok(())
    }

    fn render_pixels<M: GuestMemoryBackend + ?Sized>(
        &mut self,
        id: u32,
        memory: &M,
    ) -> Result<(), CommandError> {
        let resource = self.resources.name(id)?;
        let Content::Pixels(pixels) = &resource.content else {
            return Ok(());
        };
        let (renderer, resource_id) = (&mut self.renderer, id);
        let create = Operation::CreateResource {
            resource_id,
            params: Rendered::params_of(pixels),
        };
        renderer.call(create.call())?;
        let write = Operation::WritePixels {
            resource_id,
            rect: Rect::sized(pixels.width, pixels.height),
            stride: row_bytes(pixels.width),
        };
        renderer.call(write.with(Data::Bytes(&pixels.bytes)))?;
        if let Some(backing) = &resource.backing {
            let pages = Pages { backing, memory };
            let attach = Operation::AttachBacking { resource_id };
            renderer.call(attach.with(Data::Pages(&pages)))?;
        }
        Ok(())
    }
}
