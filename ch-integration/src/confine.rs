// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What each process of the server needs of the host: its sandbox.
//!
//! The system calls are those of [`virtio_gpu_worker::seccomp`], narrowed here by their arguments, so that a thread can be
//! made and no process, a name set and no other thing of `prctl`. No process has a network, runs a program that it did
//! not start with, or signals another.

use std::path::{Path, PathBuf};
use std::process;

use host_sandbox::{Access, Argument, Call, Policy, Reach, Test, Verdict};
use virtio_gpu_worker::seccomp::{self, HostPath, SystemCall};

/// What a server was asked for, as far as its sandbox depends on it.
#[derive(Clone, Debug, Default)]
pub struct ServerNeeds {
    /// Whether it reaches the host's compositor.
    pub wayland: bool,
    /// Whether VNC viewers connect.
    pub viewers: bool,
    /// Whether virglrenderer lives in it.
    pub renders: bool,
    /// Whether it starts the render server itself.
    pub starts_render_server: bool,
    /// Directories in which sockets are that it removes in the end.
    pub sockets: Vec<PathBuf>,
    /// Directories for pictures.
    pub pictures: Vec<PathBuf>,
}

/// The server's sandbox.
pub fn server(needs: &ServerNeeds) -> Policy {
    let mut lists = vec![seccomp::GPU_2D, seccomp::CONTROL, seccomp::SERVER];
    if needs.wayland {
        lists.push(seccomp::GPU_WAYLAND);
    }
    if needs.viewers {
        lists.push(seccomp::VNC);
    }
    let mut policy = Policy::default();
    let mut narrowed = common();
    if needs.renders {
        lists.extend([seccomp::GPU_VIRGL, seccomp::RENDERER]);
        policy.reach = reach(seccomp::PATHS_VIRGL);
        narrowed.extend(rendering());
    } else {
        narrowed.extend([
            no_code(libc::SYS_mmap),
            no_code(libc::SYS_mprotect),
            no_terminal(),
        ]);
    }
    if needs.starts_render_server {
        lists.push(seccomp::RENDER_SERVER);
        narrowed.extend(starting());
    }
    if needs.wayland || needs.renders {
        narrowed.push(only(libc::SYS_socket, 0, &[libc::AF_UNIX]));
    }
    policy.calls = declared(&lists, narrowed);
    policy.reach.push(at("/dev/null".as_ref(), Access::Use));
    let sockets = needs.sockets.iter().map(|path| at(path, Access::Remove));
    let pictures = needs.pictures.iter().map(|path| at(path, Access::Files));
    policy.reach.extend(sockets.chain(pictures));
    policy
}

/// The renderer's process's sandbox.
pub fn renderer() -> Policy {
    let lists = [seccomp::GPU_2D, seccomp::GPU_VIRGL, seccomp::RENDERER];
    let mut narrowed = common();
    narrowed.extend(rendering());
    narrowed.extend(no_network());
    Policy {
        calls: declared(&lists, narrowed),
        reach: renderers_reach(),
    }
}

/// The sandbox of virglrenderer's render server.
pub fn render_server() -> Policy {
    let lists = [
        seccomp::GPU_2D,
        seccomp::GPU_VIRGL,
        seccomp::RENDERER,
        seccomp::RENDER_SERVER,
    ];
    let mut narrowed = common();
    narrowed.extend(rendering());
    narrowed.extend(no_network());
    narrowed.extend(starting());
    Policy {
        calls: declared(&lists, narrowed),
        reach: renderers_reach(),
    }
}

/// The sandbox of the process that starts renderers. No guest speaks to it. Whatever a renderer needs it must have, as
/// a sandbox within a sandbox only takes away.
pub fn spawner() -> Policy {
    let lists = [
        seccomp::GPU_2D,
        seccomp::GPU_VIRGL,
        seccomp::RENDERER,
        seccomp::RENDER_SERVER,
        seccomp::SERVER,
        seccomp::SPAWNER,
    ];
    let narrowed = starting().into_iter().chain([allowed(libc::SYS_kill)]);
    let mut reach = renderers_reach();
    // A renderer's sandbox has /proc/self, which is another directory for each process.
    reach.push(at("/proc".as_ref(), Access::Read));
    reach.push(at("/proc/self/exe".as_ref(), Access::Read));
    Policy {
        calls: declared(&lists, narrowed.collect()),
        reach,
    }
}

fn renderers_reach() -> Vec<Reach> {
    let mut reach = reach(seccomp::PATHS_VIRGL);
    reach.push(at("/dev/null".as_ref(), Access::Use));
    reach.push(at("/usr/libexec".as_ref(), Access::Read));
    reach
}

fn reach(paths: &[HostPath]) -> Vec<Reach> {
    let access = |write| if write { Access::Use } else { Access::Read };
    let reach = paths.iter();
    reach
        .map(|host| at(host.path.as_ref(), access(host.write)))
        .collect()
}

fn at(path: &Path, access: Access) -> Reach {
    Reach {
        path: path.into(),
        access,
    }
}

/// All calls of the lists, those among `narrowed` with their conditions. One that is in no list is none.
fn declared(lists: &[&[SystemCall]], narrowed: Vec<Call>) -> Vec<Call> {
    let all = lists.iter().copied().flatten();
    let mut calls: Vec<Call> = all.map(|call| allowed(call.number)).collect();
    let listed: Vec<i64> = calls.iter().map(|call| call.number).collect();
    calls.extend(
        narrowed
            .into_iter()
            .filter(|call| listed.contains(&call.number)),
    );
    calls
}

fn allowed(number: i64) -> Call {
    Call {
        number,
        verdict: Verdict::Allowed,
    }
}

fn refused(number: i64, error: i32) -> Call {
    Call {
        number,
        verdict: Verdict::Refused(error),
    }
}

/// The call is made where the argument is one of `values`.
fn only(number: i64, index: u8, values: &[i32]) -> Call {
    let is = |value: &i32| {
        vec![Argument {
            index,
            test: Test::Is(value.cast_unsigned()),
        }]
    };
    Call {
        number,
        verdict: Verdict::AllowedIf(values.iter().map(is).collect()),
    }
}

fn if_all(number: i64, tests: &[(u8, Test)]) -> Call {
    let argument = |&(index, test): &(u8, Test)| Argument { index, test };
    Call {
        number,
        verdict: Verdict::AllowedIf(vec![tests.iter().map(argument).collect()]),
    }
}

/// Of `linux/prctl.h`: the C library names its memory where the kernel can.
const PR_SET_VMA: i32 = 0x5356_4d41;

/// What holds for all of them.
fn common() -> Vec<Call> {
    let own = process::id().cast_signed();
    vec![
        // Its flags are in memory, where no filter sees them; without it the C library makes threads by `clone`.
        refused(libc::SYS_clone3, libc::ENOSYS),
        // A thread, and no process.
        if_all(
            libc::SYS_clone,
            &[(0, Test::Has(libc::CLONE_THREAD.cast_unsigned()))],
        ),
        // A thread's name, and what libcap asks when Mesa loads it.
        only(
            libc::SYS_prctl,
            0,
            &[libc::PR_SET_NAME, PR_SET_VMA, libc::PR_CAPBSET_READ],
        ),
        only(libc::SYS_tgkill, 0, &[own]),
        only(libc::SYS_kill, 0, &[own]),
    ]
}

/// No new code: what runs is what was there at the start.
fn no_code(number: i64) -> Call {
    if_all(number, &[(2, Test::Lacks(libc::PROT_EXEC.cast_unsigned()))])
}

/// The server controls no device: a socket is made not to wait, and the log asks whether it is a terminal.
fn no_terminal() -> Call {
    let requests = [libc::FIONBIO, libc::TCGETS, libc::TIOCGWINSZ];
    // Requests are 32 bits, whatever type the C library gives them.
    let requests = requests.map(|request| u32::try_from(request).unwrap_or(0).cast_signed());
    only(libc::SYS_ioctl, 1, &requests)
}

/// A GPU's driver has ioctls of its own, but nothing is typed into the terminal that the server was started from.
fn rendering() -> Vec<Call> {
    let typing = [libc::TIOCSTI, libc::TIOCLINUX];
    let tests = typing.map(|request| (1, Test::IsNot(u32::try_from(request).unwrap_or(0))));
    vec![if_all(libc::SYS_ioctl, &tests)]
}

/// Mesa looks for a display server, and lives without. To connect is of no use without a socket.
fn no_network() -> Vec<Call> {
    let error = libc::EACCES;
    vec![
        refused(libc::SYS_socket, error),
        refused(libc::SYS_connect, error),
    ]
}

/// Processes are made, in no new namespace.
fn starting() -> Vec<Call> {
    let namespaces = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    vec![
        refused(libc::SYS_clone3, libc::ENOSYS),
        if_all(
            libc::SYS_clone,
            &[(0, Test::Lacks(namespaces.cast_unsigned()))],
        ),
        // Each process that is made has a number of its own.
        allowed(libc::SYS_tgkill),
        allowed(libc::SYS_kill),
        // A program that starts asks what it has.
        allowed(libc::SYS_prctl),
    ]
}
