// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command as people type it.

use std::process::{Command, Output};

use crate::repo::{Folder, Repo};

fn run(folder: &Folder, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_patch-series"))
        .args(["--patches", &folder.path("").to_string_lossy()])
        .args(arguments)
        .output()
        .unwrap()
}

/// What the command prints; it must succeed.
fn prints(folder: &Folder, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// What the command says when it fails, as it must.
fn fails(folder: &Folder, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn path(repo: &Repo) -> String {
    repo.path().to_string_lossy().into_owned()
}

/// Two parts that change one file, in a folder that the command filled, and their repository.
fn two_parts() -> (Repo, Folder) {
    let repo = Repo::new(&[("a", b"1\n2\n")]);
    repo.write("a", b"1\ntwo\n");
    repo.commit("misc: Change two");
    repo.git(&["branch", "first"]);
    repo.write("a", b"one\ntwo\n");
    repo.commit("misc: Change one");
    let folder = Folder::new();
    let told = prints(&folder, &["save", &path(&repo), "one", "base..first"]);
    assert_eq!(
        told,
        "one/0001-misc-Change-two.patch\none is new, and now the last in series\n\
         one/cover.txt is missing: the text of the cover letter\n"
    );
    prints(&folder, &["save", &path(&repo), "two", "first..work"]);
    for part in ["one", "two"] {
        folder.write(&format!("{part}/cover.txt"), "misc: Some part\n\nWhy.\n");
    }
    (repo, folder)
}

#[test]
fn what_is_saved_is_checked_counted_and_applied() {
    let (repo, folder) = two_parts();
    let told = prints(&folder, &["check"]);
    assert_eq!(told, "one: 1 patches in form\ntwo: 1 patches in form\n");
    let table = prints(&folder, &["lines"]);
    assert!(
        table.contains("     1      1      1      0  two in all\n"),
        "{table}"
    );
    let checkout = repo.checkout();
    let told = prints(
        &folder,
        &["apply", &path(&checkout), "--branch", "x", "--switch"],
    );
    let tip = checkout.git(&["rev-parse", "x"]);
    assert_eq!(
        told,
        format!("one: 1 commits\ntwo: 1 commits\nbranch x at {tip}\n")
    );
    assert_eq!(checkout.git(&["rev-parse", "--abbrev-ref", "HEAD"]), "x");
    assert_eq!(checkout.git(&["show", ":a"]), "one\ntwo");
}

#[test]
fn a_part_is_exported_without_naming_the_ones_before_it() {
    let (repo, folder) = two_parts();
    let to = tempfile::tempdir().unwrap();
    let target = to.path().join("mails").to_string_lossy().into_owned();
    let told = prints(
        &folder,
        &["export", &path(&repo.checkout()), &target, "two"],
    );
    assert_eq!(told, "two: 1 mails and a cover letter\n");
    assert!(to.path().join("mails/two/0000-cover-letter.patch").exists());
    assert!(!to.path().join("mails/one").exists());
}

/// Whoever has just applied the series has its tip checked out, not what it is made for.
#[test]
fn a_checkout_with_the_series_applied_is_exported_from_the_base_of_the_series() {
    let (repo, folder) = two_parts();
    let checkout = repo.checkout();
    let base = checkout.git(&["rev-parse", "base"]);
    let index = folder.text("series").replace(&"1".repeat(40), &base);
    folder.write("series", &index);
    prints(&folder, &["apply", &path(&checkout), "--switch"]);
    let to = tempfile::tempdir().unwrap();
    let target = to.path().join("mails").to_string_lossy().into_owned();
    let told = prints(&folder, &["export", &path(&checkout), &target]);
    assert_eq!(
        told,
        "one: 1 mails and a cover letter\ntwo: 1 mails and a cover letter\n"
    );
}

#[test]
fn a_checkout_that_differs_is_told_and_left_alone() {
    let (repo, folder) = two_parts();
    let checkout = repo.checkout();
    let before = checkout.state();
    let told = fails(&folder, &["apply", &path(&checkout), "two"]);
    assert!(
        told.contains("  a: expected ") && told.contains("\none comes first"),
        "{told}"
    );
    assert_eq!(checkout.state(), before);
    let elsewhere = tempfile::tempdir().unwrap();
    let told = fails(&folder, &["apply", &elsewhere.path().to_string_lossy()]);
    assert!(told.contains("not a git repository"), "{told}");
}

#[test]
fn a_part_that_was_saved_off_the_base_does_not_pass_for_a_stacked_one() {
    let (repo, folder) = two_parts();
    repo.git(&["checkout", "--quiet", "-B", "work", "base"]);
    repo.write("a", b"one\n2\n");
    repo.commit("misc: Change one");
    prints(&folder, &["save", &path(&repo), "two", "base..work"]);
    let told = fails(&folder, &["check"]);
    assert!(
        told.contains("two/0001-misc-Change-one.patch: a is based on"),
        "{told}"
    );
}

#[test]
fn what_is_out_of_form_is_told_and_fails() {
    let (_, folder) = two_parts();
    folder.write("one/notes.txt", "");
    let told = fails(&folder, &["check"]);
    assert_eq!(
        told,
        "patch-series: one/notes.txt is neither a patch nor cover.txt\n"
    );
}

#[test]
fn lines_that_the_base_has_too_are_told() {
    let lines = "let first = 1;\nlet second = 2;\nlet third = 3;\n";
    let repo = Repo::new(&[("a", lines.as_bytes())]);
    repo.write(
        "b",
        format!("{lines}ours to begin with\nand to go on\nand on and on\nto the end\n").as_bytes(),
    );
    repo.commit("misc: Copy");
    let folder = Folder::new();
    prints(&folder, &["save", &path(&repo), "part", "base..work"]);
    let told = prints(&folder, &["overlap", &path(&repo), "--base", "base"]);
    assert_eq!(
        told,
        "part/0001-misc-Copy.patch: b: 3 lines from `let first = 1;`, as in a\n\
         1 runs of lines that the base has too\n"
    );
}
