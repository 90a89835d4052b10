// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One guest's process and its connection.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::os::fd::OwnedFd;

use zerocopy::IntoBytes;

use super::channel::{Arrival, Channel};
use super::files::{HostFile, Received};
use super::host::Host;
use super::image::Image;
use super::memory::GuestRing;
use super::pipes::{MAX_PIPES, ReadPipe, WritePipe, no_file};
use super::protocol::{
    CHANNEL_WAYLAND, Command, Commands, Identifier, ImageRequirements, MAX_MESSAGE, Message,
    PipeData, READ_PIPES, identifier,
};
use super::resources::Resources;
use super::watcher::Interest;
use virtio_gpu_s3::Fence;
use virtio_gpu_s3::renderer::{CrossDomainError, RendererError};

/// Kinds of images of one context. A proxy asks once for each size of a window.
const MAX_IMAGES: usize = 1024;
/// VIRTIO_GPU_MAP_CACHE_CACHED.
pub(super) const MAP_CACHED: u32 = 1;
const HEAD: usize = size_of::<Message>();

/// A context of this protocol.
#[derive(Debug, Default)]
pub(super) struct Context {
    attached: BTreeSet<u32>,
    rings: Option<Rings>,
    channel: Option<Channel>,
    /// By number; a kind of image that was asked for has the number that it had then.
    images: BTreeMap<u32, (ImageKind, Image)>,
    kinds: BTreeMap<ImageKind, u32>,
    /// Memory that came with a message, and its size, until the guest makes a blob of it.
    memory: BTreeMap<u32, (HostFile, u32)>,
    read_pipes: BTreeMap<u32, ReadPipe>,
    write_pipes: BTreeMap<u32, WritePipe>,
    /// The last numbers given: of read pipes, behind [`READ_PIPES`], and of everything else.
    last_pipe: u32,
    last_number: u32,
    /// Fences that wait for something to be said; each takes one message.
    waiting: VecDeque<Fence>,
    /// Somebody listens, and there is no room for the files of what may be said.
    starved: bool,
    /// So that neither messages nor pipes keep the others waiting for ever.
    pipes_first: bool,
}

#[derive(Clone, Copy, Debug)]
struct Rings {
    query: u32,
    channel: u32,
}

/// Width, height and format.
type ImageKind = (u32, u32, u32);

impl Context {
    pub(super) fn attach(&mut self, resource_id: u32) {
        self.attached.insert(resource_id);
    }

    pub(super) fn detach(&mut self, resource_id: u32) {
        self.attached.remove(&resource_id);
    }

    /// Runs a stream, of which every command has been read before.
    pub(super) fn run(
        &mut self,
        stream: &[u8],
        resources: &Resources,
        host: &Host,
    ) -> Result<(), RendererError> {
        for command in Commands::of(stream) {
            match command? {
                Command::Init {
                    query_ring,
                    channel_ring,
                    channel_type,
                } => {
                    let rings = Rings {
                        query: query_ring,
                        channel: channel_ring,
                    };
                    self.init(rings, channel_type, resources, host)?;
                }
                Command::GetImageRequirements {
                    width,
                    height,
                    drm_format,
                } => self.query_image((width, height, drm_format), resources)?,
                Command::Poll => {}
                Command::Send { message, data } => self.send(message, data, resources, host)?,
                Command::Write {
                    pipe,
                    hang_up,
                    data,
                } => self.write(pipe, hang_up, data, host)?,
            }
        }
        Ok(())
    }

    /// Whether messages wait for files to be given back, here or elsewhere.
    pub(super) fn is_starved(&self) -> bool {
        self.starved
    }

    /// A fence that waits for something to be said.
    pub(super) fn wait(&mut self, fence: Fence) {
        self.waiting.push_back(fence);
    }

    /// Goes on with everything that can go on without waiting, and has the rest waited for.
    pub(super) fn serve(
        &mut self,
        id: u32,
        resources: &Resources,
        host: &Host,
        signalled: &mut Vec<Fence>,
    ) {
        self.flush(host);
        while !self.waiting.is_empty() && self.deliver(resources, host) {
            signalled.extend(self.waiting.pop_front());
        }
        self.watch(id, resources, host);
    }

    /// Ends every wait, with a message that says nothing where there is none: the last one would be
    /// taken for a new one. What was not said yet stays with the host.
    pub(super) fn release(
        &mut self,
        id: u32,
        resources: &Resources,
        host: &Host,
        signalled: &mut Vec<Fence>,
    ) {
        if self.waiting.is_empty() {
            return;
        }
        if let Some(ring) = self.ring(resources) {
            ring.write(Message::receive(&[], 0).as_bytes(), &[]);
        }
        signalled.extend(mem::take(&mut self.waiting));
        self.watch(id, resources, host);
    }

    /// What a blob is to be made of: new memory for an image, or memory that came with a message,
    /// once.
    pub(super) fn take_blob(
        &mut self,
        blob_id: u64,
        size: u64,
        host: &Host,
    ) -> Result<HostFile, RendererError> {
        let id = u32::try_from(blob_id).unwrap_or(0);
        if let Some((_, image)) = self.images.get(&id) {
            let there = image.size;
            if size != there {
                return Err(CrossDomainError::BlobSize { size, there }.into());
            }
            let memory = HostFile::memory(size, host.files.take()?);
            return memory.map_err(|error| no_file(&error));
        }
        let none = CrossDomainError::no_file("memory", id);
        let there = self
            .memory
            .get(&id)
            .map(|(_, there)| *there)
            .ok_or(none.clone())?;
        // A driver may round up to whole pages.
        let most = u64::from(there).next_multiple_of(4096);
        if size > most {
            return Err(CrossDomainError::BlobSize { size, there: most }.into());
        }
        let taken = self.memory.remove(&id).ok_or(none)?;
        Ok(taken.0)
    }

    /// Has nothing waited for any more, before everything is closed.
    pub(super) fn end(mut self, host: &Host) {
        if let Some(channel) = &mut self.channel {
            // The other side reads the end, though this process may have given the socket away.
            channel.end();
            host.forget(channel);
        }
        for pipe in self.read_pipes.values_mut() {
            host.forget(pipe);
        }
        for pipe in self.write_pipes.values_mut() {
            host.forget(pipe);
        }
    }

    fn init(
        &mut self,
        rings: Rings,
        channel_type: u32,
        resources: &Resources,
        host: &Host,
    ) -> Result<(), RendererError> {
        if self.rings.is_some() {
            return Err(CrossDomainError::InitialisedTwice.into());
        }
        self.find_ring(rings.query, resources)?;
        match channel_type {
            // No channel: images only.
            0 => {}
            CHANNEL_WAYLAND => {
                self.find_ring(rings.channel, resources)?;
                self.channel = Some(host.connect()?);
            }
            channel_type => return Err(CrossDomainError::ChannelType { channel_type }.into()),
        }
        self.rings = Some(rings);
        Ok(())
    }

    fn query_image(&mut self, kind: ImageKind, resources: &Resources) -> Result<(), RendererError> {
        let rings = self.rings.ok_or_else(|| uninitialised("a ring"))?;
        let (width, height, format) = kind;
        let image = Image::of(width, height, format)?;
        let id = match self.kinds.get(&kind) {
            Some(id) => *id,
            None => {
                if self.images.len() >= MAX_IMAGES {
                    return Err(CrossDomainError::limit("images", 1, 0).into());
                }
                let id = self.new_number()?;
                self.images.insert(id, (kind, image));
                self.kinds.insert(kind, id);
                id
            }
        };
        let requirements = ImageRequirements {
            strides: image.strides.map(Into::into),
            offsets: image.offsets.map(Into::into),
            modifier: 0.into(),
            size: image.size.into(),
            blob_id: id.into(),
            map_info: MAP_CACHED.into(),
            memory_idx: (-1).into(),
            physical_device_idx: (-1).into(),
        };
        let ring = self.find_ring(rings.query, resources)?;
        if ring.write(requirements.as_bytes(), &[]) {
            return Ok(());
        }
        let resource_id = rings.query;
        Err(CrossDomainError::NotARing { resource_id }.into())
    }

    fn send(
        &mut self,
        message: &Message,
        data: &[u8],
        resources: &Resources,
        host: &Host,
    ) -> Result<(), RendererError> {
        let mut files = Vec::new();
        let mut pipes = Vec::new();
        if self.channel.is_none() {
            return Err(uninitialised("a channel").into());
        }
        for file in message.files() {
            match file.kind {
                identifier::BLOB => {
                    let shared = self.attached.contains(&file.id);
                    let blob = resources.host(file.id).filter(|_| shared);
                    let none = CrossDomainError::no_file("blob of the host", file.id);
                    let blob = blob.ok_or(none)?.duplicate(host.files.take()?);
                    files.push(blob.map_err(|error| no_file(&error))?);
                }
                identifier::READ_PIPE => {
                    let (pipe, theirs) = self.new_read_pipe(file.id, pipes.len(), host)?;
                    pipes.push(pipe);
                    files.push(theirs);
                }
                identifier_type => {
                    return Err(CrossDomainError::IdentifierType { identifier_type }.into());
                }
            }
        }
        if data.is_empty() && !files.is_empty() {
            return Err(CrossDomainError::FilesWithoutData.into());
        }
        let channel = self.channel.as_mut();
        let channel = channel.ok_or_else(|| uninitialised("a channel"))?;
        channel.send(data, files)?;
        for pipe in pipes {
            self.last_pipe = self.last_pipe.saturating_add(1);
            self.read_pipes
                .insert(READ_PIPES.saturating_add(self.last_pipe), pipe);
        }
        Ok(())
    }

    /// One more read pipe of a message, before which it has so many. Guests know the number in
    /// advance, so that they need not wait for it.
    fn new_read_pipe(
        &self,
        id: u32,
        before: usize,
        host: &Host,
    ) -> Result<(ReadPipe, HostFile), RendererError> {
        let there = self.read_pipes.len().saturating_add(before);
        if there >= MAX_PIPES {
            return Err(CrossDomainError::limit("pipes", 1, 0).into());
        }
        let last = u64::from(self.last_pipe).saturating_add(before as u64);
        let expected = u64::from(READ_PIPES).saturating_add(last).saturating_add(1);
        let expected = u32::try_from(expected);
        let expected = expected.map_err(|_| CrossDomainError::limit("numbers of pipes", 1, 0))?;
        if id != expected {
            return Err(CrossDomainError::PipeId { id, expected }.into());
        }
        ReadPipe::new(&host.files)
    }

    fn write(
        &mut self,
        id: u32,
        hang_up: bool,
        data: &[u8],
        host: &Host,
    ) -> Result<(), RendererError> {
        let pipe = self.write_pipes.get_mut(&id);
        let pipe = pipe.ok_or(CrossDomainError::no_file("pipe to write", id))?;
        let pushed = pipe.push(data, hang_up);
        if (pushed.is_err() || !pipe.flush())
            && let Some(mut pipe) = self.write_pipes.remove(&id)
        {
            host.forget(&mut pipe);
        }
        Ok(pushed?)
    }

    fn flush(&mut self, host: &Host) {
        if let Some(channel) = &mut self.channel {
            channel.flush();
        }
        self.write_pipes.retain(|_, pipe| {
            let more = pipe.flush();
            if !more {
                host.forget(pipe);
            }
            more
        });
    }

    /// Puts the next thing that was said into the ring. False where there is none.
    fn deliver(&mut self, resources: &Resources, host: &Host) -> bool {
        let Some(ring) = self.ring(resources).cloned() else {
            return false;
        };
        let pipes_first = mem::replace(&mut self.pipes_first, false);
        if pipes_first && self.deliver_pipe(&ring, host) {
            return true;
        }
        if self.deliver_message(&ring, host) {
            self.pipes_first = true;
            return true;
        }
        !pipes_first && self.deliver_pipe(&ring, host)
    }

    fn deliver_message(&mut self, ring: &GuestRing, host: &Host) -> bool {
        let room = ring.len().min(MAX_MESSAGE).saturating_sub(HEAD);
        // Files that come have to be held; the host's socket keeps the message until then.
        if room == 0 || !host.has_room_for_a_message() {
            return false;
        }
        let Some(channel) = &mut self.channel else {
            return false;
        };
        let mut buffer = vec![0; room];
        let (bytes, fds) = match channel.receive(&mut buffer) {
            Arrival::Nothing => return false,
            Arrival::Message(bytes, fds) => (bytes, fds),
            Arrival::End => {
                channel.told();
                return ring.write(Message::receive(&[], 0).as_bytes(), &[]);
            }
        };
        let Some(files) = self.hold(fds, host) else {
            // What is missing cannot be told, so nothing that follows can be understood.
            if let Some(channel) = &mut self.channel {
                channel.end();
                channel.told();
            }
            return ring.write(Message::receive(&[], 0).as_bytes(), &[]);
        };
        let data = buffer.get(..bytes).unwrap_or_default();
        ring.write(Message::receive(&files, data.len()).as_bytes(), data)
    }

    /// Numbers for files that came. `None` where one cannot be carried: then none is held.
    fn hold(&mut self, fds: Vec<OwnedFd>, host: &Host) -> Option<Vec<Identifier>> {
        let mut received = Vec::new();
        for fd in fds {
            let permit = host.files.take().ok()?;
            let file = HostFile::classify(fd, permit)?;
            received.push((self.new_number().ok()?, file));
        }
        let pipes = received.iter().filter(|(_, file)| file.is_pipe()).count();
        if self.write_pipes.len().saturating_add(pipes) > MAX_PIPES {
            return None;
        }
        let held = received.into_iter().map(|(id, file)| {
            let (kind, size) = match file {
                Received::Memory(file, size) => {
                    self.memory.insert(id, (file, size));
                    (identifier::BLOB, size)
                }
                Received::WritePipe(file) => {
                    let pipe = WritePipe::new(file, host.max_queued);
                    self.write_pipes.insert(id, pipe);
                    (identifier::WRITE_PIPE, 0)
                }
            };
            Identifier { id, kind, size }
        });
        Some(held.collect())
    }

    fn deliver_pipe(&mut self, ring: &GuestRing, host: &Host) -> bool {
        let room = ring
            .len()
            .min(MAX_MESSAGE)
            .saturating_sub(size_of::<PipeData>());
        if room == 0 {
            return false;
        }
        let mut buffer = vec![0; room];
        let mut pipes = self.read_pipes.iter();
        let found = pipes.find_map(|(id, pipe)| Some((*id, pipe.read(&mut buffer)?)));
        let Some((id, bytes)) = found else {
            return false;
        };
        if bytes == 0
            && let Some(mut pipe) = self.read_pipes.remove(&id)
        {
            host.forget(&mut pipe);
        }
        let data = buffer.get(..bytes).unwrap_or_default();
        ring.write(PipeData::read(id, bytes).as_bytes(), data)
    }

    /// A wait that cannot be had is one that never ends, as with a host that says nothing.
    fn watch(&mut self, id: u32, resources: &Resources, host: &Host) {
        let listens = !self.waiting.is_empty() && self.ring(resources).is_some();
        let takes = listens && host.has_room_for_a_message();
        self.starved = listens && !takes;
        if let Some(channel) = &mut self.channel {
            let interest = channel.interest(takes);
            host.watch(id, channel, interest);
        }
        let reads = Interest {
            read: listens,
            write: false,
        };
        for pipe in self.read_pipes.values_mut() {
            host.watch(id, pipe, reads);
        }
        for pipe in self.write_pipes.values_mut() {
            let interest = pipe.interest();
            host.watch(id, pipe, interest);
        }
    }

    /// Where messages go, if it is there.
    fn ring<'a>(&self, resources: &'a Resources) -> Option<&'a GuestRing> {
        let rings = self.rings?;
        self.find_ring(rings.channel, resources).ok()
    }

    fn find_ring<'a>(
        &self,
        resource_id: u32,
        resources: &'a Resources,
    ) -> Result<&'a GuestRing, CrossDomainError> {
        let attached = self.attached.contains(&resource_id);
        let ring = resources.ring(resource_id).filter(|_| attached);
        ring.ok_or(CrossDomainError::NotARing { resource_id })
    }

    fn new_number(&mut self) -> Result<u32, CrossDomainError> {
        let next = self.last_number.saturating_add(1);
        if next >= READ_PIPES {
            return Err(CrossDomainError::limit("numbers", 1, 0));
        }
        self.last_number = next;
        Ok(next)
    }
}

fn uninitialised(what: &'static str) -> CrossDomainError {
    CrossDomainError::Uninitialised { what: what.into() }
}
