// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How long a guest takes into S3 and out of it, from what the kernel under the VMM traces of its KVM and its scheduler.
//!
//! Nested on an emulated processor everything is many times slower than it is elsewhere. Hence ratios: to a pause and a
//! resume, which stop and start the same virtual CPU through the same API in the same run, and to one access of a
//! register that the VMM serves.

use std::fmt;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::lab::Kernel;
use tests::nested::Nested;

use crate::s3::Guest;
use crate::sleep;

const ROUNDS: usize = 5;
/// A sleep takes milliseconds of work and a pause the same; what comes later is not part of it.
const SETTLES: Duration = Duration::from_secs(1);

/// The write of SLP_TYP 3 with SLP_EN to the sleep control register (ACPI 6.5 §4.8.3.7).
const SLEEP: &str = "kvm_pio: pio_write at 0x600 size 1 count 1 val 0x2c";
/// The write before it, which clears WAK_STS in the sleep status register.
const ACCESS: &str = "kvm_pio: pio_write at 0x604 size 1 count 1 val 0x80";
/// The read that tells the guest to go on.
const WOKEN: &str = "kvm_pio: pio_read at 0x604 size 1 count 1 val 0x80";
/// The guest's next instruction follows.
const ENTRY: &str = "kvm_entry: vcpu 0";
/// The virtual CPU's thread waits.
const IDLE: &str = "sched_switch: prev_comm=vcpu0 ";
const WAITS: &str = " prev_state=S ";
/// A request arrives at the VMM's API.
const REQUEST: &str = "sched_wakeup: comm=http-server ";

/// One line of a trace.
struct Event<'a> {
    at_us: u64,
    what: &'a str,
}

impl<'a> Event<'a> {
    /// `TASK-PID [CPU] FLAGS SECONDS.MICROSECONDS: WHAT`
    fn parse(line: &'a str) -> Option<Self> {
        let (head, what) = line.split_once(": ")?;
        let (seconds, micros) = head.split_whitespace().last()?.split_once('.')?;
        let (seconds, micros): (u64, u64) = (seconds.parse().ok()?, micros.parse().ok()?);
        Some(Self {
            at_us: seconds * 1_000_000 + micros,
            what,
        })
    }

    fn is_idle(&self) -> bool {
        self.what.starts_with(IDLE) && self.what.contains(WAITS)
    }
}

struct Trace(String);

impl Trace {
    fn events(&self) -> impl DoubleEndedIterator<Item = Event<'_>> {
        self.0.lines().filter_map(Event::parse)
    }

    /// Microseconds from the first `from` until the first `to` after it.
    fn first(&self, from: &str, to: &str) -> Result<u64> {
        let mut events = self.events().skip_while(|it| !it.what.starts_with(from));
        let start = events.next().with_context(|| self.lacks(from))?;
        let end = events.find(|it| it.what.starts_with(to));
        let end = end.with_context(|| self.lacks(to))?;
        Ok(end.at_us - start.at_us)
    }

    /// Microseconds from the first `from` until the virtual CPU's thread has stopped for good.
    fn until_idle(&self, from: &str) -> Result<u64> {
        let start = self.events().find(|it| it.what.starts_with(from));
        let start = start.with_context(|| self.lacks(from))?;
        let end = self.events().rfind(Event::is_idle);
        let end = end.with_context(|| self.lacks(IDLE))?;
        ensure!(end.at_us > start.at_us, "it idled before: {}", self.0);
        Ok(end.at_us - start.at_us)
    }

    fn lacks(&self, what: &str) -> String {
        format!("no {what:?} in the trace: {}", self.0)
    }
}

/// The outer guest's kernel, whose KVM runs the VMM.
struct Tracer<'a>(&'a Nested);

impl<'a> Tracer<'a> {
    fn start(nested: &'a Nested) -> Result<Self> {
        nested.run(
            "mount -t tracefs tracefs /sys/kernel/tracing && cd /sys/kernel/tracing && \
             echo 8192 >buffer_size_kb && echo mono >trace_clock && \
             echo 'port==0x600 || port==0x604' >events/kvm/kvm_pio/filter && \
             echo 'prev_comm==\"vcpu0\"' >events/sched/sched_switch/filter && \
             echo 'comm==\"http-server\"' >events/sched/sched_wakeup/filter && \
             for event in kvm/kvm_pio kvm/kvm_entry sched/sched_switch sched/sched_wakeup; do \
             echo 1 >events/$event/enable || exit; done",
        )?;
        Ok(Self(nested))
    }

    /// What is traced during `action` and a little longer, through a script for `sed`.
    fn record<T>(&self, sed: &str, action: impl FnOnce() -> Result<T>) -> Result<(Trace, T)> {
        self.0.run("echo >/sys/kernel/tracing/trace")?;
        let value = action()?;
        thread::sleep(SETTLES);
        let trace = self
            .0
            .run(&format!("sed -n '{sed}' /sys/kernel/tracing/trace"))?;
        Ok((Trace(trace), value))
    }
}

/// Microseconds, of all rounds.
#[derive(Default)]
struct Times(Vec<u64>);

impl Times {
    fn median(&self) -> u64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }

    /// Thousandths of `other`.
    fn permille_of(&self, other: &Self) -> u64 {
        self.median() * 1000 / other.median().max(1)
    }
}

impl fmt::Display for Times {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} µs of {:?}", self.median(), self.0)
    }
}

#[derive(Default)]
struct Figures {
    access: Times,
    entry: Times,
    wake: Times,
    pause: Times,
    resume: Times,
}

impl Figures {
    fn add_round(&mut self, guest: &Guest, tracer: &Tracer<'_>) -> Result<()> {
        // The guest enters and leaves thousands of times on its way there.
        let from_access = "/pio_write at 0x604/,$p";
        let until_entry = "p; /kvm_entry/q";
        let all = "p";
        let (trace, pending) = tracer.record(from_access, || sleep::fall_asleep(&guest.nested))?;
        self.access.0.push(trace.first(ACCESS, ENTRY)?);
        self.entry.0.push(trace.until_idle(SLEEP)?);
        let (trace, _) = tracer.record(until_entry, || guest.nested.ch_remote("wakeup"))?;
        trace
            .first(WOKEN, ENTRY)
            .context("woken by something else")?;
        self.wake.0.push(trace.first(REQUEST, ENTRY)?);
        guest.nested.finish_sleep(&pending)?;

        let (trace, _) = tracer.record(all, || guest.nested.ch_remote("pause"))?;
        self.pause.0.push(trace.until_idle(REQUEST)?);
        let (trace, _) = tracer.record(until_entry, || guest.nested.ch_remote("resume"))?;
        self.resume.0.push(trace.first(REQUEST, ENTRY)?);
        Ok(())
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "one access of a register: {}", self.access)?;
        writeln!(formatter, "SLP_EN until the CPU idles: {}", self.entry)?;
        writeln!(formatter, "pause until the CPU idles: {}", self.pause)?;
        writeln!(formatter, "wakeup until the CPU runs: {}", self.wake)?;
        writeln!(formatter, "resume until the CPU runs: {}", self.resume)?;
        write!(
            formatter,
            "‰: sleep/pause {}, wakeup/resume {}, sleep/access {}, wakeup/access {}",
            self.entry.permille_of(&self.pause),
            self.wake.permille_of(&self.resume),
            self.entry.permille_of(&self.access),
            self.wake.permille_of(&self.access),
        )
    }
}

#[test]
fn a_sleep_and_a_wake_take_about_as_long_as_a_pause_and_a_resume() -> Result<()> {
    let Some(guest) = Guest::boot("ch-latency", Kernel::V6_12, 1, "--platform acpi_s3=on")? else {
        return Ok(());
    };
    let tracer = Tracer::start(&guest.nested)?;
    let mut figures = Figures::default();
    for round in 1..=ROUNDS {
        let added = figures.add_round(&guest, &tracer);
        added.with_context(|| format!("round {round}"))?;
    }
    eprintln!("{figures}");
    // A machine under load stops any of these threads for long, hence no tighter.
    let sleeps = figures.entry.permille_of(&figures.pause);
    let wakes = figures.wake.permille_of(&figures.resume);
    ensure!(sleeps <= 2000 && wakes <= 5000, "{figures}");
    Ok(())
}
