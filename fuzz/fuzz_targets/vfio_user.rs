// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A VMM's messages with files: maps, interrupts, accesses, lengths that lie, files that are cut short; every invariant
//! is checked after each.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vfio_user_device::test_utils::run_messages;

fuzz_target!(|bytes: &[u8]| {
    run_messages(bytes);
});
