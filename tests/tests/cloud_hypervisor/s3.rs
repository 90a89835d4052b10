// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guest S3 of Cloud Hypervisor itself (`--platform acpi_s3=on`), with a guest of stock devices.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use guest_agent::protocol::{Command, Info, SleepReport};
use serde_json::Value;
use tests::agent::Pending;
use tests::lab::{Kernel, Lab};
use tests::nested::{CloudHypervisor, Gpu, Nested, Setup};

use crate::sleep;
use crate::wait::until;

/// How long the VMM's use of the CPU is looked at, in seconds of the outer guest.
const CPU_WINDOW_S: u32 = 10;
/// Linux tells times in /proc in ticks of 10 ms.
const TICKS_PER_S: u32 = 100;
/// The most that the VMM of a sleeping guest may use of one CPU, nested or not.
const ASLEEP_PERMILLE: u32 = 10;
const EVENTS: &str = "/tmp/events";
const SNAPSHOT: &str = "/tmp/snapshot";

/// Who wakes the guest.
#[derive(Debug, Clone, Copy)]
enum Wake {
    Api,
    PowerButton,
}

impl Wake {
    fn command(self) -> &'static str {
        match self {
            Self::Api => "wakeup",
            Self::PowerButton => "power-button",
        }
    }
}

/// A guest of stock devices that may sleep.
pub(crate) struct Guest {
    pub(crate) nested: Nested,
    label: String,
}

impl Guest {
    /// Boots `kernel` with a disk, a net device, entropy, a console and these options for the platform.
    pub(crate) fn boot(
        name: &str,
        kernel: Kernel,
        cpus: u32,
        platform: &str,
    ) -> Result<Option<Self>> {
        let (Some(vmm), Some(lab)) = (CloudHypervisor::find_patched()?, Lab::find()?) else {
            return Ok(None);
        };
        let setup = Setup {
            gpu: Gpu::InArguments,
            devices: true,
            cpus,
            prepare: vec![
                "truncate -s 1M /tmp/disk".to_owned(),
                format!("mkdir {SNAPSHOT}"),
            ],
            arguments: [
                platform,
                "--disk path=/tmp/disk,image_type=raw",
                "--net tap=tap0,ip=192.168.9.1,mask=255.255.255.0",
                "--console file=/tmp/console",
                &format!("--event-monitor path={EVENTS}"),
            ]
            .map(str::to_owned)
            .to_vec(),
            ..Setup::new(name, kernel)
        };
        let guest = Self {
            nested: Nested::boot(&lab, &vmm, &setup)?,
            label: format!("{name}-{kernel}"),
        };
        guest.bring_net_up()?;
        guest.must_work("booted")?;
        Ok(Some(guest))
    }

    fn say(&self, what: &str) {
        eprintln!("{}: {what}", self.label);
    }

    fn bring_net_up(&self) -> Result<()> {
        self.nested
            .inner_run("ip addr add 192.168.9.2/24 dev eth0 && ip link set eth0 up")
            .map(drop)
    }

    /// Every device does what it is for; `when` is a word that it does it with.
    fn must_work(&self, when: &str) -> Result<()> {
        self.devices_work(when)
            .with_context(|| format!("devices, {when}"))
    }

    fn devices_work(&self, when: &str) -> Result<()> {
        let size = when.len();
        // To the disk and not to the cache; then from the disk and not from the cache.
        let disk = self.nested.inner_run(&format!(
            "echo {when} | dd of=/dev/vda conv=sync,fsync 2>/dev/null && echo 3 >/proc/sys/vm/drop_caches \
             && head -c {size} /dev/vda"
        ))?;
        ensure!(disk == when, "the guest reads {disk:?}");
        let disk = self.nested.run(&format!("head -c {size} /tmp/disk"))?;
        ensure!(disk == when, "the disk has {disk:?}");
        self.nested.inner_run("ping -c 3 -W 10 192.168.9.1")?;
        let entropy = self.nested.inner_run(
            "cat /sys/class/misc/hw_random/rng_current && head -c 64 /dev/hwrng | wc -c",
        )?;
        ensure!(
            entropy.starts_with("virtio_rng") && entropy.ends_with("64\n"),
            "entropy: {entropy:?}"
        );
        self.nested.inner_run(&format!("echo {when} >/dev/hvc0"))?;
        let line = format!("grep -q {when} /tmp/console");
        until(&line, || Ok(self.nested.run(&line).is_ok()))
    }

    fn info(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.nested.ch_remote("info")?)?)
    }

    fn is_asleep(&self) -> Result<bool> {
        sleep::is_asleep(&self.nested)
    }

    /// Checks that the VMM refuses `command` with these words.
    fn must_refuse(&self, command: &str, words: &str) -> Result<()> {
        let reply = self.nested.ch_remote(command);
        let Err(error) = reply else {
            anyhow::bail!("{command} was done, and not refused with {words:?}");
        };
        let error = format!("{error:#}");
        ensure!(error.contains(words), "no {words:?} in {error}");
        Ok(())
    }

    /// Puts the guest to sleep, and waits until the VMM says so.
    fn fall_asleep(&self) -> Result<Pending> {
        ensure!(!self.is_asleep()?, "asleep before the request");
        sleep::fall_asleep(&self.nested)
    }

    fn wake(&self, wake: Wake, pending: &Pending) -> Result<SleepReport> {
        let start = Instant::now();
        self.nested.ch_remote(wake.command())?;
        let report = self.nested.finish_sleep(pending)?;
        self.say(&format!(
            "woken by {wake:?} after {report:?}, back in {:?}",
            start.elapsed()
        ));
        ensure!(!self.is_asleep()?, "vm.info: awake and asleep");
        Ok(report)
    }

    /// One sleep, deep and not only to idle, and every device after it.
    fn must_sleep(&self, wake: Wake, when: &str) -> Result<()> {
        let pressed = self.button_interrupts()?;
        let (slept, woken) = (self.events("asleep")?, self.events("awake")?);
        let pending = self.fall_asleep()?;
        let report = self.wake(wake, &pending)?;
        self.nested
            .inner_run("dmesg | grep 'PM: suspend entry (deep)'")
            .with_context(|| format!("no deep sleep: {report:?}"))?;
        ensure!(
            self.events("asleep")? == slept + 1,
            "not one event of a sleep"
        );
        ensure!(
            self.events("awake")? == woken + 1,
            "not one event of a wake"
        );
        ensure!(
            self.button_interrupts()? == pressed,
            "the power button reached the guest"
        );
        self.must_work(when)
    }

    fn events(&self, name: &str) -> Result<u32> {
        let count = format!("grep -c '\"event\": \"{name}\"' {EVENTS} || true");
        Ok(self.nested.run(&count)?.trim().parse()?)
    }

    /// The generic event device's, on all CPUs together.
    fn button_interrupts(&self) -> Result<String> {
        self.nested
            .inner_run("grep -i 'acpi:ged' /proc/interrupts | tr -s ' ' | cut -d ' ' -f 2,3,4")
    }

    /// What the VMM uses of one CPU, in thousandths.
    fn cpu_permille(&self) -> Result<u32> {
        let used = "awk '{print $14 + $15}' /proc/$(pidof cloud-hypervisor)/stat";
        let ticks = self.nested.run(&format!(
            "before=$({used}); sleep {CPU_WINDOW_S}; echo $(($({used}) - before))"
        ))?;
        let ticks: u32 = ticks.trim().parse()?;
        Ok(ticks * 1000 / (CPU_WINDOW_S * TICKS_PER_S))
    }

    /// Saves a sleeping guest, ends the VMM, and goes on in another one.
    fn must_be_restored_asleep(&self) -> Result<()> {
        let pending = self.fall_asleep()?;
        self.nested.ch_remote("pause")?;
        self.must_refuse("wakeup", "Paused")?;
        self.must_refuse("power-button", "Paused")?;
        self.nested
            .ch_remote(&format!("snapshot file://{SNAPSHOT}"))?;
        self.nested.kill_vmm()?;
        self.nested.start_vmm(&format!(
            "--restore source_url=file://{SNAPSHOT} --event-monitor path={EVENTS}"
        ))?;
        until("restored VM", || {
            Ok(self.info().is_ok_and(|info| info["state"] == "Paused"))
        })?;
        self.nested.ch_remote("resume")?;
        ensure!(self.is_asleep()?, "the restored guest is awake");
        self.say("restored asleep");
        self.wake(Wake::Api, &pending)?;
        self.must_work("restored")
    }

    /// The VMM reboots a sleeping guest, which comes up awake, and sleeps again.
    fn must_reboot_while_asleep(&self) -> Result<()> {
        // Nobody is left to reply to it.
        let _ = self.fall_asleep()?;
        self.nested.reboot_by_api()?;
        ensure!(!self.is_asleep()?, "asleep after a reboot");
        self.say("rebooted");
        self.bring_net_up()?;
        self.must_work("rebooted")?;
        self.must_sleep(Wake::Api, "rebooted-and-slept")
    }

    fn mem_sleep(&self) -> Result<String> {
        let info: Info = self.nested.call(Command::Info)?;
        Ok(info.mem_sleep)
    }
}

#[test]
fn linux_6_1_sleeps_twice_and_keeps_its_devices() -> Result<()> {
    let Some(guest) = Guest::boot("ch-s3", Kernel::V6_1, 1, "--platform acpi_s3=on")? else {
        return Ok(());
    };
    guest.must_sleep(Wake::Api, "slept-once")?;
    guest.must_sleep(Wake::PowerButton, "slept-twice")
}

#[test]
fn linux_7_with_two_cpus_sleeps_twice_and_its_vmm_idles_meanwhile() -> Result<()> {
    let Some(guest) = Guest::boot("ch-s3", Kernel::V7, 2, "--platform acpi_s3=on")? else {
        return Ok(());
    };
    ensure!(
        guest.mem_sleep()?.contains("[deep]"),
        "{}",
        guest.mem_sleep()?
    );
    guest.must_refuse("wakeup", "not asleep")?;
    let idle = guest.cpu_permille()?;
    let pending = guest.fall_asleep()?;
    let asleep = guest.cpu_permille()?;
    guest.say(&format!(
        "CPU of the VMM, nested: {asleep} ‰ asleep, {idle} ‰ with an idle guest"
    ));
    ensure!(
        asleep <= ASLEEP_PERMILLE,
        "{asleep} ‰ of a CPU while asleep"
    );
    // A guest that is paused and resumed meanwhile sleeps on.
    guest.nested.ch_remote("pause")?;
    guest.must_refuse("wakeup", "Paused")?;
    guest.nested.ch_remote("resume")?;
    ensure!(guest.is_asleep()?, "a pause woke the guest");
    guest.wake(Wake::Api, &pending)?;
    guest.must_refuse("wakeup", "not asleep")?;
    guest.must_work("slept-once")?;
    guest.must_sleep(Wake::PowerButton, "slept-twice")
}

#[test]
fn a_sleeping_guest_is_saved_restored_woken_and_rebooted() -> Result<()> {
    let Some(guest) = Guest::boot("ch-s3-saved", Kernel::V7, 1, "--platform acpi_s3=on")? else {
        return Ok(());
    };
    guest.must_be_restored_asleep()?;
    guest.must_sleep(Wake::PowerButton, "restored-and-slept")?;
    guest.must_reboot_while_asleep()
}

#[test]
fn without_the_option_a_guest_is_not_offered_s3_and_cannot_be_woken() -> Result<()> {
    let Some(guest) = Guest::boot("ch-s3-off", Kernel::V7, 1, "")? else {
        return Ok(());
    };
    let states = guest.mem_sleep()?;
    ensure!(states.trim() == "[s2idle]", "mem_sleep: {states}");
    // To compare with a stock VMM's.
    let tables = "cd /sys/firmware/acpi/tables && md5sum DSDT FACP";
    guest.say(&guest.nested.inner_run(tables)?);
    ensure!(
        guest.info()?.get("asleep").is_none(),
        "vm.info has a new field"
    );
    guest.must_refuse("wakeup", "not enabled")
}
