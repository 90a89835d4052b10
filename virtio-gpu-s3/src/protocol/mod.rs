// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Names, numbers and layouts of the GPU device, in the words of VIRTIO 1.4 §5.7.
//!
//! Only what the standard says: no policy, no limit of this device. Numbers that a guest chooses
//! are open newtypes, because a number we do not know is input, not an error of the type.

pub mod wire;

use std::fmt;

/// Virtio device id of a GPU device (VIRTIO 1.4 §5.7.1).
pub const DEVICE_ID: u32 = 16;

/// Feature bits, as masks (VIRTIO 1.4 §5.7.3).
pub mod feature {
    /// `VIRTIO_GPU_F_VIRGL`: 3D commands.
    pub const VIRGL: u64 = 1 << 0;
    /// `VIRTIO_GPU_F_EDID`: `GET_EDID`.
    pub const EDID: u64 = 1 << 1;
    /// `VIRTIO_GPU_F_RESOURCE_UUID`: `RESOURCE_ASSIGN_UUID`.
    pub const RESOURCE_UUID: u64 = 1 << 2;
    /// `VIRTIO_GPU_F_RESOURCE_BLOB`: blob resources.
    pub const RESOURCE_BLOB: u64 = 1 << 3;
    /// `VIRTIO_GPU_F_CONTEXT_INIT`: contexts of a chosen capset, and fences per ring.
    pub const CONTEXT_INIT: u64 = 1 << 4;
    /// `VIRTIO_GPU_F_BLOB_ALIGNMENT`: blob sizes are multiples of `blob_alignment`.
    pub const BLOB_ALIGNMENT: u64 = 1 << 5;
}

/// `VIRTIO_GPU_EVENT_DISPLAY`: the display information changed (VIRTIO 1.4 §5.7.4).
pub const EVENT_DISPLAY: u32 = 1 << 0;

/// `VIRTIO_GPU_FLAG_FENCE`: answer only when the command has completed.
pub const FLAG_FENCE: u32 = 1 << 0;
/// `VIRTIO_GPU_FLAG_INFO_RING_IDX`: `ring_idx` names a timeline of the context.
pub const FLAG_INFO_RING_IDX: u32 = 1 << 1;

/// `VIRTIO_GPU_MAX_SCANOUTS`.
pub const MAX_SCANOUTS: usize = 16;
/// Size of the EDID buffer of a `GET_EDID` reply, in bytes.
pub const EDID_BUFFER_BYTES: usize = 1024;
/// Width and height of every cursor resource, in pixels (VIRTIO 1.4 §5.7.6.6).
pub const CURSOR_SIZE: u32 = 64;
/// Highest `ring_idx` a driver may use (VIRTIO 1.4 §5.7.6.7).
pub const MAX_RING_IDX: u8 = 63;

/// Fences that a submission may wait for: Linux sends one for each ring of its context at most.
pub const MAX_IN_FENCES: u32 = MAX_RING_IDX as u32 + 1;

/// `blob_mem`: the memory is the guest's.
pub const BLOB_MEM_GUEST: u32 = 1;
/// `blob_mem`: the memory is an object of a rendering context.
pub const BLOB_MEM_HOST3D: u32 = 2;
/// `blob_mem`: both, the guest's memory being a shadow.
pub const BLOB_MEM_HOST3D_GUEST: u32 = 3;
/// `blob_flags`: the driver may map it.
pub const BLOB_FLAG_USE_MAPPABLE: u32 = 1;
/// `blob_flags`: shared between driver instances.
pub const BLOB_FLAG_USE_SHAREABLE: u32 = 2;
/// `blob_flags`: shared with other devices.
pub const BLOB_FLAG_USE_CROSS_DEVICE: u32 = 4;

/// The part of a reply's `map_info` that the standard defines: `VIRTIO_GPU_MAP_CACHE_*`.
pub const MAP_CACHE_MASK: u32 = 0x0f;

/// The queue a command belongs to (VIRTIO 1.4 §5.7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// `controlq`, queue 0.
    Control,
    /// `cursorq`, queue 1.
    Cursor,
}

macro_rules! open_number {
    ($(#[$doc:meta])* $type:ident { $($(#[$item_doc:meta])* $name:ident = $value:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(pub u32);

        impl $type {
            $($(#[$item_doc])* pub const $name: Self = Self($value);)*

            /// The standard's name without its common prefix, `None` for a number it does not define.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{:#06x}", self.0),
                }
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

macro_rules! commands {
    ($($(#[$doc:meta])* $name:ident = $value:expr, $queue:ident, $request:ident, $feature:expr;)*) => {
        open_number! {
            /// `VIRTIO_GPU_CMD_*` (VIRTIO 1.4 §5.7.6.7).
            CommandId { $($(#[$doc])* $name = $value,)* }
        }

        /// Every command of the standard, once.
        pub const COMMANDS: &[CommandInfo] = &[
            $(CommandInfo {
                id: CommandId::$name,
                queue: Queue::$queue,
                request_size: size_of::<wire::$request>(),
                feature: $feature,
            },)*
        ];
    };
}

/// What the standard fixes about a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandInfo {
    /// The command.
    pub id: CommandId,
    /// The queue it is sent on.
    pub queue: Queue,
    /// Bytes of its request without the arrays that may follow.
    pub request_size: usize,
    /// Feature bits (as a mask) that must be negotiated.
    pub feature: u64,
}

impl CommandInfo {
    /// The row of `id`, `None` for a command the standard does not define.
    pub fn of(id: CommandId) -> Option<&'static Self> {
        COMMANDS.iter().find(|info| info.id == id)
    }
}

commands! {
    /// `VIRTIO_GPU_CMD_GET_DISPLAY_INFO`
    GET_DISPLAY_INFO = 0x100, Control, CtrlHdr, 0;
    /// `VIRTIO_GPU_CMD_RESOURCE_CREATE_2D`
    RESOURCE_CREATE_2D = 0x101, Control, ResourceCreate2d, 0;
    /// `VIRTIO_GPU_CMD_RESOURCE_UNREF`
    RESOURCE_UNREF = 0x102, Control, ResourceRef, 0;
    /// `VIRTIO_GPU_CMD_SET_SCANOUT`
    SET_SCANOUT = 0x103, Control, SetScanout, 0;
    /// `VIRTIO_GPU_CMD_RESOURCE_FLUSH`
    RESOURCE_FLUSH = 0x104, Control, ResourceFlush, 0;
    /// `VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D`
    TRANSFER_TO_HOST_2D = 0x105, Control, TransferToHost2d, 0;
    /// `VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING`
    RESOURCE_ATTACH_BACKING = 0x106, Control, ResourceAttachBacking, 0;
    /// `VIRTIO_GPU_CMD_RESOURCE_DETACH_BACKING`
    RESOURCE_DETACH_BACKING = 0x107, Control, ResourceRef, 0;
    /// `VIRTIO_GPU_CMD_GET_CAPSET_INFO`
    GET_CAPSET_INFO = 0x108, Control, GetCapsetInfo, feature::VIRGL;
    /// `VIRTIO_GPU_CMD_GET_CAPSET`
    GET_CAPSET = 0x109, Control, GetCapset, feature::VIRGL;
    /// `VIRTIO_GPU_CMD_GET_EDID`
    GET_EDID = 0x10a, Control, GetEdid, feature::EDID;
    /// `VIRTIO_GPU_CMD_RESOURCE_ASSIGN_UUID`
    RESOURCE_ASSIGN_UUID = 0x10b, Control, ResourceRef, feature::RESOURCE_UUID;
    /// `VIRTIO_GPU_CMD_RESOURCE_CREATE_BLOB`
    RESOURCE_CREATE_BLOB = 0x10c, Control, ResourceCreateBlob, feature::RESOURCE_BLOB;
    /// `VIRTIO_GPU_CMD_SET_SCANOUT_BLOB`
    SET_SCANOUT_BLOB = 0x10d, Control, SetScanoutBlob, feature::RESOURCE_BLOB;
    /// `VIRTIO_GPU_CMD_CTX_CREATE`
    CTX_CREATE = 0x200, Control, CtxCreate, feature::VIRGL;
    /// `VIRTIO_GPU_CMD_CTX_DESTROY`
    CTX_DESTROY = 0x201, Control, CtrlHdr, feature::VIRGL;
    /// `VIRTIO_GPU_CMD_CTX_ATTACH_RESOURCE`
    CTX_ATTACH_RESOURCE = 0x202, Control, ResourceRef, feature::VIRGL;
    /// `VIRTIO_GPU_CMD_CTX_DETACH_RESOURCE`
    CTX_DETACH_RESOURCE = 0x203, Control, ResourceRef, feature::VIRGL;
    /// `VIRTIO_GPU_CMD_RESOURCE_CREATE_3D`
    RESOURCE_CREATE_3D = 0x204, Control, ResourceCreate3d, feature::VIRGL;
    /// `VIRTIO_GPU_CMD_TRANSFER_TO_HOST_3D`
    TRANSFER_TO_HOST_3D = 0x205, Control, TransferHost3d, feature::VIRGL;
    /// `VIRTIO_GPU_CMD_TRANSFER_FROM_HOST_3D`
    TRANSFER_FROM_HOST_3D = 0x206, Control, TransferHost3d, feature::VIRGL;
    /// `VIRTIO_GPU_CMD_SUBMIT_3D`
    SUBMIT_3D = 0x207, Control, CmdSubmit, feature::VIRGL;
    /// `VIRTIO_GPU_CMD_RESOURCE_MAP_BLOB`
    RESOURCE_MAP_BLOB = 0x208, Control, ResourceMapBlob, feature::RESOURCE_BLOB;
    /// `VIRTIO_GPU_CMD_RESOURCE_UNMAP_BLOB`
    RESOURCE_UNMAP_BLOB = 0x209, Control, ResourceRef, feature::RESOURCE_BLOB;
    /// `VIRTIO_GPU_CMD_UPDATE_CURSOR`
    UPDATE_CURSOR = 0x300, Cursor, UpdateCursor, 0;
    /// `VIRTIO_GPU_CMD_MOVE_CURSOR`
    MOVE_CURSOR = 0x301, Cursor, UpdateCursor, 0;
}

open_number! {
    /// `VIRTIO_GPU_RESP_*` (VIRTIO 1.4 §5.7.6.7).
    ResponseType {
        /// Success without payload.
        OK_NODATA = 0x1100,
        /// [`wire::RespDisplayInfo`] follows.
        OK_DISPLAY_INFO = 0x1101,
        /// [`wire::RespCapsetInfo`] follows.
        OK_CAPSET_INFO = 0x1102,
        /// The capset's bytes follow.
        OK_CAPSET = 0x1103,
        /// [`wire::RespEdid`] follows.
        OK_EDID = 0x1104,
        /// 16 bytes of UUID follow.
        OK_RESOURCE_UUID = 0x1105,
        /// [`wire::RespMapInfo`] follows.
        OK_MAP_INFO = 0x1106,
        /// Any other failure.
        ERR_UNSPEC = 0x1200,
        /// A limit of the device was met.
        ERR_OUT_OF_MEMORY = 0x1201,
        /// No such scanout.
        ERR_INVALID_SCANOUT_ID = 0x1202,
        /// No such resource, or an id that is taken.
        ERR_INVALID_RESOURCE_ID = 0x1203,
        /// No such context, or an id that is taken.
        ERR_INVALID_CONTEXT_ID = 0x1204,
        /// A parameter is out of its range.
        ERR_INVALID_PARAMETER = 0x1205,
    }
}

open_number! {
    /// `VIRTIO_GPU_FORMAT_*`: components in the order of their bytes in memory
    /// (VIRTIO 1.4 §5.7.6.8).
    Format {
        /// Blue first, alpha last.
        B8G8R8A8_UNORM = 1,
        /// Blue first, last byte unused: Linux' console.
        B8G8R8X8_UNORM = 2,
        /// Alpha first, blue last.
        A8R8G8B8_UNORM = 3,
        /// First byte unused, blue last.
        X8R8G8B8_UNORM = 4,
        /// Red first, alpha last.
        R8G8B8A8_UNORM = 67,
        /// First byte unused, red last.
        X8B8G8R8_UNORM = 68,
        /// Alpha first, red last.
        A8B8G8R8_UNORM = 121,
        /// Red first, last byte unused.
        R8G8B8X8_UNORM = 134,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_sizes_are_those_of_the_standard() {
        let size = |id: CommandId| CommandInfo::of(id).map(|info| info.request_size);
        for (id, expected) in [
            (CommandId::GET_DISPLAY_INFO, 24),
            (CommandId::RESOURCE_CREATE_2D, 40),
            (CommandId::RESOURCE_UNREF, 32),
            (CommandId::SET_SCANOUT, 48),
            (CommandId::RESOURCE_FLUSH, 48),
            (CommandId::TRANSFER_TO_HOST_2D, 56),
            (CommandId::RESOURCE_ATTACH_BACKING, 32),
            (CommandId::RESOURCE_DETACH_BACKING, 32),
            (CommandId::GET_CAPSET_INFO, 32),
            (CommandId::GET_CAPSET, 32),
            (CommandId::GET_EDID, 32),
            (CommandId::RESOURCE_ASSIGN_UUID, 32),
            (CommandId::RESOURCE_CREATE_BLOB, 56),
            (CommandId::SET_SCANOUT_BLOB, 96),
            (CommandId::CTX_CREATE, 96),
            (CommandId::CTX_DESTROY, 24),
            (CommandId::CTX_ATTACH_RESOURCE, 32),
            (CommandId::RESOURCE_CREATE_3D, 72),
            (CommandId::TRANSFER_TO_HOST_3D, 72),
            (CommandId::SUBMIT_3D, 32),
            (CommandId::RESOURCE_MAP_BLOB, 40),
            (CommandId::RESOURCE_UNMAP_BLOB, 32),
            (CommandId::UPDATE_CURSOR, 56),
            (CommandId::MOVE_CURSOR, 56),
        ] {
            assert_eq!(size(id), Some(expected), "{id}");
        }
    }

    #[test]
    fn a_number_the_standard_does_not_define_stays_a_number() {
        assert_eq!(CommandInfo::of(CommandId(0x10e)), None);
        assert_eq!(CommandId(0x10e).to_string(), "0x010e");
        assert_eq!(CommandId::SET_SCANOUT.to_string(), "SET_SCANOUT");
    }
}
