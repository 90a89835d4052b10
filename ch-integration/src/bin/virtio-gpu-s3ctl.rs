// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Looks at a running virtio-gpu-s3d, or a VMM's GPU, through its control socket.

use std::error::Error;
use std::fs::Permissions;
use std::io::{Error as IoError, ErrorKind, Write, stdout};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use serde_json::{Value, json};
use tempfile::{Builder, NamedTempFile};
use virtio_gpu_control::{Client, ClientError, Command};

const EXAMPLE: &str = "\
Example:
  virtio-gpu-s3ctl --control /run/gpu-control.sock screenshot screen.png";

/// Looks at a virtio-gpu through its control socket.
#[derive(Debug, Parser)]
#[command(version, about, after_help = EXAMPLE)]
struct Options {
    /// The control socket: what virtio-gpu-s3d was given as --control
    #[arg(long, value_name = "PATH")]
    control: PathBuf,

    /// Print what the server answers, as JSON, one object a line
    #[arg(long)]
    json: bool,

    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(options.command, &options.control, options.json) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads what is printed has seen enough.
        Err(Failure::Print(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            if options.json {
                println!("{}", json!({"error": {"message": failure.to_string()}}));
            }
            eprintln!("virtio-gpu-s3ctl: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot connect to '{}': {source}", path.display())]
    Connect { path: PathBuf, source: IoError },
    #[error("{0}")]
    Ask(#[from] ClientError),
    #[error("cannot write '{}': {source}", path.display())]
    File {
        path: PathBuf,
        source: Box<dyn Error>,
    },
    #[error("cannot print: {0}")]
    Print(#[from] IoError),
}

fn run(mut command: Command, control: &Path, json: bool) -> Result<(), Failure> {
    let connected = Client::connect(control);
    let mut client = connected.map_err(|source| Failure::Connect {
        path: control.into(),
        source,
    })?;
    // The picture is written to a file of this user's, whatever the server may reach.
    let target = match &mut command {
        Command::Screenshot { path, file, .. } => {
            *file = true;
            path.take()
        }
        _ => None,
    };
    let Some(target) = target else {
        let answer = client.ask(&command, None)?;
        match command {
            Command::Events if json => print(&answer, json)?,
            Command::Events => writeln!(stdout(), "listening")?,
            _ => return Ok(print(&answer, json)?),
        }
        return stream(&mut client, json);
    };
    if target.as_os_str() == "-" {
        client.ask(&command, Some(stdout().as_fd()))?;
        return Ok(());
    }
    let at = |source: Box<dyn Error>| Failure::File {
        path: target.clone(),
        source,
    };
    let file = beside(&target).map_err(|error| at(error.into()))?;
    let answer = client.ask(&command, Some(file.as_file().as_fd()))?;
    file.persist(&target)
        .map_err(|error| at(error.error.into()))?;
    Ok(print(&answer, json)?)
}

/// A file beside `target`, whose place it takes when it is whole, with the mode of any new file.
fn beside(target: &Path) -> Result<NamedTempFile, IoError> {
    let directory = target
        .parent()
        .filter(|path| !path.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    Builder::new()
        .prefix(".screenshot")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(directory)
}

/// Events, until the server ends.
fn stream(client: &mut Client, json: bool) -> Result<(), Failure> {
    loop {
        match client.read() {
            Ok(event) => print(&event, json)?,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(ClientError::from(error).into()),
        }
    }
}

fn print(value: &Value, json: bool) -> Result<(), IoError> {
    let mut text = String::new();
    if json {
        text = format!("{value}\n");
    } else if value.get("event").is_some() {
        text = format!("{}\n", on_one_line(value));
    } else {
        list(value, 0, &mut text);
    }
    let mut out = stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// An object as lines of names and values, one inside the other where it is so.
fn list(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    for (name, value) in value.as_object().into_iter().flatten() {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                text.push_str(&format!("{indent}{}:\n", spaced(name)));
                list(value, depth + 1, text);
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                for item in items {
                    let item = on_one_line(item);
                    text.push_str(&format!("{indent}{}: {item}\n", spaced(name)));
                }
            }
            _ => text.push_str(&format!("{indent}{}: {}\n", spaced(name), plain(value))),
        }
    }
}

fn spaced(name: &str) -> String {
    name.replace('_', " ")
}

fn on_one_line(value: &Value) -> String {
    let fields = value.as_object().into_iter().flatten();
    let fields = fields.map(|(name, value)| format!("{} {}", spaced(name), plain(value)));
    fields.collect::<Vec<_>>().join(", ")
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "none".into(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(" "),
        Value::Object(fields) if fields.is_empty() => "none".into(),
        Value::Object(_) => on_one_line(value),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        Value::Null => "none".into(),
        Value::Number(number) => number.to_string(),
    }
}
