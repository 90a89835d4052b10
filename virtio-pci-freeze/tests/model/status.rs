// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Every write to the device status against an oracle made from the standard's clauses, one function a clause.

use virtio_pci_freeze::spec::{DeviceStatus, feature};
use virtio_pci_freeze::status::{self, Phase, StatusContext, StatusEdge, StatusWrite};
use virtio_pci_freeze::test_utils::{
    Driver, Machine, Reach, check_invariants, function_config, retention, transport_config,
};
use virtio_pci_freeze::{Layout, Register};

use crate::common::STRIDE;

const ACKNOWLEDGE: u8 = 0x01;
const DRIVER: u8 = 0x02;
const DRIVER_OK: u8 = 0x04;
const FEATURES_OK: u8 = 0x08;
const SUSPEND: u8 = 0x10;
const NEEDS_RESET: u8 = 0x40;
const FAILED: u8 = 0x80;

const PHASES: [Phase; 6] = [
    Phase::Stopped,
    Phase::Running,
    Phase::Suspending,
    Phase::Suspended,
    Phase::Resuming,
    Phase::Resetting,
];

/// One write, as the oracle sees it.
#[derive(Clone, Copy, Debug)]
struct Write {
    before: u8,
    written: u8,
    context: StatusContext,
}

impl Write {
    /// §4.1.4.3.1: "The device MUST reset when 0 is written".
    fn resets(self) -> bool {
        self.written == 0
    }

    /// §2.1.1: a driver does not clear a bit. DEVICE_NEEDS_RESET is the device's (§2.1.2), and a driver that resumes
    /// need not repeat SUSPEND (§3.4).
    fn breaks_the_rule_on_clearing(self) -> bool {
        let not_the_drivers = match self.context.phase {
            Phase::Suspended => NEEDS_RESET | SUSPEND | 0x20,
            _ => NEEDS_RESET | 0x20,
        };
        self.before & !not_the_drivers & !self.written != 0
    }

    /// §3.4.2: while it suspends or resumes, only a reset matters; §2.4.1: while it resets, nothing does.
    fn device_is_busy(self) -> bool {
        matches!(
            self.context.phase,
            Phase::Suspending | Phase::Resuming | Phase::Resetting
        )
    }

    /// What a bit reads afterwards, if the write counts at all.
    fn bit_after(self, bit: u8) -> bool {
        let was = self.before & bit != 0;
        let asked = self.written & bit != 0;
        if self.context.phase == Phase::Suspended {
            // §3.4.1: nothing but giving up is left to the driver; DRIVER_OK reads 1 once the device has resumed.
            return was || (bit == FAILED && asked);
        }
        was || match bit {
            ACKNOWLEDGE | FAILED => asked,
            // §3.1.1: the steps come in order.
            DRIVER => asked && self.bit_after(ACKNOWLEDGE),
            // §2.2.2: "it MUST fail to set the FEATURES_OK bit".
            FEATURES_OK => asked && self.bit_after(DRIVER) && self.context.features_acceptable,
            DRIVER_OK => asked && self.bit_after(FEATURES_OK),
            // §2.1.2, §3.4.2: these are the device's; 32 is nobody's.
            _ => false,
        }
    }

    /// §3.4.2: "MUST ignore any operations on the SUSPEND bit" before the device is initialised, or without the feature.
    fn suspends(self) -> bool {
        self.context.phase == Phase::Running
            && self.context.suspend_negotiated
            && self.written & SUSPEND != 0
    }

    /// §3.4: "once the driver sets DRIVER_OK".
    fn resumes(self) -> bool {
        self.context.phase == Phase::Suspended && self.written & DRIVER_OK != 0
    }

    /// §2.1: DRIVER_OK going from 0 to 1 starts the device.
    fn starts(self) -> bool {
        self.context.phase != Phase::Suspended
            && self.before & DRIVER_OK == 0
            && self.bit_after(DRIVER_OK)
    }

    /// The status afterwards and whether the device suspends, resumes or starts; `None` for a reset.
    fn outcome(self) -> Option<(u8, bool, bool, bool)> {
        if self.resets() {
            return None;
        }
        if self.device_is_busy() || self.breaks_the_rule_on_clearing() {
            return Some((self.before, false, false, false));
        }
        let after = (0..8u8)
            .map(|bit| 1u8 << bit)
            .filter(|&bit| self.bit_after(bit))
            .sum();
        let suspends = self.suspends();
        Some((after, suspends, self.resumes(), self.starts() && !suspends))
    }
}

fn outcome_of_the_model(write: Write) -> Option<(u8, bool, bool, bool)> {
    match status::write(DeviceStatus(write.before), write.written, write.context) {
        StatusWrite::Reset => None,
        StatusWrite::Ignored => Some((write.before, false, false, false)),
        StatusWrite::Set { status, edge } => Some((
            status.0,
            edge == StatusEdge::Suspend,
            edge == StatusEdge::Resume,
            edge == StatusEdge::DriverOk,
        )),
    }
}

#[test]
fn every_status_write_in_every_state_is_what_the_clauses_say() {
    for phase in PHASES {
        for flags in 0..4u8 {
            let context = StatusContext {
                phase,
                features_acceptable: flags & 1 != 0,
                suspend_negotiated: flags & 2 != 0,
            };
            for before in (0..=u8::MAX).step_by(STRIDE) {
                for written in (0..=u8::MAX).step_by(STRIDE) {
                    let write = Write {
                        before,
                        written,
                        context,
                    };
                    assert_eq!(outcome_of_the_model(write), write.outcome(), "{write:?}");
                }
            }
        }
    }
}

#[test]
fn the_edges_of_feature_negotiation_are_told_apart() {
    let context = |features_acceptable| StatusContext {
        phase: Phase::Stopped,
        features_acceptable,
        suspend_negotiated: false,
    };
    let write = |acceptable| status::write(DeviceStatus(3), 0x0b, context(acceptable));
    assert_eq!(
        write(true),
        StatusWrite::Set {
            status: DeviceStatus(0x0b),
            edge: StatusEdge::FeaturesOk
        }
    );
    assert_eq!(
        write(false),
        StatusWrite::Set {
            status: DeviceStatus(3),
            edge: StatusEdge::FeaturesRefused
        }
    );
}

/// Machines in every state that a driver can bring about.
fn machines() -> Vec<(&'static str, Machine)> {
    let mut transport = transport_config(Layout::Seed, retention(false));
    transport.device_features |= feature::mask(feature::VIRTIO_F_SUSPEND);
    let mut machine = Machine::new(function_config(transport));
    let mut driver = Driver::probe(&mut machine, Reach::Memory);
    let mut machines = vec![("reset", machine.clone())];
    driver.negotiate(&mut machine);
    machines.push(("negotiated", machine.clone()));
    driver.set_up_queues(&mut machine);
    driver.set_status(&mut machine, DRIVER_OK);
    machines.push(("running", machine.clone()));
    let mut suspended = machine.clone();
    driver.set_status(&mut suspended, SUSPEND);
    machines.push(("suspended", suspended.clone()));
    suspended.device.answers = false;
    driver.set_status(&mut suspended, DRIVER_OK);
    machines.push(("resuming", suspended));
    let mut parked = machine.clone();
    parked.function.platform_sleep();
    driver.reset(&mut parked);
    machines.push(("parked", parked));
    machine.device.answers = false;
    let mut suspending = machine.clone();
    driver.set_status(&mut suspending, SUSPEND);
    machines.push(("suspending", suspending));
    driver.write(&mut machine, Register::DeviceStatus, 0);
    machines.push(("resetting", machine));
    machines
}

#[test]
fn any_two_status_writes_from_any_state_leave_a_sound_machine() {
    let mut driver = Driver::probe(&mut machines()[0].1, Reach::Memory);
    for (name, machine) in machines() {
        for first in (0..=u8::MAX).step_by(STRIDE) {
            let mut once = machine.clone();
            driver.write(&mut once, Register::DeviceStatus, first.into());
            check_invariants(&mut once);
            // The second writes that are worth it: each bit alone, all but one, and the ordinary sequence.
            let alone = (0..8).map(|bit| 1u8 << bit);
            let but_one = (0..8).map(|bit| !(1u8 << bit));
            for second in alone.chain(but_one).chain([0, 3, 0xb, 0xf, 0x1f, 0xff]) {
                let mut twice = once.clone();
                driver.write(&mut twice, Register::DeviceStatus, second.into());
                check_invariants(&mut twice);
                while twice.answer_next() {}
                check_invariants(&mut twice);
            }
        }
        assert!(!name.is_empty());
    }
}

#[test]
fn a_status_is_printed_in_hexadecimal_and_features_beyond_63_have_no_mask() {
    assert_eq!(format!("{:?}", DeviceStatus(0xb)), "DeviceStatus(0x0b)");
    assert_eq!(feature::mask(63), 1 << 63);
    assert_eq!(feature::mask(64), 0);
}
