// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The life of one renderer process, as the device sees it.

use std::io::{Error as IoError, PipeReader, pipe};
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use libc::SIGKILL;
use thiserror::Error;
use virtio_gpu_s3::Fence;
use virtio_gpu_s3::renderer::{Answer, CapsetInfo};

use vm_memory::FileOffset;

use super::channel::{Buffer, Channel, ChannelError};
use super::line::{FenceReader, Line, Reader, Writer};
use super::protocol::{
    Encoder, FILE, MAX_FENCES, MessageError, Reply, Request, Signalled, Start, Started, WAKE,
    decode,
};
use super::scratch::{Scratch, ScratchError};
use super::spawner::{Ends, NO_SHADER_FILES, Spawned};
use super::{RendererProgram, SUBCOMMAND, Wake, messages};
use host_util::adaptive_polling::{AdaptivePolling, FOR_RENDERER};

/// Compiling Mesa's first shaders takes most of a second on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Fences that nobody took: more than the queue of any device has room for.
const MAX_SIGNALLED: usize = 1 << 16;

/// A renderer's process that does not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartProcessError {
    /// The program cannot be run.
    #[error("Cannot run '{program}': {why}")]
    Spawn {
        /// Its path.
        program: String,
        /// What the host said.
        why: String,
    },
    /// No socket, memory or thread for it.
    #[error("Cannot talk to the renderer's process: {why}")]
    Channel {
        /// What the host said.
        why: String,
    },
    /// It started, and the renderer did not.
    #[error("The renderer does not start: {why}")]
    Renderer {
        /// What it said.
        why: String,
    },
    /// A renderer that is started again speaks the same command sets, as the guest knows them.
    #[error("The renderer came back with other capsets")]
    OtherCapsets,
    /// It ended too often to be started again.
    #[error("The renderer ended {count} times within {} s", window.as_secs())]
    TooOften {
        /// How often it was started again.
        count: usize,
        /// In which time.
        window: Duration,
    },
}

fn channel_error(error: &impl ToString) -> StartProcessError {
    StartProcessError::Channel {
        why: error.to_string(),
    }
}

impl From<ChannelError> for StartProcessError {
    fn from(error: ChannelError) -> Self {
        channel_error(&error)
    }
}

impl From<ScratchError> for StartProcessError {
    fn from(error: ScratchError) -> Self {
        channel_error(&error)
    }
}

impl From<MessageError> for StartProcessError {
    fn from(error: MessageError) -> Self {
        channel_error(&error)
    }
}

/// A backing's entry has 16 bytes in a request, and its piece 25 at most in a message.
const PIECE_PER_ENTRY: usize = 2;

/// A renderer's process, ended and waited for when this is dropped.
#[derive(Debug)]
pub(super) struct Process {
    calls: Channel,
    requests: Writer,
    replies: Reader,
    /// A reply that came through the socket, before its place in the ring was looked at.
    reply: Option<(Vec<u8>, Option<OwnedFd>)>,
    encoder: Encoder,
    buffer: Buffer,
    polling: AdaptivePolling,
    scratch: Scratch,
    line: Line,
    fences: FenceReader,
    id: u32,
    limit: Duration,
    watch: Arc<Watch>,
    /// Ends when the process does.
    thread: Option<JoinHandle<()>>,
}

/// What the thread that waits for fences finds, and how to end it.
#[derive(Debug)]
struct Watch {
    fences: Channel,
    line: Line,
    /// Requests so far.
    requests: AtomicU32,
    limit: Duration,
    state: Mutex<State>,
    wake: Arc<Wake>,
}

#[derive(Debug, Default)]
struct State {
    signalled: Vec<Fence>,
    /// Why this process ended it.
    blame: Option<String>,
    ended: Option<String>,
    /// Whether its end is news: it had begun, and is still wanted.
    wanted: bool,
}

/// Ends whatever process a renderer has, from another thread: for who cannot wait any longer for the thread that waits
/// for it.
#[derive(Clone, Debug, Default)]
pub struct Breaker(Arc<Mutex<Weak<Watch>>>);

impl Breaker {
    /// Ends the process, which counts as a crash, with `why` as its reason. Nothing happens where there is none.
    pub fn end(&self, why: &str) {
        let watch = self.lock().upgrade();
        if let Some(watch) = watch {
            watch.lock().blame.get_or_insert_with(|| why.into());
            watch.fences.close();
        }
    }

    fn watches(&self, watch: &Arc<Watch>) {
        *self.lock() = Arc::downgrade(watch);
    }

    fn lock(&self) -> MutexGuard<'_, Weak<Watch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A process that leaves no zombie.
enum Reaped {
    Child(Child),
    Spawned(Spawned),
}

impl Reaped {
    fn start(program: &RendererProgram, ends: Ends) -> Result<Self, IoError> {
        if let Some(spawner) = &program.spawner {
            return spawner.spawn(&ends).map(Self::Spawned);
        }
        // Its sockets are where a program's input and output are, so no number has to be agreed on.
        let child = Command::new(&program.path)
            .arg(SUBCOMMAND)
            .args(&program.arguments)
            .stdin(Stdio::from(ends.calls))
            .stdout(Stdio::from(ends.fences))
            .stderr(Stdio::from(ends.prints))
            .env(NO_SHADER_FILES, "true")
            .spawn()?;
        Ok(Self::Child(child))
    }

    fn id(&self) -> u32 {
        match self {
            Self::Child(child) => child.id(),
            Self::Spawned(spawned) => spawned.id(),
        }
    }

    fn end(&mut self) -> Result<ExitStatus, IoError> {
        match self {
            Self::Child(child) => {
                // One that has ended stays as it ended.
                drop(child.kill());
                child.wait()
            }
            Self::Spawned(spawned) => spawned.end(),
        }
    }
}

impl Drop for Reaped {
    fn drop(&mut self) {
        drop(self.end());
    }
}

impl Process {
    /// Starts `program`, and waits until its renderer speaks.
    pub(super) fn start(
        program: &RendererProgram,
        wake: &Arc<Wake>,
        breaker: &Breaker,
    ) -> Result<(Self, Vec<CapsetInfo>), StartProcessError> {
        let (calls, their_calls) = Channel::pair()?;
        let (fences, their_fences) = Channel::pair()?;
        let room = program.max_request.saturating_mul(PIECE_PER_ENTRY);
        let (scratch, their_scratch) = Scratch::new(room)?;
        scratch.line().want_news(true);
        let (printed, prints) = pipe().map_err(|error| channel_error(&error))?;
        let ends = Ends {
            calls: their_calls,
            fences: their_fences,
            prints: prints.into(),
        };
        let child = Reaped::start(program, ends).map_err(|error| StartProcessError::Spawn {
            program: program.path.display().to_string(),
            why: error.to_string(),
        })?;
        let watch = Arc::new(Watch {
            fences,
            line: scratch.line(),
            requests: AtomicU32::new(0),
            limit: program.call_limit,
            state: Mutex::default(),
            wake: wake.clone(),
        });
        breaker.watches(&watch);
        let mut process = Self::watched(child, printed, calls, scratch, watch)?;
        let capsets = process.greet(their_scratch, program)?;
        Ok((process, capsets))
    }

    fn watched(
        child: Reaped,
        printed: PipeReader,
        calls: Channel,
        scratch: Scratch,
        watch: Arc<Watch>,
    ) -> Result<Self, StartProcessError> {
        let id = child.id();
        watch.fences.limit(watch.limit)?;
        let watching = watch.clone();
        let line = scratch.line();
        let (requests, replies) = line.device();
        let mut process = Self {
            calls,
            requests,
            replies,
            reply: None,
            encoder: Encoder::new(),
            buffer: Buffer::new(),
            polling: AdaptivePolling::default(),
            fences: FenceReader::new(line.clone()),
            line,
            scratch,
            id,
            limit: watch.limit,
            watch,
            thread: None,
        };
        process.thread = Some(spawn("renderer-fences", move || watching.run(child))?);
        // Nobody waits for this one, as a helper that the renderer started may print on.
        drop(spawn("renderer-log", move || messages::log(printed))?);
        Ok(process)
    }

    fn greet(
        &mut self,
        their_scratch: OwnedFd,
        program: &RendererProgram,
    ) -> Result<Vec<CapsetInfo>, StartProcessError> {
        self.calls.limit(START_LIMIT)?;
        let start = self.encoder.encode(&Start {
            scratch: self.scratch.length() as u64,
            venus: program.venus,
        })?;
        let sent = self.calls.send(start, Some(their_scratch.as_fd()));
        drop(their_scratch);
        let answer = sent.and_then(|()| self.calls.receive(&mut self.buffer));
        let capsets = match answer {
            Ok(message) => {
                let started: Started = decode(message)?;
                started.map_err(|why| StartProcessError::Renderer { why })?
            }
            Err(error) => {
                let why = self.end(&error);
                return Err(StartProcessError::Renderer { why });
            }
        };
        self.calls.limit(program.call_limit)?;
        let mut state = self.watch.lock();
        state.wanted = true;
        match state.ended.clone() {
            Some(why) => Err(StartProcessError::Renderer { why }),
            None => Ok(capsets),
        }
    }

    /// Sends a request.
    pub(super) fn send(
        &mut self,
        request: &Request,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<(), ChannelError> {
        if fd.is_some() {
            self.calls.send(&FILE, fd)?;
        }
        let wakes = self.requests.put(self.encoder.encode(request)?)?;
        self.watch.requests.fetch_add(1, Ordering::Relaxed);
        if wakes {
            self.calls.send(&WAKE, None)?;
        }
        Ok(())
    }

    /// Waits for the next reply.
    pub(super) fn receive(&mut self) -> Result<Reply, ChannelError> {
        let replies = &self.replies;
        let looked = self.polling.look(FOR_RENDERER, || replies.has_news());
        let start = Instant::now();
        while !looked && self.replies.sleep() {
            if start.elapsed() > self.limit {
                return Err(ChannelError::TimedOut);
            }
            let received = self.receive_from_socket();
            self.replies.wake();
            received?;
        }
        self.polling.found();
        self.take()?.ok_or(MessageError::Decode.into())
    }

    /// The next reply, if it is there.
    pub(super) fn take(&mut self) -> Result<Option<Reply>, ChannelError> {
        if !self.replies.has_news() {
            return Ok(None);
        }
        let replies = &mut self.replies;
        let message = self.buffer.fill(|room| replies.take(room))?;
        if !message.is_empty() {
            return Ok(Some(decode(message)?));
        }
        let start = Instant::now();
        while self.reply.is_none() {
            if start.elapsed() > self.limit {
                return Err(ChannelError::TimedOut);
            }
            self.receive_from_socket()?;
        }
        let (message, file) = self.reply.take().ok_or(MessageError::Decode)?;
        let mut reply: Reply = decode(&message)?;
        if let Ok(Answer::Mapped(mapping)) = &mut reply {
            mapping.file = file.map(|file| FileOffset::new(file.into(), 0));
        }
        Ok(Some(reply))
    }

    /// What comes through the socket: a word that there is something in the ring, or a reply that has no room there.
    fn receive_from_socket(&mut self) -> Result<(), ChannelError> {
        let (message, file) = self.calls.receive_with_fd(&mut self.buffer)?;
        if message == WAKE {
            return Ok(());
        }
        // Nobody waits for the one before any more: it cannot be.
        match self.reply.replace((message.to_vec(), file)) {
            None => Ok(()),
            Some(_) => Err(MessageError::Decode.into()),
        }
    }

    pub(super) fn id(&self) -> u32 {
        self.id
    }

    pub(super) fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Fences that signalled since the last call.
    pub(super) fn take_signalled(&mut self) -> Result<Vec<Fence>, ChannelError> {
        let mut signalled = mem::take(&mut self.watch.lock().signalled);
        self.fences.take(&mut signalled)?;
        Ok(signalled)
    }

    /// Whether fences and replies are told of, once, or only looked for.
    pub(super) fn want_wakes(&self, wanted: bool) {
        self.line.want_news(wanted);
    }

    /// Why it ended, if it did.
    pub(super) fn ended(&self) -> Option<String> {
        self.watch.lock().ended.clone()
    }

    /// Ends it after `error`, where that was not its end already. Returns why it ended.
    pub(super) fn end(&mut self, error: &ChannelError) -> String {
        if !matches!(error, ChannelError::Closed) {
            self.watch.lock().blame = Some(error.to_string());
        }
        self.close();
        self.ended().unwrap_or_default()
    }

    fn close(&mut self) {
        self.watch.fences.close();
        self.calls.close();
        if let Some(thread) = self.thread.take() {
            // It does not panic, and has nothing to say if it does.
            drop(thread.join());
        }
    }
}

fn spawn(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, StartProcessError> {
    let thread = Builder::new().name(name.into()).spawn(body);
    thread.map_err(|error| channel_error(&error))
}

impl Drop for Process {
    fn drop(&mut self) {
        self.watch.lock().wanted = false;
        self.close();
    }
}

impl Watch {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut child: Reaped) {
        let broken = self.watch_until_broken();
        let status = child.end();
        let mut state = self.lock();
        let blame = broken.or_else(|| state.blame.take());
        state.ended = Some(match (status, blame) {
            (Ok(status), blame) if status.signal() != Some(SIGKILL) || blame.is_none() => {
                format!("the renderer's process ended: {status}")
            }
            (_, blame) => {
                let blame = blame.unwrap_or_else(|| "it cannot be waited for".into());
                format!("the renderer's process was ended: {blame}")
            }
        });
        let news = state.wanted;
        drop(state);
        if news {
            (self.wake.0)();
        }
    }

    /// Why, where it was not the process's own end.
    fn watch_until_broken(&self) -> Option<String> {
        let mut buffer = Buffer::new();
        let (mut unanswered, mut looked) = (None, Instant::now());
        loop {
            match self.fences.receive(&mut buffer) {
                Ok(message) => {
                    if let Err(error) = self.signal(message) {
                        return Some(error.to_string());
                    }
                }
                Err(ChannelError::TimedOut) => {}
                Err(ChannelError::Closed) => return None,
                Err(error) => return Some(error.to_string()),
            }
            if looked.elapsed() < self.limit {
                continue;
            }
            // Nobody may be waiting for the replies to calls in flight.
            let replies = self.line.replies();
            let before = unanswered.take();
            if replies != self.requests.load(Ordering::Relaxed) {
                if before == Some(replies) {
                    return Some(ChannelError::TimedOut.to_string());
                }
                unanswered = Some(replies);
            }
            looked = Instant::now();
        }
    }

    fn signal(&self, message: &[u8]) -> Result<(), MessageError> {
        let fences: Signalled = decode(message)?;
        let mut state = self.lock();
        if fences.len() > MAX_FENCES || state.signalled.len() > MAX_SIGNALLED {
            return Err(MessageError::Decode);
        }
        state.signalled.extend(fences);
        drop(state);
        (self.wake.0)();
        Ok(())
    }
}
