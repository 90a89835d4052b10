// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What must survive a sleep: the picture, and the driver's ability to draw the next one.

use anyhow::{Context, Result, ensure};
use guest_agent::protocol::{Command, LoadReport, Target};
use tests::guest::Wake;
use tests::lab::Kernel;
use tests::machine::Machine;

use crate::on_every_kernel;
use crate::rig::{GPU_ADDRESS, Rig, SOFT_RESET};

/// Seconds until the RTC wakes the guest: it must be asleep by then, on a loaded machine too.
const ALARM_S: u32 = 5;

on_every_kernel!(
    the_display_survives_five_sleeps_with_default_options,
    the_display_survives_five_sleeps_when_the_driver_resets_the_function,
    the_display_survives_eight_sleeps_under_a_drawing_load_with_default_options,
    the_display_survives_eight_sleeps_under_a_drawing_load_when_the_driver_resets_the_function,
);

fn the_display_survives_five_sleeps_with_default_options(kernel: Kernel) -> Result<()> {
    five_sleeps("five", kernel, &[])
}

fn the_display_survives_five_sleeps_when_the_driver_resets_the_function(
    kernel: Kernel,
) -> Result<()> {
    five_sleeps("five-soft-reset", kernel, &SOFT_RESET)
}

fn the_display_survives_eight_sleeps_under_a_drawing_load_with_default_options(
    kernel: Kernel,
) -> Result<()> {
    eight_loaded_sleeps("load", kernel, &[])
}

fn the_display_survives_eight_sleeps_under_a_drawing_load_when_the_driver_resets_the_function(
    kernel: Kernel,
) -> Result<()> {
    eight_loaded_sleeps("load-soft-reset", kernel, &SOFT_RESET)
}

fn five_sleeps(name: &str, kernel: Kernel, options: &[&str]) -> Result<()> {
    let Some(rig) = Rig::start(name, kernel, options)? else {
        return Ok(());
    };
    let cycles = [
        (Target::Fb, Wake::Alarm(ALARM_S)),
        (Target::Fb, Wake::Host),
        (Target::Drm, Wake::Host),
        (Target::Drm, Wake::Host),
        (Target::Drm, Wake::Host),
    ];
    for (seed, (target, wake)) in (1..).zip(cycles) {
        let target = rig.kept(target);
        let picture = rig.show(target, seed)?;
        let report = rig
            .sleep_keeping(&picture, wake)
            .with_context(|| format!("sleep {seed}"))?;
        if let Wake::Alarm(_) = wake {
            ensure!(report.asleep_ms > 0, "the clocks saw no sleep: {report:?}");
        }
        rig.show(target, seed + 100)
            .with_context(|| format!("after sleep {seed}"))?;
    }
    rig.guest.call::<()>(Command::ReleaseDrm)?;
    rig.show(Target::Fb, 200)
        .context("the console after a DRM client")?;
    rig.guest.must_have_no_gpu_complaint(0)
}

fn eight_loaded_sleeps(name: &str, kernel: Kernel, options: &[&str]) -> Result<()> {
    loaded_sleeps(name, kernel, options, 1)
}

/// A driver that runs on one CPU while the other one puts its device to sleep.
#[test]
fn the_display_of_a_guest_with_two_cpus_survives_eight_sleeps_under_a_drawing_load() -> Result<()> {
    loaded_sleeps("load-smp", Kernel::V7, &SOFT_RESET, 2)
}

fn loaded_sleeps(name: &str, kernel: Kernel, options: &[&str], cpus: u8) -> Result<()> {
    let adapt = |machine: Machine| machine.with_cpus(cpus);
    let Some(rig) = Rig::start_machine(name, kernel, options, adapt)? else {
        return Ok(());
    };
    for target in [Target::FbMapping, Target::Drm] {
        rig.guest.call::<()>(Command::LoadStart { target })?;
        for cycle in 1..=4 {
            rig.guest.sleep(Wake::Host, || Ok(()))?;
            rig.guest
                .must_have_cpus(cpus)
                .with_context(|| format!("{target:?}, sleep {cycle}"))?;
            // A driver that waits for ring space for ever still completes what was in the ring.
            rig.wait_for_commands(12)
                .with_context(|| format!("{target:?}, sleep {cycle}"))?;
        }
        let load: LoadReport = rig.guest.call(Command::LoadStop)?;
        ensure!(load.errors == 0, "draws failed: {load:?}");
        ensure!(load.frames > 4, "the load drew next to nothing: {load:?}");
        rig.show(target, 300)
            .with_context(|| format!("after the load on {target:?}"))?;
    }
    rig.guest.must_have_no_gpu_complaint(0)
}

#[test]
fn the_display_survives_a_sleep_behind_a_root_port() -> Result<()> {
    for options in [&[][..], &SOFT_RESET] {
        let Some(rig) = Rig::start_machine("port", Kernel::V7, options, Machine::behind_root_port)?
        else {
            return Ok(());
        };
        let target = rig.kept(Target::Fb);
        let picture = rig.show(target, 1)?;
        rig.sleep_keeping(&picture, Wake::Host)?;
        rig.show(target, 2)?;
        rig.guest.must_have_no_gpu_complaint(0)?;
    }
    Ok(())
}

/// The address that the other suites name is the GPU's.
#[test]
fn the_gpu_is_where_the_suites_look_for_it() -> Result<()> {
    let Some(rig) = Rig::start("address", Kernel::V6_12, &[])? else {
        return Ok(());
    };
    let path = format!("/sys/bus/pci/devices/{GPU_ADDRESS}/device");
    let device: String = rig.guest.call(Command::Read { path })?;
    // VIRTIO 1.4 §4.1.2: 0x1040 + the device ID of a GPU, 16.
    ensure!(device == "0x1050", "{GPU_ADDRESS} is {device}");
    Ok(())
}
