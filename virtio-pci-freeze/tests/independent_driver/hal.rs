// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the independent driver needs of its platform.

#![expect(unsafe_code, reason = "the driver's platform trait is an unsafe one")]

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use crate::trap::with_host;

/// Bytes of guest memory. Pages are handed out once and never reused: a stale address would be noticed.
const MEMORY: usize = 16 << 20;

static NEXT: AtomicU64 = AtomicU64::new(0x1000);
/// Buffers that are shared, as (address, page).
static SHARED: Mutex<Vec<PhysAddr>> = Mutex::new(Vec::new());

/// The memory that the guest and its device share.
pub(crate) fn memory() -> &'static GuestMemoryMmap {
    static GUEST: OnceLock<GuestMemoryMmap> = OnceLock::new();
    GUEST
        .get_or_init(|| GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).expect("memory"))
}

fn host_pointer(address: PhysAddr) -> NonNull<u8> {
    let pointer = memory().get_host_address(GuestAddress(address));
    NonNull::new(pointer.expect("guest memory")).expect("not null")
}

fn pages(count: usize) -> PhysAddr {
    NEXT.fetch_add((count * PAGE_SIZE) as u64, Ordering::Relaxed)
}

#[derive(Debug)]
pub(crate) struct TestHal;

// SAFETY: every page of the guest's memory is handed out once, zeroed and page-aligned, and lives as long as the process.
unsafe impl Hal for TestHal {
    fn dma_alloc(count: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let address = pages(count);
        (address, host_pointer(address))
    }

    unsafe fn dma_dealloc(_address: PhysAddr, _pointer: NonNull<u8>, _pages: usize) -> i32 {
        0
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, _size: usize) -> NonNull<u8> {
        // BARs are placed where the trap's memory is.
        NonNull::new(address as *mut u8).expect("not null")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _direction: BufferDirection) -> PhysAddr {
        let length = buffer.len();
        let address = pages(length.div_ceil(PAGE_SIZE));
        // SAFETY: the caller's buffer is valid for its length, and the pages are ours alone.
        unsafe {
            ptr::copy_nonoverlapping(
                buffer.as_ptr().cast(),
                host_pointer(address).as_ptr(),
                length,
            );
        }
        SHARED.lock().expect("lock").push(address);
        address
    }

    unsafe fn unshare(address: PhysAddr, buffer: NonNull<[u8]>, direction: BufferDirection) {
        let mut shared = SHARED.lock().expect("lock");
        let at = shared.iter().position(|&a| a == address).expect("shared");
        shared.swap_remove(at);
        if direction != BufferDirection::DriverToDevice {
            // SAFETY: the caller's buffer is valid for its length, and so is what it was shared as.
            unsafe {
                let from = host_pointer(address).as_ptr();
                ptr::copy_nonoverlapping(from, buffer.as_ptr().cast(), buffer.len());
            }
        }
    }
}

/// A bus with one function, at 00:00.0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bus;

impl ConfigurationAccess for Bus {
    fn read_word(&self, function: DeviceFunction, offset: u8) -> u32 {
        if (function.device, function.function) == (0, 0) {
            with_host(|host| host.read_config(offset.into()))
        } else {
            u32::MAX
        }
    }

    fn write_word(&mut self, _function: DeviceFunction, offset: u8, data: u32) {
        with_host(|host| host.write_config(offset.into(), data));
    }

    unsafe fn unsafe_clone(&self) -> Self {
        *self
    }
}
