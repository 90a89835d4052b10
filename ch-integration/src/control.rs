// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The control socket: JSON, one object a line, each way.

use std::error::Error;
use std::io::{BufRead, BufReader, Error as IoError, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use log::warn;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::device::GpuDevice;
use crate::screenshot::encode_png;

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
    /// Events from now on, for as long as the connection lasts.
    Events,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Return(Value),
    Error { message: String },
}

/// Serves the control socket on threads of its own, for ever.
///
/// # Errors
/// The thread cannot be started.
pub fn serve(listener: UnixListener, device: Arc<GpuDevice>) -> Result<(), IoError> {
    let connections = Arc::new(AtomicUsize::new(0));
    thread::Builder::new()
        .name("control".into())
        .spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                if connections.fetch_add(1, Ordering::AcqRel) >= MAX_CONNECTIONS {
                    connections.fetch_sub(1, Ordering::AcqRel);
                    refuse(stream);
                    continue;
                }
                let (device, connections) = (device.clone(), connections.clone());
                thread::spawn(move || {
                    // A person who leaves in the middle is no error.
                    drop(converse(&stream, &device));
                    connections.fetch_sub(1, Ordering::AcqRel);
                });
            }
        })?;
    Ok(())
}

fn refuse(mut stream: UnixStream) {
    warn!("More than {MAX_CONNECTIONS} control connections");
    let message = format!("more than {MAX_CONNECTIONS} connections");
    drop(send(&mut stream, &Answer::Error { message }));
}

fn converse(stream: &UnixStream, device: &GpuDevice) -> Result<(), IoError> {
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

fn stream_events(writer: &mut impl Write, device: &GpuDevice) -> Result<(), IoError> {
    let events = device.subscribe();
    send(writer, &Answer::Return(json!({})))?;
    for event in events {
        send_line(writer, &event)?;
    }
    Ok(())
}

fn execute(command: &Command, device: &GpuDevice) -> Answer {
    let result = match command {
        Command::Status => status(device),
        Command::Screenshot {
            scanout,
            cursor,
            path,
        } => screenshot(device, *scanout, *cursor, path.as_ref()),
        // Not answered but streamed.
        Command::Events => Ok(json!({})),
    };
    match result {
        Ok(value) => Answer::Return(value),
        Err(message) => Answer::Error { message },
    }
}

fn status(device: &GpuDevice) -> Result<Value, String> {
    let status = device.status().ok_or("the device has stopped")?;
    serde_json::to_value(status).map_err(|error| error.to_string())
}

fn screenshot(
    device: &GpuDevice,
    scanout: u32,
    cursor: bool,
    path: Option<&PathBuf>,
) -> Result<Value, String> {
    let active = device.status().is_some_and(|status| {
        let index = usize::try_from(scanout).unwrap_or(usize::MAX);
        status
            .scanouts
            .get(index)
            .is_some_and(|scanout| scanout.active)
    });
    let image = match path {
        Some(path) => device.save_screenshot(scanout, cursor, path),
        None => device.screenshot(scanout, cursor),
    };
    let image = image.map_err(|error| with_source(&error))?;
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
