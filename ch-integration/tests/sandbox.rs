// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a process can do that a guest has taken over: this program again, which enters the sandbox of one of the server's
//! processes and then tries what it should not be able to. With the sandbox off the same attempts are made, and reach what
//! they are after, so that each of them could fail.
#![expect(
    unsafe_code,
    reason = "an intruder makes system calls as it pleases, which no library offers"
)]

use std::env;
use std::ffi::{CStr, c_int, c_long};
use std::fs;
use std::io::Error as IoError;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio, exit};
use std::ptr;
use std::thread;
use std::time::{Duration, Instant};

use ch_integration::confine::{self, ServerNeeds};
use ch_integration::ending::{PANICKED, end_on_panic};
use host_sandbox::{Mode, Policy, namespaces};

/// What the intruder's status says when the sandbox is not all there.
const PARTLY: i32 = 77;
/// What it says when an attempt was successful; less is an errno.
const REACHED: i32 = 200;

/// Numbers of arguments that mean nothing, and are never reached.
const NONE: c_long = 0;
const PATH: &[u8] = b"/etc/shadow\0";
const NEW: &[u8] = b"/tmp/virtio-gpu-s3-intruder\0";
const PROGRAM: &[u8] = b"/bin/true\0";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The process is ended, with last words that name the call.
    Ended,
    /// The call fails.
    Fails(i32),
}

use Outcome::{Ended, Fails};

struct Attempt {
    name: &'static str,
    /// For the server, the renderer, and the render server.
    outcomes: [Outcome; 3],
    call: fn() -> c_long,
}

/// A call with up to six arguments.
macro_rules! call {
    ($number:ident $(, $argument:expr)*) => {
        // SAFETY: What it does to this process does not matter: it ends, and owns nothing.
        || unsafe { libc::syscall(libc::$number $(, $argument)*) }
    };
}

const fn attempt(name: &'static str, outcomes: [Outcome; 3], call: fn() -> c_long) -> Attempt {
    Attempt {
        name,
        outcomes,
        call,
    }
}

fn parent() -> c_int {
    // SAFETY: It only asks.
    unsafe { libc::getppid() }
}

const ALL_END: [Outcome; 3] = [Ended; 3];
const ALL_DENIED: [Outcome; 3] = [Fails(libc::EACCES); 3];

const ATTEMPTS: &[Attempt] = &[
    attempt(
        "read the passwords",
        ALL_DENIED,
        call!(SYS_openat, libc::AT_FDCWD, PATH.as_ptr(), libc::O_RDONLY),
    ),
    attempt(
        "make a file",
        ALL_DENIED,
        call!(
            SYS_openat,
            libc::AT_FDCWD,
            NEW.as_ptr(),
            libc::O_CREAT | libc::O_WRONLY,
            0o600
        ),
    ),
    attempt(
        "reach the network",
        [Ended, Fails(libc::EACCES), Fails(libc::EACCES)],
        call!(SYS_socket, libc::AF_INET, libc::SOCK_STREAM, NONE),
    ),
    attempt(
        "run a program",
        [Ended, Ended, Fails(libc::EACCES)],
        call!(
            SYS_execve,
            PROGRAM.as_ptr(),
            [ptr::null::<u8>()].as_ptr(),
            [ptr::null::<u8>()].as_ptr()
        ),
    ),
    attempt(
        "make a process by clone3",
        [Fails(libc::ENOSYS); 3],
        call!(SYS_clone3, NONE, NONE),
    ),
    attempt(
        "signal who started it",
        [Ended, Ended, Fails(libc::EPERM)],
        call!(SYS_kill, parent(), NONE),
    ),
    attempt(
        "trace who started it",
        ALL_END,
        call!(SYS_ptrace, libc::PTRACE_SEIZE, parent(), NONE, NONE),
    ),
    attempt(
        "read memory of others",
        ALL_END,
        call!(SYS_process_vm_readv, parent(), NONE, NONE, NONE, NONE, NONE),
    ),
    attempt(
        "mount",
        ALL_END,
        call!(SYS_mount, NONE, c"".as_ptr(), c"tmpfs".as_ptr(), NONE, NONE),
    ),
    attempt(
        "make namespaces",
        ALL_END,
        call!(SYS_unshare, libc::CLONE_NEWUSER),
    ),
    attempt(
        "make a process in namespaces",
        ALL_END,
        call!(
            SYS_clone,
            libc::CLONE_NEWUSER | libc::SIGCHLD,
            NONE,
            NONE,
            NONE,
            NONE
        ),
    ),
    attempt(
        "see the kernel's keys",
        ALL_END,
        call!(SYS_keyctl, NONE, NONE, NONE, NONE, NONE),
    ),
    attempt(
        "load a program into the kernel",
        ALL_END,
        call!(SYS_bpf, NONE, NONE, NONE),
    ),
    attempt(
        "use io_uring",
        ALL_END,
        call!(SYS_io_uring_setup, 1 as c_long, NONE),
    ),
    attempt(
        "stop the kernel at a page fault",
        ALL_END,
        call!(SYS_userfaultfd, NONE),
    ),
    attempt(
        "count what others do",
        ALL_END,
        call!(SYS_perf_event_open, NONE, NONE, NONE, NONE, NONE),
    ),
    attempt(
        "take a file of others",
        ALL_END,
        call!(SYS_pidfd_getfd, NONE, NONE, NONE),
    ),
    attempt(
        "open by a handle",
        ALL_END,
        call!(SYS_open_by_handle_at, NONE, NONE, NONE),
    ),
    attempt("change the root", ALL_END, call!(SYS_chroot, c"/".as_ptr())),
    attempt("become root", ALL_END, call!(SYS_setuid, NONE)),
    attempt(
        "type into a terminal",
        ALL_END,
        call!(SYS_ioctl, NONE, libc::TIOCSTI, c"x".as_ptr()),
    ),
];

/// Attempts that one process alone must fail at.
const MAKE_CODE: Attempt = attempt(
    "make code",
    [Ended, Fails(0), Fails(0)],
    call!(
        SYS_mmap,
        NONE,
        4096 as c_long,
        libc::PROT_READ | libc::PROT_EXEC,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        -1 as c_long,
        NONE
    ),
);

const PROCESSES: [&str; 3] = ["server", "renderer", "render-server"];

fn policy(process: &str) -> Policy {
    match process {
        "server" => confine::server(&ServerNeeds::default()),
        "renderer" => confine::renderer(),
        _ => confine::render_server(),
    }
}

/// In the process that was taken over.
fn intrude(process: &str, mode: &str, attempt: &str) -> ! {
    let mode: Mode = mode.parse().unwrap();
    let all = ATTEMPTS.iter().chain([&MAKE_CODE]);
    let attempt = all.into_iter().find(|it| it.name == attempt).unwrap();
    let mut missing = namespaces::leave(mode);
    missing.extend(policy(process).enter(mode).unwrap());
    if !missing.is_empty() {
        eprintln!("{missing:?}");
        exit(PARTLY);
    }
    let result = (attempt.call)();
    let failed = IoError::last_os_error().raw_os_error();
    let status = if result >= 0 { None } else { failed };
    // What a coverage build writes at an exit is more than the sandbox lets it.
    // SAFETY: Nothing is left to be done.
    unsafe { libc::_exit(status.unwrap_or(REACHED)) }
}

fn start(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.arg("intrude").args(arguments).stdin(Stdio::null());
    command
}

fn attempted(process: &str, mode: &str, attempt: &Attempt) -> Output {
    start(&[process, mode, attempt.name]).output().unwrap()
}

fn every_attempt_of_every_process_fails_and_is_named() {
    for (index, process) in PROCESSES.into_iter().enumerate() {
        for attempt in ATTEMPTS {
            let output = attempted(process, "on", attempt);
            let words = String::from_utf8_lossy(&output.stderr);
            let what = format!("{process}: {}: {:?}, {words}", attempt.name, output.status);
            if output.status.code() == Some(PARTLY) {
                eprintln!("skipped: {what}");
                continue;
            }
            match attempt.outcomes[index] {
                Ended => {
                    assert_eq!(output.status.signal(), Some(libc::SIGSYS), "{what}");
                    assert!(words.starts_with("sandbox: system call "), "{what}");
                    assert!(!words.contains("unknown"), "{what}");
                }
                Fails(error) => assert_eq!(output.status.code(), Some(error), "{what}"),
            }
        }
    }
}

fn no_new_code_runs_in_a_server_that_does_not_render() {
    let output = attempted("server", "on", &MAKE_CODE);
    let known = [Some(libc::SIGSYS), None];
    assert!(known.contains(&output.status.signal()), "{output:?}");
    let output = attempted("renderer", "on", &MAKE_CODE);
    assert!(
        matches!(output.status.code(), Some(REACHED | PARTLY)),
        "{output:?}"
    );
}

/// Or the attempts say nothing.
fn without_a_sandbox_the_same_attempts_are_successful() {
    for name in ["reach the network", "make a file", "signal who started it"] {
        let attempt = ATTEMPTS.iter().find(|it| it.name == name).unwrap();
        let output = attempted("server", "off", attempt);
        assert_eq!(output.status.code(), Some(REACHED), "{name}");
    }
    let made = CStr::from_bytes_with_nul(NEW).unwrap();
    fs::remove_file(made.to_str().unwrap()).unwrap();
}

fn with_log_a_call_goes_on_that_on_would_end() {
    let unshare = ATTEMPTS.iter().find(|it| it.name == "make namespaces");
    let output = attempted("server", "log", unshare.unwrap());
    assert_eq!(output.status.code(), Some(REACHED), "{output:?}");
}

/// Not the thread that panics, with a server behind it that serves nobody.
fn a_panic_of_any_thread_ends_the_process_with_a_status_of_its_own() {
    let start = Instant::now();
    let mut command = Command::new(env::current_exe().unwrap());
    let output = command.arg("panic").output().unwrap();
    assert_eq!(output.status.code(), Some(PANICKED), "{output:?}");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("a thread of no importance"), "{words}");
    assert!(start.elapsed() < LONG);
}

const LONG: Duration = Duration::from_secs(30);

fn panic_on_a_thread() -> ! {
    end_on_panic();
    thread::spawn(|| panic!("a thread of no importance"));
    thread::sleep(LONG);
    exit(0);
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["intrude", process, mode, attempt] => intrude(process, mode, attempt),
        ["panic"] => panic_on_a_thread(),
        _ => {}
    }
    let tests: [(&str, fn()); 5] = [
        (
            "every attempt fails",
            every_attempt_of_every_process_fails_and_is_named,
        ),
        (
            "no new code",
            no_new_code_runs_in_a_server_that_does_not_render,
        ),
        ("off", without_a_sandbox_the_same_attempts_are_successful),
        ("log", with_log_a_call_goes_on_that_on_would_end),
        (
            "panic",
            a_panic_of_any_thread_ends_the_process_with_a_status_of_its_own,
        ),
    ];
    for (name, test) in tests {
        test();
        println!("sandbox: {name}: ok");
    }
}
