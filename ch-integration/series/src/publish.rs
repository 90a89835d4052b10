// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is made of the commits of a series: a branch, or mails.

use std::fs;
use std::io::Error as IoError;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::git::{Git, GitError};
use crate::names::PartName;
use crate::replay::Replayed;
use crate::store::{Store, StoreError};

/// What git puts into a cover letter for people to replace.
const SUBJECT: &str = "*** SUBJECT HERE ***";
const BLURB: &str = "*** BLURB HERE ***";

/// Why there is no branch or no mail.
#[derive(Debug, Error)]
pub enum PublishError {
    /// Git failed.
    #[error(transparent)]
    Git(#[from] GitError),
    /// There is no text for a cover letter.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A branch of that name exists.
    #[error("the branch {branch} exists: name another with --branch, or delete it")]
    BranchExists {
        /// Which.
        branch: String,
    },
    /// It is not a name for a branch.
    #[error("{branch:?} is not a name for a branch")]
    BranchName {
        /// The text.
        branch: String,
    },
    /// Mails of another export would be among the new ones.
    #[error("{folder} is not empty")]
    NotEmpty {
        /// Which, under the folder of the export.
        folder: PartName,
    },
    /// A file cannot be read or written.
    #[error("{} cannot be read or written", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: IoError,
    },
    /// The cover letter of this git has no place for a text.
    #[error("git wrote a cover letter without `{SUBJECT}` and `{BLURB}`")]
    CoverLetter,
}

/// Makes a branch of the commits. One that exists is left as it is.
pub fn branch(git: &Git, replayed: &Replayed, branch: &str) -> Result<(), PublishError> {
    let reference = format!("refs/heads/{branch}");
    if branch.starts_with('-') || git.run(["check-ref-format", &reference]).is_err() {
        return Err(PublishError::BranchName {
            branch: branch.to_owned(),
        });
    }
    if git.run(["show-ref", "--verify", &reference]).is_ok() {
        return Err(PublishError::BranchExists {
            branch: branch.to_owned(),
        });
    }
    // The zeros say once more that there must be none, for the moment in which it is made.
    let none = "0".repeat(40);
    git.run(["update-ref", &reference, replayed.tip(), &none])?;
    Ok(())
}

/// Writes the mails of the chosen parts, each into a folder of its own, and gives how many each has.
pub fn mails(
    git: &Git,
    store: &Store,
    replayed: &Replayed,
    chosen: &[PartName],
    folder: &Path,
) -> Result<Vec<(PartName, usize)>, PublishError> {
    let wanted = |part: &PartName| chosen.is_empty() || chosen.contains(part);
    let parts = || replayed.parts.iter().filter(|(part, _)| wanted(part));
    for (part, _) in parts() {
        let taken = fs::read_dir(folder.join(part.as_str()));
        if taken.is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(PublishError::NotEmpty {
                folder: part.clone(),
            });
        }
    }
    let mut before = replayed.base.as_str();
    let mut written = Vec::new();
    for (part, commits) in &replayed.parts {
        let Some(last) = commits.last() else { continue };
        if wanted(part) {
            let cover = store.cover(part)?;
            let range = format!("{before}..{last}");
            let folder = folder.join(part.as_str());
            fs::create_dir_all(&folder).map_err(file_error(&folder))?;
            let folder = folder.canonicalize().map_err(file_error(&folder))?;
            format_patch(git, &replayed.base, &range, &folder)?;
            write_cover(&folder, &cover)?;
            written.push((part.clone(), commits.len()));
        }
        before = last;
    }
    Ok(written)
}

fn format_patch(git: &Git, base: &str, range: &str, folder: &Path) -> Result<(), PublishError> {
    let folder = format!("--output-directory={}", folder.display());
    let base = format!("--base={base}");
    git.run([
        "format-patch",
        "--quiet",
        "--numbered",
        "--full-index",
        "--no-ext-diff",
        "--no-attach",
        "--no-signature",
        "--suffix=.patch",
        "--cover-letter",
        "--cover-from-description=none",
        &base,
        &folder,
        range,
    ])?;
    Ok(())
}

fn write_cover(folder: &Path, cover: &str) -> Result<(), PublishError> {
    let path = folder.join("0000-cover-letter.patch");
    let letter = fs::read_to_string(&path).map_err(file_error(&path))?;
    let (subject, blurb) = cover.split_once("\n\n").unwrap_or((cover, ""));
    if !letter.contains(SUBJECT) || !letter.contains(BLURB) {
        return Err(PublishError::CoverLetter);
    }
    let letter = letter
        .replacen(SUBJECT, subject.trim(), 1)
        .replacen(BLURB, blurb.trim_end(), 1);
    fs::write(&path, letter).map_err(file_error(&path))
}

fn file_error(path: &Path) -> impl Fn(IoError) -> PublishError {
    let path = path.to_owned();
    move |source| PublishError::File {
        path: path.clone(),
        source,
    }
}
