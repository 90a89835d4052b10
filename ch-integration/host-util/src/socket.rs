// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Unix sockets that other programs connect to.

use std::fs;
use std::io::{Error as IoError, ErrorKind};
use std::num::ParseIntError;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::unistd::Group;
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, chmod, chownat, fchmod, openat};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen as start_listening,
    socket_with,
};
use rustix::process::geteuid;
use thiserror::Error;

use crate::peer::Peer;

/// A socket that cannot be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SocketError {
    /// Somebody listens there.
    #[error("Socket '{}' is in use by another process", path.display())]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// Something that is no socket lies there.
    #[error("'{}' exists and is not a socket", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The system refused.
    #[error("Cannot listen on '{}'", path.display())]
    Listen {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: IoError,
    },
}

/// Who may connect to a socket. By default this process's own user, and root.
///
/// Where a mode or a group is given, the socket's file decides, as with any file: the kernel asks for write permission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// The mode of the socket's file.
    pub mode: Option<SocketMode>,
    /// The group of the socket's file, and what it needs of the mode where none is given.
    pub group: Option<SocketGroup>,
}

/// A mode of a file, from octal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketMode(u32);

/// A group of the host, from its name or number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketGroup(u32);

impl FromStr for SocketMode {
    type Err = String;

    fn from_str(digits: &str) -> Result<Self, String> {
        let mode = u32::from_str_radix(digits, 8);
        let mode = mode.map_err(|error: ParseIntError| error.to_string())?;
        if mode > 0o777 {
            return Err("a mode has three octal digits, such as 660".into());
        }
        Ok(Self(mode))
    }
}

impl FromStr for SocketGroup {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        if let Ok(number) = name.parse() {
            return Ok(Self(number));
        }
        match Group::from_name(name) {
            Ok(Some(group)) => Ok(Self(group.gid.as_raw())),
            Ok(None) => Err("there is no such group".into()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Access {
    fn mode(self) -> u32 {
        let ours = if self.group.is_some() { 0o660 } else { 0o600 };
        self.mode.map_or(ours, |SocketMode(mode)| mode)
    }

    fn admits(self, user: u32) -> bool {
        self != Self::default() || user == geteuid().as_raw() || user == 0
    }
}

/// A socket to listen on, with who may connect.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    access: Access,
}

/// Somebody who connected, and whether they may.
#[derive(Debug)]
pub enum Accepted {
    /// They may.
    Peer(UnixStream),
    /// They may not, and hang up.
    Stranger(Peer),
}

impl From<UnixListener> for Listener {
    /// For the process's own user and root.
    fn from(socket: UnixListener) -> Self {
        Self::new(socket, Access::default())
    }
}

impl Listener {
    /// For whom `access` lets in.
    pub fn new(socket: UnixListener, access: Access) -> Self {
        Self { socket, access }
    }

    /// Whoever waits to be served.
    ///
    /// # Errors
    /// The system's; `WouldBlock` where nobody waits, see [`set_nonblocking`](Self::set_nonblocking).
    pub fn accept(&self) -> Result<Accepted, IoError> {
        let (stream, _) = self.socket.accept()?;
        let peer = Peer::of(&stream)?;
        if self.access.admits(peer.user) {
            Ok(Accepted::Peer(stream))
        } else {
            Ok(Accepted::Stranger(peer))
        }
    }

    /// Has [`accept`](Self::accept) wait for nobody.
    ///
    /// # Errors
    /// The system's.
    pub fn set_nonblocking(&self, on: bool) -> Result<(), IoError> {
        self.socket.set_nonblocking(on)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The file of a socket that this process made. Whoever made it removes it, and nothing that took its place since.
#[derive(Clone, Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn made_at(path: &Path) -> Result<Self, SocketError> {
        let made = fs::symlink_metadata(path).map_err(|source| at(path, source))?;
        Ok(Self {
            path: path.into(),
            device: made.dev(),
            inode: made.ino(),
        })
    }

    /// Removes it, if it is still there. Returns whether it did.
    pub fn remove(&self) -> bool {
        let found = fs::symlink_metadata(&self.path);
        found.is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode))
            && fs::remove_file(&self.path).is_ok()
    }
}

/// Listens on `path`, for the process's own user and root. A socket that a dead process left behind is replaced.
///
/// # Errors
/// A [`SocketError`] names the path and the reason.
pub fn listen(path: &Path) -> Result<(UnixListener, SocketFile), SocketError> {
    must_be_free(path)?;
    take_over(path)
}

/// The same for those whom `access` lets in.
///
/// # Errors
/// A [`SocketError`] names the path and the reason.
pub fn listen_for(path: &Path, access: Access) -> Result<(Listener, SocketFile), SocketError> {
    let (socket, file) = listen(path)?;
    if access != Access::default() {
        open_up(path, access).map_err(|source| at(path, source))?;
    }
    Ok((Listener::new(socket, access), file))
}

fn must_be_free(path: &Path) -> Result<(), SocketError> {
    let listens = UnixStream::connect(path);
    if !listens.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        && fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_socket())
    {
        return Err(SocketError::InUse { path: path.into() });
    }
    Ok(())
}

/// Listens on `path` in place of whoever does: a VM that was migrated within a host comes while the one that it was
/// still listens.
///
/// # Errors
/// A [`SocketError`] names the path and the reason.
pub fn take_over(path: &Path) -> Result<(UnixListener, SocketFile), SocketError> {
    if let Ok(there) = fs::symlink_metadata(path) {
        if !there.file_type().is_socket() {
            return Err(SocketError::NotASocket { path: path.into() });
        }
        fs::remove_file(path).map_err(|source| at(path, source))?;
    }
    let listener = bind_at(path).map_err(|source| at(path, source))?;
    Ok((listener, SocketFile::made_at(path)?))
}

/// Binds a socket that is its owner's alone from its first moment: the file gets the mode that the socket has before, less
/// what the umask takes.
fn bind_at(path: &Path) -> Result<UnixListener, IoError> {
    /// As many as the standard library has wait.
    const BACKLOG: i32 = 128;
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    fchmod(&socket, Mode::from_raw_mode(0o600))?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    start_listening(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// Lets others in, by the file and by no link that somebody put in its place.
fn open_up(path: &Path, access: Access) -> Result<(), IoError> {
    let file = openat(
        CWD,
        path,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    if let Some(SocketGroup(group)) = access.group {
        chownat(
            &file,
            "",
            None,
            Some(Gid::from_raw(group)),
            AtFlags::EMPTY_PATH,
        )?;
    }
    // An O_PATH file takes no fchmod().
    let itself = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(chmod(itself, Mode::from_raw_mode(access.mode()))?)
}

fn at(path: &Path, source: IoError) -> SocketError {
    SocketError::Listen {
        path: path.into(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::thread;

    use rustix::process::{Uid, getegid};
    use rustix::thread::set_thread_res_uid;
    use tempfile::TempDir;

    use super::*;

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_socket_is_its_owners_alone_unless_somebody_asks_otherwise() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("socket");
        let (_listener, file) = listen(&path).unwrap();
        assert_eq!(mode_of(&path), 0o600);
        file.remove();
        let group = SocketGroup(getegid().as_raw());
        for (mode, group, expected) in [
            (Some("606"), None, 0o606),
            (None, Some(group), 0o660),
            (Some("0620"), Some(group), 0o620),
        ] {
            let mode = mode.map(|mode| mode.parse().unwrap());
            let (_listener, file) = listen_for(&path, Access { mode, group }).unwrap();
            assert_eq!(mode_of(&path), expected);
            file.remove();
        }
        for wrong in ["", "8", "1777", "rw"] {
            assert!(wrong.parse::<SocketMode>().is_err(), "{wrong}");
        }
        assert_eq!("root".parse(), Ok(SocketGroup(0)));
        assert!("no such group".parse::<SocketGroup>().is_err());
    }

    /// Connects as another user, as the kernel knows users by thread.
    fn connect_as(user: u32, path: &Path) -> Result<UnixStream, IoError> {
        thread::scope(|scope| {
            let connect = || {
                let user = Uid::from_raw(user);
                set_thread_res_uid(user, user, user)?;
                UnixStream::connect(path)
            };
            scope.spawn(connect).join().unwrap()
        })
    }

    #[test]
    fn another_user_is_a_stranger_even_where_the_file_lets_them_in() {
        if !geteuid().is_root() {
            eprintln!("skipped: only root can be another user");
            return;
        }
        let directory = TempDir::new().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let path = directory.path().join("socket");
        let (listener, file) = listen_for(&path, Access::default()).unwrap();
        let refused = connect_as(12_345, &path).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        let _stranger = connect_as(12_345, &path).unwrap();
        let accepted = listener.accept().unwrap();
        assert!(matches!(
            accepted,
            Accepted::Stranger(Peer { user: 12_345, .. })
        ));
        let _ourselves = UnixStream::connect(&path).unwrap();
        assert!(matches!(listener.accept().unwrap(), Accepted::Peer(_)));
        file.remove();
        let mode = Some("666".parse().unwrap());
        let (listener, _file) = listen_for(&path, Access { mode, group: None }).unwrap();
        let _guest = connect_as(12_345, &path).unwrap();
        assert!(matches!(listener.accept().unwrap(), Accepted::Peer(_)));
    }

    #[test]
    fn a_socket_is_removed_by_who_made_it() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("socket");
        let (_listener, file) = listen(&path).unwrap();
        assert!(file.remove());
        assert!(!path.exists());
        assert!(!file.remove());
    }

    /// A migration within a host: the socket of the VM that came outlives the VM that left.
    #[test]
    fn a_socket_that_was_taken_over_is_not_removed_by_who_had_it() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("socket");
        let (old, of_old) = listen(&path).unwrap();
        assert!(matches!(listen(&path), Err(SocketError::InUse { .. })));
        let (new, of_new) = take_over(&path).unwrap();
        assert!(!of_old.remove());
        drop(old);
        UnixStream::connect(&path).unwrap();
        drop(new);
        assert!(of_new.remove());
    }

    #[test]
    fn nothing_but_a_socket_is_taken_over() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "precious").unwrap();
        for open in [listen, take_over] {
            let error = open(&path).unwrap_err();
            assert!(matches!(error, SocketError::NotASocket { .. }));
        }
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
