// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a guest can do wrong in a stream of the cross-domain protocol.

use std::borrow::Cow;

use thiserror::Error;

use crate::protocol::ResponseType;

/// Why a stream of a cross-domain context, or a blob of one, is refused: the guest's blame.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum CrossDomainError {
    /// A command is shorter than its kind, or ends behind the stream. One of size 0 would never end.
    #[error(
        "command {command} at byte {at} has {size} bytes, which is not its size, or of which {left} are there"
    )]
    Size {
        /// Its number.
        command: u8,
        /// Where it starts.
        at: usize,
        /// Bytes it says it has.
        size: usize,
        /// Bytes there are.
        left: usize,
    },
    /// The protocol's version 1 has no such command for a guest.
    #[error("command {command} at byte {at} does not exist")]
    Unknown {
        /// Its number.
        command: u8,
        /// Where it starts.
        at: usize,
    },
    /// The context has no rings yet, or no channel.
    #[error("{what} before INIT has given it")]
    Uninitialised {
        /// What is missing.
        what: Cow<'static, str>,
    },
    /// INIT came before.
    #[error("a second INIT of a context")]
    InitialisedTwice,
    /// A channel that the person did not open.
    #[error("no channel has type {channel_type}")]
    ChannelType {
        /// The type.
        channel_type: u32,
    },
    /// A resource that is not guest memory which the context has attached, or too little of it.
    #[error("resource {resource_id} cannot be a ring of the context")]
    NotARing {
        /// The resource.
        resource_id: u32,
    },
    /// More files than a message can have.
    #[error("{count} files in a message, which can have 28")]
    Identifiers {
        /// How many.
        count: u32,
    },
    /// A kind of file that cannot be sent.
    #[error("files of type {identifier_type} cannot be sent")]
    IdentifierType {
        /// The type.
        identifier_type: u32,
    },
    /// A file that the context does not have, or that is of another kind.
    #[error("the context has no {what} {id}")]
    NoSuchFile {
        /// What was looked for.
        what: Cow<'static, str>,
        /// By which number.
        id: u32,
    },
    /// The guest says the number of a pipe in advance, and it is another.
    #[error("the next pipe is {expected:#x}, not {id:#x}")]
    PipeId {
        /// The guest's number.
        id: u32,
        /// The right one.
        expected: u32,
    },
    /// A stream socket has no message without a byte, so files would go nowhere.
    #[error("files without a byte to go with")]
    FilesWithoutData,
    /// An image that cannot be.
    #[error("an image whose {field} is {value:#x}")]
    Image {
        /// The field.
        field: Cow<'static, str>,
        /// Its value.
        value: u32,
    },
    /// A blob that is not as large as what it is made of.
    #[error("a blob of {size} bytes of what has {there}")]
    BlobSize {
        /// The blob's.
        size: u64,
        /// What there is.
        there: u64,
    },
    /// The other side hung up, or was given more than it reads.
    #[error("the channel has ended")]
    Ended,
    /// A limit of [`Limits`](crate::Limits), or one of the protocol's own.
    #[error("{what}: {asked} asked for, {left} left")]
    Limit {
        /// The limit.
        what: Cow<'static, str>,
        /// What the command would have needed.
        asked: u64,
        /// What was left.
        left: u64,
    },
}

impl CrossDomainError {
    /// The error response that tells the guest.
    pub fn response(&self) -> ResponseType {
        match self {
            Self::NotARing { .. } => ResponseType::ERR_INVALID_RESOURCE_ID,
            Self::Limit { .. } => ResponseType::ERR_OUT_OF_MEMORY,
            Self::Ended => ResponseType::ERR_UNSPEC,
            _ => ResponseType::ERR_INVALID_PARAMETER,
        }
    }

    /// [`Limit`](Self::Limit), in words of the program's own.
    pub const fn limit(what: &'static str, asked: u64, left: u64) -> Self {
        Self::Limit {
            what: Cow::Borrowed(what),
            asked,
            left,
        }
    }

    /// [`NoSuchFile`](Self::NoSuchFile) likewise.
    pub const fn no_file(what: &'static str, id: u32) -> Self {
        Self::NoSuchFile {
            what: Cow::Borrowed(what),
            id,
        }
    }
}
