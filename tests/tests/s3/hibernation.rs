// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Hibernation (ACPI S4), which this device does not claim to survive: what must survive is the guest.
//!
//! Under it guest memory changes hands: a kernel boots, reads the image, and jumps into the kernel that is in it, whose pages
//! are everywhere then. Linux 6.1 and 6.12 take the device over without a word of their queues, just as after a sleep.

use std::fs;

use anyhow::{Context, Result, ensure};
use guest_agent::protocol::{Command, MemoryReport, RunReport, Target};
use tests::daemon::Daemon;
use tests::guest::Guest;
use tests::image::Image;
use tests::lab::{Kernel, Lab};
use tests::machine::{Gpu, Machine};

use crate::on_every_kernel;
use crate::rig::GPU_ADDRESS;

/// What the kernel needs to hibernate while all else is full: room for its image, and its own working memory.
const LEAVE_KIB: u64 = 96 << 10;
/// So much must be filled for the test to mean anything, of 512 MiB.
const FILLED: u64 = 256 << 20;

on_every_kernel!(a_guest_that_hibernates_has_its_memory_and_a_display_that_can_be_had_again);

fn a_guest_that_hibernates_has_its_memory_and_a_display_that_can_be_had_again(
    kernel: Kernel,
) -> Result<()> {
    let Some(lab) = Lab::find()? else {
        return Ok(());
    };
    let server = Daemon::start(&lab, &format!("hibernation-{kernel}"), &[])?;
    let disk = lab.run_directory(&format!("hibernation-disk-{kernel}"))?;
    let machine = |name: &str| {
        let gpu = Gpu::VfioUser(server.device_socket());
        Machine::new(name, kernel, gpu).with_swap(disk.join("swap"))
    };
    let guest = Guest::boot(&lab, &machine("hibernation")?)?;
    run(&guest, "mkswap", &["/dev/vda"])?;
    run(&guest, "swapon", &["/dev/vda"])?;
    let filled: MemoryReport = guest.call(Command::FillMemory {
        leave_kib: LEAVE_KIB,
    })?;
    ensure!(filled.bytes >= FILLED && filled.changed == 0, "{filled:?}");

    let picture = guest.draw(Target::Drm, 1)?;
    server.wait_for_picture("drawn", &picture)?;
    // Linux 6.1 refuses to go on from a disk that it swaps to, but for the boot that comes after.
    if kernel != Kernel::V6_1 {
        let from = server.position();
        guest.hibernate_and_resume()?;
        must_be_unchanged(&guest, &filled).context("in the same machine")?;
        must_go_on(&lab, kernel, (&guest, &server), (from, &picture))?;
    }
    let picture = guest.draw(Target::Drm, 2)?;
    server.wait_for_picture("drawn-again", &picture)?;

    let from = server.position();
    let (guest, _) = guest.hibernate_into(&lab, &machine("hibernation-resumed")?)?;
    must_be_unchanged(&guest, &filled).context("in another machine")?;
    must_go_on(&lab, kernel, (&guest, &server), (from, &picture))?;
    let picture = guest.draw(Target::Drm, 3)?;
    server.wait_for_picture("drawn-in-another-machine", &picture)?;
    must_be_unchanged(&guest, &filled)?;
    // As large as the guest's memory, and of no use to whoever reads the logs.
    fs::remove_dir_all(&disk).context("remove the disk")
}

/// A driver that made its queues and resources anew has its picture. For any other the device has asked for a reset and holds
/// nothing of the kernel before, has read no ring of that one, and works once the driver is bound again.
fn must_go_on(
    lab: &Lab,
    kernel: Kernel,
    (guest, server): (&Guest, &Daemon),
    (from, picture): (usize, &Image),
) -> Result<()> {
    let bad_chains = server.counter("bad_chains")?;
    ensure!(bad_chains == 0, "{bad_chains} buffers of nobody were taken");
    if lab.driver_resets_at_sleep(kernel)? {
        return server.wait_for_picture("gone-on", picture);
    }
    server.wait_event("needs-reset", from)?;
    must_hold_nothing(server)?;
    bind_again(guest)
}

fn must_be_unchanged(guest: &Guest, filled: &MemoryReport) -> Result<()> {
    let found: MemoryReport = guest.call(Command::CheckMemory)?;
    ensure!(found == *filled, "the guest's memory changed: {found:?}");
    Ok(())
}

/// The kernel that has the machine now did not make what the one before it made.
fn must_hold_nothing(server: &Daemon) -> Result<()> {
    let status = server.status()?;
    let nothing = status["state"] == "needs-reset" && status["resources"] == 0;
    ensure!(nothing, "{status}");
    Ok(())
}

/// What a user can do where the driver does not do it: have it find the device anew, which a reset cures.
fn bind_again(guest: &Guest) -> Result<()> {
    guest.call::<()>(Command::ReleaseDrm)?;
    for file in ["unbind", "bind"] {
        guest.call::<()>(Command::Write {
            path: format!("/sys/bus/pci/drivers/virtio-pci/{file}"),
            text: GPU_ADDRESS.to_owned(),
        })?;
    }
    Ok(())
}

fn run(guest: &Guest, program: &str, arguments: &[&str]) -> Result<()> {
    let report: RunReport = guest.call(Command::Run {
        program: program.to_owned(),
        arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
    })?;
    ensure!(report.status == Some(0), "{program}: {report:?}");
    Ok(())
}
