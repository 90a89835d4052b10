// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A cpio archive of programs, with the libraries they need, for a guest's initramfs.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// The files, staged in a directory that goes with this value.
#[derive(Debug)]
pub(crate) struct Archive {
    root: PathBuf,
    /// Relative to the root; a directory before what is in it.
    names: BTreeSet<PathBuf>,
}

impl Archive {
    pub(crate) fn create(root: &Path) -> Result<Self> {
        fs::create_dir_all(root).with_context(|| format!("create {}", root.display()))?;
        Ok(Self {
            root: root.to_owned(),
            names: BTreeSet::new(),
        })
    }

    /// Adds a file under a name relative to the guest's root.
    pub(crate) fn add(&mut self, file: &Path, name: impl AsRef<Path>) -> Result<()> {
        let name = name.as_ref();
        let staged = self.root.join(name);
        let directory = name.parent().context("a name of a file")?;
        fs::create_dir_all(self.root.join(directory))
            .with_context(|| format!("create {}", directory.display()))?;
        fs::copy(file, &staged).with_context(|| format!("copy {}", file.display()))?;
        let parents = name.ancestors().filter(|name| name.parent().is_some());
        self.names.extend(parents.map(Path::to_owned));
        Ok(())
    }

    /// Adds the files of a directory and of those below it under a name. Links become the files that they name.
    pub(crate) fn add_tree(&mut self, directory: &Path, name: &Path) -> Result<()> {
        let read = || format!("read {}", directory.display());
        for entry in fs::read_dir(directory).with_context(read)? {
            let path = entry.with_context(read)?.path();
            let name = name.join(path.file_name().context("an entry's name")?);
            if path.is_dir() {
                self.add_tree(&path, &name)?;
            } else if path.exists() {
                self.add(&path, &name)?;
            }
        }
        Ok(())
    }

    /// Adds a program, and its loader and libraries at the places where it looks for them.
    pub(crate) fn add_program(&mut self, program: &Path, name: &str) -> Result<()> {
        self.add(program, name)?;
        let output = Command::new("ldd")
            .arg(program)
            .output()
            .context("run ldd")?;
        // ldd fails for a static program, which needs nothing.
        for path in libraries(&String::from_utf8_lossy(&output.stdout)) {
            self.add(&path, path.strip_prefix("/").context("an absolute path")?)?;
        }
        Ok(())
    }

    /// Writes the archive behind what `out` holds.
    pub(crate) fn append_to(&self, busybox: &Path, out: File) -> Result<()> {
        let mut child = Command::new(busybox)
            .args(["cpio", "-o", "-H", "newc", "-R", "0:0"])
            .current_dir(&self.root)
            .stdin(Stdio::piped())
            .stdout(out)
            .stderr(Stdio::null())
            .spawn()
            .context("run cpio")?;
        let mut input = child.stdin.take().context("cpio's input")?;
        for name in &self.names {
            writeln!(input, "{}", name.display()).context("write to cpio")?;
        }
        drop(input);
        let status = child.wait().context("wait for cpio")?;
        ensure!(status.success(), "cpio: {status}");
        Ok(())
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        // What is left over lies in a directory that the next run clears.
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// The files that ldd names: `libc.so.6 => /lib/libc.so.6 (0x…)` and `/lib64/ld-linux.so.2 (0x…)`.
fn libraries(ldd: &str) -> Vec<PathBuf> {
    ldd.split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_and_the_libraries_are_found_and_the_vdso_is_not() {
        let ldd = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/libc.so.6 (0x00007f1d)\n\
                   \t/lib64/ld-linux-x86-64.so.2 (0x00007f1e)\n";
        let found = libraries(ldd);
        let expected = ["/lib/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(found, expected);
        assert_eq!(libraries("\tstatically linked\n"), Vec::<PathBuf>::new());
    }
}
