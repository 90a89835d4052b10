// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Why the device holds, and what it parks.
//!
//! A reset and a sleep are different events, and the device must know which one it sees. The guest's `freeze_mode`,
//! the PCI power state, the bus master bit, the platform's own word and VIRTIO_F_SUSPEND all tell it; each is a
//! *reason to hold*, and while one stands a reset retains the device's state.

use core::fmt::{Display, Formatter, Result as FmtResult};

use crate::queue::QueueSetup;

mod saved;

/// A reason to retain the device's state across a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum HoldReason {
    /// The guest wrote FREEZE_S3 to `freeze_mode`, and has not written UNFREEZE.
    FreezeMode,
    /// The function was put into D3hot.
    D3hot,
    /// The driver took bus mastering away from a running device, as Linux does when a device sleeps.
    BusMasterOff,
    /// The VMM said that the guest sleeps.
    PlatformSleep,
    /// The function was reset from outside while it was running or held: a wake looks like that, and so does a reboot.
    FunctionReset,
    /// The driver itself reset a running device and nobody has looked for the device since: see
    /// [`HoldSources::same_driver`].
    SameDriver,
    /// The driver suspended the device (VIRTIO 1.4 §3.4). Holds across a function reset only.
    Suspended,
}

impl HoldReason {
    /// Every reason, in the order they are reported.
    pub const ALL: [Self; 7] = [
        Self::FreezeMode,
        Self::D3hot,
        Self::BusMasterOff,
        Self::PlatformSleep,
        Self::FunctionReset,
        Self::SameDriver,
        Self::Suspended,
    ];
}

impl Display for HoldReason {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        f.write_str(match self {
            Self::FreezeMode => "freeze-mode",
            Self::D3hot => "d3hot",
            Self::BusMasterOff => "bus-master-off",
            Self::PlatformSleep => "platform-sleep",
            Self::FunctionReset => "function-reset",
            Self::SameDriver => "same-driver",
            Self::Suspended => "suspended",
        })
    }
}

/// Which hints make the device hold, besides the guest's explicit requests (`freeze_mode` and SUSPEND).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldSources {
    /// D3hot.
    pub d3hot: bool,
    /// BusMaster going from 1 to 0 on a running device.
    pub bus_master_off: bool,
    /// A function reset of a running device, for VMMs that cannot tell a wake from a reboot.
    pub function_reset: bool,
    /// The driver's own reset of a running device, until somebody reads the capabilities that say where the registers
    /// are, or negotiates without having slept.
    ///
    /// Drivers with sleep hooks (Linux 7.3's virtio-gpu) reset the device *before* anything tells of a sleep, and name
    /// their old resources afterwards. A driver that is bound anew, and one of a rebooted guest, has to find the
    /// registers first; one that comes back from a sleep knows where they are. So such a reset retains until the
    /// capabilities are read, and nothing that a driver can see differs from a reset: the state is gone before a new
    /// one can name it.
    ///
    /// It also ends where a driver begins to negotiate and the function had bus and power all the time since the reset: a
    /// sleep takes one of them. Linux does that at once when a driver is unbound, and so does one that is attached again and
    /// remembers where its registers are.
    pub same_driver: bool,
}

impl HoldSources {
    /// Every hint.
    pub const ALL: Self = Self {
        d3hot: true,
        bus_master_off: true,
        function_reset: true,
        same_driver: true,
    };
    /// No hint: only what the guest asks for in so many words.
    pub const NONE: Self = Self {
        d3hot: false,
        bus_master_off: false,
        function_reset: false,
        same_driver: false,
    };
}

/// Doorbells after which a wake that brought no reset is over.
///
/// One is not enough. The workers of Linux's virtio-gpu are not frozen during suspend, and one of them can ring
/// between BusMaster coming back and the driver's own reset; were the hold to end there, that reset would be a full one.
/// A driver that meant to reset does so within a few instructions, so a small number settles it, without a clock.
pub const RELEASE_AFTER_NOTIFICATIONS: u16 = 32;

/// One reason that begins with an event and ends once the driver has shown which way it comes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Linger {
    /// No hold.
    #[default]
    Absent,
    /// The cause stands.
    Standing,
    /// The cause is gone, and the driver has not shown itself. Counts its doorbells.
    Lingering(u16),
}

impl Linger {
    fn begin(&mut self) {
        *self = Self::Standing;
    }

    fn end_cause(&mut self) {
        if *self == Self::Standing {
            *self = Self::Lingering(0);
        }
    }

    fn is_held(self) -> bool {
        self != Self::Absent
    }

    /// The driver rang a doorbell.
    fn notified(&mut self) {
        if let Self::Lingering(count) = self {
            *count = count.saturating_add(1);
            if *count >= RELEASE_AFTER_NOTIFICATIONS {
                *self = Self::Absent;
            }
        }
    }

    /// The driver came back through DRIVER_OK.
    fn driver_ok(&mut self) {
        if matches!(self, Self::Lingering(_)) {
            *self = Self::Absent;
        }
    }
}

/// The driver's own reset of a running device, and whether it can have to do with a sleep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum DriverReset {
    /// There was none, or its driver is known by now.
    #[default]
    Absent,
    /// None yet, but the function lost bus or power, or was reset, without a hold that says so. Counts the driver's doorbells
    /// since: one that slept resets the device before it works.
    Paused(u16),
    /// It came while nothing spoke of a sleep, and nothing has since.
    Awake,
    /// It came after or before the function lost bus or power, or was reset.
    Slept,
}

impl DriverReset {
    fn is_held(self) -> bool {
        matches!(self, Self::Awake | Self::Slept)
    }

    fn begin(&mut self, awake: bool) {
        *self = match self {
            Self::Absent | Self::Awake if awake => Self::Awake,
            _ => Self::Slept,
        };
    }

    fn slept(&mut self) {
        *self = match self {
            Self::Absent | Self::Paused(_) => Self::Paused(0),
            Self::Awake | Self::Slept => Self::Slept,
        };
    }

    fn notified(&mut self) {
        if let Self::Paused(count) = self {
            *count = count.saturating_add(1);
            if *count >= RELEASE_AFTER_NOTIFICATIONS {
                *self = Self::Absent;
            }
        }
    }
}

/// What happened since the device could touch guest memory last, as far as it says whose that memory is.
///
/// A kernel that comes back from hibernation takes the machine over from the one that loaded it: BusMaster goes and comes back,
/// and between the two configuration space and MSI-X are restored, but nothing sleeps. The pages of the kernel before are
/// overwritten where the other one had some, and stay as they were where it had none: so nothing in memory can tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Away {
    /// It can, or has no state.
    #[default]
    Not,
    /// BusMaster went.
    Paused,
    /// And MSI-X was set up again, or could have been without a trace.
    Restored,
    /// The function lost power, was reset, or the platform slept: no kernel hands over to another by that.
    Slept,
}

impl Away {
    pub(crate) fn paused(&mut self) {
        if *self == Self::Not {
            *self = Self::Paused;
        }
    }

    pub(crate) fn restored(&mut self) {
        if *self == Self::Paused {
            *self = Self::Restored;
        }
    }

    pub(crate) fn slept(&mut self) {
        if matches!(self, Self::Not | Self::Paused) {
            *self = Self::Slept;
        }
    }
}

/// The reasons that begin with a hint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holds {
    d3hot: Linger,
    bus_master_off: Linger,
    platform_sleep: Linger,
    function_reset: Linger,
    same_driver: DriverReset,
}

impl Holds {
    pub(crate) fn begin(&mut self, reason: HoldReason) {
        if let Some(hold) = self.get_mut(reason) {
            hold.begin();
        }
    }

    pub(crate) fn end_cause(&mut self, reason: HoldReason) {
        if let Some(hold) = self.get_mut(reason) {
            hold.end_cause();
        }
    }

    pub(crate) fn is_held(&self, reason: HoldReason) -> bool {
        match reason {
            HoldReason::D3hot => self.d3hot.is_held(),
            HoldReason::BusMasterOff => self.bus_master_off.is_held(),
            HoldReason::PlatformSleep => self.platform_sleep.is_held(),
            HoldReason::FunctionReset => self.function_reset.is_held(),
            HoldReason::SameDriver => self.same_driver.is_held(),
            HoldReason::FreezeMode | HoldReason::Suspended => false,
        }
    }

    pub(crate) fn is_any(&self) -> bool {
        HoldReason::ALL
            .into_iter()
            .any(|reason| self.is_held(reason))
    }

    /// Whether the VMM has said that the guest sleeps, and not yet that it woke.
    pub(crate) fn is_platform_asleep(&self) -> bool {
        self.platform_sleep == Linger::Standing
    }

    /// Whether there is a reason that memory outlives, whoever gives BusMaster back.
    pub(crate) fn is_asleep(&self) -> bool {
        [self.d3hot, self.platform_sleep, self.function_reset]
            .into_iter()
            .any(Linger::is_held)
    }

    /// Whether a cause stands now, rather than having stood.
    pub(crate) fn is_standing(&self) -> bool {
        let Self {
            d3hot,
            bus_master_off,
            platform_sleep,
            function_reset,
            same_driver: _,
        } = self;
        [d3hot, bus_master_off, platform_sleep, function_reset].contains(&&Linger::Standing)
    }

    /// Begins a hold whose cause is over at once.
    pub(crate) fn linger(&mut self, reason: HoldReason) {
        self.begin(reason);
        self.end_cause(reason);
    }

    /// The driver reset the running device; `awake` says whether the function had bus and power.
    pub(crate) fn driver_reset(&mut self, awake: bool) {
        self.same_driver.begin(awake);
    }

    /// The function lost bus or power, or was reset, or the guest sleeps. Where that is a hold it needs no note: each lasts
    /// until the driver has shown itself.
    pub(crate) fn slept(&mut self) {
        if self.same_driver.is_held() || !self.is_any() {
            self.same_driver.slept();
        }
    }

    /// Whether there is no reason but a reset by a driver that shows no sign of a sleep.
    pub(crate) fn is_only_awake_reset(&self) -> bool {
        *self
            == Self {
                same_driver: DriverReset::Awake,
                ..Self::default()
            }
    }

    /// The driver rang a doorbell of the running device.
    pub(crate) fn notified(&mut self) {
        self.each(Linger::notified);
        self.same_driver.notified();
    }

    /// The driver came back through DRIVER_OK: every cause that is over no longer holds.
    pub(crate) fn driver_ok(&mut self) {
        self.each(Linger::driver_ok);
        self.same_driver = DriverReset::Absent;
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    fn each(&mut self, f: impl Fn(&mut Linger)) {
        let Self {
            d3hot,
            bus_master_off,
            platform_sleep,
            function_reset,
            same_driver: _,
        } = self;
        [d3hot, bus_master_off, platform_sleep, function_reset]
            .into_iter()
            .for_each(f);
    }

    fn get_mut(&mut self, reason: HoldReason) -> Option<&mut Linger> {
        match reason {
            HoldReason::D3hot => Some(&mut self.d3hot),
            HoldReason::BusMasterOff => Some(&mut self.bus_master_off),
            HoldReason::PlatformSleep => Some(&mut self.platform_sleep),
            HoldReason::FunctionReset => Some(&mut self.function_reset),
            HoldReason::SameDriver | HoldReason::FreezeMode | HoldReason::Suspended => None,
        }
    }
}

/// The `freeze_mode` register and the request behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum FreezeState {
    /// Reads UNFREEZE; a reset is a reset.
    #[default]
    Unfrozen,
    /// FREEZE_S3 was written and already holds, but the device has not confirmed it: reads UNFREEZE.
    Freezing,
    /// Reads FREEZE_S3.
    Frozen,
}

/// The queue set-up that a frozen reset put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ParkedQueues {
    /// The features negotiated then; the queues come back only under the same.
    pub features: u64,
    /// The vector for configuration changes.
    pub config_vector: u16,
    /// The queues that were enabled.
    pub queues: Vec<QueueSetup>,
}

/// What the device holds while it is stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// Nothing: it has not run since the last full reset.
    #[default]
    Clean,
    /// The state of before a frozen reset, and the queues if any were live.
    Retained(Option<ParkedQueues>),
}
