// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A GPU behind a PCI function, with its worker.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use host_util::log_source::GUEST;
use thiserror::Error;
use vfio_user_device::{DmaMemory, Interrupts, IrqChange, MemoryChange};
use virtio_gpu_s3::renderer::Renderer;
use virtio_gpu_s3::{Gpu, HOST_VISIBLE_SHM_ID};
use virtio_gpu_worker::{
    Answered, BuildError, Controlled, DeviceOptions, Done, Event, Job, QUEUE_SIZES, RING_FEATURES,
    StartFailure, Status, Told, WorkerHandle, WorkerLink, build_gpu, new_renderer_in,
};
use virtio_pci_freeze::spec::feature;
use virtio_pci_freeze::{
    BarLayout, ConfigError as FunctionConfigError, Effects, FunctionConfig, Identity, PowerState,
    SharedMemoryRegion, TransportConfig, VectorOwner, VirtioPciFunction,
};
use vm_memory::GuestMemoryMmap;

use crate::Memory;
use crate::function::{Function, IRQS, Then};
use crate::sleep::{Sleep, state};
use crate::window::{BlobAccess, Window};

#[cfg(test)]
mod tests;

/// A device that cannot be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The GPU.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The function's configuration.
    #[error("Cannot make this PCI function")]
    Function(#[source] FunctionConfigError),
    /// Its thread.
    #[error(transparent)]
    Thread(#[from] StartFailure),
}

/// A virtio-gpu that a VMM can drive: accesses go in, interrupts come out through eventfds.
#[derive(Debug)]
pub struct GpuDevice {
    function: Arc<Function>,
    worker: WorkerHandle<Function>,
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
        Self::with_renderer(options, move |link| new_renderer_in(&renderer, &gpu, link))
    }

    /// The same with a renderer that `make` makes on the worker's thread.
    fn with_renderer(
        options: &DeviceOptions,
        make: impl FnOnce(&WorkerLink<Function>) -> Result<Box<dyn Renderer>, BuildError>
        + Send
        + 'static,
    ) -> Result<Self, DeviceError> {
        let window = options.gpu.hostmem.map(Window::new);
        let made = parts(options.clone(), window.clone(), make);
        let spawn = |body| thread::Builder::new().name("gpu".into()).spawn(body);
        let (worker, function) = WorkerHandle::start(made, spawn, DeviceError::Thread)?;
        Ok(Self {
            function,
            worker,
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
                window.read(offset, data, |access, part| self.read_blob(access, part));
            }
            _ => self.access(|function| function.read_bar(bar, offset, data)),
        }
    }

    /// Writes a BAR.
    pub fn write_bar(&self, bar: u8, offset: u64, data: &[u8]) {
        match &self.window {
            Some(window) if bar == BarLayout::SHARED_MEMORY && self.is_awake() => {
                window.write(offset, data, |access, part| self.write_blob(access, part));
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
        self.worker.tell(Told::Connected);
    }

    /// The VMM is gone, and its guest with it. When this returns nothing of either is left: the memory of the next VMM is
    /// another one, which no answer that is still owed can reach.
    pub fn disconnected(&self) {
        self.with_interrupts(|interrupts| {
            *interrupts = Interrupts::new(IRQS);
            IrqChange::Vectors(0..IRQS.msix)
        });
        self.worker.stop();
        self.access(VirtioPciFunction::reboot);
        self.wait_for_reset();
        let mut state = self.function.lock();
        state.memory = Memory::new(DmaMemory::default());
        state.sleep = Sleep::Awake;
        drop(state);
        self.worker.tell(Told::Disconnected);
    }

    /// Changes where interrupts go; what waits for its way is sent.
    pub fn with_interrupts(&self, change: impl FnOnce(&mut Interrupts) -> IrqChange) {
        let mut state = self.function.lock();
        let IrqChange::Vectors(vectors) = change(&mut state.interrupts) else {
            return;
        };
        let mut then = Then::Nothing;
        for vector in vectors {
            let connected = state.interrupts.is_connected(vector);
            let connect = |model: &mut VirtioPciFunction| model.connect_vector(vector, connected);
            if self.function.change(&mut state, connect) == Then::Stop {
                then = Then::Stop;
            }
        }
        drop(state);
        self.finish(then);
    }

    /// Guest memory is this from now on. `done` is called when what went is touched no more, which may be at once.
    pub fn change_memory(&self, new: &DmaMemory, change: MemoryChange, done: Done) {
        let memory = self.function.lock().memory.clone();
        match change {
            MemoryChange::Added { first, last } => {
                (self.worker).add_memory(&memory, new.clone(), (first, last), done);
            }
            MemoryChange::Removed { first, last } => {
                (self.worker).replace_memory(&memory, new.clone(), (first, last), done);
            }
        }
    }

    /// Replaces guest memory whole. When this returns the old mappings are no longer touched.
    pub fn replace_memory(&self, new: GuestMemoryMmap) {
        let (reply, done) = sync_channel(1);
        let (first, last) = (0, u64::MAX);
        let all = MemoryChange::Removed { first, last };
        let tell = move || {
            let _ = reply.send(());
        };
        self.change_memory(&new.into(), all, Box::new(tell));
        // It fails where the worker is gone, and with it whatever touched them.
        let _ = self.worker.wait_for(&done);
    }

    /// What cannot be read reads 0, as a BAR does.
    fn read_blob(&self, access: BlobAccess, target: &mut [u8]) {
        let length = target.len();
        let bytes = self.worker.with_gpu(move |gpu| {
            let mut bytes = vec![0; length];
            let BlobAccess {
                resource_id,
                offset,
            } = access;
            let read = gpu.read_mapped(resource_id, offset, &mut bytes);
            read.map(|()| bytes)
        });
        if let Ok(Ok(bytes)) = bytes {
            target.copy_from_slice(&bytes);
        }
    }

    /// Waits for it, as the doorbell that comes next may tell the renderer to look.
    fn write_blob(&self, access: BlobAccess, source: &[u8]) {
        let source = source.to_vec();
        let written = self.worker.with_gpu(move |gpu| {
            let BlobAccess {
                resource_id,
                offset,
            } = access;
            gpu.write_mapped(resource_id, offset, &source)
        });
        if let Ok(Err(error)) = written {
            GUEST.debug(format_args!("A write to a blob is lost: {error}"));
        }
    }

    /// In D3hot no BAR answers, and shared memory is one (PCI PM 1.2 §5.4.1).
    fn is_awake(&self) -> bool {
        self.look(|function| function.transport().power() == PowerState::D0)
    }

    fn look<T>(&self, at: impl FnOnce(&VirtioPciFunction) -> T) -> T {
        at(&self.function.lock().model)
    }

    fn access(&self, change: impl FnOnce(&mut VirtioPciFunction) -> Effects) {
        let then = self.function.change(&mut self.function.lock(), change);
        self.finish(then);
    }

    /// The lock is free.
    fn finish(&self, then: Then) {
        if then == Then::Stop {
            self.worker.rest();
        }
    }

    /// There is no giving up: a guest that went on would meet what the device still does for it.
    fn wait_for_reset(&self) {
        let done = |limit| self.function.wait_for_reset(limit);
        self.worker.wait_until("resets", done);
    }
}

impl Controlled for GpuDevice {
    fn status(&self) -> Answered<Status> {
        let worker = self.worker.status()?;
        let shared = self.function.lock();
        let transport = shared.model.transport();
        let status = Status::new(
            state(transport, &shared.sleep),
            &worker,
            transport.counters(),
        );
        Ok(Status {
            freeze_mode: transport.freeze_state(),
            holds: transport.holds().collect(),
            ..status
        })
    }

    fn subscribe(&self) -> Receiver<Event> {
        self.worker.subscribe()
    }

    fn run(&self, job: Job) {
        self.worker.run(job);
    }
}

/// What a worker and its front end are made of, on the worker's thread.
fn parts(
    options: DeviceOptions,
    window: Option<Window>,
    make: impl FnOnce(&WorkerLink<Function>) -> Result<Box<dyn Renderer>, BuildError>,
) -> impl FnOnce(&WorkerLink<Function>) -> Result<(Gpu, usize, Arc<Function>), DeviceError> {
    move |link| {
        let (mut gpu, max_request) = build_gpu(&options.gpu, make(link)?)?;
        if let Some(window) = window {
            gpu = gpu.with_host_visible(Box::new(window));
        }
        let config = function_config(&options, &gpu);
        let model = VirtioPciFunction::new(config).map_err(DeviceError::Function)?;
        let function = Function::new(model, link.clone());
        Ok((gpu, max_request, Arc::new(function)))
    }
}

/// VIRTIO 1.4 §5.7: the GPU's device type.
const DEVICE_TYPE_GPU: u16 = 16;
/// What QEMU's modern devices have too: guests' tables of hardware know it.
const SUBSYSTEM_ID: u16 = 0x1100;
/// Base class 03h, display controller; sub-class 80h, other: there is no VGA behind it.
const CLASS_DISPLAY_OTHER: [u8; 3] = [0x00, 0x80, 0x03];
/// VIRTIO_GPU_F_CONTEXT_INIT requires VIRTIO_GPU_F_VIRGL (VIRTIO 1.4 §5.7.3).
const GPU_FEATURE_DEPENDENCIES: [(u32, u32); 1] = [(4, 0)];

/// All memory is the VMM's to map, with a vIOMMU as the guest has it mapped. A driver that took the guest's own addresses
/// instead would name what is not there.
const PLATFORM_FEATURES: u64 = feature::mask(feature::VIRTIO_F_ACCESS_PLATFORM);

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
            device_features: gpu.device_features() | RING_FEATURES | PLATFORM_FEATURES,
            feature_dependencies: GPU_FEATURE_DEPENDENCIES.to_vec(),
            queue_sizes: QUEUE_SIZES.to_vec(),
            vectors: IRQS.msix,
            layout: options.layout,
            retention: options.retention,
            device_config: gpu.config_space().to_vec(),
            starts_as_bus_master: false,
        },
        identity: Identity {
            device_type: DEVICE_TYPE_GPU,
            class_code: CLASS_DISPLAY_OTHER,
            subsystem_id: SUBSYSTEM_ID,
            interrupt_pin: IRQS.intx,
        },
        shared_memory: shared_memory(options.gpu.hostmem),
        vector_owner: VectorOwner::Vmm,
        power_management: true,
    }
}
