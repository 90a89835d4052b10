// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The renderer's end.
#![expect(
    unsafe_code,
    reason = "file descriptors that the program was started with belong to nobody"
)]

mod calls;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use libc::c_uint;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{Signal, getpid, kill_process};
use rustix::stdio::{dup2_stdin, dup2_stdout, stderr, stdin, stdout};
use thiserror::Error;
use virtio_gpu_rutabaga::{RutabagaConfig, RutabagaRenderer, SignalledFences};
use virtio_gpu_s3::renderer::{BlobMapping, GuestPages};
use virtio_gpu_s3::{BYTES_PER_PIXEL, Rect, Renderer, RendererError};

use super::channel::{Buffer, Channel, ChannelError};
use super::line::FenceWriter;
use super::memory::Memory;
use super::protocol::{Answer, Call, Head, Mapped, Piece, Start, Started, With, split, text};
use super::scratch::Scratch;
use calls::{Calls, Idle, tell};

/// The first that is not standard input, output or error.
const FIRST_FD: c_uint = 3;

/// A renderer that cannot serve.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServeError {
    /// It was not started by a device.
    #[error("this is started by the server itself, with sockets as its input and output: {why}")]
    NotAChild {
        /// What is missing.
        why: String,
    },
    /// It has nothing to render with; the device was told.
    #[error("{why}")]
    Renderer {
        /// Why not.
        why: String,
    },
    /// The device says what makes no sense.
    #[error("the device's process: {why}")]
    Protocol {
        /// What is wrong.
        why: String,
    },
}

fn not_a_child(error: &impl ToString) -> ServeError {
    ServeError::NotAChild {
        why: error.to_string(),
    }
}

fn protocol(error: &impl ToString) -> ServeError {
    ServeError::Protocol {
        why: error.to_string(),
    }
}

/// Is a renderer for the device at the other end of standard input and output, until that is gone. To be called before
/// the program does anything else: it closes every file that it was not meant to have.
///
/// # Errors
/// A [`ServeError`] says what is missing.
pub fn serve() -> Result<(), ServeError> {
    close_others();
    let (calls, fences) = sockets()?;
    let fences = Arc::new(fences);
    end_with(&fences)?;
    let mut buffer = Buffer::new();
    let (message, scratch) = calls
        .receive_with_fd(&mut buffer)
        .map_err(|error| not_a_child(&error))?;
    let (start, _): (Start, _) = split(message).map_err(|error| protocol(&error))?;
    let scratch = scratch.ok_or_else(|| not_a_child(&"no shared memory"))?;
    let length = usize::try_from(start.scratch).map_err(|error| protocol(&error))?;
    let scratch = Scratch::map(scratch, length).map_err(|error| protocol(&error))?;
    let line = FenceWriter::new(scratch.line());
    let renderer = match start_renderer(&start, &fences, line) {
        Ok(renderer) => renderer,
        Err(why) => {
            let started: Started = Err(text(&why));
            greet(&calls, &started)?;
            return Err(ServeError::Renderer { why });
        }
    };
    // Everything that it needs of the host is open, and no byte of a guest was read: privileges can go here.
    greet(&calls, &Ok(renderer.capsets()))?;
    Server::new(renderer, scratch).run(&calls, &mut buffer)
}

fn greet(calls: &Channel, started: &Started) -> Result<(), ServeError> {
    let head = Head::of(started).map_err(|error| protocol(&error))?;
    let sent = calls.send(head.bytes(), &[], None);
    sent.map_err(|error| protocol(&error))
}

/// A VMM's memory and other guests' files can be open in the process that started this one, not all of them with the
/// flag that closes them here.
fn close_others() {
    // SAFETY: the program has just been started, and opened nothing that this could close.
    unsafe { libc::close_range(FIRST_FD, c_uint::MAX, 0) };
}

/// Takes the sockets, and puts what a library may read from and print to in their places.
fn sockets() -> Result<(Channel, Channel), ServeError> {
    let take = |fd| fcntl_dupfd_cloexec(fd, 3).map_err(|error| not_a_child(&error));
    let (calls, fences) = (take(stdin())?, take(stdout())?);
    let null = File::open("/dev/null").map_err(|error| not_a_child(&error))?;
    dup2_stdin(null).map_err(|error| not_a_child(&error))?;
    dup2_stdout(stderr()).map_err(|error| not_a_child(&error))?;
    Ok((Channel::new(calls), Channel::new(fences)))
}

/// Ends the process, whatever C code it is in, when the device closes the fences' socket or dies. A signal at the
/// parent's death (PR_SET_PDEATHSIG) would come when the thread ends that started this process.
fn end_with(fences: &Arc<Channel>) -> Result<(), ServeError> {
    let fences = fences.clone();
    let watch = move || {
        loop {
            // A hang-up is always told.
            let mut fds = [PollFd::new(&*fences, PollFlags::empty())];
            match poll(&mut fds, None) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) | Err(_) => break,
            }
        }
        // Nothing here is worth a destructor, some of which are C's, and may hang.
        let _ = kill_process(getpid(), Signal::KILL);
    };
    let thread = thread::Builder::new().name("device-gone".into());
    let spawned = thread.spawn(watch);
    spawned.map(drop).map_err(|error| not_a_child(&error))
}

fn start_renderer(
    start: &Start,
    fences: &Arc<Channel>,
    line: FenceWriter,
) -> Result<RutabagaRenderer, String> {
    let config = RutabagaConfig {
        venus: start.venus,
        ..RutabagaConfig::default()
    };
    let signalled = Arc::new(OnceLock::<SignalledFences>::new());
    let (taken, fences) = (signalled.clone(), fences.clone());
    // virglrenderer signals on its thread for fences, and on this one.
    let line = Mutex::new(line);
    // The socket never fills: the device reads it whatever else it does, and has few fences outstanding.
    let wake = move || {
        if let Some(signalled) = taken.get() {
            let mut line = line.lock().unwrap_or_else(PoisonError::into_inner);
            tell(&fences, &mut line, &signalled.take());
        }
    };
    let renderer = RutabagaRenderer::on_this_thread(&config, wake);
    let renderer = renderer.map_err(|error| error.to_string())?;
    drop(signalled.set(renderer.signalled()));
    Ok(renderer)
}

/// What comes with an answer.
#[derive(Debug, Default)]
struct More {
    bytes: Vec<u8>,
    file: Option<File>,
}

impl More {
    fn mapped(blob: BlobMapping) -> Result<Self, RendererError> {
        let BlobMapping {
            resource_id: _,
            file,
            address: _,
            size,
            map_info,
        } = blob;
        let mapped = Mapped {
            size,
            map_info,
            file: file.is_some(),
        };
        let bytes = postcard::to_allocvec(&mapped);
        let bytes = bytes.map_err(|_| refused("an answer that is too long"))?;
        Ok(Self { bytes, file })
    }
}

/// A renderer and the memory it works in.
#[derive(Debug)]
struct Server<R> {
    renderer: R,
    scratch: Scratch,
    memory: Memory,
    backings: BTreeMap<u32, Vec<Piece>>,
}

impl<R: Renderer> Server<R> {
    fn new(renderer: R, scratch: Scratch) -> Self {
        Self {
            renderer,
            scratch,
            memory: Memory::default(),
            backings: BTreeMap::new(),
        }
    }

    fn run(mut self, socket: &Channel, buffer: &mut Buffer) -> Result<(), ServeError>
    where
        R: Idle,
    {
        let line = self.scratch.line();
        let mut calls = Calls::new(socket, &line);
        loop {
            let (message, fd) = match calls.next(buffer, &mut self.renderer) {
                Ok(received) => received,
                Err(ChannelError::Closed) => return Ok(()),
                Err(error) => return Err(protocol(&error)),
            };
            let ((with, call), _): ((With, Call), _) =
                split(message).map_err(|error| protocol(&error))?;
            let bytes = self.bytes(with.bytes).map_err(|error| protocol(&error))?;
            let gives_more = call.gives_more();
            let done = self.handle(call, &bytes, fd);
            let done = done.and_then(|more| match with.fence {
                Some(fence) => self.renderer.create_fence(fence).map(|()| more),
                None => Ok(more),
            });
            let (answer, more): (Answer, _) = match done {
                Ok(more) => (Ok(()), more),
                Err(error) => (Err(error), More::default()),
            };
            let head = Head::of(&answer).map_err(|error| protocol(&error))?;
            let sent = if gives_more {
                let file = more.file.as_ref().map(AsFd::as_fd);
                socket.send(head.bytes(), &more.bytes, file)
            } else {
                calls.answer(&head)
            };
            sent.map_err(|error| protocol(&error))?;
        }
    }

    /// Those that come with a call. Copied, so that they are not those of another call next.
    fn bytes(&self, length: u64) -> Result<Vec<u8>, ChannelError> {
        let length = usize::try_from(length).map_err(|_| ChannelError::TooLong)?;
        if length > self.scratch.length() {
            return Err(ChannelError::TooLong);
        }
        let mut bytes = vec![0; length];
        let taken = self.scratch.take(0, &mut bytes);
        taken.map_err(|_| ChannelError::TooLong)?;
        Ok(bytes)
    }

    /// What the device asks.
    fn handle(
        &mut self,
        call: Call,
        bytes: &[u8],
        fd: Option<OwnedFd>,
    ) -> Result<More, RendererError> {
        let renderer = &mut self.renderer;
        match call {
            Call::Capset { id, version } => {
                let (bytes, file) = (renderer.capset(id, version)?, None);
                return Ok(More { bytes, file });
            }
            Call::MapBlob { resource_id } => return More::mapped(renderer.map_blob(resource_id)?),
            Call::UnmapBlob { resource_id } => renderer.unmap_blob(resource_id)?,
            Call::WriteBlob {
                resource_id,
                offset,
            } => renderer.write_blob(resource_id, offset, bytes)?,
            Call::CreateContext {
                ctx_id,
                context_init,
            } => renderer.create_context(ctx_id, context_init, bytes)?,
            Call::DestroyContext { ctx_id } => renderer.destroy_context(ctx_id)?,
            Call::AttachResource {
                ctx_id,
                resource_id,
            } => renderer.attach_resource(ctx_id, resource_id)?,
            Call::DetachResource {
                ctx_id,
                resource_id,
            } => renderer.detach_resource(ctx_id, resource_id)?,
            Call::CreateResource {
                resource_id,
                params,
            } => renderer.create_resource(resource_id, &params)?,
            Call::Submit { ctx_id, in_fences } => renderer.submit(ctx_id, bytes, &in_fences)?,
            Call::CreateFence(fence) => renderer.create_fence(fence)?,
            call => self.handle_memory(call, bytes, fd)?,
        }
        Ok(More::default())
    }

    /// Those that move bytes or say where they are.
    fn handle_memory(
        &mut self,
        call: Call,
        bytes: &[u8],
        fd: Option<OwnedFd>,
    ) -> Result<(), RendererError> {
        match call {
            Call::MapRegion {
                region,
                offset,
                size,
            } => {
                let fd = fd.ok_or_else(|| refused("a region without its file"))?;
                self.memory.map(region, fd, offset, size)
            }
            Call::UnmapRegion { region } => self.unmap(region),
            Call::CreateBlob {
                ctx_id,
                resource_id,
                params,
                backed,
            } => {
                let pieces = pieces(bytes, backed)?;
                let pages = self.memory.pages(&pieces)?;
                let pages = backed.then_some(&pages as &dyn GuestPages);
                self.renderer
                    .create_blob(ctx_id, resource_id, &params, pages)?;
                self.backings.insert(resource_id, pieces);
                Ok(())
            }
            Call::AttachBacking { resource_id } => {
                let pieces = pieces(bytes, true)?;
                let pages = self.memory.pages(&pieces)?;
                self.renderer.attach_backing(resource_id, &pages)?;
                self.backings.insert(resource_id, pieces);
                Ok(())
            }
            Call::DetachBacking { resource_id } => {
                self.backings.remove(&resource_id);
                self.renderer.detach_backing(resource_id)
            }
            Call::DestroyResource { resource_id } => {
                self.backings.remove(&resource_id);
                self.renderer.destroy_resource(resource_id)
            }
            call => self.transfer(&call),
        }
    }

    fn transfer(&mut self, call: &Call) -> Result<(), RendererError> {
        let none = Vec::new();
        match *call {
            Call::TransferToHost {
                ctx_id,
                resource_id,
                ref transfer,
            } => {
                let pieces = self.backings.get(&resource_id).unwrap_or(&none);
                let pages = self.memory.pages(pieces)?;
                self.renderer
                    .transfer_to_host(ctx_id, resource_id, transfer, &pages)
            }
            Call::TransferFromHost {
                ctx_id,
                resource_id,
                ref transfer,
            } => {
                let pieces = self.backings.get(&resource_id).unwrap_or(&none);
                let pages = self.memory.pages(pieces)?;
                self.renderer
                    .transfer_from_host(ctx_id, resource_id, transfer, &pages)
            }
            Call::ReadPixels { resource_id, rect } => {
                let (row, length) = packed(rect)?;
                let target = self.scratch.bytes(length).map_err(|_| outside())?;
                self.renderer.read_pixels(resource_id, rect, row, target)
            }
            Call::WritePixels { resource_id, rect } => {
                let (row, length) = packed(rect)?;
                let source = self.scratch.bytes(length).map_err(|_| outside())?;
                self.renderer.write_pixels(resource_id, rect, row, source)
            }
            Call::ReadBlob {
                resource_id,
                offset,
                length,
            } => {
                let length = usize::try_from(length).map_err(|_| outside())?;
                let target = self.scratch.bytes(length).map_err(|_| outside())?;
                target.fill(0);
                self.renderer.read_blob(resource_id, offset, target)
            }
            _ => Err(refused("an unknown call")),
        }
    }

    /// Where a resource still has memory the region stays: the device is wrong, and shall hear it.
    fn unmap(&mut self, region: u32) -> Result<(), RendererError> {
        let in_use = |pieces: &Vec<Piece>| pieces.iter().any(|piece| piece.region == region);
        if self.backings.values().any(in_use) {
            return Err(refused("the end of a region in use"));
        }
        self.memory.unmap(region)
    }
}

const EINVAL: i32 = 22;

fn refused(what: &'static str) -> RendererError {
    RendererError::refused(what, EINVAL)
}

fn outside() -> RendererError {
    refused("a range outside the scratch memory")
}

fn pieces(bytes: &[u8], backed: bool) -> Result<Vec<Piece>, RendererError> {
    if !backed {
        return Ok(Vec::new());
    }
    postcard::from_bytes(bytes).map_err(|_| refused("a backing that makes no sense"))
}

/// Bytes of a row and of all rows without gaps.
fn packed(rect: Rect) -> Result<(usize, usize), RendererError> {
    let row = (rect.width as usize).checked_mul(BYTES_PER_PIXEL);
    let all = row.and_then(|row| row.checked_mul(rect.height as usize));
    row.zip(all).ok_or_else(outside)
}

#[cfg(test)]
mod tests;
