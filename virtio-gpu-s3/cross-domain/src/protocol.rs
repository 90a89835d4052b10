// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The protocol's version 1 on the wire: what a guest may write to a stream, and what it reads in its rings.

use zerocopy::little_endian::{I32, U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use virtio_gpu_s3::renderer::CrossDomainError;

/// VIRTIO_GPU_CAPSET_CROSS_DOMAIN.
pub(super) const CAPSET_ID: u32 = 5;
/// Each message of Wayland has as many files at most.
pub(super) const MAX_IDENTIFIERS: usize = 28;
/// What a message has in a ring, head and all. Guests' rings are a page.
pub(super) const MAX_MESSAGE: usize = 4096;
/// The ring for answers, which are there when the command is done.
pub(super) const QUERY_RING: u8 = 0;
/// The ring whose fences wait for the channel.
pub(super) const CHANNEL_RING: u8 = 1;
pub(super) const CHANNEL_WAYLAND: u32 = 1;
/// Numbers of pipes that the guest reads start behind this one; all others lie before.
pub(super) const READ_PIPES: u32 = 0x8000_0000;

pub(super) mod identifier {
    pub(in super::super) const BLOB: u32 = 1;
    pub(in super::super) const READ_PIPE: u32 = 3;
    pub(in super::super) const WRITE_PIPE: u32 = 4;
}

mod command {
    pub(super) const INIT: u8 = 1;
    pub(super) const GET_IMAGE_REQUIREMENTS: u8 = 2;
    pub(super) const POLL: u8 = 3;
    pub(super) const SEND: u8 = 4;
    pub(super) const RECEIVE: u8 = 5;
    pub(super) const READ: u8 = 6;
    pub(super) const WRITE: u8 = 7;
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Capset {
    pub(super) version: U32,
    /// As a mask.
    pub(super) supported_channels: U32,
    pub(super) supports_dmabuf: U32,
    pub(super) supports_external_gpu_memory: U32,
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Header {
    cmd: u8,
    ring_idx: u8,
    cmd_size: U16,
    pad: U32,
}

/// INIT as first made, with one ring for both.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct OneRingInit {
    hdr: Header,
    ring_id: U32,
    channel_type: U32,
}

/// INIT as it is; a later version adds a number for channels between guests, of which there are none here.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct TwoRingInit {
    hdr: Header,
    query_ring_id: U32,
    channel_ring_id: U32,
    channel_type: U32,
}

/// Bytes of INIT with that number.
const NUMBERED_INIT: usize = 36;

#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct GetImageRequirements {
    hdr: Header,
    width: U32,
    height: U32,
    drm_format: U32,
    flags: U32,
}

/// The answer to it, in the query ring.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct ImageRequirements {
    pub(super) strides: [U32; 4],
    pub(super) offsets: [U32; 4],
    pub(super) modifier: U64,
    pub(super) size: U64,
    pub(super) blob_id: U32,
    pub(super) map_info: U32,
    pub(super) memory_idx: I32,
    pub(super) physical_device_idx: I32,
}

/// A message and its files, with the bytes behind it.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Message {
    hdr: Header,
    num_identifiers: U32,
    opaque_data_size: U32,
    identifiers: [U32; MAX_IDENTIFIERS],
    identifier_types: [U32; MAX_IDENTIFIERS],
    identifier_sizes: [U32; MAX_IDENTIFIERS],
}

/// Bytes of a pipe, behind this.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct PipeData {
    hdr: Header,
    identifier: U32,
    hang_up: U32,
    opaque_data_size: U32,
    pad: U32,
}

/// A file in a message, by the number under which the guest knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identifier {
    pub(super) id: u32,
    pub(super) kind: u32,
    pub(super) size: u32,
}

impl Message {
    /// One for the guest.
    pub(super) fn receive(files: &[Identifier], bytes: usize) -> Self {
        let mut message = Self::new_zeroed();
        message.hdr.cmd = command::RECEIVE;
        message.num_identifiers = count(files.len());
        message.opaque_data_size = count(bytes);
        let Self {
            identifiers,
            identifier_types,
            identifier_sizes,
            ..
        } = &mut message;
        let slots = identifiers.iter_mut().zip(identifier_types);
        for (file, ((id, kind), size)) in files.iter().zip(slots.zip(identifier_sizes)) {
            *id = file.id.into();
            *kind = file.kind.into();
            *size = file.size.into();
        }
        message
    }

    /// The files of one that a guest sends, which was checked to have no more than there can be.
    pub(super) fn files(&self) -> impl Iterator<Item = Identifier> + '_ {
        let ids = self.identifiers.iter().zip(&self.identifier_types);
        let all = ids
            .zip(&self.identifier_sizes)
            .map(|((id, kind), size)| Identifier {
                id: id.get(),
                kind: kind.get(),
                size: size.get(),
            });
        all.take(self.num_identifiers.get() as usize)
    }
}

impl PipeData {
    /// Some for the guest; none say that the other side hung up.
    pub(super) fn read(id: u32, bytes: usize) -> Self {
        let mut data = Self::new_zeroed();
        data.hdr.cmd = command::READ;
        data.identifier = id.into();
        data.hang_up = u32::from(bytes == 0).into();
        data.opaque_data_size = count(bytes);
        data
    }
}

/// No message is longer than [`MAX_MESSAGE`].
fn count(count: usize) -> U32 {
    u32::try_from(count).unwrap_or(u32::MAX).into()
}

/// What a guest asks for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Command<'a> {
    Init {
        query_ring: u32,
        channel_ring: u32,
        channel_type: u32,
    },
    GetImageRequirements {
        width: u32,
        height: u32,
        drm_format: u32,
    },
    /// The fence that comes with it waits; the command itself does nothing.
    Poll,
    Send {
        message: &'a Message,
        data: &'a [u8],
    },
    Write {
        pipe: u32,
        hang_up: bool,
        data: &'a [u8],
    },
}

/// The commands of a stream, one after the other.
#[derive(Clone, Debug)]
pub(super) struct Commands<'a> {
    rest: &'a [u8],
    at: usize,
}

impl<'a> Commands<'a> {
    pub(super) fn of(stream: &'a [u8]) -> Self {
        Self {
            rest: stream,
            at: 0,
        }
    }

    fn take(&mut self) -> Result<Command<'a>, CrossDomainError> {
        let (at, left) = (self.at, self.rest.len());
        let first = self.rest.first().copied().unwrap_or_default();
        let wrong = |size| CrossDomainError::Size {
            command: first,
            at,
            size,
            left,
        };
        let (header, _) = Header::ref_from_prefix(self.rest).map_err(|_| wrong(left))?;
        let size = usize::from(header.cmd_size.get());
        let whole = (size >= size_of::<Header>()).then(|| self.rest.split_at_checked(size));
        let (bytes, rest) = whole.flatten().ok_or_else(|| wrong(size))?;
        self.rest = rest;
        self.at = at.saturating_add(size);
        match first {
            command::INIT => init(bytes),
            command::GET_IMAGE_REQUIREMENTS => image(bytes),
            command::POLL => Some(Command::Poll),
            command::SEND => return send(bytes)?.ok_or_else(|| wrong(size)),
            command::WRITE => write(bytes),
            command => return Err(CrossDomainError::Unknown { command, at }),
        }
        .ok_or_else(|| wrong(size))
    }
}

impl<'a> Iterator for Commands<'a> {
    type Item = Result<Command<'a>, CrossDomainError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let command = self.take();
        if command.is_err() {
            self.rest = &[];
        }
        Some(command)
    }
}

fn init(bytes: &[u8]) -> Option<Command<'_>> {
    if bytes.len() == size_of::<OneRingInit>() {
        let init = OneRingInit::ref_from_bytes(bytes).ok()?;
        let ring = init.ring_id.get();
        return Some(Command::Init {
            query_ring: ring,
            channel_ring: ring,
            channel_type: init.channel_type.get(),
        });
    }
    if ![size_of::<TwoRingInit>(), NUMBERED_INIT].contains(&bytes.len()) {
        return None;
    }
    let (init, _) = TwoRingInit::ref_from_prefix(bytes).ok()?;
    Some(Command::Init {
        query_ring: init.query_ring_id.get(),
        channel_ring: init.channel_ring_id.get(),
        channel_type: init.channel_type.get(),
    })
}

fn image(bytes: &[u8]) -> Option<Command<'_>> {
    let (image, _) = GetImageRequirements::ref_from_prefix(bytes).ok()?;
    Some(Command::GetImageRequirements {
        width: image.width.get(),
        height: image.height.get(),
        drm_format: image.drm_format.get(),
    })
}

fn send(bytes: &[u8]) -> Result<Option<Command<'_>>, CrossDomainError> {
    let Ok((message, data)) = Message::ref_from_prefix(bytes) else {
        return Ok(None);
    };
    let count = message.num_identifiers.get();
    if count as usize > MAX_IDENTIFIERS {
        return Err(CrossDomainError::Identifiers { count });
    }
    let data = data.get(..message.opaque_data_size.get() as usize);
    Ok(data.map(|data| Command::Send { message, data }))
}

fn write(bytes: &[u8]) -> Option<Command<'_>> {
    let (head, data) = PipeData::ref_from_prefix(bytes).ok()?;
    let data = data.get(..head.opaque_data_size.get() as usize)?;
    Some(Command::Write {
        pipe: head.identifier.get(),
        hang_up: head.hang_up.get() != 0,
        data,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_structures_have_the_sizes_that_guests_know() {
        assert_eq!(size_of::<OneRingInit>(), 16);
        assert_eq!(size_of::<TwoRingInit>(), 20);
        assert_eq!(size_of::<GetImageRequirements>(), 24);
        assert_eq!(size_of::<ImageRequirements>(), 64);
        assert_eq!(size_of::<Message>(), 352);
        assert_eq!(size_of::<PipeData>(), 24);
    }

    #[test]
    fn a_command_of_size_zero_is_refused_and_not_read_for_ever() {
        // rutabaga 0.1.85 never comes back from POLL of size 0.
        let stream = [command::POLL, 0, 0, 0, 0, 0, 0, 0];
        let all: Vec<_> = Commands::of(&stream).collect();
        assert_eq!(all.len(), 1);
        let error = all[0].as_ref().unwrap_err();
        assert!(matches!(error, CrossDomainError::Size { size: 0, .. }));
    }

    proptest! {
        #[test]
        fn any_bytes_are_commands_or_an_error(stream in prop::collection::vec(any::<u8>(), 0..2048)) {
            let count = Commands::of(&stream).count();
            prop_assert!(count <= stream.len().div_ceil(8));
        }
    }
}
