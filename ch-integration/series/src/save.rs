// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Makes stored patches of commits.

use std::str;

use thiserror::Error;

use crate::check::{CheckFault, patch_faults};
use crate::edit::{EditError, EditScript, Hunk};
use crate::git::{Git, GitError, text};
use crate::message::{components, strip_sender};
use crate::names::{BlobId, Mode, NameError, PartName, RepoPath};
use crate::patch::{Entry, FileChange, MAX_PATCH, Patch, PatchError, is_date, tests_begin};
use crate::store::{Store, StoreError};

/// The most commits that a part may have.
const MAX_COMMITS: usize = 200;
/// Where Cloud Hypervisor lists the components that a title may begin with. Others have no list.
const COMPONENTS: &str = "scripts/gitlint/rules/TitleStartsWithComponent.py";

/// Why commits are not stored. Commits are told by their title.
#[derive(Debug, Error)]
pub enum SaveError {
    /// Git failed.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The folder cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The range names nothing, or everything.
    #[error("{range} names {count} commits; a part has 1 to {MAX_COMMITS}, as in BASE..branch")]
    Count {
        /// The range.
        range: String,
        /// How many it names, at least.
        count: usize,
    },
    /// The commits do not follow each other.
    #[error(
        "{commit} is not a commit on top of the one before it: merges and side branches are not stored"
    )]
    NotLinear {
        /// Which.
        commit: String,
    },
    /// Git describes a commit in words that it should not have.
    #[error("{commit}: git answered {answer:?}")]
    Answer {
        /// Which.
        commit: String,
        /// The words.
        answer: String,
    },
    /// It changes nothing.
    #[error("{commit} changes no file")]
    Empty {
        /// Which.
        commit: String,
    },
    /// A file was renamed or copied.
    #[error(
        "{commit}: {path} is {from} in another place; whole, it would bring the base's lines with it"
    )]
    Moved {
        /// Which.
        commit: String,
        /// The file.
        path: String,
        /// The file that it was.
        from: String,
    },
    /// A file has no lines.
    #[error("{commit}: {path} is binary")]
    Binary {
        /// Which.
        commit: String,
        /// The file.
        path: RepoPath,
    },
    /// A file's path or mode is not one that a patch can have.
    #[error("{commit}: {path}: {fault}")]
    Name {
        /// Which.
        commit: String,
        /// The file.
        path: String,
        /// Why.
        fault: NameError,
    },
    /// A file's lines are not text.
    #[error("{commit}: {path}: {fault}")]
    Script {
        /// Which.
        commit: String,
        /// The file.
        path: RepoPath,
        /// Why.
        fault: EditError,
    },
    /// The difference that git found does not lead from the base to the result.
    #[error("{commit}: {path}: the edit script does not give the result")]
    Difference {
        /// Which.
        commit: String,
        /// The file.
        path: RepoPath,
    },
    /// The path of the checkout is in the patch.
    #[error("{commit}: it holds {path}, a path of this machine")]
    MachinePath {
        /// Which.
        commit: String,
        /// The path.
        path: String,
    },
    /// What is written could not be read again.
    #[error("{commit}: {fault}")]
    Unreadable {
        /// Which.
        commit: String,
        /// Why.
        fault: PatchError,
    },
    /// The messages or the lock file are not in form.
    #[error("{}", join(.faults))]
    Form {
        /// All that is wrong.
        faults: Vec<CheckFault>,
    },
    /// Titles begin with components that the checkout does not know.
    #[error("{commit}: {COMPONENTS} does not list {component}")]
    Component {
        /// Which.
        commit: String,
        /// What its title begins with.
        component: String,
    },
}

/// What was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The patches in order.
    pub patches: Vec<Patch>,
    /// How many trailers of a sender were left out.
    pub trailers: usize,
    /// Whether the part is new in the series.
    pub new: bool,
}

/// Stores the commits of `range` as the patches of `part`, in place of those that it has. Nothing is written if
/// anything is wrong.
pub fn save(store: &Store, git: &Git, part: &PartName, range: &str) -> Result<Saved, SaveError> {
    let mut patches = Vec::new();
    let mut faults = Vec::new();
    let mut trailers = 0_usize;
    for commit in commits(git, range)? {
        let (patch, stripped) = patch(git, &commit)?;
        trailers = trailers.saturating_add(stripped);
        must_fit(git, &commit, &patch)?;
        faults.extend(patch_faults(&patch.title, &patch));
        patches.push(patch);
    }
    if !faults.is_empty() {
        return Err(SaveError::Form { faults });
    }
    let new = store.replace(part, &patches)?;
    Ok(Saved {
        patches,
        trailers,
        new,
    })
}

/// The commits of a range in order, each on top of the one before.
fn commits(git: &Git, range: &str) -> Result<Vec<String>, SaveError> {
    let limit = format!("--max-count={}", MAX_COMMITS.saturating_add(1));
    let listing = git.text([
        "rev-list",
        "--reverse",
        "--topo-order",
        "--parents",
        &limit,
        "--end-of-options",
        range,
        "--",
    ])?;
    let mut commits: Vec<String> = Vec::new();
    for line in listing.lines() {
        let names: Vec<&str> = line.split(' ').collect();
        let &[commit, parent] = names.as_slice() else {
            return Err(SaveError::NotLinear {
                commit: title(git, names.first().unwrap_or(&line))?,
            });
        };
        if commits.last().is_some_and(|last| last != parent) {
            return Err(SaveError::NotLinear {
                commit: title(git, commit)?,
            });
        }
        commits.push(commit.to_owned());
    }
    if (1..=MAX_COMMITS).contains(&commits.len()) {
        Ok(commits)
    } else {
        Err(SaveError::Count {
            range: range.to_owned(),
            count: commits.len(),
        })
    }
}

/// The commit as a patch, and how many trailers were left out.
fn patch(git: &Git, commit: &str) -> Result<(Patch, usize), SaveError> {
    let date = git.text([
        "show",
        "--no-patch",
        "--date=format-local:%a, %d %b %Y %H:%M:%S +0000",
        "--format=%ad",
        commit,
    ])?;
    let message = git.text(["show", "--no-patch", "--format=%B", commit])?;
    let (title, body) = message.split_once('\n').unwrap_or((&message, ""));
    if !is_date(&date) {
        return Err(SaveError::Answer {
            commit: title.to_owned(),
            answer: date,
        });
    }
    let mut body = body.trim_start_matches('\n').to_owned();
    let trailers = strip_sender(&mut body);
    let mut files = changes(git, title, commit)?;
    files.sort_by(|one, other| one.path.cmp(&other.path));
    let patch = Patch {
        date,
        title: title.to_owned(),
        body,
        files,
    };
    // What cannot be read again, such as a message with a line of `---`, is not written.
    let read = Patch::parse(&patch.to_string()).map_err(|fault| SaveError::Unreadable {
        commit: title.to_owned(),
        fault,
    })?;
    Ok((read, trailers))
}

fn changes(git: &Git, title: &str, commit: &str) -> Result<Vec<FileChange>, SaveError> {
    let raw = git.run([
        "diff-tree",
        "-r",
        "-z",
        "--raw",
        "--no-abbrev",
        "--no-commit-id",
        "-M",
        "-C",
        commit,
    ])?;
    let raw = text(raw, "diff-tree")?;
    let mut fields = raw.split('\0').filter(|field| !field.is_empty());
    let mut files = Vec::new();
    while let Some(status) = fields.next() {
        let wrong = || SaveError::Answer {
            commit: title.to_owned(),
            answer: status.to_owned(),
        };
        let parts: Vec<&str> = status.split(' ').collect();
        let &[base_mode, mode, base, id, kind] = parts.as_slice() else {
            return Err(wrong());
        };
        let path = fields.next().ok_or_else(wrong)?;
        if kind.starts_with(['R', 'C']) {
            return Err(SaveError::Moved {
                commit: title.to_owned(),
                path: fields.next().unwrap_or_default().to_owned(),
                from: path.to_owned(),
            });
        }
        let named = |fault| SaveError::Name {
            commit: title.to_owned(),
            path: path.to_owned(),
            fault,
        };
        let base = entry(base_mode.trim_start_matches(':'), base).map_err(named)?;
        let result = entry(mode, id).map_err(named)?;
        let path = path.parse().map_err(named)?;
        files.push(change(git, title, path, base, result)?);
    }
    if files.is_empty() {
        return Err(SaveError::Empty {
            commit: title.to_owned(),
        });
    }
    Ok(files)
}

/// A side of a difference; git writes mode 000000 where there is no file.
fn entry(mode: &str, id: &str) -> Result<Option<Entry>, NameError> {
    if mode == "000000" {
        return Ok(None);
    }
    let mode: Mode = mode.parse()?;
    let id: BlobId = id.parse()?;
    Ok(Some(Entry { mode, id }))
}

fn change(
    git: &Git,
    title: &str,
    path: RepoPath,
    base: Option<Entry>,
    result: Option<Entry>,
) -> Result<FileChange, SaveError> {
    let content = |entry: &Option<Entry>| -> Result<Vec<u8>, SaveError> {
        let content = match entry {
            Some(entry) => git.blob(entry.id.as_str())?,
            None => Vec::new(),
        };
        if content.contains(&0) || content.len() > MAX_PATCH {
            return Err(SaveError::Binary {
                commit: title.to_owned(),
                path: path.clone(),
            });
        }
        Ok(content)
    };
    let (before, after) = (content(&base)?, content(&result)?);
    let script = match (&base, &result) {
        (Some(one), Some(other)) => {
            EditScript::from_hunks(&after, &hunks(git, title, &one.id, &other.id)?)
        }
        _ => EditScript::whole(&after),
    };
    let script = script.map_err(|fault| SaveError::Script {
        commit: title.to_owned(),
        path: path.clone(),
        fault,
    })?;
    let script = script.without_registry(&before);
    if result.is_some() && script.apply(&before).as_ref() != Ok(&after) {
        return Err(SaveError::Difference {
            commit: title.to_owned(),
            path,
        });
    }
    Ok(FileChange {
        tests: tests_begin(&path, &after),
        path,
        base,
        result,
        script,
    })
}

/// Where two blobs differ. Only the headings are read: each other line begins with one of ` +-\`.
fn hunks(git: &Git, title: &str, base: &BlobId, result: &BlobId) -> Result<Vec<Hunk>, SaveError> {
    let difference = git.run([
        "diff",
        "--no-ext-diff",
        "--no-textconv",
        "--no-color",
        "--text",
        "--unified=0",
        "--inter-hunk-context=0",
        // The fewest lines: a line that did not change has no place here.
        "--diff-algorithm=minimal",
        "--indent-heuristic",
        base.as_str(),
        result.as_str(),
    ])?;
    difference
        .split(|byte| *byte == b'\n')
        .filter(|line| line.starts_with(b"@@ "))
        .map(|line| {
            let line = String::from_utf8_lossy(line);
            hunk(&line).ok_or_else(|| SaveError::Answer {
                commit: title.to_owned(),
                answer: line.into_owned(),
            })
        })
        .collect()
}

/// `@@ -FIRST[,COUNT] +FIRST[,COUNT] @@`
fn hunk(heading: &str) -> Option<Hunk> {
    let mut words = heading.split(' ').skip(1);
    let mut range = |sign| {
        let range = words.next()?.strip_prefix(sign)?;
        let (first, count) = range.split_once(',').unwrap_or((range, "1"));
        Some((first.parse().ok()?, count.parse().ok()?))
    };
    let (base_first, base_count) = range('-')?;
    let (result_first, result_count) = range('+')?;
    Some(Hunk {
        base_first,
        base_count,
        result_first,
        result_count,
    })
}

/// What only the checkout can tell about a patch.
fn must_fit(git: &Git, commit: &str, patch: &Patch) -> Result<(), SaveError> {
    let path = git.checkout().canonicalize().unwrap_or_default();
    let path = path.to_string_lossy();
    if path.len() > 1 && patch.to_string().contains(&*path) {
        return Err(SaveError::MachinePath {
            commit: patch.title.clone(),
            path: path.into_owned(),
        });
    }
    let Ok(list) = git.blob(&format!("{commit}:{COMPONENTS}")) else {
        return Ok(());
    };
    let list = String::from_utf8_lossy(&list);
    for component in components(&patch.title).unwrap_or_default() {
        if !list.contains(&format!("'{component}'")) {
            return Err(SaveError::Component {
                commit: patch.title.clone(),
                component: component.to_owned(),
            });
        }
    }
    Ok(())
}

fn title(git: &Git, commit: &str) -> Result<String, SaveError> {
    Ok(git.text(["show", "--no-patch", "--format=%s", commit, "--"])?)
}

fn join(faults: &[CheckFault]) -> String {
    let lines: Vec<String> = faults.iter().map(CheckFault::to_string).collect();
    lines.join("\n")
}
