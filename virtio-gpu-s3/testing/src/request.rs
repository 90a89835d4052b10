// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Requests as bytes.

use std::array;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::zeroed;
use virtio_gpu_s3::PixelFormat;
use virtio_gpu_s3::Rect;
use virtio_gpu_s3::command::BlobLayout;
use virtio_gpu_s3::protocol::wire::{self, CtrlHdr, MemEntry};
use virtio_gpu_s3::protocol::{CommandId, CommandInfo, FLAG_FENCE};
use virtio_gpu_s3::renderer::{Resource3d, Transfer3d};

fn hdr(command: CommandId) -> CtrlHdr {
    CtrlHdr {
        type_: command.0.into(),
        ..zeroed()
    }
}

fn bytes<T: IntoBytes + Immutable>(request: &T) -> Vec<u8> {
    request.as_bytes().to_vec()
}

/// A request of any type that is nothing but zeros after its header, `len` bytes long.
pub fn bare(command: CommandId, len: usize) -> Vec<u8> {
    let mut request = bytes(&hdr(command));
    request.resize(len, 0);
    request
}

/// As [`bare`], of the length the command needs.
pub fn empty(command: CommandId) -> Vec<u8> {
    let size = CommandInfo::of(command).map_or(size_of::<CtrlHdr>(), |info| info.request_size);
    bare(command, size)
}

/// `GET_DISPLAY_INFO`
pub fn get_display_info() -> Vec<u8> {
    empty(CommandId::GET_DISPLAY_INFO)
}

/// `GET_EDID`
pub fn get_edid(scanout: u32) -> Vec<u8> {
    bytes(&wire::GetEdid {
        hdr: hdr(CommandId::GET_EDID),
        scanout: scanout.into(),
        padding: 0.into(),
    })
}

/// `RESOURCE_CREATE_2D`
pub fn resource_create_2d(id: u32, format: u32, width: u32, height: u32) -> Vec<u8> {
    bytes(&wire::ResourceCreate2d {
        hdr: hdr(CommandId::RESOURCE_CREATE_2D),
        resource_id: id.into(),
        format: format.into(),
        width: width.into(),
        height: height.into(),
    })
}

fn resource_ref(command: CommandId, id: u32) -> Vec<u8> {
    bytes(&wire::ResourceRef {
        hdr: hdr(command),
        resource_id: id.into(),
        padding: 0.into(),
    })
}

/// `RESOURCE_UNREF`
pub fn resource_unref(id: u32) -> Vec<u8> {
    resource_ref(CommandId::RESOURCE_UNREF, id)
}

/// `RESOURCE_DETACH_BACKING`
pub fn resource_detach_backing(id: u32) -> Vec<u8> {
    resource_ref(CommandId::RESOURCE_DETACH_BACKING, id)
}

/// `RESOURCE_ASSIGN_UUID`
pub fn resource_assign_uuid(id: u32) -> Vec<u8> {
    resource_ref(CommandId::RESOURCE_ASSIGN_UUID, id)
}

/// `RESOURCE_ATTACH_BACKING`
pub fn resource_attach_backing(id: u32, entries: &[MemEntry]) -> Vec<u8> {
    let count = u32::try_from(entries.len()).unwrap();
    resource_attach_backing_claiming(id, entries, count)
}

/// `RESOURCE_ATTACH_BACKING` that claims `nr_entries` whatever it holds.
pub fn resource_attach_backing_claiming(id: u32, entries: &[MemEntry], nr_entries: u32) -> Vec<u8> {
    let mut request = bytes(&wire::ResourceAttachBacking {
        hdr: hdr(CommandId::RESOURCE_ATTACH_BACKING),
        resource_id: id.into(),
        nr_entries: nr_entries.into(),
    });
    request.extend_from_slice(entries.as_bytes());
    request
}

/// `TRANSFER_TO_HOST_2D`
pub fn transfer_to_host_2d(id: u32, rect: Rect, offset: u64) -> Vec<u8> {
    bytes(&wire::TransferToHost2d {
        hdr: hdr(CommandId::TRANSFER_TO_HOST_2D),
        r: rect.into(),
        offset: offset.into(),
        resource_id: id.into(),
        padding: 0.into(),
    })
}

/// `SET_SCANOUT`
pub fn set_scanout(scanout: u32, id: u32, rect: Rect) -> Vec<u8> {
    bytes(&wire::SetScanout {
        hdr: hdr(CommandId::SET_SCANOUT),
        r: rect.into(),
        scanout_id: scanout.into(),
        resource_id: id.into(),
    })
}

/// `RESOURCE_FLUSH`
pub fn resource_flush(id: u32, rect: Rect) -> Vec<u8> {
    bytes(&wire::ResourceFlush {
        hdr: hdr(CommandId::RESOURCE_FLUSH),
        r: rect.into(),
        resource_id: id.into(),
        padding: 0.into(),
    })
}

/// `UPDATE_CURSOR`
pub fn update_cursor(scanout: u32, id: u32, x: i32, y: i32, hot_x: u32, hot_y: u32) -> Vec<u8> {
    bytes(&wire::UpdateCursor {
        hdr: hdr(CommandId::UPDATE_CURSOR),
        pos: cursor_pos(scanout, x, y),
        resource_id: id.into(),
        hot_x: hot_x.into(),
        hot_y: hot_y.into(),
        padding: 0.into(),
    })
}

/// `MOVE_CURSOR`
pub fn move_cursor(scanout: u32, x: i32, y: i32) -> Vec<u8> {
    bytes(&wire::UpdateCursor {
        hdr: hdr(CommandId::MOVE_CURSOR),
        pos: cursor_pos(scanout, x, y),
        ..zeroed()
    })
}

/// `RESOURCE_CREATE_BLOB`
pub fn resource_create_blob(
    id: u32,
    blob_mem: u32,
    blob_flags: u32,
    size: u64,
    entries: &[MemEntry],
) -> Vec<u8> {
    let mut request = bytes(&wire::ResourceCreateBlob {
        hdr: hdr(CommandId::RESOURCE_CREATE_BLOB),
        resource_id: id.into(),
        blob_mem: blob_mem.into(),
        blob_flags: blob_flags.into(),
        nr_entries: u32::try_from(entries.len()).unwrap().into(),
        blob_id: 0.into(),
        size: size.into(),
    });
    request.extend_from_slice(entries.as_bytes());
    request
}

/// `SET_SCANOUT_BLOB`
pub fn set_scanout_blob(scanout: u32, id: u32, rect: Rect, layout: &BlobLayout) -> Vec<u8> {
    let mut request = wire::SetScanoutBlob {
        hdr: hdr(CommandId::SET_SCANOUT_BLOB),
        r: rect.into(),
        scanout_id: scanout.into(),
        resource_id: id.into(),
        width: layout.width.into(),
        height: layout.height.into(),
        format: layout.format.format().0.into(),
        ..zeroed()
    };
    request.strides[0] = layout.stride.into();
    request.offsets[0] = layout.offset.into();
    bytes(&request)
}

/// `RESOURCE_MAP_BLOB`
pub fn resource_map_blob(id: u32, offset: u64) -> Vec<u8> {
    bytes(&wire::ResourceMapBlob {
        hdr: hdr(CommandId::RESOURCE_MAP_BLOB),
        resource_id: id.into(),
        padding: 0.into(),
        offset: offset.into(),
    })
}

/// `RESOURCE_UNMAP_BLOB`
pub fn resource_unmap_blob(id: u32) -> Vec<u8> {
    resource_ref(CommandId::RESOURCE_UNMAP_BLOB, id)
}

/// `GET_CAPSET_INFO`
pub fn get_capset_info(index: u32) -> Vec<u8> {
    bytes(&wire::GetCapsetInfo {
        hdr: hdr(CommandId::GET_CAPSET_INFO),
        capset_index: index.into(),
        padding: 0.into(),
    })
}

/// `GET_CAPSET`
pub fn get_capset(id: u32, version: u32) -> Vec<u8> {
    bytes(&wire::GetCapset {
        hdr: hdr(CommandId::GET_CAPSET),
        capset_id: id.into(),
        capset_version: version.into(),
    })
}

/// `CTX_CREATE`
pub fn ctx_create(context_init: u32) -> Vec<u8> {
    bytes(&wire::CtxCreate {
        hdr: hdr(CommandId::CTX_CREATE),
        nlen: 4.into(),
        context_init: context_init.into(),
        debug_name: array::from_fn(|at| b"test".get(at).copied().unwrap_or(0)),
    })
}

/// `CTX_DESTROY`
pub fn ctx_destroy() -> Vec<u8> {
    empty(CommandId::CTX_DESTROY)
}

/// `CTX_ATTACH_RESOURCE`
pub fn ctx_attach_resource(id: u32) -> Vec<u8> {
    resource_ref(CommandId::CTX_ATTACH_RESOURCE, id)
}

/// `CTX_DETACH_RESOURCE`
pub fn ctx_detach_resource(id: u32) -> Vec<u8> {
    resource_ref(CommandId::CTX_DETACH_RESOURCE, id)
}

/// `RESOURCE_CREATE_3D`
pub fn resource_create_3d(id: u32, params: &Resource3d) -> Vec<u8> {
    bytes(&wire::ResourceCreate3d {
        hdr: hdr(CommandId::RESOURCE_CREATE_3D),
        resource_id: id.into(),
        target: params.target.into(),
        format: params.format.into(),
        bind: params.bind.into(),
        width: params.width.into(),
        height: params.height.into(),
        depth: params.depth.into(),
        array_size: params.array_size.into(),
        last_level: params.last_level.into(),
        nr_samples: params.nr_samples.into(),
        flags: params.flags.into(),
        padding: 0.into(),
    })
}

/// `TRANSFER_TO_HOST_3D` or `TRANSFER_FROM_HOST_3D`
pub fn transfer_3d(command: CommandId, id: u32, transfer: &Transfer3d) -> Vec<u8> {
    bytes(&wire::TransferHost3d {
        hdr: hdr(command),
        box_: wire::Box3d {
            x: transfer.x.into(),
            y: transfer.y.into(),
            z: transfer.z.into(),
            w: transfer.w.into(),
            h: transfer.h.into(),
            d: transfer.d.into(),
        },
        offset: transfer.offset.into(),
        resource_id: id.into(),
        level: transfer.level.into(),
        stride: transfer.stride.into(),
        layer_stride: transfer.layer_stride.into(),
    })
}

/// `SUBMIT_3D` of these dwords.
pub fn submit_3d(stream: &[u32]) -> Vec<u8> {
    let size = u32::try_from(stream.len() * 4).unwrap();
    let mut request = bytes(&wire::CmdSubmit {
        hdr: hdr(CommandId::SUBMIT_3D),
        size: size.into(),
        num_in_fences: 0.into(),
    });
    request.extend(stream.iter().flat_map(|word| word.to_le_bytes()));
    request
}

fn cursor_pos(scanout: u32, x: i32, y: i32) -> wire::CursorPos {
    wire::CursorPos {
        scanout_id: scanout.into(),
        x: x.cast_unsigned().into(),
        y: y.cast_unsigned().into(),
        padding: 0.into(),
    }
}

/// A texture of 32-bit BGRA pixels that a context can draw to.
pub const fn texture(width: u32, height: u32) -> Resource3d {
    Resource3d {
        target: 2,
        format: 1,
        bind: 2,
        width,
        height,
        depth: 1,
        array_size: 1,
        last_level: 0,
        nr_samples: 0,
        flags: 0,
    }
}

/// BGRX pixels from the start of a blob, rows one behind the other.
pub const fn layout(width: u32, height: u32) -> BlobLayout {
    BlobLayout {
        width,
        height,
        format: PixelFormat::BGRX,
        stride: width * 4,
        offset: 0,
    }
}

/// The whole of a two-dimensional resource, its rows one behind the other.
pub const fn whole(params: &Resource3d) -> Transfer3d {
    Transfer3d::of_rect(Rect::sized(params.width, params.height), 0)
}

/// The same request in a context, where no driver fills that in.
pub fn in_context(ctx_id: u32, request: Vec<u8>) -> Vec<u8> {
    with_header(request, |header| header.ctx_id = ctx_id.into())
}

/// The same request in a context, with a fence on the global timeline.
pub fn fenced(ctx_id: u32, fence_id: u64, request: Vec<u8>) -> Vec<u8> {
    with_header(request, |header| {
        header.flags = FLAG_FENCE.into();
        header.fence_id = fence_id.into();
        header.ctx_id = ctx_id.into();
    })
}

/// A request shorter than a header stays as it is.
fn with_header(mut request: Vec<u8>, change: impl FnOnce(&mut CtrlHdr)) -> Vec<u8> {
    if let Ok((header, _)) = CtrlHdr::mut_from_prefix(&mut request) {
        change(header);
    }
    request
}
