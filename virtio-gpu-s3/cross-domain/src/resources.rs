// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Resources that a context of this protocol can use: guest memory, and memory of the host.

use std::collections::BTreeMap;

use super::files::HostFile;
use super::memory::GuestRing;

#[derive(Debug)]
pub(super) enum Resource {
    /// `None` while it has no backing.
    Guest(Option<GuestRing>),
    Host(HostBlob),
}

/// A blob that is a file of the host.
#[derive(Debug)]
pub(super) struct HostBlob {
    pub(super) file: HostFile,
    pub(super) size: u64,
    /// The guest has it in its sight.
    pub(super) shown: bool,
}

#[derive(Debug, Default)]
pub(super) struct Resources(BTreeMap<u32, Resource>);

impl Resources {
    pub(super) fn insert(&mut self, id: u32, resource: Resource) {
        self.0.insert(id, resource);
    }

    pub(super) fn remove(&mut self, id: u32) -> Option<Resource> {
        self.0.remove(&id)
    }

    /// Its guest memory is this from now on. Returns whether it is one that has guest memory.
    pub(super) fn set_ring(&mut self, id: u32, ring: Option<GuestRing>) {
        if let Some(Resource::Guest(slot)) = self.0.get_mut(&id) {
            *slot = ring;
        }
    }

    pub(super) fn ring(&self, id: u32) -> Option<&GuestRing> {
        match self.0.get(&id)? {
            Resource::Guest(ring) => ring.as_ref(),
            Resource::Host(_) => None,
        }
    }

    pub(super) fn host_blob(&mut self, id: u32) -> Option<&mut HostBlob> {
        match self.0.get_mut(&id)? {
            Resource::Host(blob) => Some(blob),
            Resource::Guest(_) => None,
        }
    }

    pub(super) fn host(&self, id: u32) -> Option<&HostFile> {
        match self.0.get(&id)? {
            Resource::Host(blob) => Some(&blob.file),
            Resource::Guest(_) => None,
        }
    }

    pub(super) fn is_guest(&self, id: u32) -> bool {
        matches!(self.0.get(&id), Some(Resource::Guest(_)))
    }
}
