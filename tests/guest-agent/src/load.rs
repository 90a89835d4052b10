// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Draws in the background, so that a sleep meets commands in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use guest_agent::protocol::{LoadReport, Target};

use crate::Error;
use crate::display::Displays;

/// A running load.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<LoadReport>,
}

impl Load {
    /// Draws one picture, to know that it can, then goes on in a thread of its own.
    pub(crate) fn start(target: Target) -> Result<Self, Error> {
        let mut displays = Displays::default();
        displays.draw(target, 0)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || draw_until(&stopped, &mut displays, target));
        Ok(Self { stop, thread })
    }

    /// Ends the load after the picture it is drawing.
    pub(crate) fn stop(self) -> LoadReport {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|_| LoadReport {
            frames: 0,
            errors: 1,
            first_error: Some("the load panicked".to_owned()),
        })
    }
}

fn draw_until(stop: &AtomicBool, displays: &mut Displays, target: Target) -> LoadReport {
    let mut report = LoadReport {
        frames: 0,
        errors: 0,
        first_error: None,
    };
    for seed in (0..).take_while(|_| !stop.load(Ordering::Relaxed)) {
        match displays.animate(target, seed) {
            Ok(_) => report.frames += 1,
            Err(error) => {
                report.errors += 1;
                report.first_error.get_or_insert_with(|| error.to_string());
                // A display that fails at once must not fill the log buffer.
                thread::yield_now();
            }
        }
    }
    report
}
