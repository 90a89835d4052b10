// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest, its host and their accesses and events in any order; every invariant is checked after each.

#![no_main]

use libfuzzer_sys::fuzz_target;
use virtio_pci_freeze::test_utils::Program;

fuzz_target!(|bytes: &[u8]| {
    Program::decode(bytes).run();
});
