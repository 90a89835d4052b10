// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The agent: reads requests from a serial port, does them, replies. Nothing a request asks for ends
//! it; a failure is a reply. In a guest that is itself a host it also relays a port to a socket.

mod display;
mod drm_display;
mod filler;
mod kmsg;
mod load;
mod mapping;
mod power;
mod relay;
mod scene_client;
mod vsock;

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process;

use guest_agent::protocol::{Command, Info, Reply, Request, RunReport, Target};
use rustix::system::uname;
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use serde::Serialize;
use serde_json::Value;

use crate::display::Displays;
use crate::filler::Filler;
use crate::load::Load;
use crate::scene_client::SceneClient;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file could not be used.
    #[error("{action} {path}: {source}")]
    File {
        /// read, write, open ...
        action: &'static str,
        /// Of the file.
        path: String,
        source: io::Error,
    },
    /// A display refused.
    #[error("{what}: {source}")]
    Display {
        what: &'static str,
        source: io::Error,
    },
    /// There is no such display, or it has a form the agent does not know.
    #[error("no usable display: {0}")]
    NoDisplay(&'static str),
    /// The background load is running, or is not.
    #[error("the load is {0}")]
    Load(&'static str),
    /// Memory cannot be filled, or is not.
    #[error("memory: {0}")]
    Memory(&'static str),
    /// The OpenGL client ended, or could not do what it was asked.
    #[error("the OpenGL client: {0}")]
    Scene(String),
    /// A program could not be started.
    #[error("run {program}: {source}")]
    Run { program: String, source: io::Error },
    /// A reply that is no JSON.
    #[error("reply: {0}")]
    Reply(#[from] serde_json::Error),
}

/// Adds what was tried to an error of the kernel.
pub(crate) fn file_error(action: &'static str, path: &str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::File {
        action,
        path: path.to_owned(),
        source,
    }
}

/// The text of a small file, without the line end.
pub(crate) fn read_text(path: &str) -> Result<String, Error> {
    let text = fs::read_to_string(path).map_err(file_error("read", path))?;
    Ok(text.trim_end().to_owned())
}

/// Writes an attribute. sysfs acts on each write call, so there must be just one.
pub(crate) fn write_text(path: &str, text: &str) -> Result<(), Error> {
    let mut file = OpenOptions::new()
        .write(true)
        .open(path)
        .map_err(file_error("open", path))?;
    // Not write_all: it repeats an interrupted write, and this one may be a sleep.
    match file
        .write(text.as_bytes())
        .map_err(file_error("write", path))?
    {
        written if written == text.len() => Ok(()),
        _ => Err(file_error("write", path)(io::ErrorKind::WriteZero.into())),
    }
}

#[derive(Debug, Default)]
struct Agent {
    port: String,
    displays: Displays,
    load: Option<Load>,
    scene: Option<SceneClient>,
    filler: Option<Filler>,
}

impl Agent {
    fn execute(&mut self, command: Command) -> Result<Value, Error> {
        match command {
            Command::Info => json(&info()),
            Command::Dmesg { since } => json(&kmsg::messages(since)?),
            Command::Draw { target, seed } => json(&self.displays.draw(target, seed)?),
            Command::ReleaseDrm => json(&self.displays.release_drm()),
            Command::LoadStart { target } => self.start_load(target),
            Command::LoadStop => self.stop_load(),
            Command::Scene { request } => {
                let client = match self.scene.take() {
                    Some(client) => client,
                    None => SceneClient::start()?,
                };
                self.scene.insert(client).ask(request)
            }
            Command::FillMemory { leave_kib } => {
                let filler = Filler::new(leave_kib)?;
                json(&self.filler.insert(filler).whole())
            }
            Command::CheckMemory => {
                let filler = self.filler.as_ref();
                json(&filler.ok_or(Error::Memory("it is not filled"))?.check())
            }
            Command::Sleep {
                state,
                alarm_s,
                pm_test,
                print_times,
            } => json(&power::sleep(
                &self.port,
                &state,
                alarm_s,
                pm_test.as_deref(),
                print_times,
            )?),
            Command::Read { path } => json(&read_text(&path)?),
            Command::Write { path, text } => json(&write_text(&path, &text)?),
            Command::Run { program, arguments } => json(&run(&program, &arguments)?),
            Command::Reboot => json(&run("reboot", &["-f".to_owned()])?),
            Command::Poweroff => json(&run("poweroff", &["-f".to_owned()])?),
        }
    }

    fn start_load(&mut self, target: Target) -> Result<Value, Error> {
        if self.load.is_some() {
            return Err(Error::Load("running"));
        }
        self.load = Some(Load::start(target)?);
        Ok(Value::Null)
    }

    fn stop_load(&mut self) -> Result<Value, Error> {
        let load = self.load.take().ok_or(Error::Load("not running"))?;
        json(&load.stop())
    }
}

fn json<T: Serialize>(value: &T) -> Result<Value, Error> {
    Ok(serde_json::to_value(value)?)
}

fn info() -> Info {
    let mut drm: Vec<String> = fs::read_dir("/dev/dri")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    drm.sort();
    Info {
        release: uname().release().to_string_lossy().into_owned(),
        mem_sleep: read_text("/sys/power/mem_sleep").unwrap_or_default(),
        drm,
        fb: display::fb_size().ok(),
    }
}

fn run(program: &str, arguments: &[String]) -> Result<RunReport, Error> {
    let output = process::Command::new(program)
        .args(arguments)
        .output()
        .map_err(|source| Error::Run {
            program: program.to_owned(),
            source,
        })?;
    Ok(RunReport {
        status: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Opens the port without echo and without line-end translation.
fn open_port(path: &str) -> io::Result<File> {
    let port = OpenOptions::new().read(true).write(true).open(path)?;
    let mut attributes = tcgetattr(&port)?;
    attributes.make_raw();
    tcsetattr(&port, OptionalActions::Flush, &attributes)?;
    Ok(port)
}

fn say(port: &mut File, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    port.write_all(&line)
}

/// A line up to its end. Cloud Hypervisor makes a carriage return of a line feed that comes alone, as the last of
/// 64 n + 1 bytes does; there is neither within JSON.
fn read_line(port: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    for byte in port.by_ref().bytes() {
        match byte? {
            b'\n' | b'\r' => return Ok(Some(line)),
            byte => line.push(byte),
        }
    }
    Ok(None)
}

fn serve(path: &str) -> io::Result<()> {
    let mut port = open_port(path)?;
    let mut agent = Agent {
        port: path.to_owned(),
        ..Agent::default()
    };
    // The console too: it tells a boot that hung before the agent from one that hung after it.
    println!("agent: ready on {path}");
    say(&mut port, &Reply::Ready)?;
    let mut requests = BufReader::new(port.try_clone()?);
    while let Some(line) = read_line(&mut requests)? {
        // Anything else on a serial line is noise of a client that came or went.
        let Ok(Request { id, command }) = serde_json::from_slice(&line) else {
            continue;
        };
        let reply = match agent.execute(command) {
            Ok(value) => Reply::Done { id, value },
            Err(error) => Reply::Failed {
                id,
                error: error.to_string(),
            },
        };
        say(&mut port, &reply)?;
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => serve("/dev/ttyS1"),
        [port] => serve(port),
        [mode, rest @ ..] => tool(mode, rest),
    }
}

/// What is not the agent, but shares its program with it, as a guest has no other.
fn tool(mode: &str, arguments: &[String]) -> io::Result<()> {
    match (mode, arguments) {
        ("relay", [device, socket]) => relay::run(device, Path::new(socket)),
        ("vsock-echo", [port]) => vsock::echo_in_guest(number(port)?),
        ("vsock-talk", [port]) => vsock::talk_to_host(number(port)?),
        ("host-echo", [socket]) => vsock::echo_on_host(Path::new(socket)),
        ("host-talk", [socket, port]) => vsock::talk_to_guest(Path::new(socket), number(port)?),
        _ => Err(io::Error::other(
            "usage: guest-agent [PORT] | relay DEVICE SOCKET | vsock-echo PORT | vsock-talk PORT | \
             host-echo SOCKET | host-talk SOCKET PORT",
        )),
    }
}

fn number(text: &str) -> io::Result<u32> {
    text.parse().map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_with_a_line_feed_or_a_carriage_return() {
        let mut port = &b"one\ntwo\rthree\nrest"[..];
        for line in [&b"one"[..], b"two", b"three"] {
            assert_eq!(read_line(&mut port).unwrap().unwrap(), line);
        }
        assert_eq!(read_line(&mut port).unwrap(), None);
    }
}
