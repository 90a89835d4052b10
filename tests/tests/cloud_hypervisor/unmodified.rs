// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device server and an unmodified Cloud Hypervisor: stock guests bind, draw, sleep as far as that
//! VMM lets them, and reboot.

use anyhow::{Result, ensure};
use guest_agent::protocol::{Command, RunReport, Target};
use tests::lab::{Kernel, Lab};
use tests::way::Way;

use crate::rig::Rig;

/// The PM capability without No_Soft_Reset.
const SOFT_RESET: &str = "--no-soft-reset off";

#[test]
fn linux_6_1_keeps_its_picture_through_sleeps_and_draws_after_a_reboot() -> Result<()> {
    let Some(rig) = Rig::start("ch", Kernel::V6_1, "", Way::Reinstated)? else {
        return Ok(());
    };
    rig.must_sleep()?;
    rig.must_reboot()
}

#[test]
fn linux_7_keeps_its_picture_through_sleeps_and_draws_after_a_reboot() -> Result<()> {
    let Some(rig) = Rig::start("ch", Kernel::V7, "", Way::Untouched)? else {
        return Ok(());
    };
    rig.must_sleep()?;
    rig.must_reboot()
}

#[test]
fn linux_6_12_keeps_its_picture_when_the_driver_resets_the_function() -> Result<()> {
    match Rig::start("ch-soft-reset", Kernel::V6_12, SOFT_RESET, Way::Reinstated)? {
        Some(rig) => {
            rig.must_sleep()?;
            rig.must_sleep_under_load()
        }
        None => Ok(()),
    }
}

/// What a driver with sleep hooks needs when there is no No_Soft_Reset.
#[test]
fn linux_7_keeps_its_picture_by_freeze_mode_when_the_driver_resets_the_device() -> Result<()> {
    let hooks = Lab::find()?.map(|lab| lab.driver_resets_at_sleep(Kernel::V7));
    let way = match hooks.transpose()? {
        Some(true) => Way::Requeued,
        _ => Way::Reinstated,
    };
    let Some(rig) = Rig::start("ch-freeze-mode", Kernel::V7, SOFT_RESET, way)? else {
        return Ok(());
    };
    let report: RunReport = rig.nested.call(Command::Run {
        program: "virtio-freezectl".to_owned(),
        arguments: vec!["freeze".to_owned()],
    })?;
    ensure!(report.status == Some(0), "virtio-freezectl: {report:?}");
    rig.must_sleep()
}

/// The same sleep without what makes the picture survive: the suite could otherwise pass by luck.
#[test]
fn a_device_without_retention_loses_the_picture() -> Result<()> {
    let Some(rig) = Rig::start(
        "ch-freeze-off",
        Kernel::V6_1,
        "--freeze off",
        Way::Untouched,
    )?
    else {
        return Ok(());
    };
    let picture = rig.nested.show(Target::Drm, 1)?;
    let before = rig.resets()?;
    rig.nested.abort_sleep()?;
    let shown = rig.nested.screenshot("after-sleep")?;
    ensure!(
        shown.image.must_be(&picture).is_err(),
        "the picture is still there"
    );
    ensure!(
        rig.resets()?.full > before.full,
        "no reset destroyed the device's state"
    );
    Ok(())
}
