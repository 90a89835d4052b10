// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Edit scripts in the form that `diff -n` writes (RCS): which lines of the base go, and the lines that come. They hold
//! no context and no removed line, so a script of ours holds nothing of the base.
//!
//! `dFIRST COUNT` deletes COUNT lines from line FIRST on; `aLINE COUNT`, with COUNT lines of text after it, appends
//! them after line LINE. All numbers count the lines of the base from 1, and ascend.

use std::fmt::{Display, Formatter, Result as FmtResult};
use std::str::{self, FromStr};

use thiserror::Error;

use crate::text::Lines;

/// Stands for the line by which a lock file of Cargo says that a package is from the registry. The registry's address
/// is the checkout's affair: every lock file that takes a package from one has the line already.
pub const REGISTRY: &str = r#"source = "<registry>""#;
const NAMES_REGISTRY: &[u8] = br#"source = "registry+"#;

/// Why a script cannot be read, made or applied. Lines are those of the stored file where it is read, of the base
/// where it is applied.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum EditError {
    /// Neither `aLINE COUNT` nor `dFIRST COUNT`.
    #[error("line {line}: not a command of an edit script: {text:?}")]
    NotACommand {
        /// Where.
        line: usize,
        /// What stands there, shortened.
        text: String,
    },
    /// The text ends before the lines that a command announces.
    #[error("line {line}: {announced} lines were announced and {found} are there")]
    Truncated {
        /// Where the command is.
        line: usize,
        /// What it says.
        announced: usize,
        /// What there is.
        found: usize,
    },
    /// A command goes back behind the one before.
    #[error("line {line}: the command does not come after the one before it")]
    Disorder {
        /// Where.
        line: usize,
    },
    /// A command names lines that the base does not have.
    #[error("the script needs {needed} lines and the base has {present}")]
    BeyondBase {
        /// The last line that the script names.
        needed: usize,
        /// The lines of the base.
        present: usize,
    },
    /// A hunk names lines that the result does not have: a mistake of the caller.
    #[error("a hunk is outside of the result")]
    BeyondResult,
    /// A line to be added is not text.
    #[error("line {line} of the result is not UTF-8")]
    NotUtf8 {
        /// The line of the result.
        line: usize,
    },
}

/// Where two texts differ, as in the heading of a hunk without context: a first line, counted from 1, and a number of
/// lines. Where the number is 0, the line is the one before the gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hunk {
    /// First line of the base.
    pub base_first: usize,
    /// Lines of the base.
    pub base_count: usize,
    /// First line of the result.
    pub result_first: usize,
    /// Lines of the result.
    pub result_count: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Command {
    Delete { first: usize, count: usize },
    Append { after: usize, lines: Vec<String> },
}

/// The difference between two texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EditScript {
    commands: Vec<Command>,
    /// The last line added has no newline: it is the end of a file that has none there.
    unterminated: bool,
}

impl EditScript {
    /// The script that makes `result` of its base, given where they differ.
    pub fn from_hunks(result: &[u8], hunks: &[Hunk]) -> Result<Self, EditError> {
        let lines: Vec<&[u8]> = split(result);
        let mut script = Self::default();
        for hunk in hunks {
            if hunk.base_count > 0 {
                script.commands.push(Command::Delete {
                    first: hunk.base_first,
                    count: hunk.base_count,
                });
            }
            if hunk.result_count > 0 {
                let start = hunk.result_first.saturating_sub(1);
                let text = lines
                    .get(start..start.saturating_add(hunk.result_count))
                    .ok_or(EditError::BeyondResult)?;
                script.commands.push(Command::Append {
                    after: hunk
                        .base_first
                        .saturating_add(hunk.base_count.saturating_sub(1)),
                    lines: added(text, hunk.result_first)?,
                });
                script.unterminated = text.last().is_some_and(|line| !line.ends_with(b"\n"));
            }
        }
        Ok(script)
    }

    /// The script that makes `result` of nothing.
    pub fn whole(result: &[u8]) -> Result<Self, EditError> {
        let lines = split(result);
        if lines.is_empty() {
            return Ok(Self::default());
        }
        let hunk = Hunk {
            base_first: 0,
            base_count: 0,
            result_first: 1,
            result_count: lines.len(),
        };
        Self::from_hunks(result, &[hunk])
    }

    /// Reads commands until an empty line or the end. `unterminated` comes from outside of the script, because a text
    /// file cannot show it in place.
    pub(crate) fn read(lines: &mut Lines<'_>, unterminated: bool) -> Result<Self, EditError> {
        let mut commands = Vec::new();
        // The first line of the base that a further command may touch, and append after.
        let (mut next, mut next_after) = (1_usize, 0_usize);
        while let Some(text) = lines.peek().filter(|text| !text.is_empty()) {
            let line = lines.number();
            lines.next();
            let Heading {
                delete,
                position,
                count,
            } = text.parse().map_err(|()| EditError::NotACommand {
                line,
                text: text.chars().take(40).collect(),
            })?;
            let disorder = EditError::Disorder { line };
            if delete {
                let end = position.checked_add(count);
                let Some(end) = end.filter(|_| position >= next) else {
                    return Err(disorder);
                };
                (next, next_after) = (end, end.saturating_sub(1));
                commands.push(Command::Delete {
                    first: position,
                    count,
                });
            } else {
                let end = position.checked_add(1);
                let Some(end) = end.filter(|_| position >= next_after) else {
                    return Err(disorder);
                };
                (next, next_after) = (end, end);
                commands.push(Command::Append {
                    after: position,
                    lines: take(lines, line, count)?,
                });
            }
        }
        Ok(Self {
            commands,
            unterminated,
        })
    }

    /// The same script with [`REGISTRY`] for each added line by which `base` names its registry.
    #[must_use]
    pub fn without_registry(mut self, base: &[u8]) -> Self {
        let lines = split(base);
        let Some(line) = registry(&lines) else {
            return self;
        };
        for command in &mut self.commands {
            if let Command::Append { lines, .. } = command {
                for added in lines.iter_mut().filter(|added| added.as_bytes() == line) {
                    REGISTRY.clone_into(added);
                }
            }
        }
        self
    }

    /// Makes the result of `base`.
    pub fn apply(&self, base: &[u8]) -> Result<Vec<u8>, EditError> {
        let lines = split(base);
        let beyond = |needed| EditError::BeyondBase {
            needed,
            present: lines.len(),
        };
        let mut result = Vec::with_capacity(base.len());
        // Lines of the base that are dealt with.
        let mut done = 0_usize;
        for command in &self.commands {
            match command {
                Command::Delete { first, count } => {
                    let keep = first.saturating_sub(1);
                    let kept = lines.get(done..keep).ok_or_else(|| beyond(keep))?;
                    result.extend(kept.iter().copied().flatten());
                    done = keep.saturating_add(*count);
                    if done > lines.len() {
                        return Err(beyond(done));
                    }
                }
                Command::Append { after, lines: new } => {
                    let kept = lines.get(done..*after).ok_or_else(|| beyond(*after))?;
                    result.extend(kept.iter().copied().flatten());
                    done = *after;
                    for line in new {
                        result.extend_from_slice(match line.as_str() {
                            REGISTRY => registry(&lines).unwrap_or(REGISTRY.as_bytes()),
                            line => line.as_bytes(),
                        });
                        result.push(b'\n');
                    }
                }
            }
        }
        let rest = lines.get(done..).unwrap_or_default();
        result.extend(rest.iter().copied().flatten());
        if self.unterminated && result.ends_with(b"\n") {
            result.pop();
        }
        Ok(result)
    }

    /// Whether the last line added ends a file without a newline.
    #[must_use]
    pub fn is_unterminated(&self) -> bool {
        self.unterminated
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// The lines that it adds.
    pub fn added(&self) -> impl Iterator<Item = &str> {
        self.blocks().flatten().map(String::as_str)
    }

    /// The lines that it adds, each with its number in the result.
    #[must_use]
    pub fn numbered(&self) -> Vec<(usize, &str)> {
        let (mut added, mut removed) = (0_usize, 0_usize);
        let mut numbered = Vec::new();
        for command in &self.commands {
            match command {
                Command::Delete { count, .. } => removed = removed.saturating_add(*count),
                Command::Append { after, lines } => {
                    let before = after.saturating_add(added).saturating_sub(removed);
                    let numbers = before.saturating_add(1)..;
                    numbered.extend(numbers.zip(lines.iter().map(String::as_str)));
                    added = added.saturating_add(lines.len());
                }
            }
        }
        numbered
    }

    /// The lines that it adds, together where they stand together.
    pub fn blocks(&self) -> impl Iterator<Item = &[String]> {
        self.commands.iter().filter_map(|command| match command {
            Command::Append { lines, .. } => Some(lines.as_slice()),
            Command::Delete { .. } => None,
        })
    }

    /// How many lines of the base it removes.
    #[must_use]
    pub fn removed(&self) -> usize {
        self.commands
            .iter()
            .map(|command| match command {
                Command::Delete { count, .. } => *count,
                Command::Append { .. } => 0,
            })
            .fold(0, usize::saturating_add)
    }
}

impl Display for EditScript {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        for command in &self.commands {
            match command {
                Command::Delete { first, count } => writeln!(f, "d{first} {count}")?,
                Command::Append { after, lines } => {
                    writeln!(f, "a{after} {}", lines.len())?;
                    for line in lines {
                        writeln!(f, "{line}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

struct Heading {
    delete: bool,
    position: usize,
    count: usize,
}

impl FromStr for Heading {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (delete, numbers) = match (text.strip_prefix('d'), text.strip_prefix('a')) {
            (Some(numbers), _) => (true, numbers),
            (_, Some(numbers)) => (false, numbers),
            _ => return Err(()),
        };
        let (position, count) = numbers.split_once(' ').ok_or(())?;
        let heading = Self {
            delete,
            position: number(position)?,
            count: number(count)?,
        };
        // A command that does nothing, or that deletes line 0, is nobody's work.
        if heading.count == 0 || (delete && heading.position == 0) {
            return Err(());
        }
        Ok(heading)
    }
}

/// `parse` alone would take `+1`.
fn number(text: &str) -> Result<usize, ()> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().map_err(|_| ())
    } else {
        Err(())
    }
}

/// The count is not believed: nothing is set aside for lines that are not there.
fn take(lines: &mut Lines<'_>, line: usize, count: usize) -> Result<Vec<String>, EditError> {
    let taken: Vec<String> = lines.by_ref().take(count).map(str::to_owned).collect();
    if taken.len() == count {
        Ok(taken)
    } else {
        Err(EditError::Truncated {
            line,
            announced: count,
            found: taken.len(),
        })
    }
}

/// The line by which a text names the registry of its packages, if it does.
fn registry<'a>(lines: &[&'a [u8]]) -> Option<&'a [u8]> {
    let line = lines.iter().find(|line| line.starts_with(NAMES_REGISTRY))?;
    Some(line.strip_suffix(b"\n").unwrap_or(line))
}

fn split(text: &[u8]) -> Vec<&[u8]> {
    text.split_inclusive(|byte| *byte == b'\n').collect()
}

fn added(lines: &[&[u8]], first: usize) -> Result<Vec<String>, EditError> {
    lines
        .iter()
        .enumerate()
        .map(|(index, line)| {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            str::from_utf8(line)
                .map(str::to_owned)
                .map_err(|_| EditError::NotUtf8 {
                    line: first.saturating_add(index),
                })
        })
        .collect()
}
