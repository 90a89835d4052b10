// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Our device as a server in a process of its own, driven through vfio-user.

use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Context, Result};
use vfio_user::Client;
use virtio_gpu_s3::Image;
use virtio_pci_freeze::BarLayout;

use super::in_process::DOORBELL;
use crate::pci::PciFunction;
use crate::process::Process;
use crate::ram::{Ram, SIZE};

/// PCI configuration space, among vfio's regions.
const CONFIG: u32 = 7;

const PROTOCOL: &str = "vfio-user";

struct Function {
    client: Client,
    _server: Process,
}

pub(super) fn start(ram: &mut Ram, program: &Path, option: &str) -> Result<Box<dyn PciFunction>> {
    let mut server = Process::start(program, |socket| {
        let socket = socket.display().to_string();
        ["--socket", &socket, "--gpu", option, "--log-level", "warn"]
            .map(str::to_owned)
            .to_vec()
    })?;
    server.wait_for_socket()?;
    let mut client = Client::new(&server.socket()).context(PROTOCOL)?;
    client
        .dma_map(0, 0, SIZE, ram.file().as_raw_fd())
        .context(PROTOCOL)?;
    Ok(Box::new(Function {
        client,
        _server: server,
    }))
}

impl PciFunction for Function {
    fn write_config(&mut self, offset: u8, data: &[u8]) -> Result<()> {
        let written = self.client.region_write(CONFIG, offset.into(), data);
        written.context(PROTOCOL)
    }

    fn read_common(&mut self, offset: u8, data: &mut [u8]) -> Result<()> {
        let read = self
            .client
            .region_read(BarLayout::VIRTIO.into(), offset.into(), data);
        read.context(PROTOCOL)
    }

    fn write_common(&mut self, offset: u8, data: &[u8]) -> Result<()> {
        let written = self
            .client
            .region_write(BarLayout::VIRTIO.into(), offset.into(), data);
        written.context(PROTOCOL)
    }

    fn ring(&mut self) -> Result<()> {
        let written = self
            .client
            .region_write(BarLayout::VIRTIO.into(), DOORBELL, &[0, 0]);
        written.context(PROTOCOL)
    }

    fn settle(&mut self) -> Result<()> {
        Ok(())
    }

    fn picture(&mut self) -> Result<Option<Image>> {
        Ok(None)
    }
}
