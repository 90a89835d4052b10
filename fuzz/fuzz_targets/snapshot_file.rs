// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Any file as a snapshot, and any text as the one in it: it is refused, or it becomes a device that is written and read
//! as it is.

#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use virtio_gpu_s3::saved_state::SavedGpu;
use virtio_gpu_s3::{Gpu, NullRenderer};
use virtio_gpu_s3_testing::config;
use virtio_gpu_snapshot::{Snapshot, Writer, read_gpu, write_gpu};

fuzz_target!(|bytes: &[u8]| {
    // A text's pixels are in it: no checksum keeps the fuzzer from what is behind one.
    let saved = if bytes.first() == Some(&b'{') {
        serde_json::from_slice(bytes).ok()
    } else {
        read(bytes)
    };
    let Some(saved) = saved else {
        return;
    };
    let Ok(gpu) = Gpu::restore(config(2, 16, 16), Box::new(NullRenderer), saved) else {
        return;
    };
    gpu.assert_consistent();
    let mut writer = Writer::new(Cursor::new(Vec::new())).unwrap();
    write_gpu(&mut writer, &gpu).unwrap();
    let file = writer.finish().unwrap().into_inner();
    assert_eq!(read(&file), gpu.save().ok());
});

fn read(file: &[u8]) -> Option<SavedGpu> {
    let mut snapshot = Snapshot::open(Cursor::new(file)).ok()?;
    read_gpu(&mut snapshot).ok()
}
