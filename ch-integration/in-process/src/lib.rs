// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The GPU for a VMM that has a virtio transport of its own.

mod error;
mod frontend;
mod host_window;
#[cfg(feature = "virgl")]
mod kept;
mod running;
mod start;

use std::fmt::{Debug, Formatter, Result as FmtResult};
use std::io::Error as IoError;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;

use virtio_gpu_worker::{
    Activation, Answered, Controlled, Event, OutputSize, PictureError, QUEUE_SIZES, RING_FEATURES,
    ResizeError, Screenshot, Status, WorkerHandle,
};
pub use virtio_pci_freeze::ActivationKind;
use virtio_pci_freeze::spec::{VIRTIO_MSI_NO_VECTOR, feature};
use virtio_pci_freeze::{QueueSetup, ResetKind, RingPosition};
use virtio_queue::{Queue, QueueT};
use vm_memory::bitmap::Bitmap;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

pub use error::{GpuRequestError, StartGpuError};
use frontend::CONFIG_SIZE;
pub use frontend::GuestNotifier;
pub use host_util::socket;
pub use host_window::{HostWindow, MemorySlots};
#[cfg(feature = "virgl")]
use kept::Kept;
use running::Running;
pub use start::GpuStart;
use start::{check, make};
// What a VMM needs of the worker, so that this crate is all that it depends on.
pub use virtio_gpu_worker::{
    Backend, GpuOption, HOST_VISIBLE_SHM_ID, LayoutOption, OptionError, SavedGpu, VmmGpuOption,
    seccomp,
};

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
    running: Arc<Running<B>>,
    /// Of a GPU whose renderer starts once in a process.
    #[cfg(feature = "virgl")]
    starts_once: Option<GpuOption>,
}

impl<B: Bitmap + Send + Sync + 'static> Debug for InProcessGpu<B> {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        f.debug_struct("InProcessGpu")
            .field("running", &self.running)
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
        let host_window = start.host_visible.clone();
        let asked = option.clone();
        let (worker, front) = WorkerHandle::start(
            move |link| make(&asked, start, link),
            |body| spawn(GpuThread(body)),
            StartGpuError::Thread,
        )?;
        let features = worker.with_gpu(|gpu| gpu.device_features());
        let features = features.map_err(StartGpuError::NoAnswer)?;
        Ok(Self {
            running: Arc::new(Running {
                front,
                worker,
                host_window,
                features,
            }),
            #[cfg(feature = "virgl")]
            starts_once: (option.backend == Backend::Virgl).then(|| option.clone()),
        })
    }

    /// The GPU that this process kept, if it is the one asked for. Saved state needs a new one.
    #[cfg(feature = "virgl")]
    fn take_kept(option: &GpuOption, start: &GpuStart) -> Option<Self> {
        if option.backend != Backend::Virgl || start.saved.is_some() {
            return None;
        }
        let Kept { option, running } = Kept::take(option)?;
        if let (Some(ours), Some(new)) = (&running.host_window, &start.host_visible) {
            ours.move_to(new);
        }
        Some(Self {
            running,
            starts_once: Some(option),
        })
    }

    /// The features to offer, as a mask. The transport adds its own.
    pub fn features(&self) -> u64 {
        self.running.features | RING_FEATURES | feature::mask(feature::VIRTIO_F_VERSION_1)
    }

    /// Reads configuration space; what lies outside reads 0.
    pub fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.running.front.read_config(offset, data);
    }

    /// Writes configuration space; only the standard's writable field takes it.
    pub fn write_config(&self, offset: u64, data: &[u8]) {
        let Ok(offset) = u16::try_from(offset) else {
            return;
        };
        if usize::from(offset).saturating_add(data.len()) <= CONFIG_SIZE {
            self.running.worker.write_config(offset, data);
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
        let (queues, doorbells) = queues
            .into_iter()
            .map(|(setup, doorbell)| (setup, (setup.index, doorbell)))
            .unzip();
        self.running.front.driver_came(notifier);
        self.running.worker.activate(Activation {
            memory,
            features,
            kind,
            queues,
            doorbells,
        });
        // A restored driver rang before the snapshot, and one that comes back may have rung into the reset.
        self.running.serve();
    }

    /// Destroys everything that the guest made. When this returns, guest memory is not touched any more.
    pub fn reset(&self) {
        self.running.worker.stop();
        let _: frontend::Report = self.running.reset(ResetKind::Full);
    }

    /// The reset of a guest that goes to sleep: what it made is retained, and where its rings stand is returned, by
    /// queue. `None` if commands could not be finished, and the reset was a full one.
    pub fn reset_frozen(&self) -> Option<[RingPosition; QUEUE_SIZES.len()]> {
        self.running.reset(ResetKind::Frozen)
    }

    /// The guest asked for a freeze. Returns whether the GPU honours it: whether every command taken is answered.
    pub fn freeze(&self) -> bool {
        self.running.freeze()
    }

    /// The guest ended its freeze.
    pub fn unfreeze(&self) {
        self.running.worker.freeze(None);
    }

    /// Stops serving until [`resume`](Self::resume), with every command taken answered.
    ///
    /// # Errors
    /// The renderer did not come to rest; the GPU goes on.
    pub fn pause(&self) -> Result<(), GpuRequestError> {
        self.running.front.set_paused(true);
        match self.running.worker.settle(true) {
            Ok(true) => Ok(()),
            failed => {
                self.resume();
                failed?;
                Err(GpuRequestError::Busy)
            }
        }
    }

    /// Ends a pause.
    pub fn resume(&self) {
        self.running.front.set_paused(false);
        self.running.serve();
    }

    /// The VMM mapped or unmapped guest memory. When this returns the old mappings are not touched any more.
    ///
    /// # Errors
    /// The GPU did not let go in time: what was unmapped must stay mapped in this process.
    pub fn memory_changed(&self) -> Result<(), GpuRequestError> {
        Ok(self.running.worker.memory_changed()?)
    }

    /// The GPU's state. It must be paused.
    ///
    /// # Errors
    /// The guest has something in a renderer, which has no saved form.
    pub fn save(&self) -> Result<SavedGpu, GpuRequestError> {
        self.running.worker.save()?.map_err(GpuRequestError::Save)
    }

    /// What people and tools see of it. It does nothing any more when the GPU is dropped.
    pub fn controlled(&self) -> Arc<dyn Controlled> {
        self.running.clone()
    }

    /// Events from now on.
    pub fn subscribe(&self) -> Receiver<Event> {
        self.running.subscribe()
    }

    /// What the GPU is doing.
    ///
    /// # Errors
    /// No answer came.
    pub fn status(&self) -> Answered<Status> {
        self.running.status()
    }

    /// What a scanout shows; black where it is disabled.
    ///
    /// # Errors
    /// There is no such scanout, or no answer came.
    pub fn screenshot(&self, scanout: u32, cursor: bool) -> Result<Screenshot, PictureError> {
        self.running.screenshot(scanout, cursor)
    }

    /// Gives an output another preferred size, and tells the guest.
    ///
    /// # Errors
    /// There is no such output, it cannot have that size, or no answer came.
    pub fn resize(&self, scanout: u32, size: OutputSize) -> Result<(), ResizeError> {
        self.running.resize(scanout, size)
    }

    /// Keeps a GPU whose renderer could not start again. Returns whether it did.
    #[cfg(feature = "virgl")]
    fn keep(&mut self) -> bool {
        let Some(option) = self.starts_once.take() else {
            return false;
        };
        self.reset();
        let running = Arc::clone(&self.running);
        if let Some(window) = &running.host_window {
            window.leave();
        }
        running.front.set_paused(false);
        running.worker.end_subscriptions();
        if running.worker.is_finished() {
            return false;
        }
        Kept { option, running }.keep();
        true
    }
}

impl<B: Bitmap + Send + Sync + 'static> Drop for InProcessGpu<B> {
    fn drop(&mut self) {
        #[cfg(feature = "virgl")]
        if self.keep() {
            return;
        }
        self.running.worker.stop();
        self.running.worker.end();
        self.running.front.driver_went();
        self.running.worker.end_subscriptions();
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
