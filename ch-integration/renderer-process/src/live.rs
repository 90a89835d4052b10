// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Calls to a renderer that runs.

use std::collections::{BTreeSet, VecDeque};
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};

use virtio_gpu_s3::renderer::{
    Answer, Backing, Call, Completion, Data, GuestPages, MappedRegion, Operation, StreamSource,
    Ticket,
};
use virtio_gpu_s3::{BYTES_PER_PIXEL, Rect, RendererError};

use super::arena::Arena;
use super::channel::ChannelError;
use super::process::Process;
use super::protocol::{MAX_IN_FLIGHT, MessageError, Piece, Placed, Range, Reply, Request};
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
    arena: Arena,
    /// Requests that are not answered, oldest first.
    in_flight: VecDeque<InFlight>,
    /// Replies that nobody asked for yet.
    completions: Vec<Completion>,
}

#[derive(Debug)]
struct InFlight {
    waits: Waits,
    /// What it has of the scratch memory.
    range: Option<Range>,
}

/// Who waits for a reply.
#[derive(Clone, Copy, Debug)]
enum Waits {
    Here,
    Nobody(Ticket),
}

impl Live {
    pub(super) fn new(process: Process) -> Self {
        let arena = Arena::new(process.scratch().length());
        Self {
            process,
            regions: Regions::default(),
            arena,
            in_flight: VecDeque::new(),
            completions: Vec::new(),
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

    pub(super) fn want_wakes(&self, wanted: bool) {
        self.process.want_wakes(wanted);
    }

    /// What was finished since the last call.
    pub(super) fn poll(&mut self) -> Result<Vec<Completion>, ChannelError> {
        // Fences first: what one stands for is answered by then.
        let fences = self.process.take_signalled()?;
        while let Some(reply) = self.process.take()? {
            if let Some(reply) = self.accept(reply)? {
                drop(reply);
                return Err(MessageError::Decode.into());
            }
        }
        let mut completions = mem::take(&mut self.completions);
        completions.extend(fences.into_iter().map(Completion::Fence));
        Ok(completions)
    }

    /// Begins a call, whose answer comes from [`poll`](Self::poll).
    pub(super) fn begin(&mut self, call: Call<'_>, ticket: Ticket) -> Result<(), CallError> {
        self.send_call(call, Waits::Nobody(ticket))
    }

    /// Makes a call, and waits for the answer.
    pub(super) fn call(&mut self, call: Call<'_>) -> Result<Answer, CallError> {
        let Call {
            operation,
            data,
            fence,
        } = call;
        match (operation, data) {
            (
                Operation::ReadPixels {
                    resource_id,
                    rect,
                    stride,
                },
                Data::Room(target),
            ) if fence.is_none() => self.read_pixels(resource_id, rect, stride, target)?,
            (
                Operation::WritePixels {
                    resource_id,
                    rect,
                    stride,
                },
                Data::Bytes(source),
            ) if fence.is_none() => self.write_pixels(resource_id, rect, stride, source)?,
            (
                Operation::ReadBlob {
                    resource_id,
                    offset,
                },
                Data::Room(target),
            ) if fence.is_none() => self.read_blob(resource_id, offset, target)?,
            (operation, data) => {
                let call = operation.with(data).fenced(fence);
                self.send_call(call, Waits::Here)?;
                return Ok(self.receive()??);
            }
        }
        Ok(Answer::Done)
    }

    fn send_call(&mut self, call: Call<'_>, waits: Waits) -> Result<(), CallError> {
        let Call {
            operation,
            data,
            fence,
        } = call;
        let backing = operation.backing();
        let (data, range) = match data {
            Data::None => (Placed::None, None),
            Data::Bytes([]) => (Placed::None, None),
            Data::Bytes(bytes) => {
                let range = self.place(&bytes)?;
                (Placed::Bytes(range), Some(range))
            }
            Data::Stream(stream) => {
                let range = self.place(stream)?;
                (Placed::Stream(range), Some(range))
            }
            Data::Words(_) | Data::Room(_) => return Err(refused("such data", EINVAL)),
            Data::Pages(pages) => match backing {
                Some((resource_id, Backing::Begins)) => {
                    let pieces = self.map_pages(resource_id, pages)?;
                    let range = self.place(&&pieces[..])?;
                    (Placed::Pieces(range), Some(range))
                }
                _ => (Placed::Backing, None),
            },
        };
        let request = Request::Call {
            operation,
            data,
            fence,
            in_flight: matches!(waits, Waits::Nobody(_)),
        };
        self.send(&request, None, InFlight { waits, range })
    }

    /// Has a request sent, once there is room for it.
    fn send(
        &mut self,
        request: &Request,
        fd: Option<BorrowedFd<'_>>,
        in_flight: InFlight,
    ) -> Result<(), CallError> {
        while self.in_flight.len() >= MAX_IN_FLIGHT as usize {
            self.finish_oldest()?;
        }
        self.in_flight.push_back(in_flight);
        Ok(self.process.send(request, fd)?)
    }

    /// Copies bytes to where the renderer finds them: a stream's one copy.
    fn place(&mut self, source: &dyn StreamSource) -> Result<Range, CallError> {
        let range = self.take_range(source.len())?;
        let slice = self.process.scratch().slice(range);
        let copied = slice.map_err(|_| outside()).and_then(|slice| {
            let copied = source.copy_to(&slice);
            copied.map_err(|_| refused("guest memory that is gone", EFAULT))
        });
        if let Err(error) = copied {
            self.arena.take_back();
            return Err(error);
        }
        Ok(range)
    }

    /// Room in the scratch memory, once there is some.
    fn take_range(&mut self, bytes: usize) -> Result<Range, CallError> {
        loop {
            if let Some(range) = self.arena.take(bytes) {
                return Ok(range);
            }
            if self.in_flight.is_empty() {
                return Err(refused("more than a message holds", EINVAL));
            }
            self.finish_oldest()?;
        }
    }

    /// Waits for the reply to a call in flight.
    fn finish_oldest(&mut self) -> Result<(), ChannelError> {
        let reply = self.process.receive()?;
        match self.accept(reply)? {
            None => Ok(()),
            Some(_) => Err(MessageError::Decode.into()),
        }
    }

    /// Waits for the reply to the newest request, behind all others.
    fn receive(&mut self) -> Result<Reply, ChannelError> {
        loop {
            let reply = self.process.receive()?;
            if let Some(reply) = self.accept(reply)? {
                return Ok(reply);
            }
        }
    }

    /// Takes the reply to the oldest request. Returns it if somebody waits for it.
    fn accept(&mut self, reply: Reply) -> Result<Option<Reply>, ChannelError> {
        let Some(InFlight { waits, range }) = self.in_flight.pop_front() else {
            // To no request.
            return Err(MessageError::Decode.into());
        };
        if range.is_some() {
            self.arena.give_back();
        }
        match waits {
            Waits::Here => Ok(Some(reply)),
            Waits::Nobody(ticket) => {
                let result = reply.map(drop);
                self.completions.push(Completion::Call { ticket, result });
                Ok(None)
            }
        }
    }

    /// Maps what a resource's guest memory lies in, and names its pieces.
    fn map_pages(
        &mut self,
        resource_id: u32,
        pages: &dyn GuestPages,
    ) -> Result<Vec<u8>, CallError> {
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
        self.regions
            .begin(resource_id, ids.into_iter().collect::<BTreeSet<_>>());
        postcard::to_allocvec(&pieces).map_err(|_| no_room())
    }

    /// A resource has no guest memory any more.
    pub(super) fn forget_backing(&mut self, resource_id: u32) {
        self.regions.end(resource_id);
    }

    pub(super) fn unmap_unused(&mut self) -> Result<(), CallError> {
        while let Some(region) = self.regions.take_unused() {
            self.ask(&Request::UnmapRegion { region }, None)?;
        }
        Ok(())
    }

    /// Makes a request of this process's own.
    fn ask(&mut self, request: &Request, fd: Option<BorrowedFd<'_>>) -> Result<(), CallError> {
        let (waits, range) = (Waits::Here, None);
        self.send(request, fd, InFlight { waits, range })?;
        self.receive()??;
        Ok(())
    }

    /// Makes a call that has a range of the scratch memory, and hands that to `after` once it is answered.
    fn call_on(
        &mut self,
        operation: Operation,
        data: Placed,
        range: Range,
        after: impl FnOnce(&Process) -> Result<(), CallError>,
    ) -> Result<(), CallError> {
        let request = Request::Call {
            operation,
            data,
            fence: None,
            in_flight: false,
        };
        let (waits, range) = (Waits::Here, Some(range));
        self.send(&request, None, InFlight { waits, range })?;
        self.receive()??;
        after(&self.process)
    }

    /// A frame that the scratch memory does not hold comes in bands.
    fn read_pixels(
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
            let range = self.take_range(row.saturating_mul(band.height as usize))?;
            let read = Operation::ReadPixels {
                resource_id,
                rect: band,
                stride: row,
            };
            self.call_on(read, Placed::Room(range), range, |process| {
                for index in 0..band.height as usize {
                    let target = rows.next().and_then(|target| target.get_mut(..row));
                    let target = target.ok_or_else(outside)?;
                    let from = process.scratch().slice(part(range, index * row, row));
                    from.map_err(|_| outside())?.copy_to(target);
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn write_pixels(
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
            let range = self.take_range(row.saturating_mul(band.height as usize))?;
            for index in 0..band.height as usize {
                let source = rows.next().and_then(|source| source.get(..row));
                let scratch = self.process.scratch();
                let to = scratch.slice(part(range, index * row, row)).ok();
                let Some((source, to)) = source.zip(to) else {
                    self.arena.take_back();
                    return Err(outside());
                };
                to.copy_from(source);
            }
            let write = Operation::WritePixels {
                resource_id,
                rect: band,
                stride: row,
            };
            self.call_on(write, Placed::Bytes(range), range, |_| Ok(()))?;
        }
        Ok(())
    }

    fn read_blob(
        &mut self,
        resource_id: u32,
        offset: u64,
        target: &mut [u8],
    ) -> Result<(), CallError> {
        let mut offset = offset;
        let most = self.process.scratch().length();
        for piece in target.chunks_mut(most) {
            let range = self.take_range(piece.len())?;
            let read = Operation::ReadBlob {
                resource_id,
                offset,
            };
            let length = range.length;
            self.call_on(read, Placed::Room(range), range, |process| {
                let from = process.scratch().slice(range);
                from.map_err(|_| outside())?.copy_to(piece);
                Ok(())
            })?;
            offset = offset.checked_add(length).ok_or_else(outside)?;
        }
        Ok(())
    }

    /// The number of a region, which is mapped if it was not.
    fn map(&mut self, region: &MappedRegion) -> Result<u32, CallError> {
        let Some(file) = &region.file else {
            return Err(refused("guest memory that the VMM has no file for", EINVAL));
        };
        if let Some(id) = self.regions.find(file, region.size) {
            return Ok(id);
        }
        let request = Request::MapRegion {
            region: self.regions.next(),
            offset: file.start(),
            size: region.size,
        };
        self.ask(&request, Some(file.file().as_fd()))?;
        Ok(self.regions.add(region.size, file))
    }
}

/// So many bytes of a range, from there on.
fn part(range: Range, from: usize, length: usize) -> Range {
    Range {
        at: range.at.saturating_add(from as u64),
        length: length as u64,
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
