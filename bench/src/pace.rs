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

/// Seconds of a lap of the driver's core, and of the devices'.
type Look = Box<dyn Fn() -> Result<[f64; 2]>>;

/// The speed of the cores, and how often it was not the full one.
pub(crate) struct Pace {
    cores: Option<Cores>,
    /// How to see how fast they are; `None` where whatever is measured counts.
    look: Option<Look>,
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
            look: None,
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
            look: Some(Box::new(move || look_at(cores))),
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
        let Some(look) = &self.look else {
            return Ok(true);
        };
        let [driver, device] = look()?;
        self.best.set(self.best.get().min(driver).min(device));
        Ok(driver.max(device) <= self.best.get() * SHARED)
    }
}

/// Seconds of a lap of the driver's core, and of the devices'.
fn look_at(cores: Option<Cores>) -> Result<[f64; 2]> {
    let driver = best_lap();
    let device = match cores {
        Some(cores) => cores.on_device(|| Ok(best_lap()))?,
        None => driver,
    };
    Ok([driver, device])
}

/// Seconds of the best of a few laps.
fn best_lap() -> f64 {
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
    use std::cell::RefCell;

    use super::*;

    /// Cores whose laps take these seconds, and the last of them ever after; a lap of 1 is the best that is known.
    fn cores(laps: &[[f64; 2]], patience: Duration) -> Pace {
        let laps = RefCell::new(laps.iter().copied().rev().collect::<Vec<_>>());
        let look = move || {
            let mut laps = laps.borrow_mut();
            let next = laps.last().copied().unwrap_or([1.0, 1.0]);
            if laps.len() > 1 {
                laps.pop();
            }
            Ok(next)
        };
        Pace {
            look: Some(Box::new(look)),
            best: Cell::new(1.0),
            best_before: Cell::new(1.0),
            patience: Cell::new(patience),
            ..Pace::any(None)
        }
    }

    fn times(pace: &Pace) -> u32 {
        let mut times = 0;
        let run = || {
            times += 1;
            Ok(())
        };
        pace.measure(run).unwrap();
        times
    }

    const WHOLE: [f64; 2] = [1.1, 1.0];
    const SHARED: [f64; 2] = [1.0, 2.0];

    #[test]
    fn a_turn_during_which_a_core_was_shared_is_measured_again() {
        let pace = cores(&[WHOLE, SHARED, SHARED, WHOLE], PATIENCE);
        assert_eq!(times(&pace), 2);
        assert!(pace.disturbed() < 0.1);
    }

    #[test]
    fn when_patience_ends_a_turn_counts_and_is_said_to_be_disturbed() {
        let pace = cores(&[SHARED], Duration::from_millis(5));
        assert_eq!(times(&pace), 1);
        assert!((pace.disturbed() - 100.0).abs() < 0.1);
    }

    #[test]
    fn where_nobody_waits_everything_counts_once() {
        let pace = Pace::any(Cores::choose().unwrap());
        assert_eq!(times(&pace), 1);
        assert!(pace.disturbed() < 0.1);
    }

    #[test]
    fn cores_that_turn_out_to_be_faster_make_the_measurement_begin_again() {
        let pace = cores(&[WHOLE, [0.5, 0.5]], PATIENCE);
        pace.begin();
        assert!(!pace.was_mistaken());
        times(&pace);
        assert!(pace.was_mistaken());
        pace.begin();
        assert!(!pace.was_mistaken());
    }

    #[test]
    fn real_cores_have_a_speed() {
        let [driver, device] = look_at(Cores::choose().unwrap()).unwrap();
        assert!(driver > 0.0 && device > 0.0);
    }
}
