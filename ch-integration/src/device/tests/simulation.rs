// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Everything between a VMM's messages and the renderer, in one thread and at the pace of a seed: the function, the
//! worker, a renderer that is slow or dies, and the clock. What is checked after each step is what no guest may ever see
//! broken; a run that fails names its seed, and goes the same way again.

mod guest;
mod random;

use std::env;
use std::mem;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use virtio_gpu_s3::Seen;
use virtio_gpu_worker::{DrivenWorker, GpuAccess, WorkerHandle};

use self::guest::{Guest as Vmm, Left};
use self::random::Random;
use super::*;
use crate::function::Function;

/// Steps of all runs together, of which `scripts/test` has more, and of one.
const STEPS: u64 = 100_000;
const STEPS_A_RUN: u64 = 2_000;
/// Variables that have another number of steps, or one seed, by hand.
const STEPS_VARIABLE: &str = "SIMULATION_STEPS";
const SEED_VARIABLE: &str = "SIMULATION_SEED";
/// Guests that left, whose memory is still watched.
const WATCHED: usize = 3;
/// Answers that a driver can be owed: it has so many slots.
const MAX_OWED: usize = 2 * guest::SLOTS as usize;
/// Turns of a worker that somebody waits for, of which each in vain takes a tenth of a second: longer than any wait.
const MAX_TURNS: u32 = 5_000;
const TENTH: u64 = 100_000_000;

/// What does not belong to the device: its worker's turns and the time.
#[derive(Default)]
struct World {
    worker: OnceLock<DrivenWorker<Function>>,
    nanoseconds: AtomicU64,
    turns: AtomicU32,
}

impl World {
    fn pass(&self, nanoseconds: u64) {
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    fn worker(&self) -> &DrivenWorker<Function> {
        self.worker.get().unwrap()
    }

    /// Somebody waits for the worker: it works, and time passes where it has nothing to do.
    fn go_on(&self) {
        let turns = self.turns.fetch_add(1, Ordering::Relaxed);
        assert!(turns < MAX_TURNS, "nothing ends this wait");
        if self.worker().step() {
            self.pass(TENTH);
        }
    }
}

/// A run.
struct Simulation {
    random: Random,
    world: Arc<World>,
    device: GpuDevice,
    renderer: RendererControl,
    guest: Vmm,
    left: Vec<Left>,
}

fn options() -> DeviceOptions {
    DeviceOptions {
        gpu: "".parse().unwrap(),
        renderer: RendererPlace::default(),
        retention: Retention::On {
            sources: HoldSources::ALL,
            no_soft_reset: true,
        },
        layout: Layout::Seed,
    }
}

/// A device whose worker works when its world says so.
fn driven(world: &Arc<World>, renderer: ScriptedRenderer) -> GpuDevice {
    let start = Instant::now();
    let time = Arc::clone(world);
    let clock = move || start + Duration::from_nanos(time.nanoseconds.load(Ordering::Relaxed));
    let theirs = Arc::clone(world);
    let driver = move |worker| {
        drop(theirs.worker.set(worker));
        Arc::new(move || theirs.go_on()) as _
    };
    let made = parts(options(), None, |_| Ok(Box::new(renderer)));
    let started = WorkerHandle::start_driven(made, clock, driver, DeviceError::Thread);
    let (worker, function) = started.unwrap();
    GpuDevice {
        function,
        worker,
        window: None,
    }
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let (renderer, control) = ScriptedRenderer::new();
        if random.one_in(3) {
            control.hold_answers();
        }
        let world = Arc::new(World::default());
        let device = driven(&world, renderer);
        let guest = Vmm::connect(&device);
        Self {
            random,
            world,
            device,
            renderer: control,
            guest,
            left: Vec::new(),
        }
    }

    fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            self.world.turns.store(0, Ordering::Relaxed);
            self.step();
            self.check();
        }
        self.come_to_an_end();
    }

    fn step(&mut self) {
        let Self {
            random,
            world,
            device,
            renderer,
            guest,
            ..
        } = self;
        match random.below(100) {
            0..35 => {
                world.worker().step();
            }
            35..70 => guest.act(device, random),
            70..76 => renderer.hold_fences(random.one_in(2)),
            76..82 => renderer.answer(random.index(8)),
            82..84 => renderer.fail_after(random.below(8)),
            84 if random.one_in(8) => {
                renderer.crash("the seed says so");
                device.worker.wake();
            }
            85..92 => world.pass(random.below(30) * TENTH),
            92..94 => guest.freeze(device, random),
            94..97 => guest.sleep_or_reset(device, random),
            97 => guest.move_memory(device, random),
            98 if random.one_in(8) => self.change_guests(),
            _ => self.look(),
        }
    }

    /// The VMM goes, and another comes.
    fn change_guests(&mut self) {
        self.device.disconnected();
        self.check();
        let status = self.device.worker.status().unwrap();
        assert_eq!((status.gpu.resources, status.gpu.contexts), (0, 0));
        assert_eq!((status.gpu.pending_fences, status.gpu.host_bytes), (0, 0));
        assert_eq!(self.world.worker().owed(), 0);
        assert_eq!(self.renderer.objects(), 0, "the renderer keeps something");
        let next = Vmm::connect(&self.device);
        let gone = mem::replace(&mut self.guest, next);
        self.left.push(gone.leave());
        if self.left.len() > WATCHED {
            self.left.remove(0);
        }
    }

    /// What people ask.
    fn look(&mut self) {
        match self.random.below(3) {
            0 => drop(self.device.status().unwrap()),
            1 => {
                let frozen = self.device.worker.settle(false);
                frozen.unwrap();
            }
            _ => {
                let seen = Seen::default();
                let job = move |access: &mut dyn GpuAccess| {
                    drop(access.look(0, seen).map(|picture| picture.to_image(true)));
                };
                self.device.run(Box::new(job));
            }
        }
    }

    /// Nothing written where it may not be, and nothing without bound.
    fn check(&mut self) {
        self.guest.check(&self.device);
        for left in &self.left {
            left.check();
        }
        let worker = self.world.worker();
        assert!(worker.owed() <= MAX_OWED, "{} answers", worker.owed());
        assert!(!worker.is_ended(), "the worker ended");
    }

    /// Nothing keeps the device any more: a driver that is served has every answer.
    fn come_to_an_end(&mut self) {
        self.renderer.hold_fences(false);
        self.guest.go_on(&self.device);
        let (mut idle, mut turns) = (0, 0);
        while idle < 3 {
            if self.renderer.in_flight() > 0 {
                self.renderer.answer(usize::MAX);
                self.device.worker.wake();
            }
            let has_nothing = self.world.worker().step();
            idle = if has_nothing { idle + 1 } else { 0 };
            if has_nothing {
                self.world.pass(30 * TENTH);
            }
            self.check();
            turns += 1;
            assert!(turns < MAX_TURNS, "it never has nothing to do");
        }
        self.guest.expect_answers(&self.device);
    }
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}

#[test]
fn no_run_of_guests_renderers_and_clocks_breaks_what_must_hold() {
    if let Some(seed) = number(SEED_VARIABLE) {
        return Simulation::new(seed).run(STEPS_A_RUN);
    }
    let steps = number(STEPS_VARIABLE).unwrap_or(STEPS);
    for seed in 0..steps.div_ceil(STEPS_A_RUN) {
        let run = catch_unwind(|| Simulation::new(seed).run(STEPS_A_RUN));
        assert!(run.is_ok(), "{SEED_VARIABLE}={seed} has it again");
    }
}

#[test]
fn a_seed_gives_the_same_run_again() {
    let trace = || {
        let mut simulation = Simulation::new(7);
        simulation.run(STEPS_A_RUN);
        let status = simulation.device.worker.status().unwrap();
        let time = simulation.world.nanoseconds.load(Ordering::Relaxed);
        (format!("{status:?}"), time, simulation.renderer.calls())
    };
    assert_eq!(trace(), trace());
}
