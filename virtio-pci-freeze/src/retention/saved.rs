// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Holds to plain data and back.

use super::{DriverReset, Holds, Linger, RELEASE_AFTER_NOTIFICATIONS};
use crate::saved_state::{SavedHold, SavedHolds};

impl Linger {
    fn save(self) -> SavedHold {
        match self {
            Self::Absent => SavedHold::Absent,
            Self::Standing => SavedHold::Standing,
            Self::Lingering(count) => SavedHold::Lingering(count),
        }
    }

    fn restore(saved: SavedHold) -> Self {
        match saved {
            SavedHold::Standing => Self::Standing,
            SavedHold::Lingering(count) if count < RELEASE_AFTER_NOTIFICATIONS => {
                Self::Lingering(count)
            }
            SavedHold::Absent | SavedHold::Lingering(_) => Self::Absent,
        }
    }
}

/// In the form of the others. An earlier version knew of a reset alone, and saved it as lingering; that counts as one of a
/// driver that sleeps.
impl DriverReset {
    fn save(self) -> SavedHold {
        match self {
            Self::Absent => SavedHold::Absent,
            Self::Awake => SavedHold::Standing,
            Self::Slept => SavedHold::Lingering(0),
            Self::Paused(count) => SavedHold::Lingering(count.saturating_add(1)),
        }
    }

    fn restore(saved: SavedHold) -> Self {
        match saved {
            SavedHold::Absent => Self::Absent,
            SavedHold::Standing => Self::Awake,
            SavedHold::Lingering(0) => Self::Slept,
            SavedHold::Lingering(count) => Self::Paused(count.saturating_sub(1)),
        }
    }
}

impl Holds {
    pub(crate) fn save(&self) -> SavedHolds {
        let Self {
            d3hot,
            bus_master_off,
            platform_sleep,
            function_reset,
            same_driver,
        } = *self;
        SavedHolds {
            d3hot: d3hot.save(),
            bus_master_off: bus_master_off.save(),
            platform_sleep: platform_sleep.save(),
            function_reset: function_reset.save(),
            same_driver: same_driver.save(),
        }
    }

    pub(crate) fn restore(saved: &SavedHolds) -> Self {
        let SavedHolds {
            d3hot,
            bus_master_off,
            platform_sleep,
            function_reset,
            same_driver,
        } = *saved;
        Self {
            d3hot: Linger::restore(d3hot),
            bus_master_off: Linger::restore(bus_master_off),
            platform_sleep: Linger::restore(platform_sleep),
            function_reset: Linger::restore(function_reset),
            same_driver: DriverReset::restore(same_driver),
        }
    }
}
