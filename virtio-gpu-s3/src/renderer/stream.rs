// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A look at a virgl command stream before virglrenderer parses it.
//!
//! Its parser is C, and the old ones that distributions ship (0.10.4) compute sizes in 32 bits. So
//! everything in a stream that moves bytes between guest memory and the host, and everything that
//! makes the host hold more than the device's own tables count, is checked here first. A stream is
//! refused whole, by name, or given as it is; what only draws is virglrenderer's to check.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;
use virgl_stream::{Command, Number, TransferKind, Truncated, commands};

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

/// One past the last command that any version knows. Each refuses those that it does not.
const END: Number = Number(65);

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
    for command in commands(stream) {
        let (at, command) = command?;
        let checked = Checked { command, at };
        match command.number {
            Number::RESOURCE_INLINE_WRITE | Number::TRANSFER3D | Number::COPY_TRANSFER3D => {
                checked.transfer(&target)?;
            }
            Number::CREATE_SUB_CTX | Number::DESTROY_SUB_CTX | Number::PIPE_RESOURCE_CREATE => {
                changes.push(checked.grow(&mut ahead)?);
            }
            number if number >= END => {
                return Err(StreamError::Unknown {
                    command: number.0.into(),
                    at,
                });
            }
            _ => {}
        }
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

/// A command under inspection.
struct Checked<'a> {
    command: Command<'a>,
    /// The dword at which it starts.
    at: usize,
}

impl Checked<'_> {
    fn number(&self) -> u32 {
        self.command.number.0.into()
    }

    fn short(&self, needed: usize) -> StreamError {
        StreamError::Short {
            command: self.number(),
            at: self.at,
            length: self.command.body.len(),
            needed,
        }
    }

    fn find<'a>(
        &self,
        id: u32,
        target: &impl Fn(u32) -> Option<Target<'a>>,
    ) -> Result<Target<'a>, StreamError> {
        target(id).ok_or(StreamError::NoSuchResource {
            command: self.number(),
            at: self.at,
            id,
        })
    }

    fn outside(&self, id: u32) -> impl FnOnce(GuestError) -> StreamError {
        let (command, at) = (self.number(), self.at);
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

    /// The memory is the resource's own, another's, or in the stream itself.
    fn transfer<'a>(&self, target: &impl Fn(u32) -> Option<Target<'a>>) -> Result<(), StreamError> {
        let least = self.command.number.info().map_or(0, |it| it.length.least());
        let transfer = self.command.transfer();
        let transfer = transfer.ok_or_else(|| self.short(least))?;
        let id = transfer.resource;
        let resource = self.find(id, target)?;
        let (memory, offset) = match transfer.kind {
            TransferKind::Inline { bytes } => (bytes, 0),
            TransferKind::Backing { offset } => (resource.backing, offset),
            TransferKind::Staging { staging, offset } => {
                (self.find(staging, target)?.backing, offset)
            }
        };
        let ([x, y, z], [w, h, d]) = (transfer.start, transfer.size);
        let transfer = Transfer3d {
            x,
            y,
            z,
            w,
            h,
            d,
            offset: offset.into(),
            level: transfer.level,
            stride: transfer.stride,
            layer_stride: transfer.layer_stride,
        };
        check_transfer(resource.params, &transfer, memory).map_err(self.outside(id))
    }

    fn grow(&self, ahead: &mut Ahead) -> Result<Change, StreamError> {
        if self.command.number == Number::PIPE_RESOURCE_CREATE {
            let made = self.command.resource_create();
            let made = made.ok_or_else(|| self.short(11))?;
            let (blob_id, bytes) = (made.blob_id, Rendered::estimate(&created(made.params)));
            ahead.untaken = ahead.untaken.saturating_add(1);
            ahead.bytes = ahead.bytes.saturating_add(bytes);
            let untaken = ahead.untaken as u64;
            self.at_most("untaken resources", untaken, MAX_UNTAKEN as u64)?;
            self.at_most("bytes of untaken resources", ahead.bytes, MAX_UNTAKEN_BYTES)?;
            return Ok(Change::Make { blob_id, bytes });
        }
        let id = self.command.field(0).ok_or_else(|| self.short(1))?;
        if self.command.number == Number::DESTROY_SUB_CTX {
            return Ok(Change::End(id));
        }
        ahead.sub_contexts = ahead.sub_contexts.saturating_add(1);
        let count = ahead.sub_contexts as u64;
        self.at_most("sub-contexts", count, MAX_SUB_CONTEXTS as u64)?;
        Ok(Change::Begin(id))
    }

    fn at_most(&self, what: &'static str, asked: u64, most: u64) -> Result<(), StreamError> {
        if asked > most {
            return Err(StreamError::TooMuch {
                command: self.number(),
                at: self.at,
                what: what.into(),
                asked,
                most,
            });
        }
        Ok(())
    }
}

/// What a command makes.
fn created(params: [u32; 10]) -> Resource3d {
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
    ] = params;
    Resource3d {
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
    }
}

impl From<Truncated> for StreamError {
    fn from(cut: Truncated) -> Self {
        Self::Truncated {
            command: cut.number.0.into(),
            at: cut.at,
            length: cut.length,
            left: cut.left,
        }
    }
}

#[cfg(test)]
mod tests;
