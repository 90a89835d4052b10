// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The freeze_mode register alone: every other hint is off, a helper in the guest writes it.

use anyhow::{Context, Result};
use guest_agent::protocol::Target;
use tests::guest::Wake;
use tests::lab::Kernel;

use crate::on_every_kernel;
use crate::rig::Rig;

on_every_kernel!(a_guest_that_sets_freeze_mode_keeps_its_display_without_any_other_hint);

fn a_guest_that_sets_freeze_mode_keeps_its_display_without_any_other_hint(
    kernel: Kernel,
) -> Result<()> {
    let options = ["--no-soft-reset", "off", "--hold", "none"];
    let Some(rig) = Rig::start("freeze-mode", kernel, &options)? else {
        return Ok(());
    };
    let target = rig.kept(Target::Fb);
    for seed in [1, 2] {
        rig.show(target, seed + 100)?;
        rig.freezectl("freeze")?;
        let picture = rig
            .show(target, seed)
            .context("a frozen device serves its driver")?;
        rig.sleep_keeping(&picture, Wake::Host)?;
        rig.freezectl("unfreeze")?;
        rig.server.must_show("after-unfreeze", &picture)?;
        rig.show(target, seed + 200)?;
    }
    rig.guest.must_have_no_gpu_complaint(0)
}
