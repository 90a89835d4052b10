// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the two processes say to each other.
//!
//! A message is a value in postcard's encoding. Bytes that come with a call lie in the scratch memory. Whoever reads checks every length: the device's process trusts the renderer's
//! nothing, as C has parsed a guest's bytes there, and the renderer's holds its own mistakes apart from the device's.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use virtio_gpu_s3::renderer::{Answer, CapsetInfo, Operation};
use virtio_gpu_s3::{Fence, RendererError};

/// Longest message. Linux gives a socket's buffer three times as much.
pub(super) const MAX_MESSAGE: usize = 64 << 10;
/// Longest message through shared memory: a stream's, with 64 fences to wait for. Longer ones take the socket.
pub(super) const MAX_HEAD: usize = (1 << 10) - size_of::<u32>();
/// Calls in flight at a time: more than a driver's doorbell brings, and few enough that a renderer that hangs is noticed
/// by the one after them.
pub(super) const MAX_IN_FLIGHT: u32 = 64;
/// Through the socket, for who sleeps: there is a message in the shared memory. No other message is so short.
pub(super) const WAKE: [u8; 1] = [0];
/// The same, with the file that belongs to a request.
pub(super) const FILE: [u8; 2] = [0, 0];
/// Fences in one message.
pub(super) const MAX_FENCES: usize = 256;
/// Longest text of an error, in bytes.
const MAX_TEXT: usize = 512;

/// Bytes of the scratch memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Range {
    pub(super) at: u64,
    pub(super) length: u64,
}

/// Where the data of a call lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Placed {
    None,
    Bytes(Range),
    Room(Range),
    /// A command stream, to be run where it is.
    Stream(Range),
    /// The pieces of a backing that the resource has from now on, encoded.
    Pieces(Range),
    /// Guest memory that the resource has already.
    Backing,
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
pub(super) enum Request {
    /// A call to the renderer.
    Call {
        operation: Operation,
        data: Placed,
        fence: Option<Fence>,
        /// Whether nobody waits for the reply: then it is told of, as fences are.
        in_flight: bool,
    },
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

/// A piece of guest memory, in a region that was mapped before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Piece {
    pub(super) region: u32,
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// What is answered; the file of a mapping comes beside it.
pub(super) type Reply = Result<Answer, RendererError>;

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

/// Room for a message that is sent, and for the next one.
#[derive(Debug)]
pub(super) struct Encoder(Vec<u8>);

impl Encoder {
    pub(super) fn new() -> Self {
        Self(vec![0; MAX_MESSAGE])
    }

    pub(super) fn encode(&mut self, value: &impl Serialize) -> Result<&[u8], MessageError> {
        let used = postcard::to_slice(value, &mut self.0);
        used.map(|used| &*used).map_err(|_| MessageError::Encode)
    }
}

/// What a message says, which has nothing behind it.
pub(super) fn decode<'a, T: Deserialize<'a>>(message: &'a [u8]) -> Result<T, MessageError> {
    match postcard::take_from_bytes(message) {
        Ok((value, [])) => Ok(value),
        _ => Err(MessageError::Decode),
    }
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
            let reply: Reply = Err(error.clone());
            let message = postcard::to_allocvec(&reply).unwrap();
            assert!(message.len() <= MAX_HEAD);
            let arrived: Reply = decode(&message).unwrap();
            assert_eq!(arrived.unwrap_err(), error);
        }
    }
}
