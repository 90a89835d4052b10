// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host's side: a machine with one function and the device behind it.

use core::convert::Infallible;
use core::mem;
use std::collections::{BTreeSet, VecDeque};

use crate::effect::{Effect, Effects, ResetKind};
use crate::function::{FunctionConfig, VirtioPciFunction};
use crate::guest::ConfigAccess;
use crate::queue::{MAX_QUEUES, RingPosition};
use crate::transport::ResetOutcome;

/// The device behind the function: what a reset keeps or drops, and what the machine was asked to do.
#[derive(Clone, Debug)]
pub struct Device {
    /// State that only a full reset drops, by id.
    pub resources: BTreeSet<u32>,
    /// How far each queue has come.
    pub positions: Vec<RingPosition>,
    /// Whether the device can retain its state.
    pub can_retain: bool,
    /// Whether it answers at once. If not, what it owes waits in [`unanswered`](Self::unanswered).
    pub answers: bool,
    /// Effects that it has not answered.
    pub unanswered: VecDeque<Effect>,
    /// Every effect since the last [`Machine::take_log`].
    pub log: Vec<Effect>,
    /// Vectors sent since the last [`Machine::take_interrupts`].
    pub interrupts: Vec<u16>,
    /// The level of the INTx line.
    pub intx: bool,
}

/// One function, the device behind it and the machine that joins them.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The function.
    pub function: VirtioPciFunction,
    /// The device.
    pub device: Device,
}

impl Machine {
    /// A machine after power-on.
    pub fn new(config: FunctionConfig) -> Self {
        let function = VirtioPciFunction::new(config).expect("the test's configuration is valid");
        Self::with_function(function)
    }

    /// A machine around `function`, with a device that holds nothing.
    pub fn with_function(function: VirtioPciFunction) -> Self {
        Self {
            function,
            device: Device {
                resources: BTreeSet::new(),
                positions: vec![RingPosition::default(); MAX_QUEUES],
                can_retain: true,
                answers: true,
                unanswered: VecDeque::new(),
                log: Vec::new(),
                interrupts: Vec::new(),
                intx: false,
            },
        }
    }

    /// Reads a BAR.
    pub fn read_bar(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        let effects = self.function.read_bar(bar, offset, data);
        self.carry_out(effects);
    }

    /// Writes a BAR.
    pub fn write_bar(&mut self, bar: u8, offset: u64, data: &[u8]) {
        let effects = self.function.write_bar(bar, offset, data);
        self.carry_out(effects);
    }

    /// Reads a 16-bit register of configuration space.
    pub fn config_u16(&mut self, offset: u16) -> u16 {
        let mut bytes = [0; 2];
        self.read(offset, &mut bytes)
            .unwrap_or_else(|never| match never {});
        u16::from_le_bytes(bytes)
    }

    /// Reads a 32-bit register of configuration space.
    pub fn config_u32(&mut self, offset: u16) -> u32 {
        let mut bytes = [0; 4];
        self.read(offset, &mut bytes)
            .unwrap_or_else(|never| match never {});
        u32::from_le_bytes(bytes)
    }

    /// Writes configuration space.
    pub fn config_write(&mut self, offset: u16, data: &[u8]) {
        self.write(offset, data)
            .unwrap_or_else(|never| match never {});
    }

    /// Resets the function from outside, as a platform reset or VFIO_USER_DEVICE_RESET does.
    pub fn function_reset(&mut self) {
        let effects = self.function.function_reset();
        self.carry_out(effects);
    }

    /// Carries out effects, and those that the answers to them have.
    pub fn carry_out(&mut self, effects: Effects) {
        assert!(!effects.is_incomplete(), "no room in {effects:?}");
        for effect in effects {
            self.device.log.push(effect);
            match effect {
                Effect::Interrupt => {
                    while let Some(interrupt) = self.function.next_interrupt() {
                        self.device.interrupts.push(interrupt.vector);
                    }
                }
                Effect::Intx(level) => self.device.intx = level,
                Effect::Activate(_) => self.start_queues(),
                Effect::Discard | Effect::Disown => self.device.resources.clear(),
                _ if is_question(effect) => self.device.unanswered.push_back(effect),
                _ => {}
            }
        }
        while self.device.answers && self.answer_next() {}
    }

    /// Answers the oldest effect that waits for it. Returns whether there was one.
    pub fn answer_next(&mut self) -> bool {
        let next = self.device.unanswered.pop_front();
        next.map(|effect| self.answer(effect)).is_some()
    }

    /// The effects since the last call.
    pub fn take_log(&mut self) -> Vec<Effect> {
        mem::take(&mut self.device.log)
    }

    /// The vectors sent since the last call.
    pub fn take_interrupts(&mut self) -> Vec<u16> {
        mem::take(&mut self.device.interrupts)
    }

    /// Pretends that the device has taken and used `buffers` buffers of `queue`, and tells the driver.
    pub fn use_buffers(&mut self, queue: u16, buffers: u16) {
        if let Some(position) = self.device.positions.get_mut(usize::from(queue)) {
            position.next_avail = position.next_avail.wrapping_add(buffers);
            position.next_used = position.next_used.wrapping_add(buffers);
        }
        let effects = self.function.queue_used(queue);
        self.carry_out(effects);
    }

    fn start_queues(&mut self) {
        let Self { function, device } = self;
        for setup in function.transport().active_queues() {
            if let Some(position) = device.positions.get_mut(usize::from(setup.index)) {
                *position = setup.position;
            }
        }
    }

    fn answer(&mut self, effect: Effect) {
        let Self { function, device } = self;
        let effects = match effect {
            Effect::Reset { kind, ticket } => {
                let kept = kind == ResetKind::Frozen && device.can_retain;
                if !kept {
                    device.resources.clear();
                }
                let outcome = if kind == ResetKind::Frozen && !device.can_retain {
                    ResetOutcome::StateLost
                } else {
                    ResetOutcome::Done(&device.positions)
                };
                function.reset_done(ticket, outcome)
            }
            Effect::Freeze { ticket } => {
                function.freeze_done(ticket, device.can_retain);
                Effects::none()
            }
            Effect::Suspend => function.suspend_done(true),
            Effect::Resume => function.resume_done(true),
            Effect::ResetQueue { queue } => {
                function.queue_reset_done(queue);
                Effects::none()
            }
            _ => Effects::none(),
        };
        self.carry_out(effects);
    }
}

impl ConfigAccess for Machine {
    type Error = Infallible;

    fn read(&mut self, offset: u16, data: &mut [u8]) -> Result<(), Infallible> {
        let effects = self.function.read_config(offset, data);
        self.carry_out(effects);
        Ok(())
    }

    fn write(&mut self, offset: u16, data: &[u8]) -> Result<(), Infallible> {
        let effects = self.function.write_config(offset, data);
        self.carry_out(effects);
        Ok(())
    }
}

/// Whether the function waits for the device to answer this effect.
fn is_question(effect: Effect) -> bool {
    matches!(
        effect,
        Effect::Reset { .. }
            | Effect::Freeze { .. }
            | Effect::Suspend
            | Effect::Resume
            | Effect::ResetQueue { .. }
    )
}
