// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A renderer as plain data. It is untrusted when it comes back.

use serde::{Deserialize, Serialize};
use virtio_gpu_s3::renderer::{CapsetInfo, Resource3d};

/// `kind` of a [`SavedRenderer`].
pub const KIND: &str = "virtio-gpu-s3/virgl";
/// The version written, and the only one read.
pub const VERSION: u32 = 1;

/// What a renderer held, but for the contents of resources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedRenderer {
    /// [`KIND`].
    pub kind: String,
    /// [`VERSION`].
    pub version: u32,
    /// What the guest was promised. Another renderer must promise the same.
    pub capsets: Vec<SavedCapset>,
    /// Every resource, by id.
    pub resources: Vec<SavedResource>,
    /// Every context, by id.
    pub contexts: Vec<SavedContext>,
}

/// A command set that the renderer spoke.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedCapset {
    /// Which, and which version.
    pub info: CapsetInfo,
    /// Its description at that version.
    pub description: Vec<u8>,
}

/// A resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedResource {
    /// Its id.
    pub id: u32,
    /// What it was made as.
    pub params: Resource3d,
}

/// A context.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedContext {
    /// Its id.
    pub id: u32,
    /// What it was made with.
    pub context_init: u32,
    /// Its debug name.
    pub name: Vec<u8>,
    /// The resources it may use.
    pub attached: Vec<u32>,
    /// The stream that makes its state again.
    pub replay: Vec<u32>,
}
