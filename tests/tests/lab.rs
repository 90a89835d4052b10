// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The lab itself, proven with QEMU's own virtio-gpu: guests boot, draw, sleep and wake. It is also
//! the peer our device is compared with: by default it loses the picture at every sleep.

use anyhow::{Result, ensure};
use guest_agent::protocol::{Command, Info, Target};
use tests::guest::{Guest, Wake};
use tests::image::Image;
use tests::lab::{Kernel, Lab};
use tests::machine::{Gpu, Machine};

/// QEMU's virtio-gpu with the PM capability's No_Soft_Reset, which needs a PCIe port.
const NO_SOFT_RESET: Gpu = Gpu::Qemu(",x-pcie-pm-no-soft-reset=on");

fn wait_for_screen(guest: &Guest, name: &str, expected: &Image) -> Result<()> {
    // The flush of a draw may still be on its way through QEMU; a reply from the guest is behind it.
    let mut result = guest.screendump(name)?.must_be(expected);
    for _ in 0..50 {
        if result.is_ok() {
            break;
        }
        guest.call::<Info>(Command::Info)?;
        result = guest.screendump(name)?.must_be(expected);
    }
    result
}

fn five_cycles(kernel: Kernel) -> Result<()> {
    let Some(lab) = Lab::find()? else {
        return Ok(());
    };
    let machine = Machine::new("lab-no-soft-reset", kernel, NO_SOFT_RESET).behind_root_port();
    let guest = Guest::boot(&lab, &machine)?;
    let info: Info = guest.call(Command::Info)?;
    ensure!(
        info.mem_sleep.contains("[deep]"),
        "no S3 in this guest: {info:?}"
    );
    for cycle in 0..5 {
        let expected = guest.draw(Target::Fb, cycle)?;
        if kernel.honours_no_soft_reset() {
            wait_for_screen(&guest, "before", &expected)?;
        }
        let wake = if cycle == 0 {
            Wake::Alarm(5)
        } else {
            Wake::Host
        };
        guest.sleep(wake, || Ok(()))?;
        if kernel.honours_no_soft_reset() {
            guest.screendump("after")?.must_be(&expected)?;
        }
    }
    Ok(())
}

#[test]
fn linux_6_1_sleeps_and_wakes_five_times() -> Result<()> {
    five_cycles(Kernel::V6_1)
}

#[test]
fn linux_6_12_sleeps_wakes_and_keeps_its_picture_with_no_soft_reset() -> Result<()> {
    five_cycles(Kernel::V6_12)
}

#[test]
fn linux_7_sleeps_wakes_and_keeps_its_picture_with_no_soft_reset() -> Result<()> {
    five_cycles(Kernel::V7)
}

#[test]
fn a_drm_client_and_the_console_show_the_same_picture() -> Result<()> {
    let Some(lab) = Lab::find()? else {
        return Ok(());
    };
    let guest = Guest::boot(
        &lab,
        &Machine::new("lab-draw", Kernel::V6_12, Gpu::Qemu("")),
    )?;
    let fb = guest.draw(Target::Fb, 1)?;
    wait_for_screen(&guest, "fb", &fb)?;
    let drm = guest.draw(Target::Drm, 2)?;
    wait_for_screen(&guest, "drm", &drm)
}

#[test]
fn the_virtio_gpu_of_qemu_loses_its_picture_at_a_sleep() -> Result<()> {
    let Some(lab) = Lab::find()? else {
        return Ok(());
    };
    let guest = Guest::boot(
        &lab,
        &Machine::new("lab-peer", Kernel::V6_12, Gpu::Qemu("")),
    )?;
    let expected = guest.draw(Target::Fb, 1)?;
    wait_for_screen(&guest, "before", &expected)?;
    guest.sleep(Wake::Host, || Ok(()))?;
    let after = guest.screendump("after")?;
    ensure!(after.must_be(&expected).is_err(), "the picture survived");
    Ok(())
}
