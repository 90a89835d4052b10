// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
use patch_series::overlap::{Overlap, overlaps};

use crate::repo::{Folder, Repo};

const THEIRS: &str = "fn theirs(&self) {\n    let first = self.first();\n    \
    let second = self.second();\n    use_both(first, second);\n}\n";

/// What a commit shares with the base, where that has [`THEIRS`].
fn shared(path: &str, content: &str) -> Vec<Overlap> {
    let repo = Repo::new(&[
        ("src/a.rs", THEIRS.as_bytes()),
        ("bin", b"\0\n"),
        ("Cargo.lock", THEIRS.as_bytes()),
    ]);
    repo.write(path, content.as_bytes());
    repo.commit("misc: Change");
    let folder = Folder::new();
    folder.save(&repo, "part", "base..work").unwrap();
    let series = folder.store().load().unwrap();
    let patches = series.parts.iter().flat_map(|part| &part.patches);
    overlaps(&repo.open(), "base", patches).unwrap()
}

#[test]
fn lines_of_the_base_in_a_new_file_are_told_whatever_their_indentation() {
    let moved = THEIRS.replace("\n    ", "\n            ");
    let content = format!(
        "// A file of ours, with a comment.\n{moved}// And what follows.\n// And more that follows.\n// And the end of it.\n"
    );
    let found = shared("src/b.rs", &content);
    assert_eq!(found.len(), 1);
    let Overlap {
        path,
        lines,
        first,
        origin,
        ..
    } = &found[0];
    assert_eq!(
        (path.as_str(), *lines, first.as_str(), origin.as_str()),
        ("src/b.rs", 4, "fn theirs(&self) {", "src/a.rs")
    );
}

#[test]
fn lines_that_are_moved_within_a_file_are_told() {
    let found = shared(
        "src/a.rs",
        &format!("{THEIRS}\n\nfn again() {{\n{THEIRS}}}\n"),
    );
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn lines_that_any_program_has_are_not_told() {
    let content = "fn ours(&self) {\n    let first = self.first();\n    let ours = self.ours();\n    Ok(())\n}\n}\n}\n";
    assert_eq!(shared("src/b.rs", content), []);
}

#[test]
fn what_cargo_writes_is_not_told() {
    assert_eq!(shared("fuzz/Cargo.lock", THEIRS), []);
}
