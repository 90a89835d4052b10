// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Stored patches that nobody saved.

use std::fs;

use patch_series::edit::EditError;
use patch_series::patch::{Patch, PatchError};
use patch_series::replay::{Identity, ReplayError};

use crate::repo::{Folder, Repo};

const FIRST: &str = "part/0001-misc-Change.patch";
const BASE: &[u8] = b"1\n2\n3\n4\n";

/// A repository, and one patch for it.
fn saved() -> (Repo, Folder) {
    let repo = Repo::new(&[("a", BASE), ("old", b"gone\n")]);
    repo.write("a", b"1\ntwo\n3\n4\nfive");
    repo.write("new", b"x\ny\n");
    repo.remove("old");
    repo.commit("misc: Change");
    let folder = Folder::new();
    folder.save(&repo, "part", "base..work").unwrap();
    (repo, folder)
}

/// Why the stored patch is refused with one text in the place of another.
fn parsed_with(from: &str, to: &str) -> PatchError {
    let (_, folder) = saved();
    let text = folder.text(FIRST);
    assert!(text.contains(from), "{text}");
    Patch::parse(&text.replacen(from, to, 1)).unwrap_err()
}

/// Why it cannot be applied, where it can be read. Nothing changes.
fn applied_with(from: &str, to: &str) -> ReplayError {
    let (repo, folder) = saved();
    let text = folder.text(FIRST);
    assert!(text.contains(from), "{text}");
    folder.write(FIRST, &text.replacen(from, to, 1));
    let checkout = repo.checkout();
    let before = checkout.state();
    let error = folder
        .replay(&checkout, &[], Identity::Project)
        .unwrap_err();
    assert_eq!(checkout.state(), before);
    error
}

#[test]
fn a_path_that_leaves_the_tree_is_refused_where_it_is_read() {
    for path in [
        "../new",
        "/new",
        "x/../../new",
        ".git/hooks/post-checkout",
        "x/.GIT/config",
    ] {
        let error = parsed_with("File: new\n", &format!("File: {path}\n"));
        assert!(matches!(error, PatchError::Name { .. }), "{path}: {error}");
    }
}

#[test]
fn a_path_through_a_link_of_the_checkout_writes_nothing_behind_it() {
    let outside = tempfile::tempdir().unwrap();
    let (repo, folder) = saved();
    let text = folder.text(FIRST);
    folder.write(FIRST, &text.replacen("File: new\n", "File: link/new\n", 1));
    let checkout = repo.checkout();
    checkout.link("link", &outside.path().to_string_lossy());
    checkout.commit("misc: Point elsewhere");
    let error = folder
        .replay(&checkout, &[], Identity::Project)
        .unwrap_err();
    assert!(error.to_string().contains("found the file link"), "{error}");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn counts_that_lie_are_refused() {
    let more = parsed_with("a4 1\nfive\n", "a4 99999999\nfive\n");
    assert!(
        matches!(
            more,
            PatchError::Script {
                fault: EditError::Truncated {
                    announced: 99_999_999,
                    ..
                },
                ..
            }
        ),
        "{more}"
    );
    let largest = format!("a4 {}\nfive\n", usize::MAX);
    let more = parsed_with("a4 1\nfive\n", &largest);
    assert!(
        matches!(
            more,
            PatchError::Script {
                fault: EditError::Truncated { .. },
                ..
            }
        ),
        "{more}"
    );
    let fewer = parsed_with("a0 2\nx\ny\n", "a0 1\nx\ny\n");
    assert!(
        matches!(
            fewer,
            PatchError::Script {
                fault: EditError::NotACommand { .. },
                ..
            }
        ),
        "{fewer}"
    );
}

#[test]
fn numbers_that_overflow_are_refused() {
    for command in [
        format!("d{} 1\n", usize::MAX),
        format!("d2 {}\n", usize::MAX),
        format!("a{} 1\nx\n", usize::MAX),
        "d99999999999999999999999 1\n".to_owned(),
        "d-1 1\n".to_owned(),
        "d+2 1\n".to_owned(),
        "d0 1\n".to_owned(),
        "d2 0\n".to_owned(),
        "a2 0\n".to_owned(),
        "c2 1\n".to_owned(),
    ] {
        let error = parsed_with("d2 1\n", &command);
        assert!(
            matches!(error, PatchError::Script { .. }),
            "{command}: {error}"
        );
    }
}

#[test]
fn commands_out_of_order_are_refused() {
    for commands in [
        "d3 1\nd2 1\n",
        "d2 2\nd3 1\n",
        "a2 1\nx\na2 1\ny\n",
        "a3 1\nx\nd2 1\n",
    ] {
        let error = parsed_with("d2 1\n", commands);
        assert!(
            matches!(
                error,
                PatchError::Script {
                    fault: EditError::Disorder { .. },
                    ..
                }
            ),
            "{commands}: {error}"
        );
    }
}

#[test]
fn lines_that_the_base_does_not_have_are_refused() {
    for (from, to) in [
        ("a4 1\n", "a9 1\n"),
        ("a4 1\n", "d4 2\na5 1\n"),
        ("a4 1\n", "d9 1\na9 1\n"),
    ] {
        let error = applied_with(from, to);
        assert!(
            matches!(
                error,
                ReplayError::Script {
                    fault: EditError::BeyondBase { .. },
                    ..
                }
            ),
            "{to}: {error}"
        );
    }
}

#[test]
fn a_result_that_is_not_the_one_that_was_saved_is_refused() {
    let error = applied_with("\ntwo\n", "\nzwei\n");
    assert!(
        matches!(&error, ReplayError::Result { path, .. } if path.as_str() == "a"),
        "{error}"
    );
    let error = applied_with("Newline: none\n", "");
    assert!(matches!(error, ReplayError::Result { .. }), "{error}");
}

#[test]
fn a_file_that_is_named_twice_is_refused() {
    let error = parsed_with("File: new\n", "File: a\n");
    assert!(matches!(error, PatchError::Entry { .. }), "{error}");
}

#[test]
fn entries_that_contradict_themselves_are_refused() {
    let (_, folder) = saved();
    let text = folder.text(FIRST);
    let (before, entry) = text.split_once("File: new\n").unwrap();
    let (_, rest) = entry.split_once("y\n").unwrap();
    let nothing = "Mode: 100644\nBase: none\nResult: none\n\n";
    let nothing = Patch::parse(&format!("{before}File: new\n{nothing}{rest}")).unwrap_err();
    assert!(matches!(nothing, PatchError::Entry { .. }), "{nothing}");
    let with_lines = format!("{}a0 1\nx\n", folder.text(FIRST));
    let error = Patch::parse(&with_lines).unwrap_err();
    assert!(
        matches!(&error, PatchError::Entry { path } if path.as_str() == "old"),
        "{error}"
    );
    let error = parsed_with("Mode: 100644\n", "Mode: 120000\n");
    assert!(matches!(error, PatchError::Name { .. }), "{error}");
}

#[test]
fn a_second_way_to_write_the_same_is_refused() {
    for (from, to) in [
        ("d2 1\n", "d02 1\n"),
        ("Mode: 100644\n", "Mode: 100644 => 100644\n"),
        ("\n---\n", "\n\n---\n"),
        ("Subject: ", "Subject:  "),
    ] {
        let (_, folder) = saved();
        let text = folder.text(FIRST).replacen(from, to, 1);
        let parsed = Patch::parse(&text);
        // A blank more is another title or body, which `check` names; it is never dropped in silence.
        match parsed {
            Err(error) => assert!(
                matches!(error, PatchError::NotCanonical { .. }),
                "{to:?}: {error}"
            ),
            Ok(patch) => assert_eq!(patch.to_string(), text),
        }
    }
    let (_, folder) = saved();
    let text = folder.text(FIRST);
    for end in ["\n", "x", "\nFile: z"] {
        assert!(Patch::parse(&format!("{text}{end}")).is_err(), "{end:?}");
    }
}

#[test]
fn a_patch_cut_anywhere_is_refused() {
    let (repo, folder) = saved();
    let text = folder.text(FIRST);
    let checkout = repo.checkout();
    let whole = folder.replay(&checkout, &[], Identity::Project).unwrap();
    let mut readable = 0;
    for (end, _) in text.char_indices() {
        if Patch::parse(&text[..end]).is_err() {
            continue;
        }
        // Cut between two commands, or between two files: only the result or the number of files can tell.
        readable += 1;
        folder.write(FIRST, &text[..end]);
        if let Ok(replayed) = folder.replay(&checkout, &[], Identity::Project) {
            assert!(text[end..].starts_with("\nFile: "), "cut at {end}");
            assert_ne!(replayed, whole);
        }
    }
    assert!(readable > 0, "no cut was hard to tell");
}

#[test]
fn no_byte_changed_makes_the_reader_or_the_editor_panic() {
    let (_, folder) = saved();
    let text = folder.text(FIRST);
    let (mut read, mut refused) = (0, 0);
    for (index, old) in text.char_indices() {
        for new in ['\n', ' ', '0', '9', 'a', 'd', '/', '\0', 'é'] {
            let mut changed = text.clone();
            changed.replace_range(index..index + old.len_utf8(), &new.to_string());
            match Patch::parse(&changed) {
                Ok(patch) => {
                    read += 1;
                    for file in &patch.files {
                        // Whether it fits is not asked, only that it answers.
                        let _ = file.script.apply(BASE);
                    }
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(read > 0 && refused > 0, "{read} read, {refused} refused");
}

#[test]
fn a_file_that_is_not_text_is_refused_by_name() {
    let (_, folder) = saved();
    fs::write(folder.path(FIRST), b"From: \xff\n").unwrap();
    let error = folder.store().load().unwrap_err();
    assert_eq!(error.to_string(), format!("{FIRST} is not UTF-8"));
}

#[test]
fn a_file_larger_than_any_patch_is_refused_unread() {
    let (_, folder) = saved();
    let file = fs::File::create(folder.path(FIRST)).unwrap();
    file.set_len(1 << 40).unwrap();
    let error = folder.store().load().unwrap_err();
    assert!(error.to_string().contains("1099511627776 bytes"), "{error}");
}

#[test]
fn an_id_of_a_blob_that_is_not_there_is_a_difference_and_not_a_failure_of_git() {
    let (_, folder) = saved();
    let text = folder.text(FIRST);
    let base = text
        .lines()
        .find(|line| line.starts_with("Base: "))
        .unwrap();
    let error = applied_with(base, &format!("Base: {}", "b".repeat(40)));
    assert!(matches!(error, ReplayError::BaseDiffers(_)), "{error}");
}
