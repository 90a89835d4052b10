// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Cloud Hypervisor with a GPU of ours. No test machine is sure to have a usable KVM, so it runs inside a
//! QEMU guest, the outer guest, whose KVM is QEMU's emulation of AMD's SVM.
//!
//! Three agents' worth of lines leave the outer guest: its own agent's on the second serial port, and
//! on virtio ports those of the inner guest's agent and of the GPU's control socket.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use guest_agent::protocol::{Command, Drawn, KernelMessage, RunReport, SleepReport, Target};
use guest_agent::scene::SceneRequest;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

mod outer;
mod setup;

pub use setup::{CloudHypervisor, Gpu, Setup, virtiofsd};

use crate::agent::{Agent, Pending};
use crate::channel::Channel;
use crate::daemon::{self, Screenshot};
use crate::guest::is_gpu_complaint;
use crate::image::Image;
use crate::lab::Lab;
use crate::process::{Running, Sockets};

/// For QEMU's sockets, and one exchange with the server: a machine under full load is slow.
const LIMIT: Duration = Duration::from_secs(60);
/// The outer guest boots in 5 s on an idle machine, the inner one in 10 s.
const BOOT_LIMIT: Duration = Duration::from_secs(240);
/// How often to see whether the inner guest's VMM is still there.
const BOOT_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// From the request to sleep until the device sleeps, and from the wake until the agent replies.
const SLEEP_LIMIT: Duration = Duration::from_secs(120);
/// From the last device that suspends until the CPU idles, which nothing outside the guest shows.
const IDLE_SETTLES: Duration = Duration::from_secs(3);
const INTERVAL: Duration = Duration::from_millis(100);
/// For a request to the OpenGL client: the first one loads Mesa, in the guest and in the VMM.
const SCENE_LIMIT: Duration = Duration::from_secs(600);
/// The VMM's program, and the name of its log.
const VMM: &str = "cloud-hypervisor";
/// In the outer guest.
const API_SOCKET: &str = "/tmp/api";
/// The inner guest and the machine around it; all of it ends when this is dropped.
#[derive(Debug)]
pub struct Nested {
    inner: Agent,
    control: Channel,
    outer: Agent,
    _qemu: Running,
    directory: PathBuf,
    _sockets: Sockets,
}

impl Nested {
    /// Boots the machine that `setup` describes.
    ///
    /// # Errors
    /// Something on the way there failed.
    pub fn boot(lab: &Lab, vmm: &CloudHypervisor, setup: &Setup) -> Result<Self> {
        let nested = Self::boot_outer(lab, vmm, setup)?;
        nested.relay("/dev/vport0p1", "/tmp/serial")?;
        nested.relay("/dev/vport0p2", "/tmp/control")?;
        if setup.scene {
            nested.explain(nested.run(outer::USE_SCENE))?;
        }
        for command in &setup.prepare {
            nested.run(command)?;
        }
        if let Gpu::Server(options) = &setup.gpu {
            nested.start_server(options)?;
        }
        nested.spawn(&setup.command_line(), VMM)?;
        nested.explain(nested.wait_booted(0))?;
        Ok(nested)
    }

    /// Joins a port that leaves the outer guest with a socket in it.
    fn relay(&self, port: &str, socket: &str) -> Result<()> {
        let name = socket.replace('/', "-");
        self.spawn(
            &format!("guest-agent relay {port} {socket}"),
            &format!("relay{name}"),
        )
    }

    /// Waits until the inner guest's agent has started since `from`, as long as there is hope.
    fn wait_booted(&self, from: usize) -> Result<()> {
        let deadline = Instant::now() + BOOT_LIMIT;
        loop {
            match self.inner.wait_ready(from, BOOT_CHECK_INTERVAL) {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => self
                    .run(&format!("pidof {VMM}"))
                    .map(drop)
                    .context("Cloud Hypervisor has ended")?,
            }
        }
    }

    fn boot_outer(lab: &Lab, vmm: &CloudHypervisor, setup: &Setup) -> Result<Self> {
        let directory = lab.run_directory(&format!("{}-{}", setup.name, setup.kernel))?;
        let initramfs = directory.join("initramfs");
        outer::pack(lab, vmm, setup, &initramfs)?;
        let sockets = Sockets::create()?;
        let console = directory.join("console.log");
        let arguments = outer::arguments(lab, setup, &initramfs, sockets.path(), &console);
        let qemu = Running::start(&lab.qemu(), arguments, &directory.join("qemu.log"))?;
        let path = |name| sockets.path().join(name);
        let nested = Self {
            outer: Agent::connect(&path("outer"), LIMIT)?,
            inner: Agent::connect(&path("inner"), LIMIT)?,
            control: Channel::connect("control", &path("control"), LIMIT)?,
            _qemu: qemu,
            directory,
            _sockets: sockets,
        };
        nested.explain(nested.outer.wait_ready(0, BOOT_LIMIT))?;
        // The guest holds what was unpacked from it.
        fs::remove_file(&initramfs).with_context(|| format!("remove {}", initramfs.display()))?;
        Ok(nested)
    }

    /// Runs a shell command in the outer guest, and gives its standard output.
    ///
    /// # Errors
    /// It did not exit with 0.
    pub fn run(&self, command: &str) -> Result<String> {
        let report: RunReport = self.outer.call(shell(command))?;
        ensure!(report.status == Some(0), "{command}: {report:?}");
        Ok(report.stdout)
    }

    /// Starts a program in the outer guest that stays; its output goes to a log named `name`.
    ///
    /// # Errors
    /// There is no shell to start it.
    pub fn spawn(&self, command: &str, name: &str) -> Result<()> {
        let detached = format!("setsid {command} </dev/null >/tmp/{name}.log 2>&1 &");
        self.run(&detached).map(drop)
    }

    /// Asks Cloud Hypervisor through its API, as `ch-remote` with `arguments`; gives what that prints.
    ///
    /// # Errors
    /// The VMM refused; the error has its words.
    pub fn ch_remote(&self, arguments: &str) -> Result<String> {
        self.run(&format!("ch-remote --api-socket {API_SOCKET} {arguments}"))
    }

    /// Where a sleep of the inner guest begins and how it ends is up to the caller: the reply comes
    /// with [`Nested::finish_sleep`].
    ///
    /// # Errors
    /// The agent's channel is gone.
    pub fn start_sleep(&self, state: &str) -> Result<Pending> {
        self.inner.start(sleep(state, None))
    }

    /// What the guest says of a sleep once it is awake again.
    ///
    /// # Errors
    /// It does not wake, or calls its sleep failed.
    pub fn finish_sleep(&self, pending: &Pending) -> Result<SleepReport> {
        self.explain(self.inner.finish(pending, SLEEP_LIMIT))
    }

    /// Runs a shell command in the inner guest, and gives its standard output.
    ///
    /// # Errors
    /// It did not exit with 0.
    pub fn inner_run(&self, command: &str) -> Result<String> {
        let report: RunReport = self.call(shell(command))?;
        ensure!(report.status == Some(0), "{command}: {report:?}");
        Ok(report.stdout)
    }

    /// Starts the device server in the outer guest, also in place of one that is gone.
    ///
    /// # Errors
    /// It does not answer.
    pub fn start_server(&self, options: &str) -> Result<()> {
        self.run("rm -f /tmp/gpu")?;
        self.spawn(&server_command(options), "server")?;
        self.explain(self.status()).map(drop)
    }

    /// Ends the device server at once, and waits until it is gone.
    ///
    /// # Errors
    /// None runs, or it stays.
    pub fn kill_server(&self) -> Result<()> {
        self.kill("virtio-gpu-s3d")
    }

    fn kill(&self, program: &str) -> Result<()> {
        let command = format!(
            "pid=$(pidof {program}) && kill -9 $pid && while kill -0 $pid 2>/dev/null; do sleep 0.1; done"
        );
        self.run(&command).map(drop)
    }

    /// Ends Cloud Hypervisor at once, and waits until it is gone. The outer guest and the relays stay.
    ///
    /// # Errors
    /// None runs, or it stays.
    pub fn kill_vmm(&self) -> Result<()> {
        self.kill(VMM)?;
        self.run(&format!("rm -f {API_SOCKET} /tmp/serial"))
            .map(drop)
    }

    /// Starts Cloud Hypervisor again with just these arguments, for example `--restore`.
    ///
    /// # Errors
    /// There is no shell to start it.
    pub fn start_vmm(&self, arguments: &str) -> Result<()> {
        self.spawn(
            &format!("{VMM} -v --api-socket {API_SOCKET} {arguments}"),
            VMM,
        )
    }

    /// Has the agent in the inner guest do something.
    ///
    /// # Errors
    /// It failed or did not reply.
    pub fn call<T: DeserializeOwned>(&self, command: Command) -> Result<T> {
        let what = format!("{command:?}");
        self.explain(self.inner.call(command)).context(what)
    }

    /// Has the OpenGL client in a 3D guest do something. Two processors emulate it, and the host's part of OpenGL is
    /// software on one of them.
    ///
    /// # Errors
    /// It failed or did not reply.
    pub fn scene<T: DeserializeOwned>(&self, request: SceneRequest) -> Result<T> {
        let pending = self.inner.start(Command::Scene { request })?;
        let reply = self.explain(self.inner.finish(&pending, SCENE_LIMIT));
        reply.with_context(|| format!("{request:?}"))
    }

    /// Draws picture `seed` in the inner guest and waits until it is on the screen, every pixel of it.
    ///
    /// # Errors
    /// It does not get there.
    pub fn show(&self, target: Target, seed: u32) -> Result<Image> {
        let drawn: Drawn = self.call(Command::Draw { target, seed })?;
        let picture = Image::of_pattern(seed, drawn.width, drawn.height);
        let look = || self.screenshot("drawn");
        let (shown, result) = self.explain(daemon::wait_until_shown(&picture, look))?;
        let active = shown.active;
        self.explain(result.with_context(|| format!("picture {seed} (active: {active})")))?;
        Ok(picture)
    }

    /// Checks that `expected` is on the screen at this very moment.
    ///
    /// # Errors
    /// Something else is.
    pub fn must_show(&self, expected: &Image) -> Result<()> {
        let shown = self.explain(self.screenshot("now"))?;
        self.explain(shown.image.must_be(expected))
    }

    /// What the server shows on output 0. The PNG stays in the log directory under `name`.
    ///
    /// # Errors
    /// The server could not make a picture.
    pub fn screenshot(&self, name: &str) -> Result<Screenshot> {
        let reply = self.request(&json!({"command": "screenshot", "scanout": 0}))?;
        let png = reply["png"].as_str().context("screenshot without png")?;
        let png = STANDARD.decode(png).context("screenshot: base64")?;
        let path = self.directory.join(format!("{name}.png"));
        fs::write(&path, &png).with_context(|| format!("write {}", path.display()))?;
        Ok(Screenshot {
            active: reply["active"] == true,
            image: Image::decode(&png)?,
        })
    }

    /// Asks the GPU through its control socket.
    ///
    /// # Errors
    /// It refuses, with its words, or does not answer.
    pub fn request(&self, message: &Value) -> Result<Value> {
        daemon::request(&self.control, message)
    }

    /// The server's view of itself.
    ///
    /// # Errors
    /// It does not answer.
    pub fn status(&self) -> Result<Value> {
        self.request(&json!({"command": "status"}))
    }

    /// One of the counters of [`Nested::status`].
    ///
    /// # Errors
    /// The server has no such counter.
    pub fn counter(&self, name: &str) -> Result<u64> {
        let status = self.status()?;
        status["counters"][name]
            .as_u64()
            .with_context(|| format!("no counter {name} in {status}"))
    }

    /// A sleep that the inner kernel cuts short once every device is suspended.
    ///
    /// # Errors
    /// The guest calls the attempt failed.
    pub fn abort_sleep(&self) -> Result<SleepReport> {
        let pending = self.inner.start(sleep("mem", Some("devices")))?;
        self.explain(self.inner.finish(&pending, SLEEP_LIMIT))
    }

    /// Sends the inner guest to suspend-to-idle, and waits until it idles. Its GPU is the server.
    ///
    /// # Errors
    /// The device did not go to sleep.
    pub fn fall_idle(&self) -> Result<Pending> {
        let pending = self.inner.start(sleep("freeze", None))?;
        self.explain(self.wait_asleep())?;
        thread::sleep(IDLE_SETTLES);
        Ok(pending)
    }

    /// Ends a suspend-to-idle, with a byte on the inner guest's serial port. An unmodified Cloud Hypervisor
    /// has no other wake source: its RTC has no alarm, and the interrupt of its power button (ACPI generic
    /// event device) is no wake-up interrupt to Linux.
    ///
    /// # Errors
    /// The outer guest is gone.
    pub fn nudge(&self) -> Result<()> {
        self.inner.nudge()
    }

    /// One suspend-to-idle. `asleep` runs while the guest idles.
    ///
    /// # Errors
    /// The guest did not sleep, did not wake or calls its sleep failed.
    pub fn idle(&self, asleep: impl FnOnce() -> Result<()>) -> Result<SleepReport> {
        let pending = self.fall_idle()?;
        asleep().context("while the guest idled")?;
        let status = self.status()?;
        ensure!(
            status["state"] == "asleep",
            "something else woke the guest: {status}"
        );
        self.nudge()?;
        self.finish_sleep(&pending)
    }

    fn wait_asleep(&self) -> Result<()> {
        let deadline = Instant::now() + SLEEP_LIMIT;
        loop {
            let status = self.status()?;
            if status["state"] == "asleep" {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "the device is not asleep: {status}"
            );
            thread::sleep(INTERVAL);
        }
    }

    /// Restarts the inner guest: Cloud Hypervisor makes the machine anew and connects to the server again.
    ///
    /// # Errors
    /// It did not come up.
    pub fn reboot(&self) -> Result<()> {
        let from = self.inner.position();
        // Nobody is left to reply to it.
        let _ = self.inner.start(Command::Reboot)?;
        self.explain(self.wait_booted(from))
    }

    /// Has the VMM restart the inner guest, whatever that one does.
    ///
    /// # Errors
    /// It did not come up.
    pub fn reboot_by_api(&self) -> Result<()> {
        let from = self.inner.position();
        self.explain(self.ch_remote("reboot"))?;
        self.explain(self.wait_booted(from))
    }

    /// Checks that no message of severity warning or worse since `mark` speaks of the GPU.
    ///
    /// # Errors
    /// One does; a virtio-gpu command that timed out is among them.
    pub fn must_have_no_gpu_complaint(&self, mark: u64) -> Result<()> {
        let messages: Vec<KernelMessage> = self.call(Command::Dmesg { since: mark })?;
        let complaints: Vec<_> = messages.into_iter().filter(is_gpu_complaint).collect();
        ensure!(
            complaints.is_empty(),
            "the kernel complains: {complaints:#?}"
        );
        Ok(())
    }

    /// Where this run's logs and pictures are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The version of the Cloud Hypervisor under test.
    ///
    /// # Errors
    /// It does not run.
    pub fn version(&self) -> Result<String> {
        let text = self.run("cloud-hypervisor --version")?;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }

    /// Adds the ends of the logs in the outer guest to an error.
    ///
    /// # Errors
    /// The one that it was given.
    pub fn explain<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| {
            let logs = self.run("tail -n 15 /tmp/*.log; dmesg | tail -n 5");
            let logs = logs.unwrap_or_else(|silence| format!("the outer guest: {silence:#}"));
            // Kept as well: the error a test prints may be cut.
            let _ = fs::write(self.directory.join("outer.log"), &logs);
            anyhow!("{error:#}\nlogs: {}\n{logs}", self.directory.display())
        })
    }
}

fn sleep(state: &str, pm_test: Option<&str>) -> Command {
    Command::Sleep {
        state: state.to_owned(),
        alarm_s: None,
        pm_test: pm_test.map(str::to_owned),
        print_times: false,
    }
}

fn shell(command: &str) -> Command {
    Command::Run {
        program: "sh".to_owned(),
        arguments: vec!["-c".to_owned(), command.to_owned()],
    }
}

fn server_command(options: &str) -> String {
    format!(
        "virtio-gpu-s3d --socket /tmp/gpu --control /tmp/control --gpu {} --log-level info {options}",
        setup::OUTPUT
    )
}
