// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The index of the standard's clauses: each has a test that exists, or a reason why it has none.

use std::collections::BTreeSet;
use std::env;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    section: Vec<Section>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    number: String,
    title: String,
    clause: Vec<Clause>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Clause {
    says: String,
    level: String,
    #[serde(default)]
    tests: Vec<String>,
    waiver: Option<String>,
}

/// The sections that a PCI transport answers for, with the number of clauses that VIRTIO 1.4 (cs01) has in each as
/// counted by hand; an entry may stand for several clauses only where it says the same for each.
const SECTIONS: [(&str, usize); 22] = [
    ("2.1.2", 3),
    ("2.2.2", 5),
    ("2.4.1", 2),
    ("2.5.2", 1),
    ("2.6.1.1.1", 2),
    ("2.6.1.2.1", 1),
    ("2.10.2", 1),
    ("3.4.2", 9),
    ("4.1.1", 1),
    ("4.1.2.1", 5),
    ("4.1.3.2", 1),
    ("4.1.4.2", 2),
    ("4.1.4.3.1", 16),
    ("4.1.4.4.1", 4),
    ("4.1.4.5.1", 5),
    ("4.1.4.6.1", 2),
    ("4.1.4.7.1", 2),
    ("4.1.4.8.1", 1),
    ("4.1.4.9.1", 3),
    ("4.1.5.1.2.1", 9),
    ("4.1.5.3.1", 1),
    ("4.1.5.4.1", 1),
];

fn crate_directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn index() -> Index {
    let text = fs::read_to_string(crate_directory().join("tests/conformance.toml"));
    toml::from_str(&text.expect("the index")).expect("a sound index")
}

/// The names of all tests below a directory.
fn tests_in(directory: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            tests_in(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source file");
            let mut marked = false;
            for line in text.lines().map(str::trim) {
                if let Some(rest) = line.strip_prefix("fn ").filter(|_| marked) {
                    let name = rest.split(['(', '<']).next().expect("a name");
                    names.insert(name.to_owned());
                }
                marked = line == "#[test]" || (marked && line.starts_with("#["));
            }
        }
    }
}

fn tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    tests_in(&crate_directory().join("tests"), &mut names);
    names
}

fn render(index: &Index) -> String {
    let mut text = String::from(
        "# Conformance to VIRTIO 1.4\n\n\
         Generated from `virtio-pci-freeze/tests/conformance.toml`; run the crate's tests with `UPDATE_DOCS=1` to \
         renew it.\nThe wording is ours; the standard's is what counts.\n",
    );
    for Section {
        number,
        title,
        clause,
    } in &index.section
    {
        let line = "\n| level | clause | shown by |\n|---|---|---|";
        writeln!(text, "\n## {number} {title}\n{line}").expect("a string grows");
        for Clause {
            says,
            level,
            tests,
            waiver,
        } in clause
        {
            let names: Vec<_> = tests.iter().map(|test| format!("`{test}`")).collect();
            let shown = waiver
                .as_ref()
                .map_or_else(|| names.join("<br>"), |reason| format!("waived: {reason}"));
            writeln!(text, "| {level} | {says} | {shown} |").expect("a string grows");
        }
    }
    text
}

#[test]
fn every_clause_has_a_test_or_a_waiver() {
    for section in &index().section {
        for clause in &section.clause {
            let Clause {
                says,
                level,
                tests,
                waiver,
            } = clause;
            assert_ne!(
                tests.is_empty(),
                waiver.is_none(),
                "{}: {says}",
                section.number
            );
            let levels = ["MUST", "MUST NOT", "SHOULD", "SHOULD NOT"];
            assert!(levels.contains(&level.as_str()), "{level}");
            let reason = waiver.as_deref().unwrap_or("none needed");
            assert!(!says.is_empty() && reason.len() > 10, "{says}");
        }
    }
}

#[test]
fn every_test_that_a_clause_names_exists() {
    let tests = tests();
    assert!(tests.len() > 150, "the sources were searched");
    for section in index().section {
        for name in section.clause.iter().flat_map(|clause| &clause.tests) {
            assert!(tests.contains(name), "{}: no test {name}", section.number);
        }
    }
}

#[test]
fn no_clause_of_the_standard_is_left_out() {
    let found: Vec<_> = index()
        .section
        .iter()
        .map(|section| (section.number.clone(), section.clause.len()))
        .collect();
    let expected = SECTIONS.map(|(number, count)| (number.to_owned(), count));
    assert_eq!(found, expected);
}

#[test]
fn the_page_is_what_the_index_says() {
    let page = crate_directory().join("../docs/conformance.md");
    let rendered = render(&index());
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&page, &rendered).expect("written");
    }
    let kept = fs::read_to_string(&page).expect("docs/conformance.md");
    assert_eq!(kept, rendered);
}
