// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The state of a device as plain data, for snapshots and live migration.
//!
//! These types are apart from the ones the model works with, so that those can change without
//! breaking old snapshots. A saved state is untrusted: [`Gpu::restore`](crate::Gpu::restore)
//! checks all of it, and makes a new device, so that a bad one harms nothing.
//! What lives in a renderer has no saved form: a device with contexts refuses to be saved.

use thiserror::Error;

use crate::config_error::ConfigError;
use crate::error::GuestError;

/// `kind` of a [`SavedGpu`].
pub const KIND: &str = "virtio-gpu-s3/gpu";
/// The version written, and the only one read.
pub const VERSION: u32 = 1;

/// A [`Gpu`](crate::Gpu).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct SavedGpu {
    /// [`KIND`].
    pub kind: String,
    /// [`VERSION`].
    pub version: u32,
    /// Width and height of each output.
    pub outputs: Vec<(u32, u32)>,
    /// The features (as a mask) that were negotiated.
    pub negotiated: u64,
    /// The configuration register of that name.
    pub events_read: u32,
    /// The number of the last UUID given.
    pub last_uuid: u64,
    /// Every resource.
    pub resources: Vec<SavedResource>,
    /// Every scanout, by id.
    pub scanouts: Vec<SavedScanout>,
}

impl SavedGpu {
    /// Every picture in it: those of resources, then of each scanout what it shows and its cursor.
    pub fn pictures_mut(&mut self) -> impl Iterator<Item = &mut SavedPicture> {
        let resources = self.resources.iter_mut();
        let own = resources.filter_map(|resource| match &mut resource.content {
            SavedContent::Picture(picture) => Some(picture),
            SavedContent::GuestBlob { .. } => None,
        });
        let shown = self.scanouts.iter_mut().flat_map(|scanout| {
            let blob = scanout.binding.as_mut().and_then(|it| it.blob.as_mut());
            let cursor = scanout.cursor.as_mut();
            let both = [
                blob.map(|blob| &mut blob.shown),
                cursor.map(|cursor| &mut cursor.picture),
            ];
            both.into_iter().flatten()
        });
        own.chain(shown)
    }
}

/// A resource.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct SavedResource {
    /// Its id.
    pub id: u32,
    /// What it holds.
    pub content: SavedContent,
    /// Guest address and length of each range of its backing.
    pub backing: Option<Vec<(u64, u64)>>,
    /// Its UUID, if it was asked for.
    pub uuid: Option<[u8; 16]>,
    /// True if it was kept over a frozen reset and not named since.
    pub retained: bool,
}

/// What a resource holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum SavedContent {
    /// A 2D resource.
    Picture(SavedPicture),
    /// A blob of guest memory.
    #[expect(missing_docs, reason = "the fields are the standard's")]
    GuestBlob {
        blob_flags: u32,
        blob_id: u64,
        size: u64,
    },
}

/// Pixels, rows without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct SavedPicture {
    /// `VIRTIO_GPU_FORMAT_*`.
    pub format: u32,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Four bytes a pixel; base64 in a text format.
    #[cfg_attr(feature = "serde", serde(with = "bytes"))]
    pub bytes: Vec<u8>,
}

/// A scanout.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct SavedScanout {
    /// What it shows.
    pub binding: Option<SavedBinding>,
    /// Its cursor's shape.
    pub cursor: Option<SavedCursor>,
    /// Where its cursor's corner is.
    pub cursor_position: (i32, i32),
}

/// What a scanout shows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct SavedBinding {
    /// The resource.
    pub resource_id: u32,
    /// The part of it: x, y, width, height.
    pub rect: [u32; 4],
    /// True if it was not flushed yet.
    pub stale: bool,
    /// How a blob is shown.
    pub blob: Option<SavedBlobPlane>,
}

/// How a blob is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[expect(missing_docs, reason = "the fields are the standard's, of plane 0")]
pub struct SavedBlobPlane {
    pub width: u32,
    pub height: u32,
    pub stride: u32,
    pub offset: u32,
    /// What was last shown of it.
    pub shown: SavedPicture,
}

/// A cursor's shape.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct SavedCursor {
    /// Column of the pixel that points.
    pub hot_x: u32,
    /// Row of the pixel that points.
    pub hot_y: u32,
    /// 64 × 64 pixels.
    pub picture: SavedPicture,
}

/// A device that cannot be saved as it is: the caller asked at the wrong time, or of the wrong
/// device.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SaveError {
    /// Commands wait for the renderer, see [`Gpu::quiesce`](crate::Gpu::quiesce).
    #[error("{fences} commands are not answered yet")]
    Outstanding {
        /// How many.
        fences: usize,
    },
    /// A rendering context has no saved form.
    #[error("context {ctx_id} is in the renderer, which cannot save it")]
    Context {
        /// The context.
        ctx_id: u32,
    },
    /// Nor has a resource of the renderer.
    #[error("resource {id} is in the renderer, which cannot save it")]
    Rendered {
        /// The resource.
        id: u32,
    },
}

/// A saved state that is not one of this device, or not one of any device.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RestoreError {
    /// Another kind of state.
    #[error("a saved '{found}' is no saved GPU")]
    Kind {
        /// What it says it is.
        found: String,
    },
    /// A version this crate does not read.
    #[error("version {found} of a saved GPU is not known")]
    Version {
        /// The version.
        found: u32,
    },
    /// The number of outputs is the guest's to rely on.
    #[error("the saved GPU has {found} outputs, this one {expected}")]
    Outputs {
        /// How many there were.
        found: usize,
        /// How many there are.
        expected: usize,
    },
    /// A feature that was negotiated is not there any more.
    #[error("features {missing:#x} were negotiated and are not offered")]
    Features {
        /// As a mask.
        missing: u64,
    },
    /// The outputs have impossible sizes.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A resource that no guest could have made here.
    #[error("resource {id} cannot be restored")]
    Resource {
        /// The resource.
        id: u32,
        /// What is wrong with it.
        source: GuestError,
    },
    /// A scanout that no guest could have made here.
    #[error("scanout {id} cannot be restored")]
    Scanout {
        /// The scanout.
        id: usize,
        /// What is wrong with it.
        source: GuestError,
    },
}

/// Pixels as bytes, or as base64 where a format is for people.
#[cfg(feature = "serde")]
mod bytes {
    use std::fmt;

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    /// No device holds more pixels than this; checked before anything is decoded.
    const MAX_BYTES: usize = 1 << 32;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() {
            to.serialize_str(&STANDARD.encode(bytes))
        } else {
            to.serialize_bytes(bytes)
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        if from.is_human_readable() {
            from.deserialize_str(Pixels)
        } else {
            from.deserialize_byte_buf(Pixels)
        }
    }

    struct Pixels;

    impl Visitor<'_> for Pixels {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("pixels")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<u8>, E> {
            if base64::decoded_len_estimate(text.len()) > MAX_BYTES {
                return Err(E::invalid_length(text.len(), &self));
            }
            STANDARD.decode(text).map_err(E::custom)
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            if bytes.len() > MAX_BYTES {
                return Err(E::invalid_length(bytes.len(), &self));
            }
            Ok(bytes.to_vec())
        }
    }
}
