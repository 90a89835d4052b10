// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An unmodified Cloud Hypervisor on the device server. No test machine is sure to have a usable KVM,
//! so both run inside a QEMU guest, the outer guest, whose KVM is QEMU's emulation of AMD's SVM.
//!
//! Three agents' worth of lines leave the outer guest: its own agent's on the second serial port, and
//! on virtio ports those of the inner guest's agent and of the server's control socket.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use guest_agent::protocol::{Command, Drawn, KernelMessage, RunReport, SleepReport, Target};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::archive::Archive;
use crate::channel::Channel;
use crate::daemon::{self, Screenshot};
use crate::guest::is_gpu_complaint;
use crate::image::Image;
use crate::lab::{Kernel, Lab};
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
/// The inner guest's RAM, shared with the device server.
const MEMORY: &str = "size=512M,shared=on";
/// Small: every pixel passes two emulated machines.
const OUTPUT: &str = "width=640,height=480";

/// A Cloud Hypervisor to test with.
#[derive(Debug, Clone)]
pub struct CloudHypervisor {
    binary: PathBuf,
}

impl CloudHypervisor {
    /// The one that `CLOUD_HYPERVISOR` names. Without that `None`, with the reason on standard error.
    ///
    /// # Errors
    /// It names no file.
    pub fn find() -> Result<Option<Self>> {
        let Some(path) = env::var_os("CLOUD_HYPERVISOR") else {
            eprintln!("skipped: CLOUD_HYPERVISOR names no cloud-hypervisor binary");
            return Ok(None);
        };
        let binary = PathBuf::from(path);
        ensure!(
            binary.is_file(),
            "CLOUD_HYPERVISOR: no file {}",
            binary.display()
        );
        Ok(Some(Self { binary }))
    }
}

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
    /// Boots `kernel` under Cloud Hypervisor, with a GPU from a server with `options`.
    ///
    /// # Errors
    /// Something on the way there failed.
    pub fn boot(
        lab: &Lab,
        vmm: &CloudHypervisor,
        name: &str,
        kernel: Kernel,
        options: &str,
    ) -> Result<Self> {
        let nested = Self::boot_outer(lab, vmm, name, kernel)?;
        nested.spawn("guest-agent relay /dev/vport0p1 /tmp/serial", "relay-agent")?;
        nested.spawn(
            "guest-agent relay /dev/vport0p2 /tmp/control",
            "relay-control",
        )?;
        nested.spawn(
            &format!(
                "virtio-gpu-s3d --socket /tmp/gpu --control /tmp/control --gpu {OUTPUT} \
                 --log-level info {options}"
            ),
            "server",
        )?;
        nested.explain(nested.status())?;
        nested.spawn(&command_line(), "cloud-hypervisor")?;
        nested.explain(nested.wait_booted(0))?;
        Ok(nested)
    }

    /// Waits until the inner guest's agent has started since `from`, as long as there is hope.
    fn wait_booted(&self, from: usize) -> Result<()> {
        let deadline = Instant::now() + BOOT_LIMIT;
        loop {
            match self.inner.wait_ready(from, BOOT_CHECK_INTERVAL) {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => self
                    .run("pidof cloud-hypervisor")
                    .map(drop)
                    .context("Cloud Hypervisor has ended")?,
            }
        }
    }

    fn boot_outer(lab: &Lab, vmm: &CloudHypervisor, name: &str, kernel: Kernel) -> Result<Self> {
        let directory = lab.run_directory(&format!("{name}-{kernel}"))?;
        let initramfs = directory.join("initramfs");
        pack(lab, vmm, kernel, &initramfs)?;
        let sockets = Sockets::create()?;
        let console = directory.join("console.log");
        let arguments = outer_arguments(lab, &initramfs, sockets.path(), &console);
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

    /// Runs a command in the outer guest.
    fn run(&self, command: &str) -> Result<String> {
        let report: RunReport = self.outer.call(Command::Run {
            program: "sh".to_owned(),
            arguments: vec!["-c".to_owned(), command.to_owned()],
        })?;
        ensure!(report.status == Some(0), "{command}: {report:?}");
        Ok(report.stdout)
    }

    /// Starts a program in the outer guest that stays; its output goes to a log named `name`.
    fn spawn(&self, command: &str, name: &str) -> Result<()> {
        let detached = format!("setsid {command} </dev/null >/tmp/{name}.log 2>&1 &");
        self.run(&detached).map(drop)
    }

    /// Has the agent in the inner guest do something.
    ///
    /// # Errors
    /// It failed or did not reply.
    pub fn call<T: DeserializeOwned>(&self, command: Command) -> Result<T> {
        let what = format!("{command:?}");
        self.explain(self.inner.call(command)).context(what)
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

    fn request(&self, message: &Value) -> Result<Value> {
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

    /// One suspend-to-idle, ended by a byte on the inner guest's serial port. An unmodified Cloud
    /// Hypervisor has no other wake source: its RTC has no alarm, and the interrupt of its power button
    /// (ACPI generic event device) is no wake-up interrupt to Linux. `asleep` runs while the guest idles.
    ///
    /// # Errors
    /// The guest did not sleep, did not wake or calls its sleep failed.
    pub fn idle(&self, asleep: impl FnOnce() -> Result<()>) -> Result<SleepReport> {
        let pending = self.inner.start(sleep("freeze", None))?;
        self.explain(self.wait_asleep())?;
        thread::sleep(IDLE_SETTLES);
        asleep().context("while the guest idled")?;
        let status = self.status()?;
        ensure!(
            status["state"] == "asleep",
            "something else woke the guest: {status}"
        );
        self.inner.nudge()?;
        self.explain(self.inner.finish(&pending, SLEEP_LIMIT))
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

    /// The version of the Cloud Hypervisor under test.
    ///
    /// # Errors
    /// It does not run.
    pub fn version(&self) -> Result<String> {
        let text = self.run("cloud-hypervisor --version")?;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }

    /// Adds the ends of the logs in the outer guest to an error.
    fn explain<T>(&self, result: Result<T>) -> Result<T> {
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

/// Cloud Hypervisor's arguments. Its only serial port is the agent's, so the kernel must be quiet on it:
/// with loglevel=1 nothing but a panic is printed there.
fn command_line() -> String {
    format!(
        "cloud-hypervisor -v --kernel /payload/vmlinuz --initramfs /payload/initramfs --cpus boot=1 \
         --memory {MEMORY} --serial socket=/tmp/serial --console off --user-device socket=/tmp/gpu \
         --cmdline 'console=ttyS0 loglevel=1 panic=-1 rdinit=/init no_timer_check \
         vt.global_cursor_default=0 consoleblank=0 AGENT_PORT=/dev/ttyS0'"
    )
}

fn outer_arguments(lab: &Lab, initramfs: &Path, sockets: &Path, console: &Path) -> Vec<OsString> {
    // One CPU and one TCG thread: with more, an outer guest oopsed now and then (QEMU's SVM).
    // qemu64 and not max: the features that KVM passes on must all work nested.
    let fixed = "-nodefaults -no-user-config -no-reboot -machine q35 -accel tcg,thread=single \
                 -cpu qemu64,+svm,+npt,+pdpe1gb,+fsgsbase,+smep -smp 1 -m 3072 -display none -nic none \
                 -device virtio-serial-pci";
    let mut arguments: Vec<OsString> = fixed.split_whitespace().map(OsString::from).collect();
    let mut add = |option: &str, value: String| {
        arguments.extend([OsString::from(option), value.into()]);
    };
    add("-kernel", lab.nested("vmlinuz").display().to_string());
    add("-initrd", initramfs.display().to_string());
    let command_line = "console=ttyS0 loglevel=5 panic=-1 rdinit=/init no_timer_check";
    add("-append", command_line.to_owned());
    add("-serial", format!("file:{}", console.display()));
    for name in ["outer", "inner", "control"] {
        let path = sockets.join(name).display().to_string();
        let socket = format!("socket,id={name},path={path},server=on,wait=off");
        add("-chardev", socket);
    }
    add("-serial", "chardev:outer".to_owned());
    for (number, name) in [(1, "inner"), (2, "control")] {
        let port = format!("virtserialport,nr={number},chardev={name},name={name}");
        add("-device", port);
    }
    arguments
}

/// The outer guest's initramfs, and behind it an archive of what it runs: Linux unpacks both.
fn pack(lab: &Lab, vmm: &CloudHypervisor, kernel: Kernel, out: &Path) -> Result<()> {
    let base = lab.nested("initramfs");
    if !base.exists() {
        bail!("no {}: run scripts/lab initramfs nested", base.display());
    }
    fs::copy(&base, out).with_context(|| format!("copy {}", base.display()))?;
    let staging = out.with_extension("staging");
    let mut archive = Archive::create(&staging)?;
    archive.add_program(&vmm.binary, "bin/cloud-hypervisor")?;
    archive.add_program(&daemon::program()?, "bin/virtio-gpu-s3d")?;
    archive.add(&lab.vmlinuz(kernel), "payload/vmlinuz")?;
    archive.add(&lab.initramfs(kernel), "payload/initramfs")?;
    let file = File::options().append(true).open(out);
    let file = file.with_context(|| format!("open {}", out.display()))?;
    archive.append_to(&lab.busybox(), file)
}
