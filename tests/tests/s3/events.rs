// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What happens around sleeps: aborted ones, reboots, drivers that come and go, the text console.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use guest_agent::protocol::{Command, Target};
use tests::guest::Wake;
use tests::image::Image;
use tests::lab::Kernel;
use tests::machine::Machine;

use crate::on_every_kernel;
use crate::rig::{GPU_ADDRESS, Rig, SOFT_RESET};

/// For text to appear on the console, and for a driver to set its display up.
const LIMIT: Duration = Duration::from_secs(20);

on_every_kernel!(
    an_aborted_sleep_keeps_the_display,
    the_display_survives_suspend_to_idle,
    a_guest_rebooted_after_a_sleep_has_a_display,
    a_driver_bound_again_after_a_wake_has_a_display,
    the_text_console_survives_a_sleep,
);

/// `pm_test=devices` never reaches D3hot: with a reset of the function at the end of it, BusMaster going
/// off is the only hint that the device gets.
fn an_aborted_sleep_keeps_the_display(kernel: Kernel) -> Result<()> {
    let Some(rig) = Rig::start("abort", kernel, &SOFT_RESET)? else {
        return Ok(());
    };
    let target = rig.kept(Target::Fb);
    for seed in [1, 2] {
        let picture = rig.show(target, seed)?;
        rig.guest.abort_sleep_at("devices")?;
        rig.server.must_show("after-wake", &picture)?;
        rig.show(target, seed + 100)?;
    }
    let picture = rig.show(Target::Drm, 3)?;
    rig.sleep_keeping(&picture, Wake::Host)
        .context("a real sleep after the aborted ones")?;
    rig.guest.must_have_no_gpu_complaint(0)
}

/// The functions go to D3hot and back, and no platform reset comes in between.
fn the_display_survives_suspend_to_idle(kernel: Kernel) -> Result<()> {
    for (name, options) in [("idle", &[][..]), ("idle-soft-reset", &SOFT_RESET)] {
        let Some(rig) = Rig::start(name, kernel, options)? else {
            return Ok(());
        };
        for (seed, target) in [(1, rig.kept(Target::Fb)), (2, Target::Drm)] {
            let picture = rig.show(target, seed)?;
            let from = rig.server.position();
            rig.guest.idle(|| rig.server.wait_event("sleep", from))?;
            rig.server.must_show("after-wake", &picture)?;
            rig.show(target, seed + 100)?;
        }
        rig.guest.must_have_no_gpu_complaint(0)?;
    }
    Ok(())
}

/// Up to its DEVICE_RESET a reboot looks like a wake; the new guest must not meet the old one's ids.
fn a_guest_rebooted_after_a_sleep_has_a_display(kernel: Kernel) -> Result<()> {
    let adapt = Machine::allowed_to_reboot;
    let Some(rig) = Rig::start_machine("reboot", kernel, &[], adapt)? else {
        return Ok(());
    };
    let picture = rig.show(Target::Drm, 1)?;
    rig.sleep_keeping(&picture, Wake::Host)?;
    rig.guest.reboot()?;
    let picture = rig.show(Target::Fb, 2).context("after the reboot")?;
    rig.sleep_keeping(&picture, Wake::Host)
        .context("after the reboot")?;
    rig.show(Target::Drm, 3)
        .context("after the reboot and a sleep")?;
    let errors = rig.server.counter("errors")?;
    ensure!(errors == 0, "{errors} commands of the guests failed");
    rig.guest.must_have_no_gpu_complaint(0)
}

fn a_driver_bound_again_after_a_wake_has_a_display(kernel: Kernel) -> Result<()> {
    let Some(rig) = Rig::start("bind", kernel, &SOFT_RESET)? else {
        return Ok(());
    };
    let target = rig.kept(Target::Fb);
    let picture = rig.show(target, 1)?;
    rig.sleep_keeping(&picture, Wake::Host)?;
    let drivers = [
        ("virtio/drivers/virtio_gpu", "virtio0"),
        ("pci/drivers/virtio-pci", GPU_ADDRESS),
    ];
    for (seed, (driver, device)) in (2..).step_by(2).zip(drivers) {
        // An open file keeps the old card0, and the new one is another.
        rig.guest.call::<()>(Command::ReleaseDrm)?;
        attach(&rig, driver, "unbind", device)?;
        attach(&rig, driver, "bind", device)?;
        let picture = rig
            .show(target, seed)
            .with_context(|| format!("after binding {driver}"))?;
        rig.sleep_keeping(&picture, Wake::Host)
            .with_context(|| format!("after binding {driver}"))?;
        rig.show(target, seed + 1)?;
    }
    rig.guest.must_have_no_gpu_complaint(0)
}

fn attach(rig: &Rig, driver: &str, action: &str, device: &str) -> Result<()> {
    let path = format!("/sys/bus/{driver}/{action}");
    rig.guest.call(Command::Write {
        path,
        text: device.to_owned(),
    })
}

fn the_text_console_survives_a_sleep(kernel: Kernel) -> Result<()> {
    let Some(rig) = Rig::start("fbcon", kernel, &[])? else {
        return Ok(());
    };
    let first = print_on_console(&rig, "before the sleep\r\n", |image| !image.is_black())?;
    rig.sleep_keeping(&first, Wake::Host)?;
    print_on_console(&rig, "after the sleep\r\n", |image| image != &first)?;
    rig.guest.must_have_no_gpu_complaint(0)
}

/// Prints a line and waits until the screen shows something that is `changed`, and twice the same.
fn print_on_console(rig: &Rig, text: &str, changed: impl Fn(&Image) -> bool) -> Result<Image> {
    rig.guest.call::<()>(Command::Write {
        path: "/dev/tty1".to_owned(),
        text: text.to_owned(),
    })?;
    let deadline = Instant::now() + LIMIT;
    let mut last = rig.server.screenshot("console")?.image;
    loop {
        // The round trip gives the console time to go on painting.
        rig.guest.call::<String>(Command::Read {
            path: "/proc/uptime".to_owned(),
        })?;
        let now = rig.server.screenshot("console")?.image;
        if changed(&now) && now == last {
            return Ok(now);
        }
        ensure!(
            Instant::now() < deadline,
            "{text:?} did not appear on the console"
        );
        last = now;
    }
}
