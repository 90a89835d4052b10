// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A VMM with a guest driver in it: the client that Cloud Hypervisor uses, and split rings in shared memory.

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ch_integration::{GpuDevice, VECTORS, vfio};
use host_util::socket::listen;
use rustix::fs::{MemfdFlags, memfd_create};
use tempfile::TempDir;
use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_ACTION_UNMASK, VFIO_IRQ_SET_DATA_EVENTFD,
    VFIO_IRQ_SET_DATA_NONE, VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_INTX_IRQ_INDEX,
    VFIO_PCI_MSIX_IRQ_INDEX,
};
use vfio_user::Client;
#[cfg(feature = "virgl")]
use virtio_gpu_renderer_process::RendererProgram;
use virtio_gpu_worker::{DeviceOptions, RendererPlace};
use virtio_pci_freeze::spec::{DeviceStatus, pci};
use virtio_pci_freeze::{HoldSources, Layout, Register, Retention};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Longer than anything takes; a wait ends as soon as it can.
const LIMIT: Duration = Duration::from_secs(10);
const RAM_SIZE: u64 = 1 << 20;
pub(crate) const RAM_BASE: u64 = 0x10_0000;
/// Where each queue's three areas start, and where requests and answers go.
const RINGS: u64 = RAM_BASE;
const RING_STRIDE: u64 = 0x4000;
const BUFFERS: u64 = RAM_BASE + 0x10000;
/// Where `BarLayout::VIRTIO` has the ISR status and the doorbells.
const ISR: u64 = 0x1000;
const NOTIFY: u64 = 0x3000;
const QUEUE_SIZE: u16 = 16;

/// A server with nobody connected.
pub(crate) struct Server {
    pub(crate) device: Arc<GpuDevice>,
    directory: TempDir,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// With the value of `--gpu`.
    pub(crate) fn start_with(gpu: &str) -> Self {
        Self::start_in(renderer_place(), gpu)
    }

    /// With a renderer of one's own.
    pub(crate) fn start_in(renderer: RendererPlace, gpu: &str) -> Self {
        let options = DeviceOptions {
            gpu: gpu.parse().unwrap(),
            renderer,
            retention: Retention::On {
                sources: HoldSources::ALL,
                no_soft_reset: true,
            },
            layout: Layout::Seed,
        };
        let device = Arc::new(GpuDevice::new(&options).unwrap());
        let directory = TempDir::new().unwrap();
        let (listener, _) = listen(&directory.path().join("socket")).unwrap();
        let served = device.clone();
        thread::spawn(move || vfio::serve(listener, &served));
        Self { device, directory }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }
}

/// As the server's program has it.
#[cfg(feature = "virgl")]
fn renderer_place() -> RendererPlace {
    let program = env!("CARGO_BIN_EXE_virtio-gpu-s3d");
    RendererPlace::Process(RendererProgram::new(program.into()))
}

#[cfg(not(feature = "virgl"))]
fn renderer_place() -> RendererPlace {
    RendererPlace::default()
}

/// Waits until `condition` holds.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come to hold");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A connected VMM whose guest has 1 MiB of memory.
pub(crate) struct Vmm {
    pub(crate) client: Client,
    pub(crate) memory: GuestMemoryMmap,
    ram: File,
    pub(crate) irqs: Vec<EventFd>,
    next: [u16; 2],
}

impl Vmm {
    pub(crate) fn connect(socket: &Path) -> Self {
        let ram = memory_file(RAM_SIZE);
        let file = FileOffset::new(ram.try_clone().unwrap(), 0);
        let range = (GuestAddress(RAM_BASE), RAM_SIZE as usize, Some(file));
        // A socket is there before somebody listens on it.
        let mut client = None;
        wait_until("the server to listen", || {
            client = Client::new(socket).ok();
            client.is_some()
        });
        let mut vmm = Self {
            client: client.unwrap(),
            memory: GuestMemoryMmap::from_ranges_with_files([range]).unwrap(),
            ram,
            irqs: (0..VECTORS)
                .map(|_| EventFd::new(EFD_NONBLOCK).unwrap())
                .collect(),
            next: [0; 2],
        };
        vmm.map();
        vmm.write_config(pci::COMMAND.into(), &[6, 0]);
        vmm
    }

    pub(crate) fn map(&mut self) {
        let fd = self.ram.as_raw_fd();
        self.client.dma_map(0, RAM_BASE, RAM_SIZE, fd).unwrap();
    }

    /// Maps a file of the caller's, if the server takes it.
    pub(crate) fn map_file(&mut self, address: u64, size: u64, file: BorrowedFd<'_>) -> bool {
        let fd = file.as_raw_fd();
        self.client.dma_map(0, address, size, fd).is_ok()
    }

    #[cfg(feature = "virgl")]
    pub(crate) fn ram(&self) -> &File {
        &self.ram
    }

    pub(crate) fn unmap(&mut self) {
        self.client.dma_unmap(RAM_BASE, RAM_SIZE).unwrap();
    }

    pub(crate) fn connect_irqs(&mut self) {
        let fds: Vec<_> = self.irqs.iter().map(AsRawFd::as_raw_fd).collect();
        let flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
        let count = VECTORS.into();
        self.client
            .set_irqs(VFIO_PCI_MSIX_IRQ_INDEX, flags, 0, count, &fds)
            .unwrap();
        // As the guest did before its VMM does that.
        self.msix_control();
    }

    /// Gives INTx its eventfd.
    pub(crate) fn connect_line(&mut self) -> EventFd {
        let line = EventFd::new(EFD_NONBLOCK).unwrap();
        let flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
        let fds = [line.as_raw_fd()];
        self.client
            .set_irqs(VFIO_PCI_INTX_IRQ_INDEX, flags, 0, 1, &fds)
            .unwrap();
        line
    }

    pub(crate) fn unmask_line(&mut self) {
        let flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK;
        self.client
            .set_irqs(VFIO_PCI_INTX_IRQ_INDEX, flags, 0, 1, &[])
            .unwrap();
    }

    /// Interrupt Status of the PCI status register.
    pub(crate) fn asserts_line(&mut self) -> bool {
        let mut status = [0; 2];
        self.read_config(pci::STATUS.into(), &mut status);
        u16::from_le_bytes(status) & pci::STATUS_INTERRUPT != 0
    }

    pub(crate) fn read_isr(&mut self) -> u8 {
        let mut isr = [0];
        self.client.region_read(0, ISR, &mut isr).unwrap();
        isr[0]
    }

    pub(crate) fn read_config(&mut self, offset: u64, data: &mut [u8]) {
        self.client
            .region_read(VFIO_PCI_CONFIG_REGION_INDEX, offset, data)
            .unwrap();
    }

    pub(crate) fn write_config(&mut self, offset: u64, data: &[u8]) {
        self.client
            .region_write(VFIO_PCI_CONFIG_REGION_INDEX, offset, data)
            .unwrap();
    }

    /// Where MSI-X's control is in configuration space; enables it, as Linux does.
    pub(crate) fn msix_control(&mut self) -> u64 {
        let mut space = [0; 256];
        self.read_config(0, &mut space);
        let mut at = usize::from(space[0x34]);
        // The capability's id (PCI 3.0 §6.8.2).
        while space[at] != 0x11 {
            at = usize::from(space[at + 1]);
        }
        let control = at as u64 + 2;
        self.write_config(control, &0x8002u16.to_le_bytes());
        control
    }

    pub(crate) fn read(&mut self, register: Register) -> u64 {
        let (offset, width) = place(register);
        let mut data = [0; 8];
        self.client
            .region_read(0, offset, &mut data[..width])
            .unwrap();
        u64::from_le_bytes(data)
    }

    pub(crate) fn write(&mut self, register: Register, value: u64) {
        let (offset, width) = place(register);
        self.client
            .region_write(0, offset, &value.to_le_bytes()[..width])
            .unwrap();
    }

    pub(crate) fn status(&mut self) -> DeviceStatus {
        DeviceStatus(self.read(Register::DeviceStatus) as u8)
    }

    /// Reset, negotiation, two queues and DRIVER_OK, as Linux does it.
    pub(crate) fn start_driver(&mut self) {
        self.reset_driver();
        self.negotiate();
        for queue in 0..2u16 {
            self.set_up_queue(queue);
        }
        self.write(Register::DeviceStatus, 0xf);
        assert_eq!(self.status(), DeviceStatus(0xf));
    }

    pub(crate) fn reset_driver(&mut self) {
        self.write(Register::DeviceStatus, 0);
        let deadline = Instant::now() + LIMIT;
        while self.status() != DeviceStatus(0) {
            assert!(Instant::now() < deadline, "the reset does not end");
        }
    }

    pub(crate) fn negotiate(&mut self) {
        self.write(Register::DeviceStatus, 1);
        self.write(Register::DeviceStatus, 3);
        for half in 0..2 {
            self.write(Register::DeviceFeatureSelect, half);
            self.write(Register::DriverFeatureSelect, half);
            let offered = self.read(Register::DeviceFeature);
            self.write(Register::DriverFeature, offered);
        }
        self.write(Register::DeviceStatus, 0xb);
        assert_eq!(self.status(), DeviceStatus(0xb));
    }

    fn set_up_queue(&mut self, queue: u16) {
        let base = RINGS + u64::from(queue) * RING_STRIDE;
        let zeros = vec![0u8; RING_STRIDE as usize];
        self.memory.write_slice(&zeros, GuestAddress(base)).unwrap();
        self.next[usize::from(queue)] = 0;
        self.write(Register::QueueSelect, queue.into());
        self.write(Register::QueueSize, QUEUE_SIZE.into());
        self.write(Register::QueueDesc, base);
        self.write(Register::QueueDriver, base + 0x1000);
        self.write(Register::QueueDevice, base + 0x2000);
        self.write(Register::QueueMsixVector, u64::from(queue) + 1);
        self.write(Register::QueueEnable, 1);
    }

    /// Offers a request with room for an answer at `response`, and rings the doorbell.
    pub(crate) fn offer(&mut self, queue: u16, request: &[u8], response: (u64, u32)) {
        let base = RINGS + u64::from(queue) * RING_STRIDE;
        self.memory
            .write_slice(request, GuestAddress(BUFFERS))
            .unwrap();
        self.descriptor(base, 0, (BUFFERS, request.len() as u32), 1, 1);
        self.descriptor(base, 1, response, 2, 0);
        let next = self.next[usize::from(queue)];
        let slot = base + 0x1004 + u64::from(next % QUEUE_SIZE) * 2;
        self.memory.write_obj(0u16, GuestAddress(slot)).unwrap();
        self.next[usize::from(queue)] = next.wrapping_add(1);
        self.publish(queue, next.wrapping_add(1));
        self.ring(queue);
    }

    /// Sets the available ring's index, whatever it says of the ring.
    pub(crate) fn publish(&mut self, queue: u16, index: u16) {
        let base = RINGS + u64::from(queue) * RING_STRIDE;
        self.memory
            .write_obj(index, GuestAddress(base + 0x1002))
            .unwrap();
    }

    pub(crate) fn ring(&mut self, queue: u16) {
        let doorbell = NOTIFY + u64::from(queue) * 4;
        self.client
            .region_write(0, doorbell, &queue.to_le_bytes())
            .unwrap();
    }

    /// Sends a request and returns its answer.
    pub(crate) fn command(&mut self, queue: u16, request: &[u8], room: u32) -> Vec<u8> {
        let before = self.used(queue);
        self.offer(queue, request, (BUFFERS + 0x8000, room));
        wait_until("an answer", || self.used(queue) != before);
        let mut answer = vec![0; room as usize];
        self.memory
            .read_slice(&mut answer, GuestAddress(BUFFERS + 0x8000))
            .unwrap();
        answer
    }

    /// Sends up to eight short requests with one doorbell, and returns the types of their answers.
    #[cfg(feature = "virgl")]
    pub(crate) fn command_all(&mut self, requests: &[Vec<u8>]) -> Vec<u32> {
        let before = self.used(0);
        let place = |index: u16| BUFFERS + 0x1000 * u64::from(index);
        let indices = 0..u16::try_from(requests.len()).unwrap();
        for (index, request) in indices.clone().zip(requests) {
            let at = place(index);
            self.memory.write_slice(request, GuestAddress(at)).unwrap();
            let head = 2 * index;
            self.descriptor(RINGS, head.into(), (at, request.len() as u32), 1, head + 1);
            self.descriptor(RINGS, (head + 1).into(), (at + 0x800, 24), 2, 0);
            let next = self.next[0].wrapping_add(index);
            let slot = RINGS + 0x1004 + u64::from(next % QUEUE_SIZE) * 2;
            self.memory.write_obj(head, GuestAddress(slot)).unwrap();
        }
        self.next[0] = self.next[0].wrapping_add(indices.end);
        self.publish(0, self.next[0]);
        self.ring(0);
        let all = before.wrapping_add(indices.end);
        wait_until("all answers", || self.used(0) == all);
        let type_of = |index| {
            let at = GuestAddress(place(index) + 0x800);
            self.memory.read_obj(at).unwrap()
        };
        indices.map(type_of).collect()
    }

    /// The used ring's index.
    pub(crate) fn used(&self, queue: u16) -> u16 {
        let base = RINGS + u64::from(queue) * RING_STRIDE;
        self.memory.read_obj(GuestAddress(base + 0x2002)).unwrap()
    }

    /// Writes to the used ring, as somebody would who has its memory now.
    pub(crate) fn write_used(&self, queue: u16, offset: u64, bytes: &[u8]) {
        let at = RINGS + u64::from(queue) * RING_STRIDE + 0x2000 + offset;
        self.memory.write_slice(bytes, GuestAddress(at)).unwrap();
    }

    /// Puts something else in the place of everything in guest memory.
    pub(crate) fn fill_memory(&self, byte: u8) {
        let bytes = vec![byte; RAM_SIZE as usize];
        self.memory
            .write_slice(&bytes, GuestAddress(RAM_BASE))
            .unwrap();
    }

    /// All of guest memory.
    pub(crate) fn whole(&self) -> Vec<u8> {
        let mut bytes = vec![0; RAM_SIZE as usize];
        self.memory
            .read_slice(&mut bytes, GuestAddress(RAM_BASE))
            .unwrap();
        bytes
    }

    fn descriptor(
        &self,
        base: u64,
        index: u64,
        (address, length): (u64, u32),
        flags: u16,
        next: u16,
    ) {
        let at = |offset| GuestAddress(base + index * 16 + offset);
        self.memory.write_obj(address, at(0)).unwrap();
        self.memory.write_obj(length, at(8)).unwrap();
        self.memory.write_obj(flags, at(12)).unwrap();
        self.memory.write_obj(next, at(14)).unwrap();
    }
}

/// A file of memory, as a VMM has.
pub(crate) fn memory_file(size: u64) -> File {
    let file = File::from(memfd_create("ram", MemfdFlags::CLOEXEC).unwrap());
    file.set_len(size).unwrap();
    file
}

fn place(register: Register) -> (u64, usize) {
    let info = Layout::Seed
        .registers()
        .find(|info| info.register == register)
        .unwrap();
    (info.offset.into(), info.width.into())
}
