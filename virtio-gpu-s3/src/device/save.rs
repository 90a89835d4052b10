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

/// What becomes of a picture's bytes.
type Keep<'a> = dyn FnMut(&[u8]) -> Vec<u8> + 'a;

impl Gpu {
    /// The device as plain data. Changes nothing; the caller has stopped the guest and quiesced
    /// the device.
    ///
    /// # Errors
    /// Commands are outstanding, or the guest has something in the renderer.
    pub fn save(&self) -> Result<SavedGpu, SaveError> {
        self.save_with(&mut <[u8]>::to_vec)
    }

    /// The same without the bytes of its pictures: `keep` gets those, once each, in the order of
    /// [`SavedGpu::pictures_mut`]. For whoever writes them somewhere, without a copy.
    ///
    /// # Errors
    /// As [`save`](Self::save)'s.
    pub fn save_apart(&self, mut keep: impl FnMut(&[u8])) -> Result<SavedGpu, SaveError> {
        self.save_with(&mut |bytes| {
            keep(bytes);
            Vec::new()
        })
    }

    /// `keep` says what becomes of a picture's bytes.
    fn save_with(&self, keep: &mut Keep<'_>) -> Result<SavedGpu, SaveError> {
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
                .map(|(id, resource)| save_resource(id, resource, keep))
                .collect::<Result<_, _>>()?,
            scanouts: scanouts.iter().map(|it| save_scanout(it, keep)).collect(),
        })
    }
}

fn save_resource(
    id: u32,
    resource: &Resource,
    keep: &mut Keep<'_>,
) -> Result<SavedResource, SaveError> {
    let Resource {
        content,
        backing,
        uuid,
        retention,
        drawn: _,
    } = resource;
    let content = match content {
        Content::Pixels(pixels) => SavedContent::Picture(save_pixels(pixels, keep)),
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

fn save_pixels(pixels: &Pixels, keep: &mut Keep<'_>) -> SavedPicture {
    SavedPicture {
        format: pixels.format.format().0,
        width: pixels.width,
        height: pixels.height,
        bytes: keep(&pixels.bytes),
    }
}

fn save_scanout(scanout: &Scanout, keep: &mut Keep<'_>) -> SavedScanout {
    let unread = !scanout.unread().is_empty();
    let Scanout {
        binding,
        cursor,
        // What a viewer has seen belongs to a process.
        changes: _,
        damage: _,
    } = scanout;
    SavedScanout {
        binding: binding.as_ref().map(|it| save_binding(it, unread, keep)),
        cursor: cursor.shape.as_ref().map(|it| save_cursor(it, keep)),
        cursor_position: (cursor.x, cursor.y),
    }
}

/// What was not read is shown by the next flush, as nobody may read it while the guest sleeps.
fn save_binding(binding: &Binding, unread: bool, keep: &mut Keep<'_>) -> SavedBinding {
    let Binding {
        resource_id,
        rect,
        format,
        layout,
        copy,
        stale,
        flushed: _,
    } = binding;
    let mut shown = || match copy.as_ref().and_then(|copy| copy.pixels.as_ref()) {
        Some(pixels) => save_pixels(pixels, keep),
        None => SavedPicture {
            format: format.format().0,
            width: rect.width,
            height: rect.height,
            bytes: keep(&vec![
                0;
                usize::try_from(binding.host_bytes())
                    .unwrap_or_default()
            ]),
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

fn save_cursor(shape: &CursorShape, keep: &mut Keep<'_>) -> SavedCursor {
    let image = shape.image();
    SavedCursor {
        hot_x: image.hot_x,
        hot_y: image.hot_y,
        picture: SavedPicture {
            format: image.frame.format.format().0,
            width: image.frame.width,
            height: image.frame.height,
            bytes: keep(image.frame.pixels),
        },
    }
}
