// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `docs/options.md`, which is made of the table.

use std::env;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::options::key::{Key, Owner};
use crate::options::table::all;

const INTRODUCTION: &str = "\
# Keys of `--gpu`

This page is made of the table in the code (`UPDATE_DOCS=1 cargo test reference`), and a test compares them.

`--gpu KEY=VALUE,...` gives each key at most once. SIZE is a number of bytes; it and the limits may end in K, M or G for
powers of 1024. In the JSON of a VMM's API the keys have the same names: a switch is `true` or `false`, a number or SIZE
a number, and the limits stand in an object `limits`. What is left out has its default, and a key that does not exist is
refused.
";

const SECTIONS: [(Owner, &str); 4] = [
    (Owner::Gpu, "The GPU, in the server and in a VMM"),
    (Owner::Vmm, "A VMM's `--gpu` alone"),
    (Owner::Bus, "Left to the VMM's own parser"),
    (Owner::Limit, "Limits: what a guest may make the host hold"),
];

fn row(key: &Key) -> String {
    let (name, usual, help) = (key.name, key.usual(), key.help);
    let values = key.kind.values().replace('|', "\\|");
    let needs = match key.needed().as_str() {
        "" => String::new(),
        needed => format!(
            "`{}`",
            needed.replace(" or ", "` or `").replace(" and ", "` and `")
        ),
    };
    match key.owner {
        Owner::Limit => format!("| `{name}` | {values} | {usual} | {help} |\n"),
        _ => format!("| `{name}` | {values} | {usual} | {needs} | {help} |\n"),
    }
}

fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for (owner, title) in SECTIONS {
        let head = match owner {
            Owner::Limit => "| Limit | Values | Default | |\n|---|---|---|---|",
            _ => "| Key | Values | Default | Needs | |\n|---|---|---|---|---|",
        };
        write!(page, "\n## {title}\n\n{head}\n").unwrap();
        all()
            .filter(|key| key.owner == owner)
            .for_each(|key| page.push_str(&row(&key)));
    }
    page
}

#[test]
fn the_reference_page_says_what_the_table_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let mut docs = root.map(|directory| directory.join("docs"));
    let file = docs
        .find(|docs| docs.join("design.md").exists())
        .unwrap()
        .join("options.md");
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&file, page()).unwrap();
    }
    assert_eq!(
        fs::read_to_string(file).unwrap_or_default(),
        page(),
        "run with UPDATE_DOCS=1"
    );
}
