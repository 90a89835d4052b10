// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device as a vfio-user PCI server, for VMMs that need no change.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Error as IoError;
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use log::{debug, info, warn};
use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_INFO_EVENTFD, VFIO_IRQ_INFO_NORESIZE, VFIO_PCI_CONFIG_REGION_INDEX,
    VFIO_PCI_MSIX_IRQ_INDEX, VFIO_PCI_NUM_IRQS, VFIO_PCI_NUM_REGIONS, VFIO_REGION_INFO_FLAG_READ,
    VFIO_REGION_INFO_FLAG_WRITE, vfio_region_info,
};
use vfio_user::{DmaMapFlags, DmaUnmapFlags, IrqInfo, Server, ServerBackend, ServerRegion};
use virtio_pci_freeze::CONFIG_SPACE_SIZE;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap};

use crate::device::GpuDevice;
use crate::function::VECTORS;
use host_util::memory_file::is_too_short;

/// Serves one VMM after the other on `listener`, for ever. What breaks a connection ends that connection.
pub fn serve(listener: UnixListener, device: &Arc<GpuDevice>) {
    serve_with(listener, device, |_| {});
}

/// The same. `leaving` is called when a VMM is gone, with the device as its guest left it.
pub fn serve_with(listener: UnixListener, device: &Arc<GpuDevice>, leaving: impl Fn(&GpuDevice)) {
    let server = Server::from_owned_fd(listener.into(), true, irqs(), regions(device));
    loop {
        let mut backend = Backend {
            device: device.clone(),
            regions: BTreeMap::new(),
            attached: false,
        };
        // The protocol crate panics on some malformed messages; that is the client's loss, not the device's.
        let result = catch_unwind(AssertUnwindSafe(|| server.run(&mut backend)));
        match result {
            Ok(Ok(())) => debug!("The VMM closed its connection"),
            Ok(Err(error)) => warn!("The connection to the VMM broke: {error}"),
            Err(_) => warn!("The connection to the VMM broke: malformed message"),
        }
        leaving(device);
        device.disconnected();
    }
}

const REGION_INFO_SIZE: u32 = 32;
const _: () = assert!(size_of::<vfio_region_info>() == REGION_INFO_SIZE as usize);

fn irqs() -> Vec<IrqInfo> {
    (0..VFIO_PCI_NUM_IRQS)
        .map(|index| {
            let is_msix = index == VFIO_PCI_MSIX_IRQ_INDEX;
            IrqInfo {
                index,
                flags: VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_NORESIZE,
                count: if is_msix { VECTORS.into() } else { 0 },
            }
        })
        .collect()
}

fn regions(device: &GpuDevice) -> Vec<ServerRegion> {
    (0..VFIO_PCI_NUM_REGIONS)
        .map(|index| {
            let size = match index {
                VFIO_PCI_CONFIG_REGION_INDEX => CONFIG_SPACE_SIZE as u64,
                _ => bar(index).map_or(0, |bar| device.bar_size(bar)),
            };
            let flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
            let region_info = vfio_region_info {
                argsz: REGION_INFO_SIZE,
                flags: if size == 0 { 0 } else { flags },
                index,
                size,
                ..Default::default()
            };
            ServerRegion {
                region_info,
                sparse_areas: Vec::new(),
                mmap_fd: None,
            }
        })
        .collect()
}

/// Region indices 0 to 5 are the BARs.
fn bar(region: u32) -> Option<u8> {
    u8::try_from(region).ok().filter(|&bar| bar < 6)
}

/// One VMM's connection.
///
/// No method returns an error, whatever the request: the clients of this protocol do not look for one in the answer to
/// a read and would wait for bytes that never come.
struct Backend {
    device: Arc<GpuDevice>,
    regions: BTreeMap<u64, Arc<GuestRegionMmap>>,
    attached: bool,
}

impl Backend {
    fn attach(&mut self) {
        if !self.attached {
            self.attached = true;
            self.device.connected();
        }
    }

    fn rebuild_memory(&self) {
        let regions = self.regions.values().cloned().collect();
        match GuestMemoryMmap::from_arc_regions(regions) {
            Ok(memory) => self.device.replace_memory(memory),
            Err(error) => {
                if !self.regions.is_empty() {
                    warn!("The VMM's memory map makes no sense: {error}");
                }
                self.device.replace_memory(GuestMemoryMmap::new());
            }
        }
    }

    fn map(
        &self,
        address: u64,
        size: u64,
        offset: u64,
        file: File,
    ) -> Result<Arc<GuestRegionMmap>, String> {
        if is_too_short(&file, offset, size) {
            return Err("its file is shorter than it".into());
        }
        let size = usize::try_from(size).map_err(|error| error.to_string())?;
        let region = MmapRegionBuilder::new(size)
            .with_file_offset(FileOffset::new(file, offset))
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_SHARED | libc::MAP_NORESERVE)
            .build()
            .map_err(|error| error.to_string())?;
        let region = GuestRegionMmap::new(region, GuestAddress(address))
            .ok_or("it wraps around the address space")?;
        Ok(Arc::new(region))
    }
}

impl ServerBackend for Backend {
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> Result<(), IoError> {
        self.attach();
        data.fill(0);
        if region == VFIO_PCI_CONFIG_REGION_INDEX {
            if let Ok(offset) = u16::try_from(offset) {
                self.device.read_config(offset, data);
            }
        } else if let Some(bar) = bar(region) {
            self.device.read_bar(bar, offset, data);
        }
        Ok(())
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<(), IoError> {
        self.attach();
        if region == VFIO_PCI_CONFIG_REGION_INDEX {
            if let Ok(offset) = u16::try_from(offset) {
                debug!("config write {offset:#x} {data:02x?}");
                self.device.write_config(offset, data);
            }
        } else if let Some(bar) = bar(region) {
            self.device.write_bar(bar, offset, data);
        }
        Ok(())
    }

    fn dma_map(
        &mut self,
        flags: DmaMapFlags,
        offset: u64,
        address: u64,
        size: u64,
        fd: Option<File>,
    ) -> Result<(), IoError> {
        debug!(
            "DMA map {address:#x} {size:#x} {flags:?} {}",
            if fd.is_some() { "" } else { "without an fd" }
        );
        // A range without a file, or one the device may not write, is no place for rings or framebuffers.
        let Some(file) = fd.filter(|_| flags.contains(DmaMapFlags::READ_WRITE)) else {
            return Ok(());
        };
        match self.map(address, size, offset, file) {
            Ok(region) => {
                self.regions.insert(address, region);
                self.rebuild_memory();
            }
            Err(error) => {
                warn!("Cannot map {size:#x} bytes of guest memory at {address:#x}: {error}");
            }
        }
        Ok(())
    }

    fn dma_unmap(&mut self, _flags: DmaUnmapFlags, address: u64, size: u64) -> Result<(), IoError> {
        debug!("DMA unmap {address:#x} {size:#x}");
        let end = address.saturating_add(size);
        let before = self.regions.len();
        self.regions
            .retain(|&start, _| start < address || start >= end);
        if self.regions.len() != before {
            self.rebuild_memory();
        }
        Ok(())
    }

    fn reset(&mut self) -> Result<(), IoError> {
        debug!("device reset");
        self.device.function_reset();
        Ok(())
    }

    fn set_irqs(
        &mut self,
        index: u32,
        flags: u32,
        start: u32,
        count: u32,
        fds: Vec<File>,
    ) -> Result<(), IoError> {
        debug!(
            "set irqs {index} flags {flags:#x} start {start} count {count} fds {}",
            fds.len()
        );
        if index != VFIO_PCI_MSIX_IRQ_INDEX {
            return Ok(());
        }
        // A count of 0 takes every vector away; a vector without an eventfd loses its own.
        let (start, count) = if count == 0 {
            (0, VECTORS.into())
        } else {
            (start, count)
        };
        let mut fds = fds.into_iter();
        for vector in (start..).take(usize::try_from(count.min(VECTORS.into())).unwrap_or(0)) {
            if let Ok(vector) = u16::try_from(vector) {
                self.device.connect_vector(vector, fds.next());
            }
        }
        Ok(())
    }
}

/// Says on the log where the device can be reached.
pub fn announce(path: &Path) {
    info!("vfio-user: listening on '{}'", path.display());
}
