// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The messages of vfio-user 0.1 as values: parsed from a buffer that is there whole, and emitted, in one place.
//!
//! All integers have the host's byte order (vfio-user, "Protocol Specification"). Nothing here allocates by a length
//! that a message names.

#![forbid(unsafe_code)]

use rustix::io::Errno;
use vfio_bindings::bindings::vfio::{
    VFIO_DEVICE_FLAGS_PCI, VFIO_DEVICE_FLAGS_RESET, VFIO_IRQ_SET_ACTION_TYPE_MASK,
    VFIO_IRQ_SET_DATA_TYPE_MASK,
};

use crate::limits::MAX_DATA_XFER;

/// Bytes of the header, which every message begins with.
pub(crate) const HEADER_SIZE: usize = 16;
/// Bytes of a region access before its data, without the header.
pub(crate) const ACCESS_SIZE: usize = 16;
/// Bytes of a message with its header.
pub const MAX_MESSAGE: usize = HEADER_SIZE + ACCESS_SIZE + MAX_DATA_XFER as usize;

/// Numbers of the commands that the client sends (vfio-user, "Commands").
pub(crate) mod command {
    pub(crate) const VERSION: u16 = 1;
    pub(crate) const DMA_MAP: u16 = 2;
    pub(crate) const DMA_UNMAP: u16 = 3;
    pub(crate) const DEVICE_GET_INFO: u16 = 4;
    pub(crate) const DEVICE_GET_REGION_INFO: u16 = 5;
    pub(crate) const DEVICE_GET_IRQ_INFO: u16 = 7;
    pub(crate) const DEVICE_SET_IRQS: u16 = 8;
    pub(crate) const REGION_READ: u16 = 9;
    pub(crate) const REGION_WRITE: u16 = 10;
    pub(crate) const DEVICE_RESET: u16 = 13;
}

/// Bits of the header's flags (vfio-user, "Header").
mod flag {
    pub(super) const TYPE: u32 = 0xf;
    pub(super) const COMMAND: u32 = 0;
    pub(super) const REPLY: u32 = 1;
    pub(super) const NO_REPLY: u32 = 1 << 4;
    pub(super) const ERROR: u32 = 1 << 5;
}

/// Bits of DMA_MAP's flags.
mod map_flag {
    pub(super) const READABLE: u32 = 1;
    pub(super) const WRITEABLE: u32 = 2;
}

/// VFIO_DMA_UNMAP_FLAG_ALL of Linux, which QEMU sends.
const UNMAP_ALL: u32 = 2;

/// A command's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) id: u16,
    pub(crate) command: u16,
    /// Bytes after the header.
    pub(crate) body: usize,
    pub(crate) no_reply: bool,
}

/// A header after which nothing that follows can be told apart; the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error("a message of {size} bytes, where {HEADER_SIZE} to {MAX_MESSAGE} are allowed")]
    Size { id: u16, command: u16, size: u32 },
    #[error("a message that is no command (flags {flags:#x})")]
    NotACommand { flags: u32 },
}

impl Header {
    pub(crate) fn parse(bytes: &[u8; HEADER_SIZE]) -> Result<Self, HeaderError> {
        let &[i0, i1, c0, c1, s0, s1, s2, s3, f0, f1, f2, f3, ..] = bytes;
        let id = u16::from_ne_bytes([i0, i1]);
        let command = u16::from_ne_bytes([c0, c1]);
        let size = u32::from_ne_bytes([s0, s1, s2, s3]);
        let flags = u32::from_ne_bytes([f0, f1, f2, f3]);
        if flags & flag::TYPE != flag::COMMAND {
            return Err(HeaderError::NotACommand { flags });
        }
        let length = usize::try_from(size).ok().filter(|&it| it <= MAX_MESSAGE);
        let body = length.and_then(|length| length.checked_sub(HEADER_SIZE));
        let body = body.ok_or(HeaderError::Size { id, command, size })?;
        let no_reply = flags & flag::NO_REPLY != 0;
        Ok(Self {
            id,
            command,
            body,
            no_reply,
        })
    }
}

/// What the client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request<'a> {
    Version {
        major: u16,
        minor: u16,
        json: &'a [u8],
    },
    DmaMap(DmaMap),
    DmaUnmap(DmaUnmap),
    DeviceInfo,
    RegionInfo {
        index: u32,
    },
    IrqInfo {
        index: u32,
    },
    SetIrqs(SetIrqs<'a>),
    Read(Access),
    Write(Access, &'a [u8]),
    Reset,
}

/// Guest memory that the device may use from now on. Sizes and addresses are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DmaMap {
    pub(crate) readable: bool,
    pub(crate) writeable: bool,
    /// In the file.
    pub(crate) offset: u64,
    pub(crate) address: u64,
    pub(crate) size: u64,
}

/// Guest memory that the device may no longer use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DmaUnmap {
    flags: u32,
    pub(crate) address: u64,
    pub(crate) size: u64,
}

impl DmaUnmap {
    pub(crate) fn all(&self) -> bool {
        self.flags == UNMAP_ALL
    }
}

/// Interrupts of one kind that are connected, masked or fired (VFIO_DEVICE_SET_IRQS).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SetIrqs<'a> {
    pub(crate) index: u32,
    /// Exactly one of VFIO_IRQ_SET_DATA_*.
    pub(crate) data: u32,
    /// Exactly one of VFIO_IRQ_SET_ACTION_*.
    pub(crate) action: u32,
    pub(crate) start: u32,
    pub(crate) count: u32,
    /// A byte an interrupt, with VFIO_IRQ_SET_DATA_BOOL.
    pub(crate) bools: &'a [u8],
}

/// Where in which region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// VFIO's number of the region: 0 to 5 for the BARs, 7 for configuration space.
    pub region: u32,
    /// In bytes from the region's start.
    pub offset: u64,
    /// In bytes.
    pub length: u32,
}

impl<'a> Request<'a> {
    /// Reads a command's body. What a message has beyond its structure is ignored, as VFIO's `argsz` has it.
    ///
    /// # Errors
    /// The errno for the reply: EINVAL for a body that is too short or contradicts itself, EOPNOTSUPP for a command that
    /// is unknown, or known and not offered.
    pub(crate) fn parse(command: u16, body: &'a [u8]) -> Result<Self, Errno> {
        let mut fields = Fields(body);
        match command {
            command::VERSION => {
                let major = fields.u16()?;
                let minor = fields.u16()?;
                let json = fields.0;
                Ok(Self::Version { major, minor, json })
            }
            command::DMA_MAP => parse_map(&mut fields),
            command::DMA_UNMAP => parse_unmap(&mut fields),
            command::DEVICE_GET_INFO => {
                fields.argsz(DEVICE_INFO_SIZE)?;
                let _zeros: [u8; 12] = fields.take()?;
                Ok(Self::DeviceInfo)
            }
            command::DEVICE_GET_REGION_INFO => {
                let index = fields.index_after(REGION_INFO_SIZE)?;
                Ok(Self::RegionInfo { index })
            }
            command::DEVICE_GET_IRQ_INFO => {
                let index = fields.index_after(IRQ_INFO_SIZE)?;
                Ok(Self::IrqInfo { index })
            }
            command::DEVICE_SET_IRQS => parse_set_irqs(&mut fields),
            command::REGION_READ => Ok(Self::Read(fields.access()?)),
            command::REGION_WRITE => {
                let access = fields.access()?;
                let data = fields.rest(access.length)?;
                Ok(Self::Write(access, data))
            }
            command::DEVICE_RESET => Ok(Self::Reset),
            _ => Err(Errno::OPNOTSUPP),
        }
    }
}

fn parse_map<'a>(fields: &mut Fields<'a>) -> Result<Request<'a>, Errno> {
    let _argsz = fields.u32()?;
    let flags = fields.u32()?;
    if flags & !(map_flag::READABLE | map_flag::WRITEABLE) != 0 {
        return Err(Errno::INVAL);
    }
    Ok(Request::DmaMap(DmaMap {
        readable: flags & map_flag::READABLE != 0,
        writeable: flags & map_flag::WRITEABLE != 0,
        offset: fields.u64()?,
        address: fields.u64()?,
        size: fields.u64()?,
    }))
}

fn parse_unmap<'a>(fields: &mut Fields<'a>) -> Result<Request<'a>, Errno> {
    let _argsz = fields.u32()?;
    let flags = fields.u32()?;
    if flags & !UNMAP_ALL != 0 {
        return Err(Errno::INVAL);
    }
    Ok(Request::DmaUnmap(DmaUnmap {
        flags,
        address: fields.u64()?,
        size: fields.u64()?,
    }))
}

fn parse_set_irqs<'a>(fields: &mut Fields<'a>) -> Result<Request<'a>, Errno> {
    let _argsz = fields.u32()?;
    let flags = fields.u32()?;
    let data = flags & VFIO_IRQ_SET_DATA_TYPE_MASK;
    let action = flags & VFIO_IRQ_SET_ACTION_TYPE_MASK;
    if !data.is_power_of_two() || !action.is_power_of_two() || flags != data | action {
        return Err(Errno::INVAL);
    }
    Ok(Request::SetIrqs(SetIrqs {
        index: fields.u32()?,
        data,
        action,
        start: fields.u32()?,
        count: fields.u32()?,
        bools: fields.0,
    }))
}

/// The fields of a body, one after the other.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Errno> {
        let (field, rest) = self.0.split_first_chunk().ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(*field)
    }

    fn u16(&mut self) -> Result<u16, Errno> {
        self.take().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Result<u32, Errno> {
        self.take().map(u32::from_ne_bytes)
    }

    fn u64(&mut self) -> Result<u64, Errno> {
        self.take().map(u64::from_ne_bytes)
    }

    /// The room that the client has for the reply's structure.
    fn argsz(&mut self, needed: u32) -> Result<(), Errno> {
        let enough = self.u32()? >= needed;
        enough.then_some(()).ok_or(Errno::INVAL)
    }

    fn index_after(&mut self, needed: u32) -> Result<u32, Errno> {
        self.argsz(needed)?;
        let _flags = self.u32()?;
        self.u32()
    }

    fn access(&mut self) -> Result<Access, Errno> {
        let offset = self.u64()?;
        let region = self.u32()?;
        let length = self.u32()?;
        let access = Access {
            region,
            offset,
            length,
        };
        (length <= MAX_DATA_XFER)
            .then_some(access)
            .ok_or(Errno::INVAL)
    }

    fn rest(&mut self, length: u32) -> Result<&'a [u8], Errno> {
        let length = usize::try_from(length).map_err(|_| Errno::INVAL)?;
        (self.0.len() == length)
            .then_some(self.0)
            .ok_or(Errno::INVAL)
    }
}

/// Bytes of the replies' structures.
const DEVICE_INFO_SIZE: u32 = 16;
const REGION_INFO_SIZE: u32 = 32;
const IRQ_INFO_SIZE: u32 = 16;
const UNMAP_SIZE: u32 = 24;

/// What the client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply<'a> {
    Empty,
    /// "The same format is used" (vfio-user, "VFIO_USER_VERSION"); `json` ends in no NUL.
    Version {
        minor: u16,
        json: &'a [u8],
    },
    Unmapped(DmaUnmap),
    DeviceInfo {
        regions: u32,
        irqs: u32,
    },
    RegionInfo {
        flags: u32,
        index: u32,
        size: u64,
    },
    IrqInfo {
        flags: u32,
        index: u32,
        count: u32,
    },
    /// With room for the data, as zeros.
    Read(Access),
    Written(Access),
}

impl Reply<'_> {
    /// The whole message in answer to `header`.
    pub(crate) fn emit(&self, header: &Header) -> Vec<u8> {
        let mut body = Body::new();
        match *self {
            Self::Empty => {}
            Self::Version { minor, json } => {
                body.put(&0u16.to_ne_bytes());
                body.put(&minor.to_ne_bytes());
                body.put(json);
                body.put(&[0]);
            }
            Self::Unmapped(DmaUnmap {
                flags,
                address,
                size,
            }) => {
                body.u32s([UNMAP_SIZE, flags]);
                body.u64s([address, size]);
            }
            Self::DeviceInfo { regions, irqs } => {
                let flags = VFIO_DEVICE_FLAGS_RESET | VFIO_DEVICE_FLAGS_PCI;
                body.u32s([DEVICE_INFO_SIZE, flags, regions, irqs]);
            }
            Self::RegionInfo { flags, index, size } => {
                // No capabilities, and no file to map.
                body.u32s([REGION_INFO_SIZE, flags, index, 0]);
                body.u64s([size, 0]);
            }
            Self::IrqInfo {
                flags,
                index,
                count,
            } => body.u32s([IRQ_INFO_SIZE, flags, index, count]),
            Self::Read(access) => {
                body.access(access);
                let data = usize::try_from(access.length.min(MAX_DATA_XFER)).unwrap_or(0);
                body.0.resize(body.0.len() + data, 0);
            }
            Self::Written(access) => body.access(access),
        }
        body.finish(header, flag::REPLY, 0)
    }
}

/// The reply to what went wrong: the header alone (vfio-user, "Header").
pub(crate) fn emit_error(header: &Header, errno: Errno) -> Vec<u8> {
    let errno = errno.raw_os_error().unsigned_abs();
    Body::new().finish(header, flag::REPLY | flag::ERROR, errno)
}

/// A message under way, with room for its header.
struct Body(Vec<u8>);

impl Body {
    fn new() -> Self {
        Self(vec![0; HEADER_SIZE])
    }

    fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn u32s<const N: usize>(&mut self, fields: [u32; N]) {
        for field in fields {
            self.put(&field.to_ne_bytes());
        }
    }

    fn u64s<const N: usize>(&mut self, fields: [u64; N]) {
        for field in fields {
            self.put(&field.to_ne_bytes());
        }
    }

    fn access(&mut self, access: Access) {
        self.u64s([access.offset]);
        self.u32s([access.region, access.length]);
    }

    fn finish(mut self, header: &Header, flags: u32, errno: u32) -> Vec<u8> {
        let size = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        let mut head = Self(Vec::with_capacity(HEADER_SIZE));
        head.put(&header.id.to_ne_bytes());
        head.put(&header.command.to_ne_bytes());
        head.u32s([size, flags, errno]);
        for (to, from) in self.0.iter_mut().zip(head.0) {
            *to = from;
        }
        self.0
    }
}
