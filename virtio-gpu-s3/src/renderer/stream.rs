// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A look at a virgl command stream before virglrenderer parses it.
//!
//! Its parser is C, and the old ones that distributions ship (0.10.4) compute sizes in 32 bits. So
//! everything in a stream that moves bytes between guest memory and the host, and everything that
//! makes the host hold more than the device's own tables count, is checked here first. A stream is
//! refused whole, by name, or given as it is; what only draws is virglrenderer's to check.
//!
//! A command is a dword of number (8 bits), object type (8) and length in dwords (16), and so many
//! dwords more.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::{Resource3d, Transfer3d};
use crate::error::GuestError;
use crate::protocol::ResponseType;
use crate::resource::Rendered;
use crate::transfer::check_transfer;

/// Sub-contexts of one context. Each is an OpenGL context of the host; a driver makes one for each
/// that its client makes.
pub const MAX_SUB_CONTEXTS: usize = 1024;
/// Resources that a context has made in a stream and not yet taken as blobs. A driver takes each at
/// once.
pub const MAX_UNTAKEN: usize = 1024;
/// Their bytes, estimated as the device estimates its own resources.
pub const MAX_UNTAKEN_BYTES: u64 = 1 << 30;

/// Numbers of the commands that are looked at.
mod command {
    pub(super) const INLINE_WRITE: u32 = 9;
    pub(super) const CREATE_SUB_CONTEXT: u32 = 29;
    pub(super) const DESTROY_SUB_CONTEXT: u32 = 30;
    pub(super) const TRANSFER3D: u32 = 43;
    pub(super) const COPY_TRANSFER3D: u32 = 45;
    pub(super) const CREATE_RESOURCE: u32 = 48;
    /// One past the last that any version knows. Each refuses those that it does not.
    pub(super) const END: u32 = 65;
}

/// Why a stream is not given to virglrenderer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum StreamError {
    /// The stream is not a whole number of dwords.
    #[error("a stream of {bytes} bytes, which are no whole dwords")]
    NoDwords {
        /// Its length.
        bytes: usize,
    },
    /// The stream ends before the command does. virglrenderer would drop it without a word.
    #[error("command {command} at dword {at} of {length} dwords, of which {left} are there")]
    Truncated {
        /// Its number.
        command: u32,
        /// Where it starts.
        at: usize,
        /// Dwords it says it has.
        length: usize,
        /// Dwords there are.
        left: usize,
    },
    /// No version of virglrenderer has the command.
    #[error("command {command} at dword {at} does not exist")]
    Unknown {
        /// Its number.
        command: u32,
        /// Where it starts.
        at: usize,
    },
    /// The command has fewer dwords than it needs.
    #[error("command {command} at dword {at} of {length} dwords needs {needed}")]
    Short {
        /// Its number.
        command: u32,
        /// Where it starts.
        at: usize,
        /// Dwords it has.
        length: usize,
        /// Dwords it needs.
        needed: usize,
    },
    /// A transfer of a resource that does not exist.
    #[error("command {command} at dword {at} on resource {id}, which does not exist")]
    NoSuchResource {
        /// Its number.
        command: u32,
        /// Where it starts.
        at: usize,
        /// The resource.
        id: u32,
    },
    /// A transfer outside its resource, or outside the memory it is from or to.
    #[error(
        "command {command} at dword {at} on resource {id}: {field} is {value}, and that is outside"
    )]
    Outside {
        /// Its number.
        command: u32,
        /// Where it starts.
        at: usize,
        /// The resource.
        id: u32,
        /// What is outside.
        field: Cow<'static, str>,
        /// What it is.
        value: u64,
    },
    /// The context would make the host hold more than it may.
    #[error("command {command} at dword {at} makes {asked} {what}, and {most} are allowed")]
    TooMuch {
        /// Its number.
        command: u32,
        /// Where it starts.
        at: usize,
        /// Of what.
        what: Cow<'static, str>,
        /// How many there would be.
        asked: u64,
        /// How many there may be.
        most: u64,
    },
}

impl StreamError {
    pub(crate) fn response(&self) -> ResponseType {
        match self {
            Self::Unknown { .. } => ResponseType::ERR_UNSPEC,
            Self::NoSuchResource { .. } => ResponseType::ERR_INVALID_RESOURCE_ID,
            Self::TooMuch { .. } => ResponseType::ERR_OUT_OF_MEMORY,
            Self::NoDwords { .. }
            | Self::Truncated { .. }
            | Self::Short { .. }
            | Self::Outside { .. } => ResponseType::ERR_INVALID_PARAMETER,
        }
    }
}

/// A resource that a command names.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// `None` if a blob's, whose kind only its context knows.
    pub params: Option<&'a Resource3d>,
    /// Bytes of guest memory.
    pub backing: u64,
}

/// What a context has made in its streams that the device does not count.
#[derive(Clone, Debug, Default)]
pub struct Growth {
    sub_contexts: BTreeSet<u32>,
    /// Estimated bytes, by blob id.
    untaken: BTreeMap<u32, u64>,
    untaken_bytes: u64,
}

/// What a stream does to it, once all of the stream is found to be in order.
enum Change {
    Begin(u32),
    End(u32),
    Make { blob_id: u32, bytes: u64 },
}

impl Growth {
    /// A blob took what was made under `blob_id`.
    pub fn take(&mut self, blob_id: u64) {
        let taken = u32::try_from(blob_id).ok();
        let bytes = taken.and_then(|id| self.untaken.remove(&id));
        self.untaken_bytes = self.untaken_bytes.saturating_sub(bytes.unwrap_or(0));
    }

    fn apply(&mut self, change: &Change) {
        match *change {
            Change::Begin(id) => {
                self.sub_contexts.insert(id);
            }
            Change::End(id) => {
                self.sub_contexts.remove(&id);
            }
            Change::Make { blob_id, bytes } => {
                // virglrenderer keeps both under one number; the older can no longer be taken.
                let before = self.untaken.insert(blob_id, bytes).unwrap_or(0);
                let bytes = bytes.saturating_add(before);
                self.untaken.insert(blob_id, bytes);
                self.untaken_bytes = self
                    .untaken_bytes
                    .saturating_sub(before)
                    .saturating_add(bytes);
            }
        }
    }
}

/// Looks at a stream, of which `target` knows the resources, and notes in `growth` what it makes.
///
/// # Errors
/// virglrenderer must not have the stream; `growth` is as before.
pub fn check<'a>(
    stream: &[u32],
    target: impl Fn(u32) -> Option<Target<'a>>,
    growth: &mut Growth,
) -> Result<(), StreamError> {
    let mut changes = Vec::new();
    let mut ahead = Ahead {
        sub_contexts: growth.sub_contexts.len(),
        untaken: growth.untaken.len(),
        bytes: growth.untaken_bytes,
    };
    let mut at = 0;
    let mut rest = stream;
    while let Some((header, tail)) = rest.split_first() {
        let length = (header >> 16) as usize;
        let number = header & 0xff;
        let command = Command {
            number,
            at,
            body: tail.get(..length).ok_or(StreamError::Truncated {
                command: number,
                at,
                length,
                left: tail.len(),
            })?,
        };
        match number {
            command::INLINE_WRITE => command.inline_write(&target)?,
            command::TRANSFER3D => command.transfer(&target)?,
            command::COPY_TRANSFER3D => command.copy_transfer(&target)?,
            command::CREATE_SUB_CONTEXT
            | command::DESTROY_SUB_CONTEXT
            | command::CREATE_RESOURCE => changes.push(command.grow(&mut ahead)?),
            command::END.. => {
                return Err(StreamError::Unknown {
                    command: number,
                    at,
                });
            }
            _ => {}
        }
        rest = tail.get(length..).unwrap_or_default();
        at = at.saturating_add(length).saturating_add(1);
    }
    for change in &changes {
        growth.apply(change);
    }
    Ok(())
}

/// What there will be at most when the stream has run so far.
struct Ahead {
    sub_contexts: usize,
    untaken: usize,
    bytes: u64,
}

struct Command<'a> {
    number: u32,
    at: usize,
    body: &'a [u32],
}

impl Command<'_> {
    /// The first so many dwords.
    fn fields<const N: usize>(&self) -> Result<&[u32; N], StreamError> {
        self.body.first_chunk().ok_or(StreamError::Short {
            command: self.number,
            at: self.at,
            length: self.body.len(),
            needed: N,
        })
    }

    fn find<'a>(
        &self,
        id: u32,
        target: &impl Fn(u32) -> Option<Target<'a>>,
    ) -> Result<Target<'a>, StreamError> {
        target(id).ok_or(StreamError::NoSuchResource {
            command: self.number,
            at: self.at,
            id,
        })
    }

    fn outside(&self, id: u32) -> impl FnOnce(GuestError) -> StreamError {
        let (command, at) = (self.number, self.at);
        move |error| {
            let (field, value) = match error {
                GuestError::Parameter { field, value } => (field, value),
                _ => ("the range", 0),
            };
            StreamError::Outside {
                command,
                at,
                id,
                field: field.into(),
                value,
            }
        }
    }

    /// The rows are in the stream itself, behind eleven dwords.
    fn inline_write<'a>(
        &self,
        target: &impl Fn(u32) -> Option<Target<'a>>,
    ) -> Result<(), StreamError> {
        let [head @ .., _] = self.fields::<12>()?;
        let (id, transfer) = transfer_of(head, 0);
        let resource = self.find(id, target)?;
        let data = (self.body.len() as u64)
            .saturating_sub(head.len() as u64)
            .saturating_mul(4);
        check_transfer(resource.params, &transfer, data).map_err(self.outside(id))
    }

    fn transfer<'a>(&self, target: &impl Fn(u32) -> Option<Target<'a>>) -> Result<(), StreamError> {
        let [head @ .., offset, _] = self.fields::<13>()?;
        let (id, transfer) = transfer_of(head, *offset);
        let resource = self.find(id, target)?;
        check_transfer(resource.params, &transfer, resource.backing).map_err(self.outside(id))
    }

    /// The memory is another resource's.
    fn copy_transfer<'a>(
        &self,
        target: &impl Fn(u32) -> Option<Target<'a>>,
    ) -> Result<(), StreamError> {
        let [head @ .., staging, offset, _] = self.fields::<14>()?;
        let (id, transfer) = transfer_of(head, *offset);
        let resource = self.find(id, target)?;
        let staging = self.find(*staging, target)?;
        check_transfer(resource.params, &transfer, staging.backing).map_err(self.outside(id))
    }

    fn grow(&self, ahead: &mut Ahead) -> Result<Change, StreamError> {
        match self.number {
            command::CREATE_SUB_CONTEXT => {
                let [id] = self.fields()?;
                ahead.sub_contexts = ahead.sub_contexts.saturating_add(1);
                self.at_most(
                    "sub-contexts",
                    ahead.sub_contexts as u64,
                    MAX_SUB_CONTEXTS as u64,
                )?;
                Ok(Change::Begin(*id))
            }
            command::DESTROY_SUB_CONTEXT => {
                let [id] = self.fields()?;
                Ok(Change::End(*id))
            }
            _ => {
                let (blob_id, params) = created(self.fields()?);
                let bytes = Rendered::estimate(&params);
                ahead.untaken = ahead.untaken.saturating_add(1);
                ahead.bytes = ahead.bytes.saturating_add(bytes);
                self.at_most(
                    "untaken resources",
                    ahead.untaken as u64,
                    MAX_UNTAKEN as u64,
                )?;
                self.at_most("bytes of untaken resources", ahead.bytes, MAX_UNTAKEN_BYTES)?;
                Ok(Change::Make { blob_id, bytes })
            }
        }
    }

    fn at_most(&self, what: &'static str, asked: u64, most: u64) -> Result<(), StreamError> {
        if asked > most {
            return Err(StreamError::TooMuch {
                command: self.number,
                at: self.at,
                what: what.into(),
                asked,
                most,
            });
        }
        Ok(())
    }
}

/// The resource and the box that transfers begin with.
fn transfer_of(head: &[u32; 11], offset: u32) -> (u32, Transfer3d) {
    let [id, level, _, stride, layer_stride, x, y, z, w, h, d] = *head;
    let transfer = Transfer3d {
        x,
        y,
        z,
        w,
        h,
        d,
        offset: offset.into(),
        level,
        stride,
        layer_stride,
    };
    (id, transfer)
}

/// The resource that a command makes, and the number a blob takes it by.
fn created(fields: &[u32; 11]) -> (u32, Resource3d) {
    let [
        target,
        format,
        bind,
        width,
        height,
        depth,
        array_size,
        last_level,
        nr_samples,
        flags,
        blob_id,
    ] = *fields;
    let params = Resource3d {
        target,
        format,
        bind,
        width,
        height,
        depth,
        array_size,
        last_level,
        nr_samples,
        flags,
    };
    (blob_id, params)
}

#[cfg(test)]
mod tests;
