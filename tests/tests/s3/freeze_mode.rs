// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The freeze_mode register alone: every other hint is off, a helper in the guest writes it.

use anyhow::{Result, ensure};
use guest_agent::protocol::{Command, RunReport, Target};
use tests::guest::Wake;
use tests::lab::{Kernel, Lab};

use crate::on_every_kernel;
use crate::rig::{Rig, Way};

on_every_kernel!(a_guest_that_sets_freeze_mode_keeps_its_display_without_any_other_hint);

fn a_guest_that_sets_freeze_mode_keeps_its_display_without_any_other_hint(
    kernel: Kernel,
) -> Result<()> {
    let options = ["--no-soft-reset", "off", "--hold", "none"];
    let Some(rig) = Rig::start("freeze-mode", kernel, &options)? else {
        return Ok(());
    };
    ensure!(
        Lab::find()?.is_some_and(|lab| lab.has_freezectl()),
        "the lab has no virtio-freezectl"
    );
    let way = match rig.way() {
        Way::Redrawn => Way::Requeued,
        other => other,
    };
    let rig = rig.on(way);
    for seed in [1, 2] {
        let picture = rig.show(Target::Fb, seed)?;
        let from = rig.server.position();
        freezectl(&rig, "freeze")?;
        rig.server.wait_event("freeze", from)?;
        rig.show(Target::Fb, seed + 100)?;
        let picture_frozen = rig.show(Target::Fb, seed)?;
        ensure!(
            picture == picture_frozen,
            "a frozen device draws something else"
        );
        rig.sleep_keeping(&picture, Wake::Host)?;
        freezectl(&rig, "unfreeze")?;
        rig.server.wait_event("unfreeze", from)?;
        rig.server.must_show("after-unfreeze", &picture)?;
        rig.show(Target::Fb, seed + 100)?;
    }
    rig.guest.must_have_no_gpu_complaint(0)
}

fn freezectl(rig: &Rig, action: &str) -> Result<()> {
    let report: RunReport = rig.guest.call(Command::Run {
        program: "virtio-freezectl".to_owned(),
        arguments: vec![action.to_owned()],
    })?;
    ensure!(
        report.status == Some(0),
        "virtio-freezectl {action}: {report:?}"
    );
    Ok(())
}
