// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A nested machine with the device server, and what its guest must live through.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use guest_agent::protocol::{Command, Info, LoadReport, SleepReport, Target};
use tests::image::Image;
use tests::lab::{Kernel, Lab};
use tests::nested::{CloudHypervisor, Gpu, Nested, Setup};
use tests::way::{Resets, Way};

/// From a wake until a guest that draws without pause has had some frames served.
const PROGRESS_LIMIT: Duration = Duration::from_secs(60);

/// A nested machine whose GPU is the device server.
pub(crate) struct Rig {
    pub(crate) nested: Nested,
    way: Way,
    label: String,
    start: Instant,
}

impl Rig {
    /// Boots `kernel` on a server with `options`. `None` without a lab or a Cloud Hypervisor.
    pub(crate) fn start(
        name: &str,
        kernel: Kernel,
        options: &str,
        way: Way,
    ) -> Result<Option<Self>> {
        let (Some(vmm), Some(lab)) = (CloudHypervisor::find()?, Lab::find()?) else {
            return Ok(None);
        };
        let start = Instant::now();
        let setup = Setup {
            gpu: Gpu::Server(options.to_owned()),
            ..Setup::new(name, kernel)
        };
        let nested = Nested::boot(&lab, &vmm, &setup)?;
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
    pub(crate) fn must_sleep(&self) -> Result<()> {
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
    pub(crate) fn must_sleep_under_load(&self) -> Result<()> {
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
    pub(crate) fn must_reboot(&self) -> Result<()> {
        let before = self.resets()?;
        self.nested.reboot()?;
        self.nested
            .show(Target::Fb, 40)
            .context("after the reboot")?;
        self.nested.show(Target::Drm, 41)?;
        self.say(&format!("rebooted: {before:?} -> {:?}", self.resets()?));
        self.nested.must_have_no_gpu_complaint(0)
    }

    pub(crate) fn resets(&self) -> Result<Resets> {
        Resets::read(|name| self.nested.counter(name))
    }
}
