// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A device and the VMMs that it serves, one after the other.

#![forbid(unsafe_code)]

use std::io::Error as IoError;
use std::process::abort;
use std::sync::Arc;
use std::thread;

use host_util::log_source::VMM;
use host_util::socket::Listener;
use thiserror::Error;

use crate::connection::Connection;
use crate::device::{Device, DeviceInfo, Goodbye};
use crate::eventfd;
use crate::lobby::{Lobby, Seat};

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
    listener: impl Into<Listener>,
    info: &DeviceInfo,
    device: &mut dyn Device,
) -> Result<(), ServeError> {
    eventfd::prepare().map_err(ServeError::Interrupts)?;
    let _guard = AbortOnPanic("serves the VMM");
    let seat = Arc::new(Seat::new().map_err(ServeError::System)?);
    let mut lobby = Lobby::new(listener.into(), seat.clone()).map_err(ServeError::System)?;
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
                VMM.warn(format_args!("VMM {peer} cannot be served: {error}"));
                seat.leave();
                continue;
            }
        };
        VMM.info(format_args!("VMM {peer} connected"));
        device.connected();
        match connection.run(device) {
            Ok(()) => VMM.info(format_args!("VMM {peer} closed its connection")),
            Err(error) => VMM.warn(format_args!("The connection to VMM {peer} ended: {error}")),
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
            VMM.error(format_args!("The thread that {} panicked", self.0));
            abort();
        }
    }
}
