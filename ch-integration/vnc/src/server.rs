// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Who takes viewers in.

use std::io::Error as IoError;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use host_util::log_source::VIEWER;
use virtio_gpu_worker::Controlled;

use crate::address::{Listener, Stream};
use crate::limits::MAX_VIEWERS;
use crate::screen::Screen;
use crate::viewer::{Ended, Viewer};
use crate::wake::Wake;

/// Before the next viewer is taken in where the system has no more files or threads.
const SHORT_OF: Duration = Duration::from_millis(100);

/// Serves viewers of `device` on threads of its own, for ever.
///
/// # Errors
/// A thread cannot be started.
pub fn serve(listener: Listener, device: Arc<dyn Controlled>) -> Result<(), IoError> {
    let screen = Arc::new(Screen::new(device));
    let shown = Arc::clone(&screen);
    spawn("vnc-screen", move || shown.run())?;
    spawn("vnc", move || accept(&listener, &screen))
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), IoError> {
    let thread = thread::Builder::new().name(name.into());
    thread.spawn(body).map(drop)
}

fn accept(listener: &Listener, screen: &Arc<Screen>) {
    while !screen.has_ended() {
        let taken = listener.accept().and_then(|it| begin(it, screen));
        if let Err(error) = taken {
            VIEWER.warn(format_args!("A viewer cannot be served: {error}"));
            thread::sleep(SHORT_OF);
        }
    }
}

fn begin(stream: Stream, screen: &Arc<Screen>) -> Result<(), IoError> {
    let wake = Arc::new(Wake::new()?);
    let Some(number) = screen.join(Arc::clone(&wake)) else {
        VIEWER.warn(format_args!("More than {MAX_VIEWERS} viewers"));
        stream.end();
        return Ok(());
    };
    // Whatever fails from here on, dropping it has it leave.
    let viewer = Viewer::new(stream, Arc::clone(screen), number, wake);
    spawn("vnc-viewer", move || match viewer.run() {
        Ended::Left => {}
        ended => VIEWER.info(format_args!("Viewer {number} is served no more: {ended}")),
    })
}
