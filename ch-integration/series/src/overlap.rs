// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Added lines that the base has too, somewhere: code that was moved, indented anew, or modelled on another file. An
//! edit script takes them for new, so people must look: what is somebody else's does not belong into the store.
//!
//! Single lines say nothing, two programs of one language have many in common. What counts is a run of lines that say
//! something, in the same order, whatever their indentation.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use crate::edit::EditScript;
use crate::git::{Git, GitError};
use crate::names::RepoPath;
use crate::store::Stored;

/// The shortest run that is told.
const RUN: usize = 3;
/// How many letters and digits make a line say something.
const SIGNIFICANT: usize = 8;

/// A run of added lines that the base has too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The patch.
    pub patch: String,
    /// The file that it adds them to.
    pub path: RepoPath,
    /// How many lines that say something.
    pub lines: usize,
    /// The first of them.
    pub first: String,
    /// A file of the base that has the run's beginning.
    pub origin: String,
}

/// All runs that the patches share with the tree of `base`.
pub fn overlaps<'a>(
    git: &Git,
    base: &str,
    patches: impl IntoIterator<Item = &'a Stored>,
) -> Result<Vec<Overlap>, GitError> {
    let known = Known::read(git, base)?;
    let mut found = Vec::new();
    for Stored { name, patch } in patches {
        for file in patch
            .files
            .iter()
            .filter(|file| !is_lock(file.path.as_str()))
        {
            for (lines, first, origin) in known.runs(&file.script) {
                found.push(Overlap {
                    patch: name.clone(),
                    path: file.path.clone(),
                    lines,
                    first,
                    origin,
                });
            }
        }
    }
    Ok(found)
}

/// The runs of a tree: where each that is of the shortest length is found.
struct Known {
    files: Vec<String>,
    runs: HashMap<u64, usize>,
}

impl Known {
    fn read(git: &Git, base: &str) -> Result<Self, GitError> {
        // An empty pattern prints every line of every file that is not binary: `COMMIT:PATH`, NUL, line.
        let listing = git.run([
            "grep",
            "-I",
            "--null",
            "--no-color",
            "--no-line-number",
            "--no-column",
            "--no-heading",
            "--no-break",
            "-e",
            "",
            base,
            "--",
        ])?;
        let listing = String::from_utf8_lossy(&listing);
        let mut known = Self {
            files: Vec::new(),
            runs: HashMap::new(),
        };
        let mut lines: Vec<&str> = Vec::new();
        let mut current = "";
        for (name, line) in listing.split('\n').filter_map(|line| line.split_once('\0')) {
            if name != current {
                known.learn(current, &lines);
                lines.clear();
                current = name;
            }
            lines.extend(significant(line));
        }
        known.learn(current, &lines);
        Ok(known)
    }

    fn learn(&mut self, name: &str, lines: &[&str]) {
        let path = name.split_once(':').map_or(name, |(_, path)| path);
        if is_lock(path) {
            return;
        }
        let file = self.files.len();
        self.files.push(path.to_owned());
        for run in lines.windows(RUN) {
            self.runs.entry(hash(run)).or_insert(file);
        }
    }

    /// The longest runs in what a script adds: number of lines, the first line, the file that has its beginning.
    fn runs(&self, script: &EditScript) -> Vec<(usize, String, String)> {
        let mut found: Vec<(usize, String, String)> = Vec::new();
        for block in script.blocks() {
            let lines: Vec<&str> = block.iter().filter_map(|line| significant(line)).collect();
            let mut in_run = false;
            for run in lines.windows(RUN) {
                let origin = self.runs.get(&hash(run));
                match (origin.and_then(|file| self.files.get(*file)), in_run) {
                    (Some(_), true) => {
                        if let Some((lines, ..)) = found.last_mut() {
                            *lines = lines.saturating_add(1);
                        }
                    }
                    (Some(origin), false) => {
                        let first = run.first().copied().unwrap_or_default();
                        found.push((RUN, first.to_owned(), origin.clone()));
                    }
                    (None, _) => {}
                }
                in_run = origin.is_some();
            }
        }
        found
    }
}

fn significant(line: &str) -> Option<&str> {
    let line = line.trim();
    let letters = line.chars().filter(|c| c.is_alphanumeric());
    (letters.count() >= SIGNIFICANT).then_some(line)
}

/// A lock file's lines are written by Cargo, and alike everywhere.
fn is_lock(path: &str) -> bool {
    path.ends_with("Cargo.lock")
}

fn hash(run: &[&str]) -> u64 {
    let mut hasher = DefaultHasher::new();
    run.hash(&mut hasher);
    hasher.finish()
}
