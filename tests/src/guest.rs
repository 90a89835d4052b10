// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A running guest.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use guest_agent::protocol::{Command, Drawn, KernelMessage, SleepReport, Target};
use guest_agent::scene::SceneRequest;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::agent::{Agent, Pending};
use crate::image::Image;
use crate::lab::Lab;
use crate::machine::Machine;
use crate::process::{Running, Sockets};
use crate::qmp::Qmp;

/// QEMU opens its sockets within a second; the limit is for a machine under full load.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(30);
/// A boot takes 4 to 6 s under TCG on an idle machine.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// From the request to sleep until QEMU has suspended, and from the wake until the agent replies.
const SLEEP_LIMIT: Duration = Duration::from_secs(60);
/// From the request to hibernate until the machine is off, and from there until the agent replies.
const HIBERNATION_LIMIT: Duration = Duration::from_secs(180);
/// From the last device that suspends until the CPU idles. A wake in between aborts the sleep, and
/// nothing outside the guest shows the moment.
const IDLE_SETTLES: Duration = Duration::from_secs(1);
/// Lines of console in an error.
const CONSOLE_TAIL: usize = 25;
/// More would make each slower than the limits above expect.
const GUESTS_AT_ONCE: u32 = 2;

static RUNNING: Mutex<u32> = Mutex::new(0);
static ONE_ENDED: Condvar = Condvar::new();

/// The right to run a guest.
#[derive(Debug)]
pub(crate) struct Slot;

impl Slot {
    pub(crate) fn take() -> Self {
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut running = ONE_ENDED
            .wait_while(running, |running| *running >= GUESTS_AT_ONCE)
            .unwrap_or_else(PoisonError::into_inner);
        *running += 1;
        Self
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ONE_ENDED.notify_one();
    }
}

/// Who wakes the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// The guest's own RTC, so many seconds after the request to sleep.
    Alarm(u32),
    /// The host, as soon as the guest sleeps.
    Host,
}

/// A guest, killed when dropped.
#[derive(Debug)]
pub struct Guest {
    agent: Agent,
    qmp: Qmp,
    running: Running,
    directory: PathBuf,
    _sockets: Sockets,
    _slot: Slot,
}

impl Guest {
    /// Starts QEMU and waits until the agent in the guest is up.
    ///
    /// # Errors
    /// QEMU ended or the guest did not boot.
    pub fn boot(lab: &Lab, machine: &Machine) -> Result<Self> {
        let guest = Self::start(lab, machine)?;
        guest.explain(guest.agent.wait_ready(0, BOOT_LIMIT))?;
        Ok(guest)
    }

    fn start(lab: &Lab, machine: &Machine) -> Result<Self> {
        let slot = Slot::take();
        let directory = lab.run_directory(&format!("{}-{}", machine.name, machine.kernel))?;
        let sockets = Sockets::create()?;
        let arguments = machine.arguments(lab, sockets.path(), &directory.join("console.log"));
        let running = Running::start(&lab.qemu(), arguments, &directory.join("qemu.log"))?;
        let connected = Qmp::connect(&sockets.path().join("qmp"), START_LIMIT).and_then(|qmp| {
            Ok((
                qmp,
                Agent::connect(&sockets.path().join("agent"), START_LIMIT)?,
            ))
        });
        let (qmp, agent) = connected.with_context(|| qemu_log(&directory))?;
        Ok(Self {
            agent,
            qmp,
            running,
            directory,
            _sockets: sockets,
            _slot: slot,
        })
    }

    /// The monitor.
    pub fn qmp(&self) -> &Qmp {
        &self.qmp
    }

    /// The agent.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// Where this guest's logs lie; a test may add to them.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Has the agent do something.
    ///
    /// # Errors
    /// It failed or did not reply.
    pub fn call<T: DeserializeOwned>(&self, command: Command) -> Result<T> {
        let what = format!("{command:?}");
        self.explain(self.agent.call(command)).context(what)
    }

    /// Draws picture `seed` and gives what must be on the screen now.
    ///
    /// # Errors
    /// The guest could not draw.
    pub fn draw(&self, target: Target, seed: u32) -> Result<Image> {
        let drawn: Drawn = self.call(Command::Draw { target, seed })?;
        Ok(Image::of_pattern(seed, drawn.width, drawn.height))
    }

    /// Has the OpenGL client of a machine with one do something.
    ///
    /// # Errors
    /// It could not, or the machine has none.
    pub fn scene<T: DeserializeOwned>(&self, request: SceneRequest) -> Result<T> {
        self.call(Command::Scene { request })
    }

    /// One ACPI S3 cycle. `asleep` runs while the guest sleeps (with an alarm: at the start of it).
    ///
    /// # Errors
    /// The guest did not really sleep, did not wake, or calls its sleep failed.
    pub fn sleep(&self, wake: Wake, asleep: impl FnOnce() -> Result<()>) -> Result<SleepReport> {
        let from = self.qmp.position();
        let pending = self.start_sleep(wake, false)?;
        self.explain(self.qmp.wait_event("SUSPEND", from, SLEEP_LIMIT))?;
        asleep().context("while the guest slept")?;
        if wake == Wake::Host {
            self.qmp.execute("system_wakeup", &json!({}))?;
        }
        self.explain(self.qmp.wait_event("WAKEUP", from, SLEEP_LIMIT))?;
        let report = self.explain(self.agent.finish(&pending, SLEEP_LIMIT))?;
        let counts = (
            self.qmp.count_events("SUSPEND", from),
            self.qmp.count_events("WAKEUP", from),
        );
        ensure!(
            counts == (1, 1),
            "one sleep made {counts:?} SUSPEND and WAKEUP events"
        );
        Ok(report)
    }

    /// Hibernates in this machine alone: the kernel writes its image, reads it, and goes on from it (`test_resume`).
    ///
    /// # Errors
    /// It did not.
    pub fn hibernate_and_resume(&self) -> Result<SleepReport> {
        let pending = self.start_hibernation("test_resume")?;
        self.explain(self.agent.finish(&pending, HIBERNATION_LIMIT))
    }

    /// Hibernates until the machine is off, and goes on in `machine`, another one with the same disk: there a kernel boots,
    /// finds the image and hands over to the kernel in it.
    ///
    /// # Errors
    /// The machine did not end, or the guest did not go on.
    pub fn hibernate_into(mut self, lab: &Lab, machine: &Machine) -> Result<(Self, SleepReport)> {
        let pending = self.start_hibernation("shutdown")?;
        let ended = self.running.wait(HIBERNATION_LIMIT);
        self.explain(ended)?;
        // Its place among the guests that run, too.
        drop(self);
        let guest = Self::start(lab, machine)?;
        let pending = guest.agent.adopt(&pending);
        let report = guest.explain(guest.agent.finish(&pending, HIBERNATION_LIMIT))?;
        Ok((guest, report))
    }

    fn start_hibernation(&self, mode: &str) -> Result<Pending> {
        let path = "/sys/power/disk".to_owned();
        let text = mode.to_owned();
        self.call::<()>(Command::Write { path, text })?;
        self.agent.start(Command::Sleep {
            state: "disk".to_owned(),
            alarm_s: None,
            pm_test: None,
            print_times: false,
        })
    }

    /// One suspend-to-idle, which QEMU knows nothing of; `asleep` runs once the guest idles.
    ///
    /// # Errors
    /// The guest calls its sleep failed, or did not wake.
    pub fn idle(&self, asleep: impl FnOnce() -> Result<()>) -> Result<SleepReport> {
        let pending = self.agent.start(Command::Sleep {
            state: "freeze".to_owned(),
            alarm_s: None,
            pm_test: None,
            print_times: false,
        })?;
        asleep().context("while the guest idled")?;
        thread::sleep(IDLE_SETTLES);
        self.agent.nudge()?;
        self.explain(self.agent.finish(&pending, SLEEP_LIMIT))
    }

    /// A cycle woken by the host in which the kernel logs the time of every device callback.
    ///
    /// # Errors
    /// As [`Guest::sleep`].
    pub fn timed_sleep(&self) -> Result<Vec<KernelMessage>> {
        let from = self.qmp.position();
        let pending = self.start_sleep(Wake::Host, true)?;
        self.explain(self.qmp.wait_event("SUSPEND", from, SLEEP_LIMIT))?;
        self.qmp.execute("system_wakeup", &json!({}))?;
        let report: SleepReport = self.explain(self.agent.finish(&pending, SLEEP_LIMIT))?;
        self.dmesg(report.mark)
    }

    fn start_sleep(&self, wake: Wake, print_times: bool) -> Result<Pending> {
        let alarm_s = match wake {
            Wake::Alarm(seconds) => Some(seconds),
            Wake::Host => None,
        };
        self.agent.start(Command::Sleep {
            state: "mem".to_owned(),
            alarm_s,
            pm_test: None,
            print_times,
        })
    }

    /// A sleep that the kernel cuts short at the given level of `/sys/power/pm_test`.
    ///
    /// # Errors
    /// The guest really slept, or calls the attempt failed.
    pub fn abort_sleep_at(&self, level: &str) -> Result<SleepReport> {
        let from = self.qmp.position();
        let pending = self.agent.start(Command::Sleep {
            state: "mem".to_owned(),
            alarm_s: None,
            pm_test: Some(level.to_owned()),
            print_times: false,
        })?;
        let report = self.explain(self.agent.finish(&pending, SLEEP_LIMIT))?;
        let slept = self.qmp.count_events("SUSPEND", from);
        ensure!(
            slept == 0,
            "pm_test={level} put the machine to sleep {slept} times"
        );
        Ok(report)
    }

    /// Restarts the guest and waits until it is up again.
    ///
    /// # Errors
    /// It did not come up.
    pub fn reboot(&self) -> Result<()> {
        let from = self.agent.position();
        // Nobody is left to reply to it.
        let _ = self.agent.start(Command::Reboot)?;
        self.explain(self.agent.wait_ready(from, BOOT_LIMIT))
    }

    /// Kernel messages since `mark`.
    ///
    /// # Errors
    /// The guest did not give them.
    pub fn dmesg(&self, mark: u64) -> Result<Vec<KernelMessage>> {
        self.call(Command::Dmesg { since: mark })
    }

    /// Checks that no message of severity warning or worse speaks of the GPU.
    ///
    /// # Errors
    /// One does; a virtio-gpu command that timed out is among them.
    pub fn must_have_no_gpu_complaint(&self, mark: u64) -> Result<()> {
        let complaints: Vec<_> = self
            .dmesg(mark)?
            .into_iter()
            .filter(is_gpu_complaint)
            .collect();
        ensure!(
            complaints.is_empty(),
            "the kernel complains: {complaints:#?}"
        );
        Ok(())
    }

    /// Checks that so many CPUs are online: one that does not come back from a sleep is the machine's fault.
    ///
    /// # Errors
    /// There are others.
    pub fn must_have_cpus(&self, count: u8) -> Result<()> {
        let path = "/sys/devices/system/cpu/online".to_owned();
        let online: String = self.call(Command::Read { path })?;
        let expected = match count.saturating_sub(1) {
            0 => "0".to_owned(),
            last => format!("0-{last}"),
        };
        ensure!(
            online == expected,
            "the CPUs {online} are online, not {expected}"
        );
        Ok(())
    }

    /// What the kernel's tasks wait for that wait uninterruptibly: the stacks of those that hang.
    ///
    /// # Errors
    /// The guest did not give them.
    pub fn blocked_tasks(&self) -> Result<String> {
        let mark = self.dmesg(0)?.last().map_or(0, |last| last.seq + 1);
        let path = "/proc/sysrq-trigger".to_owned();
        let text = "w".to_owned();
        self.call::<()>(Command::Write { path, text })?;
        let stacks = self.dmesg(mark)?;
        Ok(stacks
            .iter()
            .map(|line| format!("{}\n", line.text))
            .collect())
    }

    /// What QEMU's own display shows.
    ///
    /// # Errors
    /// QEMU could not make a picture of it.
    pub fn screendump(&self, name: &str) -> Result<Image> {
        let path = self.directory.join(format!("{name}.png"));
        self.qmp
            .execute("screendump", &json!({"filename": path, "format": "png"}))?;
        Image::read(&path)
    }

    /// Adds the end of the console to an error.
    ///
    /// # Errors
    /// Only the one given.
    pub fn explain<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| {
            let console = fs::read(self.directory.join("console.log")).unwrap_or_default();
            let console = String::from_utf8_lossy(&console);
            let lines: Vec<_> = console.lines().collect();
            let tail = lines
                .get(lines.len().saturating_sub(CONSOLE_TAIL)..)
                .unwrap_or_default();
            anyhow!(
                "{error:#}\nlogs: {}\nconsole:\n{}",
                self.directory.display(),
                tail.join("\n")
            )
        })
    }
}

fn qemu_log(directory: &Path) -> String {
    fs::read_to_string(directory.join("qemu.log")).unwrap_or_default()
}

/// syslog severity of a warning.
const WARNING: u8 = 4;

/// Lines that name the GPU and are not about it. Linux 6.1 warns at every boot that virtio-gpu's plane has no damage clips;
/// and every warning of the kernel, whoever's it is, has the list of all modules. One that is the driver's has its function
/// or its file in a line of its own.
const NO_COMPLAINTS: [&str; 2] = [
    "drm_plane_enable_fb_damage_clips() not called",
    "Modules linked in: ",
];

pub(crate) fn is_gpu_complaint(message: &KernelMessage) -> bool {
    let names_any = |words: &[&str]| words.iter().any(|word| message.text.contains(word));
    message.severity <= WARNING
        && names_any(&["virtio", "drm", "gpu"])
        && !names_any(&NO_COMPLAINTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complains(text: &str) -> bool {
        is_gpu_complaint(&KernelMessage {
            seq: 1,
            time_us: 1,
            severity: WARNING,
            text: text.to_owned(),
        })
    }

    /// 6.1 allocates memory where it sets up the links of interrupt pins at a wake, and may find that time stands still.
    #[test]
    fn a_warning_is_the_gpus_where_its_driver_is_in_the_trace_and_not_where_it_is_loaded() {
        for line in [
            "WARNING: CPU: 0 PID: 95 at kernel/time/timekeeping.c:1005 ktime_get_seconds+0x1b/0x30",
            "Modules linked in: virtio_gpu virtio_dma_buf drm virtio_pci",
            "RIP: 0010:ktime_get_seconds+0x1b/0x30",
            " acpi_pci_link_set+0x76/0x260",
        ] {
            assert!(!complains(line), "{line}");
        }
        for line in [
            "WARNING: CPU: 0 PID: 9 at drivers/gpu/drm/virtio/virtgpu_vq.c:1 f+0x1/0x2 [virtio_gpu]",
            "RIP: 0010:virtio_gpu_queue_ctrl_sgs+0x1b/0x30 [virtio_gpu]",
            " virtio_gpu_cmd_resource_flush+0x9/0x10 [virtio_gpu]",
            "[drm:virtio_gpu_dequeue_ctrl_func] *ERROR* response 0x1203 (command 0x104)",
        ] {
            assert!(complains(line), "{line}");
        }
    }
}
