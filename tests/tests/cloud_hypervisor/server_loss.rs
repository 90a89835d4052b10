// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device server dies while its guest sleeps.

use anyhow::{Result, ensure};
use guest_agent::protocol::{Command, Info, Target};
use tests::lab::{Kernel, Lab};
use tests::nested::{CloudHypervisor, Gpu, Nested, Setup};

use crate::gpu::has_gpu;
use crate::sleep;
use crate::wait::until;

const LOST: &str = "\"event\": \"server-lost\"";

/// A guest with a disk, entropy, and its GPU in a server.
fn boot(vmm: &CloudHypervisor, setup: Setup, arguments: &[&str]) -> Result<Option<Nested>> {
    let Some(lab) = Lab::find()? else {
        return Ok(None);
    };
    let common = [
        "--disk path=/tmp/disk,image_type=raw",
        "--event-monitor path=/tmp/events",
    ];
    let setup = Setup {
        devices: true,
        gpu: Gpu::Server(String::new()),
        prepare: vec!["truncate -s 1M /tmp/disk".to_owned()],
        arguments: common
            .iter()
            .chain(arguments)
            .map(|&it| it.to_owned())
            .collect(),
        ..setup
    };
    let nested = Nested::boot(&lab, vmm, &setup)?;
    nested.show(Target::Drm, 1)?;
    // Nothing of the guest holds on to the GPU that is about to go.
    nested.call::<()>(Command::ReleaseDrm)?;
    Ok(Some(nested))
}

fn disk_and_entropy_work(nested: &Nested, when: &str) -> Result<()> {
    let size = when.len();
    let read = nested.inner_run(&format!(
        "echo {when} | dd of=/dev/vda conv=sync,fsync 2>/dev/null && \
         echo 3 >/proc/sys/vm/drop_caches && head -c {size} /dev/vda"
    ))?;
    ensure!(read == when, "the guest reads {read:?}");
    let bytes = nested.inner_run("head -c 64 /dev/hwrng | wc -c")?;
    ensure!(bytes.trim() == "64", "entropy: {bytes:?}");
    Ok(())
}

fn losses(nested: &Nested) -> Result<u32> {
    let count = nested.run(&format!("grep -c '{LOST}' /tmp/events || true"))?;
    Ok(count.trim().parse()?)
}

/// The guest wakes without its GPU, the VMM says why, and the GPU of a new server can take its place.
fn must_live_through_s3(kernel: Kernel) -> Result<()> {
    let Some(vmm) = CloudHypervisor::find_patched()? else {
        return Ok(());
    };
    if !has_gpu()? {
        eprintln!("skipped: CH_REMOTE was built without the feature gpu");
        return Ok(());
    }
    let arguments = ["--platform acpi_s3=on", "--gpu socket=/tmp/gpu,id=gpu0"];
    let setup = Setup::new("ch-server-loss", kernel);
    let Some(nested) = boot(&vmm, setup, &arguments)? else {
        return Ok(());
    };
    let pending = sleep::fall_asleep(&nested)?;
    nested.kill_server()?;
    ensure!(losses(&nested)? == 0, "a loss before anyone can know");
    nested.ch_remote("wakeup")?;
    let report = nested.finish_sleep(&pending)?;
    ensure!(losses(&nested)? == 1, "not one event of the loss");
    nested.run("grep 'Lost the server of vfio-user device gpu0' /tmp/cloud-hypervisor.log")?;
    disk_and_entropy_work(&nested, "woken")?;

    nested.ch_remote("remove-device gpu0")?;
    let gone = "! ls /sys/bus/virtio/drivers/virtio_gpu | grep virtio";
    until("the driver gone", || Ok(nested.inner_run(gone).is_ok()))?;
    // Its server is not there yet: an error of the API, and nothing changes.
    let refused = nested.ch_remote("add-gpu socket=/tmp/gpu,id=gpu1");
    ensure!(refused.is_err(), "a GPU without a server was added");
    nested.start_server("")?;
    nested.ch_remote("add-gpu socket=/tmp/gpu,id=gpu1")?;
    until("a framebuffer", || {
        let info: Info = nested.call(Command::Info)?;
        Ok(info.fb.is_some())
    })?;
    nested.show(Target::Drm, 2)?;
    eprintln!("ch-server-loss-{kernel}: woke after {report:?}, draws on a new GPU");

    // The guest sleeps on, with the new one.
    let pending = sleep::fall_asleep(&nested)?;
    nested.ch_remote("wakeup")?;
    nested.finish_sleep(&pending)?;
    nested.show(Target::Drm, 3)?;
    disk_and_entropy_work(&nested, "slept-again")
}

#[test]
fn linux_6_1_wakes_from_s3_without_its_gpu_and_gets_a_new_one() -> Result<()> {
    must_live_through_s3(Kernel::V6_1)
}

#[test]
fn linux_7_wakes_from_s3_without_its_gpu_and_gets_a_new_one() -> Result<()> {
    must_live_through_s3(Kernel::V7)
}

/// An unmodified VMM hides the loss from everybody, so that its guest may wait for ever when it resumes; but the VMM
/// lives, and a reboot with a new server mends all.
#[test]
fn an_unmodified_vmm_lives_without_the_server_and_reboots_the_guest_with_a_new_one() -> Result<()> {
    let Some(vmm) = CloudHypervisor::find_patched()? else {
        return Ok(());
    };
    let Some(stock) = vmm.base()? else {
        return Ok(());
    };
    let setup = Setup::new("ch-server-loss-idle", Kernel::V7);
    let Some(nested) = boot(&stock, setup, &[])? else {
        return Ok(());
    };
    // Nobody may be left to reply to it.
    let _ = nested.fall_idle()?;
    nested.kill_server()?;
    nested.nudge()?;
    let noticed = "grep 'Could not disable MSI-X: VFIO user error' /tmp/cloud-hypervisor.log";
    until("the resume of the GPU", || Ok(nested.run(noticed).is_ok()))?;
    nested.run("pidof cloud-hypervisor")?;
    nested.start_server("")?;
    nested.reboot_by_api()?;
    nested.show(Target::Drm, 2)?;
    disk_and_entropy_work(&nested, "rebooted")
}
