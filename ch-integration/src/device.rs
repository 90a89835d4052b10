// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A GPU behind a PCI function: the models, the worker, and the effects that go between them.

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io::Error as IoError;
use std::mem;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use log::warn;
use thiserror::Error;
use virtio_gpu_s3::{
    ConfigError as GpuConfigError, Gpu, Image, NullDisplay, NullRenderer, Renderer,
};
use virtio_pci_freeze::spec::feature;
use virtio_pci_freeze::{
    ConfigError as FunctionConfigError, Effect, Effects, FunctionConfig, Identity, ResetOutcome,
    ResetTicket, TransportConfig, VectorOwner, VirtioPciFunction,
};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};

use crate::events::{Event, EventKind, EventLog, micros};
use crate::interrupts::Interrupts;
use crate::options::{Backend, DeviceOptions};
use crate::screenshot::{ScreenshotError, save_png};
use crate::status::{Sleep, SleepChange, Status};
use crate::wakeup::Wakeup;
use crate::worker::{Doorbells, Request, Worker, bit};

/// Guest memory, replaced whole when the VMM maps or unmaps.
pub type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

/// Sizes of the control and the cursor queue. QEMU's are 64 and 16, crosvm's 512 and 16; a longer control queue lets
/// a driver batch, and 256 descriptors still fit one page.
pub const QUEUE_SIZES: [u16; 2] = [256, 16];
/// One vector a queue, and one for configuration changes.
pub const VECTORS: u16 = 3;

/// How long the VMM's thread waits for the worker, which is never busier than with one command a queue.
const PATIENCE: Duration = Duration::from_secs(5);

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
    /// The function's configuration.
    #[error("Cannot make this PCI function")]
    Function(#[source] FunctionConfigError),
    /// The worker's thread.
    #[error("Cannot start the device's thread")]
    Thread(#[source] IoError),
}

/// What the VMM's thread and the worker share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Told when a reset is done.
    reset_done: Condvar,
    events: EventLog,
}

#[derive(Debug)]
struct State {
    function: VirtioPciFunction,
    interrupts: Interrupts,
    sleep: Sleep,
    last_frozen_reset: Option<Instant>,
    bad_chains: u64,
}

impl State {
    /// Sends what the function wants sent. Every other effect is the caller's.
    fn signal(&mut self) {
        while let Some(interrupt) = self.function.next_interrupt() {
            self.interrupts.signal(interrupt.vector);
        }
    }
}

/// What the worker tells.
impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs what can only ask for interrupts.
    fn with_function(&self, change: impl FnOnce(&mut VirtioPciFunction) -> Effects) -> Effects {
        let mut state = self.lock();
        let effects = change(&mut state.function);
        state.signal();
        effects
    }

    pub(crate) fn queue_used(&self, index: u16) {
        drop(self.with_function(|function| function.queue_used(index)));
    }

    pub(crate) fn count_bad_chain(&self) {
        let mut state = self.lock();
        state.bad_chains = state.bad_chains.saturating_add(1);
    }

    pub(crate) fn needs_reset(&self, reason: &str) {
        drop(self.with_function(VirtioPciFunction::needs_reset));
        self.events.emit(EventKind::NeedsReset {
            reason: reason.into(),
        });
    }

    pub(crate) fn update_config(&self, config: &[u8]) {
        drop(self.with_function(|function| function.update_device_config(0, config)));
    }

    pub(crate) fn freeze_done(&self, honoured: bool) {
        self.lock().function.freeze_done(honoured);
        if honoured {
            self.events.emit(EventKind::Freeze);
        }
    }

    pub(crate) fn suspend_done(&self, suspended: bool) {
        drop(self.with_function(|function| function.suspend_done(suspended)));
    }

    pub(crate) fn resume_done(&self, resumed: bool) {
        drop(self.with_function(|function| function.resume_done(resumed)));
    }

    pub(crate) fn queue_reset_done(&self, index: u16) {
        self.lock().function.queue_reset_done(index);
    }

    pub(crate) fn reset_done(
        &self,
        ticket: ResetTicket,
        outcome: ResetOutcome<'_>,
        resources: usize,
        asked: Instant,
    ) {
        let mut state = self.lock();
        let before = state.function.transport().counters();
        drop(state.function.reset_done(ticket, outcome));
        let transport = state.function.transport();
        let after = transport.counters();
        let took_us = micros(asked);
        let event = if after.frozen_resets > before.frozen_resets {
            Some(EventKind::FrozenReset {
                holds: transport.holds().collect(),
                parked_queues: transport
                    .parked_queues()
                    .map_or(0, |parked| parked.queues.len()),
                resources,
                took_us,
            })
        } else {
            (after.full_resets > before.full_resets)
                .then_some(EventKind::FullReset { resources, took_us })
        };
        state.last_frozen_reset = Some(Instant::now());
        drop(state);
        self.reset_done.notify_all();
        if let Some(event) = event {
            self.events.emit(event);
        }
    }

    pub(crate) fn discarded(&self, resources: usize, took_us: u64) {
        self.events
            .emit(EventKind::FullReset { resources, took_us });
    }

    pub(crate) fn reinstated(&self, queues: usize, resources: usize) {
        let took_us = self.lock().last_frozen_reset.map_or(0, micros);
        self.events.emit(EventKind::Reinstated {
            queues,
            resources,
            took_us,
        });
    }
}

/// A virtio-gpu that a VMM can drive: accesses go in, interrupts come out through eventfds.
#[derive(Debug)]
pub struct GpuDevice {
    shared: Arc<Shared>,
    doorbells: Arc<Doorbells>,
    /// The one strong reference: the worker ends when it is gone, and the renderer with it.
    requests: Arc<Sender<Request>>,
    memory: Memory,
}

impl GpuDevice {
    /// A device as after power-on, with its worker running.
    ///
    /// # Errors
    /// A [`DeviceError`] says which part cannot be made, and why.
    pub fn new(options: &DeviceOptions) -> Result<Self, DeviceError> {
        let config = options.gpu.gpu_config().map_err(DeviceError::Gpu)?;
        let config = config.with_uuid_namespace(random());
        let max_request = config.limits().max_command_bytes();
        let (requests, receiver) = channel();
        let requests = Arc::new(requests);
        let wakeup = Arc::new(Wakeup::default());
        let renderer = new_renderer(options.gpu.backend, &wakeup, &requests)?;
        let gpu = Gpu::new(config, renderer, Box::new(NullDisplay)).map_err(DeviceError::Gpu)?;
        let function = VirtioPciFunction::new(function_config(options, &gpu))
            .map_err(DeviceError::Function)?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                function,
                interrupts: Interrupts::new(VECTORS),
                sleep: Sleep::Awake,
                last_frozen_reset: None,
                bad_chains: 0,
            }),
            reset_done: Condvar::new(),
            events: EventLog::default(),
        });
        let memory = Memory::new(GuestMemoryMmap::new());
        let doorbells = Arc::new(Doorbells::default());
        let worker = Worker::new(
            gpu,
            memory.clone(),
            shared.clone(),
            doorbells.clone(),
            receiver,
            wakeup,
            max_request,
        );
        thread::Builder::new()
            .name("gpu".into())
            .spawn(move || worker.run())
            .map_err(DeviceError::Thread)?;
        Ok(Self {
            shared,
            doorbells,
            requests,
            memory,
        })
    }

    /// Size in bytes of a BAR; 0 if there is no such BAR.
    pub fn bar_size(&self, bar: u8) -> u64 {
        self.shared.lock().function.bars().size(bar)
    }

    /// Reads configuration space.
    pub fn read_config(&self, offset: u16, data: &mut [u8]) {
        self.access(|function| function.read_config(offset, data));
    }

    /// Writes configuration space.
    pub fn write_config(&self, offset: u16, data: &[u8]) {
        self.access(|function| function.write_config(offset, data));
    }

    /// Reads a BAR.
    pub fn read_bar(&self, bar: u8, offset: u64, data: &mut [u8]) {
        self.access(|function| function.read_bar(bar, offset, data));
    }

    /// Writes a BAR.
    pub fn write_bar(&self, bar: u8, offset: u64, data: &[u8]) {
        self.access(|function| function.write_bar(bar, offset, data));
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
        self.send(Request::MemoryReplaced(reply));
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
        self.requests.send(Request::Inspect(reply)).ok()?;
        let gpu = answer.recv_timeout(PATIENCE).ok()?;
        let state = self.shared.lock();
        Some(Status::new(
            &state.function,
            &gpu,
            &state.sleep,
            state.bad_chains,
        ))
    }

    /// What a scanout shows; black where it is disabled.
    ///
    /// # Errors
    /// There is no such scanout, or the device's thread is gone.
    pub fn screenshot(&self, scanout: u32, cursor: bool) -> Result<Image, ScreenshotError> {
        let (reply, answer) = sync_channel(1);
        let request = Request::Screenshot {
            scanout,
            cursor,
            reply,
        };
        self.requests
            .send(request)
            .map_err(|_| ScreenshotError::Stopped)?;
        let image = answer
            .recv_timeout(PATIENCE)
            .map_err(|_| ScreenshotError::Stopped)?;
        image.ok_or(ScreenshotError::NoScanout { scanout })
    }

    /// Writes what a scanout shows to a PNG file.
    ///
    /// # Errors
    /// As [`screenshot`](Self::screenshot), or the file cannot be written.
    pub fn save_screenshot(
        &self,
        scanout: u32,
        cursor: bool,
        path: &Path,
    ) -> Result<Image, ScreenshotError> {
        let image = self.screenshot(scanout, cursor)?;
        save_png(&image, path)?;
        Ok(image)
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
            Effect::Freeze => self.send(Request::Freeze),
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

    /// The worker ends with the device, so a request that finds nobody has nothing left to do.
    fn send(&self, request: Request) {
        drop(self.requests.send(request));
    }

    /// Waits until the worker has done everything asked so far and is processing no buffer.
    fn barrier(&self) {
        let (reply, done) = sync_channel(1);
        self.send(Request::Barrier(reply));
        if done.recv_timeout(PATIENCE).is_err() {
            warn!("The device did not come to rest within {PATIENCE:?}");
        }
    }

    fn wait_for_reset(&self) {
        let state = self.shared.lock();
        let waiting = |state: &mut State| state.function.transport().is_resetting();
        let result = self
            .shared
            .reset_done
            .wait_timeout_while(state, PATIENCE, waiting);
        let timed_out = result.map_or(true, |(_, timeout)| timeout.timed_out());
        if timed_out {
            warn!("The device did not reset within {PATIENCE:?}");
        }
    }

    fn tell(&self, change: SleepChange) {
        let (reply, answer) = sync_channel(1);
        self.send(Request::Inspect(reply));
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

/// VIRTIO 1.4 §5.7: the GPU's device type.
const DEVICE_TYPE_GPU: u16 = 16;
/// Base class 03h, display controller; sub-class 80h, other: there is no VGA behind it.
const CLASS_DISPLAY_OTHER: [u8; 3] = [0x00, 0x80, 0x03];
/// VIRTIO_GPU_F_CONTEXT_INIT requires VIRTIO_GPU_F_VIRGL (VIRTIO 1.4 §5.7.3).
const GPU_FEATURE_DEPENDENCIES: [(u32, u32); 1] = [(4, 0)];

/// Sets this GPU's UUIDs apart from those of another; nothing secret depends on it.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

fn new_renderer(
    backend: Backend,
    #[cfg_attr(
        not(feature = "virgl"),
        expect(unused_variables, reason = "2D has no fences")
    )]
    wakeup: &Arc<Wakeup>,
    #[cfg_attr(
        not(feature = "virgl"),
        expect(unused_variables, reason = "2D has no fences")
    )]
    requests: &Arc<Sender<Request>>,
) -> Result<Box<dyn Renderer>, DeviceError> {
    match backend {
        Backend::TwoD => Ok(Box::new(NullRenderer::default())),
        #[cfg(feature = "virgl")]
        Backend::Virgl => {
            let (wakeup, requests) = (wakeup.clone(), Arc::downgrade(requests));
            let wake = move || {
                if let Some(requests) = requests.upgrade() {
                    wakeup.wake(&requests);
                }
            };
            let config = virtio_gpu_s3::RutabagaConfig::default();
            virtio_gpu_s3::RutabagaRenderer::new(&config, wake)
                .map(|renderer| Box::new(renderer) as Box<dyn Renderer>)
                .map_err(DeviceError::Renderer)
        }
    }
}

fn function_config(options: &DeviceOptions, gpu: &Gpu) -> FunctionConfig {
    let ring_features =
        feature::mask(feature::VIRTIO_F_INDIRECT_DESC) | feature::mask(feature::VIRTIO_F_EVENT_IDX);
    FunctionConfig {
        transport: TransportConfig {
            device_features: gpu.device_features() | ring_features,
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
        shared_memory: Vec::new(),
        vector_owner: VectorOwner::Vmm,
        power_management: true,
    }
}
