// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The control socket: JSON, one object a line, each way.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, BufReader, Error as IoError, Read, Write};
use std::mem;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use log::warn;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use virtio_gpu_worker::{Controlled, OutputSize, Screenshot, encode_png, save_png};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Longest request in bytes; paths are at most 4096.
const MAX_LINE: u64 = 16 * 1024;
/// People and tools connected at a time.
const MAX_CONNECTIONS: usize = 16;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
enum Command {
    /// What the device is doing.
    Status,
    /// What a scanout shows, into a file or, without a path, into the answer.
    Screenshot {
        #[serde(default)]
        scanout: u32,
        #[serde(default)]
        cursor: bool,
        path: Option<PathBuf>,
    },
    /// Another preferred size for an output. The guest is told, and does as it likes.
    Resize {
        #[serde(default)]
        scanout: u32,
        width: u32,
        height: u32,
    },
    /// Events from now on, for as long as the connection lasts.
    Events,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Return(Value),
    Error { message: String },
}

/// What serves a control socket.
#[derive(Debug)]
pub struct ControlThread {
    listener: UnixListener,
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
}

impl Control {
    /// Serves the control socket on the thread that `spawn` makes, and on threads that this one makes.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        listener: UnixListener,
        device: Arc<dyn Controlled>,
        spawn: impl FnOnce(ControlThread) -> Result<JoinHandle<()>, IoError>,
    ) -> Result<Self, IoError> {
        listener.set_nonblocking(true)?;
        let shared = Arc::new(Shared {
            stop: EventFd::new(EFD_NONBLOCK)?,
            conversations: Mutex::default(),
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
            warn!("The control socket's thread panicked");
        }
    }
}

/// Serves the control socket on threads of its own, for ever.
///
/// # Errors
/// The thread cannot be started.
pub fn serve(listener: UnixListener, device: Arc<dyn Controlled>) -> Result<(), IoError> {
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
            warn!("The control socket has ended: {error}");
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
        let epoll = Epoll::new()?;
        let stop = self.shared.stop.as_raw_fd();
        for (fd, data) in [(self.listener.as_raw_fd(), LISTENER), (stop, STOP)] {
            let event = EpollEvent::new(EventSet::IN, data);
            epoll.ctl(ControlOperation::Add, fd, event)?;
        }
        for number in 0.. {
            let mut events = [EpollEvent::default(); 2];
            // A signal may interrupt it; then nothing has come.
            let count = epoll.wait(-1, &mut events).unwrap_or(0);
            if events.iter().take(count).any(|event| event.data() == STOP) {
                break;
            }
            // Whoever connected may be gone again.
            if let Ok((stream, _)) = self.listener.accept() {
                self.begin(number, stream);
            }
        }
        Ok(())
    }

    fn begin(&self, number: u64, stream: UnixStream) {
        let known = stream
            .set_nonblocking(false)
            .and_then(|()| stream.try_clone());
        let Ok(known) = known else {
            return;
        };
        let mut conversations = self.shared.lock();
        if conversations.len() >= MAX_CONNECTIONS {
            drop(conversations);
            return refuse(stream);
        }
        conversations.insert(number, known);
        drop(conversations);
        let (device, shared) = (self.device.clone(), self.shared.clone());
        let thread = thread::Builder::new()
            .name("control".into())
            .spawn(move || {
                // A person who leaves in the middle is no error.
                drop(converse(&stream, &*device));
                shared.lock().remove(&number);
            });
        if let Err(error) = thread {
            warn!("Cannot serve a control connection: {error}");
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

fn refuse(mut stream: UnixStream) {
    warn!("More than {MAX_CONNECTIONS} control connections");
    let message = format!("more than {MAX_CONNECTIONS} connections");
    drop(send(&mut stream, &Answer::Error { message }));
}

fn converse(stream: &UnixStream, device: &dyn Controlled) -> Result<(), IoError> {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    loop {
        let mut line = Vec::new();
        reader
            .by_ref()
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(());
        }
        if line.last() != Some(&b'\n') && line.len() as u64 == MAX_LINE {
            let message = format!("a request is longer than {MAX_LINE} bytes");
            send(&mut writer, &Answer::Error { message })?;
            skip_line(&mut reader)?;
            continue;
        }
        match serde_json::from_slice(&line) {
            Ok(Command::Events) => return stream_events(&mut writer, device),
            Ok(command) => send(&mut writer, &execute(&command, device))?,
            Err(error) => {
                let message = error.to_string();
                send(&mut writer, &Answer::Error { message })?;
            }
        }
    }
}

/// Reads past the end of the line, keeping none of it.
fn skip_line(reader: &mut impl BufRead) -> Result<(), IoError> {
    loop {
        let buffer = reader.fill_buf()?;
        let end = buffer.iter().position(|&byte| byte == b'\n');
        let consumed = end.map_or(buffer.len(), |end| end + 1);
        let done = end.is_some() || consumed == 0;
        reader.consume(consumed);
        if done {
            return Ok(());
        }
    }
}

fn stream_events(writer: &mut impl Write, device: &dyn Controlled) -> Result<(), IoError> {
    let events = device.subscribe();
    send(writer, &Answer::Return(json!({})))?;
    for event in events {
        send_line(writer, &event)?;
    }
    Ok(())
}

fn execute(command: &Command, device: &dyn Controlled) -> Answer {
    let result = match command {
        Command::Status => status(device),
        Command::Screenshot {
            scanout,
            cursor,
            path,
        } => screenshot(device, *scanout, *cursor, path.as_deref()),
        &Command::Resize {
            scanout,
            width,
            height,
        } => {
            let resized = device.resize(scanout, OutputSize { width, height });
            resized
                .map(|()| json!({}))
                .map_err(|error| error.to_string())
        }
        // Not answered but streamed.
        Command::Events => Ok(json!({})),
    };
    match result {
        Ok(value) => Answer::Return(value),
        Err(message) => Answer::Error { message },
    }
}

fn status(device: &dyn Controlled) -> Result<Value, String> {
    let status = device.status().map_err(|error| error.to_string())?;
    serde_json::to_value(status).map_err(|error| error.to_string())
}

fn screenshot(
    device: &dyn Controlled,
    scanout: u32,
    cursor: bool,
    path: Option<&Path>,
) -> Result<Value, String> {
    let shot = device.screenshot(scanout, cursor);
    let Screenshot { image, active } = shot.map_err(|error| with_source(&error))?;
    if let Some(path) = path {
        save_png(&image, path).map_err(|error| with_source(&error))?;
    }
    let mut answer = json!({ "width": image.width, "height": image.height, "active": active });
    if path.is_none() {
        let mut png = Vec::new();
        encode_png(&image, &mut png).map_err(|error| error.to_string())?;
        answer["png"] = STANDARD.encode(png).into();
    }
    Ok(answer)
}

fn with_source(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn send(writer: &mut impl Write, answer: &Answer) -> Result<(), IoError> {
    send_line(writer, answer)
}

fn send_line(writer: &mut impl Write, value: &impl Serialize) -> Result<(), IoError> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    writer.write_all(&line)
}
