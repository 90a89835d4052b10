// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Calls to a renderer that runs.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use virtio_gpu_s3::renderer::{BlobMapping, GuestPages, MappedRegion};
use virtio_gpu_s3::{BYTES_PER_PIXEL, Fence, Rect, RendererError};

use super::channel::ChannelError;
use super::process::Process;
use super::protocol::{Answer, Call, Head, Mapped, MessageError, Piece, With, split};
use super::regions::Regions;

/// As Linux numbers them everywhere.
const EINVAL: i32 = 22;
const EFAULT: i32 = 14;

/// What a call fails with.
#[derive(Debug)]
pub(super) enum CallError {
    /// The renderer refused.
    Renderer(RendererError),
    /// There is no telling what the renderer did.
    Channel(ChannelError),
}

impl From<RendererError> for CallError {
    fn from(error: RendererError) -> Self {
        Self::Renderer(error)
    }
}

impl From<ChannelError> for CallError {
    fn from(error: ChannelError) -> Self {
        Self::Channel(error)
    }
}

const fn refused(what: &'static str, code: i32) -> CallError {
    CallError::Renderer(RendererError::refused(what, code))
}

fn no_room() -> CallError {
    refused("more than a message holds", EINVAL)
}

fn outside() -> CallError {
    refused("a range outside the memory", EINVAL)
}

/// A process and what it was told.
#[derive(Debug)]
pub(super) struct Live {
    process: Process,
    regions: Regions,
}

impl Live {
    pub(super) fn new(process: Process) -> Self {
        Self {
            process,
            regions: Regions::default(),
        }
    }

    pub(super) fn process_id(&self) -> u32 {
        self.process.id()
    }

    pub(super) fn ended(&self) -> Option<String> {
        self.process.ended()
    }

    pub(super) fn end(&mut self, error: &ChannelError) -> String {
        self.process.end(error)
    }

    pub(super) fn take_signalled(&mut self) -> Result<Vec<Fence>, ChannelError> {
        self.process.take_signalled()
    }

    pub(super) fn want_wakes(&self, wanted: bool) {
        self.process.want_wakes(wanted);
    }

    /// Asks, with `bytes`, and waits for the answer.
    pub(super) fn call(&mut self, call: &Call, bytes: &[u8]) -> Result<(), CallError> {
        self.call_fenced(call, bytes, None)
    }

    /// The same, and has a fence created if that succeeds.
    pub(super) fn call_fenced(
        &mut self,
        call: &Call,
        bytes: &[u8],
        fence: Option<Fence>,
    ) -> Result<(), CallError> {
        if !bytes.is_empty() {
            let put = self.process.scratch().put(0, bytes);
            put.map_err(|_| no_room())?;
        }
        let bytes = bytes.len() as u64;
        self.send(With { bytes, fence }, call, None)?;
        answer_of(self.process.receive()?).map(drop)
    }

    pub(super) fn capset(&mut self, id: u32, version: u32) -> Result<Vec<u8>, CallError> {
        self.send(With::default(), &Call::Capset { id, version }, None)?;
        let (message, _) = self.process.receive_with_fd()?;
        answer_of(message).map(<[u8]>::to_vec)
    }

    /// A call that names the pieces of a resource's guest memory.
    pub(super) fn call_with_pages(
        &mut self,
        call: &Call,
        resource_id: u32,
        pages: &dyn GuestPages,
    ) -> Result<(), CallError> {
        // The device checked them; only a VMM that unmaps guest memory under it gets here.
        let gone = |_| refused("guest memory that is gone", EFAULT);
        let (regions, pieces) = pages.region_pieces().map_err(gone)?;
        let ids = regions.iter().map(|region| self.map(region));
        let ids = ids.collect::<Result<Vec<u32>, CallError>>()?;
        let pieces = pieces.iter().map(|piece| {
            let region = ids.get(piece.region).copied().ok_or_else(outside)?;
            Ok(Piece {
                region,
                offset: piece.offset,
                length: piece.len,
            })
        });
        let pieces = pieces.collect::<Result<Vec<Piece>, CallError>>()?;
        let bytes = postcard::to_allocvec(&pieces).map_err(|_| no_room())?;
        self.call(call, &bytes)?;
        self.regions
            .begin(resource_id, ids.into_iter().collect::<BTreeSet<_>>());
        Ok(())
    }

    /// A resource has no guest memory any more.
    pub(super) fn forget_backing(&mut self, resource_id: u32) {
        self.regions.end(resource_id);
    }

    pub(super) fn unmap_unused(&mut self) -> Result<(), CallError> {
        while let Some(region) = self.regions.take_unused() {
            self.call(&Call::UnmapRegion { region }, &[])?;
        }
        Ok(())
    }

    /// A frame that the scratch memory does not hold comes in bands.
    pub(super) fn read_pixels(
        &mut self,
        resource_id: u32,
        rect: Rect,
        stride: usize,
        target: &mut [u8],
    ) -> Result<(), CallError> {
        let row = row_bytes(rect);
        let room = self.process.scratch().length();
        let mut rows = target.chunks_mut(stride.max(1));
        for band in bands(rect, room)? {
            let call = Call::ReadPixels {
                resource_id,
                rect: band,
            };
            self.call(&call, &[])?;
            for index in 0..band.height as usize {
                let target = rows.next().and_then(|target| target.get_mut(..row));
                let target = target.ok_or_else(outside)?;
                let taken = self.process.scratch().take(index * row, target);
                taken.map_err(|_| outside())?;
            }
        }
        Ok(())
    }

    pub(super) fn write_pixels(
        &mut self,
        resource_id: u32,
        rect: Rect,
        stride: usize,
        source: &[u8],
    ) -> Result<(), CallError> {
        let row = row_bytes(rect);
        let room = self.process.scratch().length();
        let mut rows = source.chunks(stride.max(1));
        for band in bands(rect, room)? {
            for index in 0..band.height as usize {
                let source = rows.next().and_then(|source| source.get(..row));
                let source = source.ok_or_else(outside)?;
                let put = self.process.scratch().put(index * row, source);
                put.map_err(|_| outside())?;
            }
            let call = Call::WritePixels {
                resource_id,
                rect: band,
            };
            self.call(&call, &[])?;
        }
        Ok(())
    }

    pub(super) fn read_blob(
        &mut self,
        resource_id: u32,
        offset: u64,
        target: &mut [u8],
    ) -> Result<(), CallError> {
        let mut offset = offset;
        let most = self.process.scratch().length().min(u32::MAX as usize);
        for piece in target.chunks_mut(most) {
            let length = u32::try_from(piece.len()).map_err(|_| outside())?;
            let call = Call::ReadBlob {
                resource_id,
                offset,
                length,
            };
            self.call(&call, &[])?;
            let taken = self.process.scratch().take(0, piece);
            taken.map_err(|_| outside())?;
            offset = offset.checked_add(length.into()).ok_or_else(outside)?;
        }
        Ok(())
    }

    pub(super) fn map_blob(&mut self, resource_id: u32) -> Result<BlobMapping, CallError> {
        let call = Call::MapBlob { resource_id };
        self.send(With::default(), &call, None)?;
        let (message, file) = self.process.receive_with_fd()?;
        let mapped = answer_of(message)?;
        let (mapped, _): (Mapped, _) = split(mapped).map_err(ChannelError::from)?;
        if mapped.file != file.is_some() {
            return Err(ChannelError::from(MessageError::Decode).into());
        }
        Ok(BlobMapping {
            resource_id,
            file: file.map(File::from),
            address: None,
            size: mapped.size,
            map_info: mapped.map_info,
        })
    }

    /// The number of a region, which is mapped if it was not.
    fn map(&mut self, region: &MappedRegion) -> Result<u32, CallError> {
        let Some(file) = &region.file else {
            return Err(refused("guest memory that the VMM has no file for", EINVAL));
        };
        if let Some(id) = self.regions.find(file, region.size) {
            return Ok(id);
        }
        let call = Call::MapRegion {
            region: self.regions.next(),
            offset: file.start(),
            size: region.size,
        };
        let fd = Some(file.file().as_fd());
        self.send(With::default(), &call, fd)?;
        answer_of(self.process.receive()?)?;
        Ok(self.regions.add(region.size, file))
    }

    fn send(&self, with: With, call: &Call, fd: Option<BorrowedFd<'_>>) -> Result<(), CallError> {
        let head = Head::of(&(with, call)).map_err(|_| no_room())?;
        Ok(self.process.send(&head, fd)?)
    }
}

fn answer_of(message: &[u8]) -> Result<&[u8], CallError> {
    let (answer, bytes): (Answer, &[u8]) = split(message).map_err(ChannelError::from)?;
    match answer {
        Ok(()) => Ok(bytes),
        Err(failure) => Err(CallError::Renderer(failure)),
    }
}

fn row_bytes(rect: Rect) -> usize {
    (rect.width as usize).saturating_mul(BYTES_PER_PIXEL)
}

/// `rect` in bands of rows that `room` bytes hold.
fn bands(rect: Rect, room: usize) -> Result<impl Iterator<Item = Rect>, CallError> {
    let row = row_bytes(rect);
    let rows = room.checked_div(row).unwrap_or(0);
    let rows = u32::try_from(rows).ok().filter(|rows| *rows > 0);
    let rows = rows.ok_or_else(outside)?;
    let end = rect.y.checked_add(rect.height).ok_or_else(outside)?;
    let starts = (rect.y..end).step_by(rows as usize);
    Ok(starts.map(move |y| Rect {
        y,
        height: rows.min(end - y),
        ..rect
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_that_the_scratch_memory_does_not_hold_comes_in_bands() {
        let rect = Rect {
            x: 5,
            y: 7,
            width: 16384,
            height: 1000,
        };
        let room = 16 << 20;
        let all: Vec<_> = bands(rect, room).unwrap().collect();
        assert_eq!(all.len(), 4);
        assert!(
            all.iter()
                .all(|band| row_bytes(*band) * band.height as usize <= room)
        );
        assert_eq!((all[0].y, all[3].y + all[3].height), (7, 1007));
        assert!(
            all.windows(2)
                .all(|pair| pair[0].y + pair[0].height == pair[1].y)
        );
        let too_wide = Rect {
            width: u32::MAX,
            ..rect
        };
        assert!(bands(too_wide, room).is_err());
    }
}
