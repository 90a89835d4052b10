// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A GPU behind a PCI function: the models, the worker, and the effects that go between them.

use std::fs::File;
use std::io::Error as IoError;
use std::mem;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use log::{debug, warn};
use thiserror::Error;
use virtio_gpu_s3::renderer::Renderer;
use virtio_gpu_s3::{
    ConfigError as GpuConfigError, CrossDomainStartError, Gpu, HOST_VISIBLE_SHM_ID, Image,
};
use virtio_pci_freeze::spec::feature;
use virtio_pci_freeze::{
    BarLayout, ConfigError as FunctionConfigError, Effect, Effects, FunctionConfig, Identity,
    PowerState, SharedMemoryRegion, TransportConfig, VectorOwner, VirtioPciFunction,
};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};

#[cfg(feature = "control")]
use crate::control::Controlled;
use crate::events::{Event, EventKind};
use crate::model::{RING_FEATURES, new_gpu, new_renderer_in};
use crate::options::{DeviceOptions, OutputSize};
#[cfg(feature = "virgl")]
use crate::renderer_process::StartProcessError;
use crate::requests::{Doorbells, Inbox, Question, Request, Requests};
use crate::resize::{self, ResizeError};
use crate::screenshot::ScreenshotError;
use crate::shared::{Shared, State};
use crate::status::{Sleep, SleepChange, Status};
use crate::wakeup::Wakeup;
use crate::window::{Errand, Window};
use crate::worker::{Frontend, Worker, bit};

#[cfg(test)]
mod tests;

/// Guest memory, replaced whole when the VMM maps or unmaps.
pub type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

/// Sizes of the control and the cursor queue. QEMU's are 64 and 16, crosvm's 512 and 16; a longer control queue lets
/// a driver batch, and 256 descriptors still fit one page.
pub const QUEUE_SIZES: [u16; 2] = [256, 16];
/// One vector a queue, and one for configuration changes.
pub const VECTORS: u16 = 3;

/// How long the VMM's thread waits for the worker, which is never busier than with one command a queue.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// A device that cannot be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The GPU's configuration.
    #[error("Cannot make this GPU")]
    Gpu(#[source] GpuConfigError),
    /// The renderer.
    #[cfg(feature = "virgl")]
    #[error("Cannot start the renderer")]
    Renderer(#[source] virtio_gpu_s3::StartError),
    /// The host's compositor.
    #[error("Cannot reach the host's compositor")]
    Wayland(#[source] CrossDomainStartError),
    /// The renderer's process.
    #[cfg(feature = "virgl")]
    #[error("Cannot start the renderer")]
    RendererProcess(#[source] StartProcessError),
    /// The function's configuration.
    #[error("Cannot make this PCI function")]
    Function(#[source] FunctionConfigError),
    /// The worker's thread.
    #[error("Cannot start the device's thread")]
    Thread(#[source] IoError),
    /// The thread ended before the device was there.
    #[error("The device's thread ended while it started")]
    Ended,
}

/// A virtio-gpu that a VMM can drive: accesses go in, interrupts come out through eventfds.
#[derive(Debug)]
pub struct GpuDevice {
    shared: Arc<Shared>,
    doorbells: Arc<Doorbells>,
    /// The one strong reference: the worker ends when it is gone, and the renderer with it.
    requests: Arc<Requests<Shared>>,
    memory: Memory,
    /// The shared memory that the guest sees, if any.
    window: Option<Window>,
}

impl GpuDevice {
    /// A device as after power-on, with its worker running.
    ///
    /// # Errors
    /// A [`DeviceError`] says which part cannot be made, and why.
    pub fn new(options: &DeviceOptions) -> Result<Self, DeviceError> {
        let DeviceOptions { renderer, gpu, .. } = options.clone();
        Self::with_renderer(options, move |wakeup, requests| {
            new_renderer_in(&renderer, &gpu, wakeup, requests)
        })
    }

    /// The same with a renderer that `make` makes on the worker's thread.
    fn with_renderer(
        options: &DeviceOptions,
        make: impl MakeRenderer,
    ) -> Result<Self, DeviceError> {
        let (requests, inbox) = Inbox::new();
        let requests = Arc::new(requests);
        let memory = Memory::new(GuestMemoryMmap::new());
        let doorbells = Arc::new(Doorbells::default());
        let window = options.gpu.hostmem.map(Window::new);
        let (reply, started) = sync_channel(1);
        let start = Start {
            renderer: make,
            options: options.clone(),
            window: window.clone(),
            requests: Arc::downgrade(&requests),
            wakeup: Arc::new(Wakeup::default()),
        };
        let (served, rung) = (memory.clone(), doorbells.clone());
        let body = move || {
            let wakeup = start.wakeup.clone();
            let (told, run) = match start.make() {
                Ok((shared, gpu, max_request)) => {
                    (Ok(shared.clone()), Some((shared, gpu, max_request)))
                }
                Err(error) => (Err(error), None),
            };
            let Some((shared, gpu, max_request)) = reply.send(told).ok().and(run) else {
                return;
            };
            let worker = Worker::new(gpu, max_request, shared, rung, inbox, wakeup);
            worker.with_memory(served).run();
        };
        thread::Builder::new()
            .name("gpu".into())
            .spawn(body)
            .map_err(DeviceError::Thread)?;
        let shared = started.recv().map_err(|_| DeviceError::Ended)??;
        Ok(Self {
            shared,
            doorbells,
            requests,
            memory,
            window,
        })
    }

    /// Size in bytes of a BAR; 0 if there is no such BAR.
    pub fn bar_size(&self, bar: u8) -> u64 {
        self.look(|function| function.bars().size(bar))
    }

    /// Reads configuration space.
    pub fn read_config(&self, offset: u16, data: &mut [u8]) {
        let length = data.len();
        // A blob is reached without the lock, which who has the blob may want.
        let read = self.look(|function| function.shared_memory_read(offset, length));
        let Some(read) = read else {
            return self.access(|function| function.read_config(offset, data));
        };
        let mut found = vec![0; read.what];
        self.read_bar(BarLayout::SHARED_MEMORY, read.offset, &mut found);
        self.access(|function| function.read_config_with(offset, data, &found));
    }

    /// Writes configuration space.
    pub fn write_config(&self, offset: u16, data: &[u8]) {
        self.access(|function| function.write_config(offset, data));
        let write = self.look(|function| function.shared_memory_write(offset, data));
        if let Some(write) = write {
            self.write_bar(BarLayout::SHARED_MEMORY, write.offset, &write.what);
        }
    }

    /// Reads a BAR.
    pub fn read_bar(&self, bar: u8, offset: u64, data: &mut [u8]) {
        match &self.window {
            Some(window) if bar == BarLayout::SHARED_MEMORY && self.is_awake() => {
                window.read(offset, data, |errand, part| self.read_blob(errand, part));
            }
            _ => self.access(|function| function.read_bar(bar, offset, data)),
        }
    }

    /// Writes a BAR.
    pub fn write_bar(&self, bar: u8, offset: u64, data: &[u8]) {
        match &self.window {
            Some(window) if bar == BarLayout::SHARED_MEMORY && self.is_awake() => {
                window.write(offset, data, |errand, part| self.write_blob(errand, part));
            }
            _ => self.access(|function| function.write_bar(bar, offset, data)),
        }
    }

    /// The VMM reset the function. Returns once that is done.
    pub fn function_reset(&self) {
        self.access(VirtioPciFunction::function_reset);
        self.wait_for_reset();
    }

    /// A VMM attached.
    pub fn connected(&self) {
        self.shared.events.emit(EventKind::Connected);
    }

    /// The VMM is gone, and its guest with it.
    pub fn disconnected(&self) {
        for vector in 0..VECTORS {
            self.connect_vector(vector, None);
        }
        self.access(VirtioPciFunction::reboot);
        self.wait_for_reset();
        self.replace_memory(GuestMemoryMmap::new());
        self.shared.lock().sleep = Sleep::Awake;
        self.shared.events.emit(EventKind::Disconnected);
    }

    /// Gives an interrupt vector its way to the guest, or takes it away.
    pub fn connect_vector(&self, vector: u16, eventfd: Option<File>) {
        let mut state = self.shared.lock();
        let connected = eventfd.is_some();
        state.interrupts.connect(vector, eventfd);
        drop(state.function.connect_vector(vector, connected));
        state.signal();
    }

    /// Replaces guest memory. When this returns the old mappings are no longer touched.
    pub fn replace_memory(&self, memory: GuestMemoryMmap) {
        let old = self.memory.memory();
        if let Ok(guard) = self.memory.lock() {
            guard.replace(memory);
        }
        let (reply, done) = sync_channel(1);
        self.send(Request::Ask(Question::MemoryReplaced(reply)));
        if done.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            warn!(
                "The device did not let go of unmapped guest memory within {PATIENCE:?}; it stays mapped"
            );
            // A renderer may still hold addresses in it.
            mem::forget(old);
        }
    }

    /// Events from now on.
    pub fn subscribe(&self) -> Receiver<Event> {
        self.shared.events.subscribe()
    }

    /// What the device is doing; `None` if its thread is gone.
    pub fn status(&self) -> Option<Status> {
        let (reply, answer) = sync_channel(1);
        self.send(Request::Ask(Question::Inspect(reply)));
        let gpu = answer.recv_timeout(PATIENCE).ok()?;
        let bad_chains = self.shared.bad_chains.load(Ordering::Relaxed);
        let state = self.shared.lock();
        let (function, sleep) = (&state.function, &state.sleep);
        Some(Status::new(function, &gpu, sleep, bad_chains))
    }

    /// What a scanout shows; black where it is disabled.
    ///
    /// # Errors
    /// There is no such scanout, or the device's thread is gone.
    pub fn screenshot(&self, scanout: u32, cursor: bool) -> Result<Image, ScreenshotError> {
        let (reply, answer) = sync_channel(1);
        let question = Question::Screenshot {
            scanout,
            cursor,
            reply,
        };
        self.send(Request::Ask(question));
        let image = answer
            .recv_timeout(PATIENCE)
            .map_err(|_| ScreenshotError::Stopped)?;
        image.ok_or(ScreenshotError::NoScanout { scanout })
    }

    /// Gives an output another preferred size, and tells the guest.
    ///
    /// # Errors
    /// There is no such output, it cannot have that size, or the device's thread is gone.
    pub fn resize(&self, scanout: u32, size: OutputSize) -> Result<(), ResizeError> {
        let (question, answer) = resize::question(scanout, size);
        self.send(Request::Ask(question));
        self.shared.update_config(&resize::wait_for(&answer)?);
        Ok(())
    }

    /// What cannot be read reads 0, as a BAR does.
    fn read_blob(&self, errand: Errand, target: &mut [u8]) {
        let length = target.len();
        let bytes = self.run(move |gpu| {
            let mut bytes = vec![0; length];
            let Errand {
                resource_id,
                offset,
            } = errand;
            let read = gpu.read_mapped(resource_id, offset, &mut bytes);
            read.map(|()| bytes)
        });
        if let Some(Ok(bytes)) = bytes {
            target.copy_from_slice(&bytes);
        }
    }

    /// Waits for it, as the doorbell that comes next may tell the renderer to look.
    fn write_blob(&self, errand: Errand, source: &[u8]) {
        let source = source.to_vec();
        let written = self.run(move |gpu| {
            let Errand {
                resource_id,
                offset,
            } = errand;
            gpu.write_mapped(resource_id, offset, &source)
        });
        if let Some(Err(error)) = written {
            debug!("A write to a blob is lost: {error}");
        }
    }

    fn run<T: Send + 'static>(
        &self,
        errand: impl FnOnce(&mut Gpu) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, done) = sync_channel(1);
        // Whoever asked may have given up.
        let errand = move |gpu: &mut Gpu| drop(reply.send(errand(gpu)));
        self.send(Request::Ask(Question::Gpu(Box::new(errand))));
        done.recv_timeout(PATIENCE).ok()
    }

    /// In D3hot no BAR answers, and shared memory is one (PCI PM 1.2 §5.4.1).
    fn is_awake(&self) -> bool {
        self.look(|function| function.transport().power() == PowerState::D0)
    }

    fn look<T>(&self, at: impl FnOnce(&VirtioPciFunction) -> T) -> T {
        at(&self.shared.lock().function)
    }

    fn access(&self, change: impl FnOnce(&mut VirtioPciFunction) -> Effects) {
        let mut paused = false;
        let mut state = self.shared.lock();
        let effects = change(&mut state.function);
        for effect in effects {
            paused |= self.apply(effect, &mut state);
        }
        let State {
            function, sleep, ..
        } = &mut *state;
        let told = sleep.observe(function.transport());
        drop(state);
        if paused {
            self.barrier();
        }
        if let Some(change) = told {
            self.tell(change);
        }
    }

    /// Carries out one effect. Returns whether the worker must be waited for, which cannot happen under the lock.
    fn apply(&self, effect: Effect, state: &mut State) -> bool {
        match effect {
            Effect::Reset { kind, ticket } => {
                self.doorbells.set_open(false);
                let asked = Instant::now();
                self.send(Request::Reset {
                    kind,
                    ticket,
                    asked,
                });
            }
            Effect::Activate(kind) => {
                let transport = state.function.transport();
                let features = transport.negotiated_features();
                let queues = transport.active_queues().collect();
                let event_idx = features & feature::mask(feature::VIRTIO_F_EVENT_IDX) != 0;
                state.sleep.driver_acted();
                self.send(Request::Activate {
                    kind,
                    features,
                    event_idx,
                    queues,
                });
            }
            Effect::Kick => {
                self.doorbells.set_open(true);
                self.ring(u64::MAX);
            }
            Effect::Pause => {
                self.doorbells.set_open(false);
                return true;
            }
            Effect::Notify { queue, .. } => {
                state.sleep.driver_acted();
                self.ring(bit(queue));
            }
            Effect::Discard => self.send(Request::Discard),
            Effect::Freeze { ticket } => self.send(Request::Freeze { ticket }),
            Effect::Unfreeze => self.shared.events.emit(EventKind::Unfreeze),
            Effect::Suspend => self.send(Request::Suspend),
            Effect::Resume => self.send(Request::Resume),
            Effect::StartQueue { queue } => self.start_queue(queue, state),
            Effect::ResetQueue { queue } => self.send(Request::ResetQueue(queue)),
            Effect::DeviceConfigWrite {
                offset,
                width,
                value,
            } => {
                let bytes = value.to_le_bytes().into_iter().take(width.into()).collect();
                self.send(Request::WriteConfig { offset, bytes });
            }
            Effect::Interrupt => state.signal(),
            // This function has no interrupt pin.
            Effect::Intx(_) => {}
        }
        false
    }

    fn start_queue(&self, index: u16, state: &State) {
        let mut queues = state.function.transport().active_queues();
        if let Some(setup) = queues.find(|setup| setup.index == index) {
            self.send(Request::StartQueue(setup));
        }
    }

    fn ring(&self, queues: u64) {
        if self.doorbells.ring(queues) {
            self.send(Request::Wake);
        }
    }

    fn send(&self, request: Request<Shared>) {
        self.requests.send(request);
    }

    /// Waits until the worker has done everything asked so far and is processing no buffer.
    fn barrier(&self) {
        let (reply, done) = sync_channel(1);
        self.send(Request::Ask(Question::Barrier(reply)));
        if done.recv_timeout(PATIENCE).is_err() {
            warn!("The device did not come to rest within {PATIENCE:?}");
        }
    }

    fn wait_for_reset(&self) {
        if !self.shared.wait_for_reset(PATIENCE) {
            warn!("The device did not reset within {PATIENCE:?}");
        }
    }

    fn tell(&self, change: SleepChange) {
        let (reply, answer) = sync_channel(1);
        self.send(Request::Ask(Question::Inspect(reply)));
        let Ok(gpu) = answer.recv_timeout(PATIENCE) else {
            return;
        };
        let resources = gpu.resources;
        self.shared.events.emit(match change {
            SleepChange::Slept { holds } => EventKind::Sleep {
                holds,
                resources,
                host_bytes: gpu.host_bytes,
            },
            SleepChange::Woke { asleep_us } => EventKind::Wake {
                resources,
                asleep_us,
            },
        });
    }
}

#[cfg(feature = "control")]
impl Controlled for GpuDevice {
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
        Self::subscribe(self)
    }
}

/// Makes a renderer that wakes the worker by these.
trait MakeRenderer:
    FnOnce(&Arc<Wakeup>, &Arc<Requests<Shared>>) -> Result<Box<dyn Renderer>, DeviceError>
    + Send
    + 'static
{
}

impl<F> MakeRenderer for F where
    F: FnOnce(&Arc<Wakeup>, &Arc<Requests<Shared>>) -> Result<Box<dyn Renderer>, DeviceError>
        + Send
        + 'static
{
}

/// What the worker's thread makes itself: a renderer may be usable on the thread only that made it.
struct Start<R> {
    renderer: R,
    options: DeviceOptions,
    window: Option<Window>,
    requests: Weak<Requests<Shared>>,
    wakeup: Arc<Wakeup>,
}

impl<R: MakeRenderer> Start<R> {
    /// The function, the GPU, and the longest request that this needs to see.
    fn make(self) -> Result<(Arc<Shared>, Gpu, usize), DeviceError> {
        let Self {
            renderer,
            options,
            window,
            requests,
            wakeup,
        } = self;
        // Who starts the device waits for this.
        let requests = requests.upgrade().ok_or(DeviceError::Ended)?;
        let renderer = renderer(&wakeup, &requests)?;
        let (gpu, max_request) = new_gpu(&options.gpu, renderer)?;
        let gpu = match window {
            Some(window) => gpu.with_host_visible(Box::new(window)),
            None => gpu,
        };
        let config = function_config(&options, &gpu);
        let function = VirtioPciFunction::new(config).map_err(DeviceError::Function)?;
        Ok((Arc::new(Shared::new(function)), gpu, max_request))
    }
}

/// VIRTIO 1.4 §5.7: the GPU's device type.
const DEVICE_TYPE_GPU: u16 = 16;
/// Base class 03h, display controller; sub-class 80h, other: there is no VGA behind it.
const CLASS_DISPLAY_OTHER: [u8; 3] = [0x00, 0x80, 0x03];
/// VIRTIO_GPU_F_CONTEXT_INIT requires VIRTIO_GPU_F_VIRGL (VIRTIO 1.4 §5.7.3).
const GPU_FEATURE_DEPENDENCIES: [(u32, u32); 1] = [(4, 0)];

fn shared_memory(hostmem: Option<u64>) -> Vec<SharedMemoryRegion> {
    let region = |length| SharedMemoryRegion {
        id: HOST_VISIBLE_SHM_ID,
        offset: 0,
        length,
    };
    hostmem.map(region).into_iter().collect()
}

fn function_config(options: &DeviceOptions, gpu: &Gpu) -> FunctionConfig {
    FunctionConfig {
        transport: TransportConfig {
            device_features: gpu.device_features() | RING_FEATURES,
            feature_dependencies: GPU_FEATURE_DEPENDENCIES.to_vec(),
            queue_sizes: QUEUE_SIZES.to_vec(),
            vectors: VECTORS,
            layout: options.layout,
            retention: options.retention,
            device_config: gpu.config_space().to_vec(),
            starts_as_bus_master: false,
        },
        identity: Identity {
            device_type: DEVICE_TYPE_GPU,
            class_code: CLASS_DISPLAY_OTHER,
            subsystem_id: DEVICE_TYPE_GPU,
            interrupt_pin: false,
        },
        shared_memory: shared_memory(options.gpu.hostmem),
        vector_owner: VectorOwner::Vmm,
        power_management: true,
    }
}
