// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
use std::error::Error;
use std::path::Path;

use patch_series::check::check;
use patch_series::replay::Identity;
use patch_series::store::Store;

use crate::repo::{Folder, Repo};

const COVER: &str = "misc: What this is\n\nAnd why it is wanted.\n";

/// Two patches of one part, in form.
fn in_form() -> Folder {
    let repo = Repo::new(&[("a", b"1\n2\n")]);
    repo.write("a", b"1\ntwo\n");
    repo.commit("misc: Change two");
    repo.write("a", b"one\ntwo\n");
    repo.commit("misc: Change one");
    let folder = Folder::new();
    folder.save(&repo, "part", "base..work").unwrap();
    folder.write("part/cover.txt", COVER);
    folder
}

const FIRST: &str = "part/0001-misc-Change-two.patch";

/// What is wrong, one line each.
fn faults(folder: &Folder) -> Vec<String> {
    let (_, faults) = check(&folder.store()).unwrap();
    faults.iter().map(ToString::to_string).collect()
}

/// What is wrong after a text of the first patch was replaced.
fn faults_with(from: &str, to: &str) -> String {
    let folder = in_form();
    let text = folder.text(FIRST);
    assert!(text.contains(from), "{text}");
    folder.write(FIRST, &text.replacen(from, to, 1));
    faults(&folder).join("\n")
}

#[test]
fn what_save_writes_is_in_form() {
    assert_eq!(faults(&in_form()), [""; 0]);
}

#[test]
fn what_this_repository_keeps_is_in_form() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for project in [
        "ch-integration/patches",
        "virtio-pci-freeze/patches/linux",
        "virtio-pci-freeze/patches/virtio-spec",
    ] {
        let (_, faults) = check(&Store::new(&repository.join(project))).unwrap();
        let faults: Vec<String> = faults
            .iter()
            .map(|fault| format!("{fault} {:?}", fault.source()))
            .collect();
        assert_eq!(faults, [""; 0], "{project}");
    }
}

const WITH_TESTS: &str = "// A comment.\n\nfn code() {}\nfn more() {}\n\n#[cfg(test)]\nmod tests {\n    fn test() {}\n}\n";

/// A part of two patches: a file of Rust with two lines of code, and three more lines, of which one is code.
fn of_rust() -> Folder {
    let repo = Repo::new(&[("a", b"1\n")]);
    repo.write("src/a.rs", WITH_TESTS.as_bytes());
    repo.write("docs/a.md", b"Text.\n");
    repo.write("tests/all.rs", b"fn test() {}\n");
    repo.write("src/a_tests.rs", b"fn test() {}\n");
    repo.commit("misc: Add a");
    let more = WITH_TESTS.replace(
        "    fn test() {}\n",
        "    fn test() {}\n    fn other() {}\n",
    );
    let more = more.replace("fn more() {}\n", "fn more() {}\n// Why.\nfn most() {}\n");
    repo.write("src/a.rs", more.as_bytes());
    repo.commit("misc: Add to a");
    let folder = Folder::new();
    folder.save(&repo, "part", "base..work").unwrap();
    folder.write("part/cover.txt", COVER);
    folder
}

#[test]
fn a_part_and_a_patch_may_not_grow_over_their_limits() {
    let folder = of_rust();
    let index = folder.text("series");
    let limited = |limits: &str| {
        folder.write(
            "series",
            &index.replace("\npart\n", &format!("\npart {limits}\n")),
        );
        faults(&folder)
    };
    assert_eq!(limited("3 2"), [""; 0]);
    assert_eq!(
        limited("2"),
        ["part has 3 lines of code; 2 are its limit in series"]
    );
    assert_eq!(
        limited("3 1"),
        ["part/0001-misc-Add-a.patch has 2 lines of code; 1 are its limit in series"]
    );
}

#[test]
fn a_comment_of_c_is_no_code() {
    let repo = Repo::new(&[("a", b"1\n")]);
    let text = "/*\n * Why.\n */\nint one;\n// Why.\n\tint two; /* and why */\n";
    repo.write("drivers/a.c", text.as_bytes());
    repo.write("include/a.h", b"#define A 1\n");
    repo.write("tools/tests/a.c", b"int test;\n");
    repo.commit("misc: Add a");
    let folder = Folder::new();
    folder.save(&repo, "part", "base..work").unwrap();
    folder.write("part/cover.txt", COVER);
    let index = folder.text("series");
    folder.write("series", &index.replace("\npart\n", "\npart 2\n"));
    assert_eq!(
        faults(&folder),
        ["part has 3 lines of code; 2 are its limit in series"]
    );
}

#[test]
fn a_limit_is_a_number() {
    let folder = of_rust();
    let index = folder.text("series");
    for limits in ["many", "1 2 3", "-1"] {
        folder.write(
            "series",
            &index.replace("\npart\n", &format!("\npart {limits}\n")),
        );
        let error = check(&folder.store()).unwrap_err();
        assert!(error.to_string().contains("[LINES"), "{error}");
    }
}

/// Otherwise code could be called tests by hand.
#[test]
fn a_patch_that_lies_about_where_its_tests_begin_is_not_applied() {
    let folder = of_rust();
    let first = "part/0001-misc-Add-a.patch";
    let text = folder.text(first);
    assert!(text.contains("Tests: 6\n"), "{text}");
    folder.write(first, &text.replace("Tests: 6\n", "Tests: 1\n"));
    let repo = Repo::new(&[("a", b"1\n")]);
    let error = folder.replay(&repo, &[], Identity::Project).unwrap_err();
    assert!(error.to_string().contains("`Tests`"), "{error}");
}

#[test]
fn a_diff_with_context_is_not_in_form() {
    let faults = faults_with("d2 1\n", "@@ -1,2 +1,2 @@\n 1\n-2\n");
    assert!(
        faults.contains("not a command of an edit script"),
        "{faults}"
    );
}

#[test]
fn a_persons_name_is_not_in_form() {
    let faults = faults_with("From: The virtio-gpu-s3 authors", "From: A Developer");
    assert!(faults.contains("line 1: From is not"), "{faults}");
}

#[test]
fn a_local_time_is_not_in_form() {
    let faults = faults_with(" +0000\n", " +0200\n");
    assert!(faults.contains("line 2: "), "{faults}");
}

#[test]
fn a_message_that_was_changed_by_hand_is_checked() {
    let faults = faults_with("Because it", "Signed-off-by: Because it");
    assert!(faults.contains("is a trailer"), "{faults}");
}

/// A path into a home, which stands nowhere in this repository.
fn somebodys_path() -> String {
    ["", "home", "somebody", "notes"].join("/")
}

#[test]
fn a_path_of_somebodys_machine_is_told_with_its_patch_file_and_line() {
    let text = format!("\ntwo\nsee {}\n", somebodys_path());
    let faults = faults_with("a2 1\ntwo\n", &format!("a2 2{text}"));
    assert_eq!(
        faults,
        format!("{FIRST}: a, line 3, has a path of somebody's machine")
    );
}

#[test]
fn a_path_of_somebodys_machine_is_told_in_a_cover_letter_too() {
    let folder = in_form();
    folder.write("part/cover.txt", &format!("{COVER}{}\n", somebodys_path()));
    assert_eq!(
        faults(&folder),
        ["part/cover.txt, line 4: expected no path of somebody's machine"]
    );
}

#[test]
fn patches_are_named_after_their_place_and_title() {
    let faults = faults_with(
        "Subject: misc: Change two",
        "Subject: misc: Change the second",
    );
    assert!(
        faults.contains("should be part/")
            || faults.contains("should be 0001-misc-Change-the-second.patch"),
        "{faults}"
    );
}

#[test]
fn a_patch_goes_on_from_the_one_before_it() {
    let folder = in_form();
    let text = folder.text(FIRST);
    let result = text
        .lines()
        .find(|line| line.starts_with("Result: "))
        .unwrap();
    folder.write(
        FIRST,
        &text.replace(result, &format!("Result: {}", "a".repeat(40))),
    );
    let faults = faults(&folder);
    assert_eq!(faults.len(), 1);
    assert!(
        faults[0].starts_with("part/0002-misc-Change-one.patch: a is based on"),
        "{faults:?}"
    );
    assert!(
        faults[0].contains("0001-misc-Change-two.patch leaves it as aaaa"),
        "{faults:?}"
    );
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let folder = in_form();
    folder.write("part/notes.txt", "");
    folder.write("other/0001-x.patch", "");
    folder.write("part/cover.txt", "One line\n");
    folder.write("series", &format!("{}empty\n", folder.text("series")));
    folder.write("empty/cover.txt", "Größe\n\nText\n");
    let faults = faults(&folder).join("\n");
    for fault in [
        "part/notes.txt is neither",
        "other has patches and is not in series",
        "part/cover.txt, line 1: expected a subject",
        "empty has no patches",
        "empty/cover.txt, line 1: expected ASCII",
    ] {
        assert!(faults.contains(fault), "{fault}: {faults}");
    }
}

#[test]
fn the_index_says_each_thing_once() {
    let folder = in_form();
    let index = folder.text("series");
    for (text, fault) in [
        (format!("{index}part\n"), "series names part twice"),
        (format!("{index}../x\n"), "series, line 4"),
        (format!("{index}base v2 x\n"), "series, line 4"),
        ("part\n".to_owned(), "no line `base NAME COMMIT`"),
    ] {
        folder.write("series", &text);
        let error = check(&folder.store()).unwrap_err().to_string();
        assert!(error.contains(fault), "{fault}: {error}");
    }
}
