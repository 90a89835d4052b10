// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
use std::fs;
use std::path::Path;

use patch_series::publish::{PublishError, mails};
use patch_series::replay::Identity;

use crate::repo::{Folder, Repo, name};

/// Two parts, each with a cover letter.
fn two_parts() -> (Repo, Folder) {
    let repo = Repo::new(&[("a", b"1\n2\n3\n4\n5\n6\n7\n8\n9\n")]);
    repo.write("a", b"1\n2\n3\n4\nfive\n6\n7\n8\n9\n");
    repo.commit("misc: Change five");
    repo.write("b", b"1\n");
    repo.commit("misc: Add");
    repo.git(&["branch", "first"]);
    repo.write("a", b"1\n2\n3\n4\nfive\n6\n7\neight\n9\n");
    repo.commit("misc: Change eight");
    let folder = Folder::new();
    folder.save(&repo, "one", "base..first").unwrap();
    folder.save(&repo, "two", "first..work").unwrap();
    folder.write("one/cover.txt", "misc: The first part\n\nWhat it is for.\n");
    folder.write(
        "two/cover.txt",
        "misc: The second part\n\nWhat it is for.\n",
    );
    (repo, folder)
}

fn export(
    folder: &Folder,
    checkout: &Repo,
    chosen: &[&str],
    to: &Path,
) -> Result<(), PublishError> {
    let replayed = folder.replay(checkout, &[], Identity::Caller).unwrap();
    let chosen: Vec<_> = chosen.iter().map(|part| name(part)).collect();
    mails(&checkout.open(), &folder.store(), &replayed, &chosen, to).map(drop)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn mails_have_context_and_make_the_same_commits_with_git_am() {
    let (repo, folder) = two_parts();
    let checkout = repo.checkout();
    let to = tempfile::tempdir().unwrap();
    let before = checkout.state();
    export(&folder, &checkout, &[], to.path()).unwrap();
    assert_eq!(checkout.state(), before);
    let first = fs::read_to_string(to.path().join("one/0001-misc-Change-five.patch")).unwrap();
    assert!(
        first.contains("Subject: [PATCH 1/2] misc: Change five"),
        "{first}"
    );
    assert!(first.contains("\n 2\n 3\n 4\n-5\n+five\n 6\n"), "{first}");
    for (part, mail) in [
        ("one", "0001-misc-Change-five.patch"),
        ("one", "0002-misc-Add.patch"),
        ("two", "0001-misc-Change-eight.patch"),
    ] {
        let mail = to.path().join(part).join(mail);
        checkout.git(&["am", "--quiet", &mail.to_string_lossy()]);
    }
    assert_eq!(
        checkout.git(&["rev-parse", "HEAD^{tree}"]),
        repo.git(&["rev-parse", "work^{tree}"])
    );
}

#[test]
fn each_part_has_its_own_cover_letter() {
    let (repo, folder) = two_parts();
    let to = tempfile::tempdir().unwrap();
    export(&folder, &repo.checkout(), &[], to.path()).unwrap();
    let letter = fs::read_to_string(to.path().join("two/0000-cover-letter.patch")).unwrap();
    assert!(
        letter.contains("\nSubject: [PATCH 0/1] misc: The second part\n"),
        "{letter}"
    );
    assert!(letter.contains("\n\nWhat it is for.\n\n"), "{letter}");
    assert!(letter.contains("misc: Change eight"), "{letter}");
    assert!(letter.contains("\nprerequisite-patch-id: "), "{letter}");
    assert!(!letter.contains("***"), "{letter}");
}

#[test]
fn one_part_can_be_sent_alone() {
    let (repo, folder) = two_parts();
    let to = tempfile::tempdir().unwrap();
    export(&folder, &repo.checkout(), &["two"], to.path()).unwrap();
    assert_eq!(names(to.path()), ["two"]);
    assert_eq!(
        names(&to.path().join("two")),
        ["0000-cover-letter.patch", "0001-misc-Change-eight.patch"]
    );
}

#[test]
fn mails_of_another_export_are_not_mixed_with_new_ones() {
    let (repo, folder) = two_parts();
    let to = tempfile::tempdir().unwrap();
    fs::create_dir(to.path().join("two")).unwrap();
    fs::write(to.path().join("two/0009-old.patch"), "").unwrap();
    let error = export(&folder, &repo.checkout(), &[], to.path()).unwrap_err();
    assert_eq!(error.to_string(), "two is not empty");
    assert_eq!(names(to.path()), ["two"]);
}

#[test]
fn settings_of_the_sender_do_not_change_the_form() {
    let (repo, folder) = two_parts();
    let checkout = repo.checkout();
    for (name, value) in [
        ("diff.noPrefix", "true"),
        ("diff.context", "0"),
        ("format.attach", "true"),
        ("format.suffix", ".eml"),
        ("color.ui", "always"),
        ("core.splitIndex", "true"),
    ] {
        checkout.git(&["config", name, value]);
    }
    let to = tempfile::tempdir().unwrap();
    export(&folder, &checkout, &["one"], to.path()).unwrap();
    let mail = fs::read_to_string(to.path().join("one/0001-misc-Change-five.patch")).unwrap();
    assert!(
        mail.contains("\n--- a/a\n+++ b/a\n@@ -2,7 +2,7 @@\n"),
        "{mail}"
    );
}
