// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is read of a guest's buffer, once.

use std::mem;

use vm_memory::{Bytes, GuestAddress, VolatileSlice};

use crate::command;
use crate::error::GuestError;
use crate::renderer::StreamSource;
use vm_memory::GuestMemoryBackend;

/// Bytes of a request that are copied before anything of it is looked at: more than the fixed part of any command, and
/// what it does not cost more to copy twice than to ask where the rest shall go.
const HEAD_BYTES: usize = 4096;

/// A request, read from the guest's buffer.
///
/// What is looked at here is a copy that nobody else can change: all of a short request, and of any that is no command
/// stream. A long stream stays where the guest wrote it until its renderer copies it to where the stream is run: that is
/// its one copy. Reusable: [`load`](Self::load) starts over.
#[derive(Clone, Debug, Default)]
pub struct Request {
    head: Vec<u8>,
    rest: Vec<(GuestAddress, usize)>,
}

impl Request {
    /// Reads the request that lies in `ranges`, of which `max` bytes count:
    /// [`max_command_bytes`](crate::Limits::max_command_bytes) are enough.
    ///
    /// # Errors
    /// A range is not memory.
    pub fn load<M: GuestMemoryBackend + ?Sized>(
        &mut self,
        ranges: &[(GuestAddress, usize)],
        max: usize,
        memory: &M,
    ) -> Result<(), GuestError> {
        self.head.clear();
        self.rest.clear();
        let mut left = max;
        for (address, length) in ranges {
            let length = left.min(*length);
            left = left.saturating_sub(length);
            let count = length.min(HEAD_BYTES.saturating_sub(self.head.len()));
            self.read(*address, count, memory)?;
            if count < length {
                let next = address.0.checked_add(count as u64);
                let next = next.ok_or(no_memory(*address, length))?;
                let unread = length.saturating_sub(count);
                self.rest.push((GuestAddress(next), unread));
            }
        }
        if !self.rest.is_empty() && !command::is_stream(&self.head) {
            for (address, length) in mem::take(&mut self.rest) {
                self.read(address, length, memory)?;
            }
        }
        Ok(())
    }

    /// What was read.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// What was not, as it is a stream's.
    pub(crate) fn rest(&self) -> &[(GuestAddress, usize)] {
        &self.rest
    }

    fn read<M: GuestMemoryBackend + ?Sized>(
        &mut self,
        address: GuestAddress,
        length: usize,
        memory: &M,
    ) -> Result<(), GuestError> {
        let from = self.head.len();
        self.head.resize(from.saturating_add(length), 0);
        let target = self.head.get_mut(from..).unwrap_or_default();
        let read = memory.read_slice(target, address);
        read.map_err(|_| no_memory(address, length))
    }
}

fn no_memory(address: GuestAddress, length: usize) -> GuestError {
    GuestError::Memory {
        address: address.0,
        length: length as u64,
    }
}

/// A command stream of a request: what was read of it, and so many bytes more of what was not.
#[derive(Debug)]
pub(crate) struct GuestStream<'a, M: ?Sized> {
    pub(crate) head: &'a [u8],
    pub(crate) unread: usize,
    pub(crate) rest: &'a [(GuestAddress, usize)],
    pub(crate) memory: &'a M,
}

impl<M: GuestMemoryBackend + ?Sized> StreamSource for GuestStream<'_, M> {
    fn len(&self) -> usize {
        self.head.len().saturating_add(self.unread)
    }

    fn copy_to(&self, target: &VolatileSlice<'_>) -> Result<(), GuestError> {
        target.copy_from(self.head);
        let mut done = self.head.len();
        let mut left = self.unread;
        for (address, length) in self.rest {
            let count = left.min(*length);
            left = left.saturating_sub(count);
            for slice in GuestMemoryBackend::get_slices(self.memory, *address, count) {
                let no_memory = |_| no_memory(*address, count);
                let slice = slice.map_err(no_memory)?;
                let part = target.subslice(done, slice.len());
                slice.copy_to_volatile_slice(part.map_err(|_| GuestError::Memory {
                    address: address.0,
                    length: count as u64,
                })?);
                done = done.saturating_add(slice.len());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use virtio_gpu_s3_testing::request;
    use vm_memory::GuestMemoryMmap;

    use super::*;
    use crate::command::{Command, Rendering, Stream, decode_head};
    use crate::protocol::Queue;
    use crate::protocol::feature;

    const RANGES: [(GuestAddress, usize); 3] = [
        (GuestAddress(0x100), 40),
        (GuestAddress(0x8000), 0x3001),
        (GuestAddress(0x1_0000), 0x1000),
    ];

    /// The request, scattered over the ranges.
    fn scattered(bytes: &[u8]) -> GuestMemoryMmap {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x2_0000)]).unwrap();
        let mut rest = bytes;
        for (address, length) in RANGES {
            let (part, behind) = rest.split_at(rest.len().min(length));
            memory.write_slice(part, address).unwrap();
            rest = behind;
        }
        memory
    }

    #[test]
    fn the_rest_of_a_long_stream_is_read_when_it_is_copied_and_the_head_never_again() {
        let words: Vec<u32> = (0..4000).collect();
        let bytes = request::submit_3d(&words);
        let memory = scattered(&bytes);
        let mut request = Request::default();
        request.load(&RANGES, usize::MAX, &memory).unwrap();
        assert_eq!(request.head(), &bytes[..HEAD_BYTES]);
        // The guest writes on: what was looked at stays, and what was not is not.
        memory.write_slice(&[0xff; 40], RANGES[0].0).unwrap();
        let at = GuestAddress(0x1_0000 + 4);
        memory.write_slice(&[0xee; 4], at).unwrap();
        let total = RANGES.iter().map(|(_, length)| length).sum();
        let decoded = decode_head(request.head(), total, Queue::Control, feature::VIRGL);
        let stream = match decoded.command.unwrap() {
            Command::Rendering(Rendering::Submit3d { stream, .. }) => Some(stream),
            _ => None,
        };
        let Stream { head, unread } = stream.unwrap();
        let rest = request.rest();
        let memory = &memory;
        let source = GuestStream {
            head,
            unread,
            rest,
            memory,
        };
        let mut copied = vec![0; source.len()];
        source.copy_to(&copied.as_mut_slice().into()).unwrap();
        let start = bytes.len() - copied.len();
        let changed = 40 + 0x3001 + 4 - start;
        for (at, (new, old)) in copied.iter().zip(&bytes[start..]).enumerate() {
            let expected = if (changed..changed + 4).contains(&at) {
                0xee
            } else {
                *old
            };
            assert_eq!(*new, expected, "{at}");
        }
    }

    #[test]
    fn any_other_request_is_read_whole_and_no_further_than_it_may_be() {
        let bytes: Vec<u8> = (0..0x3100_u32)
            .map(|at| at.to_le_bytes()[0] | 0x80)
            .collect();
        let memory = scattered(&bytes);
        let mut request = Request::default();
        for max in [0, 39, 40, HEAD_BYTES, 0x3100, usize::MAX] {
            request.load(&RANGES, max, &memory).unwrap();
            let length = max.min(40 + 0x3001 + 0x1000);
            assert_eq!(request.head().len(), length);
            let known = length.min(bytes.len());
            assert_eq!(request.head()[..known], bytes[..known]);
            assert!(request.rest().is_empty());
        }
    }

    #[test]
    fn a_range_that_is_no_memory_is_refused() {
        let memory = scattered(&[]);
        let mut request = Request::default();
        for range in [
            (GuestAddress(0x2_0000), 1),
            (GuestAddress(0x1_ffff), 2),
            (GuestAddress(u64::MAX), 1),
        ] {
            let error = request.load(&[range], 64, &memory).unwrap_err();
            assert!(matches!(error, GuestError::Memory { .. }));
        }
    }
}
