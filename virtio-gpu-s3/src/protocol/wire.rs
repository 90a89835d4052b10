// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Structures as they lie in guest memory (VIRTIO 1.4 §5.7.4, §5.7.6.7 and §5.7.6.8).
//!
//! Field names are the standard's; a field whose meaning is in the standard has no comment here.
#![expect(
    missing_docs,
    reason = "the standard documents the fields under the same names"
)]
#![expect(
    missing_debug_implementations,
    reason = "zerocopy derives a marker type for each field"
)]

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{EDID_BUFFER_BYTES, MAX_SCANOUTS};

macro_rules! wire {
    ($($(#[$doc:meta])* $name:ident = $size:literal { $($field:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(
                Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
                Unaligned,
            )]
            #[repr(C)]
            pub struct $name {
                $(pub $field: $type,)*
            }

            const _: () = assert!(size_of::<$name>() == $size);
        )*
    };
}

wire! {
    /// `virtio_gpu_config`
    Config = 20 {
        events_read: U32,
        events_clear: U32,
        num_scanouts: U32,
        num_capsets: U32,
        blob_alignment: U32,
    }

    /// `virtio_gpu_ctrl_hdr`
    CtrlHdr = 24 {
        type_: U32,
        flags: U32,
        fence_id: U64,
        ctx_id: U32,
        ring_idx: u8,
        padding: [u8; 3],
    }

    /// `virtio_gpu_rect`
    Rect = 16 { x: U32, y: U32, width: U32, height: U32, }

    /// `virtio_gpu_mem_entry`
    MemEntry = 16 { addr: U64, length: U32, padding: U32, }

    /// Any request that is the header, a resource id and padding: `virtio_gpu_resource_unref`,
    /// `_detach_backing`, `_assign_uuid`, `_unmap_blob` and `virtio_gpu_ctx_resource`.
    ResourceRef = 32 { hdr: CtrlHdr, resource_id: U32, padding: U32, }

    /// `virtio_gpu_get_edid`
    GetEdid = 32 { hdr: CtrlHdr, scanout: U32, padding: U32, }

    /// `virtio_gpu_resource_create_2d`
    ResourceCreate2d = 40 {
        hdr: CtrlHdr,
        resource_id: U32,
        format: U32,
        width: U32,
        height: U32,
    }

    /// `virtio_gpu_set_scanout`
    SetScanout = 48 { hdr: CtrlHdr, r: Rect, scanout_id: U32, resource_id: U32, }

    /// `virtio_gpu_resource_flush`
    ResourceFlush = 48 { hdr: CtrlHdr, r: Rect, resource_id: U32, padding: U32, }

    /// `virtio_gpu_transfer_to_host_2d`
    TransferToHost2d = 56 {
        hdr: CtrlHdr,
        r: Rect,
        offset: U64,
        resource_id: U32,
        padding: U32,
    }

    /// `virtio_gpu_resource_attach_backing`; [`MemEntry`] × `nr_entries` follow.
    ResourceAttachBacking = 32 { hdr: CtrlHdr, resource_id: U32, nr_entries: U32, }

    /// `virtio_gpu_get_capset_info`
    GetCapsetInfo = 32 { hdr: CtrlHdr, capset_index: U32, padding: U32, }

    /// `virtio_gpu_get_capset`
    GetCapset = 32 { hdr: CtrlHdr, capset_id: U32, capset_version: U32, }

    /// `virtio_gpu_resource_create_blob`; [`MemEntry`] × `nr_entries` follow.
    ResourceCreateBlob = 56 {
        hdr: CtrlHdr,
        resource_id: U32,
        blob_mem: U32,
        blob_flags: U32,
        nr_entries: U32,
        blob_id: U64,
        size: U64,
    }

    /// `virtio_gpu_set_scanout_blob`
    SetScanoutBlob = 96 {
        hdr: CtrlHdr,
        r: Rect,
        scanout_id: U32,
        resource_id: U32,
        width: U32,
        height: U32,
        format: U32,
        padding: U32,
        strides: [U32; 4],
        offsets: [U32; 4],
    }

    /// `virtio_gpu_ctx_create`
    CtxCreate = 96 { hdr: CtrlHdr, nlen: U32, context_init: U32, debug_name: [u8; 64], }

    /// `virtio_gpu_resource_create_3d`
    ResourceCreate3d = 72 {
        hdr: CtrlHdr,
        resource_id: U32,
        target: U32,
        format: U32,
        bind: U32,
        width: U32,
        height: U32,
        depth: U32,
        array_size: U32,
        last_level: U32,
        nr_samples: U32,
        flags: U32,
        padding: U32,
    }

    /// `virtio_gpu_box`
    Box3d = 24 { x: U32, y: U32, z: U32, w: U32, h: U32, d: U32, }

    /// `virtio_gpu_transfer_host_3d`
    TransferHost3d = 72 {
        hdr: CtrlHdr,
        box_: Box3d,
        offset: U64,
        resource_id: U32,
        level: U32,
        stride: U32,
        layer_stride: U32,
    }

    /// `virtio_gpu_cmd_submit`; `num_in_fences` × le64, then `size` bytes follow.
    CmdSubmit = 32 { hdr: CtrlHdr, size: U32, num_in_fences: U32, }

    /// `virtio_gpu_resource_map_blob`
    ResourceMapBlob = 40 { hdr: CtrlHdr, resource_id: U32, padding: U32, offset: U64, }

    /// `virtio_gpu_cursor_pos`
    CursorPos = 16 { scanout_id: U32, x: U32, y: U32, padding: U32, }

    /// `virtio_gpu_update_cursor`
    UpdateCursor = 56 {
        hdr: CtrlHdr,
        pos: CursorPos,
        resource_id: U32,
        hot_x: U32,
        hot_y: U32,
        padding: U32,
    }

    /// `virtio_gpu_display_one`
    DisplayOne = 24 { r: Rect, enabled: U32, flags: U32, }

    /// `virtio_gpu_resp_display_info` without its header.
    RespDisplayInfo = 384 { pmodes: [DisplayOne; MAX_SCANOUTS], }

    /// `virtio_gpu_resp_edid` without its header.
    RespEdid = 1032 { size: U32, padding: U32, edid: [u8; EDID_BUFFER_BYTES], }

    /// `virtio_gpu_resp_capset_info` without its header.
    RespCapsetInfo = 16 {
        capset_id: U32,
        capset_max_version: U32,
        capset_max_size: U32,
        padding: U32,
    }

    /// `virtio_gpu_resp_map_info` without its header.
    RespMapInfo = 8 { map_info: U32, padding: U32, }
}
