// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Numbers and wire types of the standards, and nothing else: no policy lives here.
//!
//! Names are those of VIRTIO 1.4 and of the PCI specifications, so that this file can be read beside them.

use core::fmt::{Debug, Formatter, Result as FmtResult};

/// PCI vendor id of every virtio device (VIRTIO 1.4 §4.1.2).
pub const PCI_VENDOR_ID: u16 = 0x1af4;
/// PCI device id of a modern virtio device is this plus its device type (VIRTIO 1.4 §4.1.2).
pub const PCI_DEVICE_ID_BASE: u16 = 0x1040;
/// Lowest PCI subsystem id of a non-transitional device (VIRTIO 1.4 §4.1.2.1): below it lie the legacy interface's device
/// types.
pub const PCI_SUBSYSTEM_ID_MIN: u16 = 0x40;
/// The MSI-X vector that means "no vector" (VIRTIO 1.4 §4.1.5.1.2).
pub const VIRTIO_MSI_NO_VECTOR: u16 = 0xffff;

/// The device status field (VIRTIO 1.4 §2.1).
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceStatus(pub u8);

impl DeviceStatus {
    /// The guest has found the device.
    pub const ACKNOWLEDGE: u8 = 1;
    /// The guest knows how to drive it.
    pub const DRIVER: u8 = 2;
    /// The driver is set up.
    pub const DRIVER_OK: u8 = 4;
    /// Feature negotiation is complete.
    pub const FEATURES_OK: u8 = 8;
    /// The device is suspended (VIRTIO 1.4 §3.4).
    pub const SUSPEND: u8 = 16;
    /// The device met an error it cannot recover from.
    pub const DEVICE_NEEDS_RESET: u8 = 64;
    /// The guest has given up on the device.
    pub const FAILED: u8 = 128;
    /// Every bit that a driver may set.
    pub const DRIVER_BITS: u8 = Self::ACKNOWLEDGE
        | Self::DRIVER
        | Self::DRIVER_OK
        | Self::FEATURES_OK
        | Self::SUSPEND
        | Self::FAILED;

    /// Whether all of `bits` are set.
    pub const fn contains(self, bits: u8) -> bool {
        self.0 & bits == bits
    }

    /// This status with `bits` set.
    #[must_use]
    pub const fn with(self, bits: u8) -> Self {
        Self(self.0 | bits)
    }

    /// This status with `bits` cleared.
    #[must_use]
    pub const fn without(self, bits: u8) -> Self {
        Self(self.0 & !bits)
    }
}

impl Debug for DeviceStatus {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        write!(f, "DeviceStatus({:#04x})", self.0)
    }
}

/// Feature bits of the queue and transport layer, as bit numbers (VIRTIO 1.4 §6).
pub mod feature {
    /// Descriptors may point at tables of descriptors.
    pub const VIRTIO_F_INDIRECT_DESC: u32 = 28;
    /// `used_event` and `avail_event` suppress notifications.
    pub const VIRTIO_F_EVENT_IDX: u32 = 29;
    /// Compliance with VIRTIO 1.0 and later.
    pub const VIRTIO_F_VERSION_1: u32 = 32;
    /// The device reaches memory at addresses of the platform, which may translate and limit them (§6.1).
    pub const VIRTIO_F_ACCESS_PLATFORM: u32 = 33;
    /// The packed virtqueue layout.
    pub const VIRTIO_F_RING_PACKED: u32 = 34;
    /// Doorbells carry the ring position.
    pub const VIRTIO_F_NOTIFICATION_DATA: u32 = 38;
    /// Doorbells carry a value that the device chose.
    pub const VIRTIO_F_NOTIF_CONFIG_DATA: u32 = 39;
    /// One queue can be reset by itself.
    pub const VIRTIO_F_RING_RESET: u32 = 40;
    /// Administration virtqueues.
    pub const VIRTIO_F_ADMIN_VQ: u32 = 41;
    /// The device can be suspended through its status (VIRTIO 1.4 §3.4).
    pub const VIRTIO_F_SUSPEND: u32 = 43;

    /// The mask of one feature bit; 0 for a bit beyond 63.
    pub const fn mask(bit: u32) -> u64 {
        match 1u64.checked_shl(bit) {
            Some(mask) => mask,
            None => 0,
        }
    }
}

/// Values of the `freeze_mode` register (the freeze_mode proposal of 2023, Linux part).
///
/// An open type: what a guest wrote stays a value, known or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreezeModeValue(pub u16);

impl FreezeModeValue {
    /// A reset is a reset.
    pub const UNFREEZE: Self = Self(0);
    /// The guest is about to enter S3: retain the device's state across the coming reset.
    pub const FREEZE_S3: Self = Self(3);
}

/// `cfg_type` of the virtio PCI capabilities (VIRTIO 1.4 §4.1.4).
pub mod cap_type {
    /// VIRTIO_PCI_CAP_COMMON_CFG
    pub const COMMON_CFG: u8 = 1;
    /// VIRTIO_PCI_CAP_NOTIFY_CFG
    pub const NOTIFY_CFG: u8 = 2;
    /// VIRTIO_PCI_CAP_ISR_CFG
    pub const ISR_CFG: u8 = 3;
    /// VIRTIO_PCI_CAP_DEVICE_CFG
    pub const DEVICE_CFG: u8 = 4;
    /// VIRTIO_PCI_CAP_PCI_CFG
    pub const PCI_CFG: u8 = 5;
    /// VIRTIO_PCI_CAP_SHARED_MEMORY_CFG
    pub const SHARED_MEMORY_CFG: u8 = 8;
}

/// Bits of the ISR status (VIRTIO 1.4 §4.1.4.5).
pub mod isr {
    /// A virtqueue has used buffers.
    pub const QUEUE: u8 = 1;
    /// The device configuration changed.
    pub const CONFIG: u8 = 2;
}

/// The PCI configuration header, type 0, and the capabilities used here
/// (PCI Local Bus 3.0 §6.1 and §6.8.2, PCI Power Management 1.2 §3.2).
pub mod pci {
    /// Vendor id, 16 bits.
    pub const VENDOR_ID: u8 = 0x00;
    /// Device id, 16 bits.
    pub const DEVICE_ID: u8 = 0x02;
    /// Command, 16 bits.
    pub const COMMAND: u8 = 0x04;
    /// Status, 16 bits.
    pub const STATUS: u8 = 0x06;
    /// Revision id, 8 bits.
    pub const REVISION_ID: u8 = 0x08;
    /// Class code: programming interface, sub-class, base class.
    pub const CLASS_CODE: u8 = 0x09;
    /// Cache line size, 8 bits.
    pub const CACHE_LINE_SIZE: u8 = 0x0c;
    /// The first base address register.
    pub const BAR0: u8 = 0x10;
    /// Subsystem vendor id, 16 bits.
    pub const SUBSYSTEM_VENDOR_ID: u8 = 0x2c;
    /// Subsystem id, 16 bits.
    pub const SUBSYSTEM_ID: u8 = 0x2e;
    /// Offset of the first capability.
    pub const CAPABILITIES_POINTER: u8 = 0x34;
    /// Interrupt line, 8 bits, for software.
    pub const INTERRUPT_LINE: u8 = 0x3c;
    /// Interrupt pin: 0 none, 1 INTA#.
    pub const INTERRUPT_PIN: u8 = 0x3d;
    /// Where capabilities may start.
    pub const FIRST_CAPABILITY: u8 = 0x40;

    /// Command: respond to memory accesses.
    pub const COMMAND_MEMORY: u16 = 1 << 1;
    /// Command: may master the bus.
    pub const COMMAND_BUS_MASTER: u16 = 1 << 2;
    /// Command: INTx is masked.
    pub const COMMAND_INTX_DISABLE: u16 = 1 << 10;
    /// Command bits that software may set.
    pub const COMMAND_WRITABLE: u16 = 0x0547;
    /// Status: an INTx interrupt is asserted.
    pub const STATUS_INTERRUPT: u16 = 1 << 3;
    /// Status: a capability list exists.
    pub const STATUS_CAPABILITIES: u16 = 1 << 4;

    /// BAR: 64 bits wide.
    pub const BAR_MEMORY_64: u32 = 1 << 2;
    /// BAR: prefetchable.
    pub const BAR_PREFETCHABLE: u32 = 1 << 3;

    /// Capability id of power management.
    pub const CAP_PM: u8 = 0x01;
    /// Capability id of vendor-specific (virtio) structures.
    pub const CAP_VENDOR: u8 = 0x09;
    /// Capability id of MSI-X.
    pub const CAP_MSIX: u8 = 0x11;

    /// PMC: version 3 (PCI PM 1.2), no PME, no D1, no D2.
    pub const PMC: u16 = 0x0003;
    /// PMCSR: the power state field.
    pub const PMCSR_POWER_STATE: u16 = 0x0003;
    /// PMCSR: No_Soft_Reset.
    pub const PMCSR_NO_SOFT_RESET: u16 = 1 << 3;

    /// MSI-X message control: enable.
    pub const MSIX_ENABLE: u16 = 1 << 15;
    /// MSI-X message control: mask the whole function.
    pub const MSIX_FUNCTION_MASK: u16 = 1 << 14;
    /// Most vectors that an MSI-X table can have.
    pub const MSIX_MAX_VECTORS: u16 = 2048;
}
