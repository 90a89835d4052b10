// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is measured.

mod commands;
mod frames;
mod rects;
mod registers;
mod sleep;
mod submit;

use std::time::Instant;

use anyhow::Result;

pub(crate) use commands::{batched, round_trips};
pub(crate) use frames::frames;
pub(crate) use rects::{Damage, rects};
pub(crate) use registers::registers;
pub(crate) use sleep::sleep;
pub(crate) use submit::submit;

use crate::contender::{Ability, Contender, Entrant};
use crate::cores::Cores;
use crate::turns::{Run, Turn};

/// Requests a doorbell, as the figures that others published have it.
const PER_DOORBELL: usize = 20;

const WIDTH: u32 = 1920;
const HEIGHT: u32 = 1080;
const FRAME: (u32, u32) = (WIDTH, HEIGHT);
const FRAME_BYTES: u32 = WIDTH * HEIGHT * 4;
const STRIDE: u32 = WIDTH * 4;
/// More than the caches of this class of machine hold.
const FRAMES: u32 = 8;
const MEMCPY: &str = "memcpy";

/// A turn for everybody who has the ability, after `prepare`.
fn turns<'a, const N: usize>(
    entrants: &'a mut [Entrant],
    ability: Ability,
    prepare: impl Fn(&mut Contender) -> Result<()>,
    run: impl Fn(&mut Contender) -> Result<[f64; N]> + Copy + 'a,
) -> Vec<Turn<'a, N>> {
    let able = entrants
        .iter_mut()
        .filter(|entrant| entrant.kind.can(ability));
    let turns = able.map(|Entrant { kind, contender }| {
        let ready = match contender {
            Ok(contender) => match prepare(contender) {
                Ok(()) => Ok(Box::new(move || run(contender)) as Run<'a, N>),
                Err(error) => Err(format!("{error:#}")),
            },
            Err(reason) => Err(reason.clone()),
        };
        Turn {
            name: kind.name().to_owned(),
            ours: kind.is_ours(),
            run: ready,
        }
    });
    turns.collect()
}

/// Has everybody who was prepared tidy up. Who cannot has failed before, and its row says so.
fn tidy(
    entrants: &mut [Entrant],
    ability: Ability,
    tidy_one: impl Fn(&mut Contender) -> Result<()>,
) {
    for entrant in entrants {
        if entrant.kind.can(ability)
            && let Ok(contender) = &mut entrant.contender
            && let Err(error) = tidy_one(contender)
        {
            eprintln!("{}: {error:#}", entrant.kind.name());
        }
    }
}

/// Does what is compared with devices where they do it: cores differ, as others have part of them.
fn on_devices_core<T>(cores: Option<Cores>, work: impl FnOnce() -> Result<T>) -> Result<T> {
    match cores {
        Some(cores) => cores.on_device(work),
        None => work(),
    }
}

/// Seconds that something takes.
fn seconds(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64())
}

/// A count, for a rate.
fn count(items: usize) -> Result<f64> {
    Ok(u32::try_from(items)?.into())
}
