// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A VMM and the driver in its guest.

use std::env;
use std::io::Error as IoError;
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use seccompiler::{SeccompAction, SeccompFilter, apply_filter};
use virtio_gpu_in_process::{
    GpuActivation, GpuStart, GpuThread, GuestNotifier, InProcessGpu, StartGpuError, queue_setup,
};
use virtio_gpu_s3::protocol::ResponseType;
use virtio_gpu_s3::saved_state::SavedGpu;
use virtio_gpu_s3::{Image, PixelFormat, Rect};
use virtio_gpu_s3_testing::{GuestBuffer, pattern, request};
use virtio_gpu_worker::seccomp::SystemCall;
use virtio_gpu_worker::{GpuOption, seccomp};
use virtio_pci_freeze::{ActivationKind, RingPosition};
use virtio_queue::{Queue, QueueT};
use vm_memory::bitmap::AtomicBitmap;
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

pub(crate) type Gpu = InProcessGpu<AtomicBitmap>;
pub(crate) type Memory = GuestMemoryMmap<AtomicBitmap>;

/// Longer than anything takes; a wait ends as soon as it can.
const LIMIT: Duration = Duration::from_secs(10);
pub(crate) const RAM_BASE: u64 = 0x10_0000;
pub(crate) const RAM_SIZE: u64 = 1 << 20;
/// Where each queue's three areas start, where requests and answers go, and the framebuffer.
const RINGS: u64 = RAM_BASE;
const RING_STRIDE: u64 = 0x4000;
const BUFFERS: u64 = RAM_BASE + 0x10000;
const ANSWERS: u64 = BUFFERS + 0x8000;
const PICTURE: u64 = RAM_BASE + 0x2_0000;
const QUEUE_SIZE: u16 = 16;
pub(crate) const WIDTH: u32 = 64;
pub(crate) const HEIGHT: u32 = 48;

/// Waits until `condition` holds.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come to hold");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Runs `body` on a thread that is killed, and this process with it, by any system call outside `lists`.
pub(crate) fn spawn_filtered(
    lists: &[&[SystemCall]],
    body: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, IoError> {
    let calls = lists.iter().copied().flatten();
    let filter = SeccompFilter::new(
        calls.map(|call| (call.number, Vec::new())).collect(),
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        env::consts::ARCH.try_into().unwrap(),
    );
    let program: Vec<_> = filter.unwrap().try_into().unwrap();
    thread::Builder::new().name("gpu".into()).spawn(move || {
        apply_filter(&program).unwrap();
        body();
    })
}

/// How the guest is told.
#[derive(Debug)]
pub(crate) struct Interrupts {
    queues: [EventFd; 2],
    pub(crate) reasons: Mutex<Vec<String>>,
    pub(crate) config_changes: AtomicU32,
}

impl GuestNotifier for Interrupts {
    fn queue_used(&self, queue: u16) {
        self.queues[usize::from(queue)].write(1).unwrap();
    }

    fn needs_reset(&self, reason: &str) {
        self.reasons.lock().unwrap().push(reason.to_owned());
    }

    fn config_changed(&self) {
        self.config_changes.fetch_add(1, Ordering::SeqCst);
    }
}

/// A VMM whose guest has 1 MiB of memory.
pub(crate) struct Vmm {
    pub(crate) gpu: Gpu,
    pub(crate) memory: GuestMemoryAtomic<Memory>,
    pub(crate) interrupts: Arc<Interrupts>,
    doorbells: [EventFd; 2],
    next: [u16; 2],
}

pub(crate) fn start(option: &str, saved: Option<SavedGpu>) -> Result<Gpu, StartGpuError> {
    let option: GpuOption = option.parse().unwrap();
    let start = GpuStart {
        saved,
        ..GpuStart::default()
    };
    let spawn = |thread: GpuThread| spawn_filtered(&[seccomp::GPU_2D], || thread.run());
    Gpu::start(&option, start, spawn)
}

pub(crate) fn new_memory() -> Memory {
    let range = (GuestAddress(RAM_BASE), RAM_SIZE as usize);
    Memory::from_ranges(&[range]).unwrap()
}

fn new_eventfd() -> EventFd {
    EventFd::new(EFD_NONBLOCK).unwrap()
}

impl Vmm {
    /// With a driver that runs.
    pub(crate) fn running() -> Self {
        let mut vmm = Self::new("width=64,height=48", None, new_memory());
        vmm.start_driver();
        vmm
    }

    pub(crate) fn new(option: &str, saved: Option<SavedGpu>, memory: Memory) -> Self {
        Self::with_gpu(start(option, saved).unwrap(), memory)
    }

    pub(crate) fn with_gpu(gpu: Gpu, memory: Memory) -> Self {
        Self {
            gpu,
            memory: GuestMemoryAtomic::new(memory),
            interrupts: Arc::new(Interrupts {
                queues: [new_eventfd(), new_eventfd()],
                reasons: Mutex::default(),
                config_changes: AtomicU32::default(),
            }),
            doorbells: [new_eventfd(), new_eventfd()],
            next: [0; 2],
        }
    }

    /// Empty rings, and DRIVER_OK.
    pub(crate) fn start_driver(&mut self) {
        self.start_driver_as(ActivationKind::Fresh);
    }

    pub(crate) fn start_driver_as(&mut self, kind: ActivationKind) {
        for queue in 0..2u64 {
            let zeros = vec![0u8; RING_STRIDE as usize];
            self.write(RINGS + queue * RING_STRIDE, &zeros);
        }
        self.next = [0; 2];
        self.activate(kind, [RingPosition::default(); 2]);
    }

    /// DRIVER_OK with the rings as they are, which the device continues at these positions.
    pub(crate) fn activate(&mut self, kind: ActivationKind, positions: [RingPosition; 2]) {
        let queues = (0..2u16).map(|index| {
            let base = RINGS + u64::from(index) * RING_STRIDE;
            let mut queue = Queue::new(256).unwrap();
            queue.set_size(QUEUE_SIZE);
            queue
                .try_set_desc_table_address(GuestAddress(base))
                .unwrap();
            queue
                .try_set_avail_ring_address(GuestAddress(base + 0x1000))
                .unwrap();
            queue
                .try_set_used_ring_address(GuestAddress(base + 0x2000))
                .unwrap();
            queue.set_next_avail(positions[usize::from(index)].next_avail);
            queue.set_next_used(positions[usize::from(index)].next_used);
            queue.set_ready(true);
            let doorbell = self.doorbells[usize::from(index)].try_clone().unwrap();
            (queue_setup(index, &queue), doorbell)
        });
        self.gpu.activate(GpuActivation {
            memory: self.memory.clone(),
            features: self.gpu.features(),
            kind,
            queues: queues.collect(),
            notifier: self.interrupts.clone(),
        });
    }

    /// The used ring's index, as a VMM reads it when it restores a guest.
    pub(crate) fn position(&self, queue: u16) -> RingPosition {
        let used = self.used(queue);
        RingPosition {
            next_avail: used,
            next_used: used,
        }
    }

    pub(crate) fn write(&self, address: u64, bytes: &[u8]) {
        self.guard()
            .write_slice(bytes, GuestAddress(address))
            .unwrap();
    }

    /// All of guest memory.
    pub(crate) fn whole(&self) -> Vec<u8> {
        let mut bytes = vec![0; RAM_SIZE as usize];
        let at = GuestAddress(RAM_BASE);
        self.guard().read_slice(&mut bytes, at).unwrap();
        bytes
    }

    pub(crate) fn guard(&self) -> impl Deref<Target = Memory> {
        self.memory.memory()
    }

    /// Offers a request with room for an answer at `response`.
    pub(crate) fn offer(&mut self, queue: u16, bytes: &[u8], (address, room): (u64, u32)) {
        let base = RINGS + u64::from(queue) * RING_STRIDE;
        self.write(BUFFERS, bytes);
        self.descriptor(base, (BUFFERS, bytes.len() as u32), 1, 1);
        self.descriptor(base + 16, (address, room), 2, 0);
        let next = self.next[usize::from(queue)];
        self.write(base + 0x1004 + u64::from(next % QUEUE_SIZE) * 2, &[0, 0]);
        self.publish(queue, next.wrapping_add(1));
    }

    /// Sets the available ring's index, whatever it says of the ring.
    pub(crate) fn publish(&mut self, queue: u16, index: u16) {
        self.next[usize::from(queue)] = index;
        let base = RINGS + u64::from(queue) * RING_STRIDE;
        self.write(base + 0x1002, &index.to_le_bytes());
    }

    fn descriptor(&self, at: u64, (address, length): (u64, u32), flags: u16, next: u16) {
        self.write(at, &address.to_le_bytes());
        self.write(at + 8, &length.to_le_bytes());
        self.write(at + 12, &flags.to_le_bytes());
        self.write(at + 14, &next.to_le_bytes());
    }

    pub(crate) fn ring(&self, queue: u16) {
        self.doorbells[usize::from(queue)].write(1).unwrap();
    }

    /// Sends a request and returns the start of its answer.
    pub(crate) fn command(&mut self, queue: u16, request: &[u8]) -> Vec<u8> {
        let before = self.used(queue);
        self.offer(queue, request, (ANSWERS, 408));
        self.ring(queue);
        wait_until("an answer", || self.used(queue) != before);
        self.answer()
    }

    pub(crate) fn answer(&self) -> Vec<u8> {
        let mut answer = vec![0; 408];
        let at = GuestAddress(ANSWERS);
        self.guard().read_slice(&mut answer, at).unwrap();
        answer
    }

    pub(crate) fn must(&mut self, request: &[u8]) {
        assert_eq!(type_of(&self.command(0, request)), ResponseType::OK_NODATA);
    }

    /// Offers a question whose answer is [`answer`](Self::answer), without ringing.
    pub(crate) fn offer_question(&mut self) {
        self.offer(0, &request::get_display_info(), (ANSWERS, 408));
    }

    /// Takes an interrupt, if there is one.
    pub(crate) fn interrupted(&self, queue: u16) -> bool {
        self.interrupts.queues[usize::from(queue)].read().is_ok()
    }

    /// The used ring's index.
    pub(crate) fn used(&self, queue: u16) -> u16 {
        let base = RINGS + u64::from(queue) * RING_STRIDE;
        self.guard().read_obj(GuestAddress(base + 0x2002)).unwrap()
    }

    /// From which buffer on the device asks for doorbells (VIRTIO 1.4 §2.7.10).
    pub(crate) fn avail_event(&self, queue: u16) -> u16 {
        let base = RINGS + u64::from(queue) * RING_STRIDE;
        let at = base + 0x2004 + u64::from(QUEUE_SIZE) * 8;
        self.guard().read_obj(GuestAddress(at)).unwrap()
    }

    /// Makes resource 1, shows it, and draws a picture. Returns what must be seen.
    pub(crate) fn show(&mut self, seed: u32) -> Image {
        let rect = Rect::sized(WIDTH, HEIGHT);
        let format = PixelFormat::BGRX.format().0;
        let backing = GuestBuffer::of(&[(PICTURE, WIDTH * HEIGHT * 4)]);
        self.must(&request::resource_create_2d(1, format, WIDTH, HEIGHT));
        self.must(&request::resource_attach_backing(1, backing.entries()));
        self.must(&request::set_scanout(0, 1, rect));
        self.draw(seed)
    }

    /// Draws another picture into resource 1.
    pub(crate) fn draw(&mut self, seed: u32) -> Image {
        let rect = Rect::sized(WIDTH, HEIGHT);
        let mut pixels = pattern(seed, (WIDTH * HEIGHT * 4) as usize);
        self.write(PICTURE, &pixels);
        self.must(&request::transfer_to_host_2d(1, rect, 0));
        self.must(&request::resource_flush(1, rect));
        for pixel in pixels.chunks_exact_mut(4) {
            pixel.swap(0, 2);
            pixel[3] = 0xff;
        }
        Image {
            width: WIDTH,
            height: HEIGHT,
            pixels,
        }
    }

    pub(crate) fn must_show(&self, expected: &Image) {
        let shown = self.gpu.screenshot(0, false).unwrap().image;
        assert_eq!(shown.pixels, expected.pixels);
    }
}

pub(crate) fn type_of(answer: &[u8]) -> ResponseType {
    let (type_, _) = answer.split_first_chunk().unwrap();
    ResponseType(u32::from_le_bytes(*type_))
}
