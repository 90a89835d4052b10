// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest and the device server it has its GPU from.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use guest_agent::protocol::{Command, LoadReport, RunReport, SleepReport, Target};
use tests::daemon::Daemon;
use tests::guest::{Guest, Wake};
use tests::image::Image;
use tests::lab::{Kernel, Lab};
use tests::machine::{Gpu, Machine};
use tests::way::{Resets, Way};

/// The GPU's address: the only device that the command line puts on the root bus.
pub(crate) const GPU_ADDRESS: &str = "0000:00:01.0";

/// Without the PM capability's No_Soft_Reset every kernel resets the function at a wake.
pub(crate) const SOFT_RESET: [&str; 2] = ["--no-soft-reset", "off"];

/// Every reset is a full one, and the PM capability has no No_Soft_Reset.
pub(crate) const NO_RETENTION: [&str; 2] = ["--freeze", "off"];

/// For the first commands of a guest that draws, after a wake or after its start.
const PROGRESS_LIMIT: Duration = Duration::from_secs(60);

/// The guest ends before its server.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) guest: Guest,
    pub(crate) server: Daemon,
    way: Way,
}

impl Rig {
    /// Boots `kernel` on a server with `options`. `None` without a lab.
    pub(crate) fn start(name: &str, kernel: Kernel, options: &[&str]) -> Result<Option<Self>> {
        Self::start_machine(name, kernel, options, |machine| machine)
    }

    /// As [`Rig::start`], with a say in the machine.
    pub(crate) fn start_machine(
        name: &str,
        kernel: Kernel,
        options: &[&str],
        adapt: impl FnOnce(Machine) -> Machine,
    ) -> Result<Option<Self>> {
        let Some(lab) = Lab::find()? else {
            return Ok(None);
        };
        let server = Daemon::start(&lab, &format!("{name}-{kernel}"), options)?;
        Self::boot(&lab, name, kernel, server, options, adapt).map(Some)
    }

    /// As [`Rig::start`], with 3D in the server and the guest, a screen of this size, and more for `--gpu`. `None`
    /// without such a server too.
    pub(crate) fn start_3d(
        name: &str,
        kernel: Kernel,
        size: (u32, u32),
        more: &str,
        options: &[&str],
    ) -> Result<Option<Self>> {
        let Some(lab) = Lab::find()? else {
            return Ok(None);
        };
        let server = Daemon::start_3d(&lab, &format!("{name}-{kernel}"), size, more, options)?;
        let Some(server) = server else {
            return Ok(None);
        };
        let adapt = |machine: Machine| match more {
            "" => machine.with_scene(),
            _ => machine.with_scene().with_ordered_writes(),
        };
        Self::boot(&lab, name, kernel, server, options, adapt).map(Some)
    }

    fn boot(
        lab: &Lab,
        name: &str,
        kernel: Kernel,
        server: Daemon,
        options: &[&str],
        adapt: impl FnOnce(Machine) -> Machine,
    ) -> Result<Self> {
        let gpu = Gpu::VfioUser(server.device_socket());
        let machine = adapt(Machine::new(name, kernel, gpu));
        let guest =
            Guest::boot(lab, &machine).with_context(|| format!("server: {:?}", server.status()))?;
        let soft_reset = options
            .windows(2)
            .any(|pair| pair == SOFT_RESET || pair == NO_RETENTION);
        let way = if kernel.honours_no_soft_reset() && !soft_reset {
            Way::Untouched
        } else if lab.driver_resets_at_sleep(kernel)? {
            Way::Requeued
        } else {
            Way::Reinstated
        };
        Ok(Self { guest, server, way })
    }

    /// Where to draw a picture that a sleep must keep: `target`, unless the guest itself does not keep
    /// that one. A driver with hooks suspends the console, which is drawn anew at the wake.
    pub(crate) fn kept(&self, target: Target) -> Target {
        match self.way {
            Way::Requeued => Target::Drm,
            _ => target,
        }
    }

    /// Runs the helper that writes freeze_mode, and waits until the device honours it.
    pub(crate) fn freezectl(&self, action: &str) -> Result<()> {
        let from = self.server.position();
        let report: RunReport = self.guest.call(Command::Run {
            program: "virtio-freezectl".to_owned(),
            arguments: vec![action.to_owned()],
        })?;
        ensure!(
            report.status == Some(0),
            "virtio-freezectl {action}: {report:?}"
        );
        self.server.wait_event(action, from)
    }

    /// Draws picture `seed` and waits until it is on the screen, every pixel of it.
    pub(crate) fn show(&self, target: Target, seed: u32) -> Result<Image> {
        let picture = self.guest.draw(target, seed)?;
        let shown = self
            .server
            .wait_for_picture(&format!("{seed}-drawn"), &picture);
        shown.with_context(|| format!("picture {seed} on {target:?}"))?;
        Ok(picture)
    }

    /// One S3 cycle that must leave `picture` on the screen and take this rig's [`Way`].
    pub(crate) fn sleep_keeping(&self, picture: &Image, wake: Wake) -> Result<SleepReport> {
        let before = self.resets()?;
        let report = self.guest.sleep(wake, || self.must_be_asleep())?;
        self.server
            .must_show("after-wake", picture)
            .context("right after the wake")?;
        let after = self.resets()?;
        self.way.must_lead(before, after)?;
        Ok(report)
    }

    /// One S3 cycle that must lose `picture`, as the device's state goes with the driver's reset.
    pub(crate) fn sleep_losing(&self, picture: &Image) -> Result<()> {
        let full = self.server.counter("full_resets")?;
        self.guest.sleep(Wake::Host, || Ok(()))?;
        ensure!(
            self.server.counter("full_resets")? > full,
            "no reset destroyed the device's state"
        );
        let shown = self.server.screenshot("after-wake")?;
        ensure!(
            shown.image.must_be(picture).is_err(),
            "the picture is still there"
        );
        ensure!(!shown.active, "the output is still scanned out");
        Ok(())
    }

    /// Waits until the server has served so many commands since now, of a guest that draws.
    pub(crate) fn wait_for_commands(&self, count: u64) -> Result<()> {
        let before = self.server.counter("commands")?;
        let deadline = Instant::now() + PROGRESS_LIMIT;
        while self.server.counter("commands")? < before + count {
            if Instant::now() > deadline {
                let got = self.server.counter("commands")? - before;
                bail!("no progress: {got} commands, {}", self.why_no_progress()?);
            }
            // A round trip through the guest paces the loop: it cannot starve the guest it waits for.
            self.guest.call::<String>(Command::Read {
                path: "/proc/uptime".to_owned(),
            })?;
        }
        Ok(())
    }

    /// What the server, the guest's kernel and the load itself have to say.
    fn why_no_progress(&self) -> Result<String> {
        let status = self.server.status()?;
        let blocked = self.guest.blocked_tasks()?;
        let complaints = self.guest.must_have_no_gpu_complaint(0);
        // Last: a load that hangs is one that cannot be stopped either.
        let load = self.guest.call::<LoadReport>(Command::LoadStop);
        Ok(format!(
            "{status}\nblocked in the guest:\n{blocked}\n{complaints:?}\n{load:?}"
        ))
    }

    fn resets(&self) -> Result<Resets> {
        Resets::read(|name| self.server.counter(name))
    }

    fn must_be_asleep(&self) -> Result<()> {
        let status = self.server.status()?;
        ensure!(
            status["state"] == "asleep",
            "the server takes a sleeping guest for {status}"
        );
        Ok(())
    }
}
