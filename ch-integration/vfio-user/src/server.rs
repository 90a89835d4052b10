// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A device and the VMMs that it serves, one after the other.

#![forbid(unsafe_code)]

use std::io::Error as IoError;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::abort;
use std::sync::Arc;
use std::thread;

use log::{error, info, warn};
use rustix::event::{EventfdFlags, eventfd as new_eventfd};
use thiserror::Error;
use vfio_bindings::bindings::vfio::VFIO_PCI_NUM_REGIONS;

use crate::answer::{Answer, ReadAnswer};
use crate::connection::Connection;
use crate::dma::{DmaMemory, DmaTable, MemoryChange};
use crate::eventfd;
use crate::interrupts::{Interrupts, IrqChange, IrqCounts};
use crate::lobby::{Lobby, Seat};
use crate::wire::Access;

/// What a device is, for as long as it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Size in bytes of each region of VFIO's PCI devices, 0 where there is none; index 7 is configuration space.
    pub regions: [u64; VFIO_PCI_NUM_REGIONS as usize],
    /// Its interrupts.
    pub irqs: IrqCounts,
}

/// A device behind the protocol.
///
/// A request that comes with an [`Answer`] may be answered later and from any thread: a method must not wait for what may
/// take longer than 1 s. Requests that come after it are handed over meanwhile. Accesses lie within their region.
pub trait Device {
    /// A VMM was let in.
    fn connected(&mut self) {}

    /// The VMM is gone: its memory, interrupts and requests are to be forgotten. `goodbye` is dropped when nothing of it
    /// is in use any more, in this method or later; until then no other VMM is let in.
    fn disconnected(&mut self, goodbye: Goodbye);

    /// Reads a region.
    fn read(&mut self, access: Access, answer: ReadAnswer);

    /// Writes a region.
    fn write(&mut self, access: Access, data: &[u8], answer: Answer);

    /// Resets the function (VFIO_USER_DEVICE_RESET).
    fn reset(&mut self, answer: Answer);

    /// Guest memory is this from now on. After [`MemoryChange::Removed`] an answer says that what went is not touched any
    /// more; with [`MemoryChange::Added`] it can be given at once.
    fn set_memory(&mut self, memory: &DmaMemory, change: MemoryChange, answer: Answer);

    /// Runs `change` on the device's interrupts, under whatever lock they have, and looks at what it did.
    fn with_interrupts(&mut self, change: &mut dyn FnMut(&mut Interrupts) -> IrqChange);
}

/// What a device owes a VMM that left; it is dropped when nothing of that VMM is in use any more.
#[derive(Debug)]
pub struct Goodbye {
    pub(crate) seat: Arc<Seat>,
    /// Maps that go with it, once the device has let go.
    pub(crate) memory: Option<DmaTable>,
}

impl Drop for Goodbye {
    fn drop(&mut self) {
        drop(self.memory.take());
        self.seat.leave();
    }
}

/// Why a device cannot be served, or no longer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Interrupts cannot be signalled without waiting.
    #[error("Cannot signal interrupts in a way that a VMM cannot block (Linux AIO, io_setup)")]
    Interrupts(#[source] IoError),
    /// The thread for handshakes.
    #[error("Cannot start the thread that takes connections")]
    Thread(#[source] IoError),
    /// The system has no descriptors, or the like.
    #[error("Cannot wait for a VMM")]
    System(#[source] IoError),
}

/// Serves one VMM after the other on `listener`. What breaks a connection ends that connection.
///
/// # Errors
/// A [`ServeError`] says why nobody can be served. It returns for no other reason.
pub fn serve(
    listener: UnixListener,
    info: &DeviceInfo,
    device: &mut dyn Device,
) -> Result<(), ServeError> {
    eventfd::prepare().map_err(ServeError::Interrupts)?;
    let _guard = AbortOnPanic("serves the VMM");
    let seat = Arc::new(Seat::new().map_err(ServeError::System)?);
    let mut lobby = Lobby::new(listener, seat.clone()).map_err(ServeError::System)?;
    thread::Builder::new()
        .name("vfio-user".into())
        .spawn(move || {
            let _guard = AbortOnPanic("takes connections");
            lobby.run();
        })
        .map_err(ServeError::Thread)?;
    loop {
        let admitted = seat.next();
        let peer = admitted.stream.peer();
        let mut connection = match Connection::new(admitted, info) {
            Ok(connection) => connection,
            Err(error) => {
                warn!("VMM {peer} cannot be served: {error}");
                seat.leave();
                continue;
            }
        };
        info!("VMM {peer} connected");
        device.connected();
        match connection.run(device) {
            Ok(()) => info!("VMM {peer} closed its connection"),
            Err(error) => warn!("The connection to VMM {peer} ended: {error}"),
        }
        seat.vacate();
        let memory = connection.into_memory();
        device.disconnected(Goodbye {
            seat: seat.clone(),
            memory: Some(memory),
        });
    }
}

/// Ends the process when its thread panics: a server that lives and serves nobody helps nobody.
struct AbortOnPanic(&'static str);

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            error!("The thread that {} panicked", self.0);
            abort();
        }
    }
}

/// A wake-up for a thread in `poll`, that never blocks who gives it.
pub(crate) fn waker() -> Result<Arc<OwnedFd>, IoError> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    Ok(Arc::new(new_eventfd(0, flags)?))
}
