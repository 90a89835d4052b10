// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device to plain data.

use super::Gpu;
use crate::backing::Backing;
use crate::resource::{Content, Pixels, Resource, Retention};
use crate::saved_state::{
    KIND, SaveError, SavedBinding, SavedBlobPlane, SavedContent, SavedCursor, SavedGpu,
    SavedPicture, SavedResource, SavedScanout, VERSION,
};
use crate::scanout::{Binding, CursorShape, Scanout};

impl Gpu {
    /// The device as plain data. Changes nothing; the caller has stopped the guest and quiesced
    /// the device.
    ///
    /// # Errors
    /// Commands are outstanding, or the guest has something in the renderer.
    pub fn save(&self) -> Result<SavedGpu, SaveError> {
        let Self {
            config,
            negotiated,
            events_read,
            // A driver that is restored is told of its events by `events_read`.
            config_changed: _,
            resources,
            contexts,
            // Only what is in the renderer can be mapped.
            mappings: _,
            scanouts,
            fences,
            last_uuid,
            // Counts belong to a process.
            counters: _,
            renderer: _,
            host_visible: _,
        } = self;
        if fences.len() > 0 {
            return Err(SaveError::Outstanding {
                fences: fences.len(),
            });
        }
        if let Some(ctx_id) = contexts.keys().next() {
            return Err(SaveError::Context { ctx_id: *ctx_id });
        }
        let outputs = config.outputs().iter();
        let resources = resources.iter();
        Ok(SavedGpu {
            kind: KIND.to_owned(),
            version: VERSION,
            outputs: outputs.map(|it| (it.width, it.height)).collect(),
            negotiated: *negotiated,
            events_read: *events_read,
            last_uuid: *last_uuid,
            resources: resources
                .map(|(id, resource)| save_resource(id, resource))
                .collect::<Result<_, _>>()?,
            scanouts: scanouts.iter().map(save_scanout).collect(),
        })
    }
}

fn save_resource(id: u32, resource: &Resource) -> Result<SavedResource, SaveError> {
    let Resource {
        content,
        backing,
        uuid,
        retention,
        drawn: _,
    } = resource;
    let content = match content {
        Content::Pixels(pixels) => SavedContent::Picture(save_pixels(pixels)),
        Content::Blob(blob) if !blob.in_renderer => SavedContent::GuestBlob {
            blob_flags: blob.params.blob_flags,
            blob_id: blob.params.blob_id,
            size: blob.params.size,
        },
        Content::Rendered(_) | Content::Blob(_) => return Err(SaveError::Rendered { id }),
    };
    Ok(SavedResource {
        id,
        content,
        backing: backing.as_ref().map(Backing::ranges),
        uuid: *uuid,
        retained: *retention == Retention::Retained,
    })
}

fn save_pixels(pixels: &Pixels) -> SavedPicture {
    SavedPicture {
        format: pixels.format.format().0,
        width: pixels.width,
        height: pixels.height,
        bytes: pixels.bytes.clone(),
    }
}

fn save_scanout(scanout: &Scanout) -> SavedScanout {
    let unread = !scanout.unread().is_empty();
    let Scanout {
        binding,
        cursor,
        // What a viewer has seen belongs to a process.
        changes: _,
        damage: _,
    } = scanout;
    SavedScanout {
        binding: binding.as_ref().map(|it| save_binding(it, unread)),
        cursor: cursor.shape.as_ref().map(save_cursor),
        cursor_position: (cursor.x, cursor.y),
    }
}

/// What was not read is shown by the next flush, as nobody may read it while the guest sleeps.
fn save_binding(binding: &Binding, unread: bool) -> SavedBinding {
    let Binding {
        resource_id,
        rect,
        format,
        layout,
        copy,
        stale,
        flushed: _,
    } = binding;
    let shown = || match copy.as_ref().and_then(|copy| copy.pixels.as_ref()) {
        Some(pixels) => save_pixels(pixels),
        None => SavedPicture {
            format: format.format().0,
            width: rect.width,
            height: rect.height,
            bytes: vec![0; usize::try_from(binding.host_bytes()).unwrap_or_default()],
        },
    };
    SavedBinding {
        resource_id: *resource_id,
        rect: [rect.x, rect.y, rect.width, rect.height],
        stale: *stale || unread,
        blob: layout.as_ref().map(|layout| SavedBlobPlane {
            width: layout.width,
            height: layout.height,
            stride: layout.stride,
            offset: layout.offset,
            shown: shown(),
        }),
    }
}

fn save_cursor(shape: &CursorShape) -> SavedCursor {
    let image = shape.image();
    SavedCursor {
        hot_x: image.hot_x,
        hot_y: image.hot_y,
        picture: SavedPicture {
            format: image.frame.format.format().0,
            width: image.frame.width,
            height: image.frame.height,
            bytes: image.frame.pixels.to_vec(),
        },
    }
}
