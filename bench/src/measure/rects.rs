// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Small rectangles, as a desktop makes them: a cursor that blinks, a key that is echoed.

use std::hint::black_box;

use anyhow::{Context, Result};
use virtio_gpu_s3::Rect;
use virtio_gpu_s3_testing::request;
use vm_memory::GuestMemoryMmap;

use super::{
    FRAME, FRAME_BYTES, FRAMES, HEIGHT, MEMCPY, PER_DOORBELL, STRIDE, WIDTH, count,
    on_devices_core, seconds, tidy, turns,
};
use crate::contender::{Ability, Entrant};
use crate::cores::Cores;
use crate::ram::{Layout, Ram, copy, page_addresses, pixels, ranges};
use crate::table::{Better, Column, Table, Target};
use crate::turns::{Effort, Turn, take_turns};

const SIZE: u32 = 64;
/// Rectangles of a turn.
const COUNT: u32 = 2000;

/// A rectangle of one of the frames, and where it starts in the backing.
struct Place {
    frame: u32,
    rect: Rect,
    offset: u64,
}

/// Where the guest draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// Again and again in one place, as a cursor blinks.
    OnePlace,
    OneFrame,
    AllFrames,
}

impl Damage {
    pub(crate) const ALL: [Self; 3] = [Self::OnePlace, Self::OneFrame, Self::AllFrames];

    fn frames(self) -> u32 {
        match self {
            Self::OnePlace | Self::OneFrame => 1,
            Self::AllFrames => FRAMES,
        }
    }

    fn places(self) -> u32 {
        match self {
            Self::OnePlace => 1,
            Self::OneFrame | Self::AllFrames => COUNT,
        }
    }

    /// Whether others had the caches before, which the guest's own drawing has filled: there is a turn before the one
    /// that counts then.
    fn is_warm(self) -> bool {
        self != Self::AllFrames
    }

    fn title(self) -> (&'static str, &'static str) {
        match self {
            Self::OnePlace => (
                "in one place",
                "Again and again, as a cursor blinks: the core's own cache holds it",
            ),
            Self::OneFrame => (
                "of one frame",
                "Places all over it, which the last cache holds",
            ),
            Self::AllFrames => (
                "of eight frames",
                "Places all over them, which no cache holds",
            ),
        }
    }
}

/// Copies damage on 4 KiB pages.
pub(crate) fn rects(
    ram: &Ram,
    entrants: &mut [Entrant],
    effort: Effort<'_>,
    damage: Damage,
) -> Result<Table> {
    let places = places(damage, usize::try_from(COUNT)? / effort.divisor);
    let requests: Vec<_> = places
        .iter()
        .map(|place| request::transfer_to_host_2d(place.frame + 1, place.rect, place.offset))
        .collect();
    let requests = requests.as_slice();
    let warm = damage.is_warm();
    let mut everybody = vec![memcpy(ram.memory(), &places, warm, effort.pace.cores())?];
    everybody.extend(turns(
        entrants,
        Ability::Pixels,
        |contender| {
            (1..=FRAMES).try_for_each(|id| {
                let backing = pixels(id - 1, FRAME_BYTES, Layout::Pages)?;
                contender.create(id, FRAME, &backing)?;
                contender.transfer(id, FRAME)
            })
        },
        |contender| {
            let time = time_warm(warm, || {
                let mut batches = requests.chunks(PER_DOORBELL);
                batches.try_for_each(|batch| contender.queue.send_all(batch))
            })?;
            Ok([count(requests.len())? / time / 1e6])
        },
    ));
    let rows = take_turns(effort, everybody);
    tidy(entrants, Ability::Pixels, |contender| {
        (1..=FRAMES).try_for_each(|id| contender.destroy(id))
    });
    let (title, what) = damage.title();
    Ok(Table {
        title: format!("Damage of 64 × 64 pixels {title}, on 4 KiB pages"),
        what: format!("{what}; {PER_DOORBELL} requests a doorbell. memcpy copies the same rows."),
        columns: vec![Column {
            heading: "million/s",
            better: Better::Higher,
            digits: 3,
            // What was promised is of a frame that the guest has just drawn to.
            target: warm.then_some(Target::Value(1.0)),
        }],
        reference: Some(MEMCPY.to_owned()),
        rows,
    })
}

/// Seconds that something takes; where `warm`, the second time, as others had the caches before.
fn time_warm(warm: bool, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    if warm {
        work()?;
    }
    seconds(work)
}

/// Scattered, and the same in every run.
fn places(damage: Damage, count: usize) -> Vec<Place> {
    let steps = (0..).take(count);
    let frames = damage.frames();
    let places = steps.map(|step: u32| {
        let step = step % damage.places();
        let rect = Rect {
            x: step * 677 % (WIDTH - SIZE),
            y: step * 389 % (HEIGHT - SIZE),
            width: SIZE,
            height: SIZE,
        };
        Place {
            frame: step % frames,
            rect,
            offset: u64::from(rect.y * STRIDE + rect.x * 4),
        }
    });
    places.collect()
}

fn memcpy<'a>(
    memory: &'a GuestMemoryMmap,
    places: &[Place],
    warm: bool,
    cores: Option<Cores>,
) -> Result<Turn<'a, 1>> {
    let backings: Vec<_> = (0..FRAMES)
        .map(|index| Ok(page_addresses(&pixels(index, FRAME_BYTES, Layout::Pages)?)))
        .collect::<Result<_>>()?;
    let row = usize::try_from(SIZE * 4)?;
    let mut rows = Vec::new();
    for place in places {
        let frame = usize::try_from(place.frame)?;
        let pages = backings.get(frame).context("a frame")?;
        for y in 0..u64::from(SIZE) {
            let at = place.offset + y * u64::from(STRIDE);
            rows.push((
                frame,
                usize::try_from(at)?,
                ranges(pages, at, u64::try_from(row)?)?,
            ));
        }
    }
    let mut targets = vec![vec![0; usize::try_from(FRAME_BYTES)?]; backings.len()];
    let places = count(places.len())?;
    Ok(Turn {
        name: MEMCPY.to_owned(),
        ours: false,
        run: Ok(Box::new(move || {
            let mut copy_all = || {
                for (frame, at, ranges) in &rows {
                    let target = targets.get_mut(*frame).context("a frame")?;
                    let row = target.get_mut(*at..*at + row).context("a row")?;
                    copy(memory, ranges, row)?;
                }
                black_box(&targets);
                Ok(())
            };
            let time = on_devices_core(cores, || time_warm(warm, &mut copy_all))?;
            Ok([places / time / 1e6])
        })),
    })
}
