// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a stored file may name: a path of the tree, a blob, a mode, a part. Each is checked once, where it is made.

use std::fmt::{Display, Formatter, Result as FmtResult};
use std::str::FromStr;

use thiserror::Error;

/// The longest path that a patch may name, in bytes.
const MAX_PATH: usize = 1024;

/// Why a name is not taken.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NameError {
    /// The path could lead out of the tree, into `.git`, or is not one that a text file can show.
    #[error("{path:?} is not a path inside of the tree")]
    Path {
        /// The path.
        path: String,
    },
    /// Not the SHA-1 of a blob.
    #[error("{id:?} is not a blob's id of 40 digits")]
    BlobId {
        /// The text.
        id: String,
    },
    /// Not a file that can be edited by lines.
    #[error("mode {mode:?} is neither 100644 nor 100755")]
    Mode {
        /// The text.
        mode: String,
    },
    /// Not the name of a part.
    #[error("{part:?} is not a part's name: small letters, digits and hyphens")]
    Part {
        /// The text.
        part: String,
    },
}

/// A path relative to the root of the tree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoPath(String);

impl RepoPath {
    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RepoPath {
    type Err = NameError;

    fn from_str(path: &str) -> Result<Self, NameError> {
        let inside = |name: &str| {
            !matches!(name, "" | "." | "..")
                && !name.eq_ignore_ascii_case(".git")
                && !name.contains(|c: char| c.is_control() || c == '\\')
        };
        if path.len() <= MAX_PATH && path.split('/').all(inside) {
            Ok(Self(path.to_owned()))
        } else {
            Err(NameError::Path {
                path: path.chars().take(80).collect(),
            })
        }
    }
}

impl Display for RepoPath {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        f.write_str(&self.0)
    }
}

/// The name that git gives a file's content.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BlobId(String);

impl BlobId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BlobId {
    type Err = NameError;

    fn from_str(id: &str) -> Result<Self, NameError> {
        let hex = id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        // Git writes zeros where there is no blob.
        if hex && id.len() == 40 && id.bytes().any(|b| b != b'0') {
            Ok(Self(id.to_owned()))
        } else {
            Err(NameError::BlobId {
                id: id.chars().take(80).collect(),
            })
        }
    }
}

impl Display for BlobId {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        f.write_str(&self.0)
    }
}

/// The mode of a file that has lines. Links and submodules have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 100644
    Regular,
    /// 100755
    Executable,
}

impl Mode {
    /// As git writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Regular => "100644",
            Self::Executable => "100755",
        }
    }
}

impl FromStr for Mode {
    type Err = NameError;

    fn from_str(mode: &str) -> Result<Self, NameError> {
        match mode {
            "100644" => Ok(Self::Regular),
            "100755" => Ok(Self::Executable),
            other => Err(NameError::Mode {
                mode: other.chars().take(80).collect(),
            }),
        }
    }
}

impl Display for Mode {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        f.write_str(self.as_str())
    }
}

/// The name of a part of the series, and of its folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartName(String);

impl PartName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PartName {
    type Err = NameError;

    fn from_str(part: &str) -> Result<Self, NameError> {
        let plain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if (1..=40).contains(&part.len()) && !part.starts_with('-') && part.bytes().all(plain) {
            Ok(Self(part.to_owned()))
        } else {
            Err(NameError::Part {
                part: part.chars().take(80).collect(),
            })
        }
    }
}

impl Display for PartName {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_leaves_the_tree_is_refused() {
        for path in [
            "",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a//b",
            "a/",
            "./a",
            ".git/config",
            "a/.GIT/x",
            "a\nb",
            "a\\b",
            "a\tb",
        ] {
            assert!(path.parse::<RepoPath>().is_err(), "{path:?}");
        }
        for path in ["a", "a/b.rs", ".gitignore", "docs/größe.md", "a b/c...d"] {
            assert!(path.parse::<RepoPath>().is_ok(), "{path:?}");
        }
    }

    #[test]
    fn a_path_has_a_limit() {
        assert!("a".repeat(MAX_PATH).parse::<RepoPath>().is_ok());
        assert!("a".repeat(MAX_PATH + 1).parse::<RepoPath>().is_err());
    }

    #[test]
    fn only_forty_small_hexadecimal_digits_are_a_blob() {
        assert!(
            "0123456789abcdef0123456789abcdef01234567"
                .parse::<BlobId>()
                .is_ok()
        );
        for id in [
            "",
            "0123",
            "0000000000000000000000000000000000000000",
            "0123456789ABCDEF0123456789abcdef01234567",
            "0123456789abcdef0123456789abcdef012345678",
        ] {
            assert!(id.parse::<BlobId>().is_err(), "{id:?}");
        }
    }

    #[test]
    fn links_and_submodules_have_no_mode_here() {
        assert!("100755".parse::<Mode>().is_ok());
        assert!("120000".parse::<Mode>().is_err());
        assert!("160000".parse::<Mode>().is_err());
    }

    #[test]
    fn a_part_is_one_plain_folder() {
        assert!("s3".parse::<PartName>().is_ok());
        for part in ["", "..", "a/b", "-x", "S3", "a b"] {
            assert!(part.parse::<PartName>().is_err(), "{part:?}");
        }
    }
}
