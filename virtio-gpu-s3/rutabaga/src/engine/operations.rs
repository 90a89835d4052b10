// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which operation is done where.

use super::{Engine, Range};
use virtio_gpu_s3::renderer::{Answer, Operation, RendererError};

/// What comes with an operation, without what only its caller's thread may use.
pub(in super::super) enum Given<'a> {
    None,
    Bytes(&'a [u8]),
    Room(&'a mut [u8]),
    Words(&'a mut [u32]),
    /// Guest memory, by the host's addresses.
    Ranges(Vec<Range>),
}

const MISFIT: RendererError = RendererError::refused("data that its call does not have", 22);

impl<'a> Given<'a> {
    fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::None => Some(&[]),
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    fn room(self) -> Option<&'a mut [u8]> {
        match self {
            Self::Room(room) => Some(room),
            _ => None,
        }
    }

    fn ranges(self) -> Option<Vec<Range>> {
        match self {
            Self::Ranges(ranges) => Some(ranges),
            _ => None,
        }
    }
}

impl Engine {
    /// Does what is asked.
    pub(in super::super) fn run(
        &mut self,
        operation: &Operation,
        mut given: Given<'_>,
    ) -> Result<Answer, RendererError> {
        // Most of all calls, and the shortest.
        if let (Operation::Submit { ctx_id, in_fences }, Given::Words(words)) =
            (operation, &mut given)
        {
            self.submit(*ctx_id, words, !in_fences.is_empty())?;
            return Ok(Answer::Done);
        }
        match *operation {
            Operation::Capset { id, version } => self.capset(id, version).map(Answer::Capset),
            Operation::MapBlob { resource_id } => self.map_blob(resource_id).map(Answer::Mapped),
            _ => self.change(operation, given).map(|()| Answer::Done),
        }
    }

    /// What makes, ends and joins objects.
    fn change(&mut self, operation: &Operation, given: Given<'_>) -> Result<(), RendererError> {
        match *operation {
            Operation::CreateContext {
                ctx_id,
                context_init,
            } => {
                let name = String::from_utf8_lossy(given.bytes().ok_or(MISFIT)?);
                self.create_context(ctx_id, context_init, &name)
            }
            Operation::DestroyContext { ctx_id } => self.destroy_context(ctx_id),
            Operation::AttachResource {
                ctx_id,
                resource_id,
            } => self.attach_resource(ctx_id, resource_id),
            Operation::DetachResource {
                ctx_id,
                resource_id,
            } => self.detach_resource(ctx_id, resource_id),
            Operation::CreateResource {
                resource_id,
                ref params,
            } => self.create_resource(resource_id, params),
            Operation::CreateBlob {
                ctx_id,
                resource_id,
                ref params,
            } => self.create_blob(ctx_id, resource_id, params, given.ranges()),
            Operation::DestroyResource { resource_id } => self.destroy_resource(resource_id),
            Operation::AttachBacking { resource_id } => {
                self.attach_backing(resource_id, given.ranges().ok_or(MISFIT)?)
            }
            Operation::DetachBacking { resource_id } => self.detach_backing(resource_id),
            Operation::UnmapBlob { resource_id } => self.unmap_blob(resource_id),
            _ => self.work(operation, given),
        }
    }

    /// What moves bytes and draws.
    fn work(&mut self, operation: &Operation, given: Given<'_>) -> Result<(), RendererError> {
        match *operation {
            Operation::TransferToHost {
                ctx_id,
                resource_id,
                ref transfer,
            } => self.transfer_to_host(ctx_id, resource_id, transfer),
            Operation::TransferFromHost {
                ctx_id,
                resource_id,
                ref transfer,
            } => self.transfer_from_host(ctx_id, resource_id, transfer),
            Operation::ReadPixels {
                resource_id,
                rect,
                stride,
            } => self.read_pixels(resource_id, rect, stride, given.room().ok_or(MISFIT)?),
            Operation::WritePixels {
                resource_id,
                rect,
                stride,
            } => self.write_pixels(resource_id, rect, stride, given.bytes().ok_or(MISFIT)?),
            Operation::ReadLevel {
                resource_id,
                ref transfer,
            } => self.read_level(resource_id, transfer, given.room().ok_or(MISFIT)?),
            Operation::WriteLevel {
                resource_id,
                ref transfer,
            } => self.write_level(resource_id, transfer, given.bytes().ok_or(MISFIT)?),
            Operation::ReadBlob {
                resource_id,
                offset,
            } => self.read_blob(resource_id, offset, given.room().ok_or(MISFIT)?),
            Operation::WriteBlob {
                resource_id,
                offset,
            } => self.write_blob(resource_id, offset, given.bytes().ok_or(MISFIT)?),
            Operation::Fence => Ok(()),
            _ => Err(RendererError::unsupported("such a call")),
        }
    }
}
