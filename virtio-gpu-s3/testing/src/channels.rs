// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Bytes as a guest's proxies, their compositor, and the sleeps between.
//!
//! Any bytes are a program: a byte of which the first bit says whether another renderer is beside, then a
//! [`ChannelStep`] and what it takes, again and again. The compositor's socket, its files and the device's watcher are
//! real ones.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::mem;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use vm_memory::{Bytes, GuestAddress};

use super::cross_domain::submit;
use super::program::{
    Code, REGION_BYTES, first_byte, in_range, likely, reset_in_full, small_config,
};
use super::{Direct, GpuDriver, GuestRam, Region, WithFence, request};
use crate::{RendererControl, ScriptedRenderer};
use virtio_gpu_cross_domain::{CrossDomainConfig, CrossDomainRenderer};
use virtio_gpu_s3::command::{Command, decode};
use virtio_gpu_s3::protocol::wire::MemEntry;
use virtio_gpu_s3::protocol::{COMMANDS, Queue, ResponseType};
use virtio_gpu_s3::{
    Activation, Counters, Gpu, GpuConfig, Limits, NullRenderer, Renderer, ResetKind, Token,
};

mod commands;
mod peer;

use commands::Guest;
use peer::{Peer, Said};

const PAGE: usize = 4096;
const PAGES: usize = 16;
/// Longer than a wake takes on an idle machine. One that comes later finds its step later.
const PATIENCE: Duration = Duration::from_millis(1);

/// Runs a program to its end, and ends the guest. What had happened before that end.
///
/// # Panics
/// The device did what neither a guest nor a compositor may bring it to. Files of this process are counted, so nobody
/// else may open or close one meanwhile.
pub fn run_channels(program: &[u8]) -> Counters {
    let before = open_files();
    let mut code = Code(program);
    let mut machine = Machine::new(code.value() & 1 == 1);
    let idle = open_files() - machine.peer.files();
    while let Some(step) = code.byte() {
        machine.step(ChannelStep::of(step), &mut code);
        let ours = open_files() - machine.peer.files() - idle;
        assert!(ours <= MOST_CHANNELS + MOST_FILES, "{ours} files");
    }
    let counters = machine.driver.gpu().status().counters;
    machine.end();
    assert_eq!(open_files(), before, "files stay open");
    counters
}

fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// What a program does next. Each is a range of bytes, so that mutation keeps most as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelStep {
    /// CTX_CREATE, one in four times the end of a context.
    Context,
    /// A context gets a resource, or loses it.
    Attach,
    /// A blob of guest memory.
    Ring,
    /// Its memory goes, or comes.
    Backing,
    /// The end of a resource.
    Unref,
    /// A command of the protocol: its place among its numbers, less one.
    Command(u8),
    /// Several of them in one stream, some of them wrong.
    Stream,
    /// A stream of any bytes.
    Raw,
    /// A blob of the host's memory.
    Blob,
    /// It goes into the guest's sight, or out of it.
    Map,
    /// The guest reads and writes what it sees.
    Access,
    /// Any command of the device, as [`Step::Likely`](super::Step::Likely).
    Likely,
    /// The compositor says something, with files.
    Speak,
    /// It hears something.
    Hear,
    /// It writes to a file that came.
    PeerWrites,
    /// It reads from a pipe.
    PeerReads,
    /// It closes a connection, a pipe or a file.
    Close,
    /// It ends, or starts.
    ComeOrGo,
    /// The guest gets the answers that are due.
    Take,
    /// It waits a little for one.
    Wait,
    /// The fences of the renderer beside do not signal, or do again.
    Hold,
    /// The guest asks for its state to be kept.
    Freeze,
    /// The guest sleeps: the reset of a frozen device.
    Sleep,
    /// It comes back with the parked queues, or with queues that it sets up anew.
    Wake,
    /// A reset without a reason to hold.
    FullReset,
    /// Guest memory is mapped elsewhere.
    Remap,
}

impl ChannelStep {
    /// Each with its first byte, in their order.
    const RANGES: [(u8, Self); 26] = [
        (0, Self::Command(0)),
        (90, Self::Stream),
        (104, Self::Raw),
        (108, Self::Context),
        (114, Self::Attach),
        (124, Self::Ring),
        (132, Self::Backing),
        (138, Self::Unref),
        (143, Self::Blob),
        (152, Self::Map),
        (156, Self::Access),
        (160, Self::Likely),
        (168, Self::Speak),
        (188, Self::Hear),
        (196, Self::PeerWrites),
        (204, Self::PeerReads),
        (209, Self::Close),
        (216, Self::ComeOrGo),
        (218, Self::Take),
        (228, Self::Wait),
        (232, Self::Hold),
        (234, Self::Freeze),
        (240, Self::Sleep),
        (245, Self::Wake),
        (250, Self::FullReset),
        (253, Self::Remap),
    ];

    fn of(byte: u8) -> Self {
        match in_range(&Self::RANGES, byte) {
            Self::Command(_) => Self::Command(byte % commands::COUNT),
            step => step,
        }
    }

    /// The byte that stands for it.
    pub fn byte(self) -> u8 {
        if let Self::Command(index) = self {
            return index % commands::COUNT;
        }
        first_byte(&Self::RANGES, &self)
    }
}

/// Whether the device may write to guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Awake,
    /// A freeze was acknowledged, and the guest asked for nothing since.
    Frozen,
    Asleep,
}

/// How a request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answered {
    Well,
    Refused,
    /// Its answer is yet to come.
    Later,
}

/// Told by the renderer.
#[derive(Clone, Default)]
struct Wakes(Arc<(Mutex<bool>, Condvar)>);

impl Wakes {
    fn wake(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn wait(&self) {
        let woken = self.0.0.lock().unwrap();
        let (mut woken, _) = self
            .0
            .1
            .wait_timeout_while(woken, PATIENCE, |woken| !*woken)
            .unwrap();
        *woken = false;
    }
}

struct Machine {
    driver: GpuDriver,
    control: RendererControl,
    peer: Peer,
    wakes: Wakes,
    guest: Guest,
    state: State,
    holds: bool,
    /// Requests that are not answered.
    waiting: BTreeSet<Token>,
    /// The pages that each resource has, which are all that the device may write.
    backings: BTreeMap<u32, BTreeSet<usize>>,
}

const MOST_CHANNELS: usize = 2;
const MOST_FILES: usize = 40;

fn limits() -> Limits {
    Limits {
        max_resources: 6,
        max_contexts: 3,
        max_channels: MOST_CHANNELS,
        max_channel_files: MOST_FILES,
        max_channel_bytes: 20_000,
        max_submit_bytes: 1 << 18,
        ..*small_config().limits()
    }
}

impl Machine {
    fn new(renders: bool) -> Self {
        let peer = Peer::new();
        let (beside, control) = ScriptedRenderer::new();
        let inner: Box<dyn Renderer> = if renders {
            Box::new(beside)
        } else {
            Box::new(NullRenderer)
        };
        let config = CrossDomainConfig {
            wayland: peer.path().to_owned(),
            limits: limits(),
        };
        let wakes = Wakes::default();
        let told = wakes.clone();
        let renderer = CrossDomainRenderer::new(inner, &config, move || told.wake());
        let renderer = renderer.expect("a socket");
        let config = small_config().with_limits(limits());
        let config: GpuConfig = config.expect("valid limits");
        let gpu = Gpu::new(config, Box::new(renderer));
        let gpu = gpu.expect("a valid configuration");
        let gpu = gpu.with_host_visible(Box::new(Region::new(REGION_BYTES)));
        Self {
            driver: GpuDriver::with_gpu(gpu, PAGES * PAGE),
            control,
            peer,
            wakes,
            guest: Guest::default(),
            state: State::Awake,
            holds: false,
            waiting: BTreeSet::new(),
            backings: BTreeMap::new(),
        }
    }

    /// A step, and what must hold after each.
    fn step(&mut self, step: ChannelStep, code: &mut Code<'_>) {
        let (memory, state) = (self.memory(), self.state);
        let mut may_be_written = self.backed();
        let said = self.act(step, code);
        may_be_written.extend(self.backed());
        if state != State::Awake && self.state != State::Awake {
            may_be_written.clear();
        }
        let now = self.memory();
        for (page, (was, is)) in memory.chunks(PAGE).zip(now.chunks(PAGE)).enumerate() {
            let same = was == is;
            assert!(same || may_be_written.contains(&page), "page {page}");
        }
        self.driver.gpu().assert_consistent();
        let channels = self.peer.accept(self.driver.ctx_id);
        assert!(channels <= MOST_CHANNELS, "{channels} channels");
        self.peer.note(said);
    }

    /// What it said to the compositor.
    fn act(&mut self, step: ChannelStep, code: &mut Code<'_>) -> Said {
        match step {
            ChannelStep::Speak => {
                let which = usize::from(code.value());
                let bytes = commands::length(code);
                let kinds = match code.value() {
                    count @ 0..=31 => usize::from(count % 32),
                    count => usize::from(count % 3),
                };
                let kinds: Vec<_> = (0..kinds).map(|_| code.value()).collect();
                self.peer.speak(which, bytes, &kinds);
            }
            ChannelStep::Hear => {
                let which = usize::from(code.value());
                self.peer.hear(which, commands::length(code));
            }
            ChannelStep::PeerWrites => {
                let which = usize::from(code.value());
                self.peer.write(which, commands::length(code));
            }
            ChannelStep::PeerReads => {
                let which = usize::from(code.value());
                self.peer.read(which, commands::length(code));
            }
            ChannelStep::Close => self.peer.close(code.value(), usize::from(code.value())),
            ChannelStep::ComeOrGo => self.peer.come_or_go(),
            ChannelStep::Take => self.take(),
            ChannelStep::Wait => {
                if !self.waiting.is_empty() {
                    self.wakes.wait();
                }
                self.take();
            }
            ChannelStep::Hold => {
                self.holds = code.value() & 1 == 1;
                self.control.hold_fences(self.holds);
            }
            ChannelStep::Freeze => self.freeze(),
            ChannelStep::Sleep => self.sleep(),
            ChannelStep::Wake => self.wake(if code.value() & 1 == 0 {
                Activation::Reinstated
            } else {
                Activation::Retained
            }),
            ChannelStep::FullReset => self.full_reset(),
            ChannelStep::Remap => self.remap(),
            ChannelStep::Access => self.access(code),
            step => return self.ask(step, code),
        }
        Said::Nothing
    }

    /// Something that takes a guest that is awake.
    fn ask(&mut self, step: ChannelStep, code: &mut Code<'_>) -> Said {
        self.wake(Activation::Reinstated);
        self.state = State::Awake;
        let id = code.below(6);
        // One more than there can be.
        let ctx_id = 1 + u32::from(code.value() % 4);
        let request = match step {
            ChannelStep::Context if code.value() < 192 => request::ctx_create(5),
            ChannelStep::Context => request::ctx_destroy(),
            ChannelStep::Attach if code.value() < 192 => request::ctx_attach_resource(id),
            ChannelStep::Attach => request::ctx_detach_resource(id),
            ChannelStep::Ring => commands::ring(id, code),
            ChannelStep::Backing if code.value() & 1 == 0 => request::resource_detach_backing(id),
            ChannelStep::Backing => request::resource_attach_backing(id, &commands::entries(code)),
            ChannelStep::Unref => request::resource_unref(id),
            ChannelStep::Blob => commands::blob(id, code),
            ChannelStep::Map if code.value() & 1 == 0 => {
                request::resource_map_blob(id, u64::from(code.below(20)) * 4096)
            }
            ChannelStep::Map => request::resource_unmap_blob(id),
            ChannelStep::Likely => {
                let index = usize::from(code.value()) % COMMANDS.len();
                let request = likely::request(COMMANDS[index].id, code);
                self.fenced(COMMANDS[index].queue, ctx_id, &request, code);
                return Said::Nothing;
            }
            step => {
                let stream = self.guest.stream(ctx_id, step, code);
                let request = submit(&stream);
                let answer = self.fenced(Queue::Control, ctx_id, &request, code);
                return self.guest.answered(ctx_id, step, answer);
            }
        };
        self.send(Queue::Control, ctx_id, &request);
        Said::Nothing
    }

    /// With a fence on the ring that waits, on any, on none.
    fn fenced(
        &mut self,
        queue: Queue,
        ctx_id: u32,
        request: &[u8],
        code: &mut Code<'_>,
    ) -> Answered {
        let fence = code.value();
        let ring_idx = match fence {
            0..=127 => return self.send(queue, ctx_id, request),
            128..=223 => Some(1),
            224..=239 => Some(fence % 4),
            _ => None,
        };
        self.driver.fence = Some(WithFence {
            id: u64::from(fence),
            ctx_id,
            ring_idx,
        });
        self.send(queue, ctx_id, request)
    }

    fn send(&mut self, queue: Queue, ctx_id: u32, request: &[u8]) -> Answered {
        let features = self.driver.gpu().device_features();
        self.driver.ctx_id = ctx_id;
        let outcome = self.driver.send(queue, request.to_owned());
        let answer = match outcome {
            Ok(answer) if answer.type_().0 >= ResponseType::ERR_UNSPEC.0 => Answered::Refused,
            Ok(_) => Answered::Well,
            Err(token) => {
                assert!(self.waiting.insert(token), "a token of two requests");
                Answered::Later
            }
        };
        let decoded = decode(request, queue, features).command;
        if let (true, Ok(command)) = (answer != Answered::Refused, decoded) {
            self.note(&command, answer);
            self.guest.note(ctx_id, &command);
        }
        answer
    }

    /// Which pages a resource has from now on. What is answered later may have been refused, so then it may have the old
    /// ones too.
    fn note(&mut self, command: &Command<'_>, answer: Answered) {
        let (resource_id, entries) = match command {
            Command::ResourceCreateBlob {
                resource_id,
                entries,
                ..
            }
            | Command::ResourceAttachBacking {
                resource_id,
                entries,
            } => (*resource_id, pages(entries)),
            Command::ResourceUnref { resource_id }
            | Command::ResourceDetachBacking { resource_id } => (*resource_id, BTreeSet::new()),
            _ => return,
        };
        let backing = self.backings.entry(resource_id).or_default();
        if answer == Answered::Well {
            backing.clear();
        }
        backing.extend(entries);
    }

    fn backed(&self) -> BTreeSet<usize> {
        self.backings.values().flatten().copied().collect()
    }

    fn memory(&self) -> Vec<u8> {
        let mut bytes = vec![0; PAGES * PAGE];
        let memory = self.driver.ram.memory();
        memory.read_slice(&mut bytes, GuestAddress(0)).unwrap();
        bytes
    }

    /// Each request is answered once.
    fn take(&mut self) {
        let Direct { gpu, memory: _ } = &mut self.driver.transport;
        for completed in gpu.take_completed() {
            assert!(self.waiting.remove(&completed.token), "answered twice");
        }
    }

    /// No compositor keeps a freeze waiting, as fences of the renderer beside may.
    fn freeze(&mut self) {
        if self.state == State::Asleep {
            return;
        }
        self.take();
        // Answers wait that have to be taken.
        let _ = self.driver.quiesce();
        self.take();
        let quiet = self.driver.quiesce().is_ok();
        assert_eq!(quiet, self.waiting.is_empty());
        assert!(quiet || self.holds);
        if quiet {
            self.state = State::Frozen;
        }
    }

    /// A guest sleeps only once its fences are answered; one that cannot is reset in full.
    fn sleep(&mut self) {
        self.freeze();
        match self.state {
            State::Awake => self.full_reset(),
            State::Frozen => {
                self.driver.gpu().reset(ResetKind::Frozen);
                self.state = State::Asleep;
            }
            State::Asleep => {}
        }
    }

    fn wake(&mut self, how: Activation) {
        if self.state == State::Asleep {
            let gpu = self.driver.gpu();
            gpu.activate(gpu.device_features(), how);
            self.state = State::Awake;
        }
    }

    fn full_reset(&mut self) {
        self.state = State::Awake;
        let gpu = self.driver.gpu();
        reset_in_full(gpu, &self.control);
        assert_eq!(gpu.take_completed().count(), 0);
        self.waiting.clear();
        self.backings.clear();
        self.guest = Guest::default();
    }

    /// Who writes to the old place meets memory that is not there.
    fn remap(&mut self) {
        let ram = GuestRam::new(PAGES * PAGE);
        let memory = ram.memory();
        let written = memory.write_slice(&self.memory(), GuestAddress(0));
        written.expect("guest memory");
        let moved = self.driver.gpu().memory_changed(memory);
        moved.expect("the same memory in another place");
        self.driver.transport.memory = memory.clone();
        drop(mem::replace(&mut self.driver.ram, ram));
    }

    /// The guest's processor needs nobody who is awake but itself.
    fn access(&mut self, code: &mut Code<'_>) {
        let id = code.below(6);
        let offset = u64::from(code.word());
        let mut bytes = vec![3; usize::from(code.value())];
        let gpu = self.driver.gpu();
        let _ = gpu.read_mapped(id, offset, &mut bytes);
        let _ = gpu.write_mapped(id, offset, &bytes);
    }

    fn end(mut self) {
        self.wake(Activation::Retained);
        self.holds = false;
        self.control.hold_fences(false);
        self.freeze();
        assert_eq!(self.state, State::Frozen);
        self.full_reset();
        let Self { driver, peer, .. } = self;
        drop(driver);
        peer.assert_alone();
    }
}

/// The pages of memory ranges.
fn pages(entries: &[MemEntry]) -> BTreeSet<usize> {
    let pages = entries.iter().flat_map(|entry| {
        let first = usize::try_from(entry.addr.get()).unwrap();
        let length = entry.length.get() as usize;
        first / PAGE..(first + length).div_ceil(PAGE)
    });
    pages.collect()
}
