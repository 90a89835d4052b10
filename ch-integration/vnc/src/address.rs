// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where viewers connect.

use std::fmt::{Display, Formatter, Result as FmtResult};
use std::io::{Error as IoError, Read, Result as IoResult, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use host_util::socket::{SocketError, SocketFile, listen};
use thiserror::Error;

/// An address that a person wrote: `IP:PORT`, `localhost:PORT` or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VncAddress {
    /// A port of this machine.
    Tcp(SocketAddr),
    /// A socket's path.
    Unix(PathBuf),
}

/// An address that cannot be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AddressError {
    /// The system refuses the port.
    #[error("Cannot listen on {address}")]
    Tcp {
        /// The port.
        address: SocketAddr,
        /// Why.
        #[source]
        source: IoError,
    },
    /// The socket's path.
    #[error(transparent)]
    Unix(#[from] SocketError),
}

impl FromStr for VncAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err("the path is missing".into()),
                path => Ok(Self::Unix(path.into())),
            };
        }
        let local = text.strip_prefix("localhost:");
        let local = local.map(|port| format!("127.0.0.1:{port}"));
        let address = local.as_deref().unwrap_or(text).parse();
        address.map(Self::Tcp).map_err(|_| {
            "allowed are an IP address with a port, localhost:PORT and unix:PATH".into()
        })
    }
}

impl Display for VncAddress {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        match self {
            Self::Tcp(address) => Display::fmt(address, f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl VncAddress {
    /// Whether programs of this machine alone reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }

    /// The socket's path, if it has one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(path) => Some(path),
        }
    }

    /// Listens there. A socket that is a file comes with what removes it.
    ///
    /// # Errors
    /// An [`AddressError`] says where and why not.
    pub fn listen(&self) -> Result<(Listener, Option<SocketFile>), AddressError> {
        match self {
            Self::Tcp(address) => {
                let listener = TcpListener::bind(address).map_err(|source| AddressError::Tcp {
                    address: *address,
                    source,
                })?;
                Ok((Listener::Tcp(listener), None))
            }
            Self::Unix(path) => {
                let (listener, file) = listen(path)?;
                Ok((Listener::Unix(listener), Some(file)))
            }
        }
    }
}

/// A socket that viewers connect to.
#[derive(Debug)]
pub enum Listener {
    /// A port.
    Tcp(TcpListener),
    /// A file.
    Unix(UnixListener),
}

impl Listener {
    /// Waits for a viewer. Nothing that is done with its connection waits.
    pub(crate) fn accept(&self) -> IoResult<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                // A picture's last bytes are not to wait for its first ones' acknowledgement.
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Ok(Stream::Unix(stream))
            }
        }
    }
}

/// A viewer's connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> IoResult<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> IoResult<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    pub(crate) fn end(&self) {
        // The viewer may be gone already.
        drop(match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
        });
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_port_or_a_path_and_says_whether_others_reach_it() {
        for (text, local) in [
            ("127.0.0.1:5900", true),
            ("[::1]:5900", true),
            ("localhost:5901", true),
            ("unix:/run/vnc", true),
            ("0.0.0.0:5900", false),
            ("[::]:5900", false),
            ("192.0.2.1:5900", false),
        ] {
            let address: VncAddress = text.parse().unwrap();
            assert_eq!(address.is_local(), local, "{text}");
        }
        for text in ["", "5900", ":0", "unix:", "localhost", "example:5900"] {
            text.parse::<VncAddress>().unwrap_err();
        }
    }
}
