// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest's proxies and the host's compositor: streams, messages with files, pipes, sleeps and ends in any order; every
//! invariant is checked after each, and the process's open files with them.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use signal_hook::consts::SIGPIPE;
use signal_hook::flag::register;
use virtio_gpu_s3_testing::run_channels;

fuzz_target!(
    init: {
        // As in every program with a `main` of Rust's: a pipe's reader may end at any time.
        register(SIGPIPE, Arc::default()).unwrap();
    },
    |bytes: &[u8]| {
        run_channels(bytes);
    }
);
