// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Who draws in 3D.

mod call;
mod cross_domain_error;
mod null;
mod pages;
pub mod stream;

use std::borrow::Cow;
use std::fmt;

use thiserror::Error;
use vm_memory::FileOffset;

pub use call::{Answer, Backing, Begun, Call, Completion, Data, Operation, StreamSource, Ticket};
pub use cross_domain_error::CrossDomainError;
pub use null::NullRenderer;
pub(crate) use pages::Pages;
pub use stream::StreamError;

use crate::error::GuestError;
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
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct BlobMapping {
    /// The blob.
    pub resource_id: u32,
    /// The file whose first bytes are the blob's: what a VMM maps where the guest shall see them.
    /// `None` where only the renderer reaches them, with [`Operation::ReadBlob`] and
    /// [`Operation::WriteBlob`]: memory of OpenGL has an address in the renderer's process, and
    /// no file. It is no part of a message: it goes beside it.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub file: Option<FileOffset>,
    /// Where such memory lies, if the renderer is in this process; until the mapping ends. It need not be
    /// whole pages.
    #[cfg_attr(feature = "serde", serde(skip))]
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

    /// Does what is asked, after everything that was [begun](Self::begin) before, and waits for
    /// the answer.
    ///
    /// # Errors
    /// The renderer cannot, or refuses.
    fn call(&mut self, call: Call<'_>) -> Result<Answer, RendererError>;

    /// Begins what is asked, where the caller can go on without its answer. The call's data is
    /// read before this returns; guest memory of a transfer is used until its answer is there.
    ///
    /// A renderer has a limit of calls in flight. One more waits here until there is room. A
    /// renderer in this thread has none in flight, and answers at once.
    fn begin(&mut self, call: Call<'_>, _ticket: Ticket) -> Begun {
        Begun::Answered(self.call(call))
    }

    /// What was finished since the last call, in order. Never waits. Calls in flight of a renderer
    /// that has ended are not answered here: [`failure`](Self::failure) answers them all.
    fn poll(&mut self) -> Vec<Completion>;

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

    /// Why the renderer ended by itself, if it did. Everything in it is lost then, fences and calls
    /// in flight too, and every call that needs it fails with [`RendererError::Gone`] until it is
    /// started anew.
    fn failure(&self) -> Option<String>;

    /// The device has let go of everything it had in a renderer that ended by itself: start it
    /// anew, now or when it is next needed.
    ///
    /// # Errors
    /// It cannot be started again.
    fn restart(&mut self) -> Result<(), RendererError>;
}
