// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a guest can do wrong, and how it is told.

use thiserror::Error;

use crate::protocol::{CommandId, Queue, ResponseType};
use crate::status::ErrorKind;

/// A request the guest should not have made. It is answered, never fatal for the device.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum GuestError {
    /// The readable part ends before the request does.
    #[error("{command} is {len} bytes long and needs {needed}")]
    ShortRequest {
        /// The command, 0 if even the header is short.
        command: CommandId,
        /// Bytes there were.
        len: usize,
        /// Bytes the command needs.
        needed: u64,
    },
    /// A command the standard does not define, or this device does not implement.
    #[error("unknown command {command}")]
    UnknownCommand {
        /// The command.
        command: CommandId,
    },
    /// The command belongs to the other queue.
    #[error("{command} on the {queue:?} queue")]
    WrongQueue {
        /// The command.
        command: CommandId,
        /// The queue it came on.
        queue: Queue,
    },
    /// The command needs a feature that was not negotiated.
    #[error("{command} without its feature (mask {feature:#x})")]
    FeatureNotNegotiated {
        /// The command.
        command: CommandId,
        /// What it needs.
        feature: u64,
    },
    /// A scanout id at or above `num_scanouts`.
    #[error("no scanout {id}")]
    NoSuchScanout {
        /// The id.
        id: u32,
    },
    /// No resource has the id.
    #[error("no resource {id}")]
    NoSuchResource {
        /// The id.
        id: u32,
    },
    /// A live resource has the id, or it is 0, which never names one.
    #[error("resource id {id} cannot be created")]
    ResourceIdTaken {
        /// The id.
        id: u32,
    },
    /// The command does not fit the kind of resource, or the state of its backing.
    #[error("resource {id} {why}")]
    WrongResource {
        /// The id.
        id: u32,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No context has the id.
    #[error("no context {id}")]
    NoSuchContext {
        /// The id.
        id: u32,
    },
    /// A live context has the id, or it is 0.
    #[error("context id {id} cannot be created")]
    ContextIdTaken {
        /// The id.
        id: u32,
    },
    /// A field is outside what the command allows.
    #[error("{field} = {value:#x} is out of range")]
    Parameter {
        /// The field, by the standard's name.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// Part of the guest's memory range is not memory, or ends too early.
    #[error("guest memory of {length:#x} bytes at {address:#x} cannot be read")]
    Memory {
        /// Guest address, or offset into the backing.
        address: u64,
        /// Length in bytes.
        length: u64,
    },
    /// A limit of [`Limits`](crate::Limits) was met.
    #[error("{what}: {asked} asked for, {left} left")]
    Limit {
        /// The limit.
        what: &'static str,
        /// What the request would have needed.
        asked: u64,
        /// What was left.
        left: u64,
    },
}

impl GuestError {
    /// The error response that tells the guest.
    ///
    /// A missing backing answers ERR_UNSPEC, as QEMU does; the standard names no error for it.
    pub fn response(&self) -> ResponseType {
        match self {
            Self::UnknownCommand { .. }
            | Self::WrongQueue { .. }
            | Self::FeatureNotNegotiated { .. }
            | Self::WrongResource { .. } => ResponseType::ERR_UNSPEC,
            Self::ShortRequest { .. } | Self::Parameter { .. } | Self::Memory { .. } => {
                ResponseType::ERR_INVALID_PARAMETER
            }
            Self::NoSuchScanout { .. } => ResponseType::ERR_INVALID_SCANOUT_ID,
            Self::NoSuchResource { .. } | Self::ResourceIdTaken { .. } => {
                ResponseType::ERR_INVALID_RESOURCE_ID
            }
            Self::NoSuchContext { .. } | Self::ContextIdTaken { .. } => {
                ResponseType::ERR_INVALID_CONTEXT_ID
            }
            Self::Limit { .. } => ResponseType::ERR_OUT_OF_MEMORY,
        }
    }

    /// The counter it belongs to.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::ShortRequest { .. } => ErrorKind::ShortRequest,
            Self::UnknownCommand { .. } | Self::WrongQueue { .. } => ErrorKind::UnknownCommand,
            Self::FeatureNotNegotiated { .. } => ErrorKind::FeatureNotNegotiated,
            Self::NoSuchScanout { .. } => ErrorKind::ScanoutId,
            Self::NoSuchResource { .. } | Self::ResourceIdTaken { .. } => ErrorKind::ResourceId,
            Self::WrongResource { .. } => ErrorKind::WrongResource,
            Self::NoSuchContext { .. } | Self::ContextIdTaken { .. } => ErrorKind::ContextId,
            Self::Parameter { .. } => ErrorKind::Parameter,
            Self::Memory { .. } => ErrorKind::Memory,
            Self::Limit { .. } => ErrorKind::Limit,
        }
    }
}
