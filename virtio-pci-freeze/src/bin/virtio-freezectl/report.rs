// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What `status` says.

use std::error::Error;

use virtio_pci_freeze::Layout;
use virtio_pci_freeze::guest::{Capabilities, ConfigAccess, FreezeControl, FreezeError};
use virtio_pci_freeze::spec::{DeviceStatus, FreezeModeValue, pci};

use crate::sysfs::{AccessError, ConfigFile, Function};

/// One line about a function. Reading a register takes a write to the window, so that part needs root.
pub(crate) fn status(function: &Function) -> Result<String, Box<dyn Error>> {
    let mut config = ConfigFile::open_for_writing(function)?;
    let capabilities = Capabilities::read(&mut config)?;
    let power = power(&mut config, &capabilities)?;
    let mut control = match FreezeControl::new(config, &capabilities) {
        Ok(control) => control,
        Err(FreezeError::NoFreezeMode { length }) => {
            return Ok(format!("no freeze_mode ({length} bytes), {power}"));
        }
        Err(error) => return Err(error.into()),
    };
    let (status, mode) = (control.device_status()?, control.mode()?);
    let place = match control.layout() {
        Layout::Tail => "offset 64",
        Layout::Seed | Layout::None => "offset 56",
    };
    control.close()?;
    let mode = mode_name(mode);
    let status = status_name(status);
    Ok(format!(
        "freeze_mode {mode} ({place}), device status {status}, {power}"
    ))
}

pub(crate) fn mode_name(mode: FreezeModeValue) -> String {
    match mode {
        FreezeModeValue::UNFREEZE => "UNFREEZE".to_owned(),
        FreezeModeValue::FREEZE_S3 => "FREEZE_S3".to_owned(),
        FreezeModeValue(value) => value.to_string(),
    }
}

fn status_name(status: DeviceStatus) -> String {
    let word = if status.contains(DeviceStatus::DEVICE_NEEDS_RESET) {
        "needs reset"
    } else if status.contains(DeviceStatus::FAILED) {
        "failed"
    } else if status.contains(DeviceStatus::DRIVER_OK) {
        "running"
    } else if status.contains(DeviceStatus::SUSPEND) {
        "suspended"
    } else {
        "stopped"
    };
    format!("{:#04x} ({word})", status.0)
}

fn power(config: &mut ConfigFile, capabilities: &Capabilities) -> Result<String, AccessError> {
    let Some(capability) = capabilities.power_management else {
        return Ok("no power management".to_owned());
    };
    let mut pmcsr = [0; 2];
    config.read(capability.saturating_add(4), &mut pmcsr)?;
    let pmcsr = u16::from_le_bytes(pmcsr);
    let reset = if pmcsr & pci::PMCSR_NO_SOFT_RESET == 0 {
        "-"
    } else {
        "+"
    };
    let state = pmcsr & pci::PMCSR_POWER_STATE;
    Ok(format!("D{state}, No_Soft_Reset{reset}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_named_by_what_matters_most() {
        for (status, name) in [
            (0x00, "0x00 (stopped)"),
            (0x0f, "0x0f (running)"),
            (0x1b, "0x1b (suspended)"),
            (0x4f, "0x4f (needs reset)"),
            (0x8f, "0x8f (failed)"),
        ] {
            assert_eq!(status_name(DeviceStatus(status)), name);
        }
    }

    #[test]
    fn an_unknown_mode_is_shown_as_a_number() {
        assert_eq!(mode_name(FreezeModeValue(0)), "UNFREEZE");
        assert_eq!(mode_name(FreezeModeValue(3)), "FREEZE_S3");
        assert_eq!(mode_name(FreezeModeValue(9)), "9");
    }
}
