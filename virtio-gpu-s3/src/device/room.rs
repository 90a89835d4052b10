// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Room for resources, and their end.

use super::Gpu;
use super::context::ATTACHMENT_BYTES;
use crate::backing::Backing;
use crate::error::GuestError;
use crate::protocol::wire::MemEntry;
use crate::renderer::Operation;
use crate::resource::{Resource, Retention};
use crate::status::ErrorKind;
use vm_memory::GuestMemoryBackend;

impl Gpu {
    pub(super) fn check_new_resource_id(&self, id: u32) -> Result<(), GuestError> {
        let live = self
            .resources
            .peek(id)
            .is_some_and(|resource| resource.retention == Retention::Live);
        if id == 0 || live {
            return Err(GuestError::ResourceIdTaken { id });
        }
        Ok(())
    }

    /// Makes room for a new resource `id` of so many bytes here and in the renderer; whatever is
    /// retained under that id goes. The bytes here, as a size.
    pub(super) fn room_for_resource(
        &mut self,
        id: u32,
        host: u64,
        renderer: u64,
    ) -> Result<usize, GuestError> {
        let size = self.check_fits(host, renderer)?;
        if self.destroy_resource(id) {
            let replaced = &mut self.counters.replaced_resources;
            *replaced = replaced.saturating_add(1);
        }
        while self.resources.len() >= self.config.limits().max_resources {
            if !self.evict_one(id) {
                return Err(GuestError::Limit {
                    what: "resources",
                    asked: 1,
                    left: 0,
                });
            }
        }
        self.make_room(id, host, renderer)?;
        Ok(size)
    }

    /// Makes room for one blob more, `id`.
    pub(super) fn room_for_blob(&mut self, id: u32) -> Result<(), GuestError> {
        let replaced = self.resources.peek(id).is_some_and(Resource::is_blob);
        let max = self.config.limits().max_blobs;
        while self.resources.blobs().saturating_sub(replaced.into()) >= max {
            if !self.evict_one_of(id, Resource::is_blob) {
                return Err(GuestError::Limit {
                    what: "blobs",
                    asked: 1,
                    left: 0,
                });
            }
        }
        Ok(())
    }

    /// Makes room for so many bytes more, without giving up `keep`.
    pub(super) fn make_room(
        &mut self,
        keep: u32,
        host: u64,
        renderer: u64,
    ) -> Result<usize, GuestError> {
        let size = self.check_fits(host, renderer)?;
        loop {
            let limits = self.config.limits();
            let host_left = limits
                .max_host_bytes
                .saturating_sub(self.resources.host_bytes());
            let renderer_left = limits
                .max_renderer_bytes
                .saturating_sub(self.resources.renderer_bytes());
            if host <= host_left && renderer <= renderer_left {
                return Ok(size);
            }
            if !self.evict_one(keep) {
                return Err(if host > host_left {
                    no_host_memory(host, host_left)
                } else {
                    no_renderer_memory(renderer, renderer_left)
                });
            }
        }
    }

    pub(super) fn new_backing<M: GuestMemoryBackend + ?Sized>(
        &mut self,
        id: u32,
        entries: &[MemEntry],
        memory: &M,
    ) -> Result<Backing, GuestError> {
        let max = u64::from(self.config.limits().max_backing_entries);
        let count = entries.len() as u64;
        if count > max {
            return Err(GuestError::Limit {
                what: "nr_entries",
                asked: count,
                left: max,
            });
        }
        self.make_room(id, count.saturating_mul(Backing::BYTES_PER_ENTRY), 0)?;
        Backing::new(entries, memory)
    }

    /// True if there was such a resource. Scanouts that show it go dark, as with QEMU; a cursor
    /// is a copy and stays.
    pub(super) fn destroy_resource(&mut self, id: u32) -> bool {
        if self.resources.peek(id).is_none() {
            return false;
        }
        self.disable_scanouts_of(id);
        self.unmap(id);
        for (ctx_id, context) in &mut self.contexts {
            if context.attached.remove(&id) {
                self.resources.refund(ATTACHMENT_BYTES);
                let detach = Operation::DetachResource {
                    ctx_id: *ctx_id,
                    resource_id: id,
                };
                if self.renderer.call(detach.call()).is_err() {
                    self.counters.errors.count(ErrorKind::Host);
                }
            }
        }
        let resource = self.resources.remove(id);
        if resource.is_some_and(|resource| resource.in_renderer()) {
            self.end(Operation::DestroyResource { resource_id: id });
        }
        true
    }

    /// Refuses what would never fit, so that nothing is evicted in vain.
    fn check_fits(&self, host: u64, renderer: u64) -> Result<usize, GuestError> {
        let limits = self.config.limits();
        if renderer > limits.max_renderer_bytes {
            return Err(no_renderer_memory(renderer, limits.max_renderer_bytes));
        }
        let fits = host <= limits.max_host_bytes;
        let size = usize::try_from(host).ok().filter(|_| fits);
        size.ok_or(no_host_memory(host, limits.max_host_bytes))
    }

    /// Gives up a retained resource that no scanout shows and no live context holds, so that
    /// leftovers of guests that rebooted without our knowing cannot fill the device. A guest that
    /// woke loses one only where it would otherwise have been told that the host has no memory.
    fn evict_one(&mut self, keep: u32) -> bool {
        self.evict_one_of(keep, |_| true)
    }

    fn evict_one_of(&mut self, keep: u32, wanted: impl Fn(&Resource) -> bool) -> bool {
        let wanted = |id: u32| self.resources.peek(id).is_some_and(&wanted);
        let shown = |id: u32| {
            let mut bindings = self.scanouts.iter().filter_map(|it| it.binding.as_ref());
            bindings.any(|binding| binding.resource_id == id)
        };
        let held = |id: u32| {
            let mut contexts = self.contexts.values();
            contexts.any(|it| it.retention == Retention::Live && it.attached.contains(&id))
        };
        let mut retained = self.resources.retained();
        let given_up = |id: &u32| *id != keep && wanted(*id) && !shown(*id) && !held(*id);
        let Some(id) = retained.find(given_up) else {
            return false;
        };
        drop(retained);
        self.destroy_resource(id);
        let evicted = &mut self.counters.evicted_resources;
        *evicted = evicted.saturating_add(1);
        true
    }
}

fn no_host_memory(asked: u64, left: u64) -> GuestError {
    GuestError::Limit {
        what: "host memory",
        asked,
        left,
    }
}

fn no_renderer_memory(asked: u64, left: u64) -> GuestError {
    GuestError::Limit {
        what: "renderer memory",
        asked,
        left,
    }
}
