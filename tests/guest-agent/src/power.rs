// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guest sleep.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use guest_agent::protocol::SleepReport;
use rustix::time::{ClockId, clock_gettime};

use crate::{Error, file_error, kmsg, write_text};

const STATE: &str = "/sys/power/state";
const PM_TEST: &str = "/sys/power/pm_test";
/// Seconds a sleep stops at the level under test; 5 by default.
const PM_TEST_DELAY: &str = "/sys/module/suspend/parameters/pm_test_delay";
const PRINT_TIMES: &str = "/sys/power/pm_print_times";
const DEBUG_MESSAGES: &str = "/sys/power/pm_debug_messages";
const WAKE_ALARM: &str = "/sys/class/rtc/rtc0/wakealarm";
/// The ISA bridge of QEMU's q35; there is none elsewhere.
const ISA_BRIDGE: &str = "/sys/bus/pci/devices/0000:00:1f.0/config";
/// PMBASE (0x40) and ACPI_CNTL (0x44), ICH9 datasheet 13.1.
const PM_REGISTERS: u64 = 0x40;

/// QEMU's ICH9 comes back from S3 with PMBASE and ACPI_CNTL cleared and Linux does not restore them:
/// the next write to the sleep register goes nowhere and "succeeds" at once. Firmware's work, done here.
struct IsaBridge {
    config: File,
    saved: [u8; 8],
}

impl IsaBridge {
    fn save() -> Result<Option<Self>, Error> {
        if !Path::new(ISA_BRIDGE).exists() {
            return Ok(None);
        }
        let config = OpenOptions::new()
            .read(true)
            .write(true)
            .open(ISA_BRIDGE)
            .map_err(file_error("open", ISA_BRIDGE))?;
        let mut saved = [0; 8];
        config
            .read_exact_at(&mut saved, PM_REGISTERS)
            .map_err(file_error("read", ISA_BRIDGE))?;
        Ok(Some(Self { config, saved }))
    }

    fn restore(&self) -> Result<(), Error> {
        self.config
            .write_all_at(&self.saved, PM_REGISTERS)
            .map_err(file_error("write", ISA_BRIDGE))
    }
}

/// Milliseconds of CLOCK_BOOTTIME and of CLOCK_MONOTONIC, which stands still during a sleep.
fn clocks() -> (Duration, Duration) {
    let read = |clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default();
    (read(ClockId::Boottime), read(ClockId::Monotonic))
}

fn set_alarm(alarm_s: Option<u32>) -> Result<(), Error> {
    // Cloud Hypervisor's RTC has no alarm.
    if alarm_s.is_none() && !Path::new(WAKE_ALARM).exists() {
        return Ok(());
    }
    // An alarm that is still set refuses a new one.
    write_text(WAKE_ALARM, "0")?;
    alarm_s.map_or(Ok(()), |seconds| {
        write_text(WAKE_ALARM, &format!("+{seconds}"))
    })
}

/// Has a byte from the host end a suspend-to-idle, which no RTC of the lab's machines does.
fn wake_by(port: &str) -> Result<(), Error> {
    let name = port.trim_start_matches("/dev/");
    write_text(&format!("/sys/class/tty/{name}/power/wakeup"), "enabled")
}

/// Sleeps, and comes back after the wake. A byte on the serial port `port` wakes too.
pub(crate) fn sleep(
    port: &str,
    state: &str,
    alarm_s: Option<u32>,
    pm_test: Option<&str>,
    print_times: bool,
) -> Result<SleepReport, Error> {
    let mark = kmsg::mark()?;
    write_text(DEBUG_MESSAGES, "1")?;
    write_text(PRINT_TIMES, if print_times { "1" } else { "0" })?;
    write_text(PM_TEST, pm_test.unwrap_or("none"))?;
    write_text(PM_TEST_DELAY, "1")?;
    wake_by(port)?;
    let bridge = IsaBridge::save()?;
    set_alarm(alarm_s)?;
    let (boot_before, awake_before) = clocks();
    let result = write_text(STATE, state);
    let (boot_after, awake_after) = clocks();
    bridge.as_ref().map_or(Ok(()), IsaBridge::restore)?;
    write_text(PM_TEST, "none")?;
    write_text(PRINT_TIMES, "0")?;
    result?;
    let awake = awake_after.saturating_sub(awake_before);
    let asleep = boot_after.saturating_sub(boot_before).saturating_sub(awake);
    Ok(SleepReport {
        asleep_ms: millis(asleep),
        awake_ms: millis(awake),
        mark,
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
