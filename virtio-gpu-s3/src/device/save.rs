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
            display: _,
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
    let Scanout { binding, cursor } = scanout;
    SavedScanout {
        binding: binding.as_ref().map(save_binding),
        cursor: cursor.shape.as_ref().map(save_cursor),
        cursor_position: (cursor.x, cursor.y),
    }
}

fn save_binding(binding: &Binding) -> SavedBinding {
    let Binding {
        resource_id,
        rect,
        format: _,
        blob,
        stale,
    } = binding;
    SavedBinding {
        resource_id: *resource_id,
        rect: [rect.x, rect.y, rect.width, rect.height],
        stale: *stale,
        blob: blob.as_ref().map(|plane| SavedBlobPlane {
            width: plane.layout.width,
            height: plane.layout.height,
            stride: plane.layout.stride,
            offset: plane.layout.offset,
            shown: save_pixels(&plane.shadow),
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
