// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whole frames, as a full-screen application or a video makes them.

use std::hint::black_box;

use anyhow::{Context, Result, ensure};
use virtio_gpu_s3::{Image, Rect};
use virtio_gpu_s3_testing::request;
use vm_memory::GuestMemoryMmap;

use super::{
    FRAME, FRAME_BYTES, FRAMES, HEIGHT, MEMCPY, WIDTH, count, on_devices_core, seconds, tidy, turns,
};
use crate::contender::{Ability, Contender, Entrant};
use crate::cores::Cores;
use crate::ram::{Layout, Ram, copy, page_addresses, pixels, ranges};
use crate::table::{Better, Column, Table, Target};
use crate::turns::{Effort, Turn, take_turns};

/// Copies eight frames in turn to the host.
pub(crate) fn frames(
    ram: &Ram,
    entrants: &mut [Entrant],
    effort: Effort<'_>,
    layout: Layout,
) -> Result<Table> {
    let requests: Vec<_> = (1..=FRAMES)
        .map(|id| request::transfer_to_host_2d(id, Rect::sized(WIDTH, HEIGHT), 0))
        .collect();
    let requests = requests.as_slice();
    let mut everybody = vec![memcpy(ram.memory(), layout, effort.pace.cores())?];
    everybody.extend(turns(
        entrants,
        Ability::Pixels,
        |contender| {
            (1..=FRAMES).try_for_each(|id| {
                let backing = pixels(id - 1, FRAME_BYTES, layout)?;
                contender.create(id, FRAME, &backing)
            })
        },
        |contender| {
            let time = seconds(|| contender.queue.send_all(requests))?;
            rate(time)
        },
    ));
    let rows = take_turns(effort, everybody);
    for entrant in entrants.iter_mut() {
        if entrant.kind.can(Ability::Pictures)
            && let Ok(contender) = &mut entrant.contender
        {
            check_picture(ram.memory(), contender, layout).context(entrant.kind.name())?;
        }
    }
    tidy(entrants, Ability::Pixels, |contender| {
        (1..=FRAMES).try_for_each(|id| contender.destroy(id))
    });
    let where_ = match layout {
        Layout::Contiguous => "in one range",
        Layout::Pages => "on 4 KiB pages",
    };
    Ok(Table {
        title: format!("TRANSFER_TO_HOST_2D, 1920 × 1080, {where_}"),
        what: format!(
            "{FRAMES} frames in turn, {} MB in all, more than the caches hold. memcpy copies the same pieces of the \
             same guest memory; afterwards the last picture is compared with it.",
            u64::from(FRAME_BYTES) * u64::from(FRAMES) / 1_000_000
        ),
        columns: vec![Column {
            heading: "GB/s",
            better: Better::Higher,
            digits: 1,
            target: Some(Target::TimesReference(0.95)),
        }],
        reference: Some(MEMCPY.to_owned()),
        rows,
    })
}

/// A device that is fast must also have copied the right bytes.
fn check_picture(
    memory: &GuestMemoryMmap,
    contender: &mut Contender,
    layout: Layout,
) -> Result<()> {
    let whole = Rect::sized(WIDTH, HEIGHT);
    contender
        .queue
        .send(&request::set_scanout(0, FRAMES, whole))?;
    contender
        .queue
        .send(&request::resource_flush(FRAMES, whole))?;
    let Image { pixels: shown, .. } = (contender.picture)()?.context("it shows nothing")?;
    let pages = page_addresses(&pixels(FRAMES - 1, FRAME_BYTES, layout)?);
    let mut expected = vec![0; usize::try_from(FRAME_BYTES)?];
    let ranges = ranges(&pages, 0, FRAME_BYTES.into())?;
    copy(memory, &ranges, &mut expected)?;
    // The resource has blue first, and nothing in the fourth byte.
    let (expected, _) = expected.as_chunks();
    let (shown, _) = shown.as_chunks();
    let same = |(&[blue, green, red, _], &[r, g, b, _]): (&[u8; 4], &[u8; 4])| {
        [red, green, blue] == [r, g, b]
    };
    ensure!(
        shown.len() == expected.len() && expected.iter().zip(shown).all(same),
        "the picture is not what the guest drew"
    );
    Ok(())
}

fn memcpy(memory: &GuestMemoryMmap, layout: Layout, cores: Option<Cores>) -> Result<Turn<'_, 1>> {
    let bytes = usize::try_from(FRAME_BYTES)?;
    let mut frames = Vec::new();
    for index in 0..FRAMES {
        let pages = page_addresses(&pixels(index, FRAME_BYTES, layout)?);
        let ranges = ranges(&pages, 0, FRAME_BYTES.into())?;
        frames.push((ranges, vec![0; bytes]));
    }
    Ok(Turn {
        name: MEMCPY.to_owned(),
        ours: false,
        run: Ok(Box::new(move || {
            let mut copy_all = || {
                for (ranges, target) in &mut frames {
                    copy(memory, ranges, target)?;
                    black_box(&*target);
                }
                Ok(())
            };
            let time = on_devices_core(cores, || seconds(&mut copy_all))?;
            rate(time)
        })),
    })
}

/// Gigabytes a second.
fn rate(time: f64) -> Result<[f64; 1]> {
    let bytes = f64::from(FRAME_BYTES) * count(usize::try_from(FRAMES)?)?;
    Ok([bytes / time / 1e9])
}
