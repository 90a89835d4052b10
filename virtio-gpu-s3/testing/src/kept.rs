// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What fuzzers start from, kept as files. `UPDATE_SEEDS=1` writes them anew.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

fn directory(target: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("../../fuzz/seeds").join(target)
}

/// The files hold these seeds and no others; or with `UPDATE_SEEDS`, from now on they do.
pub fn check(target: &str, seeds: &[(&str, Vec<u8>)]) {
    let directory = directory(target);
    if env::var_os("UPDATE_SEEDS").is_some() {
        fs::create_dir_all(&directory).unwrap();
        for (name, bytes) in seeds {
            fs::write(directory.join(name), bytes).unwrap();
        }
    }
    for (name, bytes) in seeds {
        let kept = fs::read(directory.join(name)).unwrap_or_default();
        assert_eq!(&kept, bytes, "{target}/{name}: run with UPDATE_SEEDS=1");
    }
    assert_eq!(fs::read_dir(&directory).unwrap().count(), seeds.len());
}
