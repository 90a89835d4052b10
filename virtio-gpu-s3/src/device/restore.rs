// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Plain data to a device, checked as if a guest had sent it.

use std::collections::BTreeSet;

use super::Gpu;
use super::scanout::{check_layout, check_rect};
use super::two_d::check_covers;
use crate::backing::Backing;
use crate::command::BlobLayout;
use crate::config::{GpuConfig, OutputConfig};
use crate::error::GuestError;
use crate::geometry::Rect;
use crate::pixel::PixelFormat;
use crate::protocol::{BLOB_MEM_GUEST, CURSOR_SIZE, Format};
use crate::renderer::{BlobParams, Renderer};
use crate::resource::{Blob, Content, Pixels, Resource};
use crate::saved_state::{
    KIND, RestoreError, SavedBinding, SavedBlobPlane, SavedContent, SavedCursor, SavedGpu,
    SavedPicture, SavedResource, SavedScanout, VERSION,
};
use crate::scanout::{Binding, CursorShape, ScreenCopy};

impl Gpu {
    /// A new device in a saved state, with the pictures of the saved one.
    ///
    /// Every backing is of guest addresses; the memory must be there when the guest goes on, and
    /// a command that finds it missing fails, not this.
    ///
    /// # Errors
    /// The state does not belong to a device of this configuration, or to any.
    pub fn restore(
        config: GpuConfig,
        renderer: Box<dyn Renderer>,
        saved: SavedGpu,
    ) -> Result<Self, RestoreError> {
        let SavedGpu {
            kind,
            version,
            outputs,
            negotiated,
            events_read,
            last_uuid,
            resources,
            scanouts,
        } = saved;
        check_header(&kind, version)?;
        let mut gpu = Self::new(config, renderer)?;
        let expected = gpu.scanouts.len();
        for found in [outputs.len(), scanouts.len()] {
            if found != expected {
                return Err(RestoreError::Outputs { found, expected });
            }
        }
        for (index, (width, height)) in outputs.into_iter().enumerate() {
            gpu.config
                .set_output(index, OutputConfig { width, height })?;
        }
        let missing = negotiated & !gpu.device_features();
        if missing != 0 {
            return Err(RestoreError::Features { missing });
        }
        gpu.negotiated = negotiated;
        gpu.events_read = events_read;
        gpu.last_uuid = last_uuid;
        let mut uuids = BTreeSet::new();
        let mut retained = Vec::new();
        for resource in resources {
            let id = resource.id;
            retained.extend(resource.retained.then_some(id));
            gpu.restore_resource(resource, &mut uuids)
                .map_err(|source| RestoreError::Resource { id, source })?;
        }
        for (id, scanout) in scanouts.into_iter().enumerate() {
            gpu.restore_scanout(id, scanout)
                .map_err(|source| RestoreError::Scanout { id, source })?;
        }
        // Only now: what is retained may be given up to make room, and here nothing may.
        for id in retained {
            gpu.resources.retain(id);
        }
        Ok(gpu)
    }

    fn restore_resource(
        &mut self,
        saved: SavedResource,
        uuids: &mut BTreeSet<[u8; 16]>,
    ) -> Result<(), GuestError> {
        let SavedResource {
            id,
            content,
            backing,
            uuid,
            retained: _,
        } = saved;
        if id == 0 || self.resources.peek(id).is_some() {
            return Err(GuestError::ResourceIdTaken { id });
        }
        if uuid.is_some_and(|uuid| !uuids.insert(uuid)) {
            return Err(GuestError::WrongResource {
                id,
                why: "has the UUID of another",
            });
        }
        if self.resources.len() >= self.config.limits().max_resources {
            return Err(GuestError::Limit {
                what: "resources",
                asked: 1,
                left: 0,
            });
        }
        let backing = match backing {
            Some(ranges) => Some(self.restore_backing(id, &ranges)?),
            None => None,
        };
        let content = self.restore_content(id, content)?;
        if let Content::Blob(_) = content {
            self.room_for_blob(id)?;
        }
        if let (Content::Blob(blob), Some(backing)) = (&content, &backing) {
            check_covers(backing, blob.params.size)?;
        }
        let mut resource = Resource::new(content, backing);
        resource.uuid = uuid;
        self.make_room(id, resource.host_bytes(), 0)?;
        self.resources.insert(id, resource);
        Ok(())
    }

    fn restore_backing(&self, id: u32, ranges: &[(u64, u64)]) -> Result<Backing, GuestError> {
        let max = u64::from(self.config.limits().max_backing_entries);
        let asked = ranges.len() as u64;
        if asked > max {
            return Err(GuestError::Limit {
                what: "nr_entries",
                asked,
                left: max,
            });
        }
        Backing::of_ranges(ranges).ok_or(GuestError::WrongResource {
            id,
            why: "has a backing that wraps around",
        })
    }

    fn restore_content(&self, id: u32, content: SavedContent) -> Result<Content, GuestError> {
        match content {
            SavedContent::Picture(picture) => {
                self.check_dimension("width", picture.width)?;
                self.check_dimension("height", picture.height)?;
                Ok(Content::Pixels(restore_pixels(picture)?))
            }
            SavedContent::GuestBlob { size: 0, .. } => Err(GuestError::WrongResource {
                id,
                why: "is a blob of 0 bytes",
            }),
            SavedContent::GuestBlob {
                blob_flags,
                blob_id,
                size,
            } => Ok(Content::Blob(Blob {
                params: BlobParams {
                    blob_mem: BLOB_MEM_GUEST,
                    blob_flags,
                    blob_id,
                    size,
                },
                in_renderer: false,
            })),
        }
    }

    fn restore_scanout(&mut self, index: usize, saved: SavedScanout) -> Result<(), GuestError> {
        let SavedScanout {
            binding,
            cursor,
            cursor_position: (x, y),
        } = saved;
        let binding = match binding {
            Some(binding) => Some(self.restore_binding(binding)?),
            None => None,
        };
        let shape = match cursor {
            Some(cursor) => Some(restore_cursor(cursor)?),
            None => None,
        };
        let bytes = binding.as_ref().map_or(0, Binding::host_bytes);
        self.make_room(0, bytes, 0)?;
        self.resources.charge(bytes);
        if let Some(scanout) = self.scanouts.get_mut(index) {
            scanout.show(binding);
            scanout.mark_read();
            scanout.set_cursor(shape);
            scanout.move_cursor(x, y);
        }
        Ok(())
    }

    fn restore_binding(&self, saved: SavedBinding) -> Result<Binding, GuestError> {
        let SavedBinding {
            resource_id: id,
            rect: [x, y, width, height],
            stale,
            blob,
        } = saved;
        let rect = Rect {
            x,
            y,
            width,
            height,
        };
        let resource = self.resources.peek(id);
        let resource = resource.ok_or(GuestError::NoSuchResource { id })?;
        let mut binding = match (&resource.content, blob) {
            (Content::Pixels(pixels), None) => {
                check_rect(rect, pixels.width, pixels.height)?;
                Binding::new(id, rect, pixels.format, None, false)
            }
            (Content::Blob(blob), Some(plane)) => {
                let (layout, pixels) = self.restore_plane(plane, rect, blob.params.size)?;
                let mut binding = Binding::new(id, rect, layout.format, Some(layout), true);
                binding.copy = Some(ScreenCopy {
                    pixels: Some(pixels),
                    read: 0,
                });
                binding
            }
            _ => {
                return Err(GuestError::WrongResource {
                    id,
                    why: "is shown as what it is not",
                });
            }
        };
        binding.stale = stale;
        Ok(binding)
    }

    fn restore_plane(
        &self,
        saved: SavedBlobPlane,
        rect: Rect,
        size: u64,
    ) -> Result<(BlobLayout, Pixels), GuestError> {
        let SavedBlobPlane {
            width,
            height,
            stride,
            offset,
            shown,
        } = saved;
        let layout = BlobLayout {
            width,
            height,
            format: PixelFormat::try_from(Format(shown.format))?,
            stride,
            offset,
        };
        self.check_dimension("width", width)?;
        self.check_dimension("height", height)?;
        check_layout(&layout, size)?;
        check_rect(rect, width, height)?;
        check_size(&shown, rect.width, rect.height)?;
        Ok((layout, restore_pixels(shown)?))
    }
}

fn check_header(kind: &str, version: u32) -> Result<(), RestoreError> {
    if kind != KIND {
        return Err(RestoreError::Kind {
            found: kind.chars().take(64).collect(),
        });
    }
    if version != VERSION {
        return Err(RestoreError::Version { found: version });
    }
    Ok(())
}

fn check_size(picture: &SavedPicture, width: u32, height: u32) -> Result<(), GuestError> {
    if (picture.width, picture.height) != (width, height) {
        return Err(GuestError::Parameter {
            field: "width",
            value: picture.width.into(),
        });
    }
    Ok(())
}

fn restore_pixels(saved: SavedPicture) -> Result<Pixels, GuestError> {
    let SavedPicture {
        format,
        width,
        height,
        bytes,
    } = saved;
    if Pixels::size(width, height) != Some(bytes.len() as u64) {
        return Err(GuestError::Parameter {
            field: "bytes",
            value: bytes.len() as u64,
        });
    }
    Ok(Pixels {
        format: Format(format).try_into()?,
        width,
        height,
        bytes,
    })
}

fn restore_cursor(saved: SavedCursor) -> Result<CursorShape, GuestError> {
    let SavedCursor {
        hot_x,
        hot_y,
        picture,
    } = saved;
    check_size(&picture, CURSOR_SIZE, CURSOR_SIZE)?;
    let Pixels { format, bytes, .. } = restore_pixels(picture)?;
    let length = bytes.len() as u64;
    let pixels = bytes.try_into().map_err(|_| GuestError::Parameter {
        field: "bytes",
        value: length,
    })?;
    Ok(CursorShape {
        hot_x,
        hot_y,
        format,
        pixels,
    })
}
