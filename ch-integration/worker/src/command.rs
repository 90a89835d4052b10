// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a front end asks of the worker.

use std::fmt::{Debug, Formatter, Result as FmtResult};
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use virtio_gpu_s3::{Gpu, LookError, Picture, Seen};
use virtio_pci_freeze::{ActivationKind, HoldReason, QueueSetup, ResetKind};
use vm_memory::{GuestMemoryAtomic, GuestMemoryLoadGuard};
use vmm_sys_util::eventfd::EventFd;

use crate::frontend::{Frontend, Memory};
use crate::status::WorkerStatus;

/// Where one answer goes. Whoever asked may have given up.
pub(crate) type Reply<T> = SyncSender<T>;

/// The GPU, for what is done on the worker's thread.
pub trait GpuAccess {
    /// The GPU itself.
    fn gpu(&mut self) -> &mut Gpu;

    /// What a scanout shows: see [`Gpu::look`]. The guest's memory is read only where the guest may be served from it.
    ///
    /// # Errors
    /// As those of [`Gpu::look`].
    fn look(&mut self, scanout: u32, seen: Seen) -> Result<Picture<'_>, LookError>;
}

/// Something to do that takes the GPU.
pub type Job = Box<dyn FnOnce(&mut dyn GpuAccess) + Send>;

/// What the driver set up when it set DRIVER_OK, with the memory that it set it up in.
pub struct Activation<M: Memory> {
    /// Guest memory. It belongs to this activation and the ones of the same guest: a VMM may replace what is in it, and
    /// the memory of another guest is another one.
    pub memory: GuestMemoryAtomic<M>,
    /// The negotiated features, as a mask.
    pub features: u64,
    /// What the reset before this was.
    pub kind: ActivationKind,
    /// The queues that run.
    pub queues: Vec<QueueSetup>,
    /// Eventfds of doorbells, by queue, where they come as such.
    pub doorbells: Vec<(u16, EventFd)>,
}

impl<M: Memory> Debug for Activation<M> {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        f.debug_struct("Activation")
            .field("features", &self.features)
            .field("kind", &self.kind)
            .field("queues", &self.queues)
            .finish_non_exhaustive()
    }
}

/// What a front end saw, for the worker to tell in its place among events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A VMM attached.
    Connected,
    /// The VMM went away.
    Disconnected,
    /// The guest went to sleep.
    Slept {
        /// Why the device holds.
        holds: Vec<HoldReason>,
    },
    /// The guest is awake and drives the device.
    Woke {
        /// How long it was away, in microseconds.
        asleep_us: u64,
    },
}

/// What is asked, in order. What a guest can repeat without end does not come this way, or is one command however often
/// it is repeated: see [`Mailbox`](crate::mailbox::Mailbox).
pub(crate) enum Command<F: Frontend> {
    Activate(Box<Activation<F::Memory>>),
    Reset {
        kind: ResetKind,
        ticket: F::Ticket,
        asked: Instant,
    },
    /// Drop the state that was retained; no driver drives the device.
    Discard,
    /// Guest memory is another kernel's, or may be.
    Disown,
    /// The guest froze the device, or ended that: the mailbox knows the newest word.
    FreezeChanged,
    Suspend,
    Resume,
    StartQueue(QueueSetup),
    ResetQueue(u16),
    /// The driver wrote `events_clear`: the mailbox has the bits.
    ConfigWritten,
    Tell(Told),
    /// Read what is shown and end every wait for somebody outside, as the device may not touch guest memory soon, and
    /// answer.
    LookBeforeSleep(Reply<()>),
    /// Answer every command that was taken, and say whether that was reached.
    Settle {
        /// Touch no guest memory after that.
        shut: bool,
        reply: Reply<bool>,
    },
    FollowMemory(MemoryFollowed<F::Memory>),
    Status(Reply<WorkerStatus>),
    Job(Job),
}

/// Guest memory was replaced: tell once nothing uses what went any more.
pub(crate) struct MemoryFollowed<M: Memory> {
    /// All that changed lies from this guest address
    pub(crate) first: u64,
    /// to this one, both included.
    pub(crate) last: u64,
    /// What was there before, kept until then.
    pub(crate) old: Option<GuestMemoryLoadGuard<M>>,
    pub(crate) done: Done,
}

/// Tells who waits. It is dropped where the worker ends before.
pub type Done = Box<dyn FnOnce() + Send>;
