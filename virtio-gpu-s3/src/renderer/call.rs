// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a renderer is asked, and what it answers.
//!
//! An [`Operation`] is plain data, which goes to another process as it is. What can be long goes beside it
//! ([`Data`]): borrowed within a process, in shared memory between two.

use std::fmt;
use std::mem;

use vm_memory::VolatileSlice;
use zerocopy::IntoBytes;

use super::{
    BlobMapping, BlobParams, GuestPages, RendererError, Resource3d, StreamError, Transfer3d,
};
use crate::error::GuestError;
use crate::fence::Fence;
use crate::geometry::Rect;

/// As Linux numbers them everywhere.
const EFAULT: i32 = 14;
const EINVAL: i32 = 22;

/// What a renderer is asked to do. Every id is one the device validated: it exists where it must and does not where it
/// must not.
///
/// An operation without a word about its data has [`Data::None`], one without a word about its answer has
/// [`Answer::Done`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[expect(missing_docs, reason = "the fields are the standard's")]
pub enum Operation {
    /// Describes a capset, in an [`Answer::Capset`].
    Capset { id: u32, version: u32 },
    /// Makes a context, with [`Data::Bytes`] of its debug name. `context_init` holds the capset id in its low byte, 0
    /// meaning any.
    CreateContext { ctx_id: u32, context_init: u32 },
    /// Ends a context. Its fences signal. The context is gone for the device also where this fails.
    DestroyContext { ctx_id: u32 },
    /// Lets a context use a resource.
    AttachResource { ctx_id: u32, resource_id: u32 },
    /// Ends that.
    DetachResource { ctx_id: u32, resource_id: u32 },
    /// Makes a resource, zeroed.
    CreateResource {
        resource_id: u32,
        params: Resource3d,
    },
    /// Makes a resource of an object of a context, or of guest memory, with [`Data::Pages`] if it has any.
    CreateBlob {
        ctx_id: u32,
        resource_id: u32,
        params: BlobParams,
    },
    /// Destroys a resource. The resource is gone for the device also where this fails.
    DestroyResource { resource_id: u32 },
    /// [`Data::Pages`] are the resource's guest memory from now on.
    AttachBacking { resource_id: u32 },
    /// Ends that.
    DetachBacking { resource_id: u32 },
    /// Copies guest memory, [`Data::Pages`], to the resource.
    TransferToHost {
        ctx_id: u32,
        resource_id: u32,
        transfer: Transfer3d,
    },
    /// Copies the resource to guest memory, [`Data::Pages`].
    TransferFromHost {
        ctx_id: u32,
        resource_id: u32,
        transfer: Transfer3d,
    },
    /// Copies level 0 of a two-dimensional resource under `rect` to [`Data::Room`], whose rows are `stride` bytes apart:
    /// what a display shows where no buffer can be shared. Rows are written whole, with zeros for what cannot be read.
    ReadPixels {
        resource_id: u32,
        rect: Rect,
        stride: usize,
    },
    /// Copies [`Data::Bytes`] to level 0 of a two-dimensional resource under `rect`: how a 2D resource keeps its picture
    /// when a context attaches it.
    WritePixels {
        resource_id: u32,
        rect: Rect,
        stride: usize,
    },
    /// Copies a box of a level to [`Data::Room`] as `transfer` says, as bytes of the resource's own format: how a
    /// resource is saved. What is between rows stays as it is.
    ReadLevel {
        resource_id: u32,
        transfer: Transfer3d,
    },
    /// Copies [`Data::Bytes`] to a box of a level as `transfer` says: how a resource is restored.
    WriteLevel {
        resource_id: u32,
        transfer: Transfer3d,
    },
    /// Copies a blob's bytes from `offset` on to [`Data::Room`], all of which is written.
    ReadBlob { resource_id: u32, offset: u64 },
    /// Copies [`Data::Bytes`] to a blob from `offset` on. Like a read it does up to 8 aligned bytes at once, as a
    /// processor would.
    WriteBlob { resource_id: u32, offset: u64 },
    /// Runs a command stream ([`Data::Stream`] or [`Data::Words`]) once `in_fences` (the guest's numbers) have
    /// signalled.
    Submit { ctx_id: u32, in_fences: Vec<u64> },
    /// Makes a blob's memory ready for the guest's sight, as an [`Answer::Mapped`] says.
    MapBlob { resource_id: u32 },
    /// Ends that.
    UnmapBlob { resource_id: u32 },
    /// Nothing, which its fence goes with.
    Fence,
}

impl Operation {
    /// The call without data.
    pub fn call<'a>(self) -> Call<'a> {
        self.with(Data::None)
    }

    /// The call with `data`.
    #[inline]
    pub fn with(self, data: Data<'_>) -> Call<'_> {
        Call {
            operation: self,
            data,
            fence: None,
        }
    }

    /// What it has to do with a resource's guest memory, and of which resource.
    pub fn backing(&self) -> Option<(u32, Backing)> {
        match *self {
            Self::CreateBlob { resource_id, .. } | Self::AttachBacking { resource_id } => {
                Some((resource_id, Backing::Begins))
            }
            Self::TransferToHost { resource_id, .. }
            | Self::TransferFromHost { resource_id, .. } => Some((resource_id, Backing::Used)),
            Self::DestroyResource { resource_id } | Self::DetachBacking { resource_id } => {
                Some((resource_id, Backing::Ends))
            }
            _ => None,
        }
    }

    /// Whether it only ends something: that is reached where a renderer is gone, with all that it held.
    pub fn is_an_end(&self) -> bool {
        matches!(
            self,
            Self::DestroyContext { .. }
                | Self::DetachResource { .. }
                | Self::DestroyResource { .. }
                | Self::DetachBacking { .. }
                | Self::UnmapBlob { .. }
        )
    }
}

/// What an operation has to do with guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// The resource has some from now on.
    Begins,
    /// Bytes go from or to it.
    Used,
    /// The resource has none any more.
    Ends,
}

/// A command stream that the guest can still change: copied once, whole, to where it cannot, and looked at only then.
pub trait StreamSource {
    /// Bytes.
    fn len(&self) -> usize;

    /// True if there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies it to `target`, which is as long.
    ///
    /// # Errors
    /// Part of it is no longer memory.
    fn copy_to(&self, target: &VolatileSlice<'_>) -> Result<(), GuestError>;
}

impl StreamSource for &[u8] {
    fn len(&self) -> usize {
        (**self).len()
    }

    fn copy_to(&self, target: &VolatileSlice<'_>) -> Result<(), GuestError> {
        target.copy_from(self);
        Ok(())
    }
}

/// What comes with a call.
#[derive(Default)]
pub enum Data<'a> {
    /// Nothing.
    #[default]
    None,
    /// Bytes to read.
    Bytes(&'a [u8]),
    /// Bytes to fill.
    Room(&'a mut [u8]),
    /// A command stream that is not copied yet.
    Stream(&'a dyn StreamSource),
    /// A command stream that nobody else can change, aligned and in the host's byte order: it can be run in place.
    Words(&'a mut [u32]),
    /// A resource's guest memory.
    Pages(&'a dyn GuestPages),
}

impl fmt::Debug for Data<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, length) = match self {
            Self::None => ("None", 0),
            Self::Bytes(bytes) => ("Bytes", bytes.len() as u64),
            Self::Room(room) => ("Room", room.len() as u64),
            Self::Stream(stream) => ("Stream", stream.len() as u64),
            Self::Words(words) => ("Words", mem::size_of_val(&**words) as u64),
            Self::Pages(pages) => ("Pages", pages.len()),
        };
        write!(f, "{kind}({length})")
    }
}

impl<'a> Data<'a> {
    /// A resource's guest memory, if it has any.
    pub fn of_pages<P: GuestPages>(pages: Option<&'a P>) -> Self {
        pages.map_or(Self::None, |pages| Self::Pages(pages))
    }

    /// A command stream, aligned and private; in `buffer`, if it was not.
    ///
    /// # Errors
    /// It is no whole number of dwords, or there is none, or it is no longer memory.
    #[inline]
    pub fn words<'b>(self, buffer: &'b mut Vec<u32>) -> Result<&'b mut [u32], RendererError>
    where
        'a: 'b,
    {
        let stream = match self {
            Self::Words(words) => return Ok(words),
            Self::Stream(stream) => stream,
            _ => return Err(misfit()),
        };
        let bytes = stream.len();
        if !bytes.is_multiple_of(size_of::<u32>()) {
            return Err(StreamError::NoDwords { bytes }.into());
        }
        buffer.resize(bytes.div_ceil(size_of::<u32>()), 0);
        copy(stream, buffer.as_mut_slice().as_mut_bytes())?;
        Ok(buffer)
    }

    /// The bytes of a command stream that may have any length.
    ///
    /// # Errors
    /// There is none, or it is no longer memory.
    pub fn stream_bytes(self) -> Result<Vec<u8>, RendererError> {
        match self {
            Self::Words(words) => Ok(words.as_bytes().to_vec()),
            Self::Stream(stream) => {
                let mut bytes = vec![0; stream.len()];
                copy(stream, &mut bytes)?;
                Ok(bytes)
            }
            _ => Err(misfit()),
        }
    }

    /// Bytes to read, where there have to be some or none.
    ///
    /// # Errors
    /// It is something else.
    pub fn bytes(self) -> Result<&'a [u8], RendererError> {
        match self {
            Self::None => Ok(&[]),
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(misfit()),
        }
    }

    /// Bytes to fill.
    ///
    /// # Errors
    /// It is something else.
    pub fn room(self) -> Result<&'a mut [u8], RendererError> {
        match self {
            Self::Room(room) => Ok(room),
            _ => Err(misfit()),
        }
    }

    /// Guest memory.
    ///
    /// # Errors
    /// It is something else.
    pub fn pages(self) -> Result<&'a dyn GuestPages, RendererError> {
        match self {
            Self::Pages(pages) => Ok(pages),
            _ => Err(misfit()),
        }
    }
}

fn copy(stream: &dyn StreamSource, target: &mut [u8]) -> Result<(), RendererError> {
    // The device checked it; only a VMM that unmaps guest memory under it gets here.
    let copied = stream.copy_to(&target.into());
    copied.map_err(|_| RendererError::refused("guest memory that is gone", EFAULT))
}

/// A caller's mistake.
fn misfit() -> RendererError {
    RendererError::refused("data that its call does not have", EINVAL)
}

/// An operation and what comes with it.
#[derive(Debug)]
pub struct Call<'a> {
    /// What to do.
    pub operation: Operation,
    /// What with.
    pub data: Data<'a>,
    /// Signalled once everything submitted on its timeline up to here has completed. A call that fails has none.
    pub fence: Option<Fence>,
}

impl Call<'_> {
    /// The same with a fence, or without.
    #[must_use]
    #[inline]
    pub fn fenced(self, fence: Option<Fence>) -> Self {
        Self { fence, ..self }
    }
}

/// What a renderer answers to a call that succeeded.
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Answer {
    /// Nothing more.
    Done,
    /// A capset's description.
    Capset(Vec<u8>),
    /// A blob's memory.
    Mapped(BlobMapping),
}

impl Answer {
    /// A capset's description.
    ///
    /// # Errors
    /// The renderer answered something else.
    pub fn capset(self) -> Result<Vec<u8>, RendererError> {
        match self {
            Self::Capset(bytes) => Ok(bytes),
            _ => Err(RendererError::refused("a capset", EINVAL)),
        }
    }

    /// A blob's memory.
    ///
    /// # Errors
    /// The renderer answered something else.
    pub fn mapped(self) -> Result<BlobMapping, RendererError> {
        match self {
            Self::Mapped(mapping) => Ok(mapping),
            _ => Err(RendererError::refused("a mapping", EINVAL)),
        }
    }
}

/// Stands for a call whose answer comes later. The caller never uses one twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What became of a call that was begun.
#[derive(Debug)]
#[must_use = "an answer that is here does not come again"]
pub enum Begun {
    /// It is answered.
    Answered(Result<Answer, RendererError>),
    /// It is in flight: its answer comes as a [`Completion`].
    InFlight,
}

/// What a renderer has finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completion {
    /// A call that was in flight. Those of one renderer are answered in the order in which they were begun.
    Call {
        /// Which.
        ticket: Ticket,
        /// What came of it; a call that is answered with more than [`Answer::Done`] is not begun.
        result: Result<(), RendererError>,
    },
    /// A fence signalled, and with it all before it on its timeline.
    Fence(Fence),
}
