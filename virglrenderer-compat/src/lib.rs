// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Entry points that virglrenderer gained after 0.10.4, for programs that link with it.
//!
//! rutabaga_gfx 0.1.85 calls three functions that Debian 12 (0.10.4) lacks, Debian 13 and Ubuntu
//! 24.04 in part. None is needed: one sends the library's log somewhere else, one describes a
//! texture that could not be exported anyway, one maps a blob at a given address. Each is defined
//! here, looks at run time for the library's own, and calls that where there is one. So one binary
//! does the best that the library it finds can do.
//!
//! Nothing here links with virglrenderer.
#![expect(
    unsafe_code,
    reason = "exports C functions and looks others up in the dynamic linker"
)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem;
use std::ptr::NonNull;

/// `virgl_log_callback_type`: level, message, the caller's data.
pub type LogCallback = unsafe extern "C" fn(c_int, *const c_char, *mut c_void);
/// `virgl_free_data_callback_type`.
pub type FreeCallback = unsafe extern "C" fn(*mut c_void);

type SetLogCallback = unsafe extern "C" fn(Option<LogCallback>, *mut c_void, Option<FreeCallback>);
type GetInfoExt = unsafe extern "C" fn(c_int, *mut c_void) -> c_int;
type MapFixed = unsafe extern "C" fn(u32, *mut c_void) -> c_int;

const SET_LOG_CALLBACK: &CStr = c"virgl_set_log_callback";
const GET_INFO_EXT: &CStr = c"virgl_renderer_resource_get_info_ext";
const MAP_FIXED: &CStr = c"virgl_renderer_resource_map_fixed";

/// The functions that the library in this process lacks, by name.
///
/// Calling it is what makes a linker take this crate in, before or after the crates that need it.
pub fn missing() -> Vec<&'static CStr> {
    let exported = [
        (SET_LOG_CALLBACK, virgl_set_log_callback as *const ()),
        (
            GET_INFO_EXT,
            virgl_renderer_resource_get_info_ext as *const (),
        ),
        (MAP_FIXED, virgl_renderer_resource_map_fixed as *const ()),
    ];
    let lacks = |(name, ours): (&'static CStr, *const ())| {
        let theirs = library(name).filter(|theirs| theirs.as_ptr().cast_const().cast() != ours);
        theirs.is_none().then_some(name)
    };
    exported.into_iter().filter_map(lacks).collect()
}

/// True if the dynamic linker finds this library. It stays loaded: this is for libraries about to
/// be used, and asked for because libepoxy ends the process where one of its is missing.
pub fn is_loadable(library: &CStr) -> bool {
    // SAFETY: the name ends in NUL; initialisers of graphics libraries have no preconditions.
    let handle = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_LAZY) };
    !handle.is_null()
}

/// The library's own definition: the next one after this.
fn library(name: &CStr) -> Option<NonNull<c_void>> {
    // SAFETY: the name ends in NUL.
    NonNull::new(unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) })
}

/// Sends the library's log to `callback`. Without it, messages go to standard error.
///
/// # Safety
/// As the library says: `data` is what `callback` and `free` expect.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn virgl_set_log_callback(
    callback: Option<LogCallback>,
    data: *mut c_void,
    free: Option<FreeCallback>,
) {
    if let Some(theirs) = library(SET_LOG_CALLBACK) {
        // SAFETY: a function of that name has that type, in every version that has it.
        let theirs: SetLogCallback = unsafe { mem::transmute(theirs) };
        // SAFETY: the caller's promise is handed on.
        unsafe { theirs(callback, data, free) }
    }
}

/// Describes a texture. Without it, refuses.
///
/// # Safety
/// As the library says: `info` points to a `virgl_renderer_resource_info_ext`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn virgl_renderer_resource_get_info_ext(
    resource: c_int,
    info: *mut c_void,
) -> c_int {
    library(GET_INFO_EXT).map_or(-libc::ENOSYS, |theirs| {
        // SAFETY: a function of that name has that type, in every version that has it.
        let theirs: GetInfoExt = unsafe { mem::transmute(theirs) };
        // SAFETY: the caller's promise is handed on.
        unsafe { theirs(resource, info) }
    })
}

/// Maps a blob at `address`. Without it, refuses, and the caller maps it anywhere.
///
/// # Safety
/// As the library says: what was mapped at `address` is the caller's to lose.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn virgl_renderer_resource_map_fixed(
    resource: u32,
    address: *mut c_void,
) -> c_int {
    library(MAP_FIXED).map_or(-libc::EOPNOTSUPP, |theirs| {
        // SAFETY: a function of that name has that type, in every version that has it.
        let theirs: MapFixed = unsafe { mem::transmute(theirs) };
        // SAFETY: the caller's promise is handed on.
        unsafe { theirs(resource, address) }
    })
}

#[cfg(test)]
mod tests {
    use std::ptr::null_mut;

    use super::*;

    #[test]
    fn without_the_library_everything_is_missing_and_refuses() {
        assert_eq!(missing(), [SET_LOG_CALLBACK, GET_INFO_EXT, MAP_FIXED]);
        // SAFETY: nothing is behind these names here, so nothing is done.
        unsafe {
            virgl_set_log_callback(None, null_mut(), None);
            assert_eq!(
                virgl_renderer_resource_get_info_ext(1, null_mut()),
                -libc::ENOSYS
            );
            assert_eq!(
                virgl_renderer_resource_map_fixed(1, null_mut()),
                -libc::EOPNOTSUPP
            );
        }
    }

    #[test]
    fn a_function_that_a_library_has_is_found_behind_ours() {
        // Of libc, which every process has.
        assert!(library(c"getpid").is_some());
        assert!(library(c"virgl_no_such_function").is_none());
    }

    #[test]
    fn a_library_that_is_not_there_is_not_loadable() {
        assert!(is_loadable(c"libc.so.6"));
        assert!(!is_loadable(c"libvirgl-no-such-library.so.0"));
    }
}
