// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A renderer to plain data.

use virgl_stream::{Loss, Replay};
use virtio_gpu_s3::renderer::{CapsetInfo, Data, Operation};
use virtio_gpu_s3::{Renderer, RendererError};

use crate::error::{SaveError, Unsaved};
use crate::followed::{Context, Followed, Held, Speaks};
use crate::level::{Level, levels};
use crate::saved::{KIND, SavedCapset, SavedContext, SavedRenderer, SavedResource, VERSION};

/// As Linux numbers it everywhere.
const ENOMEM: i32 = 12;

impl<R: Renderer> Followed<R> {
    /// What the renderer holds, as plain data. `keep` gets the bytes of each level of each resource, rows and layers
    /// without gaps, in the order of [`SavedRenderer::resources`]; one level is in memory at a time. Changes nothing;
    /// the device is at rest.
    ///
    /// # Errors
    /// Something has no form, which is found before anything is read; or the renderer fails.
    pub fn save(
        &mut self,
        mut keep: impl FnMut(u32, &Level, &[u8]),
    ) -> Result<SavedRenderer, SaveError> {
        if let Some(unsaved) = self.unsaved() {
            return Err(unsaved.into());
        }
        let contexts = self.contexts.iter();
        let contexts = contexts
            .map(|(id, context)| save_context(*id, context))
            .collect::<Result<_, _>>()?;
        let capsets = save_capsets(&mut self.inner)?;
        let mut resources = Vec::with_capacity(self.resources.len());
        let mut bytes = Vec::new();
        for (id, held) in &self.resources {
            let Held::Rendered(params) = *held else {
                continue;
            };
            for level in levels(*id, &params)? {
                read_level(&mut self.inner, *id, &level, &mut bytes)?;
                keep(*id, &level, &bytes);
            }
            resources.push(SavedResource { id: *id, params });
        }
        Ok(SavedRenderer {
            kind: KIND.to_owned(),
            version: VERSION,
            capsets,
            resources,
            contexts,
        })
    }
}

fn save_context(id: u32, context: &Context) -> Result<SavedContext, Unsaved> {
    let Context {
        context_init,
        name,
        attached,
        speaks,
    } = context;
    let replay = match speaks {
        Speaks::Virgl(shadow) => shadow.replay(),
        Speaks::Other(_) => Err(Loss::Refused),
    };
    let replay = replay.map_err(|loss| Unsaved::Context { ctx_id: id, loss })?;
    Ok(SavedContext {
        id,
        context_init: *context_init,
        name: name.clone(),
        attached: attached.iter().copied().collect(),
        replay: Replay::words(&replay).to_vec(),
    })
}

/// Its capsets with their descriptions.
pub(crate) fn save_capsets(
    renderer: &mut impl Renderer,
) -> Result<Vec<SavedCapset>, RendererError> {
    let capsets = renderer.capsets();
    let describe = |info: CapsetInfo| {
        let (id, version) = (info.id, info.max_version);
        let answer = renderer.call(Operation::Capset { id, version }.call())?;
        let description = answer.capset()?;
        Ok(SavedCapset { info, description })
    };
    capsets.into_iter().map(describe).collect()
}

/// Bytes that the renderer cannot read are zeros.
fn read_level(
    renderer: &mut impl Renderer,
    resource_id: u32,
    level: &Level,
    bytes: &mut Vec<u8>,
) -> Result<(), RendererError> {
    let too_large = RendererError::refused("a level that no host can have", ENOMEM);
    let needed = level.bytes().ok_or(too_large.clone())?;
    bytes.clear();
    bytes.resize(needed, 0);
    for piece in level.pieces() {
        let end = piece.start.saturating_add(piece.bytes);
        let room = bytes.get_mut(piece.start..end);
        let room = room.ok_or(too_large.clone())?;
        let read = Operation::ReadLevel {
            resource_id,
            transfer: piece.transfer,
        };
        renderer.call(read.with(Data::Room(room)))?;
    }
    Ok(())
}
