// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the device adds to the time a guest takes to wake.

use anyhow::{Context, Result, ensure};
use guest_agent::protocol::Target;
use tests::guest::Guest;
use tests::lab::{Kernel, Lab};
use tests::machine::{Gpu, Machine};
use tests::resume::ResumeTimes;

use crate::on_every_kernel;
use crate::rig::{GPU_ADDRESS, Rig, SOFT_RESET};

/// Sleeps a measurement is the median of.
const SLEEPS: usize = 3;
/// A limit that only a device which makes its driver wait exceeds, on a loaded machine under TCG too.
const DEVICE_LIMIT_MS: f64 = 500.0;

on_every_kernel!(the_device_adds_little_to_the_time_a_wake_takes);

fn the_device_adds_little_to_the_time_a_wake_takes(kernel: Kernel) -> Result<()> {
    let Some(lab) = Lab::find()? else {
        return Ok(());
    };
    let without = Guest::boot(&lab, &Machine::new("resume-no-gpu", kernel, Gpu::None))?;
    let baseline = median(&without)?;
    drop(without);
    for (name, options) in [("resume", &[][..]), ("resume-soft-reset", &SOFT_RESET)] {
        let Some(rig) = Rig::start(name, kernel, options)? else {
            return Ok(());
        };
        rig.show(Target::Fb, 1)?;
        let times = median(&rig.guest)?;
        println!(
            "{kernel} {name}: all devices {:.1} ms, of these the GPU {:.1} ms; without a GPU {:.1} ms",
            times.all_devices, times.device, baseline.all_devices
        );
        ensure!(
            times.device > 0.0,
            "the kernel logged no callback of the GPU"
        );
        ensure!(
            times.device < DEVICE_LIMIT_MS,
            "the GPU took {:.1} ms to resume",
            times.device
        );
    }
    Ok(())
}

fn median(guest: &Guest) -> Result<ResumeTimes> {
    let mut times = (0..SLEEPS)
        .map(|_| Ok(ResumeTimes::of(&guest.timed_sleep()?, GPU_ADDRESS)))
        .collect::<Result<Vec<_>>>()?;
    times.sort_by(|a, b| a.all_devices.total_cmp(&b.all_devices));
    times.get(SLEEPS / 2).copied().context("at least one sleep")
}
