// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Commands out of a stream, and into one.
//!
//! A command is a dword of number (8 bits), kind of object (8) and length in dwords (16), and so many dwords more.

use thiserror::Error;

use crate::command::{Number, ObjectType};

/// The stream ends before its last command does. virglrenderer drops such a command without a word.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error(
    "command {} at dword {at} of {length} dwords, of which {left} are there",
    number.0
)]
pub struct Truncated {
    /// Its number.
    pub number: Number,
    /// The dword of the stream at which it starts.
    pub at: usize,
    /// Dwords it says it has.
    pub length: usize,
    /// Dwords there are.
    pub left: usize,
}

/// A command is longer than its header can say.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a command of {length} dwords, and there can be 65535")]
pub struct EncodeError {
    /// Its dwords.
    pub length: usize,
}

/// A command of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command<'a> {
    /// What to do.
    pub number: Number,
    /// With what kind of object, where that means something.
    pub object: ObjectType,
    /// The dwords behind its header.
    pub body: &'a [u32],
}

impl<'a> Command<'a> {
    /// A command; `object` is the kind of object, 0 where that means nothing.
    pub fn new(number: Number, object: u8, body: &'a [u32]) -> Self {
        Self {
            number,
            object: ObjectType(object),
            body,
        }
    }

    /// Its header, as its number, kind and length are.
    ///
    /// # Errors
    /// It is too long for one.
    pub fn header(&self) -> Result<u32, EncodeError> {
        let length = self.body.len();
        let dwords = u16::try_from(length).map_err(|_| EncodeError { length })?;
        Ok(u32::from(self.number.0) | u32::from(self.object.0) << 8 | u32::from(dwords) << 16)
    }

    /// Puts it at the end of a stream.
    ///
    /// # Errors
    /// It is too long; the stream is as before.
    pub fn encode(&self, stream: &mut Vec<u32>) -> Result<(), EncodeError> {
        stream.push(self.header()?);
        stream.extend_from_slice(self.body);
        Ok(())
    }

    /// Its first dwords, `None` if it has not so many.
    #[inline]
    pub fn fields<const N: usize>(&self) -> Option<&'a [u32; N]> {
        self.body.first_chunk()
    }

    /// The dword there.
    #[inline]
    pub fn field(&self, at: usize) -> Option<u32> {
        self.body.get(at).copied()
    }

    /// What it moves, if it is one of the commands that move bytes between memory and a resource and is long enough.
    pub fn transfer(&self) -> Option<Transfer> {
        let (head, kind) = match self.number {
            Number::RESOURCE_INLINE_WRITE => {
                let [head @ .., _] = self.fields::<12>()?;
                let bytes = self.body.len().saturating_sub(head.len()) as u64;
                let bytes = bytes.saturating_mul(4);
                (head, TransferKind::Inline { bytes })
            }
            Number::TRANSFER3D => {
                let [head @ .., offset, _] = self.fields::<13>()?;
                (head, TransferKind::Backing { offset: *offset })
            }
            Number::COPY_TRANSFER3D => {
                let [head @ .., staging, offset, _] = self.fields::<14>()?;
                let (staging, offset) = (*staging, *offset);
                (head, TransferKind::Staging { staging, offset })
            }
            _ => return None,
        };
        let [
            resource,
            level,
            _usage,
            stride,
            layer_stride,
            x,
            y,
            z,
            w,
            h,
            d,
        ] = *head;
        Some(Transfer {
            resource,
            level,
            stride,
            layer_stride,
            start: [x, y, z],
            size: [w, h, d],
            kind,
        })
    }

    /// What resource it makes, if it does and is long enough.
    pub fn resource_create(&self) -> Option<ResourceCreate> {
        if self.number != Number::PIPE_RESOURCE_CREATE {
            return None;
        }
        let [params @ .., blob_id] = self.fields::<11>()?;
        Some(ResourceCreate {
            params: *params,
            blob_id: *blob_id,
        })
    }
}

/// Bytes that a command moves between memory and a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The resource.
    pub resource: u32,
    /// Its mip level.
    pub level: u32,
    /// Bytes from one row to the next in memory; 0 if they follow each other.
    pub stride: u32,
    /// Bytes from one layer to the next in memory; 0 if they follow each other.
    pub layer_stride: u32,
    /// The corner of the box: x, y, z.
    pub start: [u32; 3],
    /// The box's width, height and depth.
    pub size: [u32; 3],
    /// Where the memory is.
    pub kind: TransferKind,
}

/// The memory of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferKind {
    /// The command itself has so many bytes.
    #[expect(missing_docs, reason = "the variant says it")]
    Inline { bytes: u64 },
    /// The resource's own guest memory, from `offset` on.
    #[expect(missing_docs, reason = "the variant says it")]
    Backing { offset: u32 },
    /// Another resource's guest memory, from `offset` on.
    #[expect(missing_docs, reason = "the variant says it")]
    Staging { staging: u32, offset: u32 },
}

/// A resource made in a stream, which a blob takes by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceCreate {
    /// Target, format, bind, width, height, depth, array size, last level, samples, flags.
    pub params: [u32; 10],
    /// The number that a blob takes it by.
    pub blob_id: u32,
}

/// The commands of a stream; the last item is an error if the last command is cut short.
#[inline]
pub fn commands(stream: &[u32]) -> Commands<'_> {
    Commands {
        rest: stream,
        at: 0,
    }
}

/// See [`commands`].
#[derive(Clone, Debug)]
pub struct Commands<'a> {
    rest: &'a [u32],
    at: usize,
}

impl<'a> Iterator for Commands<'a> {
    /// The dword at which a command starts, and the command.
    type Item = Result<(usize, Command<'a>), Truncated>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (header, tail) = self.rest.split_first()?;
        let [number, object, _, _] = header.to_le_bytes();
        let length = (header >> 16) as usize;
        let (at, number) = (self.at, Number(number));
        let Some((body, rest)) = tail.split_at_checked(length) else {
            self.rest = &[];
            let left = tail.len();
            return Some(Err(Truncated {
                number,
                at,
                length,
                left,
            }));
        };
        self.rest = rest;
        self.at = at.saturating_add(length).saturating_add(1);
        let object = ObjectType(object);
        Some(Ok((
            at,
            Command {
                number,
                object,
                body,
            },
        )))
    }
}
