// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! JSON objects, one a line, over a unix socket: what QMP, the guest agent and the device server's
//! control socket have in common. Everything received is kept, so that no event is missed by asking
//! for it too late.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// How often to look whether a socket exists yet. A socket file cannot be awaited without inotify.
const CONNECT_INTERVAL: Duration = Duration::from_millis(20);

#[derive(Debug, Default)]
struct Log {
    messages: Vec<Value>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Received {
    log: Mutex<Log>,
    changed: Condvar,
}

impl Received {
    fn lock(&self) -> MutexGuard<'_, Log> {
        // A poisoned log is still a log; the panic that poisoned it is reported by its own test.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection.
#[derive(Debug)]
pub struct Channel {
    name: &'static str,
    stream: UnixStream,
    received: Arc<Received>,
}

impl Channel {
    /// Connects, waiting until somebody listens on `path`.
    ///
    /// # Errors
    /// Nobody listened within `limit`.
    pub fn connect(name: &'static str, path: &Path, limit: Duration) -> Result<Self> {
        let deadline = Instant::now() + limit;
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > deadline => {
                    return Err(error)
                        .with_context(|| format!("{name}: connect to {}", path.display()));
                }
                Err(_) => thread::sleep(CONNECT_INTERVAL),
            }
        };
        let received = Arc::new(Received::default());
        let reader = stream
            .try_clone()
            .with_context(|| format!("{name}: clone socket"))?;
        let shared = Arc::clone(&received);
        thread::spawn(move || receive(reader, &shared));
        Ok(Self {
            name,
            stream,
            received,
        })
    }

    /// Sends one object.
    ///
    /// # Errors
    /// The peer is gone.
    pub fn send(&self, message: &Value) -> Result<()> {
        let line = format!("{message}\n");
        (&self.stream)
            .write_all(line.as_bytes())
            .with_context(|| format!("{}: send {message}", self.name))
    }

    /// How many messages have come so far: a place to wait from.
    pub fn position(&self) -> usize {
        self.received.lock().messages.len()
    }

    /// All messages from `from` on that `pick` takes.
    pub fn collect<T>(&self, from: usize, pick: impl FnMut(&Value) -> Option<T>) -> Vec<T> {
        self.received
            .lock()
            .messages
            .iter()
            .skip(from)
            .filter_map(pick)
            .collect()
    }

    /// Waits for the first message from `from` on that `pick` takes.
    ///
    /// # Errors
    /// None came within `limit`, or the peer closed the connection.
    pub fn wait<T>(
        &self,
        from: usize,
        limit: Duration,
        what: &str,
        mut pick: impl FnMut(&Value) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        let mut log = self.received.lock();
        let mut next = from;
        loop {
            if let Some(found) = log.messages.iter().skip(next).find_map(&mut pick) {
                return Ok(found);
            }
            next = log.messages.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if log.closed {
                bail!("{}: closed while waiting for {what}", self.name);
            }
            if left.is_zero() {
                bail!("{}: no {what} within {limit:?}", self.name);
            }
            let waited = self.received.changed.wait_timeout(log, left);
            log = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Reads until the peer goes away. A line that is no JSON is noise of a serial line.
fn receive(stream: UnixStream, received: &Received) {
    for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
        if let Ok(message) = serde_json::from_slice(&line) {
            received.lock().messages.push(message);
            received.changed.notify_all();
        }
    }
    received.lock().closed = true;
    received.changed.notify_all();
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use serde_json::json;

    use super::*;
    use crate::process::Sockets;

    const LIMIT: Duration = Duration::from_secs(10);

    /// A channel and its peer.
    fn pair() -> (Channel, UnixStream) {
        let sockets = Sockets::create().unwrap();
        let path = sockets.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let channel = Channel::connect("test", &path, LIMIT).unwrap();
        (channel, listener.accept().unwrap().0)
    }

    fn number(message: &Value) -> Option<u64> {
        message.get("n")?.as_u64()
    }

    #[test]
    fn a_message_that_came_before_it_was_waited_for_is_found() {
        let (channel, mut peer) = pair();
        peer.write_all(b"noise\n{\"n\":1}\n{\"n\":2}\n").unwrap();
        let second = channel.wait(0, LIMIT, "2", |message| number(message).filter(|&n| n == 2));
        assert_eq!(second.unwrap(), 2);
        let first = channel.wait(0, LIMIT, "1", number);
        assert_eq!(first.unwrap(), 1);
        assert_eq!(channel.collect(1, number), [2]);
    }

    #[test]
    fn a_wait_ends_when_the_peer_goes_away() {
        let (channel, peer) = pair();
        drop(peer);
        let error = channel.wait(0, LIMIT, "n", number).unwrap_err();
        assert_eq!(error.to_string(), "test: closed while waiting for n");
    }

    #[test]
    fn a_wait_ends_when_its_time_is_up() {
        let (channel, peer) = pair();
        let error = channel.wait(0, Duration::ZERO, "n", number).unwrap_err();
        assert_eq!(error.to_string(), "test: no n within 0ns");
        drop(peer);
    }

    #[test]
    fn a_sent_message_is_one_line() {
        let (channel, peer) = pair();
        channel.send(&json!({"text": "a\nb"})).unwrap();
        let mut line = String::new();
        BufReader::new(peer).read_line(&mut line).unwrap();
        assert_eq!(line, "{\"text\":\"a\\nb\"}\n");
    }
}
