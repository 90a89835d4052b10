// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What must hold of a device after every command, whatever the guest sent.

#![expect(
    clippy::expect_used,
    clippy::arithmetic_side_effects,
    reason = "a broken invariant shall stop the test"
)]

use super::Gpu;
use super::context::ATTACHMENT_BYTES;
use crate::resource::Content;

impl Gpu {
    /// Checks the tables against each other.
    ///
    /// # Panics
    /// A table contradicts another, or a limit is exceeded.
    pub fn assert_consistent(&self) {
        self.assert_counts();
        for (index, scanout) in self.scanouts.iter().enumerate() {
            let Some(binding) = &scanout.binding else {
                continue;
            };
            let shown = self.resources.peek(binding.resource_id);
            let shown = shown.expect("a scanout shows a resource that exists");
            assert_eq!(
                binding.layout.is_some(),
                matches!(shown.content, Content::Blob(_)),
                "scanout {index} shows a blob as one"
            );
            assert_eq!(
                binding.copy.is_none(),
                binding.frame(&self.resources).is_some() && shown.picture().is_some(),
                "scanout {index} has one picture"
            );
        }
        let mut free = 0;
        for (offset, mapping) in &self.mappings {
            assert!(*offset >= free, "mappings overlap");
            free = offset + mapping.size;
            let region = self.host_visible.as_ref().expect("a region");
            assert!(free <= region.size());
            let known = self.resources.peek(mapping.resource_id);
            assert!(mapping.resource_id == 0 || known.is_some());
        }
        for (id, context) in &self.contexts {
            for resource_id in &context.attached {
                let resource = self.resources.peek(*resource_id);
                let resource = resource.expect("what is attached exists");
                assert!(resource.in_renderer(), "context {id} has {resource_id}");
            }
        }
    }

    fn assert_counts(&self) {
        let mut host_bytes = 0;
        for (id, resource) in self.resources.iter() {
            assert_ne!(id, 0, "0 names no resource");
            host_bytes += resource.host_bytes();
        }
        for scanout in &self.scanouts {
            let binding = scanout.binding.as_ref();
            host_bytes += binding.map_or(0, |binding| binding.host_bytes());
        }
        for context in self.contexts.values() {
            host_bytes += ATTACHMENT_BYTES * context.attached.len() as u64;
        }
        let limits = self.config.limits();
        assert_eq!(host_bytes, self.resources.host_bytes());
        assert!(host_bytes <= limits.max_host_bytes);
        assert!(self.resources.renderer_bytes() <= limits.max_renderer_bytes);
        assert!(self.resources.len() <= limits.max_resources);
        assert!(self.contexts.len() <= limits.max_contexts);
        let blobs = self.resources.iter().filter(|(_, it)| it.is_blob()).count();
        assert_eq!(blobs, self.resources.blobs());
        assert!(blobs <= limits.max_blobs);
        assert!(self.fences.len() <= limits.max_fences);
    }
}
