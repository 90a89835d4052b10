// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What cannot be saved, and what cannot be restored.

use thiserror::Error;
use virgl_stream::Loss;
use virtio_gpu_s3::RendererError;

/// Something in the renderer that has no saved form.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Unsaved {
    /// A context's state.
    #[error("context {ctx_id}: {loss}")]
    Context {
        /// The context.
        ctx_id: u32,
        /// Why.
        loss: Loss,
    },
    /// A context that does not speak virgl.
    #[error("context {ctx_id} speaks capset {capset}, whose commands are not followed")]
    Capset {
        /// The context.
        ctx_id: u32,
        /// What it speaks.
        capset: u32,
    },
    /// There is no way to read samples.
    #[error("resource {id} has {samples} samples a texel, which cannot be read back")]
    Multisampled {
        /// The resource.
        id: u32,
        /// How many.
        samples: u32,
    },
    /// A format whose bytes are not known.
    #[error("resource {id} has format {format}, whose size is not known")]
    Format {
        /// The resource.
        id: u32,
        /// Gallium's number of it.
        format: u32,
    },
    /// A kind of texture that nobody knows.
    #[error("resource {id} is of kind {target}, which is not known")]
    Target {
        /// The resource.
        id: u32,
        /// Gallium's number of it.
        target: u32,
    },
    /// A blob: memory of the host, or of the guest, that a context took for a resource.
    #[error("resource {id} is a blob that the renderer has")]
    Blob {
        /// The resource.
        id: u32,
    },
    /// Calls are in flight.
    #[error("{calls} calls are in flight")]
    InFlight {
        /// How many.
        calls: usize,
    },
}

/// A renderer that was not saved.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SaveError {
    /// It has something that has no form.
    #[error(transparent)]
    Unsaved(#[from] Unsaved),
    /// It failed.
    #[error("the renderer could not be asked")]
    Renderer(#[from] RendererError),
}

/// A saved state that is not one, or not one for this renderer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RestoreError {
    /// Another kind of state, or a version that this crate does not read.
    #[error("version {version} of a saved '{kind}' is not known")]
    Unknown {
        /// What it says it is.
        kind: String,
        /// The version.
        version: u32,
    },
    /// The renderer holds something already.
    #[error("the renderer is not empty")]
    NotEmpty,
    /// This renderer promises something else than the one that was saved.
    #[error("capset {id} is not the one that the guest was shown")]
    Capset {
        /// Which.
        id: u32,
    },
    /// A resource that no guest could have.
    #[error("resource {id} cannot be: {what}")]
    Resource {
        /// The resource.
        id: u32,
        /// What is wrong.
        what: &'static str,
    },
    /// A context that no guest could have.
    #[error("context {ctx_id} cannot be: {what}")]
    Context {
        /// The context.
        ctx_id: u32,
        /// What is wrong.
        what: &'static str,
    },
    /// The state of a context is none that can be made.
    #[error("context {ctx_id} cannot be made again")]
    Replay {
        /// The context.
        ctx_id: u32,
        /// Why.
        source: Loss,
    },
    /// Contents are missing, or too many.
    #[error("level {level} of resource {id} has {needed} bytes, and {found} are there")]
    Contents {
        /// The resource.
        id: u32,
        /// Its level.
        level: u32,
        /// How many there are.
        found: usize,
        /// How many there have to be.
        needed: usize,
    },
    /// It failed. What was made before is gone again.
    #[error("the renderer could not restore {what}")]
    Renderer {
        /// What it was to do.
        what: &'static str,
        /// What it said.
        source: RendererError,
    },
}
