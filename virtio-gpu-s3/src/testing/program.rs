// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Bytes as a guest's life: commands, resets, sleeps, fences held back, snapshots.
//!
//! What a fuzzer mutates and a property test draws. Any bytes are a program; after each step the
//! device must be consistent and every answer inside its room.

use std::array;

use super::{Direct, GpuDriver, Region, Screen, Transport, config, request};
use crate::protocol::{COMMANDS, CommandInfo, Queue, wire};
use crate::{Activation, Gpu, GpuConfig, Limits, NullControl, NullRenderer, ResetKind};
use zerocopy::{FromBytes, IntoBytes};

const RAM_BYTES: usize = 1 << 20;
const REGION_BYTES: u64 = 64 << 10;

/// Runs a program to its end, and ends the guest.
///
/// # Panics
/// The device did what no guest may bring it to.
pub fn run_program(program: &[u8]) {
    let mut machine = Machine::new();
    let mut code = Code(program);
    while let Some(step) = code.byte() {
        machine.step(step, &mut code);
        machine.driver.gpu().assert_consistent();
    }
    machine.end();
}

mod likely;

/// The rest of a program. Reads zeros past its end.
struct Code<'a>(&'a [u8]);

impl Code<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// A number below `limit`, or now and then anything.
    fn below(&mut self, limit: u8) -> u32 {
        match self.value() {
            255 => self.word(),
            value => u32::from(value % limit),
        }
    }

    fn value(&mut self) -> u8 {
        self.byte().unwrap_or_default()
    }

    /// A field of a command: small numbers, sizes, and now and then anything.
    fn word(&mut self) -> u32 {
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
    control: NullControl,
}

impl Machine {
    /// A device that renders, with limits that a short program meets.
    fn new() -> Self {
        let (renderer, control) = NullRenderer::rendering();
        let config = small_config();
        let gpu = Gpu::new(config, Box::new(renderer), Box::new(Screen::default()));
        let gpu = gpu.expect("a valid configuration");
        let gpu = gpu.with_host_visible(Box::new(Region::new(REGION_BYTES)));
        Self {
            driver: GpuDriver::with_gpu(gpu, RAM_BYTES),
            control,
        }
    }

    fn step(&mut self, step: u8, code: &mut Code<'_>) {
        match step {
            0..=159 => self.likely(usize::from(step) % COMMANDS.len(), code),
            160..=199 => self.command(usize::from(code.value()) % COMMANDS.len(), code),
            200..=209 => self.raw(code),
            210..=219 => self.sleep(Activation::Retained),
            220..=229 => self.sleep(Activation::Reinstated),
            230..=234 => self.full_reset(),
            235..=239 => self.control.hold_fences(true),
            240..=244 => self.control.hold_fences(false),
            245..=249 => self.control.fail_after(u64::from(code.value() & 7)),
            250..=252 => {
                let _ = self.driver.gpu().take_completed().count();
            }
            253..=255 => self.save_and_restore(),
        }
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
        if gpu.quiesce().is_err() {
            return self.full_reset();
        }
        let before = self.driver.gpu().status();
        self.driver.sleep_and_wake(how);
        let after = self.driver.gpu().status();
        assert_eq!(after.resources, before.resources);
        assert_eq!(after.host_bytes, before.host_bytes);
        assert_eq!(after.scanouts, before.scanouts);
    }

    fn full_reset(&mut self) {
        let gpu = self.driver.gpu();
        gpu.reset(ResetKind::Full);
        let status = gpu.status();
        assert_eq!((status.resources, status.contexts), (0, 0));
        assert_eq!((status.host_bytes, status.renderer_bytes), (0, 0));
        assert_eq!(status.pending_fences, 0);
        gpu.activate(gpu.device_features(), Activation::Fresh);
        assert_eq!(self.control.objects(), 0);
    }

    fn save_and_restore(&mut self) {
        let Ok(saved) = self.driver.gpu().save() else {
            return;
        };
        let (renderer, control) = NullRenderer::rendering();
        let screen = Box::new(Screen::default());
        let gpu = Gpu::restore(small_config(), Box::new(renderer), screen, saved.clone());
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
        self.driver.gpu().quiesce().expect("a quiet device");
        self.full_reset();
    }
}

fn small_config() -> GpuConfig {
    let limits = Limits {
        max_host_bytes: 300_000,
        max_resources: 5,
        max_contexts: 2,
        max_renderer_bytes: 150_000,
        max_backing_entries: 8,
        ..Limits::default()
    };
    let config = config(2, 32, 32).with_limits(limits);
    config.expect("valid limits")
}
