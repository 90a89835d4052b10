// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The last words of a process that made a call which it has no use for.
#![expect(
    unsafe_code,
    reason = "a signal handler, which reads what the kernel wrote about the call"
)]

use std::ffi::c_int;
use std::io::{Cursor, Error as IoError, Write};
use std::mem::zeroed;
use std::ptr;

use libc::{SIGSYS, STDERR_FILENO, c_void, siginfo_t};
use syscalls::Sysno;

/// `si_code` of a SIGSYS that seccomp sent (`asm-generic/siginfo.h`).
const SYS_SECCOMP: c_int = 1;

/// What a SIGSYS brings, after the three words that all signals have (`struct siginfo`, `_sigsys`).
#[repr(C)]
struct SigSys {
    words: [c_int; 3],
    address: *mut c_void,
    call: c_int,
    _architecture: u32,
}

/// Has such a call tell its name and end the process by SIGSYS, which whoever waits for it sees.
pub(crate) fn tell() -> Result<(), IoError> {
    // SAFETY: All zeros is a valid sigaction.
    let mut action: libc::sigaction = unsafe { zeroed() };
    action.sa_sigaction = handle as *const () as usize;
    // The second one, which the handler raises, has the default action and ends the process.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_RESETHAND | libc::SA_ONSTACK;
    // SAFETY: `handle` has the signature that SA_SIGINFO asks for, and calls what may be called in a handler.
    match unsafe { libc::sigaction(SIGSYS, &raw const action, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(IoError::last_os_error()),
    }
}

extern "C" fn handle(_signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    // SAFETY: The kernel hands over a siginfo_t, which is at least as long.
    let SigSys { words, call, .. } = unsafe { ptr::read(info.cast::<SigSys>()) };
    let [_, _, code] = words;
    if code == SYS_SECCOMP {
        let mut line = [0; 160];
        let length = last_words(call, &mut line);
        // SAFETY: The line has so many bytes. Nobody is left to hear that it could not be written.
        unsafe { libc::write(STDERR_FILENO, line.as_ptr().cast(), length) };
    }
    // SAFETY: It may be called in a handler.
    unsafe { libc::raise(SIGSYS) };
}

/// Without the allocator, which the thread may be in the midst of.
fn last_words(call: c_int, line: &mut [u8]) -> usize {
    let mut line = Cursor::new(line);
    let number = usize::try_from(call).ok();
    let name = number
        .and_then(Sysno::new)
        .map_or("unknown", |call| call.name());
    // What does not fit is left out.
    let _ = writeln!(
        line,
        "sandbox: system call {call} ({name}) is none that this process needs: it ends"
    );
    usize::try_from(line.position()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_name_the_call() {
        let mut line = [0; 160];
        let number = c_int::try_from(libc::SYS_ptrace).unwrap();
        let length = last_words(number, &mut line);
        let text = str::from_utf8(&line[..length]).unwrap();
        assert!(text.contains("(ptrace)"), "{text}");
        assert!(text.ends_with('\n'));
        assert!(last_words(-1, &mut line) > 0);
    }
}
