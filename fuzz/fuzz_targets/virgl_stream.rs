// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest's virgl streams: what is decoded and encoded is the same, and what a shadow makes again has the same shadow.

#![no_main]

use libfuzzer_sys::fuzz_target;
use virgl_stream::test_utils::{program, run};

fuzz_target!(|bytes: &[u8]| {
    run(&program(bytes));
});
