// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the VMM's threads share, and those that look at the GPU.

use std::fmt::{Debug, Formatter, Result as FmtResult};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use host_util::log_source::GUEST;
use virtio_gpu_worker::{Answered, Controlled, Event, Job, Status, WorkerHandle};
use virtio_pci_freeze::{Counters, ResetKind};
use vm_memory::bitmap::Bitmap;

use crate::frontend::{InProcess, Report};
use crate::host_window::HostWindow;

/// How long the GPU may take before that is told.
const SLOW: Duration = Duration::from_secs(1);

pub(super) struct Running<B: Bitmap + Send + Sync + 'static> {
    pub(super) front: Arc<InProcess<B>>,
    pub(super) worker: WorkerHandle<InProcess<B>>,
    #[cfg_attr(
        not(feature = "virgl"),
        expect(dead_code, reason = "only a GPU that is kept changes it")
    )]
    pub(super) host_window: Option<HostWindow>,
    pub(super) features: u64,
}

impl<B: Bitmap + Send + Sync + 'static> Debug for Running<B> {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        f.debug_struct("Running")
            .field("front", &self.front)
            .field("worker", &self.worker)
            .finish_non_exhaustive()
    }
}

impl<B: Bitmap + Send + Sync + 'static> Running<B> {
    /// Lets the worker serve, where a driver is there to be served, and makes up for every doorbell it missed.
    pub(super) fn serve(&self) {
        if self.front.may_serve() {
            self.worker.serve();
        }
    }

    /// There is no giving up: a guest that went on would meet what the GPU still does for it.
    pub(super) fn reset(&self, kind: ResetKind) -> Report {
        let (ticket, done) = sync_channel(1);
        self.worker.reset(kind, ticket);
        let start = Instant::now();
        loop {
            match done.recv_timeout(SLOW) {
                Ok(report) => return report,
                Err(RecvTimeoutError::Timeout) => {
                    let waited = start.elapsed();
                    GUEST.warn(format_args!(
                        "The GPU still works for its guest, {waited:?} after it was to reset"
                    ));
                }
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    pub(super) fn freeze(&self) -> bool {
        let (ticket, done) = self.front.begin_freeze();
        self.worker.freeze(Some(ticket));
        // It comes in any case, within the time that a device has to come to rest, unless the worker is gone.
        done.recv().unwrap_or(false)
    }
}

impl<B: Bitmap + Send + Sync + 'static> Controlled for Running<B> {
    fn status(&self) -> Answered<Status> {
        let worker = self.worker.status()?;
        let resets = worker.resets;
        let counters = Counters {
            full_resets: resets.full,
            frozen_resets: resets.frozen,
            reinstatements: resets.reinstatements,
            ..Counters::default()
        };
        Ok(Status::new(
            self.front.state(worker.life),
            &worker,
            counters,
        ))
    }

    fn subscribe(&self) -> Receiver<Event> {
        self.worker.subscribe()
    }

    fn run(&self, job: Job) {
        self.worker.run(job);
    }
}
