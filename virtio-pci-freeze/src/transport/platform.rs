// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the bus, the platform and the VMM do.

use core::mem;

use super::{Bus, Found, Lifecycle, PowerState, Retention, Transport, count};
use crate::effect::{Effect, Effects, ResetKind, ResetTicket};
use crate::queue::Queue;
use crate::register::Selectors;
use crate::retention::{Away, FreezeState, HoldReason, HoldSources, Stopped};
use crate::spec::{DeviceStatus, VIRTIO_MSI_NO_VECTOR};

impl Transport {
    /// The function may, or may no longer, touch memory (PCI 3.0 §6.2.2, BusMaster).
    pub fn set_bus_master(&mut self, master: bool, effects: &mut Effects) {
        if master {
            self.holds.end_cause(HoldReason::BusMasterOff);
        } else if self.bus.master
            && self.is_live()
            && self.sources().is_some_and(|sources| sources.bus_master_off)
        {
            self.holds.begin(HoldReason::BusMasterOff);
        }
        self.change_bus(Bus { master, ..self.bus }, effects);
    }

    /// The function enters a power state (PCI PM 1.2 §5).
    pub fn set_power_state(&mut self, power: PowerState, effects: &mut Effects) {
        if power == PowerState::D0 {
            self.holds.end_cause(HoldReason::D3hot);
        } else if self.bus.power == PowerState::D0 && self.sources().is_some_and(|s| s.d3hot) {
            self.holds.begin(HoldReason::D3hot);
        }
        self.change_bus(Bus { power, ..self.bus }, effects);
    }

    /// The VMM knows that the guest sleeps now (ACPI 6.5 §7.4.2.3, S3).
    pub fn platform_sleep(&mut self) {
        if self.sources().is_some() {
            self.holds.begin(HoldReason::PlatformSleep);
        }
        self.note_sleep();
    }

    /// The VMM knows that the guest has woken.
    pub fn platform_wake(&mut self) {
        self.holds.end_cause(HoldReason::PlatformSleep);
    }

    /// The function is reset from outside: a bus reset, a platform reset or VFIO_USER_DEVICE_RESET.
    ///
    /// Where that can be a wake, the device holds until the driver has shown what it is.
    pub fn function_reset(&mut self, effects: &mut Effects) {
        count(&mut self.counters.function_resets);
        let hint = self.sources().is_some_and(|s| s.function_reset);
        let suspended = self.lifecycle == Lifecycle::Suspended && self.sources().is_some();
        let held = self.is_held() || suspended || (hint && self.has_state());
        // A function whose state outlives D3hot keeps it through the reset that ends a sleep (PCI PM 1.2 §5.4).
        let asleep = suspended
            || self.holds.is_held(HoldReason::D3hot)
            || self.holds.is_held(HoldReason::PlatformSleep);
        let reset_bus = Bus {
            master: self.config.starts_as_bus_master,
            power: PowerState::D0,
        };
        self.holds.end_cause(HoldReason::D3hot);
        if held {
            self.holds.linger(HoldReason::FunctionReset);
        }
        self.note_sleep();
        if !held {
            self.bus = reset_bus;
            self.freeze = FreezeState::Unfrozen;
            self.holds.clear();
            self.begin_reset(ResetKind::Full, effects);
        } else if asleep && self.no_soft_reset() {
            self.change_bus(reset_bus, effects);
            self.note_sleep();
        } else {
            self.bus = reset_bus;
            self.begin_reset(ResetKind::Frozen, effects);
        }
    }

    /// Whether a function reset was held and the driver has not shown itself since.
    pub fn awaits_driver(&self) -> bool {
        self.holds.is_held(HoldReason::FunctionReset)
    }

    /// The VM rebooted, or the device leaves it: nothing may remain for the next guest to meet.
    pub fn reboot(&mut self, effects: &mut Effects) {
        self.holds.clear();
        self.freeze = FreezeState::Unfrozen;
        self.begin_reset(ResetKind::Full, effects);
    }

    /// Somebody read the capabilities that say where the registers are: not the driver that drove the device before,
    /// which knows. If that one's state is still retained, and neither the guest nor a sleep asks for it, it goes.
    ///
    /// After a function reset it is not even the guest of before: no kernel that wakes looks for its devices. So a freeze
    /// that it asked for is over too, as after [`reboot`](Self::reboot), where firmware did not tell by sizing a BAR.
    pub fn probed(&mut self, effects: &mut Effects) {
        let rebooted = self.awaits_driver();
        let enabled = rebooted || self.sources().is_some_and(|sources| sources.same_driver);
        let frozen = self.freeze != FreezeState::Unfrozen;
        if self.is_live() || !enabled || self.holds.is_standing() || (frozen && !rebooted) {
            return;
        }
        if frozen {
            self.freeze = FreezeState::Unfrozen;
            effects.push(Effect::Unfreeze);
        }
        self.discard(effects);
        self.holds.clear();
    }

    /// Nobody is left to ask for what is retained. The registers stay as they are: a driver may look in the middle of its
    /// negotiation, as Linux's virtio-gpu does for shared memory when it is bound to a device that virtio-pci kept.
    pub(super) fn discard(&mut self, effects: &mut Effects) {
        match &self.lifecycle {
            Lifecycle::Stopped(Stopped::Retained(_)) => {
                self.holds.clear();
                self.lifecycle = Lifecycle::Stopped(Stopped::Clean);
                count(&mut self.counters.full_resets);
                effects.push(Effect::Discard);
            }
            Lifecycle::Resetting {
                kind: ResetKind::Frozen,
                ..
            } => {
                self.holds.clear();
                self.begin_reset(ResetKind::Full, effects);
            }
            _ => {}
        }
    }

    pub(super) fn sources(&self) -> Option<HoldSources> {
        match self.config.retention {
            Retention::Off => None,
            Retention::On { sources, .. } => Some(sources),
        }
    }

    pub(crate) fn no_soft_reset(&self) -> bool {
        matches!(
            self.config.retention,
            Retention::On {
                no_soft_reset: true,
                ..
            }
        )
    }

    /// Whether the device holds anything that a full reset would take: it runs, or retains what it had when it ran.
    pub fn has_state(&self) -> bool {
        self.lifecycle != Lifecycle::Stopped(Stopped::Clean)
    }

    /// Somebody set MSI-X up again while the function may not master the bus, or may have restored what leaves no trace: a
    /// kernel does that to a function that slept, and to one that it takes over from the kernel that loaded it from disk.
    pub(crate) fn note_restore(&mut self) {
        self.away.restored();
    }

    /// Something happened that a sleep does to a function that has state, and nothing else does.
    fn note_sleep(&mut self) {
        if self.has_state() {
            self.holds.slept();
            self.away.slept();
        }
    }

    fn change_bus(&mut self, bus: Bus, effects: &mut Effects) {
        let (before, wrote) = (self.may_access_memory(), self.may_write_answers());
        let had_bus = mem::replace(&mut self.bus, bus).master;
        if before && !self.may_access_memory() {
            // What was seen while memory was in reach says nothing of what happens now, but that the platform still sleeps.
            self.away = if self.holds.is_platform_asleep() {
                Away::Slept
            } else {
                Away::Not
            };
        }
        if bus.power != PowerState::D0 {
            self.note_sleep();
        } else if had_bus && !bus.master && self.has_state() {
            self.holds.slept();
            self.away.paused();
        }
        if wrote && !self.may_write_answers() {
            effects.push(Effect::Pause);
        } else if !before {
            self.kick_if_reachable(effects);
        }
    }

    /// Resets the device, or only the registers where it has nothing to do for that.
    ///
    /// A full reset overtakes a frozen one under way: the device answers both, and only the newer ticket counts.
    pub(super) fn begin_reset(&mut self, kind: ResetKind, effects: &mut Effects) {
        // A reset ends a suspend, and what that kept back must not come after what changes from here on.
        self.device_config.release();
        let found = match mem::replace(&mut self.lifecycle, Lifecycle::Running) {
            Lifecycle::Resetting {
                kind: ResetKind::Frozen,
                found,
                ..
            } if kind == ResetKind::Full => found,
            resetting @ Lifecycle::Resetting { .. } => {
                self.lifecycle = resetting;
                return;
            }
            Lifecycle::Stopped(Stopped::Retained(parked)) if kind == ResetKind::Full => {
                Found::Retained(parked)
            }
            stopped @ Lifecycle::Stopped(_) => {
                self.lifecycle = stopped;
                self.reset_registers();
                return;
            }
            _ => Found::Live,
        };
        let ticket = ResetTicket(self.next_ticket());
        self.lifecycle = Lifecycle::Resetting {
            kind,
            ticket,
            found,
        };
        effects.push(Effect::Reset { kind, ticket });
    }

    /// A number that no unanswered question has.
    pub(super) fn next_ticket(&mut self) -> u32 {
        self.last_ticket = self.last_ticket.wrapping_add(1);
        self.last_ticket
    }

    pub(super) fn reset_registers(&mut self) {
        let Self {
            config: _,
            status,
            driver_features,
            config_vector,
            selectors,
            queues,
            lifecycle: _,
            // A hold outlives the reset that it is for, and only the guest, or a reboot, ends a freeze.
            holds: _,
            away: _,
            freeze: _,
            freeze_ticket: _,
            bus: _,
            last_ticket: _,
            device_config: _,
            counters: _,
        } = self;
        *status = DeviceStatus::default();
        *driver_features = 0;
        *config_vector = VIRTIO_MSI_NO_VECTOR;
        *selectors = Selectors::default();
        queues.iter_mut().for_each(Queue::reset);
    }
}
