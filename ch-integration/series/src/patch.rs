// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One patch as it is stored: a mail's header, the commit message, and an edit script for each file.
//!
//! ```text
//! From: The virtio-gpu-s3 authors <authors@virtio-gpu-s3.invalid>
//! Date: Sun, 22 Nov 2026 12:00:00 +0000
//! Subject: component: Summary
//!
//! Why and how.
//! ---
//! File: src/lib.rs
//! Mode: 100644
//! Base: 0123456789abcdef0123456789abcdef01234567
//! Result: 89abcdef0123456789abcdef0123456789abcdef
//! Tests: 12
//!
//! d3 1
//! a3 1
//! the line that is there instead
//! ```
//!
//! `Tests` is the line of the result from which a Rust file has nothing but tests, if it has some.
//!
//! There is one way to write a patch, and a file that is written in any other is refused: so nothing hides in it.

use std::fmt::{Display, Formatter, Result as FmtResult};

use thiserror::Error;

use crate::edit::{EditError, EditScript};
use crate::names::{BlobId, Mode, NameError, RepoPath};
use crate::text::Lines;

/// Whom commits name where nobody else is asked for. The one who sends the series puts their own name to it; no
/// person's address is kept here. The domain cannot exist (RFC 2606 §2).
pub const AUTHOR_NAME: &str = "The virtio-gpu-s3 authors";
/// The address that goes with [`AUTHOR_NAME`].
pub const AUTHOR_EMAIL: &str = "authors@virtio-gpu-s3.invalid";
/// The largest stored file, in bytes.
pub const MAX_PATCH: usize = 16 << 20;

const END_OF_MESSAGE: &str = "---";
const NOTHING: &str = "none";
const TESTS: &str = "Tests: ";
/// A date of a mail (RFC 5322 §3.3), in UTC so that it does not say where somebody sat.
const DATE_SHAPE: &str = "Aaa, 00 Aaa 0000 00:00:00 +ZZZZ";

/// Why a stored file is not a patch.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PatchError {
    /// Larger than any patch.
    #[error("{length} bytes are more than the {MAX_PATCH} of a patch")]
    TooLarge {
        /// Its size in bytes.
        length: usize,
    },
    /// A header line is missing, or another is in its place.
    #[error("line {line}: expected `{expected}`")]
    Header {
        /// Where.
        line: usize,
        /// What should be there.
        expected: &'static str,
    },
    /// The author is not the one that patches have here.
    #[error("line {line}: From is not `{AUTHOR_NAME} <{AUTHOR_EMAIL}>`")]
    Author {
        /// Where.
        line: usize,
    },
    /// The date is not one in UTC.
    #[error("line {line}: {date:?} is not a date like `Sun, 22 Nov 2026 12:00:00 +0000`")]
    Date {
        /// Where.
        line: usize,
        /// The text.
        date: String,
    },
    /// The message has no end.
    #[error("the line `---` that ends the message is missing")]
    NoEndOfMessage,
    /// It touches nothing.
    #[error("the patch touches no file")]
    NoFiles,
    /// A name in it is not one.
    #[error("line {line}: {fault}")]
    Name {
        /// Where.
        line: usize,
        /// What is wrong.
        fault: NameError,
    },
    /// The entry says that nothing happens to the file, or lines to a file that goes.
    #[error("{path}: the entry contradicts itself")]
    Entry {
        /// The file.
        path: RepoPath,
    },
    /// The script of a file is malformed.
    #[error("{path}: {fault}")]
    Script {
        /// The file.
        path: RepoPath,
        /// What is wrong.
        fault: EditError,
    },
    /// Not written as this tool writes it.
    #[error("line {line}: not written as `save` writes it")]
    NotCanonical {
        /// The first line that differs.
        line: usize,
    },
}

/// A file's content and mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The mode.
    pub mode: Mode,
    /// The content.
    pub id: BlobId,
}

/// What a patch does to one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChange {
    /// The file.
    pub path: RepoPath,
    /// What it was; `None` if it is new.
    pub base: Option<Entry>,
    /// What it becomes; `None` if it goes.
    pub result: Option<Entry>,
    /// The line of the result where the tests of a Rust file begin, if it has some.
    pub tests: Option<usize>,
    /// How.
    pub script: EditScript,
}

/// A commit, without its base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// The author's date, in the form of a mail, in UTC.
    pub date: String,
    /// The first line of the message.
    pub title: String,
    /// The rest of it.
    pub body: String,
    /// In the order of their paths.
    pub files: Vec<FileChange>,
}

impl Patch {
    /// Reads a stored patch.
    pub fn parse(text: &str) -> Result<Self, PatchError> {
        if text.len() > MAX_PATCH {
            return Err(PatchError::TooLarge { length: text.len() });
        }
        let mut lines = Lines::new(text);
        let line = lines.number();
        if header(&mut lines, "From: ")? != format!("{AUTHOR_NAME} <{AUTHOR_EMAIL}>") {
            return Err(PatchError::Author { line });
        }
        let line = lines.number();
        let date = header(&mut lines, "Date: ")?.to_owned();
        if !is_date(&date) {
            return Err(PatchError::Date { line, date });
        }
        let title = header(&mut lines, "Subject: ")?.to_owned();
        empty(&mut lines)?;
        let body = message_body(&mut lines)?;
        let mut files = Vec::new();
        while lines.peek().is_some() {
            if !files.is_empty() {
                empty(&mut lines)?;
            }
            files.push(FileChange::read(&mut lines)?);
        }
        let patch = Self {
            date,
            title,
            body,
            files,
        };
        patch.must_be(text)?;
        Ok(patch)
    }

    /// The message as a commit has it.
    #[must_use]
    pub fn message(&self) -> String {
        if self.body.is_empty() {
            format!("{}\n", self.title)
        } else {
            format!("{}\n\n{}\n", self.title, self.body)
        }
    }

    /// The name of the file that it is stored in, as the patch of this number.
    #[must_use]
    pub fn file_name(&self, number: usize) -> String {
        let mut slug = String::new();
        for c in self.title.chars() {
            if c.is_ascii_alphanumeric() || c == '_' {
                slug.push(c);
            } else if !slug.is_empty() && !slug.ends_with('-') {
                slug.push('-');
            }
        }
        slug.truncate(52);
        format!("{number:04}-{}.patch", slug.trim_end_matches('-'))
    }

    /// How many lines it adds.
    #[must_use]
    pub fn added(&self) -> usize {
        self.files
            .iter()
            .map(|file| file.script.added().count())
            .fold(0, usize::saturating_add)
    }

    /// How many lines it removes, but for those of files that go as a whole.
    #[must_use]
    pub fn removed(&self) -> usize {
        self.files
            .iter()
            .map(|file| file.script.removed())
            .fold(0, usize::saturating_add)
    }

    /// How many lines of Rust and C it adds that are neither tests, nor comments, nor empty.
    #[must_use]
    pub fn code(&self) -> usize {
        self.files
            .iter()
            .map(FileChange::code)
            .fold(0, usize::saturating_add)
    }

    fn must_be(&self, text: &str) -> Result<(), PatchError> {
        if self.files.is_empty() {
            return Err(PatchError::NoFiles);
        }
        let written = self.to_string();
        if written != text {
            let same = written
                .split('\n')
                .zip(text.split('\n'))
                .take_while(|(ours, theirs)| ours == theirs);
            return Err(PatchError::NotCanonical {
                line: same.count().saturating_add(1),
            });
        }
        for pair in self.files.windows(2) {
            if let [one, next] = pair
                && one.path >= next.path
            {
                return Err(PatchError::Entry {
                    path: next.path.clone(),
                });
            }
        }
        Ok(())
    }
}

impl Display for Patch {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        writeln!(f, "From: {AUTHOR_NAME} <{AUTHOR_EMAIL}>")?;
        writeln!(f, "Date: {}", self.date)?;
        writeln!(f, "Subject: {}\n", self.title)?;
        if !self.body.is_empty() {
            writeln!(f, "{}", self.body)?;
        }
        writeln!(f, "{END_OF_MESSAGE}")?;
        for (index, file) in self.files.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{file}")?;
        }
        Ok(())
    }
}

impl FileChange {
    fn read(lines: &mut Lines<'_>) -> Result<Self, PatchError> {
        let named = |line, fault| PatchError::Name { line, fault };
        let line = lines.number();
        let path: RepoPath = header(lines, "File: ")?
            .parse()
            .map_err(|fault| named(line, fault))?;
        let line = lines.number();
        let modes = header(lines, "Mode: ")?;
        let (before, after) = modes.split_once(" => ").unwrap_or((modes, modes));
        let before: Mode = before.parse().map_err(|fault| named(line, fault))?;
        let after: Mode = after.parse().map_err(|fault| named(line, fault))?;
        let mut entry = |name, mode| -> Result<Option<Entry>, PatchError> {
            let line = lines.number();
            let text = header(lines, name)?;
            if text == NOTHING {
                return Ok(None);
            }
            let id = text.parse().map_err(|fault| named(line, fault))?;
            Ok(Some(Entry { mode, id }))
        };
        let base = entry("Base: ", before)?;
        let result = entry("Result: ", after)?;
        let tests = match lines.peek().and_then(|line| line.strip_prefix(TESTS)) {
            Some(number) => {
                let line = lines.number();
                lines.next();
                Some(number.parse().map_err(|_| PatchError::Header {
                    line,
                    expected: TESTS,
                })?)
            }
            None => None,
        };
        let unterminated = lines.peek() == Some("Newline: none");
        if unterminated {
            lines.next();
        }
        empty(lines)?;
        let script = EditScript::read(lines, unterminated).map_err(|fault| PatchError::Script {
            path: path.clone(),
            fault,
        })?;
        let change = Self {
            path,
            base,
            result,
            tests,
            script,
        };
        change.must_make_sense()?;
        Ok(change)
    }

    fn code(&self) -> usize {
        let Some(comments) = comments(self.path.as_str()) else {
            return 0;
        };
        let tests = self.tests.unwrap_or(usize::MAX);
        let says_something = |line: &str| {
            let line = line.trim_start();
            !line.is_empty() && !comments.iter().any(|begin| line.starts_with(begin))
        };
        let lines = self.script.numbered().into_iter();
        lines
            .filter(|(number, text)| *number < tests && says_something(text))
            .count()
    }

    fn must_make_sense(&self) -> Result<(), PatchError> {
        let sensible = match (&self.base, &self.result) {
            (None, None) => false,
            (Some(_), None) => self.script.is_empty(),
            (None, Some(_)) => self.script.removed() == 0,
            (Some(base), Some(result)) => {
                base != result && self.script.is_empty() == (base.id == result.id)
            }
        };
        // Only an added line can be the one without a newline.
        if sensible && (!self.script.is_unterminated() || self.script.added().next().is_some()) {
            Ok(())
        } else {
            Err(PatchError::Entry {
                path: self.path.clone(),
            })
        }
    }
}

/// The line where the tests of a Rust file begin: at its first test module, behind which nothing else is.
pub(crate) fn tests_begin(path: &RepoPath, content: &[u8]) -> Option<usize> {
    if !path.as_str().ends_with(".rs") {
        return None;
    }
    let text = String::from_utf8_lossy(content);
    let lines: Vec<&str> = text.lines().collect();
    let is_begin = |pair: &[&str]| {
        matches!(pair, [attribute, item]
            if (*attribute == "#[cfg(test)]" || attribute.starts_with("#[cfg(all(test,"))
                && item.starts_with("mod "))
    };
    lines
        .windows(2)
        .position(is_begin)
        .map(|index| index.saturating_add(1))
}

/// How a line begins that is a comment, in a file whose lines count as code. Linux begins each line of a comment with a
/// star; in Rust that may be a statement.
fn comments(path: &str) -> Option<&'static [&'static str]> {
    let tests = path.ends_with("tests.rs") || path.split('/').any(|folder| folder == "tests");
    match path.rsplit_once('.')?.1 {
        "rs" if !tests => Some(&["//"]),
        "c" | "h" if !tests => Some(&["//", "/*", "*"]),
        _ => None,
    }
}

impl Display for FileChange {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        let mode = |entry: &Option<Entry>| entry.as_ref().map(|entry| entry.mode);
        let id = |entry: &Option<Entry>| {
            entry
                .as_ref()
                .map_or_else(|| NOTHING.to_owned(), |entry| entry.id.to_string())
        };
        writeln!(f, "File: {}", self.path)?;
        match (mode(&self.base), mode(&self.result)) {
            (Some(before), Some(after)) if before != after => {
                writeln!(f, "Mode: {before} => {after}")?;
            }
            (before, after) => {
                let mode = after.or(before).unwrap_or(Mode::Regular);
                writeln!(f, "Mode: {mode}")?;
            }
        }
        writeln!(f, "Base: {}", id(&self.base))?;
        writeln!(f, "Result: {}", id(&self.result))?;
        if let Some(line) = self.tests {
            writeln!(f, "{TESTS}{line}")?;
        }
        if self.script.is_unterminated() {
            writeln!(f, "Newline: none")?;
        }
        write!(f, "\n{}", self.script)
    }
}

/// Whether a date has the shape of the ones that are stored. Git judges the rest when it makes the commit.
pub(crate) fn is_date(date: &str) -> bool {
    date.len() == DATE_SHAPE.len()
        && date
            .bytes()
            .zip(DATE_SHAPE.bytes())
            .all(|(found, shape)| match shape {
                b'A' => found.is_ascii_uppercase(),
                b'a' => found.is_ascii_lowercase(),
                b'0' => found.is_ascii_digit(),
                b'Z' => found == b'0',
                other => found == other,
            })
}

fn header<'a>(lines: &mut Lines<'a>, name: &'static str) -> Result<&'a str, PatchError> {
    let line = lines.number();
    lines
        .next()
        .and_then(|text| text.strip_prefix(name))
        .ok_or(PatchError::Header {
            line,
            expected: name.trim_end(),
        })
}

fn empty(lines: &mut Lines<'_>) -> Result<(), PatchError> {
    let line = lines.number();
    match lines.next() {
        Some("") => Ok(()),
        _ => Err(PatchError::Header {
            line,
            expected: "an empty line",
        }),
    }
}

fn message_body(lines: &mut Lines<'_>) -> Result<String, PatchError> {
    let mut body = Vec::new();
    for line in lines {
        if line == END_OF_MESSAGE {
            return Ok(body.join("\n"));
        }
        body.push(line);
    }
    Err(PatchError::NoEndOfMessage)
}
