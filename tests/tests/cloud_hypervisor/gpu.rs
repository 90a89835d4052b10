// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `--gpu` of Cloud Hypervisor itself: the GPU in the VMM's process, with a stock driver in the guest.

use std::env;
use std::process::Command as Program;

use anyhow::{Context, Result, ensure};
use guest_agent::protocol::{Command, Info, Target};
use serde_json::{Value, json};
use tests::lab::{Kernel, Lab};
use tests::nested::{CloudHypervisor, Gpu, Nested, Setup};

use crate::sleep;
use crate::wait::until;

const OPTION: &str = "width=640,height=480,id=gpu0,control=/tmp/control";

/// A guest whose VMM was started with these options. `None` without a lab, or without a build that has `--gpu`.
fn boot(name: &str, kernel: Kernel, arguments: &[&str]) -> Result<Option<Nested>> {
    let (Some(vmm), Some(lab)) = (CloudHypervisor::find_patched()?, Lab::find()?) else {
        return Ok(None);
    };
    if !has_gpu()? {
        eprintln!("skipped: CH_REMOTE was built without the feature gpu");
        return Ok(None);
    }
    let setup = Setup {
        gpu: Gpu::InArguments,
        prepare: vec!["mkdir /tmp/snapshot".to_owned()],
        arguments: arguments.iter().map(|&it| it.to_owned()).collect(),
        ..Setup::new(name, kernel)
    };
    Nested::boot(&lab, &vmm, &setup).map(Some)
}

pub(crate) fn has_gpu() -> Result<bool> {
    let program = env::var_os("CH_REMOTE").context("CH_REMOTE")?;
    let help = Program::new(program).arg("--help").output()?;
    Ok(String::from_utf8_lossy(&help.stdout).contains("add-gpu"))
}

/// How many devices the driver drives.
fn bound(nested: &Nested) -> Result<usize> {
    let listing = nested.inner_run("ls /sys/bus/virtio/drivers/virtio_gpu 2>/dev/null || true")?;
    let devices = listing.split_whitespace();
    Ok(devices.filter(|name| name.starts_with("virtio")).count())
}

fn must_draw(nested: &Nested, seed: u32) -> Result<()> {
    let info: Info = nested.call(Command::Info)?;
    ensure!(info.fb == Some((640, 480)), "no framebuffer: {info:?}");
    nested.show(Target::Fb, seed)?;
    nested.show(Target::Drm, seed + 1)?;
    // Or the framebuffer could not be seen any more.
    nested.call::<()>(Command::ReleaseDrm)?;
    nested.must_have_no_gpu_complaint(0)
}

#[test]
fn a_stock_guest_draws_and_a_reboot_leaves_nothing_stale() -> Result<()> {
    let option = format!("--gpu {OPTION}");
    let Some(nested) = boot("ch-gpu", Kernel::V6_12, &[option.as_str()])? else {
        return Ok(());
    };
    must_draw(&nested, 1)?;
    let before = nested.status()?;
    ensure!(before["state"] == "running", "{before}");
    let threads = nested.run("cat /proc/$(pidof cloud-hypervisor)/task/*/comm")?;
    ensure!(
        threads.contains("gpu0\n"),
        "no thread of its own: {threads}"
    );

    // A pause holds the picture, and the guest draws on after it.
    nested.ch_remote("pause")?;
    let paused = nested.status()?;
    ensure!(paused["state"] == "suspended", "{paused}");
    nested.ch_remote("resume")?;
    must_draw(&nested, 10)?;

    nested.reboot()?;
    must_draw(&nested, 20)?;
    let after = nested.status()?;
    ensure!(
        after["resources"] == before["resources"],
        "{before} -> {after}"
    );
    ensure!(after["retained"] == 0, "{after}");
    Ok(())
}

/// The driver hears of it by an interrupt for the configuration, which the VMM has to raise.
#[test]
fn a_guest_is_told_of_another_size_of_its_screen() -> Result<()> {
    let option = format!("--gpu {OPTION}");
    let Some(nested) = boot("ch-gpu-resize", Kernel::V6_12, &[option.as_str()])? else {
        return Ok(());
    };
    nested.request(&json!({"command": "resize", "width": 1024, "height": 768}))?;
    until("the mode of the new size", || {
        let connector = "/sys/class/drm/card0-Virtual-1";
        let script = format!("echo detect >{connector}/status; head -n 1 {connector}/modes");
        Ok(nested.inner_run(&script)?.trim() == "1024x768")
    })?;
    let picture = nested.show(Target::Drm, 1)?;
    ensure!((picture.width, picture.height) == (1024, 768));
    nested.must_have_no_gpu_complaint(0)
}

#[test]
fn a_snapshot_restores_the_picture_in_another_process() -> Result<()> {
    let option = format!("--gpu {OPTION}");
    let Some(nested) = boot("ch-gpu-snapshot", Kernel::V6_12, &[option.as_str()])? else {
        return Ok(());
    };
    let picture = nested.show(Target::Drm, 1)?;
    nested.ch_remote("pause")?;
    nested.ch_remote("snapshot file:///tmp/snapshot")?;
    nested.kill_vmm()?;
    nested.start_vmm("--restore source_url=file:///tmp/snapshot")?;
    until("the VMM restored", || {
        let info = nested.ch_remote("info");
        Ok(info.is_ok_and(|info| info.contains("\"Paused\"")))
    })?;
    nested.must_show(&picture)?;
    nested.ch_remote("resume")?;
    nested.show(Target::Drm, 2)?;
    nested.must_have_no_gpu_complaint(0)
}

#[test]
fn a_gpu_comes_and_goes_while_the_guest_runs_and_mistakes_are_named() -> Result<()> {
    let Some(nested) = boot("ch-gpu-hotplug", Kernel::V6_12, &[])? else {
        return Ok(());
    };
    ensure!(bound(&nested)? == 0);
    for (option, words) in [
        ("outputs=17", "'outputs=17' is not allowed"),
        ("width=0", "'width=0' is not allowed"),
        ("hostmem=99999999999G", "is not allowed"),
        ("socket=/tmp/x,outputs=2", "has no effect beside 'socket'"),
        ("backend=4d", "'backend=4d' is not allowed"),
    ] {
        must_refuse(&nested, &format!("add-gpu {option}"), words)?;
    }
    for round in 0..2 {
        let added = nested.ch_remote(&format!("add-gpu {OPTION}"))?;
        let added: Value = serde_json::from_str(&added)?;
        ensure!(added["id"] == "gpu0", "{added}");
        until("the driver bound", || Ok(bound(&nested)? == 1))?;
        until("a framebuffer", || {
            let info: Info = nested.call(Command::Info)?;
            Ok(info.fb.is_some())
        })?;
        nested.show(Target::Drm, 10 * round + 1)?;
        must_refuse(&nested, &format!("add-gpu {OPTION}"), "gpu0")?;
        nested.call::<()>(Command::ReleaseDrm)?;
        nested.ch_remote("remove-device gpu0")?;
        until("the driver gone", || Ok(bound(&nested)? == 0))?;
        until("the control socket gone", || {
            Ok(nested.run("test ! -e /tmp/control").is_ok())
        })?;
        let threads = nested.run("cat /proc/$(pidof cloud-hypervisor)/task/*/comm")?;
        ensure!(!threads.contains("gpu0"), "a thread is left: {threads}");
    }
    Ok(())
}

/// A GPU that could not be added leaves its name, its place on the bus and its addresses to the next one. A PCI bus has
/// 31 places.
fn must_fail_often(nested: &Nested, option: &str, words: &str) -> Result<()> {
    const BATCHES: usize = 10;
    must_refuse(nested, &format!("add-gpu {option}"), words)?;
    let refused =
        format!("ch-remote --api-socket /tmp/api add-gpu {option} >/dev/null 2>&1 && exit 1");
    for _ in 0..BATCHES {
        nested
            .run(&format!(
                "for i in 1 2 3 4 5 6 7 8 9 10; do {refused}; done; true"
            ))
            .with_context(|| format!("add-gpu {option}"))?;
    }
    // The last one fails for the same reason as the first.
    must_refuse(nested, &format!("add-gpu {option}"), words)
}

#[test]
fn gpus_that_cannot_be_added_leave_everything_to_one_that_can() -> Result<()> {
    let Some(nested) = boot("ch-gpu-refused", Kernel::V6_12, &[])? else {
        return Ok(());
    };
    // Nobody listens there, which the VMM learns with a place on the bus in its hand.
    must_fail_often(&nested, "socket=/tmp/nobody,id=gpu0", "vfio-user client")?;
    // No directory for a socket; and a place that another device has, found out last of all.
    must_fail_often(&nested, "control=/nowhere/socket,id=gpu0", "control socket")?;
    must_fail_often(&nested, "pci_device_id=1,id=gpu0", "already used")?;
    // A compositor that is not there is missed once the region has its place. The guest has no room for twenty such.
    let option = "wayland=/tmp/nobody,hostmem=64G,id=gpu0";
    must_fail_often(&nested, option, "cannot be found")?;
    nested.ch_remote(&format!("add-gpu {OPTION}"))?;
    until("the driver bound", || Ok(bound(&nested)? == 1))?;
    until("a framebuffer", || {
        let info: Info = nested.call(Command::Info)?;
        Ok(info.fb.is_some())
    })?;
    nested.show(Target::Drm, 1).map(drop)
}

fn must_refuse(nested: &Nested, command: &str, words: &str) -> Result<()> {
    let Err(error) = nested.ch_remote(command) else {
        anyhow::bail!("{command} was not refused");
    };
    let error = format!("{error:#}");
    ensure!(error.contains(words), "{command}: no {words:?} in {error}");
    let info = nested.ch_remote("info")?;
    ensure!(info.contains("\"Running\""), "after {command}: {info}");
    Ok(())
}

/// Linux 6.1 gets its parked queues back, 7.x never resets a device with No_Soft_Reset.
#[test]
fn linux_6_1_keeps_its_picture_through_sleeps() -> Result<()> {
    must_sleep("ch-gpu-sleep", Kernel::V6_1, "")
}

#[test]
fn linux_7_keeps_its_picture_through_sleeps() -> Result<()> {
    must_sleep("ch-gpu-sleep", Kernel::V7, ",layout=tail")
}

/// The same sleep without what makes the picture survive: the suite could otherwise pass by luck.
#[test]
fn a_gpu_without_retention_loses_the_picture() -> Result<()> {
    let option = format!("--gpu {OPTION},freeze=off");
    let Some(nested) = boot_to_sleep("ch-gpu-freeze-off", Kernel::V6_1, &option)? else {
        return Ok(());
    };
    let picture = nested.show(Target::Drm, 1)?;
    sleep::as_deep_as_offered(&nested, || Ok(()))?;
    let shown = nested.screenshot("after-sleep")?;
    ensure!(
        shown.image.must_be(&picture).is_err(),
        "the picture is still there"
    );
    Ok(())
}

fn must_sleep(name: &str, kernel: Kernel, more: &str) -> Result<()> {
    let option = format!("--gpu {OPTION}{more}");
    let Some(nested) = boot_to_sleep(name, kernel, &option)? else {
        return Ok(());
    };
    for cycle in 1..=2 {
        let picture = nested.show(Target::Drm, 10 * cycle)?;
        let before = nested.counter("full_resets")?;
        let how = sleep::as_deep_as_offered(&nested, || Ok(()))?;
        nested.must_show(&picture)?;
        eprintln!("{name}-{kernel}, cycle {cycle}: {how}");
        nested.show(Target::Drm, 10 * cycle + 1)?;
        ensure!(
            nested.counter("full_resets")? == before,
            "cycle {cycle}: {}",
            nested.status()?
        );
    }
    nested.must_have_no_gpu_complaint(0)
}

/// `None` too for a Cloud Hypervisor whose devices retain nothing.
fn boot_to_sleep(name: &str, kernel: Kernel, option: &str) -> Result<Option<Nested>> {
    if env::var_os("CLOUD_HYPERVISOR").is_some() && !sleep::vmm_knows("virtio_freeze")? {
        eprintln!("skipped: CLOUD_HYPERVISOR has no virtio_freeze");
        return Ok(None);
    }
    let platform = if sleep::vmm_knows("acpi_s3")? {
        "--platform acpi_s3=on"
    } else {
        ""
    };
    boot(name, kernel, &[platform, option])
}

#[test]
fn a_reboot_of_a_sleeping_guest_leaves_nothing_stale() -> Result<()> {
    let option = format!("--gpu {OPTION}");
    let Some(nested) = boot_to_sleep("ch-gpu-reboot", Kernel::V6_1, &option)? else {
        return Ok(());
    };
    if !sleep::vmm_knows("acpi_s3")? {
        eprintln!("skipped: CLOUD_HYPERVISOR has no acpi_s3");
        return Ok(());
    }
    must_draw(&nested, 1)?;
    let before = nested.status()?;
    // Nobody is left to reply to it.
    let _ = sleep::fall_asleep(&nested)?;
    nested.reboot_by_api()?;
    must_draw(&nested, 20)?;
    let after = nested.status()?;
    ensure!(
        after["resources"] == before["resources"] && after["retained"] == 0,
        "{before} -> {after}"
    );
    Ok(())
}

/// The same option with the GPU in a server.
#[test]
fn a_socket_attaches_the_server_instead() -> Result<()> {
    let (Some(vmm), Some(lab)) = (CloudHypervisor::find_patched()?, Lab::find()?) else {
        return Ok(());
    };
    if !has_gpu()? {
        return Ok(());
    }
    let setup = Setup {
        arguments: vec!["--gpu socket=/tmp/gpu,id=gpu0".to_owned()],
        ..Setup::new("ch-gpu-socket", Kernel::V6_12)
    };
    let nested = Nested::boot(&lab, &vmm, &setup)?;
    must_draw(&nested, 1)?;
    let threads = nested.run("cat /proc/$(pidof cloud-hypervisor)/task/*/comm")?;
    ensure!(!threads.contains("gpu0\n"), "in process: {threads}");
    Ok(())
}

/// Of files the GPU needs the place of its control socket, also when a reboot makes it anew.
#[test]
fn landlock_leaves_the_gpu_its_control_socket_and_no_other_place() -> Result<()> {
    let option = format!("--gpu {OPTION}");
    let arguments = ["--landlock", option.as_str()];
    let Some(nested) = boot("ch-gpu-landlock", Kernel::V6_12, &arguments)? else {
        return Ok(());
    };
    let modules = nested.run(
        "mount -t securityfs securityfs /sys/kernel/security && cat /sys/kernel/security/lsm",
    )?;
    ensure!(modules.contains("landlock"), "no Landlock: {modules}");
    must_draw(&nested, 1)?;
    let save = |path: &str| nested.request(&json!({"command": "screenshot", "path": path}));
    save("/tmp/screen.png")?;
    nested.run("test -s /tmp/screen.png && touch /payload/screen.png")?;
    let refused = save("/payload/screen.png");
    let Err(error) = refused else {
        anyhow::bail!("the VMM wrote where no rule lets it");
    };
    eprintln!("ch-gpu-landlock: {error:#}");
    nested.run("test ! -s /payload/screen.png")?;
    nested.reboot()?;
    must_draw(&nested, 20)
}
