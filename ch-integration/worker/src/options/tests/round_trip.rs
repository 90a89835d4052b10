// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a text says is said by JSON, and made by the device; and so it is for any text that is one.

use std::env;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::select;
use proptest::{collection, option};

use super::*;
use crate::options::key::{Key, Kind};
use crate::options::table::all;

/// What the fuzzer `options` starts from.
const SEEDS: [(&str, &str); 6] = [
    (
        "all",
        "outputs=2,width=640,height=480,max_blobs=4K,freeze=off,control=/c,id=g,pci_segment=1,pci_device_id=2",
    ),
    (
        "json",
        r#"{"width":640,"hostmem":null,"backend":"2d","freeze":true,"limits":{"max_fences":8},"id":"gpu0"}"#,
    ),
    ("layout", "backend=2d,venus=off,freeze=on,layout=tail"),
    ("socket", "socket=/run/gpu.sock,id=gpu0"),
    (
        "wayland",
        "wayland=/run/wayland-0,hostmem=64M,max_channels=2",
    ),
    ("wrong", "width,=,width=1T,hostmem=3M,layout=head,depth=8"),
];

/// What `fuzz/fuzz_targets/options.rs` does with any bytes.
fn run(text: &str) {
    if let Ok(option) = text.parse::<GpuOption>() {
        option.gpu_config().unwrap();
    }
    if let Ok(option) = text.parse::<VmmGpuOption>() {
        let json = serde_json::to_string(&option).unwrap();
        let read: VmmGpuOption = serde_json::from_str(&json).unwrap();
        assert_eq!(read, option);
        read.check().unwrap();
    }
    if let Ok(option) = serde_json::from_str::<VmmGpuOption>(text) {
        let json = serde_json::to_string(&option).unwrap();
        assert_eq!(serde_json::from_str::<VmmGpuOption>(&json).unwrap(), option);
    }
}

/// Values near a key's bounds, right and wrong.
fn values(key: &Key) -> Vec<String> {
    let near = |least: u64, most: u64| {
        let numbers = [
            least.saturating_sub(1),
            least,
            least + 1,
            most - 1,
            most,
            most + 1,
        ];
        numbers.map(|number| number.to_string()).to_vec()
    };
    let mut values: Vec<String> = ["", "0", "x", "1T", "on", "18446744073709551615G"]
        .map(Into::into)
        .to_vec();
    values.extend(match key.kind {
        Kind::Number { least, most, .. } => near(least.into(), most.into()),
        Kind::Size { least, most } | Kind::Limit { least, most } => near(least, most),
        Kind::Switch | Kind::Word { .. } => key.kind.form().split('|').map(Into::into).collect(),
        Kind::Path | Kind::Foreign => vec!["/x".into()],
    });
    values
}

fn pair() -> impl Strategy<Value = String> {
    let pairs = all().flat_map(|key| {
        values(&key)
            .into_iter()
            .map(move |value| format!("{}={value}", key.name))
    });
    select(pairs.collect::<Vec<_>>())
}

proptest! {
    #[test]
    fn what_is_allowed_says_the_same_in_json_and_can_be_made(pairs in collection::vec(pair(), 0..4)) {
        run(&pairs.join(","));
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".*", key in option::of(pair())) {
        run(&format!("{text},{}", key.unwrap_or_default()));
    }
}

#[test]
fn every_key_alone_is_taken_at_its_bounds_and_refused_beyond() {
    for key in all() {
        for value in values(&key) {
            let text = format!("{}={value}", key.name);
            run(&text);
            match (key.kind, text.parse::<VmmGpuOption>()) {
                (Kind::Foreign, taken) => assert_eq!(taken, Ok(VmmGpuOption::default())),
                (kind, Ok(_)) => assert!(kind.read(&value).is_some(), "{text}"),
                (_, Err(OptionError::Needs { .. })) => {}
                (kind, Err(error)) => {
                    assert!(kind.read(&value).is_none(), "{text}");
                    assert!(
                        error
                            .to_string()
                            .starts_with(&format!("'{text}' is not allowed; "))
                    );
                }
            }
        }
    }
}

/// `UPDATE_SEEDS=1` writes them anew.
#[test]
fn the_fuzzers_seeds_are_these_and_all_but_the_wrong_one_are_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let mut seeds = root.map(|directory| directory.join("fuzz/seeds"));
    let directory = seeds.find(|seeds| seeds.exists()).unwrap().join("options");
    if env::var_os("UPDATE_SEEDS").is_some() {
        fs::create_dir_all(&directory).unwrap();
        for (name, text) in SEEDS {
            fs::write(directory.join(name), text).unwrap();
        }
    }
    for (name, text) in SEEDS {
        let kept = fs::read_to_string(directory.join(name)).unwrap_or_default();
        assert_eq!(kept, text, "options/{name}: run with UPDATE_SEEDS=1");
        let json = serde_json::from_str::<VmmGpuOption>(text);
        assert_eq!(json.is_ok(), name == "json");
        assert_eq!(
            text.parse::<VmmGpuOption>().is_ok() || json.is_ok(),
            name != "wrong"
        );
    }
    assert_eq!(fs::read_dir(&directory).unwrap().count(), SEEDS.len());
}
