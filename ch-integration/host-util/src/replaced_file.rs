// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A file that takes another one's place when it is whole.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufWriter, Error as IoError, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::id;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, openat, openat2, renameat, statat, unlinkat,
};
use rustix::io::Errno;

/// Names that are tried for the file beside.
const TRIES: u32 = 100;

/// Writes a file beside `path` with `write`, and puts it there when it is whole; where that fails, what was there stays.
/// No symbolic link is followed, not even in the directories, as somebody else may have put it there; and what is there
/// already must be a file.
///
/// # Errors
/// The system's, or those of `write`.
pub fn replace_file<E: From<IoError>>(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<(), E>,
) -> Result<(), E> {
    let (beside, file) = Beside::create(path)?;
    let mut file = BufWriter::new(file);
    write(&mut file)?;
    file.flush()?;
    beside.take_place()?;
    Ok(())
}

/// A file that is there for a while, beside the one whose place it takes.
struct Beside<'a> {
    directory: OwnedFd,
    name: &'a Path,
    beside: Option<OsString>,
}

impl<'a> Beside<'a> {
    fn create(path: &'a Path) -> Result<(Self, File), IoError> {
        let name = path.file_name().ok_or(ErrorKind::IsADirectory)?;
        let parent = path.parent().filter(|path| !path.as_os_str().is_empty());
        let directory = openat2(
            CWD,
            parent.unwrap_or(Path::new(".")),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
        )?;
        must_be_file(&directory, name.as_ref())?;
        for number in 0..TRIES {
            let mut beside = OsString::from(".");
            beside.push(name);
            beside.push(format!(".{}-{number}", id()));
            let flags =
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match openat(&directory, &beside, flags, Mode::from_raw_mode(0o666)) {
                Ok(file) => {
                    let beside = Self {
                        directory,
                        name: name.as_ref(),
                        beside: Some(beside),
                    };
                    return Ok((beside, file.into()));
                }
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    fn take_place(mut self) -> Result<(), IoError> {
        must_be_file(&self.directory, self.name)?;
        if let Some(beside) = &self.beside {
            renameat(&self.directory, beside, &self.directory, self.name)?;
            self.beside = None;
        }
        Ok(())
    }
}

impl Drop for Beside<'_> {
    fn drop(&mut self) {
        if let Some(beside) = &self.beside {
            // Who took it away meanwhile did what was to be done.
            let _gone = unlinkat(&self.directory, beside, AtFlags::empty());
        }
    }
}

/// What will be replaced is a file, or nothing.
fn must_be_file(directory: &OwnedFd, name: &Path) -> Result<(), IoError> {
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::RegularFile => Ok(()),
        Ok(_) => Err(IoError::other("there is something that is no file")),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::mknodat;
    use tempfile::TempDir;

    use super::*;

    fn replace(path: &Path, with: &str) -> Result<(), IoError> {
        replace_file(path, |file| file.write_all(with.as_bytes()))
    }

    fn names(directory: &Path) -> Vec<OsString> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_that_cannot_be_written_leaves_what_was_there() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("picture");
        replace(&path, "first").unwrap();
        let failed = replace_file(&path, |file| {
            file.write_all(b"sec")?;
            Err(IoError::from(ErrorKind::StorageFull))
        });
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        replace(&path, "second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(names(directory.path()), ["picture"]);
    }

    #[test]
    fn no_link_is_followed_and_nothing_but_a_file_is_replaced() {
        let directory = TempDir::new().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("precious"), "precious").unwrap();
        symlink(at("precious"), at("link")).unwrap();
        symlink(directory.path(), at("directory")).unwrap();
        mknodat(CWD, at("fifo"), FileType::Fifo, 0o600.into(), 0).unwrap();
        for path in [at("link"), at("directory/new"), at("fifo"), at("")] {
            replace(&path, "x").unwrap_err();
        }
        assert_eq!(fs::read(at("precious")).unwrap(), b"precious");
        let left = names(directory.path());
        assert_eq!(left, ["directory", "fifo", "link", "precious"]);
    }
}
