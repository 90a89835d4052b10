// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's libgbm, loaded by name: the host that builds this program need not have it.
#![expect(unsafe_code, reason = "a C library has no safe form")]

use std::ffi::c_void;
use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

use drm::buffer::{Buffer, DrmFourcc, Handle};
use drm::control::RawResourceHandle;
use libloading::{Library, Symbol};

use crate::error::{Error, Result};

const NAME: &str = "libgbm.so.1";
/// GBM_BO_USE_SCANOUT and GBM_BO_USE_RENDERING.
const SCANOUT_AND_RENDERING: u32 = 1 << 0 | 1 << 2;

type Object = NonNull<c_void>;

/// `union gbm_bo_handle`, of which KMS takes the 32-bit number.
#[repr(C)]
#[derive(Clone, Copy)]
union BoHandle {
    number: u32,
    whole: u64,
}

#[derive(Debug, Clone, Copy)]
struct Functions {
    device_destroy: unsafe extern "C" fn(Object),
    surface_destroy: unsafe extern "C" fn(Object),
    surface_lock_front_buffer: unsafe extern "C" fn(Object) -> Option<Object>,
    surface_release_buffer: unsafe extern "C" fn(Object, Object),
    bo_get_handle: unsafe extern "C" fn(Object) -> BoHandle,
    bo_get_stride: unsafe extern "C" fn(Object) -> u32,
}

/// Buffers that OpenGL draws to and KMS shows.
#[derive(Debug)]
pub(crate) struct Surface {
    functions: Functions,
    device: Object,
    surface: Object,
    size: (u32, u32),
    _card: File,
    // Last: the functions above are its.
    _library: Library,
}

/// The buffer drawn last, kept from being drawn to again.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FrontBuffer {
    object: Object,
    handle: Handle,
    stride: u32,
    size: (u32, u32),
}

impl Surface {
    /// Buffers of `size` pixels, XRGB8888, on an open card.
    pub(crate) fn new(card: BorrowedFd<'_>, size: (u32, u32)) -> Result<Self> {
        let card = File::from(
            card.try_clone_to_owned()
                .map_err(Error::kms("clone card"))?,
        );
        // SAFETY: the library is Mesa's; its initialisers have no requirements.
        let library = unsafe { Library::new(NAME) }?;
        // SAFETY: the types are those of gbm.h.
        let (functions, create_device, create_surface) = unsafe {
            (
                functions(&library)?,
                symbol::<unsafe extern "C" fn(i32) -> Option<Object>>(
                    &library,
                    "gbm_create_device",
                )?,
                symbol::<unsafe extern "C" fn(Object, u32, u32, u32, u32) -> Option<Object>>(
                    &library,
                    "gbm_surface_create",
                )?,
            )
        };
        // SAFETY: the descriptor is open, and stays so as long as the device.
        let device = unsafe { create_device(card.as_raw_fd()) };
        let device = device.ok_or(Error::Gbm("a device"))?;
        let format = DrmFourcc::Xrgb8888 as u32;
        // SAFETY: the device was made above.
        let surface =
            unsafe { create_surface(device, size.0, size.1, format, SCANOUT_AND_RENDERING) };
        Ok(Self {
            functions,
            device,
            surface: surface.ok_or(Error::Gbm("a surface"))?,
            size,
            _card: card,
            _library: library,
        })
    }

    /// `struct gbm_device`, EGL's native display.
    pub(crate) fn device(&self) -> *mut c_void {
        self.device.as_ptr()
    }

    /// `struct gbm_surface`, EGL's native window.
    pub(crate) fn window(&self) -> *mut c_void {
        self.surface.as_ptr()
    }

    /// Takes the buffer that was swapped last.
    pub(crate) fn lock_front(&self) -> Result<FrontBuffer> {
        // SAFETY: buffers were swapped, and no buffer is used after its surface.
        let object = unsafe { (self.functions.surface_lock_front_buffer)(self.surface) };
        let object = object.ok_or(Error::Gbm("a front buffer"))?;
        // SAFETY: the buffer is locked.
        let (handle, stride) = unsafe {
            (
                (self.functions.bo_get_handle)(object).number,
                (self.functions.bo_get_stride)(object),
            )
        };
        let handle =
            Handle::from(RawResourceHandle::new(handle).ok_or(Error::Gbm("a buffer's handle"))?);
        Ok(FrontBuffer {
            object,
            handle,
            stride,
            size: self.size,
        })
    }

    /// Gives a buffer back that is not shown any more.
    pub(crate) fn release(&self, buffer: &FrontBuffer) {
        // SAFETY: the buffer was locked on this surface.
        unsafe { (self.functions.surface_release_buffer)(self.surface, buffer.object) };
    }
}

impl Drop for Surface {
    fn drop(&mut self) {
        // SAFETY: nothing else knows these, and EGL's window and display went before.
        unsafe {
            (self.functions.surface_destroy)(self.surface);
            (self.functions.device_destroy)(self.device);
        }
    }
}

impl Buffer for FrontBuffer {
    fn size(&self) -> (u32, u32) {
        self.size
    }

    fn format(&self) -> DrmFourcc {
        DrmFourcc::Xrgb8888
    }

    fn pitch(&self) -> u32 {
        self.stride
    }

    fn handle(&self) -> Handle {
        self.handle
    }
}

/// # Safety
/// `T` is the type of the function `name`.
unsafe fn symbol<'library, T>(
    library: &'library Library,
    name: &str,
) -> Result<Symbol<'library, T>> {
    // SAFETY: the caller vouches for it.
    Ok(unsafe { library.get(name.as_bytes()) }?)
}

/// # Safety
/// The library is libgbm, and outlives what this gives.
unsafe fn functions(library: &Library) -> Result<Functions> {
    // SAFETY: the types are those of gbm.h.
    unsafe {
        Ok(Functions {
            device_destroy: *symbol(library, "gbm_device_destroy")?,
            surface_destroy: *symbol(library, "gbm_surface_destroy")?,
            surface_lock_front_buffer: *symbol(library, "gbm_surface_lock_front_buffer")?,
            surface_release_buffer: *symbol(library, "gbm_surface_release_buffer")?,
            bo_get_handle: *symbol(library, "gbm_bo_get_handle")?,
            bo_get_stride: *symbol(library, "gbm_bo_get_stride")?,
        })
    }
}
