// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The renderer's end.
#![expect(
    unsafe_code,
    reason = "file descriptors that the program was started with belong to nobody, and a stream is run where it lies"
)]

mod calls;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use std::thread;

use libc::c_uint;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{Signal, getpid, kill_process};
use rustix::stdio::{dup2_stdin, dup2_stdout, stderr, stdin, stdout};
use thiserror::Error;
use virtio_gpu_rutabaga::{RutabagaConfig, RutabagaRenderer, SignalledFences};
use virtio_gpu_s3::renderer::{Answer, Backing, Data, Operation, StreamError};
use virtio_gpu_s3::{Fence, Renderer, RendererError};

use super::channel::{Buffer, Channel, ChannelError};
use super::memory::Memory;
use super::protocol::{
    Encoder, Piece, Placed, Range, Reply, Request, Start, Started, decode, text,
};
use super::scratch::{OutsideScratch, Scratch};
use calls::{Calls, Idle, News};

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

/// What happens between the device's first message and the renderer's start, while the process has one thread: told whether
/// Vulkan is rendered too, whoever calls has it give up what it does not need. Returns a connection to a render server,
/// without which virglrenderer starts its own.
pub type Confine<'a> = &'a dyn Fn(bool) -> Result<Option<OwnedFd>, String>;

/// Is a renderer for the device at the other end of standard input and output, until that is gone. To be called before
/// the program does anything else: it closes every file that it was not meant to have.
///
/// # Errors
/// A [`ServeError`] says what is missing.
pub fn serve(confine: Confine<'_>) -> Result<(), ServeError> {
    close_others();
    let (calls, fences) = sockets()?;
    let mut buffer = Buffer::new();
    let (message, scratch) = calls
        .receive_with_fd(&mut buffer)
        .map_err(|error| not_a_child(&error))?;
    let start: Start = decode(message).map_err(|error| protocol(&error))?;
    let scratch = scratch.ok_or_else(|| not_a_child(&"no shared memory"))?;
    let length = usize::try_from(start.scratch).map_err(|error| protocol(&error))?;
    let scratch = Scratch::map(scratch, length).map_err(|error| protocol(&error))?;
    let confined = confine(start.venus);
    let fences = Arc::new(fences);
    end_with(&fences)?;
    let news = Arc::new(News::new(fences, scratch.line()));
    let started = confined.and_then(|render_server| start_renderer(&start, render_server, &news));
    let renderer = match started {
        Ok(renderer) => renderer,
        Err(why) => {
            let started: Started = Err(text(&why));
            greet(&calls, &started)?;
            return Err(ServeError::Renderer { why });
        }
    };
    greet(&calls, &Ok(renderer.capsets()))?;
    Server::new(renderer, scratch).run(&calls, &news)
}

fn greet(calls: &Channel, started: &Started) -> Result<(), ServeError> {
    let mut encoder = Encoder::new();
    let message = encoder.encode(started).map_err(|error| protocol(&error))?;
    let sent = calls.send(message, None);
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
    render_server: Option<OwnedFd>,
    news: &Arc<News>,
) -> Result<RutabagaRenderer, String> {
    let config = RutabagaConfig {
        venus: start.venus,
        render_server: render_server.map(Arc::new),
        ..RutabagaConfig::default()
    };
    let signalled = Arc::new(OnceLock::<SignalledFences>::new());
    let (taken, news) = (signalled.clone(), news.clone());
    let wake = move || {
        if let Some(signalled) = taken.get() {
            news.signalled(&signalled.take());
        }
    };
    let renderer = RutabagaRenderer::on_this_thread(&config, wake);
    let renderer = renderer.map_err(|error| error.to_string())?;
    drop(signalled.set(renderer.signalled()));
    Ok(renderer)
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

    fn run(mut self, socket: &Channel, news: &News) -> Result<(), ServeError>
    where
        R: Idle,
    {
        let mut calls = Calls::new(socket, self.scratch.line(), news);
        loop {
            let request = match calls.next(&mut self.renderer) {
                Ok(request) => request,
                Err(ChannelError::Closed) => return Ok(()),
                Err(error) => return Err(protocol(&error)),
            };
            let file = match request {
                Request::MapRegion { .. } => {
                    let file = calls.file().map_err(|error| protocol(&error))?;
                    Some(file)
                }
                Request::Call { .. } | Request::UnmapRegion { .. } => None,
            };
            let in_flight = matches!(
                request,
                Request::Call {
                    in_flight: true,
                    ..
                }
            );
            let reply = self.handle(request, file);
            let replied = calls.reply(&reply, in_flight);
            replied.map_err(|error| protocol(&error))?;
        }
    }

    /// What the device asks.
    fn handle(&mut self, request: Request, file: Option<OwnedFd>) -> Reply {
        match request {
            Request::Call {
                operation,
                data,
                fence,
                in_flight: _,
            } => self.call(operation, data, fence),
            Request::MapRegion {
                region,
                offset,
                size,
            } => {
                let file = file.ok_or_else(|| refused("a region without its file"))?;
                self.memory.map(region, file, offset, size)?;
                Ok(Answer::Done)
            }
            Request::UnmapRegion { region } => {
                self.unmap(region)?;
                Ok(Answer::Done)
            }
        }
    }

    fn call(&mut self, operation: Operation, data: Placed, fence: Option<Fence>) -> Reply {
        let backing = operation.backing();
        let ended = match backing {
            Some((resource_id, Backing::Ends)) => self.backings.remove(&resource_id),
            _ => None,
        };
        drop(ended);
        let mut pieces = Vec::new();
        let pages;
        let data = match data {
            Placed::None => Data::None,
            Placed::Bytes(range) => Data::Bytes(self.scratch.bytes(range).map_err(outside)?),
            Placed::Room(range) => Data::Room(self.scratch.bytes(range).map_err(outside)?),
            Placed::Stream(range) => Data::Words(words(&mut self.scratch, range)?),
            Placed::Pieces(range) => {
                let bytes = self.scratch.bytes(range).map_err(outside)?;
                let decoded = postcard::from_bytes(bytes);
                pieces = decoded.map_err(|_| refused("a backing that makes no sense"))?;
                pages = self.memory.pages(&pieces)?;
                Data::Pages(&pages)
            }
            Placed::Backing => {
                let pieces = backing.and_then(|(id, _)| self.backings.get(&id));
                pages = self.memory.pages(pieces.map_or(&[], Vec::as_slice))?;
                Data::Pages(&pages)
            }
        };
        let answer = self.renderer.call(operation.with(data).fenced(fence))?;
        if let Some((resource_id, Backing::Begins)) = backing {
            self.backings.insert(resource_id, pieces);
        }
        Ok(answer)
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

fn outside(_: OutsideScratch) -> RendererError {
    refused("a range outside the scratch memory")
}

/// A stream where it is, which nobody writes to until it is answered.
fn words(scratch: &mut Scratch, range: Range) -> Result<&mut [u32], RendererError> {
    let bytes = scratch.bytes(range).map_err(outside)?;
    let length = bytes.len();
    // SAFETY: any bits are a word.
    match unsafe { bytes.align_to_mut() } {
        ([], words, []) => Ok(words),
        (_, _, _) => Err(StreamError::NoDwords { bytes: length }.into()),
    }
}

#[cfg(test)]
mod tests;
