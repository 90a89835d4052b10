// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Bytes as a guest's life: commands, freezes, resets, sleeps, fences held back, snapshots.
//!
//! What a fuzzer mutates and a property test draws. Any bytes are a program: a [`Step`] and what
//! it takes, again and again. After each step the device must be consistent and every answer
//! inside its room.

use std::array;

use super::{Direct, GpuDriver, Region, Transport, config, request};
use crate::{RendererControl, ScriptedRenderer};
use virtio_gpu_s3::protocol::{COMMANDS, CommandInfo, Queue, wire};
use virtio_gpu_s3::{
    Activation, Counters, Gpu, GpuConfig, Limits, OutputConfig, Rect, ResetKind, Seen,
};
use vm_memory::GuestMemoryMmap;
use zerocopy::{FromBytes, IntoBytes};

pub(super) const RAM_BYTES: usize = 1 << 20;
pub(super) const REGION_BYTES: u64 = 64 << 10;

/// Runs a program to its end, and ends the guest. What had happened before that end, since the
/// device was last restored.
///
/// # Panics
/// The device did what no guest may bring it to.
pub fn run_program(program: &[u8]) -> Counters {
    let mut machine = Machine::new();
    let mut code = Code(program);
    while let Some(step) = code.byte() {
        machine.step(Step::of(step), &mut code);
        machine.driver.gpu().assert_consistent();
    }
    let counters = machine.driver.gpu().status().counters;
    machine.end();
    counters
}

pub(super) mod likely;

/// What a program does next. Each is a range of bytes, so that mutation keeps most as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A command as a driver would send it: its place among [`COMMANDS`](virtio_gpu_s3::protocol::COMMANDS).
    Likely(u8),
    /// Any command with any fields.
    Command,
    /// Any bytes.
    Raw,
    /// The VMM tells the device of a sleep; the guest comes back with queues it sets up anew.
    SleepAndReboot,
    /// The same; the guest comes back with the parked queues.
    Sleep,
    /// A reset without a reason to hold.
    FullReset,
    /// The renderer's fences do not signal from now on.
    HoldFences,
    /// They do again.
    ReleaseFences,
    /// One of the renderer's next calls fails.
    Fail,
    /// The guest gets the answers that are due.
    TakeCompleted,
    /// The guest asks for its state to be kept.
    Freeze,
    /// It takes that back.
    Unfreeze,
    /// Status 0: keeps everything while frozen, and nothing otherwise.
    Reset,
    /// Guest memory is mapped anew.
    Remap,
    /// The user resizes an output, and the guest acknowledges what it was told of before.
    Resize,
    /// The device goes on in another process.
    SaveAndRestore,
}

impl Step {
    /// Each with its first byte, in their order.
    const RANGES: [(u8, Self); 16] = [
        (0, Self::Likely(0)),
        (160, Self::Command),
        (192, Self::Raw),
        (200, Self::SleepAndReboot),
        (206, Self::Sleep),
        (212, Self::FullReset),
        (216, Self::HoldFences),
        (220, Self::ReleaseFences),
        (226, Self::Fail),
        (230, Self::TakeCompleted),
        (234, Self::Freeze),
        (238, Self::Unfreeze),
        (241, Self::Reset),
        (246, Self::Remap),
        (248, Self::Resize),
        (250, Self::SaveAndRestore),
    ];

    fn of(byte: u8) -> Self {
        match in_range(&Self::RANGES, byte) {
            Self::Likely(_) => Self::Likely(byte % COMMAND_COUNT),
            step => step,
        }
    }

    /// The byte that stands for it.
    pub fn byte(self) -> u8 {
        if let Self::Likely(index) = self {
            return index % COMMAND_COUNT;
        }
        first_byte(&Self::RANGES, &self)
    }
}

/// The step of the last range that starts at `byte` or before. The first starts at 0.
pub(super) fn in_range<S: Copy>(ranges: &[(u8, S)], byte: u8) -> S {
    let mut ranges = ranges.iter().rev();
    let range = ranges.find(|(first, _)| *first <= byte);
    range.expect("the first range starts at 0").1
}

pub(super) fn first_byte<S: PartialEq>(ranges: &[(u8, S)], of: &S) -> u8 {
    let range = ranges.iter().find(|(_, step)| step == of);
    range.expect("every step has a range").0
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "there are a few dozen commands"
)]
const COMMAND_COUNT: u8 = COMMANDS.len() as u8;

/// The rest of a program. Reads zeros past its end.
pub(super) struct Code<'a>(pub(super) &'a [u8]);

impl Code<'_> {
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// A number below `limit`, or now and then anything.
    pub(super) fn below(&mut self, limit: u8) -> u32 {
        match self.value() {
            255 => self.word(),
            value => u32::from(value % limit),
        }
    }

    pub(super) fn value(&mut self) -> u8 {
        self.byte().unwrap_or_default()
    }

    /// A field of a command: small numbers, sizes, and now and then anything.
    pub(super) fn word(&mut self) -> u32 {
        let value = self.value();
        match value >> 5 {
            0..=3 => u32::from(value & 7),
            4 => u32::from(value & 31) * 4,
            5 => 16 << (value & 7),
            6 => 0x1000 * u32::from(value & 31),
            _ => u32::from_le_bytes(array::from_fn(|_| self.value())),
        }
    }
}

struct Machine {
    driver: GpuDriver,
    control: RendererControl,
    frozen: bool,
    /// A viewer's, by scanout.
    seen: [Seen; 2],
}

impl Machine {
    /// A device that renders, with limits that a short program meets.
    fn new() -> Self {
        let (renderer, control) = ScriptedRenderer::new();
        let config = small_config();
        let gpu = Gpu::new(config, Box::new(renderer));
        let gpu = gpu.expect("a valid configuration");
        let gpu = gpu.with_host_visible(Box::new(Region::new(REGION_BYTES)));
        Self {
            driver: GpuDriver::with_gpu(gpu, RAM_BYTES),
            control,
            frozen: false,
            seen: [Seen::default(); 2],
        }
    }

    fn step(&mut self, step: Step, code: &mut Code<'_>) {
        match step {
            Step::Likely(index) => self.likely(usize::from(index), code),
            Step::Command => self.command(usize::from(code.value()) % COMMANDS.len(), code),
            Step::Raw => self.raw(code),
            Step::SleepAndReboot => self.sleep(Activation::Retained),
            Step::Sleep => self.sleep(Activation::Reinstated),
            Step::FullReset => self.full_reset(),
            Step::HoldFences => self.control.hold_fences(true),
            Step::ReleaseFences => self.control.hold_fences(false),
            Step::Fail => self.control.fail_after(u64::from(code.value() & 7)),
            Step::TakeCompleted => {
                let _ = self.driver.gpu().take_completed().count();
                self.look();
            }
            Step::Freeze => self.freeze(),
            Step::Unfreeze => self.frozen = false,
            Step::Reset => self.reset(code),
            Step::Remap => {
                let memory = self.driver.transport.memory.clone();
                // A call that the program lets fail is the renderer's to answer for.
                let _ = self.driver.gpu().memory_changed(&memory);
            }
            Step::Resize => self.resize(code),
            Step::SaveAndRestore => self.save_and_restore(),
        }
    }

    /// A freeze is acknowledged only by a quiet device; commands may follow.
    fn freeze(&mut self) {
        let gpu = self.driver.gpu();
        let _ = gpu.take_completed().count();
        let waiting = gpu.status().pending_fences;
        self.frozen = self.driver.quiesce().is_ok();
        assert_eq!(self.frozen, waiting == 0);
    }

    /// The transport lets the commands under way complete before the status reads 0.
    fn reset(&mut self, code: &mut Code<'_>) {
        if !self.frozen {
            return self.full_reset();
        }
        self.control.hold_fences(false);
        let _ = self.driver.gpu().take_completed().count();
        self.sleep(if code.value() & 1 == 0 {
            Activation::Reinstated
        } else {
            Activation::Retained
        });
    }

    fn resize(&mut self, code: &mut Code<'_>) {
        let output = OutputConfig {
            width: code.below(64).saturating_add(16),
            height: code.below(64).saturating_add(16),
        };
        let gpu = self.driver.gpu();
        gpu.write_config(4, &1_u32.to_le_bytes());
        assert_eq!(gpu.config_space()[..4], [0; 4]);
        let index = usize::from(code.value() & 3);
        let resized = gpu.resize_output(index, output).is_ok();
        assert_eq!(gpu.config_space()[0], u8::from(resized));
    }

    /// A command as a driver would send it.
    fn likely(&mut self, index: usize, code: &mut Code<'_>) {
        let CommandInfo { id, queue, .. } = COMMANDS[index];
        let mut bytes = likely::request(id, code);
        let (header, _) = wire::CtrlHdr::mut_from_prefix(&mut bytes).expect("a header");
        let fence = code.value();
        header.ctx_id = 1.into();
        header.flags = u32::from(fence & 3).into();
        header.ring_idx = fence >> 6;
        header.fence_id = u64::from(fence).into();
        self.send(queue, &bytes, 4096);
    }

    fn command(&mut self, index: usize, code: &mut Code<'_>) {
        let CommandInfo {
            id,
            queue,
            request_size,
            feature: _,
        } = COMMANDS[index];
        let mut bytes = request::bare(id, request_size + 16 * usize::from(code.value() & 3));
        let (header, body) = wire::CtrlHdr::mut_from_prefix(&mut bytes).expect("a header");
        let flags = code.value();
        header.flags = u32::from(flags & 3).into();
        header.ctx_id = u32::from(flags >> 2 & 3).into();
        header.ring_idx = flags >> 4;
        header.fence_id = u64::from(code.word()).into();
        for word in body.chunks_exact_mut(4) {
            word.copy_from_slice(code.word().as_bytes());
        }
        self.send(queue, &bytes, 4096);
    }

    fn raw(&mut self, code: &mut Code<'_>) {
        let len = usize::from(code.value());
        let room = usize::from(code.value());
        let bytes: Vec<_> = (0..len).map(|_| code.value()).collect();
        let queue = if len % 2 == 0 {
            Queue::Control
        } else {
            Queue::Cursor
        };
        self.send(queue, &bytes, room);
    }

    fn send(&mut self, queue: Queue, bytes: &[u8], room: usize) {
        if let Ok(answer) = self.driver.transport.send(queue, bytes, room) {
            assert!(answer.len() <= room);
            assert!(answer.len() >= room.min(size_of::<wire::CtrlHdr>()));
        }
    }

    /// A guest sleeps only once its fences are answered; one that cannot is reset in full.
    fn sleep(&mut self, how: Activation) {
        let gpu = self.driver.gpu();
        let _ = gpu.take_completed().count();
        if self.driver.quiesce().is_err() {
            return self.full_reset();
        }
        let before = self.driver.gpu().status();
        self.sleep_with_pictures();
        let features = self.driver.gpu().device_features();
        self.driver.gpu().activate(features, how);
        let after = self.driver.gpu().status();
        assert_eq!(after.resources, before.resources);
        assert_eq!(after.host_bytes, before.host_bytes);
        assert_eq!(after.scanouts, before.scanouts);
    }

    /// While the guest sleeps its pictures are there, and nothing is read for them: neither its
    /// memory nor the renderer.
    fn sleep_with_pictures(&mut self) {
        let gpu = self.driver.gpu();
        let shown = |gpu: &mut Gpu, scanout| {
            let picture = gpu.last_picture(scanout, Seen::default());
            picture.expect("a scanout").to_image(true)
        };
        let before = [0, 1].map(|scanout| shown(gpu, scanout));
        gpu.reset(ResetKind::Frozen);
        let calls = self.control.calls();
        for (scanout, before) in (0..).zip(before) {
            let no_memory = GuestMemoryMmap::<()>::new();
            let picture = gpu.look(scanout, Seen::default(), &no_memory);
            assert_eq!(picture.expect("a picture").to_image(true), before);
        }
        assert_eq!(self.control.calls(), calls);
    }

    /// What cannot be read is an error, and leaves the picture before.
    fn look(&mut self) {
        let Direct { gpu, memory } = &mut self.driver.transport;
        for (scanout, seen) in (0..).zip(&mut self.seen) {
            let looked = gpu.look(scanout, *seen, memory).map(|it| it.seen);
            let picture = gpu.last_picture(scanout, *seen).expect("a scanout");
            assert!(looked.is_err() || looked == Ok(picture.seen));
            let size = Rect::sized(picture.size.0, picture.size.1);
            assert!(picture.damage.iter().all(|rect| size.covers(rect)));
            *seen = picture.seen;
        }
    }

    fn full_reset(&mut self) {
        self.frozen = false;
        reset_in_full(self.driver.gpu(), &self.control);
    }

    fn save_and_restore(&mut self) {
        let Ok(saved) = self.driver.gpu().save() else {
            return;
        };
        let (renderer, control) = ScriptedRenderer::new();
        let gpu = Gpu::restore(small_config(), Box::new(renderer), saved.clone());
        let gpu = gpu.expect("what was saved can be restored");
        assert_eq!(gpu.save(), Ok(saved));
        let gpu = gpu.with_host_visible(Box::new(Region::new(REGION_BYTES)));
        let Direct {
            gpu: old,
            memory: _,
        } = &mut self.driver.transport;
        *old = gpu;
        self.control = control;
    }

    fn end(&mut self) {
        self.control.hold_fences(false);
        let _ = self.driver.gpu().take_completed().count();
        self.driver.quiesce().expect("a quiet device");
        self.full_reset();
    }
}

/// Nothing is left of the guest, and another one comes.
pub(super) fn reset_in_full(gpu: &mut Gpu, control: &RendererControl) {
    gpu.reset(ResetKind::Full);
    let status = gpu.status();
    assert_eq!((status.resources, status.contexts), (0, 0));
    assert_eq!((status.host_bytes, status.renderer_bytes), (0, 0));
    assert_eq!(status.pending_fences, 0);
    assert_eq!(control.objects(), 0);
    gpu.activate(gpu.device_features(), Activation::Fresh);
}

pub(super) fn small_config() -> GpuConfig {
    let limits = Limits {
        max_host_bytes: 300_000,
        max_resources: 5,
        max_contexts: 2,
        max_renderer_bytes: 150_000,
        max_backing_entries: 8,
        max_blobs: 3,
        max_fences: 6,
        ..Limits::default()
    };
    let config = config(2, 32, 32).with_limits(limits);
    config.expect("valid limits")
}
