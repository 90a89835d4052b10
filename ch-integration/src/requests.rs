// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a VMM asks of the worker, and how the worker comes to know of it.

use std::fmt::{Debug, Formatter, Result as FmtResult};
use std::io::Error as IoError;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel};
use std::time::Instant;

use log::warn;
use virtio_gpu_s3::saved_state::{SaveError, SavedGpu};
use virtio_gpu_s3::{Gpu, Image, Status as GpuStatus};
use virtio_pci_freeze::{ActivationKind, FreezeTicket, QueueSetup, ResetKind};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::worker::{Frontend, bit};

/// What the VMM's threads ask of the worker. Doorbells do not come this way: see [`Doorbells`].
pub(crate) enum Request<F: Frontend> {
    /// Serve from this memory, and listen for doorbells on these eventfds. Before an activation.
    Attach {
        memory: GuestMemoryAtomic<GuestMemoryMmap<F::Bitmap>>,
        doorbells: Vec<(u16, EventFd)>,
    },
    Activate {
        kind: ActivationKind,
        features: u64,
        event_idx: bool,
        queues: Vec<QueueSetup>,
    },
    Reset {
        kind: ResetKind,
        ticket: F::Ticket,
        asked: Instant,
    },
    /// End, whoever may still ask.
    End,
    Discard,
    Freeze {
        ticket: FreezeTicket,
    },
    Suspend,
    Resume,
    StartQueue(QueueSetup),
    ResetQueue(u16),
    WriteConfig {
        offset: u16,
        bytes: Vec<u8>,
    },
    /// A doorbell is waiting in [`Doorbells`].
    Wake,
    /// A renderer signalled fences.
    FencesSignalled,
    Ask(Question),
}

/// What somebody waits for, unless they gave up.
pub(crate) enum Question {
    /// Answer once everything asked before is done and no buffer is being processed.
    Barrier(SyncSender<()>),
    /// Answer every request taken, and say whether that was reached.
    Settle(SyncSender<bool>),
    /// Guest memory was replaced: answer once nothing touches the old mappings any more.
    MemoryReplaced(SyncSender<()>),
    Inspect(SyncSender<GpuStatus>),
    Save(SyncSender<Result<SavedGpu, SaveError>>),
    Screenshot {
        scanout: u32,
        cursor: bool,
        reply: SyncSender<Option<Image>>,
    },
    /// Something else that takes the GPU.
    Gpu(Box<dyn FnOnce(&mut Gpu) + Send>),
}

/// The way of requests to the worker, which ends when this is dropped.
pub(crate) struct Requests<F: Frontend> {
    /// `None` only while it is being dropped.
    sender: Option<Sender<Request<F>>>,
    news: Arc<AtomicBool>,
    bell: Option<Arc<Bell>>,
}

/// What wakes a worker that waits for doorbells too.
#[derive(Debug)]
struct Bell {
    eventfd: EventFd,
    /// A worker that is awake sees requests by itself.
    asleep: AtomicBool,
}

impl<F: Frontend> Debug for Requests<F> {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        f.debug_struct("Requests").finish_non_exhaustive()
    }
}

impl<F: Frontend> Requests<F> {
    /// The worker ends with the device, so a request that finds nobody has nothing left to do.
    pub(crate) fn send(&self, request: Request<F>) {
        if let Some(sender) = &self.sender {
            drop(sender.send(request));
        }
        self.news.store(true, Ordering::Release);
        self.wake();
    }

    fn wake(&self) {
        let Some(bell) = &self.bell else {
            return;
        };
        // Either this sees that the worker sleeps, or the worker sees the request before it does.
        fence(Ordering::SeqCst);
        if bell.asleep.load(Ordering::Relaxed) {
            // It fails only where 2^64 - 2 wakes are waiting already.
            drop(bell.eventfd.write(1));
        }
    }
}

impl<F: Frontend> Drop for Requests<F> {
    fn drop(&mut self) {
        // The worker must find the sender gone when it wakes.
        self.sender = None;
        self.wake();
    }
}

/// The worker's end.
pub(crate) struct Inbox<F: Frontend> {
    receiver: Receiver<Request<F>>,
    /// Whether somebody asked since the last look that found nothing.
    news: Arc<AtomicBool>,
    eventfds: Option<Eventfds>,
}

/// What the worker found.
pub(crate) enum Next<F: Frontend> {
    Request(Request<F>),
    /// Nothing; there may be doorbells.
    Nothing,
    /// Nobody is left to ask.
    End,
}

impl<F: Frontend> Inbox<F> {
    /// A worker whose doorbells come as requests.
    pub(crate) fn new() -> (Requests<F>, Self) {
        let (sender, receiver) = channel();
        let news = Arc::new(AtomicBool::new(false));
        let requests = Requests {
            sender: Some(sender),
            news: news.clone(),
            bell: None,
        };
        let inbox = Self {
            receiver,
            news,
            eventfds: None,
        };
        (requests, inbox)
    }

    /// A worker whose doorbells come through eventfds, as they do where KVM turns them into such.
    ///
    /// # Errors
    /// The system has no file descriptors left.
    pub(crate) fn with_eventfds() -> Result<(Requests<F>, Self), IoError> {
        let (mut requests, mut inbox) = Self::new();
        let bell = Arc::new(Bell {
            eventfd: EventFd::new(EFD_NONBLOCK)?,
            asleep: AtomicBool::new(false),
        });
        let epoll = Epoll::new()?;
        listen(&epoll, &bell.eventfd, WAKE)?;
        requests.bell = Some(bell.clone());
        inbox.eventfds = Some(Eventfds {
            epoll,
            bell,
            doorbells: Vec::new(),
        });
        Ok((requests, inbox))
    }

    /// Whether somebody may have asked something: cheap enough to look again and again.
    pub(crate) fn has_news(&self) -> bool {
        self.news.load(Ordering::Relaxed)
    }

    /// What comes next. A worker that is `awake` does not wait for it.
    pub(crate) fn next(&mut self, awake: bool, doorbells: &Doorbells) -> Next<F> {
        // Before the look, so that who asks after it is seen.
        self.news.store(false, Ordering::SeqCst);
        match self.receiver.try_recv() {
            Ok(request) => {
                // There may be more.
                self.news.store(true, Ordering::Relaxed);
                Next::Request(request)
            }
            Err(TryRecvError::Disconnected) => Next::End,
            Err(TryRecvError::Empty) if awake => Next::Nothing,
            Err(TryRecvError::Empty) => self.wait(doorbells),
        }
    }

    fn wait(&self, doorbells: &Doorbells) -> Next<F> {
        let Some(eventfds) = &self.eventfds else {
            return self.receiver.recv().map_or(Next::End, Next::Request);
        };
        let asleep = &eventfds.bell.asleep;
        asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let next = match self.receiver.try_recv() {
            Ok(request) => Next::Request(request),
            Err(TryRecvError::Disconnected) => Next::End,
            Err(TryRecvError::Empty) => {
                eventfds.wait(doorbells);
                Next::Nothing
            }
        };
        asleep.store(false, Ordering::Relaxed);
        next
    }

    /// Listens to these doorbells, and to no others.
    ///
    /// # Errors
    /// The system cannot.
    pub(crate) fn listen(&mut self, doorbells: Vec<(u16, EventFd)>) -> Result<(), IoError> {
        let Some(eventfds) = &mut self.eventfds else {
            return Ok(());
        };
        for (_, eventfd) in eventfds.doorbells.drain(..) {
            let nothing = EpollEvent::default();
            let fd = eventfd.as_raw_fd();
            eventfds.epoll.ctl(ControlOperation::Delete, fd, nothing)?;
        }
        for (index, eventfd) in doorbells {
            listen(&eventfds.epoll, &eventfd, index.into())?;
            eventfds.doorbells.push((index, eventfd));
        }
        Ok(())
    }
}

/// What epoll says of the wake; everything else is a queue's number.
const WAKE: u64 = u64::MAX;
/// More at once wait for the next look.
const EVENTS: usize = 4;

struct Eventfds {
    epoll: Epoll,
    bell: Arc<Bell>,
    doorbells: Vec<(u16, EventFd)>,
}

impl Eventfds {
    /// Waits for doorbells or for a wake, and notes the doorbells that rang.
    fn wait(&self, doorbells: &Doorbells) {
        let mut events = [EpollEvent::default(); EVENTS];
        // A signal may interrupt it; the worker then looks again.
        let count = self.epoll.wait(-1, &mut events).unwrap_or(0);
        for event in events.iter().take(count) {
            if event.data() == WAKE {
                drop(self.bell.eventfd.read());
            }
            for (index, eventfd) in &self.doorbells {
                // Another thread of the VMM may have read it: a spurious wake.
                if u64::from(*index) == event.data() && eventfd.read().is_ok() {
                    doorbells.ring(bit(*index));
                }
            }
        }
    }
}

fn listen(epoll: &Epoll, eventfd: &EventFd, data: u64) -> Result<(), IoError> {
    let event = EpollEvent::new(EventSet::IN, data);
    epoll
        .ctl(ControlOperation::Add, eventfd.as_raw_fd(), event)
        .inspect_err(|error| warn!("Cannot listen to a doorbell: {error}"))
}

/// Doorbells that rang, and whether the worker may touch guest memory: shared, so that no number of doorbells grows
/// anything.
#[derive(Debug, Default)]
pub(crate) struct Doorbells {
    rung: AtomicU64,
    open: AtomicBool,
}

impl Doorbells {
    /// Rings a queue's doorbell. Returns whether the worker must be woken for it.
    pub(crate) fn ring(&self, queues: u64) -> bool {
        self.rung.fetch_or(queues, Ordering::AcqRel) == 0
    }

    pub(crate) fn take(&self) -> u64 {
        // Most looks find none, and shall not take the line away from who rings.
        match self.rung.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.rung.swap(0, Ordering::AcqRel),
        }
    }

    /// Lets the worker touch guest memory, or not. Closing takes effect after the buffer being processed.
    pub(crate) fn set_open(&self, open: bool) {
        self.open.store(open, Ordering::Release);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }
}
