// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Messages that no client sends: the fuzzer's entry, driven without a fuzzer.

use std::fs::{read, read_dir};
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use vfio_user_device::test_utils::run_messages;

/// Commands in the places where they are looked for, so that many get through.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let small = prop_oneof![4 => 0u8..8, 2 => 0x80u8..0x90, 1 => any::<u8>()];
    let fields = vec(small, 0..8);
    (any::<u8>(), fields, any::<u8>(), any::<u8>()).prop_map(|(command, fields, lie, files)| {
        let mut bytes = vec![command];
        bytes.extend(fields);
        bytes.extend([lie, files]);
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_messages_leave_every_invariant(messages in vec(message(), 0..20)) {
        run_messages(&messages.concat());
    }

    #[test]
    fn any_bytes_leave_every_invariant(bytes in vec(any::<u8>(), 0..400)) {
        run_messages(&bytes);
    }
}

#[test]
fn the_fuzzers_seeds_leave_every_invariant() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/vfio_user");
    let mut number = 0;
    for seed in read_dir(seeds).unwrap() {
        run_messages(&read(seed.unwrap().path()).unwrap());
        number += 1;
    }
    assert!(number > 0);
}
