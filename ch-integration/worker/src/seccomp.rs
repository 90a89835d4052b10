// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The system calls of a GPU, as data for seccomp filters: each with the reason why it is there.
//!
//! The server's processes are behind filters that these lists make, and a VMM that has the GPU in process can make its own
//! of the same. The lists are whole. A VMM whose filters have a common part may find some of them there already. A thread
//! also runs behind the filters of the thread that made it, so the VMM's own must allow the same calls.

/// A system call that a thread needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemCall {
    /// Its number on this architecture.
    pub number: i64,
    /// Its name.
    pub name: &'static str,
    /// What for.
    pub reason: &'static str,
}

macro_rules! calls {
    ($($(#[$attribute:meta])* $name:ident => $reason:literal,)*) => {
        &[$($(#[$attribute])* SystemCall {
            number: libc::$name,
            name: stringify!($name),
            reason: $reason,
        },)*]
    };
}

/// The GPU's thread with the 2D backend. No file is opened, no device controlled, no thread or process made.
pub const GPU_2D: &[SystemCall] = calls! {
    SYS_brk => "the allocator grows the heap",
    SYS_clock_gettime => "durations in events, where the vDSO cannot tell the time",
    SYS_close => "the doorbells of a driver that is gone",
    SYS_epoll_ctl => "listen to the doorbells of a driver that came",
    SYS_epoll_pwait => "wait for a doorbell or a request",
    #[cfg(target_arch = "x86_64")]
    SYS_epoll_wait => "wait for a doorbell or a request",
    SYS_exit => "the end of the thread",
    SYS_fcntl => "the standard library checks what it closes, in debug builds",
    SYS_futex => "locks, and answers to the VMM's threads",
    SYS_getrandom => "keys of hash tables, and UUIDs that no other GPU gives",
    SYS_gettid => "the C library's, when a panic is reported",
    SYS_madvise => "the allocator, and the end of a thread, give memory back",
    SYS_mmap => "the allocator: pictures are large",
    SYS_mprotect => "the allocator grows a thread's heap",
    SYS_mremap => "the allocator grows a picture",
    SYS_munmap => "the allocator gives memory back",
    SYS_read => "clear the eventfd of a doorbell",
    SYS_rt_sigprocmask => "the start and end of a thread",
    SYS_rt_sigreturn => "return from a signal that the VMM handles",
    SYS_sched_getaffinity => "the standard library, when a thread starts",
    SYS_sched_yield => "the standard library's channels, under contention",
    SYS_set_robust_list => "the start of a thread",
    SYS_sigaltstack => "the standard library's guard against stack overflow",
    SYS_tgkill => "abort after a panic that cannot unwind",
    SYS_write => "interrupts are eventfds, and the log is a file",
};

/// What the control socket's threads need beside [`GPU_2D`].
pub const CONTROL: &[SystemCall] = calls! {
    SYS_accept4 => "somebody connects",
    SYS_clone => "a thread for each connection",
    SYS_clone3 => "a thread for each connection",
    SYS_dup => "a connection is known to its thread and to the end of all",
    SYS_epoll_create1 => "wait for connections and for the end",
    SYS_ioctl => "FIONBIO: connections block, the listener does not",
    SYS_fstat => "what a file is that came with a request",
    SYS_geteuid => "whether who connects is the same user",
    SYS_getpid => "the name of a file until it is whole",
    SYS_getsockopt => "who connects to the socket",
    SYS_newfstatat => "what a screenshot would replace",
    SYS_openat => "a screenshot goes into the file that was asked for",
    SYS_openat2 => "the directory of that file, by no link",
    #[cfg(target_arch = "x86_64")]
    SYS_poll => "whether a client left, a pipe takes more",
    SYS_ppoll => "whether a client left, a pipe takes more",
    SYS_prctl => "name the threads",
    SYS_recvmsg => "requests of the person, with files",
    #[cfg(target_arch = "x86_64")]
    SYS_renameat => "a screenshot that is whole takes its place",
    SYS_renameat2 => "a screenshot that is whole takes its place",
    SYS_rseq => "the start of a thread",
    SYS_sendto => "answers to the person",
    SYS_setsockopt => "how long an answer may wait to be taken",
    SYS_shutdown => "end the connections when the GPU goes",
    SYS_unlinkat => "a screenshot that could not be written leaves nothing",
};

/// What the threads of VNC viewers need beside [`GPU_2D`].
pub const VNC: &[SystemCall] = calls! {
    SYS_accept4 => "a viewer connects",
    SYS_clock_nanosleep => "the next viewer waits where there are no more files",
    SYS_clone => "a thread for each viewer",
    SYS_clone3 => "a thread for each viewer",
    SYS_eventfd2 => "each viewer has a way to be woken for a new picture",
    SYS_ioctl => "FIONBIO: nothing waits for a viewer",
    #[cfg(target_arch = "x86_64")]
    SYS_poll => "wait for a viewer and for a new picture",
    SYS_ppoll => "wait for a viewer and for a new picture",
    SYS_prctl => "name the threads",
    SYS_recvfrom => "what a viewer says",
    SYS_rseq => "the start of a thread",
    SYS_sendto => "pictures for a viewer",
    SYS_setsockopt => "TCP_NODELAY: a picture's end does not wait for its beginning",
    SYS_shutdown => "end a viewer's connection",
};

/// What the GPU's thread and the renderer's need beside [`GPU_2D`] with the virgl backend, where Mesa draws. How
/// much of the host that is says why an out-of-process server is the better place for it.
pub const GPU_VIRGL: &[SystemCall] = calls! {
    #[cfg(target_arch = "x86_64")]
    SYS_access => "the dynamic loader looks for libraries and drivers",
    SYS_clone => "threads of virglrenderer and llvmpipe",
    SYS_clone3 => "threads of virglrenderer and llvmpipe",
    SYS_clock_nanosleep => "virglrenderer's thread for fences",
    SYS_connect => "Mesa looks for a display server, in vain",
    SYS_dup => "file descriptors of buffers and devices",
    #[cfg(target_arch = "x86_64")]
    SYS_dup2 => "what virglrenderer prints is read for its errors",
    SYS_dup3 => "what virglrenderer prints is read for its errors",
    SYS_epoll_create1 => "pipes and fences",
    SYS_eventfd2 => "virglrenderer wakes itself",
    SYS_faccessat => "the dynamic loader looks for libraries and drivers",
    SYS_faccessat2 => "the dynamic loader looks for libraries and drivers",
    SYS_fadvise64 => "Mesa reads its shader cache",
    SYS_fallocate => "buffers in memory files",
    SYS_flock => "Mesa's shader cache",
    SYS_fstat => "the dynamic loader and Mesa read files",
    SYS_fstatfs => "Mesa's shader cache",
    SYS_ftruncate => "buffers in memory files",
    #[cfg(target_arch = "x86_64")]
    SYS_getdents => "Mesa lists /dev/dri and drivers",
    SYS_getdents64 => "Mesa lists /dev/dri and drivers",
    SYS_getegid => "the dynamic loader and Mesa check who they are",
    SYS_geteuid => "the dynamic loader and Mesa check who they are",
    SYS_getgid => "the dynamic loader and Mesa check who they are",
    SYS_getpid => "names of memory files, fences",
    SYS_getppid => "names of memory files",
    SYS_getpriority => "Mesa's background threads",
    SYS_getuid => "the dynamic loader and Mesa check who they are",
    SYS_get_mempolicy => "llvmpipe spreads its threads",
    SYS_ioctl => "the GPU's kernel driver, where there is one, and the hypervisor's memory slots",
    SYS_kcmp => "Mesa compares file descriptors of a GPU",
    SYS_lseek => "sizes of buffers, and files",
    #[cfg(target_arch = "x86_64")]
    SYS_lstat => "Mesa finds the GPU's device",
    SYS_membarrier => "fences between the threads of the renderer",
    SYS_memfd_create => "buffers that the guest may see",
    SYS_mkdirat => "Mesa's shader cache",
    #[cfg(target_arch = "x86_64")]
    SYS_mkdir => "Mesa's shader cache",
    SYS_newfstatat => "the dynamic loader and Mesa look for files",
    #[cfg(target_arch = "x86_64")]
    SYS_open => "drivers, by C libraries that know no openat",
    SYS_openat => "drivers, devices and configuration of Mesa",
    #[cfg(target_arch = "x86_64")]
    SYS_pipe => "the device is told of fences",
    SYS_pipe2 => "the device is told of fences",
    #[cfg(target_arch = "x86_64")]
    SYS_poll => "wait for fences",
    SYS_ppoll => "wait for fences",
    SYS_prctl => "name the threads",
    SYS_pread64 => "the dynamic loader, shader cache",
    SYS_prlimit64 => "the stacks of new threads",
    SYS_pwrite64 => "Mesa's shader cache",
    #[cfg(target_arch = "x86_64")]
    SYS_readlink => "Mesa finds the GPU's device",
    SYS_readlinkat => "Mesa finds the GPU's device",
    SYS_recvmsg => "Mesa looks for a display server, in vain",
    SYS_rseq => "the start of a thread",
    SYS_rt_sigaction => "signals are not for Mesa's threads",
    SYS_sched_getparam => "Mesa's background threads",
    SYS_sched_getscheduler => "Mesa's background threads",
    SYS_sched_setaffinity => "Mesa keeps threads near the caches they share",
    SYS_sched_setscheduler => "Mesa's background threads",
    SYS_sendmsg => "Mesa looks for a display server, in vain",
    SYS_setpriority => "Mesa's background threads",
    SYS_set_mempolicy => "llvmpipe spreads its threads",
    SYS_socket => "Mesa looks for a display server, in vain",
    SYS_socketpair => "virglrenderer's video and render server",
    #[cfg(target_arch = "x86_64")]
    SYS_stat => "the dynamic loader and Mesa look for files",
    SYS_statfs => "the dynamic loader",
    SYS_statx => "Mesa finds the GPU's device",
    SYS_sysinfo => "how much memory the host has",
    SYS_uname => "Mesa's driver list",
    #[cfg(target_arch = "x86_64")]
    SYS_unlink => "Mesa's shader cache",
    SYS_unlinkat => "Mesa's shader cache",
    SYS_utimensat => "Mesa's shader cache",
    SYS_writev => "messages of virglrenderer and Mesa",
};

/// What the GPU's thread and the one that waits for the compositor need beside [`GPU_2D`] with `wayland=PATH`.
pub const GPU_WAYLAND: &[SystemCall] = calls! {
    SYS_clone => "the thread that waits for the compositor",
    SYS_clone3 => "the thread that waits for the compositor",
    SYS_connect => "a channel of the guest connects to the compositor",
    SYS_epoll_create1 => "wait for the compositor",
    SYS_fstat => "what a file is that came with a message",
    SYS_fstatfs => "which files are memory of a GPU",
    SYS_ftruncate => "buffers of the guest's windows",
    SYS_lseek => "the size of memory of a GPU",
    SYS_memfd_create => "buffers of the guest's windows",
    SYS_newfstatat => "what a file is that came with a message",
    SYS_pipe2 => "what is copied and pasted",
    SYS_prctl => "name the thread",
    SYS_pread64 => "copy a keymap that the compositor sealed",
    SYS_pwrite64 => "copy a keymap that the compositor sealed",
    SYS_recvmsg => "what the compositor says",
    SYS_rseq => "the start of a thread",
    SYS_sendmsg => "what the guest says",
    SYS_shutdown => "a channel of the guest hangs up",
    SYS_socket => "a channel of the guest connects to the compositor",
    SYS_statx => "whether the compositor's socket is one",
};

/// What the server's process needs beside [`GPU_2D`] and [`CONTROL`]: it speaks vfio-user, and ends in order.
pub const SERVER: &[SystemCall] = calls! {
    SYS_clock_nanosleep => "a file that cannot be closed at once is tried again",
    SYS_eventfd2 => "each VMM has a way to be woken for",
    SYS_exit_group => "the end of the process",
    SYS_fchmod => "a screenshot's file is its reader's",
    SYS_fstat => "what a file is that the VMM sent",
    SYS_fstatfs => "whether the VMM's memory is made of huge pages",
    SYS_fsync => "a screenshot is whole before it takes its name",
    SYS_ftruncate => "memory that the renderer's process shares",
    SYS_getcwd => "the report of a panic",
    SYS_getpid => "abort signals its own process",
    SYS_getsockopt => "who a socket's peer is",
    SYS_io_getevents => "interrupts are signalled by AIO, which cannot be made to wait",
    SYS_io_setup => "interrupts are signalled by AIO, which cannot be made to wait",
    SYS_io_submit => "interrupts are signalled by AIO, which cannot be made to wait",
    SYS_linkat => "a screenshot takes its name when it is whole",
    SYS_lseek => "the size of a file that the VMM sent",
    SYS_memfd_create => "memory that the renderer's process shares",
    SYS_nanosleep => "a file that cannot be closed at once is tried again",
    SYS_newfstatat => "what lies where a socket was made",
    SYS_pipe2 => "what the renderer prints",
    #[cfg(target_arch = "x86_64")]
    SYS_poll => "wait for the VMM and for the renderer",
    SYS_ppoll => "wait for the VMM and for the renderer",
    SYS_pread64 => "a file that the VMM sent is looked at",
    #[cfg(target_arch = "x86_64")]
    SYS_readlink => "the report of a panic",
    SYS_readlinkat => "the report of a panic",
    SYS_recvfrom => "which signal came to end the process",
    SYS_recvmsg => "the VMM's messages and files",
    #[cfg(target_arch = "x86_64")]
    SYS_rename => "a screenshot takes its name when it is whole",
    SYS_renameat => "a screenshot takes its name when it is whole",
    SYS_renameat2 => "a screenshot takes its name when it is whole",
    SYS_restart_syscall => "the kernel's, after a stop",
    SYS_rt_sigaction => "SIGTERM and SIGINT end the server in order, SIGBUS costs a VMM its memory",
    SYS_sendmsg => "answers to the VMM, files to the renderer",
    SYS_setsockopt => "a time for a peer to answer",
    SYS_socketpair => "the renderer's process, and the thread that waits for signals",
    SYS_statx => "what lies where a socket was made",
    #[cfg(target_arch = "x86_64")]
    SYS_unlink => "the server's sockets go with it",
    SYS_unlinkat => "the server's sockets go with it",
    SYS_wait4 => "the end of the process that starts renderers",
    SYS_waitid => "the end of the process that starts renderers",
    SYS_writev => "lines of the log",
};

/// What the renderer's own process needs beside [`GPU_2D`] and [`GPU_VIRGL`].
pub const RENDERER: &[SystemCall] = calls! {
    SYS_exit_group => "the end of the process",
    SYS_getsockopt => "Mesa and Vulkan's loader look at sockets of theirs",
    SYS_kill => "the process ends itself when the device is gone",
    SYS_nanosleep => "threads of virglrenderer and llvmpipe",
    SYS_recvfrom => "what the device says",
    SYS_restart_syscall => "the kernel's, after a stop",
    SYS_sendto => "what the device is told",
    SYS_setsockopt => "buffers of virglrenderer's sockets",
    SYS_shutdown => "the render server's connection ends",
};

/// What virglrenderer's render server (venus) needs beside [`GPU_2D`], [`GPU_VIRGL`] and [`RENDERER`]: it is a program of
/// its own, which has a process for each context.
pub const RENDER_SERVER: &[SystemCall] = calls! {
    #[cfg(target_arch = "x86_64")]
    SYS_arch_prctl => "the dynamic loader makes room for a thread's data",
    SYS_execve => "it is started",
    #[cfg(target_arch = "x86_64")]
    SYS_fork => "a process for each context",
    SYS_pselect6 => "wait for contexts",
    SYS_set_tid_address => "the start of a process",
    SYS_setpgid => "a terminal's signals are not for it",
    SYS_signalfd4 => "wait for the end of a context's process",
    #[cfg(target_arch = "x86_64")]
    SYS_vfork => "a process for each context",
    SYS_wait4 => "the end of a context's process",
    SYS_waitid => "the end of a context's process",
};

/// What the process that starts renderers for the server needs beside all that its renderers do.
pub const SPAWNER: &[SystemCall] = calls! {
    SYS_capset => "a renderer gives up what it could",
    SYS_chdir => "the standard library, where a program starts elsewhere",
    SYS_close_range => "a renderer has none of its parent's files",
    SYS_landlock_add_rule => "a renderer gives up what it could",
    SYS_landlock_create_ruleset => "a renderer gives up what it could",
    SYS_landlock_restrict_self => "a renderer gives up what it could",
    SYS_pidfd_open => "wait for a renderer's end",
    SYS_pidfd_send_signal => "end a renderer",
    SYS_seccomp => "a renderer gives up what it could",
};

/// A path that a sandboxed renderer must reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPath {
    /// The path, with everything below it. It need not exist.
    pub path: &'static str,
    /// Whether it is written to.
    pub write: bool,
    /// What for.
    pub reason: &'static str,
}

const fn path(path: &'static str, write: bool, reason: &'static str) -> HostPath {
    HostPath {
        path,
        write,
        reason,
    }
}

/// What the virgl backend needs of the host's file system, for Landlock. 2D needs nothing, and `wayland=PATH` the socket
/// of that path where the kernel's Landlock governs connections, which those before LANDLOCK_ACCESS_FS_RESOLVE_UNIX do
/// not.
pub const PATHS_VIRGL: &[HostPath] = &[
    path("/dev/dri", true, "the GPU's devices"),
    path("/dev/udmabuf", true, "buffers of guest memory"),
    path("/etc/drirc", false, "Mesa's configuration"),
    path("/etc/glvnd", false, "lists of drivers"),
    path("/etc/ld.so.cache", false, "where libraries are"),
    path("/etc/vulkan", false, "lists of drivers"),
    path("/lib", false, "Mesa, its drivers and LLVM"),
    path("/lib64", false, "Mesa, its drivers and LLVM"),
    path("/proc/self", false, "the renderer's own name and limits"),
    path("/sys/dev/char", false, "which GPU a device is"),
    path(
        "/sys/devices",
        false,
        "which GPU a device is, and the CPUs' caches",
    ),
    path("/usr/lib", false, "Mesa, its drivers and LLVM"),
    path("/usr/lib64", false, "Mesa, its drivers and LLVM"),
    path("/usr/share", false, "lists of drivers and of quirks"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const LISTS: [&[SystemCall]; 9] = [
        GPU_2D,
        CONTROL,
        VNC,
        GPU_VIRGL,
        GPU_WAYLAND,
        SERVER,
        RENDERER,
        RENDER_SERVER,
        SPAWNER,
    ];

    #[test]
    fn each_call_is_listed_once_and_has_a_reason() {
        for list in LISTS {
            let numbers: BTreeSet<i64> = list.iter().map(|call| call.number).collect();
            assert_eq!(numbers.len(), list.len());
            assert!(list.iter().all(|call| call.reason.len() > 8));
        }
        for list in &LISTS[1..] {
            let twice = list.iter().find(|call| GPU_2D.contains(call));
            assert_eq!(twice, None);
        }
    }

    #[test]
    fn two_dimensions_open_nothing_and_make_nothing() {
        let forbidden = [
            "SYS_openat",
            "SYS_clone3",
            "SYS_execve",
            "SYS_ioctl",
            "SYS_socket",
        ];
        let found = GPU_2D.iter().find(|call| forbidden.contains(&call.name));
        assert_eq!(found, None);
    }
}
