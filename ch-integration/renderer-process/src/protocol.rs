// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the two processes say to each other.
//!
//! A message is a header in postcard's encoding. Bytes that come with a call lie in the scratch memory, those that come
//! with an answer behind its header. Whoever reads checks every length: the device's process trusts the renderer's
//! nothing, as C has parsed a guest's bytes there, and the renderer's holds its own mistakes apart from the device's.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use virtio_gpu_s3::renderer::{BlobParams, CapsetInfo, Resource3d, Transfer3d};
use virtio_gpu_s3::{Fence, Rect, RendererError};

/// Longest message. Linux gives a socket's buffer three times as much.
pub(super) const MAX_MESSAGE: usize = 64 << 10;
/// Bytes of a header: the longest is a stream's, with 64 fences to wait for.
pub(super) const MAX_HEAD: usize = 1 << 10;
/// Fences in one message.
pub(super) const MAX_FENCES: usize = 256;
/// Longest text of an error, in bytes.
const MAX_TEXT: usize = 512;

/// What comes with a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct With {
    /// How many bytes, at the start of the scratch memory.
    pub(super) bytes: u64,
    /// To be created if the call succeeds.
    pub(super) fence: Option<Fence>,
}

/// The device's first message, with the scratch memory's file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Start {
    /// Its size, without the line behind it.
    pub(super) scratch: u64,
    /// Whether Vulkan is rendered too.
    pub(super) venus: bool,
}

/// The renderer's answer to it.
pub(super) type Started = Result<Vec<CapsetInfo>, String>;

/// What the device asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Call {
    Capset {
        id: u32,
        version: u32,
    },
    /// With the context's name.
    CreateContext {
        ctx_id: u32,
        context_init: u32,
    },
    DestroyContext {
        ctx_id: u32,
    },
    AttachResource {
        ctx_id: u32,
        resource_id: u32,
    },
    DetachResource {
        ctx_id: u32,
        resource_id: u32,
    },
    CreateResource {
        resource_id: u32,
        params: Resource3d,
    },
    /// With the pieces of its backing.
    CreateBlob {
        ctx_id: u32,
        resource_id: u32,
        params: BlobParams,
        backed: bool,
    },
    DestroyResource {
        resource_id: u32,
    },
    /// With the pieces.
    AttachBacking {
        resource_id: u32,
    },
    DetachBacking {
        resource_id: u32,
    },
    TransferToHost {
        ctx_id: u32,
        resource_id: u32,
        transfer: Transfer3d,
    },
    TransferFromHost {
        ctx_id: u32,
        resource_id: u32,
        transfer: Transfer3d,
    },
    /// Rows without gaps, to the scratch memory.
    ReadPixels {
        resource_id: u32,
        rect: Rect,
    },
    /// To the scratch memory.
    ReadBlob {
        resource_id: u32,
        offset: u64,
        length: u32,
    },
    /// With the bytes.
    WriteBlob {
        resource_id: u32,
        offset: u64,
    },
    /// Answered by a [`Mapped`], with the blob's file where it has one.
    MapBlob {
        resource_id: u32,
    },
    UnmapBlob {
        resource_id: u32,
    },
    /// Rows without gaps, in the scratch memory.
    WritePixels {
        resource_id: u32,
        rect: Rect,
    },
    /// With the stream.
    Submit {
        ctx_id: u32,
        in_fences: Vec<u64>,
    },
    CreateFence(Fence),
    /// With the region's file.
    MapRegion {
        region: u32,
        offset: u64,
        size: u64,
    },
    UnmapRegion {
        region: u32,
    },
}

impl Call {
    /// Whether more than a header is answered, for which there is room in the socket only.
    pub(super) fn gives_more(&self) -> bool {
        matches!(self, Self::Capset { .. } | Self::MapBlob { .. })
    }
}

/// A piece of guest memory, in a region that was mapped before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Piece {
    pub(super) region: u32,
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// What the renderer answers; a capset's bytes come with it, and what a blob was mapped as.
pub(super) type Answer = Result<(), RendererError>;

/// What comes with the answer to [`Call::MapBlob`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Mapped {
    pub(super) size: u64,
    pub(super) map_info: u32,
    /// Whether a file comes too.
    pub(super) file: bool,
}

/// Fences that signalled.
pub(super) type Signalled = Vec<Fence>;

/// A message that makes no sense.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum MessageError {
    /// It does not fit its header.
    #[error("a message has no room for what it says")]
    Encode,
    /// It is not what was expected.
    #[error("a message makes no sense")]
    Decode,
}

/// A header, ready to be sent.
pub(super) struct Head {
    bytes: [u8; MAX_HEAD],
    length: usize,
}

impl Head {
    pub(super) fn of(value: &impl Serialize) -> Result<Self, MessageError> {
        let mut bytes = [0; MAX_HEAD];
        let used = postcard::to_slice(value, &mut bytes).map_err(|_| MessageError::Encode)?;
        let length = used.len();
        Ok(Self { bytes, length })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// What a message starts with, and the bytes behind it.
pub(super) fn split<'a, T: Deserialize<'a>>(
    message: &'a [u8],
) -> Result<(T, &'a [u8]), MessageError> {
    postcard::take_from_bytes(message).map_err(|_| MessageError::Decode)
}

/// Cuts an error's text to what a header holds.
pub(super) fn text(text: &str) -> String {
    text.chars().take(MAX_TEXT / 4).collect()
}

#[cfg(test)]
mod tests {
    use virtio_gpu_s3::renderer::StreamError;

    use super::*;

    #[test]
    fn every_error_arrives_as_it_left() {
        let (command, at, id) = (43, 7, 10);
        let outside = StreamError::Outside {
            command,
            at,
            id,
            field: "box.x + box.w".into(),
            value: 65,
        };
        let too_much = StreamError::TooMuch {
            command,
            at,
            what: "sub-contexts".into(),
            asked: 1025,
            most: 1024,
        };
        for error in [
            RendererError::unsupported("a mapping"),
            RendererError::OutOfMemory { bytes: 1 << 40 },
            RendererError::refused("a stream", -22),
            RendererError::Gone,
            StreamError::NoDwords { bytes: 3 }.into(),
            StreamError::Unknown { command, at }.into(),
            StreamError::NoSuchResource { command, at, id }.into(),
            outside.into(),
            too_much.into(),
        ] {
            let answer: Answer = Err(error);
            let head = Head::of(&answer).unwrap();
            let (arrived, rest): (Answer, _) = split(head.bytes()).unwrap();
            assert_eq!((arrived, rest), (answer, &[][..]));
        }
    }
}
