// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The control socket: JSON, one object a line, each way; and its client.

mod client;
mod command;
mod conversation;
mod picture;

use std::collections::BTreeMap;
use std::io::{Error as IoError, ErrorKind};
use std::mem;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use host_util::log_source::CONTROL;
use host_util::peer::Peer;
use host_util::socket::{Accepted, Listener};
use virtio_gpu_worker::{Controlled, PictureLimit};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

pub use client::{Client, ClientError};
pub use command::Command;
use conversation::{Answer, SENDING_TIME, converse, send_line};

/// People and tools connected at a time.
const MAX_CONNECTIONS: usize = 16;
/// How long connections are left alone after the system could not take one, as when there are no descriptors left.
/// In milliseconds.
const PAUSE_MS: i32 = 100;

/// What serves a control socket.
#[derive(Debug)]
pub struct ControlThread {
    listener: Listener,
    device: Arc<dyn Controlled>,
    shared: Arc<Shared>,
}

/// The end of a control socket's service: dropping it ends every conversation.
#[derive(Debug)]
pub struct Control {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    stop: EventFd,
    conversations: Mutex<BTreeMap<u64, UnixStream>>,
    /// Those of all connections.
    pictures: PictureLimit,
}

impl Control {
    /// Serves the control socket on the thread that `spawn` makes, and on threads that this one makes.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        listener: impl Into<Listener>,
        device: Arc<dyn Controlled>,
        spawn: impl FnOnce(ControlThread) -> Result<JoinHandle<()>, IoError>,
    ) -> Result<Self, IoError> {
        let listener = listener.into();
        listener.set_nonblocking(true)?;
        let shared = Arc::new(Shared {
            stop: EventFd::new(EFD_NONBLOCK)?,
            conversations: Mutex::default(),
            pictures: PictureLimit::default(),
        });
        let thread = spawn(ControlThread {
            listener,
            device,
            shared: shared.clone(),
        })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // It fails only where 2^64 - 2 stops are waiting already.
        drop(self.shared.stop.write(1));
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            CONTROL.warn(format_args!("The control socket's thread panicked"));
        }
    }
}

/// Serves the control socket on threads of its own, for ever.
///
/// # Errors
/// The thread cannot be started.
pub fn serve(listener: impl Into<Listener>, device: Arc<dyn Controlled>) -> Result<(), IoError> {
    let spawn = |thread: ControlThread| {
        thread::Builder::new()
            .name("control".into())
            .spawn(move || thread.run())
    };
    // It ends with the process.
    mem::forget(Control::start(listener, device, spawn)?);
    Ok(())
}

impl ControlThread {
    /// Serves until its [`Control`] is dropped.
    pub fn run(self) {
        if let Err(error) = self.accept() {
            CONTROL.warn(format_args!("The control socket has ended: {error}"));
        }
        let conversations = self.shared.lock();
        for stream in conversations.values() {
            // The person may have left already.
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    fn accept(&self) -> Result<(), IoError> {
        const LISTENER: u64 = 0;
        const STOP: u64 = 1;
        let (epoll, quiet) = (Epoll::new()?, Epoll::new()?);
        let stop = self.shared.stop.as_raw_fd();
        let listener = self.listener.as_fd().as_raw_fd();
        for (fd, data) in [(listener, LISTENER), (stop, STOP)] {
            let event = EpollEvent::new(EventSet::IN, data);
            epoll.ctl(ControlOperation::Add, fd, event)?;
        }
        let stopped = EpollEvent::new(EventSet::IN, STOP);
        quiet.ctl(ControlOperation::Add, stop, stopped)?;
        for number in 0.. {
            let mut events = [EpollEvent::default(); 2];
            // A signal may interrupt it; then nothing has come.
            let count = epoll.wait(-1, &mut events).unwrap_or(0);
            if events.iter().take(count).any(|event| event.data() == STOP) {
                break;
            }
            match self.listener.accept() {
                Ok(Accepted::Peer(stream)) => self.begin(number, stream),
                Ok(Accepted::Stranger(Peer { process, user })) => {
                    CONTROL.warn(format_args!(
                        "Process {process} of user {user} may not use the control socket"
                    ));
                }
                // Whoever connected is gone again, or was served before.
                Err(error) if is_momentary(&error) => {}
                Err(error) => {
                    CONTROL.warn(format_args!("Cannot take a control connection: {error}"));
                    // The connection still waits, so that the next wait would end at once. This one ends when the time
                    // is over, or all does.
                    drop(quiet.wait(PAUSE_MS, &mut events));
                }
            }
        }
        Ok(())
    }

    fn begin(&self, number: u64, stream: UnixStream) {
        let known = stream
            .set_nonblocking(false)
            .and_then(|()| stream.set_write_timeout(Some(SENDING_TIME)))
            .and_then(|()| stream.try_clone());
        let known = match known {
            Ok(known) => known,
            Err(error) => {
                CONTROL.warn(format_args!("Cannot serve a control connection: {error}"));
                return;
            }
        };
        let mut conversations = self.shared.lock();
        if conversations.len() >= MAX_CONNECTIONS {
            drop(conversations);
            return refuse(&stream);
        }
        conversations.insert(number, known);
        drop(conversations);
        let (device, shared) = (self.device.clone(), self.shared.clone());
        let thread = thread::Builder::new()
            .name("control".into())
            .spawn(move || {
                // A person who leaves in the middle is no error.
                drop(converse(&stream, &*device, &shared.pictures));
                shared.lock().remove(&number);
            });
        if let Err(error) = thread {
            CONTROL.warn(format_args!("Cannot serve a control connection: {error}"));
            self.shared.lock().remove(&number);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, UnixStream>> {
        self.conversations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether nothing is wrong with who connects next.
fn is_momentary(error: &IoError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::ConnectionAborted | ErrorKind::Interrupted
    )
}

fn refuse(stream: &UnixStream) {
    CONTROL.warn(format_args!(
        "More than {MAX_CONNECTIONS} control connections"
    ));
    let message = format!("more than {MAX_CONNECTIONS} connections");
    drop(send_line(stream, &Answer::Error { message }));
}
