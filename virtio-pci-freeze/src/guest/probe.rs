// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Finding a virtio function's structures, and the window to reach them through (VIRTIO 1.4 §4.1.4).

use thiserror::Error;

use crate::register::{Layout, Register};
use crate::spec::{PCI_DEVICE_ID_BASE, PCI_VENDOR_ID, cap_type, pci};

/// Access to one function's configuration space.
pub trait ConfigAccess {
    /// Why an access failed.
    type Error;

    /// Reads `data.len()` bytes at `offset`, as one access.
    ///
    /// # Errors
    /// Whatever kept the bytes from being read, all of them.
    fn read(&mut self, offset: u16, data: &mut [u8]) -> Result<(), Self::Error>;

    /// Writes `data` at `offset`, as one access.
    ///
    /// # Errors
    /// Whatever kept the bytes from being written, all of them.
    fn write(&mut self, offset: u16, data: &[u8]) -> Result<(), Self::Error>;
}

impl<A: ConfigAccess + ?Sized> ConfigAccess for &mut A {
    type Error = A::Error;

    fn read(&mut self, offset: u16, data: &mut [u8]) -> Result<(), Self::Error> {
        (**self).read(offset, data)
    }

    fn write(&mut self, offset: u16, data: &[u8]) -> Result<(), Self::Error> {
        (**self).write(offset, data)
    }
}

/// What makes a function unusable for a guest-side program. `E` is what its [`ConfigAccess`] reports.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProbeError<E> {
    /// Configuration space could not be accessed.
    #[error("Configuration space at {offset:#x} cannot be accessed")]
    Access {
        /// Where.
        offset: u16,
        /// Why.
        #[source]
        source: E,
    },
    /// Not a modern virtio function.
    #[error("Not a modern virtio function: vendor {vendor:#06x}, device {device:#06x}")]
    NotVirtio {
        /// The vendor id found.
        vendor: u16,
        /// The device id found.
        device: u16,
    },
    /// The capability list does not end.
    #[error("The capability list does not end")]
    EndlessList,
    /// A capability that is needed is missing.
    #[error("No {name} capability")]
    NoCapability {
        /// Its name.
        name: &'static str,
    },
    /// A structure is too short for the register asked for.
    #[error("The structure at {offset:#x} has {length} bytes, too few")]
    TooShort {
        /// Its offset in the BAR.
        offset: u32,
        /// Its length in bytes.
        length: u32,
    },
}

/// Where a structure is (VIRTIO 1.4 §4.1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StructureLocation {
    /// `cfg_type`, one of [`cap_type`].
    pub cap_type: u8,
    /// Offset of its capability in configuration space.
    pub capability: u16,
    /// Index of the BAR.
    pub bar: u8,
    /// Offset in the BAR, in bytes; the low half for shared memory.
    pub offset: u32,
    /// Length in bytes; the low half for shared memory.
    pub length: u32,
}

/// What the capability list of a virtio function says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The virtio device type (VIRTIO 1.4 §5): 16 is a GPU.
    pub device_type: u16,
    /// The virtio structures, in the device's order of preference.
    pub structures: Vec<StructureLocation>,
    /// Where the PM capability is.
    pub power_management: Option<u16>,
    /// Where the MSI-X capability is.
    pub msix: Option<u16>,
}

/// Most capabilities that fit between offset 0x40 and the end of a conventional configuration space.
const MAX_CAPABILITIES: usize = (256 - 0x40) / 4;

impl Capabilities {
    /// Reads ids and the capability list.
    ///
    /// # Errors
    /// A [`ProbeError`] where the function is no modern virtio function, its list has a loop, or an access failed.
    pub fn read<A: ConfigAccess>(access: &mut A) -> Result<Self, ProbeError<A::Error>> {
        let vendor = read_u16(access, pci::VENDOR_ID.into())?;
        let device = read_u16(access, pci::DEVICE_ID.into())?;
        let device_type = device
            .checked_sub(PCI_DEVICE_ID_BASE)
            .filter(|&kind| vendor == PCI_VENDOR_ID && kind < 0x40)
            .ok_or(ProbeError::NotVirtio { vendor, device })?;
        let mut found = Self {
            device_type,
            structures: Vec::new(),
            power_management: None,
            msix: None,
        };
        let mut at = read_u8(access, pci::CAPABILITIES_POINTER.into())? & !3;
        for _ in 0..MAX_CAPABILITIES {
            if at == 0 {
                return Ok(found);
            }
            let offset = u16::from(at);
            found.take(access, offset)?;
            at = read_u8(access, offset.saturating_add(1))? & !3;
        }
        Err(ProbeError::EndlessList)
    }

    /// The first structure of a type: the one that the device prefers (VIRTIO 1.4 §4.1.4.1).
    pub fn structure(&self, cap_type: u8) -> Option<StructureLocation> {
        let mut of_type = self.structures.iter().filter(|s| s.cap_type == cap_type);
        of_type.next().copied()
    }

    fn take<A: ConfigAccess>(
        &mut self,
        access: &mut A,
        at: u16,
    ) -> Result<(), ProbeError<A::Error>> {
        match read_u8(access, at)? {
            pci::CAP_PM => self.power_management = Some(at),
            pci::CAP_MSIX => self.msix = Some(at),
            pci::CAP_VENDOR => {
                let location = StructureLocation {
                    cap_type: read_u8(access, at.saturating_add(3))?,
                    capability: at,
                    bar: read_u8(access, at.saturating_add(4))?,
                    offset: read_u32(access, at.saturating_add(8))?,
                    length: read_u32(access, at.saturating_add(12))?,
                };
                // Reserved values of `bar` must be ignored (§4.1.4.1).
                if location.bar < 6 {
                    self.structures.push(location);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The window that the PCI configuration access capability opens (VIRTIO 1.4 §4.1.4.9).
#[derive(Debug)]
pub struct Window<A> {
    access: A,
    capability: u16,
}

impl<A: ConfigAccess> Window<A> {
    /// The window of a function whose `capabilities` were read.
    ///
    /// # Errors
    /// [`ProbeError::NoCapability`] where the function has none.
    pub fn new(access: A, capabilities: &Capabilities) -> Result<Self, ProbeError<A::Error>> {
        let capability = capabilities
            .structure(cap_type::PCI_CFG)
            .ok_or(ProbeError::NoCapability {
                name: "PCI configuration access",
            })?
            .capability;
        Ok(Self { access, capability })
    }

    /// Reads a BAR; `data` is 1, 2 or 4 bytes long and `offset` a multiple of that.
    ///
    /// # Errors
    /// [`ProbeError::Access`] where configuration space cannot be accessed.
    pub fn read(
        &mut self,
        bar: u8,
        offset: u32,
        data: &mut [u8],
    ) -> Result<(), ProbeError<A::Error>> {
        self.aim(bar, offset, data.len())?;
        let at = self.data();
        let read = self.access.read(at, data);
        read.map_err(|source| ProbeError::Access { offset: at, source })
    }

    /// Writes a BAR; `data` is 1, 2 or 4 bytes long and `offset` a multiple of that.
    ///
    /// # Errors
    /// [`ProbeError::Access`] where configuration space cannot be accessed.
    pub fn write(&mut self, bar: u8, offset: u32, data: &[u8]) -> Result<(), ProbeError<A::Error>> {
        self.aim(bar, offset, data.len())?;
        let at = self.data();
        write(&mut self.access, at, data)
    }

    /// Closes the window, so that a later dump of configuration space reads no register through it.
    ///
    /// # Errors
    /// [`ProbeError::Access`] where configuration space cannot be accessed.
    pub fn close(&mut self) -> Result<(), ProbeError<A::Error>> {
        self.aim(0, 0, 0)
    }

    fn aim(&mut self, bar: u8, offset: u32, length: usize) -> Result<(), ProbeError<A::Error>> {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let at = |byte: u16| self.capability.saturating_add(byte);
        let (bar_at, offset_at, length_at) = (at(4), at(8), at(12));
        write(&mut self.access, bar_at, &[bar])?;
        write(&mut self.access, offset_at, &offset.to_le_bytes())?;
        write(&mut self.access, length_at, &length.to_le_bytes())
    }

    fn data(&self) -> u16 {
        self.capability.saturating_add(16)
    }
}

/// The registers of the common configuration structure, through the window.
#[derive(Debug)]
pub struct CommonRegisters<A> {
    window: Window<A>,
    location: StructureLocation,
    layout: Layout,
}

impl<A: ConfigAccess> CommonRegisters<A> {
    /// The registers of a function whose `capabilities` were read, placed as the structure's length says.
    ///
    /// # Errors
    /// [`ProbeError::NoCapability`] where the function lacks the structure or the window.
    pub fn new(access: A, capabilities: &Capabilities) -> Result<Self, ProbeError<A::Error>> {
        let location =
            capabilities
                .structure(cap_type::COMMON_CFG)
                .ok_or(ProbeError::NoCapability {
                    name: "common configuration",
                })?;
        Ok(Self {
            window: Window::new(access, capabilities)?,
            location,
            layout: Layout::of_length(location.length),
        })
    }

    /// Where `freeze_mode` would be.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Where the structure is.
    pub fn location(&self) -> StructureLocation {
        self.location
    }

    /// Reads a register of at most 4 bytes.
    ///
    /// # Errors
    /// A [`ProbeError`] where the structure is too short for it, or an access failed.
    pub fn read(&mut self, register: Register) -> Result<u32, ProbeError<A::Error>> {
        let (offset, width) = self.place(register)?;
        let mut bytes = [0; 4];
        let data = bytes.get_mut(..width).unwrap_or_default();
        self.window.read(self.location.bar, offset, data)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Writes a register of at most 4 bytes.
    ///
    /// # Errors
    /// A [`ProbeError`] where the structure is too short for it, or an access failed.
    pub fn write(&mut self, register: Register, value: u32) -> Result<(), ProbeError<A::Error>> {
        let (offset, width) = self.place(register)?;
        let bytes = value.to_le_bytes();
        let data = bytes.get(..width).unwrap_or_default();
        self.window.write(self.location.bar, offset, data)
    }

    /// See [`Window::close`].
    ///
    /// # Errors
    /// [`ProbeError::Access`] where configuration space cannot be accessed.
    pub fn close(&mut self) -> Result<(), ProbeError<A::Error>> {
        self.window.close()
    }

    /// Offset in the BAR and width of a register.
    fn place(&self, register: Register) -> Result<(u32, usize), ProbeError<A::Error>> {
        let StructureLocation { offset, length, .. } = self.location;
        let mut registers = self.layout.registers();
        registers
            .find(|info| info.register == register)
            .filter(|info| u32::from(info.offset).saturating_add(info.width.into()) <= length)
            .map(|info| {
                let at = offset.saturating_add(info.offset.into());
                (at, usize::from(info.width.min(4)))
            })
            .ok_or(ProbeError::TooShort { offset, length })
    }
}

fn read<A: ConfigAccess, const N: usize>(
    access: &mut A,
    offset: u16,
) -> Result<[u8; N], ProbeError<A::Error>> {
    let mut bytes = [0; N];
    let read = access.read(offset, &mut bytes);
    read.map_err(|source| ProbeError::Access { offset, source })?;
    Ok(bytes)
}

fn read_u8<A: ConfigAccess>(access: &mut A, offset: u16) -> Result<u8, ProbeError<A::Error>> {
    read(access, offset).map(u8::from_le_bytes)
}

pub(super) fn read_u16<A: ConfigAccess>(
    access: &mut A,
    offset: u16,
) -> Result<u16, ProbeError<A::Error>> {
    read(access, offset).map(u16::from_le_bytes)
}

fn read_u32<A: ConfigAccess>(access: &mut A, offset: u16) -> Result<u32, ProbeError<A::Error>> {
    read(access, offset).map(u32::from_le_bytes)
}

fn write<A: ConfigAccess>(
    access: &mut A,
    offset: u16,
    data: &[u8],
) -> Result<(), ProbeError<A::Error>> {
    let written = access.write(offset, data);
    written.map_err(|source| ProbeError::Access { offset, source })
}
