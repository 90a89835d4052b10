// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The GPU for a VMM that has a virtio transport of its own.

mod error;
mod frontend;
mod host_window;
#[cfg(feature = "virgl")]
mod kept;
mod option;
mod start;

use std::fmt::{Debug, Formatter, Result as FmtResult};
use std::hint::spin_loop;
use std::io::Error as IoError;
#[cfg(feature = "control")]
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use log::warn;
use virtio_gpu_s3::Image;
use virtio_gpu_s3::saved_state::SavedGpu;
use virtio_pci_freeze::spec::{VIRTIO_MSI_NO_VECTOR, feature};
use virtio_pci_freeze::{ActivationKind, QueueSetup, ResetKind, RingPosition};
use virtio_queue::{Queue, QueueT};
use vm_memory::bitmap::Bitmap;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

#[cfg(feature = "control")]
use crate::control::{Control, ControlThread, Controlled};
use crate::device::{PATIENCE, QUEUE_SIZES};
use crate::events::{Event, EventKind};
use crate::linger::LIMIT;
use crate::model::RING_FEATURES;
#[cfg(feature = "virgl")]
use crate::options::Backend;
use crate::options::{GpuOption, OutputSize};
use crate::requests::{Doorbells, Inbox, Question, Request, Requests};
use crate::resize::{self, ResizeError};
use crate::screenshot::ScreenshotError;
use crate::status::Status;
use crate::wakeup::Wakeup;
use crate::worker::Worker;

pub use error::{GpuRequestError, StartGpuError};
pub use frontend::GuestNotifier;
use frontend::{CONFIG_SIZE, InProcess, Report};
pub use host_window::{HostWindow, MemorySlots};
#[cfg(feature = "virgl")]
use kept::Kept;
pub use option::{LayoutOption, VmmGpuOption};
pub use start::GpuStart;
use start::{check, make_gpu, tell_start};

/// What a GPU's thread runs. The VMM makes the thread, names it and puts its filters around it.
pub struct GpuThread(Box<dyn FnOnce() + Send>);

impl Debug for GpuThread {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        f.debug_struct("GpuThread").finish_non_exhaustive()
    }
}

impl GpuThread {
    /// Serves the GPU until its [`InProcessGpu`] is dropped.
    pub fn run(self) {
        (self.0)();
    }
}

/// What a transport hands over at DRIVER_OK.
pub struct GpuActivation<B: Bitmap + Send + Sync + 'static> {
    /// Guest memory, which the VMM may replace at any time; see [`InProcessGpu::memory_changed`].
    pub memory: GuestMemoryAtomic<GuestMemoryMmap<B>>,
    /// The negotiated features, as a mask.
    pub features: u64,
    /// What the reset before this was.
    pub kind: ActivationKind,
    /// Each queue with the eventfd of its doorbell.
    pub queues: Vec<(QueueSetup, EventFd)>,
    /// The way of interrupts to the guest.
    pub notifier: Arc<dyn GuestNotifier>,
}

impl<B: Bitmap + Send + Sync + 'static> Debug for GpuActivation<B> {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        f.debug_struct("GpuActivation")
            .field("features", &self.features)
            .field("kind", &self.kind)
            .field("queues", &self.queues)
            .finish_non_exhaustive()
    }
}

/// A virtio-gpu without a transport.
///
/// The VMM keeps registers, interrupts and PCI; this takes what is left of a virtio device: features, configuration
/// space, queues. Its thread lives from [`start`](Self::start) until it is dropped, so that a frozen reset has something
/// to retain and no reset ever meets a renderer that cannot be started twice.
pub struct InProcessGpu<B: Bitmap + Send + Sync + 'static> {
    inner: Arc<Inner<B>>,
    thread: Option<JoinHandle<()>>,
    features: u64,
    /// Of a GPU whose renderer starts once in a process.
    #[cfg(feature = "virgl")]
    starts_once: Option<GpuOption>,
}

/// What the VMM's threads and those of the control socket share.
struct Inner<B: Bitmap + Send + Sync + 'static> {
    shared: Arc<InProcess<B>>,
    doorbells: Arc<Doorbells>,
    requests: Arc<Requests<InProcess<B>>>,
    #[cfg_attr(
        not(feature = "virgl"),
        expect(dead_code, reason = "only a GPU that is kept changes it")
    )]
    host_window: Option<HostWindow>,
}

impl<B: Bitmap + Send + Sync + 'static> Debug for InProcessGpu<B> {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        f.debug_struct("InProcessGpu")
            .field("inner", &self.inner)
            .field("features", &self.features)
            .finish_non_exhaustive()
    }
}

impl<B: Bitmap + Send + Sync + 'static> Debug for Inner<B> {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        f.debug_struct("Inner")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

impl<B: Bitmap + Send + Sync + 'static> InProcessGpu<B> {
    /// Sizes of the control and the cursor queue.
    pub const QUEUE_SIZES: [u16; 2] = QUEUE_SIZES;
    /// Bytes of configuration space.
    pub const CONFIG_SIZE: usize = CONFIG_SIZE;

    /// Starts the GPU on a thread that `spawn` makes. Everything of it, a renderer's threads too, starts there, and
    /// so behind the filters that `spawn` puts in place.
    ///
    /// # Errors
    /// A [`StartGpuError`] says what is missing; no thread is left then.
    pub fn start(
        option: &GpuOption,
        start: GpuStart,
        spawn: impl FnOnce(GpuThread) -> Result<JoinHandle<()>, IoError>,
    ) -> Result<Self, StartGpuError> {
        check(option, &start)?;
        #[cfg(feature = "virgl")]
        if let Some(kept) = Self::take_kept(option, &start) {
            return Ok(kept);
        }
        #[cfg(feature = "virgl")]
        let starts_once = (option.backend == Backend::Virgl).then(|| option.clone());
        let (requests, inbox) = Inbox::with_eventfds().map_err(StartGpuError::Thread)?;
        let requests = Arc::new(requests);
        let shared = Arc::new(InProcess::new(start.saved.is_some()));
        let doorbells = Arc::new(Doorbells::default());
        let wakeup = Arc::new(Wakeup::default());
        let host_window = start.host_visible.clone();
        let (reply, started) = sync_channel(1);
        let option = option.clone();
        let (for_renderer, front) = (Arc::downgrade(&requests), shared.clone());
        let rung = doorbells.clone();
        let body = move || {
            let Some(for_renderer) = for_renderer.upgrade() else {
                return;
            };
            let made = make_gpu(&option, start, &wakeup, &for_renderer);
            drop(for_renderer);
            let Some((gpu, max_request)) = tell_start(made, &front, &reply) else {
                return;
            };
            Worker::new(gpu, max_request, front, rung, inbox, wakeup).run();
        };
        let thread = spawn(GpuThread(Box::new(body))).map_err(StartGpuError::Thread)?;
        let inner = Arc::new(Inner {
            shared,
            doorbells,
            requests,
            host_window,
        });
        // Dropped in every case of an error, which ends the thread.
        let mut gpu = Self {
            inner,
            thread: Some(thread),
            features: 0,
            #[cfg(feature = "virgl")]
            starts_once: None,
        };
        gpu.features = started.recv().map_err(|_| StartGpuError::Ended)??;
        #[cfg(feature = "virgl")]
        {
            gpu.starts_once = starts_once;
        }
        Ok(gpu)
    }

    /// The GPU that this process kept, if it is the one asked for. Saved state needs a new one.
    #[cfg(feature = "virgl")]
    fn take_kept(option: &GpuOption, start: &GpuStart) -> Option<Self> {
        if option.backend != Backend::Virgl || start.saved.is_some() {
            return None;
        }
        let kept = Kept::take(option)?;
        if let (Some(ours), Some(new)) = (&kept.inner.host_window, &start.host_visible) {
            ours.move_to(new);
        }
        Some(Self {
            inner: kept.inner,
            thread: Some(kept.thread),
            features: kept.features,
            starts_once: Some(kept.option),
        })
    }

    /// The features to offer, as a mask. The transport adds its own.
    pub fn features(&self) -> u64 {
        self.features | RING_FEATURES | feature::mask(feature::VIRTIO_F_VERSION_1)
    }

    /// Reads configuration space; what lies outside reads 0.
    pub fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.inner.shared.read_config(offset, data);
    }

    /// Writes configuration space; only the standard's writable field takes it.
    pub fn write_config(&self, offset: u64, data: &[u8]) {
        let Ok(offset) = u16::try_from(offset) else {
            return;
        };
        if usize::from(offset).saturating_add(data.len()) <= CONFIG_SIZE {
            let bytes = data.to_vec();
            self.inner.send(Request::WriteConfig { offset, bytes });
        }
    }

    /// The driver set DRIVER_OK.
    pub fn activate(&self, activation: GpuActivation<B>) {
        let GpuActivation {
            memory,
            features,
            kind,
            queues,
            notifier,
        } = activation;
        let (queues, doorbells): (Vec<_>, Vec<_>) = queues
            .into_iter()
            .map(|(setup, doorbell)| (setup, (setup.index, doorbell)))
            .unzip();
        self.inner.shared.set_active(Some(notifier));
        self.inner.send(Request::Attach { memory, doorbells });
        self.inner.send(Request::Activate {
            kind,
            features,
            event_idx: features & feature::mask(feature::VIRTIO_F_EVENT_IDX) != 0,
            queues,
        });
        // A restored driver rang before the snapshot, and one that comes back may have rung into the reset.
        self.inner.open();
    }

    /// Destroys everything that the guest made. When this returns, guest memory is not touched any more.
    pub fn reset(&self) {
        let _: Report = self.inner.reset(ResetKind::Full);
    }

    /// The reset of a guest that goes to sleep: what it made is retained, and where its rings stand is returned, by
    /// queue. `None` if commands could not be finished, and the reset was a full one.
    pub fn reset_frozen(&self) -> Option<[RingPosition; QUEUE_SIZES.len()]> {
        self.inner.reset(ResetKind::Frozen)
    }

    /// The guest asked for a freeze. Returns whether the GPU honours it: whether every command taken is answered.
    pub fn freeze(&self) -> bool {
        let honoured = self.inner.settle().is_ok();
        if honoured {
            self.inner.shared.events.emit(EventKind::Freeze);
        }
        honoured
    }

    /// The guest ended its freeze.
    pub fn unfreeze(&self) {
        self.inner.shared.events.emit(EventKind::Unfreeze);
    }

    /// Stops serving until [`resume`](Self::resume), with every command taken answered.
    ///
    /// # Errors
    /// The renderer did not come to rest; the GPU goes on.
    pub fn pause(&self) -> Result<(), GpuRequestError> {
        self.inner.shared.set_paused(true);
        self.inner.doorbells.set_open(false);
        let settled = self.inner.settle();
        if settled.is_err() {
            self.resume();
        }
        settled
    }

    /// Ends a pause.
    pub fn resume(&self) {
        self.inner.shared.set_paused(false);
        self.inner.open();
    }

    /// The VMM mapped or unmapped guest memory. When this returns the old mappings are not touched any more.
    ///
    /// # Errors
    /// The GPU did not let go in time: what was unmapped must stay mapped in this process.
    pub fn memory_changed(&self) -> Result<(), GpuRequestError> {
        let told = self.inner.ask(Question::MemoryReplaced);
        told.map_err(|_| GpuRequestError::Busy)
    }

    /// The GPU's state. It must be paused.
    ///
    /// # Errors
    /// The guest has something in a renderer, which has no saved form.
    pub fn save(&self) -> Result<SavedGpu, GpuRequestError> {
        let saved = self.inner.ask(Question::Save)?;
        saved.map_err(GpuRequestError::Save)
    }

    /// Serves a control socket for this GPU until the returned [`Control`] is dropped, which must be before the GPU.
    ///
    /// # Errors
    /// Its thread cannot be started.
    #[cfg(feature = "control")]
    pub fn control(
        &self,
        listener: UnixListener,
        spawn: impl FnOnce(ControlThread) -> Result<JoinHandle<()>, IoError>,
    ) -> Result<Control, IoError> {
        Control::start(listener, self.inner.clone(), spawn)
    }

    /// Events from now on.
    pub fn subscribe(&self) -> Receiver<Event> {
        self.inner.shared.events.subscribe()
    }

    /// What the GPU is doing; `None` if its thread is gone.
    pub fn status(&self) -> Option<Status> {
        self.inner.status()
    }

    /// What a scanout shows; black where it is disabled.
    ///
    /// # Errors
    /// There is no such scanout, or the GPU's thread is gone.
    pub fn screenshot(&self, scanout: u32, cursor: bool) -> Result<Image, ScreenshotError> {
        self.inner.screenshot(scanout, cursor)
    }

    /// Gives an output another preferred size, and tells the guest.
    ///
    /// # Errors
    /// There is no such output, it cannot have that size, or the GPU's thread is gone.
    pub fn resize(&self, scanout: u32, size: OutputSize) -> Result<(), ResizeError> {
        self.inner.resize(scanout, size)
    }
}

#[cfg(feature = "virgl")]
impl<B: Bitmap + Send + Sync + 'static> InProcessGpu<B> {
    /// Keeps a GPU whose renderer could not start again. Returns whether it did.
    fn keep(&mut self) -> bool {
        let Some(option) = self.starts_once.take() else {
            return false;
        };
        self.reset();
        if let Some(window) = &self.inner.host_window {
            window.leave();
        }
        self.inner.shared.set_paused(false);
        self.inner.shared.events.close();
        let Some(thread) = self.thread.take_if(|thread| !thread.is_finished()) else {
            return false;
        };
        let kept = Kept {
            option,
            inner: self.inner.clone(),
            thread,
            features: self.features,
        };
        kept.keep();
        true
    }
}

impl<B: Bitmap + Send + Sync + 'static> Drop for InProcessGpu<B> {
    fn drop(&mut self) {
        #[cfg(feature = "virgl")]
        if self.keep() {
            return;
        }
        self.inner.doorbells.set_open(false);
        self.inner.send(Request::End);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("The GPU's thread panicked");
        }
        self.inner.shared.set_active(None);
        self.inner.shared.events.close();
    }
}

impl<B: Bitmap + Send + Sync + 'static> Inner<B> {
    fn send(&self, request: Request<InProcess<B>>) {
        self.requests.send(request);
    }

    fn ask<T>(
        &self,
        question: impl FnOnce(SyncSender<T>) -> Question,
    ) -> Result<T, GpuRequestError> {
        self.wait_for(|reply| Request::Ask(question(reply)))
    }

    fn wait_for<T>(
        &self,
        request: impl FnOnce(SyncSender<T>) -> Request<InProcess<B>>,
    ) -> Result<T, GpuRequestError> {
        let (reply, answer) = sync_channel(1);
        self.send(request(reply));
        // Most answers take less than this thread takes to fall asleep and be woken.
        let start = Instant::now();
        while start.elapsed() < LIMIT {
            match answer.try_recv() {
                Err(TryRecvError::Empty) => spin_loop(),
                done => return done.map_err(|_| GpuRequestError::Stopped),
            }
        }
        answer
            .recv_timeout(PATIENCE)
            .map_err(|_| GpuRequestError::Stopped)
    }

    fn settle(&self) -> Result<(), GpuRequestError> {
        match self.ask(Question::Settle)? {
            true => Ok(()),
            false => Err(GpuRequestError::Busy),
        }
    }

    /// Lets the worker serve, where a driver is there to be served, and makes up for every doorbell it missed.
    fn open(&self) {
        if self.shared.may_serve() {
            self.doorbells.set_open(true);
            self.doorbells.ring(u64::MAX);
            self.send(Request::Wake);
        }
    }

    fn reset(&self, kind: ResetKind) -> Report {
        self.doorbells.set_open(false);
        let asked = Instant::now();
        let report = self.wait_for(|ticket| Request::Reset {
            kind,
            ticket,
            asked,
        });
        self.shared.set_active(None);
        report.unwrap_or_else(|error| {
            warn!("The reset is not known to be done: {error}");
            None
        })
    }

    fn status(&self) -> Option<Status> {
        let gpu = self.ask(Question::Inspect).ok()?;
        Some(self.shared.status(&gpu))
    }

    fn screenshot(&self, scanout: u32, cursor: bool) -> Result<Image, ScreenshotError> {
        let image = self.ask(|reply| Question::Screenshot {
            scanout,
            cursor,
            reply,
        });
        let image = image.map_err(|_| ScreenshotError::Stopped)?;
        image.ok_or(ScreenshotError::NoScanout { scanout })
    }

    fn resize(&self, scanout: u32, size: OutputSize) -> Result<(), ResizeError> {
        let (question, answer) = resize::question(scanout, size);
        self.send(Request::Ask(question));
        self.shared.tell_config(&resize::wait_for(&answer)?);
        Ok(())
    }
}

#[cfg(feature = "control")]
impl<B: Bitmap + Send + Sync + 'static> Controlled for Inner<B> {
    fn status(&self) -> Option<Status> {
        Self::status(self)
    }

    fn screenshot(&self, scanout: u32, cursor: bool) -> Result<Image, ScreenshotError> {
        Self::screenshot(self, scanout, cursor)
    }

    fn resize(&self, scanout: u32, size: OutputSize) -> Result<(), ResizeError> {
        Self::resize(self, scanout, size)
    }

    fn subscribe(&self) -> Receiver<Event> {
        self.shared.events.subscribe()
    }
}

/// The setup of a queue as a transport keeps it.
pub fn queue_setup(index: u16, queue: &Queue) -> QueueSetup {
    QueueSetup {
        index,
        size: queue.size(),
        // The transport sends interrupts.
        vector: VIRTIO_MSI_NO_VECTOR,
        desc: queue.desc_table(),
        driver: queue.avail_ring(),
        device: queue.used_ring(),
        position: RingPosition {
            next_avail: queue.next_avail(),
            next_used: queue.next_used(),
        },
    }
}
