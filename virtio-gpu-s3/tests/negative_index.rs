// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The index of others' defects: each has tests that exist.

use std::collections::BTreeSet;
use std::env;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    group: Vec<Group>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    title: String,
    defect: Vec<Defect>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Defect {
    id: String,
    who: String,
    what: String,
    tests: Vec<String>,
}

fn crate_directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn index() -> Index {
    let text = fs::read_to_string(crate_directory().join("tests/negative.toml"));
    toml::from_str(&text.unwrap()).unwrap()
}

/// The names of all tests below a directory, also of those for features that are off.
fn tests_in(directory: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests_in(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let mut marked = false;
            for line in text.lines().map(str::trim) {
                if let Some(rest) = line.strip_prefix("fn ").filter(|_| marked) {
                    let name = rest.split(['(', '<']).next().unwrap();
                    names.insert(name.to_owned());
                }
                marked = line == "#[test]" || (marked && line.starts_with("#["));
            }
        }
    }
}

fn render(index: &Index) -> String {
    let mut text = String::from(
        "# Defects that others shipped\n\n\
         Generated from `virtio-gpu-s3/tests/negative.toml`; run the crate's tests with `UPDATE_DOCS=1` to renew it.\n",
    );
    for Group { title, defect } in &index.group {
        write!(
            text,
            "\n## {title}\n\n| where | what | shown by |\n|---|---|---|\n"
        )
        .unwrap();
        for Defect {
            id,
            who,
            what,
            tests,
        } in defect
        {
            let names: Vec<_> = tests.iter().map(|test| format!("`{test}`")).collect();
            let shown = names.join("<br>");
            writeln!(text, "| {who}: {id} | {what} | {shown} |").unwrap();
        }
    }
    text
}

#[test]
fn every_defect_names_tests_that_exist() {
    let mut tests = BTreeSet::new();
    for member in ["", "cross-domain", "rutabaga"] {
        for directory in ["src", "tests"] {
            tests_in(&crate_directory().join(member).join(directory), &mut tests);
        }
    }
    assert!(tests.len() > 150, "the sources were searched");
    let mut seen = BTreeSet::new();
    for defect in index().group.iter().flat_map(|group| &group.defect) {
        assert!(!defect.tests.is_empty(), "{} has no test", defect.id);
        assert!(seen.insert(defect.id.clone()), "{} twice", defect.id);
        for name in &defect.tests {
            assert!(tests.contains(name), "{}: no test {name}", defect.id);
        }
    }
    assert_eq!(
        seen.len(),
        45,
        "rows are added, and taken away with a reason"
    );
}

#[test]
fn the_page_is_what_the_index_says() {
    let page = crate_directory().join("../docs/gpu-negative.md");
    let rendered = render(&index());
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&page, &rendered).unwrap();
    }
    assert_eq!(fs::read_to_string(&page).unwrap_or_default(), rendered);
}
