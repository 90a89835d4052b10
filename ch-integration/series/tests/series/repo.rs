// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A repository of two branches, as small as it can be, and a folder for its series.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use patch_series::git::{Git, LOCAL_VARIABLES};
use patch_series::names::PartName;
use patch_series::publish::branch;
use patch_series::replay::{Identity, ReplayError, Replayed, replay};
use patch_series::save::{SaveError, Saved, save};
use patch_series::store::Store;
use tempfile::TempDir;

/// A body in good form.
const BODY: &str = "Because it is needed, in the way that is shown here.";

/// A repository on the branch `work`, whose first commit has the tag `base`.
pub(crate) struct Repo {
    folder: TempDir,
}

impl Repo {
    /// With these files in its first commit.
    pub(crate) fn new(files: &[(&str, &[u8])]) -> Self {
        let repo = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        repo.git(&["init", "--quiet", "--initial-branch=work"]);
        repo.git(&["config", "user.name", "A Developer"]);
        repo.git(&["config", "user.email", "developer@example.com"]);
        repo.git(&["config", "core.autocrlf", "false"]);
        for (path, content) in files {
            repo.write(path, content);
        }
        repo.commit("misc: Begin");
        repo.git(&["tag", "base"]);
        repo
    }

    /// The same history in another place, with the first commit checked out.
    pub(crate) fn checkout(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = self.path().to_string_lossy().into_owned();
        let target = folder.path().to_string_lossy().into_owned();
        self.git(&["clone", "--quiet", "--no-hardlinks", &source, &target]);
        let clone = Self { folder };
        clone.git(&["config", "user.name", "A Sender"]);
        clone.git(&["config", "user.email", "sender@example.com"]);
        clone.git(&["checkout", "--quiet", "--detach", "base"]);
        clone.git(&["branch", "--quiet", "-D", "work"]);
        clone
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn open(&self) -> Git {
        Git::open(self.path()).unwrap()
    }

    pub(crate) fn write(&self, path: &str, content: &[u8]) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn remove(&self, path: &str) {
        fs::remove_file(self.path().join(path)).unwrap();
    }

    pub(crate) fn link(&self, path: &str, target: &str) {
        symlink(target, self.path().join(path)).unwrap();
    }

    pub(crate) fn make_executable(&self, path: &str) {
        fs::set_permissions(self.path().join(path), Permissions::from_mode(0o755)).unwrap();
    }

    /// Commits everything under a title, with a body.
    pub(crate) fn commit(&self, title: &str) {
        self.commit_as(&format!("{title}\n\n{BODY}\n"));
    }

    /// Commits everything with this message.
    pub(crate) fn commit_as(&self, message: &str) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", message]);
    }

    /// Runs git, which must succeed, and gives what it prints.
    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("git");
        for name in LOCAL_VARIABLES {
            command.env_remove(name);
        }
        let output = command
            .arg("-C")
            .arg(self.path())
            .args(arguments)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("LC_ALL", "C")
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "git {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout)
            .unwrap()
            .trim_end()
            .to_owned()
    }

    /// All that a failed command must leave as it was.
    pub(crate) fn state(&self) -> String {
        [
            self.git(&["for-each-ref"]),
            self.git(&["rev-parse", "HEAD"]),
            self.git(&["status", "--porcelain"]),
            self.git(&["ls-files", "--stage"]),
        ]
        .join("\n")
    }
}

/// A folder for a series.
pub(crate) struct Folder {
    folder: TempDir,
}

impl Folder {
    /// For a series without parts.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let index = format!("# The order of the parts\nbase v1 {}\n", "1".repeat(40));
        fs::write(folder.path().join("series"), index).unwrap();
        Self { folder }
    }

    pub(crate) fn store(&self) -> Store {
        Store::new(self.folder.path())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    /// The names of a part's files, in order.
    pub(crate) fn names(&self, part: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path(part))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// The stored text of a part's patches.
    pub(crate) fn patches(&self, part: &str) -> Vec<String> {
        self.names(part)
            .iter()
            .map(|name| self.text(&format!("{part}/{name}")))
            .collect()
    }

    pub(crate) fn save(&self, repo: &Repo, part: &str, range: &str) -> Result<Saved, SaveError> {
        save(&self.store(), &repo.open(), &name(part), range)
    }

    /// Replays parts on what a checkout has checked out.
    pub(crate) fn replay(
        &self,
        checkout: &Repo,
        parts: &[&str],
        identity: Identity,
    ) -> Result<Replayed, ReplayError> {
        let series = self.store().load().unwrap();
        let parts: Vec<PartName> = parts.iter().map(|part| name(part)).collect();
        let parts = series.select(&parts).unwrap();
        replay(&checkout.open(), &series, &parts, "HEAD", identity)
    }

    /// Replays everything as the project, and makes a branch `applied` of it.
    pub(crate) fn apply(&self, checkout: &Repo) -> Replayed {
        let replayed = self.replay(checkout, &[], Identity::Project).unwrap();
        branch(&checkout.open(), &replayed, "applied").unwrap();
        replayed
    }
}

pub(crate) fn name(part: &str) -> PartName {
    part.parse().unwrap()
}
