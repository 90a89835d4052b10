// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Machines whose platform is not the usual one.

use anyhow::{Context, Result, ensure};
use guest_agent::protocol::{Command, Target};
use tests::guest::Wake;
use tests::lab::Kernel;
use tests::machine::Machine;

use crate::on_every_kernel;
use crate::rig::{GPU_ADDRESS, Rig, SOFT_RESET};

on_every_kernel!(
    the_display_survives_sleeps_of_a_guest_without_msi,
    the_display_survives_sleeps_behind_an_iommu,
);

/// Each kernel on another way: 6.12 touches nothing, 6.1 resets, and 7.x sets up its queues again.
fn the_display_survives_sleeps_of_a_guest_without_msi(kernel: Kernel) -> Result<()> {
    let options = match kernel {
        Kernel::V6_1 | Kernel::V6_12 => &[][..],
        Kernel::V7 => &SOFT_RESET,
    };
    let adapt = |machine: Machine| machine.with_parameters("pci=nomsi");
    let Some(rig) = Rig::start_machine("nomsi", kernel, options, adapt)? else {
        return Ok(());
    };
    let path = "/proc/interrupts".to_owned();
    let interrupts: String = rig.guest.call(Command::Read { path })?;
    let line = interrupts.lines().find(|line| line.contains("virtio0"));
    let line = line.context("the GPU has no interrupt")?;
    ensure!(line.contains("IO-APIC"), "it is no line: {line}");
    draw_and_sleep(&rig)
}

fn the_display_survives_sleeps_behind_an_iommu(kernel: Kernel) -> Result<()> {
    let options = match kernel {
        Kernel::V6_1 | Kernel::V6_12 => &[][..],
        Kernel::V7 => &SOFT_RESET,
    };
    let Some(rig) = Rig::start_machine("iommu", kernel, options, Machine::behind_iommu)? else {
        return Ok(());
    };
    let path = format!("/sys/bus/pci/devices/{GPU_ADDRESS}/iommu_group/type");
    let domain: String = rig.guest.call(Command::Read { path })?;
    ensure!(domain.trim() == "DMA", "the domain is {domain}");
    draw_and_sleep(&rig)
}

/// Every pixel before and after, on the console and in a client's buffer.
fn draw_and_sleep(rig: &Rig) -> Result<()> {
    for (seed, target) in [(1, rig.kept(Target::Fb)), (2, Target::Drm)] {
        let picture = rig.show(target, seed)?;
        rig.sleep_keeping(&picture, Wake::Host)
            .with_context(|| format!("sleep {seed}"))?;
        rig.show(target, seed + 100)
            .with_context(|| format!("after sleep {seed}"))?;
    }
    rig.guest.must_have_no_gpu_complaint(0)
}
