// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a sleep costs the device, by what it holds.

use std::time::Instant;

use anyhow::{Context, Result};
use virtio_gpu_s3::Rect;
use virtio_gpu_s3_testing::request;

use super::{count, tidy, turns};
use crate::contender::{Ability, Contender, Entrant, Kind};
use crate::ram::{Layout, pixels};
use crate::table::{Better, Column, Table, Target};
use crate::turns::{Effort, Row, take_turns};

/// Sleeps of a turn.
const TIMES: usize = 20;

/// How many resources of which width and height.
const HELD: [(u32, u32, &str); 4] = [
    (1, 64, "1 resource"),
    (100, 64, "100 resources"),
    (1000, 64, "1000 resources"),
    (16, 4096, "16 resources, 1 GiB"),
];

/// Sleeps and wakes devices that hold more and more.
pub(crate) fn sleep(entrants: &mut [Entrant], effort: Effort<'_>) -> Result<Table> {
    let mut rows: Vec<Row> = Vec::new();
    for (resources, side, name) in HELD {
        let run = |contender: &mut Contender| cycles(contender, side, TIMES / effort.divisor);
        let everybody = turns(
            entrants,
            Ability::Sleep,
            |contender| hold(contender, resources, side),
            run,
        );
        let measured = take_turns(effort, everybody);
        rows.extend(measured.into_iter().map(|row| Row {
            name: format!("{name}: {}", row.name),
            // Its every register access is a message, which is no part of the device.
            ours: row.name != Kind::Server.name(),
            ..row
        }));
        tidy(entrants, Ability::Sleep, |contender| {
            (1..=resources).try_for_each(|id| contender.destroy(id))
        });
    }
    let column = |heading, target: Option<f64>| Column {
        heading,
        better: Better::Lower,
        digits: 1,
        target: target.map(Target::Value),
    };
    Ok(Table {
        title: "A sleep, by what the device holds".to_owned(),
        what: "From the write of FREEZE_S3 until it reads back; from status = 0 until it reads 0; from DRIVER_OK, \
               with no queue set up, through UNFREEZE until a flush is answered, of which the last column is the part \
               from UNFREEZE on. Every resource has been drawn to, and one is shown. Threads and sockets between \
               driver and device are part of it; the targets are for the device's own part, so not for the server."
            .to_owned(),
        columns: vec![
            column("µs, freeze", Some(50.0)),
            column("µs, reset", None),
            column("µs, wake", None),
            column("µs, release", Some(50.0)),
        ],
        reference: None,
        rows,
    })
}

/// Has a device hold resources that were drawn to, and show the first.
fn hold(contender: &mut Contender, resources: u32, side: u32) -> Result<()> {
    for id in 1..=resources {
        let backing = pixels(0, side * side * 4, Layout::Pages)?;
        contender.create(id, (side, side), &backing)?;
        contender.transfer(id, (side, side))?;
    }
    let whole = Rect::sized(side, side);
    contender.queue.send(&request::set_scanout(0, 1, whole))?;
    contender.queue.send(&request::resource_flush(1, whole))
}

/// The means of some sleeps.
fn cycles(contender: &mut Contender, side: u32, times: usize) -> Result<[f64; 4]> {
    let flush = request::resource_flush(1, Rect::sized(side, side));
    let times = times.max(1);
    let mut sums = [0.0; 4];
    for _ in 0..times {
        let Contender { queue, sleeper, .. } = contender;
        let sleeper = sleeper.as_mut().context("it does not sleep")?;
        let start = Instant::now();
        sleeper.freeze()?;
        let frozen = Instant::now();
        sleeper.reset()?;
        let asleep = Instant::now();
        sleeper.negotiate()?;
        let ready = Instant::now();
        sleeper.wake()?;
        let running = Instant::now();
        sleeper.release()?;
        queue.send(&flush)?;
        let shown = Instant::now();
        for (sum, time) in sums.iter_mut().zip([
            frozen - start,
            asleep - frozen,
            shown - ready,
            shown - running,
        ]) {
            *sum += time.as_secs_f64() * 1e6;
        }
    }
    let times = count(times)?;
    Ok(sums.map(|sum| sum / times))
}
