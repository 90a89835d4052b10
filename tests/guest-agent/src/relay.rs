// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Joins a port of this guest with a unix socket in it, so that the outer host reaches what a nested
//! guest's VMM offers there.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How often to try a socket that nobody listens on: before its server starts, and while it restarts.
const CONNECT_INTERVAL: Duration = Duration::from_millis(50);

/// The connection of the moment; none while there is no server.
#[derive(Debug, Default)]
struct Current {
    stream: Mutex<Option<UnixStream>>,
    changed: Condvar,
}

impl Current {
    fn set(&self, stream: Option<UnixStream>) {
        *self.stream.lock().unwrap_or_else(PoisonError::into_inner) = stream;
        self.changed.notify_all();
    }

    /// Waits for a connection: what the host sent before there was one is not lost.
    fn send(&self, bytes: &[u8]) {
        let stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        let stream = self.changed.wait_while(stream, |stream| stream.is_none());
        if let Some(mut stream) = stream.unwrap_or_else(PoisonError::into_inner).as_ref() {
            // The reading side sees the same end of the connection and makes a new one.
            let _ = stream.write_all(bytes);
        }
    }
}

/// Relays until the port ends. The socket's server may come late and may come back.
pub(crate) fn run(device: &str, socket: &Path) -> io::Result<()> {
    let mut port = OpenOptions::new().read(true).write(true).open(device)?;
    let current = Arc::new(Current::default());
    let outward = port.try_clone()?;
    let (shared, path) = (Arc::clone(&current), socket.to_owned());
    thread::spawn(move || serve(outward, &path, &shared));
    let mut buffer = [0; 4096];
    loop {
        match port.read(&mut buffer)? {
            0 => return Ok(()),
            count => current.send(&buffer[..count]),
        }
    }
}

/// Copies from each connection in turn to the port.
fn serve(mut port: File, socket: &Path, current: &Current) {
    loop {
        if let Ok(mut stream) = UnixStream::connect(socket)
            && let Ok(writer) = stream.try_clone()
        {
            current.set(Some(writer));
            // Ends with the connection; the next one follows.
            let _ = io::copy(&mut stream, &mut port);
            current.set(None);
        }
        thread::sleep(CONNECT_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixListener;
    use std::{env, fs, process};

    use super::*;

    #[test]
    fn bytes_wait_for_the_server_and_follow_it_through_a_restart() {
        let path = env::temp_dir().join(format!("guest-agent-relay-{}", process::id()));
        let (port, host) = UnixStream::pair().unwrap();
        let current = Arc::new(Current::default());
        let (shared, socket) = (Arc::clone(&current), path.clone());
        let outward = File::from(OwnedFd::from(port));
        thread::spawn(move || serve(outward, &socket, &shared));
        let mut host = BufReader::new(host);
        for round in ["first\n", "second\n"] {
            let listener = UnixListener::bind(&path).unwrap();
            current.send(round.as_bytes());
            let (server, _) = listener.accept().unwrap();
            let mut server = BufReader::new(server);
            let mut line = String::new();
            server.read_line(&mut line).unwrap();
            assert_eq!(line, round);
            server.get_mut().write_all(b"reply\n").unwrap();
            line.clear();
            host.read_line(&mut line).unwrap();
            assert_eq!(line, "reply\n");
            drop((server, listener));
            fs::remove_file(&path).unwrap();
            let gone = current.stream.lock().unwrap();
            drop(
                current
                    .changed
                    .wait_while(gone, |stream| stream.is_some())
                    .unwrap(),
            );
        }
    }
}
