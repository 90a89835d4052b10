// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Sleeps that have to wait for the renderer, as a driver sees them.

use std::time::{Duration, Instant};

use virtio_gpu_s3::{Outcome, Response};
use virtio_gpu_s3_testing::request;
use virtio_gpu_s3_testing::{RendererControl, ScriptedRenderer};
use virtio_pci_freeze::spec::DeviceStatus;
use virtio_pci_freeze::{Counters, FreezeState, HoldSources, Layout, Register, Retention};

use virtio_gpu_worker::{QUIESCE_LIMIT, RendererPlace};

use super::*;

mod leaving;
mod simulation;

/// A driver of a device whose renderer is slow at will.
struct Guest {
    device: GpuDevice,
    renderer: RendererControl,
}

impl Guest {
    fn new(renderer: ScriptedRenderer, control: RendererControl) -> Self {
        let options = DeviceOptions {
            gpu: "".parse().unwrap(),
            renderer: RendererPlace::default(),
            retention: Retention::On {
                sources: HoldSources::ALL,
                no_soft_reset: true,
            },
            layout: Layout::Seed,
        };
        let made = GpuDevice::with_renderer(&options, |_| Ok(Box::new(renderer)));
        Self {
            device: made.unwrap(),
            renderer: control,
        }
    }

    /// With a context, and a command in it that the renderer keeps.
    fn waiting() -> Self {
        let (renderer, control) = ScriptedRenderer::new();
        let guest = Self::new(renderer, control);
        guest.start_driver();
        let create = request::in_context(1, request::ctx_create(0));
        assert!(matches!(guest.command(create), Outcome::Done));
        guest.renderer.hold_fences(true);
        let submit = request::fenced(1, 1, request::submit_3d(&[0]));
        assert!(matches!(guest.command(submit), Outcome::Deferred(_)));
        guest
    }

    fn start_driver(&self) {
        self.negotiate();
        self.write(Register::DeviceStatus, 0xf);
        assert_eq!(self.read(Register::DeviceStatus), 0xf);
    }

    fn wait_for_status(&self, status: u64) {
        let start = Instant::now();
        while self.read(Register::DeviceStatus) != status {
            assert!(start.elapsed() < Duration::from_secs(20));
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn negotiate(&self) {
        self.write(Register::DeviceStatus, 3);
        for half in 0..2 {
            self.write(Register::DeviceFeatureSelect, half);
            self.write(Register::DriverFeatureSelect, half);
            let offered = self.read(Register::DeviceFeature);
            self.write(Register::DriverFeature, offered);
        }
        self.write(Register::DeviceStatus, 0xb);
    }

    /// Executes a command without a ring.
    fn command(&self, request: Vec<u8>) -> Outcome {
        let outcome = self.device.worker.with_gpu(move |gpu| {
            let memory = GuestMemoryMmap::<()>::new();
            gpu.control(&request, &memory, &mut Response::default())
        });
        outcome.unwrap()
    }

    /// Lets the renderer finish the command.
    fn finish(&self) {
        self.renderer.hold_fences(false);
        let answered = self
            .device
            .worker
            .with_gpu(|gpu| gpu.take_completed().count());
        assert_eq!(answered, Ok(1));
    }

    fn read(&self, register: Register) -> u64 {
        let (offset, width) = place(register);
        let mut data = [0; 8];
        self.device
            .read_bar(BarLayout::VIRTIO, offset, &mut data[..width]);
        u64::from_le_bytes(data)
    }

    fn write(&self, register: Register, value: u64) {
        let (offset, width) = place(register);
        self.device
            .write_bar(BarLayout::VIRTIO, offset, &value.to_le_bytes()[..width]);
    }

    /// Writes FREEZE_S3 and waits for what comes of it.
    fn freeze(&self) -> FreezeState {
        self.write(Register::FreezeMode, 3);
        let state = || {
            self.device
                .look(|function| function.transport().freeze_state())
        };
        while state() == FreezeState::Freezing {
            thread::sleep(Duration::from_millis(1));
        }
        state()
    }

    fn counters(&self) -> Counters {
        self.device.look(|function| function.transport().counters())
    }
}

fn place(register: Register) -> (u64, usize) {
    let mut registers = Layout::Seed.registers();
    let info = registers.find(|info| info.register == register).unwrap();
    (info.offset.into(), info.width.into())
}

#[test]
fn a_freeze_that_the_renderer_keeps_waiting_is_refused_and_the_next_one_honoured() {
    let guest = Guest::waiting();
    let start = Instant::now();
    assert_eq!(guest.freeze(), FreezeState::Unfrozen);
    let waited = start.elapsed();
    assert!(
        waited >= QUIESCE_LIMIT && waited < Duration::from_secs(4),
        "{waited:?}"
    );
    assert_eq!(guest.read(Register::FreezeMode), 0);
    assert_eq!(guest.counters().freezes_refused, 1);
    // Nothing was half frozen: the device goes on, and its command comes to an end.
    assert_eq!(guest.read(Register::DeviceStatus), 0xf);
    guest.finish();
    assert_eq!(guest.freeze(), FreezeState::Frozen);
    assert_eq!(guest.read(Register::FreezeMode), 3);
}

#[test]
fn a_sleep_whose_commands_do_not_end_is_a_full_reset_and_says_so() {
    let guest = Guest::waiting();
    guest.finish();
    assert_eq!(guest.freeze(), FreezeState::Frozen);
    guest.renderer.hold_fences(true);
    let submit = request::fenced(1, 2, request::submit_3d(&[0]));
    assert!(matches!(guest.command(submit), Outcome::Deferred(_)));
    let start = Instant::now();
    guest.write(Register::DeviceStatus, 0);
    assert_ne!(guest.read(Register::DeviceStatus), 0, "it is not done");
    guest.device.wait_for_reset();
    assert!(start.elapsed() >= QUIESCE_LIMIT);
    assert_eq!(
        DeviceStatus(0),
        guest.device.look(|function| function.transport().status())
    );
    let counters = guest.counters();
    assert_eq!((counters.full_resets, counters.frozen_resets), (1, 0));
    assert_eq!(
        guest.read(Register::FreezeMode),
        0,
        "what the driver looks at"
    );
    assert_eq!(guest.renderer.objects(), 0);
}
