// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The shared memory region in which a guest sees blobs of the host.

use thiserror::Error;

use crate::renderer::BlobMapping;

/// `VIRTIO_GPU_SHM_ID_HOST_VISIBLE`: the region's id (VIRTIO 1.4 §5.7.5).
pub const HOST_VISIBLE_SHM_ID: u8 = 1;

/// The host could not change a mapping.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("The host cannot map {size:#x} bytes at {offset:#x} of the host visible region: {why}")]
pub struct MapError {
    /// Where in the region.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
    /// What the host said.
    pub why: String,
}

/// The host visible memory region, as the VMM provides it.
///
/// The device calls it only with ranges of whole pages that lie inside the region and overlap
/// nothing mapped. A frozen reset calls nothing: what is mapped stays mapped.
pub trait HostVisible: Send {
    /// Bytes of the region; never changes.
    fn size(&self) -> u64;

    /// Shows a blob to the guest, at `offset` and in `size` bytes: the blob's own, rounded up to
    /// whole pages.
    ///
    /// Where it has no file, whoever serves the guest's accesses has them made with
    /// [`Gpu::read_mapped`](crate::Gpu::read_mapped) and
    /// [`Gpu::write_mapped`](crate::Gpu::write_mapped), or refuses.
    ///
    /// # Errors
    /// The host refused; nothing is mapped there.
    fn map(&mut self, offset: u64, size: u64, blob: BlobMapping) -> Result<(), MapError>;

    /// Ends that. The guest sees nothing there, or zeros.
    ///
    /// # Errors
    /// The host failed; the range must not be used again.
    fn unmap(&mut self, offset: u64, size: u64) -> Result<(), MapError>;
}
