// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A virtio driver on PCI, as far as a benchmark needs one.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use virtio_gpu_s3::Image;
use virtio_pci_freeze::spec::{DeviceStatus, FreezeModeValue, VIRTIO_MSI_NO_VECTOR, feature, pci};
use virtio_pci_freeze::{Layout, Register};

use crate::queue::{Area, Doorbell};

/// Longer than any reset or freeze takes.
const LIMIT: Duration = Duration::from_secs(10);

/// A way to a modern virtio PCI function.
pub(crate) trait PciFunction {
    /// Writes configuration space.
    fn write_config(&mut self, offset: u8, data: &[u8]) -> Result<()>;
    /// Reads the common configuration.
    fn read_common(&mut self, offset: u8, data: &mut [u8]) -> Result<()>;
    /// Writes the common configuration.
    fn write_common(&mut self, offset: u8, data: &[u8]) -> Result<()>;
    /// Rings the control queue's doorbell.
    fn ring(&mut self) -> Result<()>;
    /// See [`Doorbell::settle`].
    fn settle(&mut self) -> Result<()>;
    /// What the first output shows, if there is a way to see it.
    fn picture(&mut self) -> Result<Option<Image>>;
}

/// The driver of one function.
pub(crate) struct PciDriver {
    function: Box<dyn PciFunction>,
}

impl Doorbell for PciDriver {
    fn ring(&mut self) -> Result<()> {
        self.function.ring()
    }

    fn settle(&mut self) -> Result<()> {
        self.function.settle()
    }
}

impl PciDriver {
    pub(crate) fn new(function: Box<dyn PciFunction>) -> Self {
        Self { function }
    }

    /// See [`PciFunction::picture`].
    pub(crate) fn picture(&mut self) -> Result<Option<Image>> {
        self.function.picture()
    }

    /// From power-on to DRIVER_OK (VIRTIO 1.4 §3.1.1). Takes of `features` what is offered, and returns that.
    pub(crate) fn start(&mut self, features: u64, area: &Area) -> Result<u64> {
        let command = pci::COMMAND_MEMORY | pci::COMMAND_BUS_MASTER;
        self.function
            .write_config(pci::COMMAND, &command.to_le_bytes())?;
        self.reset()?;
        let accepted = self.negotiate(features)?;
        self.write(Register::QueueSelect, 0)?;
        self.write(Register::QueueSize, area.size.into())?;
        self.write(Register::QueueMsixVector, VIRTIO_MSI_NO_VECTOR.into())?;
        self.write(Register::QueueDesc, area.desc)?;
        self.write(Register::QueueDriver, area.avail)?;
        self.write(Register::QueueDevice, area.used)?;
        self.write(Register::QueueEnable, 1)?;
        self.run()?;
        Ok(accepted)
    }

    /// Writes status 0 and waits for it.
    pub(crate) fn reset(&mut self) -> Result<()> {
        self.write(Register::DeviceStatus, 0)?;
        self.wait(Register::DeviceStatus, 0)
    }

    /// Up to FEATURES_OK.
    pub(crate) fn negotiate(&mut self, features: u64) -> Result<u64> {
        let (acknowledge, driver) = (DeviceStatus::ACKNOWLEDGE, DeviceStatus::DRIVER);
        self.write(Register::DeviceStatus, acknowledge.into())?;
        self.write(Register::DeviceStatus, (acknowledge | driver).into())?;
        let mut accepted = 0;
        for half in 0..2_u32 {
            self.write(Register::DeviceFeatureSelect, half.into())?;
            let offered = self.read(Register::DeviceFeature)?;
            let taken = (features >> (half * 32)) & offered & 0xffff_ffff;
            self.write(Register::DriverFeatureSelect, half.into())?;
            self.write(Register::DriverFeature, taken)?;
            accepted |= taken << (half * 32);
        }
        let status = acknowledge | driver | DeviceStatus::FEATURES_OK;
        self.write(Register::DeviceStatus, status.into())?;
        self.wait(Register::DeviceStatus, status.into())?;
        Ok(accepted)
    }

    /// DRIVER_OK.
    pub(crate) fn run(&mut self) -> Result<()> {
        let status = DeviceStatus::ACKNOWLEDGE
            | DeviceStatus::DRIVER
            | DeviceStatus::FEATURES_OK
            | DeviceStatus::DRIVER_OK;
        self.write(Register::DeviceStatus, status.into())
    }

    /// Writes the proposal's freeze_mode.
    pub(crate) fn write_freeze_mode(&mut self, mode: FreezeModeValue) -> Result<()> {
        self.write(Register::FreezeMode, mode.0.into())
    }

    /// Waits until the device has acknowledged the mode by showing it.
    pub(crate) fn wait_for_freeze_mode(&mut self, mode: FreezeModeValue) -> Result<()> {
        self.wait(Register::FreezeMode, mode.0.into())
    }

    fn wait(&mut self, register: Register, value: u64) -> Result<()> {
        let start = Instant::now();
        loop {
            let is = self.read(register)?;
            if is == value {
                return Ok(());
            }
            ensure!(start.elapsed() < LIMIT, "{register:?} stays {is:#x}");
        }
    }

    fn read(&mut self, register: Register) -> Result<u64> {
        let (offset, width) = place(register)?;
        let mut data = [0; 8];
        let bytes = data.get_mut(..width).context("a register's width")?;
        self.function.read_common(offset, bytes)?;
        Ok(u64::from_le_bytes(data))
    }

    /// Drivers write 64-bit registers as two halves (VIRTIO 1.4 §4.1.3.1).
    fn write(&mut self, register: Register, value: u64) -> Result<()> {
        let (mut offset, width) = place(register)?;
        let bytes = value.to_le_bytes();
        for half in bytes.get(..width).context("a register's width")?.chunks(4) {
            self.function.write_common(offset, half)?;
            offset += 4;
        }
        Ok(())
    }
}

/// The features of any ring: as Linux' driver takes them, but for indirect descriptors, which vary in cost.
pub(crate) const RING_FEATURES: u64 =
    feature::mask(feature::VIRTIO_F_VERSION_1) | feature::mask(feature::VIRTIO_F_EVENT_IDX);

/// Whether [`RING_FEATURES`]' VIRTIO_F_EVENT_IDX was taken.
pub(crate) fn has_event_idx(features: u64) -> bool {
    features & feature::mask(feature::VIRTIO_F_EVENT_IDX) != 0
}

/// Offset and width. All layouts have the standard's registers at the same place.
fn place(register: Register) -> Result<(u8, usize)> {
    let mut registers = Layout::Seed.registers();
    let info = registers
        .find(|info| info.register == register)
        .context("a register of the layout")?;
    Ok((info.offset, info.width.into()))
}
