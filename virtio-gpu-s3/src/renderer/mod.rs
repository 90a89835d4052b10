// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Who draws in 3D.

mod cross_domain_error;
mod null;
mod pages;
pub mod stream;

use std::borrow::Cow;
use std::fmt;
use std::fs::File;

use thiserror::Error;
use vm_memory::FileOffset;

pub use cross_domain_error::CrossDomainError;
pub use null::{NullControl, NullRenderer};
pub(crate) use pages::Pages;
pub use stream::StreamError;

use crate::error::GuestError;
use crate::fence::Fence;
use crate::geometry::Rect;

/// A renderer could not do what a valid request asked: the host's blame.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum RendererError {
    /// It does not implement this.
    #[error("The renderer does not support {what}")]
    Unsupported {
        /// What was asked.
        what: Cow<'static, str>,
    },
    /// It has no memory left for this.
    #[error("The renderer has no {bytes} bytes left")]
    OutOfMemory {
        /// Bytes asked for.
        bytes: u64,
    },
    /// It refused: the guest's stream may be at fault, which only the renderer can tell.
    #[error("The renderer refused {what} with code {code}")]
    Refused {
        /// What was asked.
        what: Cow<'static, str>,
        /// The renderer's own error number.
        code: i32,
    },
    /// A command stream holds what its renderer is not to be given: the guest's blame.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// A message of a channel, or its blob, cannot be: the guest's blame.
    #[error(transparent)]
    CrossDomain(#[from] CrossDomainError),
    /// It is gone, and with it everything it held.
    #[error("The renderer has ended")]
    Gone,
}

impl RendererError {
    /// [`Refused`](Self::Refused), in words of the renderer's own.
    pub const fn refused(what: &'static str, code: i32) -> Self {
        Self::Refused {
            what: Cow::Borrowed(what),
            code,
        }
    }

    /// [`Unsupported`](Self::Unsupported) likewise.
    pub const fn unsupported(what: &'static str) -> Self {
        Self::Unsupported {
            what: Cow::Borrowed(what),
        }
    }
}

/// A command set a renderer speaks (VIRTIO 1.4 §5.7.6.8, `GET_CAPSET_INFO`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct CapsetInfo {
    /// `VIRTIO_GPU_CAPSET_*`.
    pub id: u32,
    /// Highest version.
    pub max_version: u32,
    /// Bytes of its description at that version.
    pub max_size: u32,
}

/// A resource for 3D (`RESOURCE_CREATE_3D`); the numbers are Gallium's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[expect(missing_docs, reason = "the fields are the standard's")]
pub struct Resource3d {
    pub target: u32,
    pub format: u32,
    pub bind: u32,
    pub width: u32,
    pub height: u32,
    pub depth: u32,
    pub array_size: u32,
    pub last_level: u32,
    pub nr_samples: u32,
    pub flags: u32,
}

/// A blob of a rendering context (`RESOURCE_CREATE_BLOB`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[expect(missing_docs, reason = "the fields are the standard's")]
pub struct BlobParams {
    pub blob_mem: u32,
    pub blob_flags: u32,
    pub blob_id: u64,
    pub size: u64,
}

/// A box of a resource and how it lies in memory (`TRANSFER_TO_HOST_3D`, `_FROM_HOST_3D`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[expect(missing_docs, reason = "the fields are the standard's")]
pub struct Transfer3d {
    pub x: u32,
    pub y: u32,
    pub z: u32,
    pub w: u32,
    pub h: u32,
    pub d: u32,
    pub offset: u64,
    pub level: u32,
    pub stride: u32,
    pub layer_stride: u32,
}

impl Transfer3d {
    /// `rect` of a picture whose rows are as far apart in memory as it is wide: that is what a stride of 0 says.
    pub const fn of_rect(rect: Rect, offset: u64) -> Self {
        Self {
            x: rect.x,
            y: rect.y,
            z: 0,
            w: rect.width,
            h: rect.height,
            d: 1,
            offset,
            level: 0,
            stride: 0,
            layer_stride: 0,
        }
    }
}

/// A blob's memory on the host (`RESOURCE_MAP_BLOB`).
#[derive(Debug)]
pub struct BlobMapping {
    /// The blob.
    pub resource_id: u32,
    /// The file whose first bytes are the blob's: what a VMM maps where the guest shall see them.
    /// `None` where only the renderer reaches them, with [`Renderer::read_blob`] and
    /// [`Renderer::write_blob`]: memory of OpenGL has an address in the renderer's process, and
    /// no file.
    pub file: Option<File>,
    /// Where such memory lies, if the renderer is in this process; until the mapping ends. It need not be
    /// whole pages.
    pub address: Option<usize>,
    /// Bytes.
    pub size: u64,
    /// `VIRTIO_GPU_MAP_CACHE_*`.
    pub map_info: u32,
}

/// A region of guest memory, as the VMM mapped it.
#[derive(Clone, Debug)]
pub struct MappedRegion {
    /// The file that it maps, and where in the file it begins; `None` for anonymous memory.
    pub file: Option<FileOffset>,
    /// Bytes.
    pub size: u64,
}

/// A piece of a [`MappedRegion`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionPiece {
    /// Which region, by its place in the list that comes with the piece.
    pub region: usize,
    /// Distance from the region's first byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// A resource's guest memory, for the length of one call.
pub trait GuestPages {
    /// Bytes.
    fn len(&self) -> u64;

    /// True if nothing is backed.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `target` from `offset` on.
    ///
    /// # Errors
    /// The range is not all backed by memory.
    fn read(&self, offset: u64, target: &mut [u8]) -> Result<(), GuestError>;

    /// Writes `source` from `offset` on.
    ///
    /// # Errors
    /// The range is not all backed by memory.
    fn write(&self, offset: u64, source: &[u8]) -> Result<(), GuestError>;

    /// Host address and length of each piece, for a renderer that keeps host addresses. They are
    /// good until the VMM remaps the guest's memory; the device then attaches the backing anew.
    ///
    /// # Errors
    /// A piece is no longer memory.
    fn host_ranges(&self) -> Result<Vec<(usize, usize)>, GuestError>;

    /// The same memory by the VMM's mappings, each named once, for a renderer in a process of its
    /// own. Good for as long as host addresses are.
    ///
    /// # Errors
    /// A piece is no longer memory.
    fn region_pieces(&self) -> Result<(Vec<MappedRegion>, Vec<RegionPiece>), GuestError>;
}

impl fmt::Debug for dyn GuestPages + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestPages")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// What a renderer may go on with when the call for it has returned, so that a fence tells its end.
#[derive(Clone, Copy, Debug)]
#[expect(
    missing_docs,
    reason = "the fields are those of the calls that are meant"
)]
pub enum Work<'a> {
    /// [`Renderer::submit`]
    Submit {
        ctx_id: u32,
        stream: &'a [u8],
        in_fences: &'a [u64],
    },
    /// [`Renderer::transfer_to_host`]
    TransferToHost {
        ctx_id: u32,
        resource_id: u32,
        transfer: &'a Transfer3d,
        pages: &'a dyn GuestPages,
    },
    /// [`Renderer::transfer_from_host`]
    TransferFromHost {
        ctx_id: u32,
        resource_id: u32,
        transfer: &'a Transfer3d,
        pages: &'a dyn GuestPages,
    },
}

/// Renders on behalf of guest contexts.
///
/// Every id is one the device validated: it exists where it must and does not where it must not.
/// A renderer outlives every reset: virglrenderer cannot be initialised twice in a process, so a
/// full reset destroys resources and contexts one by one, and a frozen reset calls nothing but
/// [`release_waits`](Self::release_waits).
/// Libraries that are bound to a thread live behind a handle that is [`Send`].
///
/// There is no default method for anything that a renderer may be unable to do: it says so.
pub trait Renderer: Send + fmt::Debug {
    /// The command sets it speaks, in the order of `GET_CAPSET_INFO`. Empty without 3D; never
    /// changes.
    fn capsets(&self) -> Vec<CapsetInfo>;

    /// A capset's description.
    ///
    /// # Errors
    /// Unknown id or version.
    fn capset(&mut self, id: u32, version: u32) -> Result<Vec<u8>, RendererError>;

    /// Makes a context; `context_init` holds the capset id in its low byte, 0 meaning any.
    ///
    /// # Errors
    /// No such capset, or no memory.
    fn create_context(
        &mut self,
        ctx_id: u32,
        context_init: u32,
        debug_name: &[u8],
    ) -> Result<(), RendererError>;

    /// Ends a context. Its fences signal.
    ///
    /// # Errors
    /// The renderer failed; the context is gone for the device all the same.
    fn destroy_context(&mut self, ctx_id: u32) -> Result<(), RendererError>;

    /// Lets a context use a resource.
    ///
    /// # Errors
    /// The renderer refused.
    fn attach_resource(&mut self, ctx_id: u32, resource_id: u32) -> Result<(), RendererError>;

    /// Ends that.
    ///
    /// # Errors
    /// The renderer refused.
    fn detach_resource(&mut self, ctx_id: u32, resource_id: u32) -> Result<(), RendererError>;

    /// Makes a resource, zeroed.
    ///
    /// # Errors
    /// Impossible parameters, or no memory.
    fn create_resource(
        &mut self,
        resource_id: u32,
        params: &Resource3d,
    ) -> Result<(), RendererError>;

    /// Makes a resource of an object of a context, or of guest memory.
    ///
    /// # Errors
    /// Impossible parameters, or no memory.
    fn create_blob(
        &mut self,
        ctx_id: u32,
        resource_id: u32,
        params: &BlobParams,
        pages: Option<&dyn GuestPages>,
    ) -> Result<(), RendererError>;

    /// Destroys a resource.
    ///
    /// # Errors
    /// The renderer failed; the resource is gone for the device all the same.
    fn destroy_resource(&mut self, resource_id: u32) -> Result<(), RendererError>;

    /// The resource's guest memory from now on.
    ///
    /// # Errors
    /// The renderer refused.
    fn attach_backing(
        &mut self,
        resource_id: u32,
        pages: &dyn GuestPages,
    ) -> Result<(), RendererError>;

    /// Ends that.
    ///
    /// # Errors
    /// The renderer refused.
    fn detach_backing(&mut self, resource_id: u32) -> Result<(), RendererError>;

    /// Copies guest memory to the resource.
    ///
    /// # Errors
    /// The box is outside the resource or the memory.
    fn transfer_to_host(
        &mut self,
        ctx_id: u32,
        resource_id: u32,
        transfer: &Transfer3d,
        pages: &dyn GuestPages,
    ) -> Result<(), RendererError>;

    /// Copies the resource to guest memory.
    ///
    /// # Errors
    /// The box is outside the resource or the memory.
    fn transfer_from_host(
        &mut self,
        ctx_id: u32,
        resource_id: u32,
        transfer: &Transfer3d,
        pages: &dyn GuestPages,
    ) -> Result<(), RendererError>;

    /// Copies level 0 of a two-dimensional resource under `rect` to `target`, zeroed by the
    /// caller: what a display shows where no buffer can be shared.
    ///
    /// # Errors
    /// The resource cannot be read, or `rect` is outside.
    fn read_pixels(
        &mut self,
        resource_id: u32,
        rect: Rect,
        stride: usize,
        target: &mut [u8],
    ) -> Result<(), RendererError>;

    /// Copies a blob's bytes from `offset` on to `target`, zeroed by the caller.
    ///
    /// # Errors
    /// The blob cannot be read, or ends before.
    fn read_blob(
        &mut self,
        resource_id: u32,
        offset: u64,
        target: &mut [u8],
    ) -> Result<(), RendererError>;

    /// Copies `source` to a blob's bytes from `offset` on. Like [`read_blob`](Self::read_blob) it
    /// does up to 8 aligned bytes at once, as a processor would.
    ///
    /// # Errors
    /// The blob cannot be written, or ends before.
    fn write_blob(
        &mut self,
        resource_id: u32,
        offset: u64,
        source: &[u8],
    ) -> Result<(), RendererError>;

    /// Copies `source` to level 0 of a two-dimensional resource under `rect`: how a 2D resource
    /// keeps its picture when a context attaches it.
    ///
    /// # Errors
    /// The resource cannot be written, or `rect` is outside.
    fn write_pixels(
        &mut self,
        resource_id: u32,
        rect: Rect,
        stride: usize,
        source: &[u8],
    ) -> Result<(), RendererError>;

    /// Runs a command stream once `in_fences` (the guest's numbers) have signalled.
    ///
    /// # Errors
    /// The stream is not valid.
    fn submit(
        &mut self,
        ctx_id: u32,
        stream: &[u8],
        in_fences: &[u64],
    ) -> Result<(), RendererError>;

    /// Signals `fence` once everything submitted on its timeline has completed.
    ///
    /// # Errors
    /// The renderer failed; the device answers the command at once.
    fn create_fence(&mut self, fence: Fence) -> Result<(), RendererError>;

    /// Does `work`, and then as [`create_fence`](Self::create_fence): in one call, for a renderer
    /// that is far away. Work that is refused has no fence.
    ///
    /// # Errors
    /// As those of the call for the work, or of `create_fence`.
    fn run_fenced(&mut self, work: Work<'_>, fence: Fence) -> Result<(), RendererError> {
        run(self, work)?;
        self.create_fence(fence)
    }

    /// Fences that signalled since the last call; one stands for all before it on its timeline.
    /// Never waits.
    fn poll(&mut self) -> Vec<Fence>;

    /// Whether the caller is to be told when [`poll`](Self::poll) has something to give. One that
    /// polls all the time need not be, and telling it costs more than most work. It asks for it
    /// before it sleeps, and polls once more after that.
    ///
    /// A renderer that tells all the same does no harm, and one that nobody asked tells.
    fn want_wakes(&mut self, _wanted: bool) {}

    /// Signals every fence that waits for somebody outside to speak, and not for work. It might
    /// never signal by itself, and a device that comes to rest has every command answered. Signalled
    /// fences come from [`poll`](Self::poll), as others do.
    fn release_waits(&mut self);

    /// Makes a blob's memory ready for the guest's sight.
    ///
    /// # Errors
    /// It is already, or nobody can reach it.
    fn map_blob(&mut self, resource_id: u32) -> Result<BlobMapping, RendererError>;

    /// Ends that.
    ///
    /// # Errors
    /// It is not mapped.
    fn unmap_blob(&mut self, resource_id: u32) -> Result<(), RendererError>;

    /// Why the renderer ended by itself, if it did. Everything in it is lost then, fences too, and
    /// every call that needs it fails with [`RendererError::Gone`] until it is started anew.
    fn failure(&self) -> Option<String>;

    /// The device has let go of everything it had in a renderer that ended by itself: start it
    /// anew, now or when it is next needed.
    ///
    /// # Errors
    /// It cannot be started again.
    fn restart(&mut self) -> Result<(), RendererError>;
}

/// Does `work`, without a fence.
///
/// # Errors
/// As those of the call for the work.
pub fn run<R: Renderer + ?Sized>(renderer: &mut R, work: Work<'_>) -> Result<(), RendererError> {
    match work {
        Work::Submit {
            ctx_id,
            stream,
            in_fences,
        } => renderer.submit(ctx_id, stream, in_fences),
        Work::TransferToHost {
            ctx_id,
            resource_id,
            transfer,
            pages,
        } => renderer.transfer_to_host(ctx_id, resource_id, transfer, pages),
        Work::TransferFromHost {
            ctx_id,
            resource_id,
            transfer,
            pages,
        } => renderer.transfer_from_host(ctx_id, resource_id, transfer, pages),
    }
}
