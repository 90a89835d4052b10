// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
use patch_series::publish::{PublishError, branch};
use patch_series::replay::{Difference, Identity, ReplayError};
use patch_series::save::SaveError;

use crate::repo::{Folder, Repo, name};

/// A repository with one commit that turns `1` into `2`, and that commit saved.
fn saved() -> (Repo, Folder) {
    let repo = Repo::new(&[("a", b"1\n"), ("b", b"1\n")]);
    repo.write("a", b"2\n");
    repo.write("b", b"2\n");
    repo.commit("misc: Change both");
    let folder = Folder::new();
    folder.save(&repo, "part", "base..work").unwrap();
    (repo, folder)
}

fn differences(error: ReplayError) -> (Vec<Difference>, String) {
    let text = error.to_string();
    match error {
        ReplayError::BaseDiffers(differences) => (differences.files, text),
        other => panic!("{other}"),
    }
}

/// Why what `change` does to the base cannot be saved.
fn refused(base: &[(&str, &[u8])], message: &str, change: impl Fn(&Repo)) -> SaveError {
    let repo = Repo::new(base);
    change(&repo);
    repo.commit_as(message);
    let folder = Folder::new();
    let before = folder.text("series");
    let error = folder.save(&repo, "part", "base..work").unwrap_err();
    assert_eq!(folder.text("series"), before);
    assert!(!folder.path("part").exists(), "something was written");
    error
}

const GOOD: &str = "misc: Change\n\nWhy and how.\n";

#[test]
fn every_file_that_differs_is_named_with_what_it_should_be() {
    let (repo, folder) = saved();
    let checkout = repo.checkout();
    checkout.write("a", b"other\n");
    checkout.remove("b");
    checkout.commit("misc: Go another way");
    let before = checkout.state();
    let error = folder
        .replay(&checkout, &[], Identity::Project)
        .unwrap_err();
    assert_eq!(checkout.state(), before);
    let (files, text) = differences(error);
    let expected = repo.git(&["rev-parse", "base:a"]);
    let found = checkout.git(&["rev-parse", "HEAD:a"]);
    assert_eq!(files.len(), 2);
    assert_eq!(files[0].expected, format!("{expected} (100644)"));
    assert_eq!(files[0].found, format!("{found} (100644)"));
    assert_eq!(files[1].found, "no file");
    assert_eq!(files[1].patch, "part/0001-misc-Change-both.patch");
    assert!(
        text.contains("a: expected") && text.contains("b: expected"),
        "{text}"
    );
    assert!(text.contains("(v1, 1111"), "{text}");
}

fn saved_with_a_new_file() -> (Repo, Folder) {
    let repo = Repo::new(&[("a", b"1\n")]);
    repo.write("new", b"2\n");
    repo.commit("misc: Add");
    let folder = Folder::new();
    folder.save(&repo, "part", "base..work").unwrap();
    (repo, folder)
}

#[test]
fn a_new_file_does_not_replace_one_that_is_there() {
    let (repo, folder) = saved_with_a_new_file();
    let checkout = repo.checkout();
    checkout.write("new", b"theirs\n");
    checkout.commit("misc: Add before");
    let error = folder
        .replay(&checkout, &[], Identity::Project)
        .unwrap_err();
    let (files, _) = differences(error);
    assert_eq!(files[0].expected, "no file");
}

#[test]
fn a_mode_that_differs_is_a_difference() {
    let (repo, folder) = saved();
    let checkout = repo.checkout();
    checkout.make_executable("a");
    checkout.commit("misc: Make it run");
    let error = folder
        .replay(&checkout, &[], Identity::Project)
        .unwrap_err();
    let (files, _) = differences(error);
    assert_eq!(files.len(), 1);
    assert!(files[0].found.ends_with("(100755)"), "{}", files[0].found);
}

#[test]
fn a_series_that_is_applied_already_is_said_to_be() {
    let (repo, folder) = saved();
    let checkout = repo.checkout();
    folder.apply(&checkout);
    checkout.git(&["checkout", "--quiet", "applied"]);
    let error = folder
        .replay(&checkout, &[], Identity::Project)
        .unwrap_err();
    assert!(
        error.to_string().contains("applied there already?"),
        "{error}"
    );
}

#[test]
fn a_part_without_the_one_before_it_is_refused_by_name() {
    let (repo, folder) = saved();
    repo.git(&["branch", "first"]);
    repo.write("a", b"3\n");
    repo.commit("misc: Change again");
    folder.save(&repo, "second", "first..work").unwrap();
    let checkout = repo.checkout();
    let error = folder
        .replay(&checkout, &["second"], Identity::Project)
        .unwrap_err();
    assert!(error.to_string().contains("\npart comes first"), "{error}");
    folder
        .replay(&checkout, &["second", "part"], Identity::Project)
        .unwrap();
}

#[test]
fn a_branch_that_exists_stays_what_it_is() {
    let (repo, folder) = saved();
    let checkout = repo.checkout();
    let replayed = folder.apply(&checkout);
    checkout.git(&["branch", "--force", "applied", "base"]);
    let before = checkout.state();
    let error = branch(&checkout.open(), &replayed, "applied").unwrap_err();
    assert!(
        matches!(error, PublishError::BranchExists { .. }),
        "{error}"
    );
    assert_eq!(checkout.state(), before);
    for bad in ["", "-d", "a..b", "a b", "@{-1}", "x.lock"] {
        let error = branch(&checkout.open(), &replayed, bad).unwrap_err();
        assert!(
            matches!(error, PublishError::BranchName { .. }),
            "{bad:?}: {error}"
        );
    }
}

#[test]
fn a_file_in_the_place_of_a_folder_leaves_nothing_half_applied() {
    let repo = Repo::new(&[("a", b"1\n")]);
    repo.write("a", b"2\n");
    repo.commit("misc: Change");
    repo.write("dir/new", b"2\n");
    repo.commit("misc: Add");
    let folder = Folder::new();
    folder.save(&repo, "part", "base..work").unwrap();
    let checkout = repo.checkout();
    checkout.write("dir", b"a file\n");
    checkout.commit("misc: Be in the way");
    let before = checkout.state();
    let error = folder
        .replay(&checkout, &[], Identity::Project)
        .unwrap_err();
    assert_eq!(checkout.state(), before);
    let (files, _) = differences(error);
    assert_eq!(files.len(), 1);
    assert_eq!(files[0].found, "the file dir");
}

#[test]
fn a_folder_in_the_place_of_a_new_file_is_a_difference() {
    let (repo, folder) = saved_with_a_new_file();
    let checkout = repo.checkout();
    checkout.write("new/inside", b"theirs\n");
    checkout.write("new.rs", b"theirs\n");
    checkout.commit("misc: Be in the way");
    let error = folder
        .replay(&checkout, &[], Identity::Project)
        .unwrap_err();
    let (files, _) = differences(error);
    assert_eq!(files.len(), 1);
    assert_eq!(files[0].found, "a folder");
}

#[test]
fn a_renamed_file_is_refused_by_both_names() {
    let text = b"1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n";
    let error = refused(&[("old.rs", text)], GOOD, |repo| {
        repo.remove("old.rs");
        repo.write("new.rs", text);
    });
    assert!(
        matches!(&error, SaveError::Moved { path, from, .. } if path == "new.rs" && from == "old.rs"),
        "{error}"
    );
}

#[test]
fn what_has_no_lines_is_refused_by_name() {
    let base: &[(&str, &[u8])] = &[("a", b"1\n"), ("picture", b"\0\x01\n")];
    let error = refused(base, GOOD, |repo| repo.write("new", b"1\0\n"));
    assert!(
        matches!(&error, SaveError::Binary { path, .. } if path.as_str() == "new"),
        "{error}"
    );
    let error = refused(base, GOOD, |repo| repo.remove("picture"));
    assert!(matches!(&error, SaveError::Binary { .. }), "{error}");
    let error = refused(base, GOOD, |repo| repo.write("latin", b"gr\xfc\xdfe\n"));
    assert!(
        error
            .to_string()
            .contains("latin: line 1 of the result is not UTF-8"),
        "{error}"
    );
    let error = refused(base, GOOD, |repo| repo.link("link", "a"));
    assert!(
        error.to_string().contains("link: mode \"120000\""),
        "{error}"
    );
    let error = refused(base, GOOD, |repo| {
        let head = repo.git(&["rev-parse", "HEAD"]);
        let entry = format!("160000,{head},module");
        repo.git(&["update-index", "--add", "--cacheinfo", &entry]);
        repo.git(&["commit", "--quiet", "-m", GOOD]);
    });
    assert!(
        error.to_string().contains("module: mode \"160000\""),
        "{error}"
    );
}

#[test]
fn a_commit_without_a_change_is_refused() {
    let error = refused(&[("a", b"1\n")], GOOD, |_| {});
    assert!(
        matches!(&error, SaveError::Empty { commit } if commit == "misc: Change"),
        "{error}"
    );
}

#[test]
fn a_merge_is_refused_by_its_title() {
    let repo = Repo::new(&[("a", b"1\n"), ("b", b"1\n")]);
    repo.write("a", b"2\n");
    repo.commit("misc: Change a");
    repo.git(&["checkout", "--quiet", "-b", "side", "base"]);
    repo.write("b", b"2\n");
    repo.commit("misc: Change b");
    repo.git(&["merge", "--quiet", "--no-ff", "-m", "misc: Merge", "work"]);
    let folder = Folder::new();
    let error = folder.save(&repo, "part", "base..side").unwrap_err();
    assert!(matches!(error, SaveError::NotLinear { .. }), "{error}");
}

#[test]
fn a_range_that_names_nothing_or_no_start_is_refused() {
    let (repo, folder) = saved();
    let before = folder.patches("part");
    let error = folder.save(&repo, "part", "work..work").unwrap_err();
    assert!(
        matches!(error, SaveError::Count { count: 0, .. }),
        "{error}"
    );
    let error = folder.save(&repo, "part", "work").unwrap_err();
    assert!(matches!(error, SaveError::NotLinear { .. }), "{error}");
    let error = folder.save(&repo, "part", "--all").unwrap_err();
    assert!(matches!(error, SaveError::Git(_)), "{error}");
    assert_eq!(folder.patches("part"), before);
}

#[test]
fn messages_out_of_form_are_refused_with_every_fault() {
    let base: &[(&str, &[u8])] = &[("a", b"1\n")];
    let change = |repo: &Repo| repo.write("a", b"2\n");
    let error = refused(base, "Change something.\n", change).to_string();
    for fault in ["is not `component", "full stop", "no body"] {
        assert!(error.contains(fault), "{fault}: {error}");
    }
    let error = refused(base, "misc: Change\n\nWhy.\n\n---\n\nHow.\n", change);
    assert!(matches!(error, SaveError::Unreadable { .. }), "{error}");
}

#[test]
fn the_path_of_the_checkout_does_not_get_into_a_patch() {
    let error = refused(&[("a", b"1\n")], GOOD, |repo| {
        let path = repo.path().canonicalize().unwrap();
        repo.write("a", format!("{}\n", path.display()).as_bytes());
    });
    assert!(matches!(error, SaveError::MachinePath { .. }), "{error}");
}

#[test]
fn a_path_into_a_home_does_not_get_into_a_patch() {
    let home = ["", "home", "somebody", "src"].join("/");
    let error = refused(&[("a", b"1\n2\n3\n")], GOOD, |repo| {
        repo.write("a", format!("new\n2\n{home}\n3\n").as_bytes());
    });
    let told = "a, line 3, has a path of somebody's machine";
    assert!(error.to_string().contains(told), "{error}");
}

#[test]
fn a_component_must_be_one_that_the_checkout_lists() {
    let list = "scripts/gitlint/rules/TitleStartsWithComponent.py";
    let base: &[(&str, &[u8])] = &[("a", b"1\n"), (list, b"known = ('misc', 'vmm')\n")];
    let change = |repo: &Repo| repo.write("a", b"2\n");
    let error = refused(base, "vmm, vm: Change\n\nWhy.\n", change);
    assert!(
        matches!(&error, SaveError::Component { component, .. } if component == "vm"),
        "{error}"
    );
}

#[test]
fn the_lock_file_must_not_tell_of_a_patch_section() {
    let error = refused(&[("Cargo.lock", b"1\n")], GOOD, |repo| {
        repo.write("Cargo.lock", b"1\n\n[[patch.unused]]\nname = \"x\"\n");
    });
    assert!(error.to_string().contains("[[patch.unused]]"), "{error}");
}

#[test]
fn a_part_that_is_not_there_is_refused_by_name() {
    let (_, folder) = saved();
    let series = folder.store().load().unwrap();
    let error = series.select(&[name("part"), name("other")]).unwrap_err();
    assert_eq!(error.to_string(), "other is not a part of the series");
}
