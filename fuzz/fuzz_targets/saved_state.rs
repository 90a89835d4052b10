// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A saved state with fields changed: it is refused, or what it becomes keeps every invariant from then on.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../virtio-pci-freeze/tests/model/patched.rs"]
mod patched;

fuzz_target!(|bytes: &[u8]| {
    patched::restore_and_go_on(bytes);
});
