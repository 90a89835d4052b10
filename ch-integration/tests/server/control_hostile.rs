// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Clients of the control socket, and others, that mean no good.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{
    CWD, FileType, MemfdFlags, OFlags, fcntl_getfl, fcntl_setfl, memfd_create, mknodat,
};
use rustix::pipe::{fcntl_setpipe_size, pipe};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;
use tempfile::TempDir;
use virtio_gpu_control::{Client, Command as Request};
use virtio_gpu_worker::MAX_PICTURES;

use crate::control::{Person, start};
use crate::vmm::{Vmm, wait_until};

const PLACES: usize = 16;
const STATUS: &str = "{\"command\":\"status\"}";

fn connect(directory: &TempDir) -> Person {
    let path = directory.path().join("control");
    let reader = BufReader::new(UnixStream::connect(path).unwrap());
    Person { reader }
}

fn is_served(directory: &TempDir) -> bool {
    let mut person = connect(directory);
    let asked = writeln!(person.reader.get_mut(), "{STATUS}");
    let mut line = String::new();
    asked.is_ok() && person.reader.read_line(&mut line).is_ok() && line.contains("return")
}

fn picture_to_file() -> Request {
    serde_json::from_value(json!({"command": "screenshot", "file": true})).unwrap()
}

#[test]
fn whoever_asked_for_events_and_left_holds_no_place() {
    let (_server, directory, first) = start();
    drop(first);
    wait_until("the places", || {
        let people: Vec<_> = (0..PLACES).map(|_| connect(&directory)).collect();
        people.into_iter().all(|mut person| {
            let asked = writeln!(person.reader.get_mut(), "{STATUS}");
            let mut line = String::new();
            asked.is_ok() && person.reader.read_line(&mut line).is_ok() && line.contains("return")
        })
    });
    for _ in 0..PLACES {
        let mut person = None;
        wait_until("a place", || {
            let mut new = connect(&directory);
            let answer = new.ask("{\"command\":\"events\"}");
            person = answer["return"].is_object().then_some(new);
            person.is_some()
        });
    }
    wait_until("a place that nobody has", || is_served(&directory));
}

#[test]
fn a_person_who_has_no_more_to_ask_still_gets_events() {
    let (server, _directory, mut person) = start();
    person.ask("{\"command\":\"events\"}");
    let stream = person.reader.get_ref();
    stream.shutdown(Shutdown::Write).unwrap();
    thread::sleep(Duration::from_millis(1500));
    let _vmm = Vmm::connect(&server.socket());
    assert_eq!(person.answer()["event"], "connected");
}

#[test]
fn pictures_into_pipes_that_nobody_reads_keep_nobody_out_and_end() {
    let (_server, directory, person) = start();
    drop(person);
    let (kept, pipe) = pipe().unwrap();
    fcntl_setpipe_size(&pipe, 4096).unwrap();
    File::from(pipe.try_clone().unwrap())
        .write_all(&[0; 4096])
        .unwrap();
    let clients: Vec<_> = (0..PLACES - 1)
        .map(|_| {
            let mut client = Client::connect(&directory.path().join("control")).unwrap();
            let pipe = pipe.try_clone().unwrap();
            thread::spawn(move || {
                let start = Instant::now();
                let answer = client.ask(&picture_to_file(), Some(pipe.as_fd()));
                (answer.unwrap_err().to_string(), start.elapsed())
            })
        })
        .collect();
    wait_until("the last place", || is_served(&directory));
    let answers: Vec<_> = clients
        .into_iter()
        .map(|client| client.join().unwrap())
        .collect();
    let (too_many, given_up): (Vec<_>, Vec<_>) = answers
        .iter()
        .partition(|(answer, _)| answer.contains("pictures of"));
    assert!(given_up.len() <= MAX_PICTURES && !given_up.is_empty());
    assert!(too_many.len() >= PLACES - 1 - MAX_PICTURES, "{answers:?}");
    for (answer, took) in given_up {
        assert!(answer.ends_with("timed out"), "{answer}");
        assert!(*took < Duration::from_secs(15));
    }
    drop(kept);
}

/// Both ends share one open file, so whoever sent it decides whether a write to it waits.
#[test]
fn a_pipe_may_wait_or_not_as_its_owner_pleases() {
    let (_server, directory, _person) = start();
    for flags in [OFlags::empty(), OFlags::NONBLOCK] {
        let (reader, writer) = pipe().unwrap();
        fcntl_setpipe_size(&writer, 4096).unwrap();
        fcntl_setfl(&writer, fcntl_getfl(&writer).unwrap() | flags).unwrap();
        let mut client = Client::connect(&directory.path().join("control")).unwrap();
        let mut reader = File::from(reader);
        let picture = thread::spawn(move || {
            let mut picture = Vec::new();
            reader.read_to_end(&mut picture).unwrap();
            picture
        });
        client
            .ask(&picture_to_file(), Some(writer.as_fd()))
            .unwrap();
        drop(writer);
        let picture = picture.join().unwrap();
        assert!(picture.starts_with(b"\x89PNG") && picture.len() > 4096);
    }
}

#[test]
fn a_picture_goes_into_a_memory_file_and_into_no_device() {
    let (_server, directory, _person) = start();
    let mut client = Client::connect(&directory.path().join("control")).unwrap();
    let memory = memfd_create("picture", MemfdFlags::CLOEXEC).unwrap();
    client
        .ask(&picture_to_file(), Some(memory.as_fd()))
        .unwrap();
    assert!(File::from(memory).metadata().unwrap().len() > 100);
    let null = File::options().write(true).open("/dev/null").unwrap();
    let error = client.ask(&picture_to_file(), Some(null.as_fd()));
    let text = "cannot write to the file that came: it is neither a file nor a pipe";
    assert_eq!(error.unwrap_err().to_string(), text);
    let error = client.ask(&picture_to_file(), None).unwrap_err();
    assert_eq!(error.to_string(), "no file came with the request");
}

#[test]
fn a_path_of_the_servers_is_no_link_and_no_fifo_and_what_was_there_stays() {
    let (_server, directory, mut person) = start();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("precious"), "precious").unwrap();
    symlink(at("precious"), at("link")).unwrap();
    symlink(directory.path(), at("elsewhere")).unwrap();
    mknodat(CWD, at("fifo"), FileType::Fifo, 0o600.into(), 0).unwrap();
    for name in ["link", "elsewhere/new", "fifo"] {
        let request = json!({"command": "screenshot", "path": at(name)});
        let answer = person.ask(&request.to_string());
        assert!(answer["error"]["message"].is_string(), "{name}: {answer}");
    }
    assert_eq!(fs::read(at("precious")).unwrap(), b"precious");
    assert!(!at("new").exists());
}

/// Killed when dropped.
struct Program {
    child: Child,
    directory: TempDir,
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Program {
    fn start(options: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        let at = |name: &str| directory.path().join(name);
        let child = Command::new(env!("CARGO_BIN_EXE_virtio-gpu-s3d"))
            .arg("--socket")
            .arg(at("socket"))
            .arg("--control")
            .arg(at("control"))
            .args(options)
            .stderr(Stdio::from(File::create(at("log")).unwrap()))
            .spawn()
            .unwrap();
        let program = Self { child, directory };
        wait_until("the server", || {
            program.log().contains("listening") && is_served(&program.directory)
        });
        program
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    /// What it did so far, in ticks of 10 ms.
    fn ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split(' ').collect();
        fields[12].parse::<u64>().unwrap() + fields[13].parse::<u64>().unwrap()
    }

    fn files(&self) -> u64 {
        let files = fs::read_dir(format!("/proc/{}/fd", self.child.id()));
        files.unwrap().count() as u64
    }
}

#[test]
fn a_server_that_has_no_descriptor_left_waits_for_one_without_turning_in_circles() {
    let program = Program::start(&[]);
    let process = Pid::from_child(&program.child);
    let limit = |files: u64| {
        let of = Rlimit {
            current: Some(files),
            maximum: Some(1024),
        };
        prlimit(Some(process), Resource::Nofile, of).unwrap();
    };
    let mut before = program.files();
    wait_until("whoever asked before to be gone", || {
        let now = program.files();
        thread::sleep(Duration::from_millis(100));
        let same = now == before;
        before = now;
        same
    });
    limit(before);
    let mut person = connect(&program.directory);
    writeln!(person.reader.get_mut(), "{STATUS}").unwrap();
    let ticks = program.ticks();
    thread::sleep(Duration::from_secs(2));
    let used = program.ticks() - ticks;
    assert!(used < 5, "{used} of 200 ticks");
    limit(1024);
    assert_eq!(person.answer()["return"]["state"], "idle");
}

#[test]
fn sockets_are_their_owners_unless_the_command_line_says_otherwise() {
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for (options, [device, control]) in [
        (&[][..], [0o600, 0o600]),
        (&["--control-mode", "666"], [0o600, 0o666]),
        (&["--socket-group", "0", "--control-group", "0"], [0o660; 2]),
    ] {
        let program = Program::start(options);
        let at = |name: &str| program.directory.path().join(name);
        assert_eq!(mode(&at("socket")), device, "{options:?}");
        assert_eq!(mode(&at("control")), control, "{options:?}");
    }
}

/// Bytes of the log in so many seconds, whatever others do: lines in a window, of which two may be touched, of 200 bytes.
const FLOOD: u64 = 2 * (10 + 30) * 200;

#[test]
fn refused_connections_and_maps_do_not_fill_the_log() {
    let program = Program::start(&[]);
    let at = |name: &str| program.directory.path().join(name);
    let people: Vec<_> = (0..PLACES).map(|_| connect(&program.directory)).collect();
    for _ in 0..2000 {
        drop(UnixStream::connect(at("control")));
    }
    drop(people);
    let refused = fs::metadata(at("log")).unwrap().len();
    assert!(program.log().contains("More than 16 control connections"));
    assert!(refused < FLOOD, "{refused} bytes");
    let mut vmm = Vmm::connect(&at("socket"));
    let disk = tempfile::tempfile().unwrap();
    disk.set_len(1 << 20).unwrap();
    for number in 0..2000 {
        let address = 0x1000_0000 + number * 0x1000;
        vmm.map_file(address, 0x1000, disk.as_fd());
    }
    drop(vmm);
    for _ in 0..200 {
        drop(UnixStream::connect(at("socket")));
    }
    wait_until("a line about what was left out", || {
        fs::metadata(at("log")).unwrap().len() > refused
    });
    let all = fs::metadata(at("log")).unwrap().len();
    assert!(all < 2 * FLOOD, "{all} bytes");
}
