// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The process that starts renderers, for a device that may start none itself.
//!
//! A guest that makes its renderer crash gets another one, so something has to start programs for as long as the device
//! lives. It is not the device: who takes that over shall not run programs. A small process of its own is started before
//! the device gives its privileges up, reads no byte of a guest, and does one thing.
//!
//! The device asks for a renderer with one message that has four files: the renderer's two sockets, where it prints to,
//! and a socket for its life. On that one come its number, or why it did not start, and in the end how it ended. To close
//! it ends the renderer.

use std::ffi::OsString;
use std::io::{Error as IoError, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};

use arrayvec::ArrayVec;
use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, fcntl_dupfd_cloexec, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType, recv, recvmsg, send,
    sendmsg, shutdown, socketpair,
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::stdio::stdin;

use super::SUBCOMMAND;

/// How the program is told to start renderers. Its socket is its standard input.
pub const SPAWNER: &str = "spawner";

/// The renderer's sockets, where it prints to, and the socket for its life.
const FILES: usize = 4;
/// A request has no content.
const REQUEST: [u8; 1] = [1];

/// A process that starts renderers. It ends when this is dropped.
#[derive(Debug)]
pub struct Spawner {
    socket: OwnedFd,
    child: Child,
}

/// A renderer that a spawner started.
#[derive(Debug)]
pub(crate) struct Spawned {
    life: OwnedFd,
    id: u32,
    ended: Option<ExitStatus>,
}

/// What of a renderer's a spawner hands on.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) calls: OwnedFd,
    pub(crate) fences: OwnedFd,
    pub(crate) prints: OwnedFd,
}

impl Spawner {
    /// Starts `program` with [`SPAWNER`] and `arguments`, which is to call [`serve_spawner`].
    ///
    /// # Errors
    /// The system has no socket or process.
    pub fn start(program: &Path, arguments: &[OsString]) -> Result<Self, IoError> {
        let (socket, theirs) = pair()?;
        let child = Command::new(program)
            .arg(SPAWNER)
            .args(arguments)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self { socket, child })
    }

    /// Starts a renderer.
    pub(crate) fn spawn(&self, ends: &Ends) -> Result<Spawned, IoError> {
        let (life, theirs) = pair()?;
        let files = [
            ends.calls.as_fd(),
            ends.fences.as_fd(),
            ends.prints.as_fd(),
            theirs.as_fd(),
        ];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(FILES))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&files));
        let parts = [IoSlice::new(&REQUEST)];
        retry_on_intr(|| sendmsg(&self.socket, &parts, &mut control, SendFlags::NOSIGNAL))?;
        drop(theirs);
        let number = receive_number(&life)?;
        match u32::try_from(number) {
            Ok(id) => Ok(Spawned {
                life,
                id,
                ended: None,
            }),
            Err(_) => Err(IoError::from_raw_os_error(number.saturating_neg())),
        }
    }
}

/// There are no two that are the same.
impl PartialEq for Spawner {
    fn eq(&self, other: &Self) -> bool {
        self.child.id() == other.child.id()
    }
}

impl Eq for Spawner {}

impl Drop for Spawner {
    fn drop(&mut self) {
        // It ends its renderers, and then itself.
        let _ = shutdown(&self.socket, Shutdown::Both);
        drop(self.child.wait());
    }
}

impl Spawned {
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Ends it, if it has not ended. Returns how it did.
    pub(crate) fn end(&mut self) -> Result<ExitStatus, IoError> {
        if let Some(ended) = self.ended {
            return Ok(ended);
        }
        shutdown(&self.life, Shutdown::Write)?;
        let ended = ExitStatus::from_raw(receive_number(&self.life)?);
        self.ended = Some(ended);
        Ok(ended)
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        drop(self.end());
    }
}

fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
}

fn receive_number(life: &OwnedFd) -> Result<i32, IoError> {
    let mut bytes = [0; 4];
    let (length, _) = retry_on_intr(|| recv(life, &mut bytes, RecvFlags::empty()))?;
    match length {
        4 => Ok(i32::from_ne_bytes(bytes)),
        _ => Err(IoError::other("the process that starts renderers is gone")),
    }
}

fn send_number(life: &OwnedFd, number: i32) {
    // The device may be gone, and then nobody asks.
    let _ = retry_on_intr(|| send(life, &number.to_ne_bytes(), SendFlags::NOSIGNAL));
}

/// Starts `program` as a renderer, with `arguments`, whenever the device at the other end of standard input asks, until
/// that is gone. Then it ends every renderer that it started.
///
/// # Errors
/// Standard input is no such socket.
pub fn serve_spawner(program: &Path, arguments: &[OsString]) -> Result<(), IoError> {
    // A renderer's standard input is another one.
    let socket = fcntl_dupfd_cloexec(stdin(), 3)?;
    let mut watches: Vec<JoinHandle<()>> = Vec::new();
    while let Some(files) = next_request(&socket)? {
        watches.retain(|watch| !watch.is_finished());
        let Ok([calls, fences, prints, life]) = files.into_inner() else {
            continue;
        };
        let started = Command::new(program)
            .arg(SUBCOMMAND)
            .args(arguments)
            .stdin(Stdio::from(calls))
            .stdout(Stdio::from(fences))
            .stderr(Stdio::from(prints))
            .env(NO_SHADER_FILES, "true")
            .spawn();
        match started {
            Ok(child) => watches.push(thread::spawn(move || watch(child, &life))),
            Err(error) => send_number(&life, -error.raw_os_error().unwrap_or(libc::EIO)),
        }
    }
    for watch in watches {
        // It does not panic, and has nothing to say if it does.
        drop(watch.join());
    }
    Ok(())
}

/// Mesa's variable. Programs that a renderer leaves on the host would be run for the next guest, and for its user.
pub(crate) const NO_SHADER_FILES: &str = "MESA_SHADER_CACHE_DISABLE";

/// Nothing where the device is gone.
fn next_request(socket: &OwnedFd) -> Result<Option<ArrayVec<OwnedFd, FILES>>, Errno> {
    let mut bytes = [0; 1];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(FILES))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let received = retry_on_intr(|| recvmsg(socket, &mut parts, &mut control, flags));
    let length = match received {
        Ok(message) => message.bytes,
        Err(Errno::CONNRESET) => 0,
        Err(error) => return Err(error),
    };
    let mut files = ArrayVec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            files.extend(fds.take(FILES));
        }
    }
    Ok((length > 0).then_some(files))
}

/// Waits for the renderer's end, or for the device to want it.
fn watch(mut child: Child, life: &OwnedFd) {
    let id = child.id().cast_signed();
    send_number(life, id);
    let ended = Pid::from_raw(id).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    if let Some(ended) = &ended {
        let mut fds = [
            PollFd::new(ended, PollFlags::IN),
            PollFd::new(life, PollFlags::IN),
        ];
        // The device says nothing on it, and hangs up.
        while poll(&mut fds, None) == Err(Errno::INTR) {}
    }
    // One that has ended stays as it ended.
    drop(child.kill());
    let status = child.wait().map_or(0, ExitStatusExt::into_raw);
    send_number(life, status);
}
