// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Faults in guest memory, contained to the VMM whose memory it is.
//!
//! A VMM can cut the file of its guest's memory short after it was mapped, or have it on huge pages that are not there;
//! the next access is a SIGBUS that ends the process. Sealing does not help: QEMU seals its memfds, but Cloud Hypervisor
//! makes ones that nobody can seal. A write to memory that was mapped for reading is a
//! SIGSEGV in the same way. So the handler here puts anonymous memory in place of the whole range, notes that the range
//! is lost, and wakes the connection, which ends. Whatever the device still reads there is zeros.
//!
//! The handler runs between any two instructions of any thread, so it does nothing but atomics and three system calls
//! (mmap, write, and sigaction or raise for a fault that is none of ours); glibc's functions for them take no lock.

#![expect(
    unsafe_code,
    reason = "signal handlers, and memory that is replaced under a mapping that faulted"
)]

use std::ffi::c_int;
use std::io::Error as IoError;
use std::mem::{transmute, zeroed};
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

use libc::{SA_ONSTACK, SA_SIGINFO, SIG_DFL, SIG_IGN, SIGBUS, SIGSEGV, siginfo_t};

use crate::limits::MAX_DMA_MAPS;

/// Ranges that are guarded at one time, in this process. A map that was taken away is guarded until the device let go.
const MAX_RANGES: usize = 2 * MAX_DMA_MAPS;

/// A guarded range. `start` is 0 while the slot is free; it is written last and cleared first.
struct Slot {
    start: AtomicUsize,
    end: AtomicUsize,
    /// An eventfd, open as long as the range is guarded.
    wake: AtomicI32,
    lost: AtomicBool,
}

static SLOTS: [Slot; MAX_RANGES] = [const {
    Slot {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        wake: AtomicI32::new(0),
        lost: AtomicBool::new(false),
    }
}; MAX_RANGES];

/// One past the highest slot that was ever in use: what the handler looks through.
static HIGHEST: AtomicUsize = AtomicUsize::new(0);
/// Ranges lost since the process started, so that a connection need not look through its own each time it wakes.
static LOSSES: AtomicU64 = AtomicU64::new(0);
static FREE: LazyLock<Mutex<Vec<usize>>> =
    LazyLock::new(|| Mutex::new((0..MAX_RANGES).rev().collect()));
/// What was there before us, for SIGBUS and SIGSEGV.
static BEFORE: OnceLock<[libc::sigaction; 2]> = OnceLock::new();
const SIGNALS: [c_int; 2] = [SIGBUS, SIGSEGV];

/// A range of mapped memory whose faults are contained.
#[derive(Debug)]
pub(crate) struct Guard {
    slot: usize,
    /// Keeps the number that the handler writes to.
    _wake: Arc<OwnedFd>,
}

impl Guard {
    /// Guards `size` bytes from `start`, whole pages. A fault makes `wake`, an eventfd, readable.
    ///
    /// # Safety
    /// All of the range is one mapping of guest memory that nobody but this guard's owner takes away, and that stays
    /// until the guard is gone.
    ///
    /// # Errors
    /// The system refuses the handlers, or too many ranges are guarded.
    pub(crate) unsafe fn new(
        start: usize,
        size: usize,
        wake: Arc<OwnedFd>,
    ) -> Result<Self, IoError> {
        install()?;
        let slot = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let slot = slot.ok_or_else(|| IoError::other("too many ranges are guarded"))?;
        if let Some(free) = SLOTS.get(slot) {
            free.end
                .store(start.saturating_add(size), Ordering::Relaxed);
            free.wake.store(wake.as_raw_fd(), Ordering::Relaxed);
            free.lost.store(false, Ordering::Relaxed);
            free.start.store(start, Ordering::Release);
        }
        HIGHEST.fetch_max(slot.saturating_add(1), Ordering::Release);
        Ok(Self { slot, _wake: wake })
    }

    /// Whether an access of the range faulted: its bytes are no longer the guest's.
    pub(crate) fn is_lost(&self) -> bool {
        let slot = SLOTS.get(self.slot);
        slot.is_some_and(|slot| slot.lost.load(Ordering::Acquire))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(slot) = SLOTS.get(self.slot) {
            slot.start.store(0, Ordering::Release);
        }
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(self.slot);
    }
}

/// How many ranges of any VMM were lost until now.
pub(crate) fn losses() -> u64 {
    LOSSES.load(Ordering::Acquire)
}

fn install() -> Result<(), IoError> {
    static LOCK: Mutex<()> = Mutex::new(());
    let _lock = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    if BEFORE.get().is_some() {
        return Ok(());
    }
    let mut before = [default_action(), default_action()];
    for (signal, before) in SIGNALS.into_iter().zip(&mut before) {
        // SAFETY: `before` is a place for what is there now.
        let result = unsafe { libc::sigaction(signal, ptr::null(), before) };
        if result != 0 {
            return Err(IoError::last_os_error());
        }
    }
    // Before our handler can run, so that it always finds them.
    let _first = BEFORE.set(before);
    let mut ours = default_action();
    ours.sa_sigaction = handle as *const () as usize;
    // Rust's threads have a stack of their own for signals, which its guard pages need.
    ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for signal in SIGNALS {
        // SAFETY: `handle` has the signature that SA_SIGINFO asks for and is safe in a signal handler, as said above.
        let result = unsafe { libc::sigaction(signal, &raw const ours, ptr::null_mut()) };
        if result != 0 {
            return Err(IoError::last_os_error());
        }
    }
    Ok(())
}

fn default_action() -> libc::sigaction {
    // SAFETY: All zeros is a valid sigaction: SIG_DFL, no flag, no signal masked.
    unsafe { zeroed() }
}

extern "C" fn handle(signal: c_int, info: *mut siginfo_t, context: *mut libc::c_void) {
    // SAFETY: The kernel hands over a valid `info` with SA_SIGINFO. `si_addr` is a field of it; it means an address where
    // the kernel sent the signal (si_code > 0), which alone counts here.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    if code > 0 && contain(address) {
        return;
    }
    // SAFETY: We are in a handler for `signal`, with what the kernel gave us.
    unsafe { pass_on(signal, info, context) };
}

/// Replaces the range that `address` lies in. Returns whether there is one, and it was replaced.
fn contain(address: usize) -> bool {
    let highest = HIGHEST.load(Ordering::Acquire);
    for slot in SLOTS.iter().take(highest) {
        let start = slot.start.load(Ordering::Acquire);
        let end = slot.end.load(Ordering::Relaxed);
        if start == 0 || address < start || address >= end {
            continue;
        }
        // The interrupted code may be about to look at it.
        // SAFETY: errno is this thread's.
        let errno = unsafe { *libc::__errno_location() };
        // SAFETY: The range is a mapping of guest memory whose owner handed it to the guard, and which is there as long
        // as the slot is in use. It is replaced whole, as part of a huge page cannot be.
        let replaced = unsafe {
            libc::mmap(
                start as *mut libc::c_void,
                end - start,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if replaced == libc::MAP_FAILED {
            return false;
        }
        slot.lost.store(true, Ordering::Release);
        LOSSES.fetch_add(1, Ordering::Release);
        let one = 1u64.to_ne_bytes();
        // SAFETY: The descriptor is open as long as the slot is in use, and does not block; `one` has 8 bytes. errno is
        // this thread's.
        unsafe {
            let wake = slot.wake.load(Ordering::Relaxed);
            let _written = libc::write(wake, one.as_ptr().cast(), one.len());
            *libc::__errno_location() = errno;
        }
        return true;
    }
    false
}

/// Lets whoever was there before us have the signal.
///
/// # Safety
/// To be called in the handler of `signal`, with its arguments.
unsafe fn pass_on(signal: c_int, info: *mut siginfo_t, context: *mut libc::c_void) {
    let before = BEFORE.get().and_then(|before| {
        let which = SIGNALS.iter().position(|&it| it == signal)?;
        before.get(which)
    });
    let handler = before.map_or(SIG_DFL, |before| before.sa_sigaction);
    if handler == SIG_DFL || handler == SIG_IGN {
        let default = default_action();
        // SAFETY: The default action. A faulting instruction faults again when we return, and ends the process.
        unsafe {
            libc::sigaction(signal, &raw const default, ptr::null_mut());
            if (*info).si_code <= 0 {
                libc::raise(signal);
            }
        }
    } else if before.is_some_and(|before| before.sa_flags & SA_SIGINFO != 0) {
        // SAFETY: With SA_SIGINFO this is what the kernel would call, with the same arguments.
        unsafe {
            let handler: extern "C" fn(c_int, *mut siginfo_t, *mut libc::c_void) =
                transmute(handler);
            handler(signal, info, context);
        }
    } else {
        // SAFETY: Without SA_SIGINFO this is what the kernel would call.
        unsafe {
            let handler: extern "C" fn(c_int) = transmute(handler);
            handler(signal);
        }
    }
}
