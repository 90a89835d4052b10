// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory-mapped registers for a program: accesses to a page that may not be touched fault, and the fault is answered.
//!
//! The driver under test accesses its registers with plain loads and stores, as it does in a guest. A fault lets the
//! instruction run against a page of memory, for one step: before a load the page gets what the register reads, and
//! after a store the register gets what the page has.

#![expect(
    unsafe_code,
    reason = "a fault handler and the memory that it guards cannot be had without"
)]

use std::mem;
use std::ptr;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use libc::{c_int, c_void, siginfo_t, ucontext_t};
use virtio_pci_freeze::BarLayout;

use crate::host::Host;

/// Length of the memory that stands for a BAR.
const LENGTH: usize = 0x4000;
/// x86 page fault error code: the access was a write.
const FAULT_WRITE: i64 = 2;
/// x86 flags: trap after the next instruction.
const TRAP_FLAG: i64 = 0x100;

/// The machine behind the guarded memory. A handler takes it for one access; nobody holds it across one.
static HOST: Mutex<Option<Trapped>> = Mutex::new(None);

struct Trapped {
    host: Host,
    bar: usize,
    step: Option<Store>,
}

/// A store that is being stepped over.
#[derive(Clone, Copy)]
struct Store {
    offset: usize,
    width: usize,
    is_write: bool,
}

/// Puts `host` behind guarded memory and returns the memory's address.
pub(crate) fn install(host: Host) -> u64 {
    static HANDLERS: Once = Once::new();
    HANDLERS.call_once(|| {
        handle(libc::SIGSEGV, on_fault);
        handle(libc::SIGTRAP, on_step);
    });
    // SAFETY: an anonymous mapping at no fixed address touches nothing that exists.
    let memory = unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        libc::mmap(ptr::null_mut(), 2 * LENGTH, libc::PROT_NONE, flags, -1, 0)
    };
    assert_ne!(memory, libc::MAP_FAILED);
    // A BAR lies at a multiple of its size.
    let bar = (memory as usize).next_multiple_of(LENGTH);
    *lock() = Some(Trapped {
        host,
        bar,
        step: None,
    });
    bar as u64
}

/// Gives access to the host, between two accesses of the driver.
pub(crate) fn with_host<R>(f: impl FnOnce(&mut Host) -> R) -> R {
    f(&mut lock().as_mut().expect("a host is installed").host)
}

fn lock() -> MutexGuard<'static, Option<Trapped>> {
    HOST.lock().unwrap_or_else(PoisonError::into_inner)
}

type Handler = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);

fn handle(signal: c_int, handler: Handler) {
    // SAFETY: an all-zero sigaction is a valid one, and the handler has the signature that SA_SIGINFO asks for.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
        assert_eq!(
            libc::sigaction(signal, &raw const action, ptr::null_mut()),
            0
        );
    }
}

fn protect(bar: usize, protection: c_int) {
    // SAFETY: the range is the mapping that `install` made and nothing else.
    let done = unsafe { libc::mprotect(bar as *mut c_void, LENGTH, protection) };
    assert_eq!(done, 0);
}

extern "C" fn on_fault(_signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes both, valid for the duration of the handler.
    let (address, context) = unsafe {
        let address = (*info).si_addr() as usize;
        (address, &mut *context.cast::<ucontext_t>())
    };
    let mut guard = lock();
    let ours = guard
        .as_mut()
        .filter(|trapped| (trapped.bar..trapped.bar + LENGTH).contains(&address));
    let Some(trapped) = ours else {
        // SAFETY: with the default action back, the instruction faults again and ends the process.
        unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
        return;
    };
    let registers = &mut context.uc_mcontext.gregs;
    let offset = address - trapped.bar;
    // SAFETY: the instruction that faulted is at this address; the longest has 15 bytes, and code goes on after it.
    let code = unsafe { *(registers[libc::REG_RIP as usize] as *const [u8; 15]) };
    let store = Store {
        offset,
        width: width(&code),
        is_write: registers[libc::REG_ERR as usize] & FAULT_WRITE != 0,
    };
    protect(trapped.bar, libc::PROT_READ | libc::PROT_WRITE);
    if !store.is_write {
        let mut data = [0; 8];
        let data = &mut data[..store.width];
        trapped
            .host
            .read_bar(BarLayout::VIRTIO, offset as u64, data);
        // SAFETY: the page is writable now, and no reference to it exists.
        unsafe { ptr::copy_nonoverlapping(data.as_ptr(), address as *mut u8, data.len()) };
    }
    trapped.step = Some(store);
    registers[libc::REG_EFL as usize] |= TRAP_FLAG;
}

extern "C" fn on_step(_signal: c_int, _info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a context that is valid for the duration of the handler.
    let context = unsafe { &mut *context.cast::<ucontext_t>() };
    context.uc_mcontext.gregs[libc::REG_EFL as usize] &= !TRAP_FLAG;
    let mut guard = lock();
    let Some(trapped) = guard.as_mut() else {
        return;
    };
    if let Some(store) = trapped.step.take().filter(|store| store.is_write) {
        let mut data = [0; 8];
        let data = &mut data[..store.width];
        let from = (trapped.bar + store.offset) as *const u8;
        // SAFETY: the page is readable until it is protected below.
        unsafe { ptr::copy_nonoverlapping(from, data.as_mut_ptr(), data.len()) };
        protect(trapped.bar, libc::PROT_NONE);
        trapped
            .host
            .write_bar(BarLayout::VIRTIO, store.offset as u64, data);
    } else {
        protect(trapped.bar, libc::PROT_NONE);
    }
}

/// Bytes that a load or store of x86-64 moves: the forms that compilers use for volatile accesses.
fn width(code: &[u8]) -> usize {
    let mut code = code.iter().copied();
    let (mut word, mut wide) = (false, false);
    loop {
        match code.next().expect("an instruction") {
            0x66 => word = true,
            rex @ 0x40..=0x4f => wide = rex & 8 != 0,
            0x88 | 0x8a | 0xc6 | 0x80 | 0x38 | 0x3a | 0x84 | 0xf6 => return 1,
            0x0f => {
                return match code.next() {
                    Some(0xb6 | 0xbe) => 1,
                    Some(0xb7 | 0xbf) => 2,
                    other => panic!("opcode 0f {other:x?} is not known here"),
                };
            }
            0x89 | 0x8b | 0xc7 | 0x81 | 0x83 | 0x39 | 0x3b | 0x85 | 0xf7 => {
                return if wide {
                    8
                } else if word {
                    2
                } else {
                    4
                };
            }
            other => panic!("opcode {other:#x} is not known here"),
        }
    }
}
