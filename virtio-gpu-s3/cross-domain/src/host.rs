// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What contexts share: the way to the compositor, the watcher, and what there is of each.

use std::path::PathBuf;

use super::channel::Channel;
use super::files::Budget;
use super::protocol::MAX_IDENTIFIERS;
use super::watcher::{Interest, Watched, Watcher};
use virtio_gpu_s3::renderer::RendererError;

#[derive(Debug)]
pub(super) struct Host {
    pub(super) wayland: PathBuf,
    pub(super) watcher: Watcher,
    pub(super) channels: Budget,
    pub(super) files: Budget,
    /// Bytes kept for a socket or pipe whose other side does not read.
    pub(super) max_queued: usize,
}

impl Host {
    pub(super) fn connect(&self) -> Result<Channel, RendererError> {
        let permit = self.channels.take()?;
        let channel = Channel::open(&self.wayland, self.max_queued, permit);
        channel.map_err(|error| RendererError::refused("a connection", error.raw_os_error()))
    }

    /// Whether the files of any message can be held.
    pub(super) fn has_room_for_a_message(&self) -> bool {
        self.files.left() >= MAX_IDENTIFIERS
    }

    /// Waits for one event. Where that cannot be had the wait never ends, as with a host that says
    /// nothing.
    pub(super) fn watch(&self, ctx_id: u32, watched: &mut impl Watched, interest: Interest) {
        let (source, fd) = watched.parts();
        let _ = self.watcher.watch(ctx_id, source, fd, interest);
    }

    /// Waits for it no more: before it is closed, as another process may have the open file too.
    pub(super) fn forget(&self, watched: &mut impl Watched) {
        let (source, fd) = watched.parts();
        // What is not watched is forgotten already.
        let _ = self.watcher.forget(source, fd);
    }
}
