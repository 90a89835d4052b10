// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which BARs the function has, and what is in them.

use crate::device_config::MAX_DEVICE_CONFIG;
use crate::error::ConfigError;
use crate::msix::ENTRY_SIZE;
use crate::queue::MAX_QUEUES;
use crate::spec::{cap_type, pci};

/// Most regions of shared memory: their capabilities must fit below offset 256.
pub const MAX_SHARED_MEMORY_REGIONS: usize = 2;

/// A region of shared memory, for the device to give meaning to (VIRTIO 1.4 §2.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedMemoryRegion {
    /// Its id, unique for the device; a GPU's host-visible memory is 1.
    pub id: u8,
    /// Offset in [`BarLayout::SHARED_MEMORY`], in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

/// An access of shared memory through the configuration access window (VIRTIO 1.4 §4.1.4.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedMemoryAccess<T> {
    /// Where, in [`BarLayout::SHARED_MEMORY`], in bytes.
    pub offset: u64,
    /// How many bytes to read, or which to write: 1, 2 or 4, aligned to that.
    pub what: T,
}

/// A structure in [`BarLayout::VIRTIO`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Structure {
    pub(crate) cap_type: u8,
    pub(crate) offset: u32,
    /// Bytes that the capability states; the common configuration's depends on the layout.
    pub(crate) length: Option<u32>,
}

/// Each structure starts on a page of its own, so that a VMM can map or trap it alone (§4.1.4 hints at this).
const PAGE: u32 = 0x1000;
const NOTIFY_LENGTH: u32 = {
    assert!(MAX_QUEUES <= 1024, "the doorbells need more than a page");
    PAGE
};
const DEVICE_LENGTH: u32 = {
    assert!(
        MAX_DEVICE_CONFIG == 0x1000,
        "the device configuration is one page"
    );
    PAGE
};

pub(crate) const VIRTIO_STRUCTURES: [Structure; 4] = [
    Structure {
        cap_type: cap_type::COMMON_CFG,
        offset: 0,
        length: None,
    },
    Structure {
        cap_type: cap_type::ISR_CFG,
        offset: PAGE,
        length: Some(1),
    },
    Structure {
        cap_type: cap_type::DEVICE_CFG,
        offset: 2 * PAGE,
        length: Some(DEVICE_LENGTH),
    },
    Structure {
        cap_type: cap_type::NOTIFY_CFG,
        offset: 3 * PAGE,
        length: Some(NOTIFY_LENGTH),
    },
];

/// Where an access to [`BarLayout::VIRTIO`] or [`BarLayout::MSIX`] falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Common(u64),
    Isr(u64),
    Device(u64),
    Notify(u64),
    MsixTable(u64),
    MsixPending(u64),
}

/// One 32-bit BAR register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BarRegister {
    pub(crate) flags: u32,
    pub(crate) writable: u32,
}

/// The BARs of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BarLayout {
    vectors: u16,
    shared_memory: Vec<SharedMemoryRegion>,
}

impl BarLayout {
    /// The virtio structures: 64 bits wide, takes this index and the next.
    pub const VIRTIO: u8 = 0;
    /// Shared memory, if there is any: 64 bits wide, prefetchable, takes this index and the next.
    pub const SHARED_MEMORY: u8 = 2;
    /// MSI-X table and pending bits, 32 bits wide. Apart from the rest, since vfio-user clients keep it from us.
    pub const MSIX: u8 = 4;

    pub(crate) fn new(
        vectors: u16,
        shared_memory: Vec<SharedMemoryRegion>,
    ) -> Result<Self, ConfigError> {
        if vectors == 0 || vectors > pci::MSIX_MAX_VECTORS {
            return Err(ConfigError::Vectors { count: vectors });
        }
        check_shared_memory(&shared_memory)?;
        Ok(Self {
            vectors,
            shared_memory,
        })
    }

    /// Size of a BAR in bytes, a power of 2; 0 if the function has no such BAR.
    pub fn size(&self, bar: u8) -> u64 {
        match bar {
            Self::VIRTIO => u64::from(PAGE).saturating_mul(4),
            Self::SHARED_MEMORY => {
                let ends = self
                    .shared_memory
                    .iter()
                    .map(|r| r.offset.saturating_add(r.length));
                let end = ends.max().unwrap_or(0);
                if end == 0 {
                    0
                } else {
                    end.max(PAGE.into()).next_power_of_two()
                }
            }
            Self::MSIX => {
                let end = u64::from(self.pending_offset()).saturating_add(PAGE.into());
                end.next_power_of_two()
            }
            _ => 0,
        }
    }

    /// Vectors in the MSI-X table.
    pub fn vectors(&self) -> u16 {
        self.vectors
    }

    /// The regions of shared memory.
    pub fn shared_memory(&self) -> &[SharedMemoryRegion] {
        &self.shared_memory
    }

    /// Where the pending bits start in [`BarLayout::MSIX`]: on the page after the table.
    pub fn pending_offset(&self) -> u32 {
        self.table_length().next_multiple_of(PAGE)
    }

    fn table_length(&self) -> u32 {
        u32::from(self.vectors).saturating_mul(ENTRY_SIZE.into())
    }

    pub(crate) fn registers(&self) -> [BarRegister; 6] {
        let [virtio_low, virtio_high] = wide(self.size(Self::VIRTIO), 0);
        let [shared_low, shared_high] = wide(self.size(Self::SHARED_MEMORY), pci::BAR_PREFETCHABLE);
        let [msix, _] = wide(self.size(Self::MSIX), 0);
        let msix = BarRegister { flags: 0, ..msix };
        [
            virtio_low,
            virtio_high,
            shared_low,
            shared_high,
            msix,
            BarRegister::default(),
        ]
    }

    /// What an access at `offset` of `bar` reaches.
    pub(crate) fn place(&self, bar: u8, offset: u64, common_length: u32) -> Option<Place> {
        if offset >= self.size(bar) {
            return None;
        }
        match bar {
            Self::VIRTIO => {
                let page = u64::from(PAGE);
                let within = offset.checked_rem(page)?;
                match offset.checked_div(page)? {
                    0 => (within < common_length.into()).then_some(Place::Common(within)),
                    1 => Some(Place::Isr(within)),
                    2 => Some(Place::Device(within)),
                    3 => Some(Place::Notify(within)),
                    _ => None,
                }
            }
            Self::MSIX => {
                let pending = u64::from(self.pending_offset());
                if offset < self.table_length().into() {
                    Some(Place::MsixTable(offset))
                } else {
                    offset.checked_sub(pending).map(Place::MsixPending)
                }
            }
            _ => None,
        }
    }
}

/// The two registers of a 64-bit memory BAR of `size` bytes.
fn wide(size: u64, flags: u32) -> [BarRegister; 2] {
    let Some(below) = size.checked_sub(1) else {
        return [BarRegister::default(); 2];
    };
    let [a, b, c, d, e, f, g, h] = (!below).to_le_bytes();
    let low = BarRegister {
        flags: flags | pci::BAR_MEMORY_64,
        writable: u32::from_le_bytes([a, b, c, d]) & !0xf,
    };
    let high = BarRegister {
        flags: 0,
        writable: u32::from_le_bytes([e, f, g, h]),
    };
    [low, high]
}

fn check_shared_memory(regions: &[SharedMemoryRegion]) -> Result<(), ConfigError> {
    let error = |id, reason| Err(ConfigError::SharedMemory { id, reason });
    for (index, region) in regions.iter().enumerate() {
        let id = region.id;
        if index >= MAX_SHARED_MEMORY_REGIONS {
            return error(id, "its capability has no room");
        }
        if region.length == 0 {
            return error(id, "it is empty");
        }
        let end = region.offset.checked_add(region.length);
        if end
            .and_then(u64::checked_next_power_of_two)
            .is_none_or(|size| size > 1 << 46)
        {
            return error(id, "it ends beyond 64 TiB");
        }
        if regions.iter().take(index).any(|other| other.id == id) {
            return error(id, "the id is used twice");
        }
    }
    Ok(())
}
