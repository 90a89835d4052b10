// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Any text as `--gpu`, and as its JSON: it is read or refused, JSON says the same as text, and what is allowed makes a
//! device.

#![no_main]

use libfuzzer_sys::fuzz_target;
use virtio_gpu_worker::{GpuOption, VmmGpuOption};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    if let Ok(option) = text.parse::<GpuOption>() {
        option.gpu_config().unwrap();
    }
    if let Ok(option) = text.parse::<VmmGpuOption>() {
        same_in_json(&option);
        option.check().unwrap();
    }
    if let Ok(option) = serde_json::from_str::<VmmGpuOption>(text) {
        same_in_json(&option);
        if option.check().is_ok() {
            option.gpu.gpu_config().unwrap();
        }
    }
});

fn same_in_json(option: &VmmGpuOption) {
    let json = serde_json::to_string(option).unwrap();
    assert_eq!(
        &serde_json::from_str::<VmmGpuOption>(&json).unwrap(),
        option
    );
}
