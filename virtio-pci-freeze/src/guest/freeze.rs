// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `freeze_mode` as a guest uses it.

use thiserror::Error;

use super::probe::{Capabilities, CommonRegisters, ConfigAccess, ProbeError, read_u16};
use crate::register::{FREEZE_FEATURE, Layout, Register};
use crate::spec::{DeviceStatus, FreezeModeValue, pci};

/// Why a guest's request was not met. `E` is what its [`ConfigAccess`] reports.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FreezeError<E> {
    /// The function cannot be used.
    #[error(transparent)]
    Probe(#[from] ProbeError<E>),
    /// The device has no `freeze_mode` register.
    #[error("The device has no freeze_mode: its common configuration structure has {length} bytes")]
    NoFreezeMode {
        /// Length of the structure in bytes.
        length: u32,
    },
    /// The device has `freeze_mode`, but the driver did not negotiate it.
    #[error(
        "The driver did not accept feature {FREEZE_FEATURE}, without which freeze_mode is ignored"
    )]
    NotNegotiated,
    /// The function is in D3hot, where none of its registers answers.
    #[error("The function is in D3hot")]
    Asleep,
    /// The device did not take the value over.
    #[error("The device still shows freeze_mode {shown} where {asked} was written")]
    NotAcknowledged {
        /// The value written.
        asked: u16,
        /// The value read back last.
        shown: u16,
    },
}

/// `freeze_mode` of one function, through the PCI configuration access capability.
#[derive(Debug)]
pub struct FreezeControl<A> {
    registers: CommonRegisters<A>,
}

impl<A: ConfigAccess> FreezeControl<A> {
    /// The control of a function whose `capabilities` were read.
    ///
    /// # Errors
    /// [`FreezeError::NoFreezeMode`] where the device has no such register, [`FreezeError::Asleep`] in D3hot, and
    /// what keeps a program from reaching it.
    pub fn new(mut access: A, capabilities: &Capabilities) -> Result<Self, FreezeError<A::Error>> {
        if power_state(&mut access, capabilities)? != 0 {
            return Err(FreezeError::Asleep);
        }
        let registers = CommonRegisters::new(access, capabilities)?;
        match registers.layout() {
            Layout::None => Err(FreezeError::NoFreezeMode {
                length: registers.location().length,
            }),
            Layout::Seed | Layout::Tail => Ok(Self { registers }),
        }
    }

    /// Where the register is.
    pub fn layout(&self) -> Layout {
        self.registers.layout()
    }

    /// The device status.
    ///
    /// # Errors
    /// [`ProbeError::Access`] where configuration space cannot be accessed.
    pub fn device_status(&mut self) -> Result<DeviceStatus, FreezeError<A::Error>> {
        let [status, ..] = self.registers.read(Register::DeviceStatus)?.to_le_bytes();
        Ok(DeviceStatus(status))
    }

    /// The value that the device shows: what it has honoured.
    ///
    /// # Errors
    /// [`ProbeError::Access`] where configuration space cannot be accessed.
    pub fn mode(&mut self) -> Result<FreezeModeValue, FreezeError<A::Error>> {
        let [low, high, ..] = self.registers.read(Register::FreezeMode)?.to_le_bytes();
        Ok(FreezeModeValue(u16::from_le_bytes([low, high])))
    }

    /// Asks for `mode` and reads back until the device shows it. `wait` is called between two reads and says whether
    /// to go on; it is where a program sleeps and watches its clock.
    ///
    /// # Errors
    /// [`FreezeError::NotAcknowledged`] once `wait` gives up, [`FreezeError::NotNegotiated`] where the device would
    /// ignore the write, and what keeps a program from reaching the register.
    pub fn request(
        &mut self,
        mode: FreezeModeValue,
        mut wait: impl FnMut() -> bool,
    ) -> Result<(), FreezeError<A::Error>> {
        if self.layout() == Layout::Tail && !self.is_negotiated()? {
            return Err(FreezeError::NotNegotiated);
        }
        self.registers.write(Register::FreezeMode, mode.0.into())?;
        loop {
            let shown = self.mode()?;
            if shown == mode {
                return Ok(());
            }
            if !wait() {
                return Err(FreezeError::NotAcknowledged {
                    asked: mode.0,
                    shown: shown.0,
                });
            }
        }
    }

    /// Leaves the window closed.
    ///
    /// # Errors
    /// [`ProbeError::Access`] where configuration space cannot be accessed.
    pub fn close(mut self) -> Result<(), FreezeError<A::Error>> {
        Ok(self.registers.close()?)
    }

    /// Whether the driver accepted the feature that gates the register.
    fn is_negotiated(&mut self) -> Result<bool, FreezeError<A::Error>> {
        let select = self.registers.read(Register::DriverFeatureSelect)?;
        self.registers.write(Register::DriverFeatureSelect, 1)?;
        let features = self.registers.read(Register::DriverFeature);
        // The kernel's driver owns this register: leave it as it was.
        self.registers
            .write(Register::DriverFeatureSelect, select)?;
        let accepted = features? & (1 << (FREEZE_FEATURE % 32)) != 0;
        Ok(accepted && self.device_status()?.contains(DeviceStatus::FEATURES_OK))
    }
}

/// The power state in PMCSR; D0 where there is no such capability (PCI PM 1.2 §3.2.4).
fn power_state<A: ConfigAccess>(
    access: &mut A,
    capabilities: &Capabilities,
) -> Result<u16, ProbeError<A::Error>> {
    let Some(capability) = capabilities.power_management else {
        return Ok(0);
    };
    let pmcsr = read_u16(access, capability.saturating_add(4))?;
    Ok(pmcsr & pci::PMCSR_POWER_STATE)
}
