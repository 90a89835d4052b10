// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Our device in this process, behind its PCI function, with its worker.

use std::sync::Arc;

use anyhow::Result;
use ch_integration::GpuDevice;
use virtio_gpu_s3::Image;
use virtio_gpu_worker::{Controlled, DeviceOptions, RendererPlace};
use virtio_pci_freeze::{BarLayout, HoldSources, Layout, Retention};

use crate::pci::PciFunction;
use crate::ram::Ram;

/// The control queue's doorbell.
pub(super) const DOORBELL: u64 = 0x3000;

struct Function {
    device: Arc<GpuDevice>,
}

/// Everything on, as in the server.
pub(super) fn start(ram: &mut Ram, option: &str) -> Result<Box<dyn PciFunction>> {
    let device = GpuDevice::new(&DeviceOptions {
        gpu: option.parse()?,
        renderer: RendererPlace::default(),
        retention: Retention::On {
            sources: HoldSources::ALL,
            no_soft_reset: true,
        },
        layout: Layout::Seed,
    })?;
    device.replace_memory(ram.memory().clone());
    Ok(Box::new(Function {
        device: Arc::new(device),
    }))
}

impl PciFunction for Function {
    fn write_config(&mut self, offset: u8, data: &[u8]) -> Result<()> {
        self.device.write_config(offset.into(), data);
        Ok(())
    }

    fn read_common(&mut self, offset: u8, data: &mut [u8]) -> Result<()> {
        self.device.read_bar(BarLayout::VIRTIO, offset.into(), data);
        Ok(())
    }

    fn write_common(&mut self, offset: u8, data: &[u8]) -> Result<()> {
        self.device
            .write_bar(BarLayout::VIRTIO, offset.into(), data);
        Ok(())
    }

    fn ring(&mut self) -> Result<()> {
        self.device.write_bar(BarLayout::VIRTIO, DOORBELL, &[0, 0]);
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        Ok(())
    }

    fn picture(&mut self) -> Result<Option<Image>> {
        Ok(Some(self.device.screenshot(0, false)?.image))
    }
}
