// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Bytes to validated requests: the only place that sees what the guest wrote.

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, FromZeros, Immutable, KnownLayout, Unaligned};

use crate::error::GuestError;
use crate::geometry::Rect;
use crate::pixel::PixelFormat;
use crate::protocol::wire::{self, CtrlHdr, MemEntry};
use crate::protocol::{CommandId, CommandInfo, Format, MAX_IN_FENCES, Queue};
use crate::renderer::{BlobParams, Resource3d, Transfer3d};

/// A request as the guest wrote it.
#[derive(Debug)]
pub struct Decoded<'a> {
    /// Its header; zeros if even that is short.
    pub header: CtrlHdr,
    /// The command, or why there is none.
    pub command: Result<Command<'a>, GuestError>,
}

/// A command whose fields are present and whose numbers mean something. Ids are not looked up yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the standard's, §5.7.6.8")]
pub enum Command<'a> {
    /// `GET_DISPLAY_INFO`
    GetDisplayInfo,
    /// `GET_EDID`
    GetEdid { scanout_id: u32 },
    /// `RESOURCE_CREATE_2D`
    ResourceCreate2d {
        resource_id: u32,
        format: PixelFormat,
        width: u32,
        height: u32,
    },
    /// `RESOURCE_UNREF`
    ResourceUnref { resource_id: u32 },
    /// `SET_SCANOUT`
    SetScanout {
        scanout_id: u32,
        resource_id: u32,
        rect: Rect,
    },
    /// `RESOURCE_FLUSH`
    ResourceFlush { resource_id: u32, rect: Rect },
    /// `TRANSFER_TO_HOST_2D`
    TransferToHost2d {
        resource_id: u32,
        rect: Rect,
        offset: u64,
    },
    /// `RESOURCE_ATTACH_BACKING`
    ResourceAttachBacking {
        resource_id: u32,
        entries: &'a [MemEntry],
    },
    /// `RESOURCE_DETACH_BACKING`
    ResourceDetachBacking { resource_id: u32 },
    /// `RESOURCE_ASSIGN_UUID`
    ResourceAssignUuid { resource_id: u32 },
    /// `RESOURCE_CREATE_BLOB`
    ResourceCreateBlob {
        resource_id: u32,
        params: BlobParams,
        entries: &'a [MemEntry],
    },
    /// `SET_SCANOUT_BLOB`, of a single plane
    SetScanoutBlob {
        scanout_id: u32,
        resource_id: u32,
        rect: Rect,
        layout: BlobLayout,
    },
    /// `RESOURCE_MAP_BLOB`
    ResourceMapBlob { resource_id: u32, offset: u64 },
    /// `RESOURCE_UNMAP_BLOB`
    ResourceUnmapBlob { resource_id: u32 },
    /// A command of the cursor queue
    Cursor(CursorCommand),
    /// A command that needs `VIRTIO_GPU_F_VIRGL`
    Rendering(Rendering<'a>),
}

impl Command<'_> {
    /// True if a fence after the command must wait for the renderer.
    pub(crate) fn is_asynchronous(&self) -> bool {
        matches!(
            self,
            Self::Rendering(
                Rendering::Submit3d { .. }
                    | Rendering::TransferToHost3d { .. }
                    | Rendering::TransferFromHost3d { .. }
            )
        )
    }
}

/// A command of the cursor queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the standard's, §5.7.6.8")]
pub enum CursorCommand {
    /// `UPDATE_CURSOR`
    UpdateCursor {
        scanout_id: u32,
        resource_id: u32,
        x: i32,
        y: i32,
        hot_x: u32,
        hot_y: u32,
    },
    /// `MOVE_CURSOR`
    MoveCursor { scanout_id: u32, x: i32, y: i32 },
}

/// A command of contexts and 3D.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the standard's, §5.7.6.8")]
pub enum Rendering<'a> {
    /// `GET_CAPSET_INFO`
    GetCapsetInfo { index: u32 },
    /// `GET_CAPSET`
    GetCapset { id: u32, version: u32 },
    /// `CTX_CREATE`
    CtxCreate {
        context_init: u32,
        debug_name: &'a [u8],
    },
    /// `CTX_DESTROY`
    CtxDestroy,
    /// `CTX_ATTACH_RESOURCE`
    CtxAttachResource { resource_id: u32 },
    /// `CTX_DETACH_RESOURCE`
    CtxDetachResource { resource_id: u32 },
    /// `RESOURCE_CREATE_3D`
    ResourceCreate3d {
        resource_id: u32,
        params: Resource3d,
    },
    /// `TRANSFER_TO_HOST_3D`
    TransferToHost3d {
        resource_id: u32,
        transfer: Transfer3d,
    },
    /// `TRANSFER_FROM_HOST_3D`
    TransferFromHost3d {
        resource_id: u32,
        transfer: Transfer3d,
    },
    /// `SUBMIT_3D`
    Submit3d {
        stream: Stream<'a>,
        in_fences: &'a [U64],
    },
}

/// A command stream, of which the rest may not have been read yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream<'a> {
    /// What was read.
    pub head: &'a [u8],
    /// Bytes that follow.
    pub unread: usize,
}

/// How a picture lies in a blob (`SET_SCANOUT_BLOB`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the standard's, of plane 0")]
pub struct BlobLayout {
    pub width: u32,
    pub height: u32,
    pub format: PixelFormat,
    pub stride: u32,
    pub offset: u32,
}

/// Decodes a request that came on `queue` with the features `negotiated` (as a mask).
///
/// Takes requests longer than they need be, since drivers pad them, and refuses short ones.
/// Allocates nothing.
pub fn decode(request: &[u8], queue: Queue, negotiated: u64) -> Decoded<'_> {
    decode_head(request, request.len(), queue, negotiated)
}

/// Whether what a request begins with is a command whose end need not be read to decode it.
pub(crate) fn is_stream(head: &[u8]) -> bool {
    let header = CtrlHdr::read_from_prefix(head);
    header.is_ok_and(|(header, _)| CommandId(header.type_.get()) == CommandId::SUBMIT_3D)
}

/// The same of a request of `total` bytes, of which the end of a stream is not there.
pub(crate) fn decode_head(
    request: &[u8],
    total: usize,
    queue: Queue,
    negotiated: u64,
) -> Decoded<'_> {
    let Ok((header, _)) = CtrlHdr::read_from_prefix(request) else {
        return Decoded {
            header: CtrlHdr::new_zeroed(),
            command: Err(GuestError::ShortRequest {
                command: CommandId(0),
                len: total,
                needed: size_of::<CtrlHdr>() as u64,
            }),
        };
    };
    let command = Request {
        id: CommandId(header.type_.get()),
        bytes: request,
        total,
    }
    .decode(queue, negotiated);
    Decoded { header, command }
}

#[derive(Clone, Copy)]
struct Request<'a> {
    id: CommandId,
    bytes: &'a [u8],
    /// Bytes of all of it.
    total: usize,
}

impl<'a> Request<'a> {
    fn decode(self, queue: Queue, negotiated: u64) -> Result<Command<'a>, GuestError> {
        let command = self.id;
        let info = CommandInfo::of(command).ok_or(GuestError::UnknownCommand { command })?;
        if info.queue != queue {
            return Err(GuestError::WrongQueue { command, queue });
        }
        let feature = info.feature & !negotiated;
        if feature != 0 {
            return Err(GuestError::FeatureNotNegotiated { command, feature });
        }
        match command {
            CommandId::GET_DISPLAY_INFO => Ok(Command::GetDisplayInfo),
            CommandId::GET_EDID => self.get_edid(),
            CommandId::RESOURCE_CREATE_2D => self.resource_create_2d(),
            CommandId::RESOURCE_UNREF => {
                self.resource(|resource_id| Command::ResourceUnref { resource_id })
            }
            CommandId::SET_SCANOUT => self.set_scanout(),
            CommandId::RESOURCE_FLUSH => self.resource_flush(),
            CommandId::TRANSFER_TO_HOST_2D => self.transfer_to_host_2d(),
            CommandId::RESOURCE_ATTACH_BACKING => self.resource_attach_backing(),
            CommandId::RESOURCE_DETACH_BACKING => {
                self.resource(|resource_id| Command::ResourceDetachBacking { resource_id })
            }
            CommandId::RESOURCE_ASSIGN_UUID => {
                self.resource(|resource_id| Command::ResourceAssignUuid { resource_id })
            }
            CommandId::UPDATE_CURSOR => self.update_cursor().map(Command::Cursor),
            CommandId::MOVE_CURSOR => self.move_cursor().map(Command::Cursor),
            CommandId::RESOURCE_CREATE_BLOB => self.resource_create_blob(),
            CommandId::SET_SCANOUT_BLOB => self.set_scanout_blob(),
            CommandId::RESOURCE_MAP_BLOB => self.resource_map_blob(),
            CommandId::RESOURCE_UNMAP_BLOB => {
                self.resource(|resource_id| Command::ResourceUnmapBlob { resource_id })
            }
            _ => self.rendering().map(Command::Rendering),
        }
    }

    fn rendering(self) -> Result<Rendering<'a>, GuestError> {
        match self.id {
            CommandId::GET_CAPSET_INFO => self.get_capset_info(),
            CommandId::GET_CAPSET => self.get_capset(),
            CommandId::CTX_CREATE => self.ctx_create(),
            CommandId::CTX_DESTROY => Ok(Rendering::CtxDestroy),
            CommandId::CTX_ATTACH_RESOURCE => {
                self.resource(|resource_id| Rendering::CtxAttachResource { resource_id })
            }
            CommandId::CTX_DETACH_RESOURCE => {
                self.resource(|resource_id| Rendering::CtxDetachResource { resource_id })
            }
            CommandId::RESOURCE_CREATE_3D => self.resource_create_3d(),
            CommandId::TRANSFER_TO_HOST_3D => {
                self.transfer_3d(|resource_id, transfer| Rendering::TransferToHost3d {
                    resource_id,
                    transfer,
                })
            }
            CommandId::TRANSFER_FROM_HOST_3D => {
                self.transfer_3d(|resource_id, transfer| Rendering::TransferFromHost3d {
                    resource_id,
                    transfer,
                })
            }
            CommandId::SUBMIT_3D => self.submit_3d(),
            command => Err(GuestError::UnknownCommand { command }),
        }
    }

    fn split<T>(self) -> Result<(&'a T, &'a [u8]), GuestError>
    where
        T: FromBytes + KnownLayout + Immutable + Unaligned,
    {
        T::ref_from_prefix(self.bytes).map_err(|_| self.short(size_of::<T>() as u64))
    }

    fn body<T>(self) -> Result<&'a T, GuestError>
    where
        T: FromBytes + KnownLayout + Immutable + Unaligned,
    {
        self.split().map(|(body, _)| body)
    }

    fn short(self, needed: u64) -> GuestError {
        GuestError::ShortRequest {
            command: self.id,
            len: self.total,
            needed,
        }
    }

    /// `count` elements at the start of `tail`. The count is the guest's, so it is only compared
    /// with the bytes that are there; nothing is allocated for it.
    fn array<T>(self, tail: &'a [u8], count: u32) -> Result<(&'a [T], &'a [u8]), GuestError>
    where
        T: FromBytes + Immutable + Unaligned,
    {
        let before = self.bytes.len().saturating_sub(tail.len());
        <[T]>::ref_from_prefix_with_elems(tail, count as usize).map_err(|_| {
            let array = (size_of::<T>() as u64).saturating_mul(count.into());
            self.short(array.saturating_add(before as u64))
        })
    }

    fn resource<C>(self, command: fn(u32) -> C) -> Result<C, GuestError> {
        let body: &wire::ResourceRef = self.body()?;
        Ok(command(body.resource_id.get()))
    }

    fn get_edid(self) -> Result<Command<'a>, GuestError> {
        let body: &wire::GetEdid = self.body()?;
        Ok(Command::GetEdid {
            scanout_id: body.scanout.get(),
        })
    }

    fn resource_create_2d(self) -> Result<Command<'a>, GuestError> {
        let body: &wire::ResourceCreate2d = self.body()?;
        Ok(Command::ResourceCreate2d {
            resource_id: body.resource_id.get(),
            format: Format(body.format.get()).try_into()?,
            width: body.width.get(),
            height: body.height.get(),
        })
    }

    fn set_scanout(self) -> Result<Command<'a>, GuestError> {
        let body: &wire::SetScanout = self.body()?;
        Ok(Command::SetScanout {
            scanout_id: body.scanout_id.get(),
            resource_id: body.resource_id.get(),
            rect: body.r.into(),
        })
    }

    fn resource_flush(self) -> Result<Command<'a>, GuestError> {
        let body: &wire::ResourceFlush = self.body()?;
        Ok(Command::ResourceFlush {
            resource_id: body.resource_id.get(),
            rect: body.r.into(),
        })
    }

    fn transfer_to_host_2d(self) -> Result<Command<'a>, GuestError> {
        let body: &wire::TransferToHost2d = self.body()?;
        Ok(Command::TransferToHost2d {
            resource_id: body.resource_id.get(),
            rect: body.r.into(),
            offset: body.offset.get(),
        })
    }

    fn resource_attach_backing(self) -> Result<Command<'a>, GuestError> {
        let (body, tail): (&wire::ResourceAttachBacking, _) = self.split()?;
        let (entries, _) = self.array(tail, body.nr_entries.get())?;
        Ok(Command::ResourceAttachBacking {
            resource_id: body.resource_id.get(),
            entries,
        })
    }

    fn update_cursor(self) -> Result<CursorCommand, GuestError> {
        let body: &wire::UpdateCursor = self.body()?;
        Ok(CursorCommand::UpdateCursor {
            scanout_id: body.pos.scanout_id.get(),
            resource_id: body.resource_id.get(),
            x: body.pos.x.get().cast_signed(),
            y: body.pos.y.get().cast_signed(),
            hot_x: body.hot_x.get(),
            hot_y: body.hot_y.get(),
        })
    }

    /// Linux writes the corner as a signed number: a cursor may hang over the left or upper edge.
    fn move_cursor(self) -> Result<CursorCommand, GuestError> {
        let body: &wire::UpdateCursor = self.body()?;
        Ok(CursorCommand::MoveCursor {
            scanout_id: body.pos.scanout_id.get(),
            x: body.pos.x.get().cast_signed(),
            y: body.pos.y.get().cast_signed(),
        })
    }

    fn resource_create_blob(self) -> Result<Command<'a>, GuestError> {
        let (body, tail): (&wire::ResourceCreateBlob, _) = self.split()?;
        let (entries, _) = self.array(tail, body.nr_entries.get())?;
        Ok(Command::ResourceCreateBlob {
            resource_id: body.resource_id.get(),
            params: BlobParams {
                blob_mem: body.blob_mem.get(),
                blob_flags: body.blob_flags.get(),
                blob_id: body.blob_id.get(),
                size: body.size.get(),
            },
            entries,
        })
    }

    fn set_scanout_blob(self) -> Result<Command<'a>, GuestError> {
        let body: &wire::SetScanoutBlob = self.body()?;
        let [stride, ..] = body.strides;
        let [offset, ..] = body.offsets;
        // Linux leaves the picture's fields unset when it disables a scanout.
        let format = match body.resource_id.get() {
            0 => PixelFormat::BGRX,
            _ => Format(body.format.get()).try_into()?,
        };
        Ok(Command::SetScanoutBlob {
            scanout_id: body.scanout_id.get(),
            resource_id: body.resource_id.get(),
            rect: body.r.into(),
            layout: BlobLayout {
                width: body.width.get(),
                height: body.height.get(),
                format,
                stride: stride.get(),
                offset: offset.get(),
            },
        })
    }

    fn resource_map_blob(self) -> Result<Command<'a>, GuestError> {
        let body: &wire::ResourceMapBlob = self.body()?;
        Ok(Command::ResourceMapBlob {
            resource_id: body.resource_id.get(),
            offset: body.offset.get(),
        })
    }

    fn get_capset_info(self) -> Result<Rendering<'a>, GuestError> {
        let body: &wire::GetCapsetInfo = self.body()?;
        Ok(Rendering::GetCapsetInfo {
            index: body.capset_index.get(),
        })
    }

    fn get_capset(self) -> Result<Rendering<'a>, GuestError> {
        let body: &wire::GetCapset = self.body()?;
        Ok(Rendering::GetCapset {
            id: body.capset_id.get(),
            version: body.capset_version.get(),
        })
    }

    fn ctx_create(self) -> Result<Rendering<'a>, GuestError> {
        let body: &wire::CtxCreate = self.body()?;
        let length = body.nlen.get();
        let debug_name = body.debug_name.get(..length as usize);
        Ok(Rendering::CtxCreate {
            context_init: body.context_init.get(),
            debug_name: debug_name.ok_or(GuestError::Parameter {
                field: "nlen",
                value: length.into(),
            })?,
        })
    }

    fn resource_create_3d(self) -> Result<Rendering<'a>, GuestError> {
        let body: &wire::ResourceCreate3d = self.body()?;
        Ok(Rendering::ResourceCreate3d {
            resource_id: body.resource_id.get(),
            params: Resource3d {
                target: body.target.get(),
                format: body.format.get(),
                bind: body.bind.get(),
                width: body.width.get(),
                height: body.height.get(),
                depth: body.depth.get(),
                array_size: body.array_size.get(),
                last_level: body.last_level.get(),
                nr_samples: body.nr_samples.get(),
                flags: body.flags.get(),
            },
        })
    }

    fn transfer_3d(
        self,
        command: fn(u32, Transfer3d) -> Rendering<'a>,
    ) -> Result<Rendering<'a>, GuestError> {
        let body: &wire::TransferHost3d = self.body()?;
        let transfer = Transfer3d {
            x: body.box_.x.get(),
            y: body.box_.y.get(),
            z: body.box_.z.get(),
            w: body.box_.w.get(),
            h: body.box_.h.get(),
            d: body.box_.d.get(),
            offset: body.offset.get(),
            level: body.level.get(),
            stride: body.stride.get(),
            layer_stride: body.layer_stride.get(),
        };
        Ok(command(body.resource_id.get(), transfer))
    }

    fn submit_3d(self) -> Result<Rendering<'a>, GuestError> {
        let (body, tail): (&wire::CmdSubmit, _) = self.split()?;
        let count = body.num_in_fences.get();
        if count > MAX_IN_FENCES {
            return Err(GuestError::Parameter {
                field: "num_in_fences",
                value: count.into(),
            });
        }
        let (in_fences, tail) = self.array(tail, count)?;
        let size = body.size.get() as usize;
        let before = self.bytes.len().saturating_sub(tail.len());
        if self.total.saturating_sub(before) < size {
            return Err(self.short((size as u64).saturating_add(before as u64)));
        }
        let head = tail.get(..size).unwrap_or(tail);
        let unread = size.saturating_sub(head.len());
        let stream = Stream { head, unread };
        Ok(Rendering::Submit3d { stream, in_fences })
    }
}
