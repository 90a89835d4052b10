// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Programs of accesses and events, as bytes: what property tests and fuzzers make up.

use super::config::{function_config, transport_config};
use super::driver::{Driver, Reach, SleepPath};
use super::invariants::check_invariants;
use super::machine::Machine;
use crate::effect::ResetTicket;
use crate::function::{FunctionConfig, VirtioPciFunction};
use crate::msix::VectorOwner;
use crate::register::Layout;
use crate::retention::HoldSources;
use crate::saved_state::RestoredDevice;
use crate::spec::feature;
use crate::transport::{ResetOutcome, Retention};

/// One access or event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the method of its name")]
pub enum Step {
    ReadConfig { width: u8, offset: u16 },
    WriteConfig { width: u8, offset: u16, value: u64 },
    ReadBar { bar: u8, offset: u16 },
    WriteBar { bar: u8, offset: u16, value: u64 },
    WriteRegister { index: u8, value: u64 },
    Notify { queue: u16 },
    Answer,
    Device { answers: bool, can_retain: bool },
    UseBuffers { queue: u16 },
    UpdateDeviceConfig { offset: u16, value: u64 },
    ConnectVector { connected: bool, vector: u16 },
    NeedsReset,
    FunctionReset,
    Reboot,
    PlatformSleep,
    PlatformWake,
    FailToSuspendOrResume,
    StaleAnswer { ticket: u16 },
    SaveAndRestore { lost: bool },
    Bind,
    Suspend { path: SleepPath },
    Resume { path: SleepPath },
}

/// Bytes of an encoded step: a tag, a byte, a word and a quadword.
const STEP_LENGTH: usize = 12;
const TAGS: u8 = 22;
/// Most steps of one program; more than this finds nothing new and only costs time.
const MAX_STEPS: usize = 256;

const PATHS: [SleepPath; 3] = [SleepPath::NoHooks, SleepPath::Hooks, SleepPath::NoReset];

impl Step {
    /// The step that some bytes stand for. Every sequence of bytes is a step.
    pub fn decode(bytes: [u8; STEP_LENGTH]) -> Self {
        let [tag, a, b0, b1, value @ ..] = bytes;
        let b = u16::from_le_bytes([b0, b1]);
        let value = u64::from_le_bytes(value);
        let flag = a & 1 != 0;
        let path = PATHS[usize::from(a) % PATHS.len()];
        match tag % TAGS {
            0 => Self::ReadConfig {
                width: a,
                offset: b,
            },
            1 => Self::WriteConfig {
                width: a,
                offset: b,
                value,
            },
            2 => Self::ReadBar { bar: a, offset: b },
            3 => Self::WriteBar {
                bar: a,
                offset: b,
                value,
            },
            4 => Self::WriteRegister { index: a, value },
            5 => Self::Notify { queue: b },
            6 => Self::Answer,
            7 => Self::Device {
                answers: flag,
                can_retain: a & 2 != 0,
            },
            8 => Self::UseBuffers { queue: b },
            9 => Self::UpdateDeviceConfig { offset: b, value },
            10 => Self::ConnectVector {
                connected: flag,
                vector: b,
            },
            11 => Self::NeedsReset,
            12 => Self::FunctionReset,
            13 => Self::Reboot,
            14 => Self::PlatformSleep,
            15 => Self::PlatformWake,
            16 => Self::FailToSuspendOrResume,
            17 => Self::StaleAnswer { ticket: b },
            18 => Self::SaveAndRestore { lost: flag },
            19 => Self::Bind,
            20 => Self::Suspend { path },
            _ => Self::Resume { path },
        }
    }

    /// Bytes that stand for this step.
    pub fn encode(self) -> [u8; STEP_LENGTH] {
        let index = |path| {
            PATHS
                .iter()
                .zip(0u8..)
                .find(|(p, _)| **p == path)
                .map_or(0, |(_, i)| i)
        };
        let (tag, a, b, value) = match self {
            Self::ReadConfig { width, offset } => (0, width, offset, 0),
            Self::WriteConfig {
                width,
                offset,
                value,
            } => (1, width, offset, value),
            Self::ReadBar { bar, offset } => (2, bar, offset, 0),
            Self::WriteBar { bar, offset, value } => (3, bar, offset, value),
            Self::WriteRegister { index, value } => (4, index, 0, value),
            Self::Notify { queue } => (5, 0, queue, 0),
            Self::Answer => (6, 0, 0, 0),
            Self::Device {
                answers,
                can_retain,
            } => (7, u8::from(answers) | u8::from(can_retain) << 1, 0, 0),
            Self::UseBuffers { queue } => (8, 0, queue, 0),
            Self::UpdateDeviceConfig { offset, value } => (9, 0, offset, value),
            Self::ConnectVector { connected, vector } => (10, connected.into(), vector, 0),
            Self::NeedsReset => (11, 0, 0, 0),
            Self::FunctionReset => (12, 0, 0, 0),
            Self::Reboot => (13, 0, 0, 0),
            Self::PlatformSleep => (14, 0, 0, 0),
            Self::PlatformWake => (15, 0, 0, 0),
            Self::FailToSuspendOrResume => (16, 0, 0, 0),
            Self::StaleAnswer { ticket } => (17, 0, ticket, 0),
            Self::SaveAndRestore { lost } => (18, lost.into(), 0, 0),
            Self::Bind => (19, 0, 0, 0),
            Self::Suspend { path } => (20, index(path), 0, 0),
            Self::Resume { path } => (21, index(path), 0, 0),
        };
        let mut bytes = [0; STEP_LENGTH];
        bytes[0] = tag;
        bytes[1] = a;
        bytes[2..4].copy_from_slice(&b.to_le_bytes());
        bytes[4..].copy_from_slice(&u64::to_le_bytes(value));
        bytes
    }
}

/// A machine, its guest and a sequence of steps.
#[derive(Clone, Debug)]
pub struct Program {
    /// Chooses the function's configuration; see [`Program::config`].
    pub setup: u8,
    /// What happens.
    pub steps: Vec<Step>,
}

impl Program {
    /// The program that some bytes stand for. Every sequence of bytes is a program.
    pub fn decode(bytes: &[u8]) -> Self {
        let (setup, steps) = bytes.split_first().unwrap_or((&0, &[]));
        let (steps, _) = steps.as_chunks();
        let steps = steps.iter().copied().map(Step::decode);
        Self {
            setup: *setup,
            steps: steps.take(MAX_STEPS).collect(),
        }
    }

    /// Bytes that stand for this program.
    pub fn encode(&self) -> Vec<u8> {
        let steps = self.steps.iter().flat_map(|step| step.encode());
        [self.setup].into_iter().chain(steps).collect()
    }

    /// The function that the program is for: layout, retention, No_Soft_Reset, owner of the vectors, PM and features.
    pub fn config(&self) -> FunctionConfig {
        let bit = |bit: u8| self.setup & 1 << bit != 0;
        let layout = [Layout::Seed, Layout::Tail, Layout::None][usize::from(self.setup & 3) % 3];
        let off = layout == Layout::None && bit(2);
        let retention = if off {
            Retention::Off
        } else {
            Retention::On {
                sources: HoldSources {
                    same_driver: bit(2),
                    ..HoldSources::ALL
                },
                no_soft_reset: bit(3),
            }
        };
        let mut transport = transport_config(layout, retention);
        if bit(4) {
            transport.device_features |= feature::mask(feature::VIRTIO_F_SUSPEND);
            let more = feature::mask(feature::VIRTIO_F_RING_RESET)
                | feature::mask(feature::VIRTIO_F_RING_PACKED);
            transport.device_features |= more & !layout.excluded_features();
        }
        let mut config = function_config(transport);
        config.power_management = !bit(5);
        if bit(6) {
            config.vector_owner = VectorOwner::Vmm;
        }
        config.identity.interrupt_pin = !bit(7);
        config
    }

    /// Runs the program, checking every invariant after each step. Returns the machine as it is then.
    ///
    /// # Panics
    /// With the invariant that does not hold.
    pub fn run(&self) -> Machine {
        self.go_on(Machine::new(self.config()))
    }

    /// As [`run`](Self::run), on a machine that has been running.
    ///
    /// # Panics
    /// With the invariant that does not hold.
    pub fn go_on(&self, mut machine: Machine) -> Machine {
        let mut driver = Driver::probe(&mut machine, Reach::Memory);
        for &step in &self.steps {
            self.take(step, &mut machine, &mut driver);
            check_invariants(&mut machine);
            machine.take_log();
            machine.take_interrupts();
        }
        machine
    }

    fn take(&self, step: Step, machine: &mut Machine, driver: &mut Driver) {
        match step {
            Step::Bind => driver.bind(machine),
            Step::Suspend { path } => driver.suspend(machine, path),
            Step::Resume { path } => driver.resume(machine, path),
            Step::Notify { queue } => driver.notify(machine, queue),
            Step::WriteRegister { index, value } => {
                let registers: Vec<_> = machine
                    .function
                    .transport()
                    .config()
                    .layout
                    .registers()
                    .collect();
                let register = registers[usize::from(index) % registers.len()].register;
                driver.write(machine, register, value);
            }
            Step::SaveAndRestore { lost } => self.save_and_restore(machine, lost),
            Step::PlatformSleep => machine.function.platform_sleep(),
            Step::PlatformWake => machine.function.platform_wake(),
            Step::FunctionReset => machine.function_reset(),
            Step::Answer => {
                machine.answer_next();
            }
            Step::UseBuffers { queue } => machine.use_buffers(queue, 1),
            Step::Device {
                answers,
                can_retain,
            } => {
                machine.device.answers = answers;
                machine.device.can_retain = can_retain;
            }
            step => access(step, machine),
        }
    }

    fn save_and_restore(&self, machine: &mut Machine, lost: bool) {
        let saved = machine.function.save(&machine.device.positions);
        let device = if lost {
            RestoredDevice::Lost
        } else {
            RestoredDevice::Intact
        };
        let (function, effects) = VirtioPciFunction::restore(self.config(), &saved, device)
            .expect("what was saved can be restored");
        if !lost {
            let again = function.save(&machine.device.positions);
            assert_eq!(again, saved, "save, restore, save");
        }
        machine.function = function;
        // The new process has been asked nothing yet, and INTx starts low.
        machine.device.unanswered.clear();
        machine.device.intx = false;
        machine.carry_out(effects);
    }
}

fn access(step: Step, machine: &mut Machine) {
    let function = &mut machine.function;
    let effects = match step {
        Step::ReadConfig { width, offset } => {
            let mut data = [0; 16];
            function.read_config(offset, &mut data[..usize::from(width % 17)])
        }
        Step::WriteConfig {
            width,
            offset,
            value,
        } => {
            // Most of the words would lie beyond the end.
            let offset = offset % 288;
            function.write_config(offset, &value.to_le_bytes()[..usize::from(width % 9)])
        }
        Step::ReadBar { bar, offset } => {
            let mut data = [0; 16];
            let width = usize::from(bar >> 3) % 17;
            function.read_bar(bar & 7, offset.into(), &mut data[..width])
        }
        Step::WriteBar { bar, offset, value } => {
            let width = usize::from(bar >> 3) % 9;
            function.write_bar(bar & 7, offset.into(), &value.to_le_bytes()[..width])
        }
        Step::UpdateDeviceConfig { offset, value } => {
            function.update_device_config(offset % 32, &value.to_le_bytes())
        }
        Step::ConnectVector { connected, vector } => function.connect_vector(vector, connected),
        Step::NeedsReset => function.needs_reset(),
        Step::Reboot => function.reboot(),
        Step::FailToSuspendOrResume => {
            let first = function.suspend_done(false);
            machine.carry_out(first);
            machine.function.resume_done(false)
        }
        Step::StaleAnswer { ticket } => {
            // Tickets of this process count from 1; none comes near these.
            let ticket = ResetTicket(0x8000_0000 | u32::from(ticket));
            function.reset_done(ticket, ResetOutcome::StateLost)
        }
        _ => return,
    };
    machine.carry_out(effects);
}
