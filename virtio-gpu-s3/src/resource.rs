// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's resources and what the host holds for them.

use std::collections::BTreeMap;

use crate::backing::Backing;
use crate::error::GuestError;
use crate::geometry::Rect;
use crate::pixel::{BYTES_PER_PIXEL, Frame, PixelFormat, row_bytes};
use crate::protocol::BLOB_MEM_GUEST;
use crate::renderer::{BlobParams, Resource3d};
use memory_hints::zeros;

/// Whether the guest of now knows an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retention {
    /// Made or named since the last frozen reset.
    Live,
    /// Kept over a frozen reset and not named since. A guest that woke will name it; one that
    /// rebooted without our knowing will create the id anew, and gets it.
    Retained,
}

#[derive(Debug)]
pub(crate) struct Resource {
    pub(crate) content: Content,
    pub(crate) backing: Option<Backing>,
    pub(crate) uuid: Option<[u8; 16]>,
    pub(crate) retention: Retention,
    /// The number of the last command that drew on it, as far as its own commands tell.
    pub(crate) drawn: u64,
}

/// Where a resource's pixels are.
#[derive(Debug)]
pub(crate) enum Content {
    /// With us.
    Pixels(Pixels),
    /// In the renderer.
    Rendered(Rendered),
    /// In the guest's memory, or in the renderer's: a blob.
    Blob(Blob),
}

/// A two-dimensional picture in host memory, rows without gaps.
#[derive(Debug)]
pub(crate) struct Pixels {
    pub(crate) format: PixelFormat,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) bytes: Vec<u8>,
}

impl Pixels {
    /// Bytes of a picture, `None` if no u64 holds them.
    pub(crate) fn size(width: u32, height: u32) -> Option<u64> {
        u64::from(width)
            .checked_mul(height.into())?
            .checked_mul(BYTES_PER_PIXEL as u64)
    }

    /// A picture of zeros: a guest never sees what the host had in that memory before. The caller
    /// has checked `bytes` against a limit.
    pub(crate) fn zeroed(format: PixelFormat, width: u32, height: u32, bytes: usize) -> Self {
        Self {
            format,
            width,
            height,
            bytes: zeros(bytes),
        }
    }

    /// The whole picture.
    pub(crate) fn frame(&self) -> Frame<'_> {
        Frame {
            width: self.width,
            height: self.height,
            stride: row_bytes(self.width),
            format: self.format,
            pixels: &self.bytes,
        }
    }

    /// The bytes from the first pixel of `rect` on.
    pub(crate) fn at_mut(&mut self, rect: Rect) -> Option<&mut [u8]> {
        let start = (rect.y as usize)
            .checked_mul(row_bytes(self.width))?
            .checked_add(row_bytes(rect.x))?;
        self.bytes.get_mut(start..)
    }
}

/// A resource of the renderer.
#[derive(Debug)]
pub(crate) struct Rendered {
    pub(crate) params: Resource3d,
}

impl Rendered {
    /// Gallium's PIPE_BUFFER, whose width counts bytes.
    pub(crate) const BUFFER: u32 = 0;
    /// Gallium's PIPE_TEXTURE_2D.
    pub(crate) const TEXTURE_2D: u32 = 2;

    /// What a 2D resource becomes in a renderer: a texture that can be rendered to, as rutabaga
    /// makes its own.
    pub(crate) fn params_of(pixels: &Pixels) -> Resource3d {
        Resource3d {
            target: Self::TEXTURE_2D,
            format: pixels.format.format().0,
            bind: 2,
            width: pixels.width,
            height: pixels.height,
            depth: 1,
            array_size: 1,
            last_level: 0,
            nr_samples: 0,
            flags: 0,
        }
    }

    /// Bytes the renderer will need, at four bytes a texel; real formats differ by a factor of
    /// four either way.
    pub(crate) fn estimate(params: &Resource3d) -> u64 {
        if params.target == Self::BUFFER {
            return params.width.into();
        }
        let factors = [
            params.height,
            params.depth,
            params.array_size,
            params.nr_samples,
        ];
        factors
            .into_iter()
            .map(|factor| u64::from(factor.max(1)))
            .fold(u64::from(params.width), u64::saturating_mul)
            .saturating_mul(BYTES_PER_PIXEL as u64)
    }
}

/// A blob resource.
#[derive(Debug)]
pub(crate) struct Blob {
    pub(crate) params: BlobParams,
    /// True if the renderer knows it: always for memory of a context, from the first attachment
    /// to one on for memory of the guest.
    pub(crate) in_renderer: bool,
}

impl Blob {
    /// True if its bytes are the guest's memory and nothing else.
    pub(crate) fn is_guest(&self) -> bool {
        self.params.blob_mem == BLOB_MEM_GUEST
    }
}

impl Resource {
    pub(crate) fn new(content: Content, backing: Option<Backing>) -> Self {
        Self {
            content,
            backing,
            uuid: None,
            retention: Retention::Live,
            drawn: 0,
        }
    }

    /// Its pixels, if they are with us.
    pub(crate) fn picture(&self) -> Option<&Pixels> {
        match &self.content {
            Content::Pixels(pixels) => Some(pixels),
            Content::Rendered(_) | Content::Blob(_) => None,
        }
    }

    /// Width and height, `None` for a blob, which has none of its own.
    pub(crate) fn size(&self) -> Option<(u32, u32)> {
        match &self.content {
            Content::Pixels(pixels) => Some((pixels.width, pixels.height)),
            Content::Rendered(Rendered { params, .. }) => Some((params.width, params.height)),
            Content::Blob(_) => None,
        }
    }

    pub(crate) fn is_blob(&self) -> bool {
        matches!(self.content, Content::Blob(_))
    }

    /// True if the renderer knows it.
    pub(crate) fn in_renderer(&self) -> bool {
        match &self.content {
            Content::Pixels(_) => false,
            Content::Rendered(_) => true,
            Content::Blob(blob) => blob.in_renderer,
        }
    }

    pub(crate) fn host_bytes(&self) -> u64 {
        let picture = self.picture().map_or(0, |pixels| pixels.bytes.len() as u64);
        let backing = self.backing.as_ref().map_or(0, Backing::host_bytes);
        picture.saturating_add(backing)
    }

    fn renderer_bytes(&self) -> u64 {
        match &self.content {
            Content::Rendered(rendered) => Rendered::estimate(&rendered.params),
            Content::Blob(blob) if !blob.is_guest() => blob.params.size,
            Content::Pixels(_) | Content::Blob(_) => 0,
        }
    }
}

/// Resources by id, and the bytes they hold.
#[derive(Debug, Default)]
pub(crate) struct Resources {
    by_id: BTreeMap<u32, Resource>,
    blobs: usize,
    host_bytes: u64,
    renderer_bytes: u64,
}

impl Resources {
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// How many are blobs.
    pub(crate) fn blobs(&self) -> usize {
        self.blobs
    }

    pub(crate) fn host_bytes(&self) -> u64 {
        self.host_bytes
    }

    /// Estimated bytes that resources take in the renderer.
    pub(crate) fn renderer_bytes(&self) -> u64 {
        self.renderer_bytes
    }

    /// Counts host memory that belongs to no resource, such as a scanout's copy of a blob.
    pub(crate) fn charge(&mut self, bytes: u64) {
        self.host_bytes = self.host_bytes.saturating_add(bytes);
    }

    /// Ends that.
    pub(crate) fn refund(&mut self, bytes: u64) {
        self.host_bytes = self.host_bytes.saturating_sub(bytes);
    }

    /// The resource, without naming it.
    pub(crate) fn peek(&self, id: u32) -> Option<&Resource> {
        self.by_id.get(&id)
    }

    /// The resource that a command names: from now on it is live. Its size must not change.
    pub(crate) fn name(&mut self, id: u32) -> Result<&mut Resource, GuestError> {
        let resource = self
            .by_id
            .get_mut(&id)
            .ok_or(GuestError::NoSuchResource { id })?;
        resource.retention = Retention::Live;
        Ok(resource)
    }

    /// Names a resource and changes what it holds, keeping count.
    pub(crate) fn update<T>(
        &mut self,
        id: u32,
        change: impl FnOnce(&mut Resource) -> T,
    ) -> Result<T, GuestError> {
        let mut resource = self.remove(id).ok_or(GuestError::NoSuchResource { id })?;
        resource.retention = Retention::Live;
        let result = change(&mut resource);
        self.insert(id, resource);
        Ok(result)
    }

    /// The renderer knows the resource from now on, and alone has its picture.
    pub(crate) fn promote(&mut self, id: u32) -> Result<(), GuestError> {
        let mut resource = self.remove(id).ok_or(GuestError::NoSuchResource { id })?;
        resource.content = match resource.content {
            Content::Pixels(pixels) => Content::Rendered(Rendered {
                params: Rendered::params_of(&pixels),
            }),
            Content::Blob(blob) => Content::Blob(Blob {
                in_renderer: true,
                ..blob
            }),
            rendered @ Content::Rendered(_) => rendered,
        };
        self.insert(id, resource);
        Ok(())
    }

    pub(crate) fn insert(&mut self, id: u32, resource: Resource) {
        self.remove(id);
        self.charge(resource.host_bytes());
        self.renderer_bytes = self
            .renderer_bytes
            .saturating_add(resource.renderer_bytes());
        self.blobs = self.blobs.saturating_add(resource.is_blob().into());
        self.by_id.insert(id, resource);
    }

    pub(crate) fn remove(&mut self, id: u32) -> Option<Resource> {
        let resource = self.by_id.remove(&id)?;
        self.refund(resource.host_bytes());
        self.blobs = self.blobs.saturating_sub(resource.is_blob().into());
        self.renderer_bytes = self
            .renderer_bytes
            .saturating_sub(resource.renderer_bytes());
        Some(resource)
    }

    /// Keeps one resource as if over a frozen reset.
    pub(crate) fn retain(&mut self, id: u32) {
        if let Some(resource) = self.by_id.get_mut(&id) {
            resource.retention = Retention::Retained;
        }
    }

    pub(crate) fn set_retention(&mut self, retention: Retention) {
        for resource in self.by_id.values_mut() {
            resource.retention = retention;
        }
    }

    pub(crate) fn retained(&self) -> impl Iterator<Item = u32> + '_ {
        self.by_id
            .iter()
            .filter(|(_, resource)| resource.retention == Retention::Retained)
            .map(|(id, _)| *id)
    }

    pub(crate) fn ids(&self) -> Vec<u32> {
        self.by_id.keys().copied().collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Resource)> + '_ {
        self.by_id.iter().map(|(id, resource)| (*id, resource))
    }
}
