// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Commands that do nothing: what the way to the device and back costs.

use std::hint::spin_loop;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use virtio_gpu_s3::Rect;
use virtio_gpu_s3_testing::request;

use super::{PER_DOORBELL, count, seconds, tidy, turns};
use crate::contender::{Ability, Contender, Entrant, Kind};
use crate::ram::{Layout, pixels};
use crate::table::{Better, Column, Table, Target};
use crate::turns::{Effort, Spread, take_turns};

const SIZE: u32 = 64;
/// Round trips, or doorbells, of a turn.
const TIMES: usize = 1000;

/// Until the next request, so that every device has stopped looking for one.
const PAUSE: Duration = Duration::from_micros(100);

const WHAT: &str = "RESOURCE_FLUSH of a resource that no scanout shows.";

/// One request a doorbell, waited for.
pub(crate) fn round_trips(entrants: &mut [Entrant], effort: Effort<'_>) -> Table {
    let flush = request::resource_flush(1, Rect::sized(SIZE, SIZE));
    let flush = flush.as_slice();
    let times = TIMES / effort.divisor;
    let run = |contender: &mut Contender| {
        let (busy, slow) = typical(contender, flush, times, Duration::ZERO)?;
        let (rested, _) = typical(contender, flush, times / 5, PAUSE)?;
        Ok([busy, slow, rested])
    };
    let everybody = turns(entrants, Ability::Commands, create, run);
    let rows = take_turns(effort, everybody);
    tidy(entrants, Ability::Commands, |contender| {
        contender.destroy(1)
    });
    let lower = |heading, target| Column {
        heading,
        better: Better::Lower,
        digits: 1,
        target,
    };
    Table {
        title: "Round trip of a command that does nothing".to_owned(),
        what: format!(
            "{WHAT} From before the request is written until its answer is read; the driver polls the used ring. Back \
             to back a device may still be awake from the request before; after {} µs it has gone to sleep.",
            PAUSE.as_micros()
        ),
        columns: vec![
            lower("µs, back to back", Some(Target::Value(4.4))),
            lower("µs, 99 % of these", None),
            lower("µs, after a pause", None),
        ],
        reference: Some(Kind::VhostNull.name().to_owned()),
        rows,
    }
}

/// Many requests a doorbell.
pub(crate) fn batched(entrants: &mut [Entrant], effort: Effort<'_>) -> Table {
    let flush = request::resource_flush(1, Rect::sized(SIZE, SIZE));
    let batch = vec![flush; PER_DOORBELL];
    let batch = batch.as_slice();
    let times = TIMES / effort.divisor;
    let run = |contender: &mut Contender| {
        let time = seconds(|| (0..times).try_for_each(|_| contender.queue.send_all(batch)))?;
        Ok([count(times * batch.len())? / time / 1e6])
    };
    let everybody = turns(entrants, Ability::Commands, create, run);
    let rows = take_turns(effort, everybody);
    tidy(entrants, Ability::Commands, |contender| {
        contender.destroy(1)
    });
    Table {
        title: "Commands that do nothing, batched".to_owned(),
        what: format!(
            "{WHAT} {PER_DOORBELL} requests a doorbell, and the next {PER_DOORBELL} once these are answered."
        ),
        columns: vec![Column {
            heading: "million/s",
            better: Better::Higher,
            digits: 2,
            target: Some(Target::Value(1.1)),
        }],
        reference: Some(Kind::VhostNull.name().to_owned()),
        rows,
    }
}

/// Median and 99th percentile of so many round trips, in µs.
fn typical(
    contender: &mut Contender,
    request: &[u8],
    times: usize,
    pause: Duration,
) -> Result<(f64, f64)> {
    let mut round_trips = Vec::new();
    for _ in 0..times.max(1) {
        // Spinning: what is measured is how the device wakes, not how the driver does.
        let before = Instant::now();
        while before.elapsed() < pause {
            spin_loop();
        }
        let start = Instant::now();
        contender.queue.send(request)?;
        round_trips.push(start.elapsed().as_secs_f64() * 1e6);
    }
    let slow = percentile_99(&mut round_trips);
    let spread = Spread::of(round_trips).context("no round trip")?;
    Ok((spread.median, slow))
}

fn create(contender: &mut Contender) -> Result<()> {
    let backing = pixels(0, SIZE * SIZE * 4, Layout::Contiguous)?;
    contender.create(1, (SIZE, SIZE), &backing)
}

fn percentile_99(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = values.len().saturating_sub(1) * 99 / 100;
    values.get(at).copied().unwrap_or(f64::NAN)
}
