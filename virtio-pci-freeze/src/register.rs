// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The common configuration structure as one table (VIRTIO 1.4 §4.1.4.3).
//!
//! Each register is declared once. Offsets, widths, the layouts and the way an access of any width falls apart into
//! registers all follow from the table.

use core::iter::from_fn;

/// A register of the common configuration structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    missing_docs,
    reason = "the names are the standard's, which says what each one is"
)]
pub enum Register {
    DeviceFeatureSelect,
    DeviceFeature,
    DriverFeatureSelect,
    DriverFeature,
    ConfigMsixVector,
    NumQueues,
    DeviceStatus,
    ConfigGeneration,
    QueueSelect,
    QueueSize,
    QueueMsixVector,
    QueueEnable,
    QueueNotifyOff,
    QueueDesc,
    QueueDriver,
    QueueDevice,
    QueueNotifConfigData,
    QueueReset,
    AdminQueueIndex,
    AdminQueueNum,
    /// Not of the standard: the freeze_mode proposal of 2023.
    FreezeMode,
}

/// How a driver may write a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Writes are ignored.
    ReadOnly,
    /// Stored: a write of some of its bytes replaces those and no others.
    Stored,
    /// Validated or acted upon: only a write that covers all its bytes counts. The standard asks drivers for
    /// that width (VIRTIO 1.4 §4.1.3.1), and half of a status or of a vector means nothing.
    Whole,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterInfo {
    /// Which register.
    pub register: Register,
    /// Offset from the start of the structure, in bytes.
    pub offset: u8,
    /// Width in bytes.
    pub width: u8,
    /// How it may be written.
    pub access: Access,
}

const fn row(register: Register, offset: u8, width: u8, access: Access) -> RegisterInfo {
    RegisterInfo {
        register,
        offset,
        width,
        access,
    }
}

/// The registers at offsets 0 to 55, which every layout has.
const BASE: [RegisterInfo; 16] = [
    row(Register::DeviceFeatureSelect, 0, 4, Access::Stored),
    row(Register::DeviceFeature, 4, 4, Access::ReadOnly),
    row(Register::DriverFeatureSelect, 8, 4, Access::Stored),
    row(Register::DriverFeature, 12, 4, Access::Stored),
    row(Register::ConfigMsixVector, 16, 2, Access::Whole),
    row(Register::NumQueues, 18, 2, Access::ReadOnly),
    row(Register::DeviceStatus, 20, 1, Access::Whole),
    row(Register::ConfigGeneration, 21, 1, Access::ReadOnly),
    row(Register::QueueSelect, 22, 2, Access::Stored),
    row(Register::QueueSize, 24, 2, Access::Whole),
    row(Register::QueueMsixVector, 26, 2, Access::Whole),
    row(Register::QueueEnable, 28, 2, Access::Whole),
    row(Register::QueueNotifyOff, 30, 2, Access::ReadOnly),
    row(Register::QueueDesc, 32, 8, Access::Stored),
    row(Register::QueueDriver, 40, 8, Access::Stored),
    row(Register::QueueDevice, 48, 8, Access::Stored),
];

/// The registers that VIRTIO 1.2 to 1.4 added after them.
const EXTENSION: [RegisterInfo; 4] = [
    row(Register::QueueNotifConfigData, 56, 2, Access::ReadOnly),
    row(Register::QueueReset, 58, 2, Access::Whole),
    row(Register::AdminQueueIndex, 60, 2, Access::ReadOnly),
    row(Register::AdminQueueNum, 62, 2, Access::ReadOnly),
];

const SEED_FREEZE_MODE: [RegisterInfo; 1] = [row(Register::FreezeMode, 56, 2, Access::Whole)];
const TAIL_FREEZE_MODE: [RegisterInfo; 1] = [row(Register::FreezeMode, 64, 2, Access::Whole)];

/// The feature bit that gates `freeze_mode` in [`Layout::Tail`]: 49.
///
/// Every device type can have the register, so its bit must be no device type's: VIRTIO 1.4 §2.2 leaves 0 to 23, 41, 42
/// and 50 to 127 to those. 24 to 40 and 43 are taken, and 44 to 49 are reserved for extensions; the last of them is the
/// one that the standard's next extension gets last. The proposal's layout has no bit: its presence is the length of
/// the capability.
pub const FREEZE_FEATURE: u32 = 49;

/// Where `freeze_mode` is, and which standard registers exist beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum Layout {
    /// `freeze_mode` at 56, as in the proposal. The standard's later registers would overlap it, so the features that
    /// need them (39, 40, 41) cannot be offered. A guest with the proposal's driver patch refuses fewer than 60 bytes.
    #[default]
    Seed,
    /// `freeze_mode` at 64, after everything in VIRTIO 1.4, gated by [`FREEZE_FEATURE`](crate::FREEZE_FEATURE).
    Tail,
    /// VIRTIO 1.4 and nothing else.
    None,
}

impl Layout {
    /// Length of the structure in bytes, as its capability states it.
    pub const fn length(self) -> u32 {
        match self {
            Self::Seed => 60,
            Self::Tail => 68,
            Self::None => 64,
        }
    }

    /// The layout of a structure that is `length` bytes long. A device with [`Layout::Tail`] also offers
    /// [`FREEZE_FEATURE`](crate::FREEZE_FEATURE); a longer structure without it is some other extension.
    pub const fn of_length(length: u32) -> Self {
        match length {
            60..=63 => Self::Seed,
            68.. => Self::Tail,
            _ => Self::None,
        }
    }

    /// The feature bits whose registers this layout has no room for.
    pub const fn excluded_features(self) -> u64 {
        use crate::spec::feature as f;
        match self {
            Self::Seed => {
                f::mask(f::VIRTIO_F_NOTIF_CONFIG_DATA)
                    | f::mask(f::VIRTIO_F_RING_RESET)
                    | f::mask(f::VIRTIO_F_ADMIN_VQ)
            }
            Self::Tail | Self::None => 0,
        }
    }

    /// Every register of the layout, by offset.
    pub fn registers(self) -> impl Iterator<Item = RegisterInfo> {
        self.tables().into_iter().flatten().copied()
    }

    /// The register that holds the byte at `offset`, if any does.
    pub(crate) fn at(self, offset: u64) -> Option<RegisterInfo> {
        let map = match self {
            Self::Seed => &SEED_MAP,
            Self::Tail => &TAIL_MAP,
            Self::None => &NONE_MAP,
        };
        *map.get(usize::try_from(offset).ok()?)?
    }

    const fn tables(self) -> [&'static [RegisterInfo]; 3] {
        match self {
            Self::Seed => [&BASE, &[], &SEED_FREEZE_MODE],
            Self::Tail => [&BASE, &EXTENSION, &TAIL_FREEZE_MODE],
            Self::None => [&BASE, &EXTENSION, &[]],
        }
    }
}

/// The registers that choose what other registers show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selectors {
    pub(crate) device_feature: u32,
    pub(crate) driver_feature: u32,
    pub(crate) queue: u16,
}

/// Longest layout, in bytes.
const MAX_LENGTH: usize = 68;
type ByteMap = [Option<RegisterInfo>; MAX_LENGTH];

static SEED_MAP: ByteMap = byte_map(Layout::Seed);
static TAIL_MAP: ByteMap = byte_map(Layout::Tail);
static NONE_MAP: ByteMap = byte_map(Layout::None);

/// Evaluated by the compiler: an overlap or a register beyond the layout's end does not build.
#[expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "runs at compile time only, where each of these is a build error"
)]
const fn byte_map(layout: Layout) -> ByteMap {
    let mut map: ByteMap = [None; MAX_LENGTH];
    let tables = layout.tables();
    let mut table = 0;
    while table < tables.len() {
        let mut index = 0;
        while index < tables[table].len() {
            let info = tables[table][index];
            let mut byte = info.offset as usize;
            let end = byte + info.width as usize;
            assert!(
                end <= layout.length() as usize,
                "register beyond the layout"
            );
            while byte < end {
                assert!(map[byte].is_none(), "registers overlap");
                map[byte] = Some(info);
                byte += 1;
            }
            index += 1;
        }
        table += 1;
    }
    map
}

/// The part of an access that falls on one register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) info: RegisterInfo,
    /// First byte touched, counted in the register.
    pub(crate) register_start: usize,
    /// First byte touched, counted in the access.
    pub(crate) access_start: usize,
    /// Bytes touched.
    pub(crate) length: usize,
}

impl Piece {
    /// Whether the access covers the whole register.
    pub(crate) fn is_whole(&self) -> bool {
        self.length == usize::from(self.info.width)
    }

    /// Copies the touched bytes of the register's `value` to where they belong in `data`.
    pub(crate) fn load(&self, value: u64, data: &mut [u8]) {
        let bytes = value.to_le_bytes();
        let source = bytes.iter().skip(self.register_start);
        let target = data.iter_mut().skip(self.access_start).take(self.length);
        target.zip(source).for_each(|(to, from)| *to = *from);
    }

    /// The register's `value` with the touched bytes replaced by those of `data`.
    pub(crate) fn merge(&self, value: u64, data: &[u8]) -> u64 {
        let mut bytes = value.to_le_bytes();
        let source = data.iter().skip(self.access_start).take(self.length);
        let target = bytes.iter_mut().skip(self.register_start);
        target.zip(source).for_each(|(to, from)| *to = *from);
        u64::from_le_bytes(bytes)
    }
}

/// Splits the access to `length` bytes at `offset` into the registers it touches, in ascending order.
pub(crate) fn pieces(layout: Layout, offset: u64, length: usize) -> impl Iterator<Item = Piece> {
    let mut done = 0usize;
    from_fn(move || {
        while done < length {
            let at = offset.saturating_add(u64::try_from(done).unwrap_or(u64::MAX));
            let Some(info) = layout.at(at) else {
                done = done.saturating_add(1);
                continue;
            };
            let register_start =
                usize::try_from(at.saturating_sub(u64::from(info.offset))).unwrap_or(0);
            let touched = usize::from(info.width)
                .saturating_sub(register_start)
                .min(length.saturating_sub(done));
            let piece = Piece {
                info,
                register_start,
                access_start: done,
                length: touched,
            };
            done = done.saturating_add(touched.max(1));
            return Some(piece);
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_a_register_maps_to_it_and_no_other_byte_does() {
        for (layout, map) in [
            (Layout::Seed, &SEED_MAP),
            (Layout::Tail, &TAIL_MAP),
            (Layout::None, &NONE_MAP),
        ] {
            assert_eq!(&byte_map(layout), map);
            let covered: usize = layout.registers().map(|info| usize::from(info.width)).sum();
            assert_eq!(map.iter().flatten().count(), covered);
        }
    }
}
