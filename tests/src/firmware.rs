// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A machine that runs its firmware and nothing else.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::json;

use crate::guest::{START_LIMIT, Slot};
use crate::image::Image;
use crate::lab::Lab;
use crate::machine::Machine;
use crate::process::{Running, Sockets};
use crate::qmp::Qmp;

/// The machine, killed when dropped.
#[derive(Debug)]
pub struct Firmware {
    qmp: Qmp,
    directory: PathBuf,
    _running: Running,
    _sockets: Sockets,
    _slot: Slot,
}

impl Firmware {
    /// Starts QEMU with firmware and nothing to boot.
    ///
    /// # Errors
    /// QEMU does not start.
    pub fn start(lab: &Lab, machine: Machine) -> Result<Self> {
        let machine = machine.with_firmware_alone();
        let slot = Slot::take();
        let directory = lab.run_directory(&machine.name)?;
        let sockets = Sockets::create()?;
        let arguments = machine.arguments(lab, sockets.path(), &directory.join("console.log"));
        let log = directory.join("qemu.log");
        let running = Running::start(&lab.qemu(), arguments, &log)?;
        let qmp = Qmp::connect(&sockets.path().join("qmp"), START_LIMIT)
            .with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        Ok(Self {
            qmp,
            directory,
            _running: running,
            _sockets: sockets,
            _slot: slot,
        })
    }

    /// What QEMU's own display shows.
    ///
    /// # Errors
    /// QEMU could not make a picture of it.
    pub fn screendump(&self, name: &str) -> Result<Image> {
        let path = self.directory.join(format!("{name}.png"));
        self.qmp
            .execute("screendump", &json!({"filename": path, "format": "png"}))?;
        Image::read(&path)
    }
}
