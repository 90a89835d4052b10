// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An unmodified Cloud Hypervisor and the device server: stock guests bind, draw, sleep as far as that
//! VMM lets them, and reboot. `CLOUD_HYPERVISOR` names the binary; without it the suite is skipped.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use guest_agent::protocol::{Command, Info, LoadReport, RunReport, SleepReport, Target};
use tests::image::Image;
use tests::lab::{Kernel, Lab};
use tests::nested::{CloudHypervisor, Nested};
use tests::way::{Resets, Way};

/// The PM capability without No_Soft_Reset.
const SOFT_RESET: &str = "--no-soft-reset off";
/// From a wake until a guest that draws without pause has had some frames served.
const PROGRESS_LIMIT: Duration = Duration::from_secs(60);

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

struct Rig {
    nested: Nested,
    way: Way,
    label: String,
    start: Instant,
}

impl Rig {
    /// Boots `kernel` on a server with `options`. `None` without a lab or a Cloud Hypervisor.
    fn start(name: &str, kernel: Kernel, options: &str, way: Way) -> Result<Option<Self>> {
        let (Some(vmm), Some(lab)) = (CloudHypervisor::find()?, Lab::find()?) else {
            return Ok(None);
        };
        let start = Instant::now();
        let nested = Nested::boot(&lab, &vmm, name, kernel, options)?;
        let rig = Self {
            nested,
            way,
            label: format!("{name}-{kernel}"),
            start,
        };
        let info: Info = rig.nested.call(Command::Info)?;
        rig.say(&format!("{}, guest {info:?}", rig.nested.version()?));
        ensure!(info.fb == Some((640, 480)), "no framebuffer: {info:?}");
        rig.nested.show(Target::Fb, 1)?;
        Ok(Some(rig))
    }

    /// Progress, for a test that takes minutes.
    fn say(&self, what: &str) {
        let seconds = self.start.elapsed().as_secs();
        eprintln!("{} {seconds} s: {what}", self.label);
    }

    /// Two sleeps cut short at the devices and a suspend-to-idle with a wake.
    fn must_sleep(&self) -> Result<()> {
        for cycle in 1..=2 {
            self.keeping(10 * cycle, |_| self.nested.abort_sleep())
                .with_context(|| format!("pm_test=devices, cycle {cycle}"))?;
        }
        self.keeping(30, |picture| {
            self.nested.idle(|| self.while_asleep(picture))
        })
        .context("suspend-to-idle")?;
        self.nested.must_have_no_gpu_complaint(0)
    }

    /// The picture stays on the screen meanwhile, unless the driver itself turns the output off, as one
    /// with sleep hooks does.
    fn while_asleep(&self, picture: &Image) -> Result<()> {
        let shown = self.nested.screenshot("asleep")?;
        match self.way {
            Way::Requeued => ensure!(!shown.active, "the driver left the output on"),
            _ => shown.image.must_be(picture)?,
        }
        Ok(())
    }

    /// Draws, has the guest sleep, finds the picture kept and the device on its [`Way`], draws on.
    fn keeping(&self, seed: u32, sleep: impl FnOnce(&Image) -> Result<SleepReport>) -> Result<()> {
        let picture = self.nested.show(Target::Drm, seed)?;
        let before = self.resets()?;
        let report = sleep(&picture)?;
        self.nested.must_show(&picture)?;
        let after = self.resets()?;
        self.nested.show(Target::Drm, seed + 1)?;
        self.say(&format!("slept {report:?}: {before:?} -> {after:?}"));
        self.way.must_lead(before, after)
    }

    /// The driver's last notification before a sleep may meet a function that is in D3 already, and
    /// must not be lost.
    fn must_sleep_under_load(&self) -> Result<()> {
        let target = Target::Drm;
        // The load is a client of its own, and only one can be master of the screen.
        self.nested.call::<()>(Command::ReleaseDrm)?;
        self.nested.call::<()>(Command::LoadStart { target })?;
        for cycle in 1..=3 {
            self.nested.abort_sleep()?;
            self.must_progress()
                .with_context(|| format!("pm_test=devices under load, cycle {cycle}"))?;
            self.nested.idle(|| Ok(()))?;
            self.must_progress()
                .with_context(|| format!("suspend-to-idle under load, cycle {cycle}"))?;
        }
        let load: LoadReport = self.nested.call(Command::LoadStop)?;
        self.say(&format!("{load:?}"));
        ensure!(load.errors == 0, "draws failed: {load:?}");
        self.nested.show(target, 50).context("after the load")?;
        self.nested.must_have_no_gpu_complaint(0)
    }

    fn must_progress(&self) -> Result<()> {
        const COMMANDS: u64 = 20;
        let before = self.nested.counter("commands")?;
        let deadline = Instant::now() + PROGRESS_LIMIT;
        while self.nested.counter("commands")? < before + COMMANDS {
            ensure!(
                Instant::now() < deadline,
                "no progress since {before} commands: {}",
                self.nested.status()?
            );
            // The guests have one CPU between them, and questions take their share of it.
            thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// A reboot destroys the old guest's state and gives the next one a working device.
    fn must_reboot(&self) -> Result<()> {
        let before = self.resets()?;
        self.nested.reboot()?;
        self.nested
            .show(Target::Fb, 40)
            .context("after the reboot")?;
        self.nested.show(Target::Drm, 41)?;
        self.say(&format!("rebooted: {before:?} -> {:?}", self.resets()?));
        self.nested.must_have_no_gpu_complaint(0)
    }

    fn resets(&self) -> Result<Resets> {
        Resets::read(|name| self.nested.counter(name))
    }
}
