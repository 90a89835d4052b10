// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The thread that rutabaga lives on, its own or its caller's, and how it is made to do things.

use std::ffi::CStr;
use std::io::{Error as IoError, PipeReader, PipeWriter, pipe};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::{Builder, JoinHandle};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, dup};
use rustix::stdio::{dup2_stderr, stderr};
use rutabaga_gfx::{
    RUTABAGA_CAPSET_VENUS, RUTABAGA_CAPSET_VIRGL, RUTABAGA_CAPSET_VIRGL2, Rutabaga,
    RutabagaBuilder, RutabagaDescriptor, RutabagaHandler,
};

use super::caller::{Caller, Queries};
use super::engine::Engine;
use super::fences::FenceTable;
use super::panics::message_of;
use super::start::{RutabagaConfig, StartError};
use virtio_gpu_s3::renderer::{CapsetInfo, RendererError};

/// Something to do on the thread.
type Job = Box<dyn FnOnce(&mut Engine) + Send>;

enum Message {
    Do(Job),
    End,
}

/// virglrenderer cannot be initialised twice, and rutabaga would silently come up without it.
static STARTED: AtomicBool = AtomicBool::new(false);

/// What libepoxy loads by name, and ends the process without.
const EGL: &CStr = c"libEGL.so.1";
const DESKTOP_GL: &CStr = c"libGL.so.1";
const GLES: &CStr = c"libGLESv2.so.2";

/// Where rutabaga lives: ended, and waited for, when this is dropped.
pub(super) struct Thread {
    place: Place,
    fences: Arc<FenceTable>,
    /// Why it ended, where it did by itself.
    failure: Arc<OnceLock<String>>,
    /// Readable when there are results of queries to fetch.
    descriptor: RutabagaDescriptor,
    watcher: Option<Watcher>,
}

enum Place {
    Own {
        jobs: Sender<Message>,
        thread: Option<JoinHandle<()>>,
    },
    Caller(Caller),
}

/// The thread that waits for results of queries.
struct Watcher {
    thread: Option<JoinHandle<()>>,
    queries: Arc<Queries>,
    /// The thread ends with it.
    until: Option<PipeWriter>,
}

impl Thread {
    /// Starts a thread for it.
    pub(super) fn start(
        config: &RutabagaConfig,
        fences: Arc<FenceTable>,
    ) -> Result<(Self, Vec<CapsetInfo>), StartError> {
        claim(config)?;
        let (jobs, receiver) = channel();
        let (reply, answer) = sync_channel(1);
        let config = config.clone();
        let failure = Arc::new(OnceLock::new());
        let (failed, table) = (Arc::clone(&failure), Arc::clone(&fences));
        let renderer = spawn("virgl", move || {
            run(&config, &table, &receiver, &reply, &failed);
        })?;
        let ended = StartError::NotVirgl;
        let (capsets, descriptor) = answer.recv().map_err(|_| ended)??;
        let mut thread = Self {
            place: Place::Own {
                jobs,
                thread: Some(renderer),
            },
            fences,
            failure,
            descriptor,
            watcher: None,
        };
        thread.watch()?;
        Ok((thread, capsets))
    }

    /// Has it live on this thread. Nobody fetches results of queries until [`watch`](Self::watch),
    /// or the caller does.
    pub(super) fn adopt(
        config: &RutabagaConfig,
        fences: Arc<FenceTable>,
    ) -> Result<(Self, Vec<CapsetInfo>), StartError> {
        claim(config)?;
        let (engine, (capsets, descriptor)) = make(config, &fences)?;
        let thread = Self {
            place: Place::Caller(Caller::new(engine)),
            fences,
            failure: Arc::new(OnceLock::new()),
            descriptor,
            watcher: None,
        };
        Ok((thread, capsets))
    }

    /// Has results of queries fetched as soon as there are any: by rutabaga's own thread, or by the
    /// caller, who is told to look for fences then.
    pub(super) fn watch(&mut self) -> Result<(), StartError> {
        let (ends, until) = pipe().map_err(|error| thread_error(&error))?;
        let descriptor = self.descriptor.try_clone();
        let descriptor = descriptor.map_err(|error| thread_error(&error))?;
        let queries = Arc::new(Queries::default());
        let thread = match &self.place {
            Place::Own { jobs, .. } => {
                let jobs = jobs.clone();
                let fetch = move || have_fetched(&jobs);
                spawn("virgl-queries", move || watch(&descriptor, &ends, fetch))?
            }
            Place::Caller(_) => {
                let (queries, fences) = (Arc::clone(&queries), Arc::clone(&self.fences));
                let fetch = move || queries.wait_until_fetched(|| fences.wake());
                spawn("virgl-queries", move || watch(&descriptor, &ends, fetch))?
            }
        };
        self.watcher = Some(Watcher {
            thread: Some(thread),
            queries,
            until: Some(until),
        });
        Ok(())
    }

    /// Readable when there are results of queries to fetch.
    pub(super) fn descriptor(&self) -> &RutabagaDescriptor {
        &self.descriptor
    }

    /// Fetches results of queries, where that is left to the caller's thread and they wait.
    pub(super) fn fetch_queries(&self) {
        let Some(Watcher { queries, .. }) = &self.watcher else {
            return;
        };
        if queries.are_due() {
            // Where the engine is gone nothing waits for them.
            drop(self.call(|engine| {
                engine.poll();
                Ok(())
            }));
            queries.fetched();
        }
    }

    /// Has `job` done and waits for what comes of it.
    pub(super) fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Engine) -> Result<T, RendererError> + Send,
    ) -> Result<T, RendererError> {
        match &self.place {
            Place::Own { jobs, .. } => call_other(jobs, job),
            Place::Caller(caller) => caller.call(job, |why| self.fail(why)).flatten(),
        }
    }

    /// Has `job` done some time, after everything before it.
    pub(super) fn post(
        &self,
        job: impl FnOnce(&mut Engine) + Send + 'static,
    ) -> Result<(), RendererError> {
        match &self.place {
            Place::Own { jobs, .. } => {
                let sent = jobs.send(Message::Do(Box::new(job)));
                sent.map_err(|_| RendererError::Gone)
            }
            Place::Caller(caller) => caller.call(job, |why| self.fail(why)),
        }
    }

    /// Why it ended, which it does by itself only where it panicked.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    fn fail(&self, why: String) {
        // Set once, as nothing is called after it.
        drop(self.failure.set(why));
        self.fences.wake();
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if let Place::Own { jobs, thread } = &mut self.place {
            // Where it is gone already there is nothing left to end.
            drop(jobs.send(Message::End));
            if let Some(thread) = thread.take() {
                drop(thread.join());
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.queries.end();
        drop(self.until.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// What is needed is there, and nobody in this process had a renderer.
fn claim(config: &RutabagaConfig) -> Result<(), StartError> {
    for library in [EGL, if config.gles { GLES } else { DESKTOP_GL }] {
        if !virglrenderer_compat::is_loadable(library) {
            let name = library.to_string_lossy().into_owned();
            return Err(StartError::NoLibrary { name });
        }
    }
    if STARTED.swap(true, Ordering::AcqRel) {
        return Err(StartError::AlreadyStarted);
    }
    Ok(())
}

/// Has `job` done on another thread and waits for what comes of it.
fn call_other<T: Send + 'static>(
    jobs: &Sender<Message>,
    job: impl FnOnce(&mut Engine) -> Result<T, RendererError> + Send,
) -> Result<T, RendererError> {
    let (reply, answer) = sync_channel(1);
    let job: Box<dyn FnOnce(&mut Engine) + Send + '_> = Box::new(move |engine| {
        // The caller waits below.
        drop(reply.send(job(engine)));
    });
    // SAFETY: only the lifetime changes. What the job borrows outlives this function, which
    // does not return before `answer` has or can have no value: the job has then run, or was
    // dropped with `reply` in it, and touches nothing it borrowed any more.
    let job: Job = unsafe { mem::transmute(job) };
    if jobs.send(Message::Do(job)).is_err() {
        return Err(RendererError::Gone);
    }
    answer.recv().unwrap_or(Err(RendererError::Gone))
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StartError> {
    let started = Builder::new().name(name.to_owned()).spawn(body);
    started.map_err(|error| thread_error(&error))
}

fn thread_error(error: &IoError) -> StartError {
    StartError::Thread {
        why: error.to_string(),
    }
}

type Started = (Vec<CapsetInfo>, RutabagaDescriptor);

fn run(
    config: &RutabagaConfig,
    fences: &Arc<FenceTable>,
    jobs: &Receiver<Message>,
    reply: &SyncSender<Result<Started, StartError>>,
    failure: &OnceLock<String>,
) {
    let mut engine = match make(config, fences) {
        Ok((engine, started)) => {
            drop(reply.send(Ok(started)));
            engine
        }
        Err(error) => return drop(reply.send(Err(error))),
    };
    while let Ok(Message::Do(job)) = jobs.recv() {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| job(&mut engine))) {
            // Half a call may have been made, so none can follow, not even those that end things.
            mem::forget(engine);
            // Set once, as this is the thread's end.
            drop(failure.set(message_of(panic.as_ref())));
            return fences.wake();
        }
    }
    engine.finish();
}

/// rutabaga, and what is to be known of it.
fn make(
    config: &RutabagaConfig,
    fences: &Arc<FenceTable>,
) -> Result<(Engine, Started), StartError> {
    let rutabaga = build(config, fences)?;
    let descriptor = rutabaga.poll_descriptor().ok_or(StartError::NotVirgl)?;
    let engine = Engine::new(rutabaga, Arc::clone(fences));
    let capsets = engine.capsets();
    // rutabaga falls back to 2D without a word where virglrenderer fails.
    if capsets.is_empty() {
        return Err(StartError::NotVirgl);
    }
    if config.venus && !engine.has_venus() {
        return Err(StartError::NotVenus);
    }
    Ok((engine, (capsets, descriptor)))
}

/// The capset mask is always given: without one rutabaga offers capsets that it did not
/// initialise.
fn build(config: &RutabagaConfig, fences: &Arc<FenceTable>) -> Result<Rutabaga, StartError> {
    // Linked where the library lacks them.
    drop(virglrenderer_compat::missing());
    let fences = Arc::clone(fences);
    let handler = RutabagaHandler::new(move |fence| fences.signal(&fence));
    let venus = u64::from(config.venus) << RUTABAGA_CAPSET_VENUS;
    let mask = (1 << RUTABAGA_CAPSET_VIRGL) | (1 << RUTABAGA_CAPSET_VIRGL2) | venus;
    let server = config.render_server.as_ref();
    let server = server.and_then(|server| server.try_clone().ok());
    let server = server.map(RutabagaDescriptor::from);
    let builder = RutabagaBuilder::new(mask, handler)
        .set_use_egl(true)
        .set_use_surfaceless(true)
        .set_use_gles(config.gles)
        .set_use_render_server(config.venus)
        .set_server_descriptor(server);
    // Debug builds of rutabaga make standard error a copy of standard output.
    let own_stderr = dup(stderr());
    let built = builder.build();
    if let Ok(own_stderr) = own_stderr {
        // Where it cannot be, messages go to standard output.
        let _ = dup2_stderr(own_stderr);
    }
    built.map_err(|error| StartError::Build {
        why: error.to_string(),
    })
}

/// virglrenderer signals no fence while results of queries are due, and those it fetches only when
/// it is polled, on its own thread.
fn watch(descriptor: &RutabagaDescriptor, ends: &PipeReader, mut fetch: impl FnMut() -> bool) {
    loop {
        let mut fds = [
            PollFd::new(descriptor, PollFlags::IN),
            PollFd::new(ends, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
        let [queries, end] = fds.map(|fd| fd.revents());
        if !end.is_empty() || !queries.is_empty() && !fetch() {
            return;
        }
    }
}

/// Has rutabaga's own thread fetch results of queries. False where it is gone.
fn have_fetched(jobs: &Sender<Message>) -> bool {
    let (reply, done) = sync_channel(1);
    let job: Job = Box::new(move |engine| {
        engine.poll();
        // Who polls waits below.
        let _ = reply.send(());
    });
    jobs.send(Message::Do(job)).is_ok() && done.recv().is_ok()
}
