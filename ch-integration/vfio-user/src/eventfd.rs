// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Eventfds that a VMM gave, signalled in a way that it cannot make wait.
//!
//! A `write` to an eventfd whose counter is full waits, unless O_NONBLOCK is set; and that flag belongs to the open file,
//! which the VMM shares and can change at any time. `pwritev2` with RWF_NOWAIT is not supported for eventfds, and polling
//! first leaves a gap. What never waits is the kernel's own way of signalling: Linux AIO adds one to an eventfd when a
//! request is complete (IOCB_FLAG_RESFD). So a signal is an AIO poll of a file that is always ready, which completes at
//! once: one system call, 0.8 µs where a `write` takes 0.3 µs.

#![expect(unsafe_code, reason = "Linux AIO, which neither std nor rustix has")]

use std::fs::{File, OpenOptions};
use std::io::Error as IoError;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use host_util::foreign::ForeignFile;
use rustix::event::{EventfdFlags, eventfd};

/// Of `linux/aio_abi.h`.
const IOCB_CMD_PREAD: u16 = 0;
const IOCB_CMD_POLL: u16 = 5;
const IOCB_FLAG_RESFD: u32 = 1;
const POLLIN: u64 = 1;

/// `struct iocb` of `linux/aio_abi.h`, as a little-endian machine has it.
#[repr(C)]
#[derive(Default)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    file: u32,
    buffer: u64,
    length: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    result_eventfd: u32,
}

/// `struct io_event` of `linux/aio_abi.h`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct IoEvent {
    data: u64,
    object: u64,
    result: i64,
    result2: i64,
}

const _: () = assert!(size_of::<Iocb>() == 64 && size_of::<IoEvent>() == 32);
const _: () = assert!(cfg!(target_endian = "little"));

/// Completions that are left in the kernel's ring before they are taken out; the ring has twice as many.
const UNREAPED: u32 = 64;

/// An AIO context, and what its requests are about.
#[derive(Debug)]
struct Aio {
    context: libc::c_ulong,
    /// An eventfd that is readable for ever.
    ready: OwnedFd,
    /// Not readable, so a read of it fails once the request's other parts were looked at.
    write_only: File,
    submitted: AtomicU32,
}

impl Aio {
    /// The process's one. It is never destroyed.
    fn get() -> Result<&'static Self, IoError> {
        static AIO: OnceLock<Aio> = OnceLock::new();
        if let Some(aio) = AIO.get() {
            return Ok(aio);
        }
        let made = Self::new()?;
        // Two threads at once leave one context unused until the process ends.
        Ok(AIO.get_or_init(|| made))
    }

    fn new() -> Result<Self, IoError> {
        let mut context: libc::c_ulong = 0;
        // SAFETY: `context` is a place for the answer, 0 as the kernel asks for.
        let result = unsafe { libc::syscall(libc::SYS_io_setup, 2 * UNREAPED, &raw mut context) };
        if result != 0 {
            return Err(IoError::last_os_error());
        }
        Ok(Self {
            context,
            ready: eventfd(1, EventfdFlags::CLOEXEC)?,
            write_only: OpenOptions::new().write(true).open("/dev/null")?,
            submitted: AtomicU32::new(0),
        })
    }

    /// Submits one request whose completion signals `eventfd`.
    fn submit(&self, opcode: u16, file: RawFd, eventfd: RawFd) -> Result<(), IoError> {
        let mut request = Iocb {
            opcode,
            file: file.cast_unsigned(),
            buffer: if opcode == IOCB_CMD_POLL { POLLIN } else { 0 },
            flags: IOCB_FLAG_RESFD,
            result_eventfd: eventfd.cast_unsigned(),
            ..Iocb::default()
        };
        let requests = [&raw mut request];
        // SAFETY: One request, which the kernel copies before it returns. A poll uses no memory of ours, and a read of a
        // file that cannot be read is refused before its buffer is touched.
        let result =
            unsafe { libc::syscall(libc::SYS_io_submit, self.context, 1, requests.as_ptr()) };
        if result == 1 {
            return Ok(());
        }
        Err(IoError::last_os_error())
    }

    fn signal(&self, eventfd: RawFd) -> Result<(), IoError> {
        let before = self.submitted.fetch_add(1, Ordering::Relaxed);
        if before.is_multiple_of(UNREAPED) {
            self.reap();
        }
        let result = self.submit(IOCB_CMD_POLL, self.ready.as_raw_fd(), eventfd);
        match result {
            // Full, as another thread got in between.
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
                self.reap();
                self.submit(IOCB_CMD_POLL, self.ready.as_raw_fd(), eventfd)
            }
            result => result,
        }
    }

    fn reap(&self) {
        let mut events = [IoEvent::default(); 2 * UNREAPED as usize];
        let no_wait = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: There is room for as many events as are asked for, and it does not wait.
        let _reaped = unsafe {
            libc::syscall(
                libc::SYS_io_getevents,
                self.context,
                0,
                events.len(),
                events.as_mut_ptr(),
                &raw const no_wait,
            )
        };
    }
}

/// Whether interrupts can be signalled on this kernel, in this sandbox.
///
/// # Errors
/// Why not; nothing can be served then.
pub(crate) fn prepare() -> Result<(), IoError> {
    Aio::get().map(|_| ())
}

/// A file that is an eventfd for certain.
#[derive(Clone, Debug)]
pub struct Eventfd(Arc<OwnedFd>);

impl Eventfd {
    /// Takes a file that should be an eventfd.
    ///
    /// # Errors
    /// It is none (EINVAL).
    pub fn new(file: OwnedFd) -> Result<Self, IoError> {
        Self::from_foreign(file.into())
    }

    pub(crate) fn from_foreign(file: ForeignFile) -> Result<Self, IoError> {
        let invalid = || IoError::from_raw_os_error(libc::EINVAL);
        let aio = Aio::get()?;
        let number = file.file().ok_or_else(invalid)?.as_raw_fd();
        // The kernel looks at the eventfd before the file, which it refuses with EBADF; nothing is signalled.
        let probed = aio.submit(IOCB_CMD_PREAD, aio.write_only.as_raw_fd(), number);
        match probed.err().and_then(|error| error.raw_os_error()) {
            Some(libc::EBADF) => {
                let file = file.into_known().ok_or_else(invalid)?;
                Ok(Self(Arc::new(file)))
            }
            _ => Err(invalid()),
        }
    }

    /// Adds one to the counter. It never waits: a full counter stays full.
    pub fn signal(&self) {
        // What can fail was looked at in `new` and `prepare`; a signal that gets lost for want of memory is no worse
        // than one on a full counter.
        let _signalled = Aio::get().and_then(|aio| aio.signal(self.0.as_raw_fd()));
    }

    pub(crate) fn file(&self) -> &OwnedFd {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::io::pipe;
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    use rustix::io::{read, write};

    use super::*;

    fn plain() -> OwnedFd {
        eventfd(0, EventfdFlags::empty()).unwrap()
    }

    fn count(fd: &OwnedFd) -> u64 {
        let mut count = [0; 8];
        read(fd, &mut count).unwrap();
        u64::from_ne_bytes(count)
    }

    #[test]
    fn a_signal_adds_one() {
        let ours = plain();
        let eventfd = Eventfd::new(ours.try_clone().unwrap()).unwrap();
        for _ in 0..3 {
            eventfd.signal();
        }
        assert_eq!(count(&ours), 3);
    }

    #[test]
    fn a_full_eventfd_whose_writers_wait_does_not_make_us_wait() {
        let full = plain();
        write(&full, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        let eventfd = Eventfd::new(full.try_clone().unwrap()).unwrap();
        let (done, told) = channel();
        thread::spawn(move || {
            for _ in 0..1000 {
                eventfd.signal();
            }
            done.send(()).unwrap();
        });
        let limit = Duration::from_secs(10);
        told.recv_timeout(limit).expect("the signal waits");
        assert!(count(&full) >= u64::MAX - 1);
    }

    #[test]
    fn what_is_no_eventfd_is_refused_and_not_written_to() {
        let (read_end, write_end) = pipe().unwrap();
        let error = Eventfd::new(write_end.into()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        // The end of the file: nothing was written.
        assert_eq!(read(&read_end, &mut [0; 8]).unwrap(), 0);
        Eventfd::new(tempfile::tempfile().unwrap().into()).unwrap_err();
    }

    #[test]
    fn threads_that_signal_at_once_lose_nothing() {
        let ours = plain();
        let eventfd = Eventfd::new(ours.try_clone().unwrap()).unwrap();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..5000).for_each(|_| eventfd.signal()));
            }
        });
        assert_eq!(count(&ours), 20_000);
    }
}
