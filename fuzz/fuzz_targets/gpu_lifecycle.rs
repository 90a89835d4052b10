// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A GPU's guest and host: commands, freezes, resets, sleeps, failures and moves in any order; every invariant is
//! checked after each.

#![no_main]

use libfuzzer_sys::fuzz_target;
use virtio_gpu_s3_testing::run_program;

fuzz_target!(|bytes: &[u8]| {
    run_program(bytes);
});
