// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Makes commits of stored patches, in a repository's object database alone: no work tree, no index and no branch
//! changes, so whatever goes wrong leaves nothing behind but objects that git collects.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter, Result as FmtResult};
use std::io::Error as IoError;

use thiserror::Error;

use crate::check::describe;
use crate::edit::EditError;
use crate::git::{Git, GitError};
use crate::names::{BlobId, PartName, RepoPath};
use crate::patch::{AUTHOR_EMAIL, AUTHOR_NAME, Entry, FileChange, Patch, tests_begin};
use crate::store::{Part, Series, Stored};

/// Why there are no commits.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// Git failed.
    #[error(transparent)]
    Git(#[from] GitError),
    /// There is no place for a temporary index.
    #[error("no temporary folder for an index")]
    Temporary {
        /// Why.
        #[source]
        source: IoError,
    },
    /// Git describes a tree in words that it should not have.
    #[error("git ls-tree answered {text:?}")]
    Tree {
        /// The words.
        text: String,
    },
    /// The checkout is not what the series is made for.
    #[error("{0}")]
    BaseDiffers(Differences),
    /// The script does not fit a base that has the right id: the stored patch is broken.
    #[error("{patch}: {path}: {fault}")]
    Script {
        /// Which.
        patch: String,
        /// The file.
        path: RepoPath,
        /// What is wrong.
        fault: EditError,
    },
    /// The result is not the one that was saved: the stored patch is broken.
    #[error("{patch}: {path} became {found}, not {expected}")]
    Result {
        /// Which.
        patch: String,
        /// The file.
        path: RepoPath,
        /// What the patch says.
        expected: BlobId,
        /// What it does.
        found: String,
    },
    /// The tests of a file begin elsewhere.
    #[error("{patch}: {path}: `Tests` is not the line where they begin; save it anew")]
    Tests {
        /// Which.
        patch: String,
        /// The file.
        path: RepoPath,
    },
}

/// A file that is not what a patch is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The file.
    pub path: RepoPath,
    /// The first patch that touches it.
    pub patch: String,
    /// What that is made for.
    pub expected: String,
    /// What there is.
    pub found: String,
}

/// All files that are not what the series is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Differences {
    /// What the series is made for.
    pub base: String,
    /// The files.
    pub files: Vec<Difference>,
    /// Parts that leave such files as they are expected, and that were not asked for.
    pub missing: Vec<PartName>,
    /// Whether each file is as some patch leaves it.
    pub applied: bool,
}

impl Display for Differences {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        let Self {
            base,
            files,
            missing,
            applied,
        } = self;
        write!(
            f,
            "the checkout is not what the series is made for ({base}):"
        )?;
        for file in files {
            let Difference {
                path,
                patch,
                expected,
                found,
            } = file;
            write!(
                f,
                "\n  {path}: expected {expected}, found {found} ({patch})"
            )?;
        }
        for part in missing {
            write!(f, "\n{part} comes first: apply it too")?;
        }
        if *applied {
            write!(f, "\nhas it been applied there already?")?;
        }
        Ok(())
    }
}

/// Whom the commits name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The project: the same patches on the same commit are the same commits everywhere.
    Project,
    /// Whomever git takes for its user: for the one who sends the series.
    Caller,
}

/// The commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// What the first is based on.
    pub base: String,
    /// For each part in order, its commits in order.
    pub parts: Vec<(PartName, Vec<String>)>,
}

impl Replayed {
    /// The last commit.
    #[must_use]
    pub fn tip(&self) -> &str {
        let commits = self.parts.iter().flat_map(|(_, commits)| commits);
        commits.last().unwrap_or(&self.base)
    }
}

/// Makes commits of `parts` of `series`, the first on top of the commit `onto`.
pub fn replay(
    git: &Git,
    series: &Series,
    parts: &[&Part],
    onto: &str,
    identity: Identity,
) -> Result<Replayed, ReplayError> {
    let base = git.commit(onto)?;
    compare(tree(git, &base)?, series, parts)?;
    let folder = tempfile::tempdir().map_err(|source| ReplayError::Temporary { source })?;
    let index = folder.path().join("index");
    let git = git.with("GIT_INDEX_FILE", &index.to_string_lossy());
    git.run(["read-tree", &base])?;
    let mut replayed = Replayed {
        base,
        parts: Vec::new(),
    };
    for part in parts {
        replayed.parts.push((part.name.clone(), Vec::new()));
        for stored in &part.patches {
            let commit = commit(&git, stored, replayed.tip(), identity)?;
            if let Some((_, commits)) = replayed.parts.last_mut() {
                commits.push(commit);
            }
        }
    }
    Ok(replayed)
}

type Tree = BTreeMap<String, String>;

/// For each path its mode and id, as [`describe`] would tell them.
fn tree(git: &Git, commit: &str) -> Result<Tree, ReplayError> {
    let listing = git.run(["ls-tree", "-r", "-z", commit])?;
    let mut tree = Tree::new();
    for entry in listing.split(|byte| *byte == 0).filter(|e| !e.is_empty()) {
        // A path that is not UTF-8 is one that no patch can name.
        let entry = String::from_utf8_lossy(entry);
        let fields = entry.split_once('\t').and_then(|(fields, path)| {
            let (mode, fields) = fields.split_once(' ')?;
            let (_, id) = fields.split_once(' ')?;
            Some((path, format!("{id} ({mode})")))
        });
        let Some((path, state)) = fields else {
            return Err(ReplayError::Tree {
                text: entry.into_owned(),
            });
        };
        tree.insert(path.to_owned(), state);
    }
    Ok(tree)
}

/// Looks at every file before anything is made, so that all that differ are told at once.
fn compare(tree: Tree, series: &Series, parts: &[&Part]) -> Result<(), ReplayError> {
    let mut current = tree;
    let mut files = Vec::new();
    for Stored { name, patch } in parts.iter().flat_map(|part| &part.patches) {
        let mut differ = |file: &FileChange, found| {
            files.push(Difference {
                path: file.path.clone(),
                patch: name.clone(),
                expected: describe(file.base.as_ref()),
                found,
            });
        };
        for file in &patch.files {
            let found = current.remove(file.path.as_str());
            let found = found.unwrap_or_else(|| describe(None));
            if found != describe(file.base.as_ref()) {
                differ(file, found);
            }
        }
        for file in patch.files.iter().filter(|file| file.result.is_some()) {
            // Git's index would make room for the new file without a word.
            if let Some(obstacle) = obstacle(&current, file.path.as_str()) {
                differ(file, obstacle);
            }
            let result = describe(file.result.as_ref());
            current.insert(file.path.as_str().to_owned(), result);
        }
    }
    if files.is_empty() {
        return Ok(());
    }
    let missing = series
        .parts
        .iter()
        .filter(|part| !parts.iter().any(|chosen| chosen.name == part.name))
        .filter(|part| {
            let leaves = |file: &Difference| leaves(part, &file.path, &file.expected);
            files.iter().any(leaves)
        })
        .map(|part| part.name.clone())
        .collect();
    let is_result = |file: &Difference| {
        let leaves = |part: &Part| leaves(part, &file.path, &file.found);
        series.parts.iter().any(leaves)
    };
    let applied = files.iter().all(is_result);
    Err(ReplayError::BaseDiffers(Differences {
        base: format!("{}, {}", series.base.name, series.base.commit),
        files,
        missing,
        applied,
    }))
}

/// What is in the way of a file: a file where it needs a folder, or a folder in its own place.
fn obstacle(tree: &Tree, path: &str) -> Option<String> {
    let ancestors = path
        .match_indices('/')
        .filter_map(|(end, _)| path.get(..end));
    for ancestor in ancestors {
        if tree.contains_key(ancestor) {
            return Some(format!("the file {ancestor}"));
        }
    }
    let inside = format!("{path}/");
    let next = tree.range(inside.clone()..).next();
    next.filter(|(name, _)| name.starts_with(&inside))
        .map(|_| "a folder".to_owned())
}

/// Whether some patch of a part leaves a file so.
fn leaves(part: &Part, path: &RepoPath, state: &str) -> bool {
    part.patches
        .iter()
        .flat_map(|stored| &stored.patch.files)
        .any(|file| {
            file.path == *path && file.result.is_some() && describe(file.result.as_ref()) == state
        })
}

fn commit(
    git: &Git,
    stored: &Stored,
    parent: &str,
    identity: Identity,
) -> Result<String, ReplayError> {
    let Stored { name, patch } = stored;
    let mut entries = Vec::new();
    for file in &patch.files {
        entries.extend(index_entry(git, name, file)?);
    }
    git.feed(["update-index", "-z", "--index-info"], &entries)?;
    let tree = git.text(["write-tree"])?;
    let message = patch.message();
    let commit = as_author(git, patch, identity)
        .feed_text(["commit-tree", "-p", parent, &tree], message.as_bytes())?;
    Ok(commit)
}

/// Writes the file's content and gives the line for the index.
fn index_entry(git: &Git, name: &str, file: &FileChange) -> Result<Vec<u8>, ReplayError> {
    let Some(Entry { mode, id }) = &file.result else {
        let nothing = "0".repeat(40);
        return Ok(format!("0 {nothing}\t{}\0", file.path).into_bytes());
    };
    let base = match &file.base {
        Some(base) => git.blob(base.id.as_str())?,
        None => Vec::new(),
    };
    let content = file
        .script
        .apply(&base)
        .map_err(|fault| ReplayError::Script {
            patch: name.to_owned(),
            path: file.path.clone(),
            fault,
        })?;
    let found = git.feed_text(["hash-object", "-w", "--stdin"], &content)?;
    if found != id.as_str() {
        return Err(ReplayError::Result {
            patch: name.to_owned(),
            path: file.path.clone(),
            expected: id.clone(),
            found,
        });
    }
    if file.tests != tests_begin(&file.path, &content) {
        return Err(ReplayError::Tests {
            patch: name.to_owned(),
            path: file.path.clone(),
        });
    }
    Ok(format!("{mode} {id}\t{}\0", file.path).into_bytes())
}

/// The date of the committer is the author's, or no two runs would make the same commit.
fn as_author(git: &Git, patch: &Patch, identity: Identity) -> Git {
    let git = git
        .with("GIT_AUTHOR_DATE", &patch.date)
        .with("GIT_COMMITTER_DATE", &patch.date);
    match identity {
        Identity::Caller => git,
        Identity::Project => git
            .with("GIT_AUTHOR_NAME", AUTHOR_NAME)
            .with("GIT_AUTHOR_EMAIL", AUTHOR_EMAIL)
            .with("GIT_COMMITTER_NAME", AUTHOR_NAME)
            .with("GIT_COMMITTER_EMAIL", AUTHOR_EMAIL),
    }
}
