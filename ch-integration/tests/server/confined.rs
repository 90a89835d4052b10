// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the kernel says of the processes of a server that runs.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

#[cfg(feature = "virgl")]
use crate::virgl::make_target;
use crate::vmm::Vmm;
#[cfg(feature = "virgl")]
use crate::vmm::wait_until;

/// Ended in order when dropped.
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
        Self::start_as(None, options)
    }

    /// In a directory of this user's.
    fn start_as(user: Option<u32>, options: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        chown(directory.path(), user, user).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_virtio-gpu-s3d"))
            .arg("--socket")
            .arg(directory.path().join("socket"))
            .args(options)
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let program = Self { child, directory };
        // It is served once it answers, and confined before.
        drop(Vmm::connect(&program.socket()));
        program
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// The processes of this server by the first word of their command lines, its own without one.
    fn processes(&self) -> BTreeMap<String, u32> {
        let mut found = BTreeMap::from([("server".to_owned(), self.child.id())]);
        let mut parents = vec![self.child.id()];
        while let Some(parent) = parents.pop() {
            for child in children(parent) {
                found.insert(role(child), child);
                parents.push(child);
            }
        }
        found
    }
}

/// The fields of `/proc/PID/status`.
fn status(process: u32) -> BTreeMap<String, String> {
    let text = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

fn children(parent: u32) -> Vec<u32> {
    let parent = parent.to_string();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    processes
        .filter(|&process| status(process).get("PPid") == Some(&parent))
        .collect()
}

/// What a process is, by its command line: virglrenderer's own program has another one.
fn role(process: u32) -> String {
    let line = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    let words: Vec<_> = line
        .split(|&byte| byte == 0)
        .map(String::from_utf8_lossy)
        .collect();
    match words[0].contains("virgl_render_server") {
        true => "render-server".into(),
        // One that has ended has none.
        false => words.get(1).map_or("ended", |word| word).into(),
    }
}

fn namespace(process: u32, kind: &str) -> String {
    let link = fs::read_link(format!("/proc/{process}/ns/{kind}")).unwrap();
    link.to_string_lossy().into_owned()
}

/// Everything that its start says it gave up is gone, in this process.
fn is_confined(name: &str, process: u32) {
    let status = status(process);
    for (field, expected) in [
        ("Seccomp", "2"),
        ("NoNewPrivs", "1"),
        ("CapInh", "0000000000000000"),
        ("CapPrm", "0000000000000000"),
        ("CapEff", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
    ] {
        if field == "CapBnd" && !geteuid().is_root() {
            // Bounds nothing where there is nothing: to empty it takes a privilege.
            continue;
        }
        assert_eq!(status[field], expected, "{name}: {field}");
    }
    let own = process::id();
    for kind in ["user", "net", "ipc", "uts"] {
        assert_ne!(
            namespace(process, kind),
            namespace(own, kind),
            "{name}: {kind}"
        );
    }
    let map = fs::read_to_string(format!("/proc/{process}/uid_map")).unwrap();
    let numbers: Vec<_> = map.split_whitespace().collect();
    let outside = geteuid().as_raw().to_string();
    assert_eq!(numbers, ["65533", outside.as_str(), "1"], "{name}");
    let limits = fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core"));
    let core: Vec<_> = core.unwrap().split_whitespace().collect();
    assert_eq!(core[4..6], ["1", "1"], "{name}");
}

/// Whether an unprivileged process of this host can have all of it.
fn is_possible() -> bool {
    let possible = Command::new("unshare")
        .args(["--user", "--net", "true"])
        .status();
    let possible = possible.is_ok_and(|status| status.success());
    if !possible {
        eprintln!("skipped: this host has no user namespaces");
    }
    possible
}

#[test]
fn a_server_has_no_privilege_no_network_and_a_filter_by_default() {
    if !is_possible() {
        return;
    }
    let program = Program::start(&[]);
    let processes = program.processes();
    assert_eq!(processes.len(), 1, "{processes:?}");
    is_confined("server", processes["server"]);
}

#[test]
fn with_the_sandbox_off_a_server_keeps_what_it_has() {
    let program = Program::start(&["--sandbox", "off"]);
    let status = status(program.child.id());
    assert_eq!(status["Seccomp"], self::status(process::id())["Seccomp"]);
}

/// Where no directory was given, a client that names a path gets an error, and no file.
#[test]
fn a_screenshot_goes_where_the_server_was_told_that_it_may() {
    let (allowed, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let control = other.path().join("control");
    let program = Program::start(&[
        "--control",
        control.to_str().unwrap(),
        "--pictures",
        allowed.path().to_str().unwrap(),
    ]);
    let ask = |path: &Path| {
        let mut stream = UnixStream::connect(&control).unwrap();
        let path = path.display();
        writeln!(stream, r#"{{"command":"screenshot","path":"{path}"}}"#).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line
    };
    let (good, bad) = (allowed.path().join("a.png"), other.path().join("b.png"));
    let answer = ask(&good);
    assert!(answer.contains("return") && good.exists(), "{answer}");
    let answer = ask(&bad);
    assert!(
        answer.contains("Permission denied") && !bad.exists(),
        "{answer}"
    );
    drop(program);
}

#[test]
fn a_confined_server_shows_its_screen_to_a_viewer_and_removes_the_viewers_socket() {
    let sockets = TempDir::new().unwrap();
    let path = sockets.path().join("vnc");
    let mut program = Program::start(&["--vnc", &format!("unix:{}", path.display())]);
    let mut viewer = UnixStream::connect(&path).unwrap();
    viewer.write_all(b"RFB 003.008\n\x01\x01").unwrap();
    let mut begin = [0; 22];
    viewer.read_exact(&mut begin).unwrap();
    // Version, security, how that went, and the size of the screen: 1280 x 800.
    assert_eq!(begin[12..], [1, 1, 0, 0, 0, 0, 5, 0, 3, 32]);
    let server = Pid::from_child(&program.child);
    kill_process(server, Signal::TERM).unwrap();
    assert!(program.child.wait().unwrap().success());
    assert!(!path.exists());
}

/// Everything is theirs, and the sandbox is whole.
#[test]
fn root_can_have_the_server_become_another_user() {
    if !geteuid().is_root() || !is_possible() {
        return;
    }
    const NOBODY: u32 = 65_534;
    // This VMM is root's, whom the server cannot tell from other strangers: the file's mode is what lets it in.
    let options = ["--user", "nobody", "--socket-mode", "600"];
    let program = Program::start_as(Some(NOBODY), &options);
    let process = program.child.id();
    let status = status(process);
    for field in ["Uid", "Gid"] {
        let all = ["65534"; 4];
        assert!(status[field].split_whitespace().eq(all), "{status:?}");
    }
    let map = fs::read_to_string(format!("/proc/{process}/uid_map")).unwrap();
    assert!(map.split_whitespace().eq(["65533", "65534", "1"]), "{map}");
    let owner = fs::metadata(program.socket()).unwrap().uid();
    assert_eq!(owner, NOBODY);
}

/// The sockets go with the server: it may remove them, and was not ended for it.
#[test]
fn a_confined_server_ends_in_order() {
    let mut program = Program::start(&[]);
    let id = Pid::from_raw(program.child.id().cast_signed()).unwrap();
    kill_process(id, Signal::TERM).unwrap();
    assert!(program.child.wait().unwrap().success());
    assert!(!program.socket().exists());
}

#[cfg(feature = "virgl")]
#[test]
fn each_process_of_a_server_with_3d_is_confined_also_one_that_is_started_after_a_crash() {
    if !is_possible() {
        return;
    }
    let program = Program::start(&["--gpu", "backend=virgl,hostmem=64M,venus=on"]);
    let roles = ["render-server", "renderer", "server", "spawner"];
    let processes = program.processes();
    assert!(processes.keys().eq(roles.iter()), "{processes:?}");
    for (name, &process) in &processes {
        is_confined(name, process);
    }
    let namespaces = |name: &str| namespace(processes[name], "user");
    assert_ne!(namespaces("server"), namespaces("renderer"));

    let first = processes["renderer"];
    let mut vmm = Vmm::connect(&program.socket());
    vmm.start_driver();
    let id = Pid::from_raw(first.cast_signed()).unwrap();
    kill_process(id, Signal::KILL).unwrap();
    wait_until("the renderer's end", || {
        !program.processes().values().any(|it| *it == first)
    });
    // The reset makes room for a new one, and making a context needs it.
    drop(vmm);
    let mut vmm = Vmm::connect(&program.socket());
    vmm.start_driver();
    make_target(&mut vmm);
    let processes = program.processes();
    assert_ne!(processes["renderer"], first);
    is_confined("the second renderer", processes["renderer"]);
}
