// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which thread runs where: the driver on one core, every device on another, as guest and host have cores of their own.

use anyhow::Result;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    driver: usize,
    device: usize,
}

impl Cores {
    /// The first two that this process may use; `None` where there is one only, and nothing to choose.
    pub(crate) fn choose() -> Result<Option<Self>> {
        let allowed = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
        Ok(match (cores.next(), cores.next()) {
            (Some(driver), Some(device)) => Some(Self { driver, device }),
            _ => None,
        })
    }

    /// Keeps this thread on the driver's core.
    pub(crate) fn pin_driver(self) -> Result<()> {
        pin(self.driver)
    }

    /// Keeps this thread, and every thread and process that it starts from now on, on the devices' core.
    pub(crate) fn pin_device(self) -> Result<()> {
        pin(self.device)
    }

    /// Does something on the devices' core, and comes back.
    pub(crate) fn on_device<T>(self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.pin_device()?;
        let done = work();
        self.pin_driver()?;
        done
    }
}

fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set)?;
    Ok(())
}
