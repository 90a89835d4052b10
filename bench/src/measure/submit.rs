// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! 3D commands through virglrenderer.

use std::cell::Cell;

use anyhow::{Context, Result};
use virtio_gpu_s3_testing::request;

use super::{PER_DOORBELL, count, seconds, tidy, turns};
use crate::contender::{Ability, Contender, Entrant, Kind};
use crate::table::{Better, Column, Table, Target};
use crate::turns::{Effort, take_turns};

/// Submissions of a turn.
const TIMES: usize = 1000;
/// Capset 2, virgl2.
const CAPSET: u32 = 2;
const CONTEXT: u32 = 1;
/// VIRTIO 1.4 §5.7.6.7
const FLAG_FENCE: u32 = 1;

/// SUBMIT_3D of an empty stream, waited for by its fence; and many of them without.
pub(crate) fn submit(entrants: &mut [Entrant], effort: Effort<'_>) -> Result<Table> {
    // Each is new, as a driver's are: a device may answer at once for one that it knows to have passed.
    let last_fence = &Cell::new(0_u64);
    let batch = vec![header(request::submit_3d(&[0]), None)?; PER_DOORBELL];
    let batch = batch.as_slice();
    let times = TIMES / effort.divisor;
    let create = header(request::ctx_create(CAPSET), None)?;
    let destroy = header(request::ctx_destroy(), None)?;
    let run = |contender: &mut Contender| {
        let requests = fenced(last_fence, times)?;
        let mut each = requests.iter();
        let alone = seconds(|| each.try_for_each(|request| contender.queue.send(request)))?;
        let batches = (times / PER_DOORBELL).max(1);
        let all = seconds(|| (0..batches).try_for_each(|_| contender.queue.send_all(batch)))?;
        let submitted = count(batches * batch.len())?;
        Ok([alone / count(times)? * 1e6, submitted / all / 1e6])
    };
    let prepare = |contender: &mut Contender| contender.queue.send(&create);
    let everybody = turns(entrants, Ability::Rendering, prepare, run);
    let rows = take_turns(effort, everybody);
    tidy(entrants, Ability::Rendering, |contender| {
        contender.queue.send(&destroy)
    });
    Ok(Table {
        title: "SUBMIT_3D of an empty stream".to_owned(),
        what: format!(
            "virglrenderer on Mesa's llvmpipe. Alone and answered by its fence, on the global timeline; and without \
             fences, {PER_DOORBELL} a doorbell."
        ),
        columns: vec![
            Column {
                heading: "µs, with a fence",
                better: Better::Lower,
                digits: 1,
                target: Some(Target::Value(13.0)),
            },
            Column {
                heading: "million/s, without",
                better: Better::Higher,
                digits: 2,
                target: None,
            },
        ],
        reference: Some(Kind::VhostVirgl.name().to_owned()),
        rows,
    })
}

/// Submissions with the fences after `last`, of which the last is left there.
fn fenced(last: &Cell<u64>, count: usize) -> Result<Vec<Vec<u8>>> {
    let submissions = (0..count).map(|_| {
        last.set(last.get() + 1);
        header(request::submit_3d(&[0]), Some(last.get()))
    });
    submissions.collect()
}

/// Sets the context and the fence of a request's header (VIRTIO 1.4 §5.7.6.7).
fn header(mut request: Vec<u8>, fence_id: Option<u64>) -> Result<Vec<u8>> {
    let (header, _) = request
        .split_first_chunk_mut::<24>()
        .context("a whole header")?;
    let [_, _, _, _, rest @ ..] = header;
    let (flags, rest) = rest.split_first_chunk_mut().context("flags")?;
    let (fence, rest) = rest.split_first_chunk_mut().context("fence_id")?;
    let (context, _) = rest.split_first_chunk_mut().context("ctx_id")?;
    if let Some(fence_id) = fence_id {
        *flags = FLAG_FENCE.to_le_bytes();
        *fence = fence_id.to_le_bytes();
    }
    *context = CONTEXT.to_le_bytes();
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_fence_is_submitted_twice() -> Result<()> {
        let last = Cell::new(0);
        let mut submissions = fenced(&last, 3)?;
        submissions.extend(fenced(&last, 2)?);
        let ids = submissions.iter().map(|request| request.get(8..16));
        let expected: Vec<_> = (1_u64..=5).map(u64::to_le_bytes).collect();
        assert!(ids.eq(expected.iter().map(|id| Some(id.as_slice()))));
        Ok(())
    }
}
