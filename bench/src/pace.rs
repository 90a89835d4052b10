// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How fast the cores are now. A virtual machine's cores are threads of the host's, and whoever has the other thread of
//! one takes up to half of its speed, for milliseconds or minutes. What was measured meanwhile is measured again.

use std::cell::Cell;
use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cores::Cores;
use crate::machine;

/// Looks for the cores' full speed at the start: neighbours come and go.
const SEARCH: Duration = Duration::from_secs(10);
/// How long a measurement waits for its cores in all. Afterwards everything counts, and the text says how much was
/// disturbed.
const PATIENCE: Duration = Duration::from_secs(300);
/// Between two looks at a core that is not whole.
const PAUSE: Duration = Duration::from_millis(2);
/// Of the time at full speed: more is a core that is shared. The clock's own changes are less.
const SHARED: f64 = 1.2;
/// Laps of a look, the best of which counts: a device's thread may still be looking for work.
const LAPS: u32 = 3;
/// Steps of a lap, which takes about 10 µs.
const STEPS: u64 = 2500;

/// The speed of the cores, and how often it was not the full one.
#[derive(Debug)]
pub(crate) struct Pace {
    cores: Option<Cores>,
    /// Whether to wait for the full speed.
    waits: bool,
    /// Seconds of the fastest lap so far.
    best: Cell<f64>,
    /// The same when the measurement began.
    best_before: Cell<f64>,
    /// Waiting that is left.
    patience: Cell<Duration>,
    /// Other threads of this machine that ran at the start, on average.
    others: Cell<f64>,
    turns: Cell<u32>,
    disturbed: Cell<u32>,
}

impl Pace {
    /// Whatever is measured counts.
    pub(crate) fn any(cores: Option<Cores>) -> Self {
        Self {
            cores,
            waits: false,
            best: Cell::new(f64::INFINITY),
            best_before: Cell::new(f64::INFINITY),
            patience: Cell::default(),
            others: Cell::default(),
            turns: Cell::default(),
            disturbed: Cell::default(),
        }
    }

    /// Finds the full speed of these cores, or of the one that there is.
    pub(crate) fn full(cores: Option<Cores>) -> Result<Self> {
        let pace = Self {
            waits: true,
            ..Self::any(cores)
        };
        let start = Instant::now();
        let (mut looks, mut others) = (0.0, 0.0);
        while start.elapsed() < SEARCH {
            pace.is_whole()?;
            looks += 1.0;
            others += f64::from(machine::others()?);
            thread::sleep(PAUSE);
        }
        pace.others.set(others / looks);
        Ok(pace)
    }

    /// A measurement begins, or begins again.
    pub(crate) fn begin(&self) {
        self.best_before.set(self.best.get());
        self.patience.set(PATIENCE);
        self.turns.set(0);
        self.disturbed.set(0);
    }

    /// Whether the cores turned out to be faster than was known at its beginning: part of it was disturbed and passed.
    pub(crate) fn was_mistaken(&self) -> bool {
        self.best_before.get() > self.best.get() * SHARED
    }

    /// Microseconds of the fastest lap, to compare one run with another.
    pub(crate) fn lap(&self) -> f64 {
        self.best.get() * 1e6
    }

    /// Other threads of this machine that ran at the start, on average.
    pub(crate) fn others(&self) -> f64 {
        self.others.get()
    }

    /// The cores that are measured on.
    pub(crate) fn cores(&self) -> Option<Cores> {
        self.cores
    }

    /// Measures with whole cores, and again where they were not whole afterwards.
    pub(crate) fn measure<T>(&self, mut run: impl FnMut() -> Result<T>) -> Result<T> {
        loop {
            let whole_before = self.wait()?;
            let start = Instant::now();
            let measured = run()?;
            let whole = whole_before && self.is_whole()?;
            if whole || self.spend(start.elapsed()) {
                self.turns.set(self.turns.get() + 1);
                self.disturbed.set(self.disturbed.get() + u32::from(!whole));
                return Ok(measured);
            }
        }
    }

    /// Turns of which the cores were not whole and which count all the same, of a hundred.
    pub(crate) fn disturbed(&self) -> f64 {
        f64::from(self.disturbed.get()) * 100.0 / f64::from(self.turns.get().max(1))
    }

    /// Waits until the cores are whole. Returns whether they are.
    fn wait(&self) -> Result<bool> {
        let start = Instant::now();
        while !self.is_whole()? {
            if self.patience.get() <= start.elapsed() {
                self.spend(start.elapsed());
                return Ok(false);
            }
            thread::sleep(PAUSE);
        }
        self.spend(start.elapsed());
        Ok(true)
    }

    /// Takes time from what is left. Returns whether nothing is.
    fn spend(&self, time: Duration) -> bool {
        let left = self.patience.get().saturating_sub(time);
        self.patience.set(left);
        left.is_zero()
    }

    fn is_whole(&self) -> Result<bool> {
        if !self.waits {
            return Ok(true);
        }
        let driver = look();
        let device = self
            .cores
            .map_or(Ok(driver), |cores| cores.on_device(|| Ok(look())))?;
        self.best.set(self.best.get().min(driver).min(device));
        Ok(driver.max(device) <= self.best.get() * SHARED)
    }
}

/// Seconds of the best of a few laps.
fn look() -> f64 {
    (0..LAPS).map(|_| lap()).fold(f64::INFINITY, f64::min)
}

/// Seconds of a piece of work that leaves a core's other thread little.
fn lap() -> f64 {
    let start = Instant::now();
    let mut sums = [0_u64; 8];
    for step in 0..STEPS {
        for sum in &mut sums {
            *sum = black_box(*sum).wrapping_add(step);
        }
    }
    black_box(sums);
    start.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_that_was_disturbed_is_measured_again_until_patience_ends() {
        let pace = Pace {
            waits: true,
            // No core is ever this fast.
            best: Cell::new(0.0),
            patience: Cell::new(Duration::from_millis(20)),
            ..Pace::any(None)
        };
        // It waits for a better time first.
        let start = Instant::now();
        pace.measure(|| Ok(())).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(20));
        assert!((pace.disturbed() - 100.0).abs() < 0.1);
    }

    #[test]
    fn where_nobody_waits_everything_counts_once() {
        let pace = Pace::any(Cores::choose().unwrap());
        let mut times = 0;
        let run = || {
            times += 1;
            Ok(())
        };
        pace.measure(run).unwrap();
        assert_eq!(times, 1);
        assert!(pace.disturbed() < 0.1);
    }

    #[test]
    fn cores_that_turn_out_to_be_faster_make_the_measurement_begin_again() {
        let pace = Pace {
            waits: true,
            best: Cell::new(10.0),
            ..Pace::any(None)
        };
        pace.begin();
        assert!(!pace.was_mistaken());
        pace.measure(|| Ok(())).unwrap();
        assert!(pace.was_mistaken());
        pace.begin();
        assert!(!pace.was_mistaken());
    }
}
