// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
use std::fmt::Write;
use std::fs;
use std::process::Command;

use patch_series::edit::REGISTRY;
use patch_series::names::BlobId;
use patch_series::patch::{AUTHOR_EMAIL, AUTHOR_NAME, Patch};
use patch_series::publish::branch;
use patch_series::replay::Identity;

use crate::repo::{Folder, Repo};

/// Saves `base..work`, applies it to another checkout, and compares each commit and what is saved of the result.
fn round_trip(repo: &Repo) -> (Folder, Repo) {
    let folder = Folder::new();
    folder.save(repo, "part", "base..work").unwrap();
    let checkout = repo.checkout();
    folder.apply(&checkout);
    assert_eq!(trees(&checkout, "applied"), trees(repo, "work"));
    let again = Folder::new();
    again.save(&checkout, "part", "base..applied").unwrap();
    assert_eq!(again.patches("part"), folder.patches("part"));
    (folder, checkout)
}

/// The tree and message of each commit since the base.
fn trees(repo: &Repo, branch: &str) -> String {
    let range = format!("base..{branch}");
    repo.git(&[
        "log",
        "--reverse",
        "--format=%T%n%B%ad",
        "--date=unix",
        &range,
    ])
}

#[test]
fn edited_lines_come_back() {
    let repo = Repo::new(&[("a.rs", b"1\n2\n3\n4\n5\n6\n7\n8\n")]);
    repo.write("a.rs", b"0\n1\n3\nfour\n5\n6\nsix and a half\n7\n8\n9\n");
    repo.commit("misc: Edit in every way");
    repo.write("a.rs", b"");
    repo.commit("misc: Delete every line");
    repo.write("a.rs", b"x\n");
    repo.commit("misc: Fill an empty file");
    round_trip(&repo);
}

#[test]
fn the_address_of_the_registry_stays_in_the_checkout() {
    let package = |name| format!("name = \"{name}\"\nsource = \"registry+an address\"\n\n");
    let base = package("one");
    let repo = Repo::new(&[("Cargo.lock", base.as_bytes())]);
    let text = format!("{base}{}{}", package("two"), package("three"));
    repo.write("Cargo.lock", text.as_bytes());
    repo.commit("misc: Take two more packages");
    let (folder, _) = round_trip(&repo);
    let patch = folder.patches("part").concat();
    assert!(!patch.contains("an address"), "{patch}");
    assert_eq!(patch.matches(REGISTRY).count(), 2);
}

#[test]
fn files_come_and_go() {
    let repo = Repo::new(&[("old/a.rs", b"1\n"), ("b.rs", b"2\n")]);
    repo.write("new/deep/c.rs", b"3\n3\n");
    repo.write("empty", b"");
    repo.remove("old/a.rs");
    repo.commit("misc: Replace a file");
    fs::remove_dir(repo.path().join("old")).ok();
    repo.write("old", b"a file where a folder was\n");
    repo.commit("misc: Put a file in the place of a folder");
    round_trip(&repo);
}

#[test]
fn a_missing_newline_at_the_end_stays_missing() {
    let repo = Repo::new(&[
        ("gains", b"1\n2"),
        ("loses", b"1\n2\n"),
        ("keeps", b"1\n2\n3"),
        ("extends", b"1"),
        ("shrinks", b"1\n2"),
    ]);
    repo.write("gains", b"1\n2\n");
    repo.write("loses", b"1\n2");
    repo.write("keeps", b"one\n2\n3");
    repo.write("extends", b"1\n2\n3");
    repo.write("shrinks", b"1");
    repo.write("new", b"x\ny");
    repo.commit("misc: Move newlines");
    round_trip(&repo);
}

#[test]
fn carriage_returns_and_unicode_stay() {
    let repo = Repo::new(&[
        ("dos.txt", b"1\r\n2\r\n3\r\n"),
        ("größe.md", "ä\nö\n".as_bytes()),
    ]);
    repo.write("dos.txt", b"1\r\nzwei\r\n3\n\r\n");
    repo.write("größe.md", "ä\n\u{2028}ü\u{feff}\n".as_bytes());
    repo.write("名前", "日本\n".as_bytes());
    repo.commit_as("misc: Schreibe Umlaute – überall\n\nWeil »sie« es können: 日本.\n");
    round_trip(&repo);
}

#[test]
fn lines_that_look_like_commands_are_text() {
    let repo = Repo::new(&[("a", b"d1 1\na0 1\n\n@@ -1 +1 @@\n")]);
    repo.write("a", b"a0 1\nFile: x\n\n---\n@@ -1,9 +1,9 @@\nd9 9\n");
    repo.write("b", b"\n\na1 7\nd1 1\n");
    repo.commit("misc: Try to confuse");
    round_trip(&repo);
}

#[test]
fn modes_change_with_and_without_lines() {
    let repo = Repo::new(&[("run", b"#!/bin/sh\n"), ("both", b"1\n")]);
    repo.make_executable("run");
    repo.make_executable("both");
    repo.write("both", b"2\n");
    repo.write("new", b"#!/usr/bin/python3\n");
    repo.make_executable("new");
    repo.commit("misc: Make them run");
    let (folder, checkout) = round_trip(&repo);
    assert!(
        folder
            .patches("part")
            .concat()
            .contains("Mode: 100644 => 100755")
    );
    let listing = checkout.git(&["ls-tree", "applied", "run"]);
    assert!(listing.starts_with("100755"), "{listing}");
}

#[test]
fn a_file_that_a_patch_removes_can_be_made_again_by_the_next() {
    let repo = Repo::new(&[("a", b"1\n2\n")]);
    repo.remove("a");
    repo.commit("misc: Remove");
    repo.write("a", b"3\n");
    repo.commit("misc: Make again");
    round_trip(&repo);
}

#[test]
fn nothing_of_the_base_is_stored() {
    let secret = "a line of somebody else\n";
    let base = format!("{secret}{secret}replaced {secret}{secret}gone {secret}{secret}");
    let repo = Repo::new(&[("a", base.as_bytes()), ("whole", secret.as_bytes())]);
    let result = format!("{secret}ours\n{secret}ours instead\n{secret}{secret}");
    repo.write("a", result.as_bytes());
    repo.remove("whole");
    repo.commit("misc: Work among others' lines");
    let (folder, _) = round_trip(&repo);
    let stored = folder.patches("part").concat();
    assert!(stored.contains("ours instead"));
    assert!(!stored.contains("somebody else"), "{stored}");
}

#[test]
fn random_edits_of_many_files_come_back() {
    let mut random = Random(1);
    let repo = Repo::new(&[("keep", b"")]);
    for file in 0..60 {
        repo.write(&format!("f{file}"), &random.text());
    }
    repo.commit("misc: Make files at random");
    repo.git(&["tag", "--force", "base"]);
    for round in 0..4 {
        for file in 0..60 {
            repo.write(&format!("f{file}"), &random.text());
        }
        repo.commit(&format!("misc: Change them, round {round}"));
    }
    round_trip(&repo);
}

#[test]
fn what_diff_writes_is_what_is_stored() {
    let mut random = Random(7);
    let repo = Repo::new(&[("keep", b"")]);
    for _ in 0..60 {
        let (base, result) = (random.text(), random.text());
        if base == result || result.is_empty() {
            continue;
        }
        repo.write("base", &base);
        repo.write("result", &result);
        let script = rcs_difference(&repo);
        let id = |path| -> BlobId { repo.git(&["hash-object", "-w", path]).parse().unwrap() };
        let unterminated = !script.is_empty() && !script.ends_with('\n');
        let patch = format!(
            "From: {AUTHOR_NAME} <{AUTHOR_EMAIL}>\nDate: Sun, 22 Nov 2026 12:00:00 +0000\n\
             Subject: misc: Change\n\n---\nFile: f\nMode: 100644\nBase: {}\nResult: {}\n{}\n{script}{}",
            id("base"),
            id("result"),
            if unterminated { "Newline: none\n" } else { "" },
            if unterminated { "\n" } else { "" },
        );
        let patch = Patch::parse(&patch).unwrap();
        assert_eq!(patch.files[0].script.apply(&base).unwrap(), result);
    }
}

#[test]
fn a_script_is_the_one_that_diff_writes_where_there_is_only_one() {
    let repo = Repo::new(&[("base", b"1\n2\n3\n4\n5\n6\n")]);
    let result = b"0\n1\n3\nfour\nand a half\n5\n";
    repo.write("result", result);
    let script = rcs_difference(&repo);
    repo.remove("result");
    repo.write("base", result);
    repo.commit("misc: Change");
    let (folder, _) = round_trip(&repo);
    let stored = folder.patches("part").concat();
    assert!(
        stored.ends_with(&format!("\n\n{script}")),
        "{stored}\n{script}"
    );
}

#[test]
fn the_same_patches_on_the_same_base_are_the_same_commits() {
    let repo = Repo::new(&[("a", b"1\n")]);
    repo.write("a", b"2\n");
    repo.commit("misc: Change");
    let folder = Folder::new();
    folder.save(&repo, "part", "base..work").unwrap();
    let one = folder.apply(&repo.checkout());
    let other = folder.apply(&repo.checkout());
    assert_eq!(one, other);
}

#[test]
fn a_replaced_blob_does_not_replace_the_base() {
    let repo = Repo::new(&[("a", b"1\n2\n"), ("other", b"3\n4\n")]);
    repo.write("a", b"1\ntwo\n");
    repo.commit("misc: Change");
    let folder = Folder::new();
    folder.save(&repo, "part", "base..work").unwrap();
    let checkout = repo.checkout();
    checkout.git(&["replace", "HEAD:a", "HEAD:other"]);
    folder.apply(&checkout);
    assert_eq!(trees(&checkout, "applied"), trees(&repo, "work"));
}

#[test]
fn the_sender_can_be_the_author() {
    let repo = Repo::new(&[("a", b"1\n")]);
    repo.write("a", b"2\n");
    repo.commit("misc: Change");
    let folder = Folder::new();
    folder.save(&repo, "part", "base..work").unwrap();
    assert!(!folder.patches("part").concat().contains("Developer"));
    let checkout = repo.checkout();
    let replayed = folder.replay(&checkout, &[], Identity::Caller).unwrap();
    branch(&checkout.open(), &replayed, "mine").unwrap();
    assert_eq!(
        checkout.git(&["log", "-1", "--format=%an %cn", "mine"]),
        "A Sender A Sender"
    );
    folder.apply(&checkout);
    assert_eq!(
        checkout.git(&["log", "-1", "--format=%an %cn", "applied"]),
        format!("{AUTHOR_NAME} {AUTHOR_NAME}")
    );
}

#[test]
fn parts_are_stacked_in_the_order_in_which_they_were_first_saved() {
    let repo = Repo::new(&[("a", b"1\n2\n3\n")]);
    repo.write("a", b"1\ntwo\n3\n");
    repo.commit("misc: Change two");
    repo.git(&["branch", "first"]);
    repo.write("a", b"1\ntwo\nthree\n");
    repo.commit("misc: Change three");
    let folder = Folder::new();
    assert!(folder.save(&repo, "z-first", "base..first").unwrap().new);
    assert!(folder.save(&repo, "a-second", "first..work").unwrap().new);
    let checkout = repo.checkout();
    folder.apply(&checkout);
    assert_eq!(trees(&checkout, "applied"), trees(&repo, "work"));
}

#[test]
fn saving_again_replaces_a_part() {
    let repo = Repo::new(&[("a", b"1\n")]);
    repo.write("a", b"2\n");
    repo.commit("misc: Change");
    repo.write("b", b"2\n");
    repo.commit("misc: Add");
    let folder = Folder::new();
    folder.save(&repo, "part", "base..work").unwrap();
    folder.write("part/cover.txt", "Subject\n\nText\n");
    repo.git(&["reset", "--quiet", "--hard", "base"]);
    repo.write("a", b"3\n");
    repo.commit("misc: Change otherwise");
    assert!(!folder.save(&repo, "part", "base..work").unwrap().new);
    let names = folder.names("part");
    assert_eq!(names, ["0001-misc-Change-otherwise.patch", "cover.txt"]);
    assert!(folder.text("series").ends_with("\npart\n"));
}

#[test]
fn the_senders_trailers_are_left_out() {
    let repo = Repo::new(&[("a", b"1\n")]);
    repo.write("a", b"2\n");
    repo.commit_as(
        "misc: Change\n\nWhy.\n\nAssisted-by: AGENT:1\nSigned-off-by: A <a@example.com>\n",
    );
    let folder = Folder::new();
    assert_eq!(
        folder.save(&repo, "part", "base..work").unwrap().trailers,
        2
    );
    let stored = folder.patches("part").concat();
    assert!(stored.contains("\n\nWhy.\n---\n"), "{stored}");
}

/// What `diff -n` says of the files `base` and `result`.
fn rcs_difference(repo: &Repo) -> String {
    let output = Command::new("diff")
        .args(["-n", "--text", "base", "result"])
        .current_dir(repo.path())
        .output()
        .unwrap();
    assert_ne!(output.status.code(), Some(2));
    String::from_utf8(output.stdout).unwrap()
}

/// Texts of few different lines, so that much of one is in the next; the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self, limit: u64) -> u64 {
        // The constants are Knuth's, of MMIX.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn text(&mut self) -> Vec<u8> {
        let mut text = String::new();
        for _ in 0..self.next(14) {
            let end = if self.next(5) == 0 { "\r\n" } else { "\n" };
            write!(text, "{}{end}", self.next(6)).unwrap();
        }
        if self.next(3) == 0 {
            text.pop();
        }
        text.into_bytes()
    }
}

#[test]
fn a_dirty_checkout_is_left_as_it_is() {
    let repo = Repo::new(&[("a", b"1\n")]);
    repo.write("a", b"2\n");
    repo.commit("misc: Change");
    let folder = Folder::new();
    folder.save(&repo, "part", "base..work").unwrap();
    let checkout = repo.checkout();
    checkout.write("a", b"half done\n");
    checkout.git(&["add", "a"]);
    checkout.write("a", b"and more\n");
    let before = checkout.git(&["status", "--porcelain=v2"]);
    folder.apply(&checkout);
    assert_eq!(checkout.git(&["status", "--porcelain=v2"]), before);
    assert_eq!(fs::read(checkout.path().join("a")).unwrap(), b"and more\n");
    assert_eq!(checkout.git(&["show", "applied:a"]), "2");
}
