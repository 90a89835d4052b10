// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What can be said about the stored series without a checkout of what it is for. That a patch holds only added lines
//! needs no check of its own: nothing else can be read as one.

use std::collections::HashMap;
use std::iter;

use thiserror::Error;

use crate::message::{MessageFault, lint, names_home};
use crate::names::{PartName, RepoPath};
use crate::patch::{Entry, Patch};
use crate::store::{Part, Series, Store, StoreError, Stored};

/// The widest line of a cover letter.
const COLUMNS: usize = 72;

/// What is wrong with the series.
#[derive(Debug, Error)]
pub enum CheckFault {
    /// With the folder, or with a patch as such.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// With a commit message.
    #[error("{patch}: {fault}")]
    Message {
        /// Whose.
        patch: String,
        /// What.
        fault: MessageFault,
    },
    /// A patch is not made for what the ones before it leave.
    #[error("{patch}: {path} is based on {base}, but {before} leaves it as {left}")]
    Chain {
        /// Which.
        patch: String,
        /// The file.
        path: RepoPath,
        /// What it is based on.
        base: String,
        /// The last patch that changed the file.
        before: String,
        /// What that leaves.
        left: String,
    },
    /// The lock file tells of a developer's own `[patch]` section.
    #[error(
        "{patch}: {path} has [[patch.unused]], left by building with the crates of this repository"
    )]
    PatchUnused {
        /// Which.
        patch: String,
        /// The file.
        path: RepoPath,
    },
    /// A line that was written for one machine.
    #[error("{patch}: {path}, line {line}, has a path of somebody's machine")]
    MachinePath {
        /// Which.
        patch: String,
        /// The file.
        path: RepoPath,
        /// The line, in the file as the patch leaves it.
        line: usize,
    },
    /// More than a reviewer is to be asked to read.
    #[error("{what} has {lines} lines of code; {limit} are its limit in series")]
    Size {
        /// A part or a patch.
        what: String,
        /// Its lines of code.
        lines: usize,
        /// What it may have.
        limit: usize,
    },
    /// A cover letter needs a subject, an empty line and a text, all in ASCII and not too wide.
    #[error("{part}/cover.txt, line {line}: {rule}")]
    Cover {
        /// Whose.
        part: PartName,
        /// Where.
        line: usize,
        /// What it should be.
        rule: &'static str,
    },
}

/// Everything that is wrong with the series, and what of it can be read.
pub fn check(store: &Store) -> Result<(Series, Vec<CheckFault>), StoreError> {
    let (series, faults) = store.inspect()?;
    let mut faults: Vec<CheckFault> = faults.into_iter().map(CheckFault::from).collect();
    for part in &series.parts {
        faults.extend(sizes(part));
        match store.cover(&part.name) {
            Ok(text) => faults.extend(cover(&part.name, &text)),
            Err(fault) => faults.push(fault.into()),
        }
    }
    let stored = || series.parts.iter().flat_map(|part| &part.patches);
    for Stored { name, patch } in stored() {
        faults.extend(patch_faults(name, patch));
    }
    faults.extend(chain(stored()));
    Ok((series, faults))
}

/// What of a part is larger than it may be.
fn sizes(part: &Part) -> Vec<CheckFault> {
    let code = || part.patches.iter().map(|Stored { patch, .. }| patch.code());
    let each = part.patches.iter().zip(code());
    let each = each.map(|(stored, lines)| (stored.name.clone(), lines, part.limits.patch));
    let whole = code().fold(0, usize::saturating_add);
    iter::once((part.name.to_string(), whole, part.limits.part))
        .chain(each)
        .filter_map(|(what, lines, limit)| {
            let limit = limit.filter(|limit| lines > *limit)?;
            Some(CheckFault::Size { what, lines, limit })
        })
        .collect()
}

/// What is wrong with one patch, by the name it is to be told by.
pub fn patch_faults(name: &str, patch: &Patch) -> Vec<CheckFault> {
    let mut faults: Vec<CheckFault> = lint(&patch.title, &patch.body)
        .into_iter()
        .map(|fault| CheckFault::Message {
            patch: name.to_owned(),
            fault,
        })
        .collect();
    for file in &patch.files {
        if file.path.as_str().ends_with("Cargo.lock")
            && file.script.added().any(|line| line == "[[patch.unused]]")
        {
            faults.push(CheckFault::PatchUnused {
                patch: name.to_owned(),
                path: file.path.clone(),
            });
        }
        for (line, text) in file.script.numbered() {
            if names_home(text) {
                faults.push(CheckFault::MachinePath {
                    patch: name.to_owned(),
                    path: file.path.clone(),
                    line,
                });
            }
        }
    }
    faults
}

/// The first patch that touches a file can only be judged with a checkout; each later one must go on from there.
fn chain<'a>(patches: impl Iterator<Item = &'a Stored>) -> Vec<CheckFault> {
    let mut left: HashMap<&RepoPath, (&str, &Option<Entry>)> = HashMap::new();
    let mut faults = Vec::new();
    for Stored { name, patch } in patches {
        for file in &patch.files {
            if let Some((before, entry)) = left.insert(&file.path, (name, &file.result))
                && *entry != file.base
            {
                faults.push(CheckFault::Chain {
                    patch: name.clone(),
                    path: file.path.clone(),
                    base: describe(file.base.as_ref()),
                    before: before.to_owned(),
                    left: describe(entry.as_ref()),
                });
            }
        }
    }
    faults
}

/// A file's state in words.
pub(crate) fn describe(entry: Option<&Entry>) -> String {
    entry.map_or_else(
        || "no file".to_owned(),
        |Entry { mode, id }| format!("{id} ({mode})"),
    )
}

fn cover(part: &PartName, text: &str) -> Vec<CheckFault> {
    let mut faults = Vec::new();
    let mut fault = |line, rule| {
        faults.push(CheckFault::Cover {
            part: part.clone(),
            line,
            rule,
        });
    };
    let lines: Vec<&str> = text.lines().collect();
    match lines.as_slice() {
        [subject, "", blurb, ..] if !subject.is_empty() && !blurb.is_empty() => {}
        _ => fault(1, "expected a subject, an empty line and a text"),
    }
    for (line, text) in (1..).zip(lines) {
        if !text.is_ascii() {
            fault(line, "expected ASCII, which needs no encoding in a mail");
        }
        if names_home(text) {
            fault(line, "expected no path of somebody's machine");
        }
        if text.chars().count() > COLUMNS && !text.starts_with(' ') && !text.contains("://") {
            fault(line, "expected at most 72 columns");
        }
    }
    faults
}
