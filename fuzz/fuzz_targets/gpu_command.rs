// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Any requests on a GPU's rings, and any streams of virgl; every invariant is checked after each.

#![no_main]

use libfuzzer_sys::fuzz_target;
use virtio_gpu_s3_testing::run_requests;

fuzz_target!(|bytes: &[u8]| {
    run_requests(bytes);
});
