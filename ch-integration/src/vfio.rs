// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device as a vfio-user PCI server, for VMMs that need no change.

use std::path::Path;
use std::sync::Arc;

use host_util::log_source::{GUEST, VMM};
use host_util::socket::Listener;
use vfio_bindings::bindings::vfio::{VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_NUM_REGIONS};
use vfio_user_device::{
    Access, Answer, Device, DeviceInfo, DmaMemory, Goodbye, Interrupts, IrqChange, MemoryChange,
    ReadAnswer,
};
use virtio_pci_freeze::CONFIG_SPACE_SIZE;

use crate::device::GpuDevice;
use crate::function::IRQS;

pub use vfio_user_device::ServeError;

/// Serves one VMM after the other on `listener`. What breaks a connection ends that connection.
///
/// # Errors
/// A [`ServeError`] says why nobody can be served. It returns for no other reason.
pub fn serve(listener: impl Into<Listener>, device: &Arc<GpuDevice>) -> Result<(), ServeError> {
    serve_with(listener, device, |_| {})
}

/// The same. `leaving` is called when a VMM is gone, with the device as its guest left it.
///
/// # Errors
/// As [`serve`] has them.
pub fn serve_with(
    listener: impl Into<Listener>,
    device: &Arc<GpuDevice>,
    leaving: impl Fn(&GpuDevice),
) -> Result<(), ServeError> {
    let info = DeviceInfo {
        regions: regions(device),
        irqs: IRQS,
    };
    let mut backend = Backend {
        device: device.clone(),
        leaving,
    };
    vfio_user_device::serve(listener, &info, &mut backend)
}

fn regions(device: &GpuDevice) -> [u64; VFIO_PCI_NUM_REGIONS as usize] {
    let mut regions = [0; VFIO_PCI_NUM_REGIONS as usize];
    for (index, size) in (0..).zip(&mut regions) {
        *size = match index {
            VFIO_PCI_CONFIG_REGION_INDEX => CONFIG_SPACE_SIZE as u64,
            _ => bar(index).map_or(0, |bar| device.bar_size(bar)),
        };
    }
    regions
}

/// Region indices 0 to 5 are the BARs.
fn bar(region: u32) -> Option<u8> {
    u8::try_from(region).ok().filter(|&bar| bar < 6)
}

struct Backend<F> {
    device: Arc<GpuDevice>,
    leaving: F,
}

impl<F: Fn(&GpuDevice)> Device for Backend<F> {
    fn connected(&mut self) {
        self.device.connected();
    }

    fn disconnected(&mut self, goodbye: Goodbye) {
        (self.leaving)(&self.device);
        self.device.disconnected();
        drop(goodbye);
    }

    fn read(&mut self, access: Access, mut answer: ReadAnswer) {
        let data = answer.data();
        if access.region == VFIO_PCI_CONFIG_REGION_INDEX {
            if let Ok(offset) = u16::try_from(access.offset) {
                self.device.read_config(offset, data);
            }
        } else if let Some(bar) = bar(access.region) {
            self.device.read_bar(bar, access.offset, data);
        }
        answer.done();
    }

    fn write(&mut self, access: Access, data: &[u8], answer: Answer) {
        if access.region == VFIO_PCI_CONFIG_REGION_INDEX {
            if let Ok(offset) = u16::try_from(access.offset) {
                GUEST.debug(format_args!("config write {offset:#x} {data:02x?}"));
                self.device.write_config(offset, data);
            }
        } else if let Some(bar) = bar(access.region) {
            self.device.write_bar(bar, access.offset, data);
        }
        answer.done();
    }

    fn reset(&mut self, answer: Answer) {
        VMM.debug(format_args!("device reset"));
        self.device.function_reset();
        answer.done();
    }

    fn set_memory(&mut self, memory: &DmaMemory, change: MemoryChange, answer: Answer) {
        (self.device).change_memory(memory, change, Box::new(|| answer.done()));
    }

    fn with_interrupts(&mut self, change: &mut dyn FnMut(&mut Interrupts) -> IrqChange) {
        self.device.with_interrupts(change);
    }
}

/// Says on the log where the device can be reached.
pub fn announce(path: &Path) {
    VMM.info(format_args!("vfio-user: listening on '{}'", path.display()));
}
