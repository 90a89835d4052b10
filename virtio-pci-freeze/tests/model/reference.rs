// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The retention machine against a small reference model: what a guest and its host do, and whether the display lives.

use proptest::prelude::*;
use virtio_pci_freeze::spec::{DeviceStatus, FreezeModeValue, pci};
use virtio_pci_freeze::test_utils::{Driver, Machine, Reach, retention};
use virtio_pci_freeze::{RELEASE_AFTER_NOTIFICATIONS, Register};

use crate::common::{RESOURCE, cases, config, keeps_resources};

#[derive(Clone, Copy, Debug)]
enum Act {
    Freeze,
    Unfreeze,
    BusMaster(bool),
    D3hot(bool),
    PlatformSleep,
    PlatformWake,
    FunctionReset,
    SizeBars,
    Reset,
    Bind,
    BindWithoutQueues,
    Notify(u16),
}

/// A hint: when it began, and how many doorbells have come since its cause ended.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Hint {
    #[default]
    No,
    Yes,
    Over(u16),
}

/// What happened since the device could touch memory last.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Away {
    #[default]
    No,
    Paused,
    /// The bus came back, and nothing shows that no other kernel has it now: after a function reset there is no MSI-X.
    Unsure,
    Slept,
}

/// What the architecture page says, and nothing of how the crate does it.
#[derive(Debug, Default)]
struct Reference {
    /// The status is 0xf.
    runs: bool,
    /// Queues that DRIVER_OK without any would bring back.
    parked: bool,
    queues: bool,
    display: bool,
    frozen: bool,
    master: bool,
    asleep: bool,
    hints: [Hint; 4],
    /// Stopped, with the state of before a frozen reset.
    retains: bool,
    no_msix: bool,
    away: Away,
}

const BUS_MASTER: usize = 0;
const D3HOT: usize = 1;
const PLATFORM: usize = 2;
const FUNCTION: usize = 3;

impl Reference {
    fn held(&self) -> bool {
        self.frozen || self.hints.iter().any(|hint| *hint != Hint::No)
    }

    fn ends(&mut self, hint: usize) {
        if self.hints[hint] == Hint::Yes {
            self.hints[hint] = Hint::Over(0);
        }
    }

    fn full_reset(&mut self) {
        (self.runs, self.parked, self.queues, self.display) = (false, false, false, false);
        self.retains = false;
    }

    /// Memory goes out of reach: what was seen before says nothing, but that the platform still sleeps.
    fn leaves(&mut self) {
        self.away = match self.hints[PLATFORM] {
            Hint::Yes => Away::Slept,
            _ => Away::No,
        };
    }

    fn pauses(&mut self) {
        if self.away == Away::No && (self.runs || self.retains) {
            self.away = Away::Paused;
        }
    }

    fn sleeps(&mut self) {
        if matches!(self.away, Away::No | Away::Paused) && (self.runs || self.retains) {
            self.away = Away::Slept;
        }
    }

    /// Memory may be another kernel's when the device can reach it again.
    fn returns(&mut self, before: bool) {
        if self.master && self.no_msix && self.away == Away::Paused {
            self.away = Away::Unsure;
        }
        if !before && self.reaches() {
            self.display &= self.away != Away::Unsure;
            self.away = Away::No;
        }
    }

    fn reaches(&self) -> bool {
        self.runs && self.master && !self.asleep
    }

    fn reset(&mut self) {
        if !self.held() {
            self.full_reset();
        } else if self.runs {
            (self.runs, self.parked, self.queues) = (false, self.queues, false);
            self.retains = true;
        }
    }

    fn reboot(&mut self) {
        self.frozen = false;
        self.hints = Default::default();
        self.full_reset();
    }

    fn driver_ok(&mut self, own_queues: bool) {
        self.runs = true;
        self.retains = false;
        if own_queues || !self.parked {
            self.away = Away::No;
        }
        self.queues = own_queues || self.parked;
        self.parked = false;
        for hint in &mut self.hints {
            if matches!(hint, Hint::Over(_)) {
                *hint = Hint::No;
            }
        }
    }

    fn bus_master(&mut self, on: bool) {
        let (had, runs, before) = (self.master, self.runs, self.reaches());
        self.master = on;
        if had && !on && runs && !self.asleep {
            self.leaves();
        }
        if on {
            self.ends(BUS_MASTER);
            self.returns(before);
        } else if had {
            if runs {
                self.hints[BUS_MASTER] = Hint::Yes;
            }
            if !self.asleep {
                self.pauses();
            }
        }
    }

    fn d3hot(&mut self, on: bool) {
        let before = self.reaches();
        if on && !self.asleep {
            self.hints[D3HOT] = Hint::Yes;
        }
        if on && !self.asleep && self.runs && self.master {
            self.leaves();
        }
        self.asleep = on;
        if on {
            self.sleeps();
        } else {
            self.ends(D3HOT);
            self.returns(before);
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            // No register answers in D3hot.
            Act::Freeze | Act::Unfreeze if self.asleep => {}
            Act::Freeze => self.frozen = true,
            Act::Unfreeze => self.frozen = false,
            Act::Reset | Act::Bind | Act::BindWithoutQueues if self.asleep => {}
            Act::Reset => self.reset(),
            Act::Bind | Act::BindWithoutQueues => {
                self.reset();
                self.driver_ok(matches!(act, Act::Bind));
                self.display = true;
                self.returns(false);
            }
            Act::BusMaster(on) => self.bus_master(on),
            Act::D3hot(on) => self.d3hot(on),
            Act::PlatformSleep => {
                self.hints[PLATFORM] = Hint::Yes;
                self.sleeps();
            }
            Act::PlatformWake => self.ends(PLATFORM),
            Act::FunctionReset => {
                // It could be a wake of anything that has run.
                if self.runs || self.parked || self.display || self.held() {
                    self.hints[FUNCTION] = Hint::Over(0);
                }
                self.ends(D3HOT);
                self.sleeps();
                self.reset();
                (self.asleep, self.master, self.no_msix) = (false, false, true);
            }
            Act::SizeBars => {
                if self.hints[FUNCTION] != Hint::No {
                    self.reboot();
                }
            }
            Act::Notify(count) => {
                if self.runs && self.queues && self.master && !self.asleep {
                    for hint in &mut self.hints {
                        if let Hint::Over(seen) = hint {
                            *seen += count;
                            if *seen >= RELEASE_AFTER_NOTIFICATIONS {
                                *hint = Hint::No;
                            }
                        }
                    }
                }
            }
        }
    }
}

fn perform(act: Act, machine: &mut Machine, driver: &mut Driver) {
    match act {
        Act::Freeze => driver.write_freeze_mode(machine, FreezeModeValue::FREEZE_S3),
        Act::Unfreeze => driver.write_freeze_mode(machine, FreezeModeValue::UNFREEZE),
        Act::BusMaster(on) => {
            let bit = if on { pci::COMMAND_BUS_MASTER } else { 0 };
            driver.write_command(machine, pci::COMMAND_MEMORY | bit);
        }
        Act::D3hot(on) => driver.set_power_state(machine, if on { 3 } else { 0 }),
        Act::PlatformSleep => machine.function.platform_sleep(),
        Act::PlatformWake => machine.function.platform_wake(),
        Act::FunctionReset => machine.function_reset(),
        Act::SizeBars => {
            driver.size_bars(machine);
        }
        Act::Reset => driver.write(machine, Register::DeviceStatus, 0),
        Act::Bind | Act::BindWithoutQueues => {
            driver.write(machine, Register::DeviceStatus, 0);
            driver.negotiate(machine);
            if matches!(act, Act::Bind) {
                driver.set_up_queues(machine);
            }
            driver.set_status(machine, DeviceStatus::DRIVER_OK);
            if driver.status(machine) == 0xf {
                machine.device.resources.insert(RESOURCE);
            }
        }
        Act::Notify(count) => {
            for _ in 0..count {
                driver.notify(machine, 0);
            }
        }
    }
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        Just(Act::Freeze),
        Just(Act::Unfreeze),
        any::<bool>().prop_map(Act::BusMaster),
        any::<bool>().prop_map(Act::D3hot),
        Just(Act::PlatformSleep),
        Just(Act::PlatformWake),
        Just(Act::FunctionReset),
        Just(Act::SizeBars),
        Just(Act::Reset),
        Just(Act::Bind),
        Just(Act::BindWithoutQueues),
        (1..=RELEASE_AFTER_NOTIFICATIONS).prop_map(Act::Notify),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(2000), failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_retention_machine_does_what_the_reference_model_does(
        acts in prop::collection::vec(any_act(), 1..30),
    ) {
        let mut machine = Machine::new(config(retention(false)));
        let mut driver = Driver::probe(&mut machine, Reach::Memory);
        let mut reference = Reference { master: true, ..Reference::default() };
        for (step, &act) in acts.iter().enumerate() {
            perform(act, &mut machine, &mut driver);
            reference.act(act);
            let transport = machine.function.transport();
            prop_assert_eq!(transport.is_held(), reference.held(), "hold after {} {:?}", step, act);
            prop_assert_eq!(keeps_resources(&machine), reference.display, "display after {} {:?}", step, act);
            let transport = machine.function.transport();
            prop_assert_eq!(transport.is_live(), reference.runs, "running after {} {:?}", step, act);
            let active = transport.active_queues().count() > 0;
            prop_assert_eq!(active, reference.runs && reference.queues, "queues after {} {:?}", step, act);
            prop_assert_eq!(transport.parked_queues().is_some(), reference.parked, "parked after {} {:?}", step, act);
        }
    }
}
