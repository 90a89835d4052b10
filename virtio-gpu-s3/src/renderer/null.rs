// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A renderer for devices that only do 2D.

use super::{Answer, Call, CapsetInfo, Completion, Renderer, RendererError};

/// Renders nothing: it has no capset, so no guest reaches it.
#[derive(Clone, Copy, Debug, Default)]
pub struct NullRenderer;

impl Renderer for NullRenderer {
    fn capsets(&self) -> Vec<CapsetInfo> {
        Vec::new()
    }

    fn call(&mut self, _: Call<'_>) -> Result<Answer, RendererError> {
        Err(RendererError::unsupported("3D"))
    }

    fn poll(&mut self) -> Vec<Completion> {
        Vec::new()
    }

    /// It has no fences.
    fn release_waits(&mut self) {}

    /// It does not end by itself.
    fn failure(&self) -> Option<String> {
        None
    }

    fn restart(&mut self) -> Result<(), RendererError> {
        Ok(())
    }
}
