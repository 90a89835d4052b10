// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Git itself does what git can do: objects, trees, commits and mails. Only its plumbing is called where something is
//! made, so neither the work tree nor the index of a checkout is touched, and no hook for commits runs.

use std::ffi::OsStr;
use std::io::{Error as IoError, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use thiserror::Error;

/// Settings of a person that would change what is read or written.
const SETTINGS: [&str; 8] = [
    "core.quotePath=false",
    "core.splitIndex=false",
    "core.fsmonitor=false",
    "diff.context=3",
    "diff.mnemonicPrefix=false",
    "diff.noPrefix=false",
    "diff.suppressBlankEmpty=false",
    "i18n.commitEncoding=UTF-8",
];

/// What is set while a hook runs, and then says that every command is about another repository.
pub const LOCAL_VARIABLES: [&str; 9] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
];

/// Why git did not do as it was told.
#[derive(Debug, Error)]
pub enum GitError {
    /// It could not be run.
    #[error("git cannot be run")]
    Run {
        /// Why.
        #[source]
        source: IoError,
    },
    /// It failed.
    #[error("git {command} failed: {message}")]
    Failed {
        /// What was asked for.
        command: String,
        /// What it wrote to standard error.
        message: String,
    },
    /// It answered in bytes that are not text.
    #[error("git {command} did not answer in UTF-8")]
    NotText {
        /// What was asked for.
        command: String,
    },
}

/// A repository.
#[derive(Clone, Debug)]
pub struct Git {
    checkout: PathBuf,
    /// Set for a call that must not use the repository's own index, or that makes a commit.
    variables: Vec<(&'static str, String)>,
}

impl Git {
    /// The repository of a checkout, or a bare one.
    pub fn open(checkout: &Path) -> Result<Self, GitError> {
        let git = Self {
            checkout: checkout.to_owned(),
            variables: Vec::new(),
        };
        git.text(["rev-parse", "--git-dir"])?;
        Ok(git)
    }

    /// The same with a further variable in its environment.
    #[must_use]
    pub fn with(&self, name: &'static str, value: &str) -> Self {
        let mut git = self.clone();
        git.variables.push((name, value.to_owned()));
        git
    }

    /// Where it is.
    #[must_use]
    pub fn checkout(&self) -> &Path {
        &self.checkout
    }

    /// Runs a command and gives what it prints.
    pub fn run<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Vec<u8>, GitError> {
        self.feed(arguments, b"")
    }

    /// The same for a command that prints one text; without the newline at its end.
    pub fn text<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<String, GitError> {
        text(self.run(arguments)?, "")
    }

    /// The same for a command that is given something to read.
    pub fn feed<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
        input: &[u8],
    ) -> Result<Vec<u8>, GitError> {
        let mut command = self.command();
        command.args(arguments);
        let name = name(&command);
        let failed = |source| GitError::Run { source };
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let pipe = child.stdin.take();
        let output = thread::scope(|scope| {
            // A git that fails may not have read everything; its status says more than the broken pipe.
            scope.spawn(move || pipe.map(|mut pipe| pipe.write_all(input)));
            child.wait_with_output()
        })
        .map_err(failed)?;
        if output.status.success() {
            Ok(output.stdout)
        } else {
            Err(GitError::Failed {
                command: name,
                message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            })
        }
    }

    /// The same, printing one text.
    pub fn feed_text<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
        input: &[u8],
    ) -> Result<String, GitError> {
        text(self.feed(arguments, input)?, "")
    }

    /// The commit that a name stands for.
    pub fn commit(&self, name: &str) -> Result<String, GitError> {
        let commit = format!("{name}^{{commit}}");
        self.text(["rev-parse", "--verify", "--end-of-options", &commit])
    }

    /// The content of a blob.
    pub fn blob(&self, id: &str) -> Result<Vec<u8>, GitError> {
        self.run(["cat-file", "blob", id])
    }

    fn command(&self) -> Command {
        let mut command = Command::new("git");
        for name in LOCAL_VARIABLES {
            command.env_remove(name);
        }
        // A replacement would give another content under the same id.
        command.env("GIT_NO_REPLACE_OBJECTS", "1");
        command.env("LC_ALL", "C").env("TZ", "UTC");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.arg("-C").arg(&self.checkout);
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        command
    }
}

/// Bytes of git that must be text, without the newline at their end.
pub(crate) fn text(bytes: Vec<u8>, command: &str) -> Result<String, GitError> {
    let mut text = String::from_utf8(bytes).map_err(|_| GitError::NotText {
        command: command.to_owned(),
    })?;
    text.truncate(text.trim_end_matches('\n').len());
    Ok(text)
}

/// The subcommand, which comes after the settings.
fn name(command: &Command) -> String {
    command
        .get_args()
        .skip(2 + 2 * SETTINGS.len())
        .map(|argument| argument.to_string_lossy())
        .take(2)
        .collect::<Vec<_>>()
        .join(" ")
}
