// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A front end's hand on the worker: one way to ask, one way to wait.

use std::fmt::{Debug, Formatter, Result as FmtResult};
use std::io::Error as IoError;
use std::ops::Deref;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use host_util::log_source::GUEST;
use thiserror::Error;
use virtio_gpu_s3::Gpu;
use virtio_gpu_s3::saved_state::{SaveError, SavedGpu};
use virtio_pci_freeze::{FreezeTicket, QueueSetup, ResetKind};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic};

use crate::answer::{Answered, wait};
use crate::command::{Activation, Command, Done, GpuAccess, Job, MemoryFollowed, Reply, Told};
#[cfg(any(test, feature = "test-utils"))]
use crate::driven::DrivenWorker;
use crate::events::{Event, EventLog};
use crate::frontend::Frontend;
use crate::gate::Gate;
use crate::mailbox::{Inbox, Mailbox};
use crate::session::Executor;
use crate::status::WorkerStatus;
use crate::worker::Worker;

/// How long a VMM that waits for the device may wait for a renderer. QEMU gives a device up after 5 s.
pub const VMM_PATIENCE: Duration = Duration::from_secs(1);

/// A way to the worker: everything that can be asked without waiting, from any thread.
pub struct WorkerLink<F: Frontend> {
    mailbox: Mailbox<F>,
    gate: Arc<Gate>,
    breaker: Arc<OnceLock<Breaker>>,
}

/// Ends a renderer that keeps the worker waiting.
type Breaker = Box<dyn Fn(&str) + Send + Sync>;

impl<F: Frontend> Debug for WorkerLink<F> {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        f.debug_struct("WorkerLink")
            .field("gate", &self.gate)
            .finish_non_exhaustive()
    }
}

impl<F: Frontend> Clone for WorkerLink<F> {
    fn clone(&self) -> Self {
        Self {
            mailbox: self.mailbox.clone(),
            gate: Arc::clone(&self.gate),
            breaker: Arc::clone(&self.breaker),
        }
    }
}

impl<F: Frontend> WorkerLink<F> {
    /// A renderer that can be ended from any thread is ended so, with the reason, where a VMM would wait for it for longer
    /// than [`VMM_PATIENCE`]. The first one that is told of stays.
    pub fn break_with(&self, breaker: impl Fn(&str) + Send + Sync + 'static) {
        let _ = self.breaker.set(Box::new(breaker));
    }

    fn break_renderer(&self) {
        if let Some(end) = self.breaker.get() {
            end("a VMM waited for it");
        }
    }

    /// The renderer has something to give.
    pub fn wake(&self) {
        self.mailbox.tell_of_renderer();
    }

    /// The driver set DRIVER_OK. Nothing is served before [`serve`](Self::serve).
    pub fn activate(&self, activation: Activation<F::Memory>) {
        self.mailbox.post(Command::Activate(Box::new(activation)));
    }

    /// Lets the worker serve the driver, and makes up for every doorbell that it missed.
    pub fn serve(&self) {
        self.gate.open();
        self.mailbox.ring(u64::MAX);
    }

    /// These queues' doorbells rang, as a mask.
    pub fn ring(&self, queues: u64) {
        self.mailbox.ring(queues);
    }

    /// Applies a reset; [`Frontend::reset_done`] tells when it is done. No buffer is taken from now on.
    pub fn reset(&self, kind: ResetKind, ticket: F::Ticket) {
        self.gate.end();
        let asked = Instant::now();
        self.mailbox.post(Command::Reset {
            kind,
            ticket,
            asked,
        });
    }

    /// Drops the state that was retained: nobody is left to ask for it.
    pub fn discard(&self) {
        self.mailbox.post(Command::Discard);
    }

    /// Guest memory is another kernel's, or may be: what the driver set up there, and what it was owed, is touched no more.
    pub fn disown(&self) {
        self.mailbox.post(Command::Disown);
    }

    /// The guest froze the device (`Some`), or ended that. [`Frontend::complete`] tells when the newest freeze is honoured
    /// or refused.
    pub fn freeze(&self, ticket: Option<FreezeTicket>) {
        self.mailbox.post_freeze(ticket);
    }

    /// The driver suspends the device (VIRTIO 1.4 §3.4.2).
    pub fn suspend(&self) {
        self.mailbox.post(Command::Suspend);
    }

    /// It ends that.
    pub fn resume(&self) {
        self.mailbox.post(Command::Resume);
    }

    /// The driver enabled a queue on a running device.
    pub fn start_queue(&self, setup: QueueSetup) {
        self.mailbox.post(Command::StartQueue(setup));
    }

    /// The driver reset a queue (VIRTIO 1.4 §2.6.1).
    pub fn reset_queue(&self, queue: u16) {
        self.mailbox.post(Command::ResetQueue(queue));
    }

    /// The driver wrote to the device configuration.
    pub fn write_config(&self, offset: u16, bytes: &[u8]) {
        let bits = Gpu::events_clear(offset.into(), bytes);
        if bits != 0 {
            self.mailbox.post_events_clear(bits);
        }
    }

    /// Has something told among the events, where the worker is now.
    pub fn tell(&self, told: Told) {
        self.mailbox.post(Command::Tell(told));
    }

    /// Has something done that takes the GPU itself.
    pub fn run(&self, job: Job) {
        self.mailbox.post(Command::Job(job));
    }

    /// Whether the worker may serve.
    pub fn is_serving(&self) -> bool {
        self.gate.may_take()
    }

    /// Has the worker serve no more, after the buffer that it is at; [`WorkerHandle::stop`] waits for that.
    pub fn shut(&self) {
        self.gate.shut();
    }
}

/// The worker, as front ends have it. Dropping it has the worker end.
pub struct WorkerHandle<F: Frontend> {
    link: WorkerLink<F>,
    events: Arc<EventLog>,
    runs: Mutex<Option<Runs>>,
}

/// Where the worker runs, until it has ended.
enum Runs {
    On(JoinHandle<()>),
    /// On the thread of whoever waits for it, who calls this meanwhile.
    #[cfg(any(test, feature = "test-utils"))]
    Here(Driver),
}

/// Has a worker without a thread do something, and lets the rest of a test's world go on.
pub type Driver = Arc<dyn Fn() + Send + Sync>;

impl<F: Frontend> WorkerHandle<F> {
    /// Starts a worker on a thread that `spawn` makes. Everything of the device is made there by `make`, as a renderer may
    /// be usable on the thread only that made it: the GPU, the longest request that it needs to see, and the front end,
    /// which is returned too.
    ///
    /// # Errors
    /// What `make` says; or with `failed`, that the thread could not be made, or ended before the device was there.
    pub fn start<E: Send + 'static>(
        make: impl FnOnce(&WorkerLink<F>) -> Result<(Gpu, usize, Arc<F>), E> + Send + 'static,
        spawn: impl FnOnce(Box<dyn FnOnce() + Send>) -> Result<JoinHandle<()>, IoError>,
        failed: impl Fn(StartFailure) -> E,
    ) -> Result<(Self, Arc<F>), E> {
        let made = Inbox::new().map_err(|error| failed(StartFailure::Thread(error)))?;
        let (mailbox, inbox) = made;
        let gate = Arc::new(Gate::default());
        let events = Arc::new(EventLog::default());
        let (reply, started) = sync_channel(1);
        let link = WorkerLink {
            mailbox,
            gate,
            breaker: Arc::default(),
        };
        let (theirs, log) = (link.clone(), Arc::clone(&events));
        let body = move || {
            let (told, run) = match make(&theirs) {
                Ok((gpu, max_request, front)) => {
                    let executor = Executor::new(gpu, max_request);
                    (Ok(Arc::clone(&front)), Some((executor, front)))
                }
                Err(error) => (Err(error), None),
            };
            if let Some((executor, front)) = reply.send(told).ok().and(run) {
                let clock = Box::new(Instant::now);
                Worker::new(executor, front, theirs.gate, log, inbox, clock).run();
            }
        };
        let thread = spawn(Box::new(body)).map_err(|error| failed(StartFailure::Thread(error)))?;
        let handle = Self {
            link,
            events,
            runs: Mutex::new(Some(Runs::On(thread))),
        };
        // Where it fails the handle is dropped, and nothing is left.
        let front = started.recv().map_err(|_| failed(StartFailure::Ended))??;
        Ok((handle, front))
    }

    /// The same without a thread: the worker works when `driver`, which is called by whoever waits for it, has it do so.
    /// It has the time from `clock`.
    ///
    /// # Errors
    /// What `make` says; or with `failed`, that the system has no file descriptors left.
    #[cfg(any(test, feature = "test-utils"))]
    pub fn start_driven<E>(
        make: impl FnOnce(&WorkerLink<F>) -> Result<(Gpu, usize, Arc<F>), E>,
        clock: impl Fn() -> Instant + Send + 'static,
        driver: impl FnOnce(DrivenWorker<F>) -> Driver,
        failed: impl Fn(StartFailure) -> E,
    ) -> Result<(Self, Arc<F>), E> {
        let made = Inbox::new().map_err(|error| failed(StartFailure::Thread(error)))?;
        let (mailbox, inbox) = made;
        let gate = Arc::new(Gate::default());
        let events = Arc::new(EventLog::default());
        let link = WorkerLink {
            mailbox,
            gate,
            breaker: Arc::default(),
        };
        let (gpu, max_request, front) = make(&link)?;
        let executor = Executor::new(gpu, max_request);
        let (gate, log, clock) = (Arc::clone(&link.gate), Arc::clone(&events), Box::new(clock));
        let worker = Worker::new(executor, Arc::clone(&front), gate, log, inbox, clock);
        let driver = driver(DrivenWorker::new(worker));
        let handle = Self {
            link,
            events,
            runs: Mutex::new(Some(Runs::Here(driver))),
        };
        Ok((handle, front))
    }

    /// Whether its thread is gone.
    pub fn is_finished(&self) -> bool {
        match &*self.runs() {
            Some(Runs::On(thread)) => thread.is_finished(),
            #[cfg(any(test, feature = "test-utils"))]
            Some(Runs::Here(_)) => false,
            None => true,
        }
    }

    fn runs(&self) -> MutexGuard<'_, Option<Runs>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a worker without a thread work until `done`. One that has a thread does so by itself.
    pub fn lend_until(&self, mut done: impl FnMut() -> bool) {
        if let Some(driver) = self.driver() {
            while !done() {
                driver();
            }
        }
    }

    fn driver(&self) -> Option<Driver> {
        match self.runs().as_ref()? {
            Runs::On(_) => None,
            #[cfg(any(test, feature = "test-utils"))]
            Runs::Here(driver) => Some(Arc::clone(driver)),
        }
    }

    /// An answer that a worker without a thread gives.
    fn lend_for<T>(&self, answer: &Receiver<T>) -> Option<T> {
        let mut got = None;
        self.lend_until(|| match answer.try_recv() {
            Err(TryRecvError::Empty) => false,
            given => {
                got = given.ok();
                true
            }
        });
        got
    }

    /// Waits for what the worker sends. `None` if it is gone, and with it who would have sent it.
    pub fn wait_for<T>(&self, answer: &Receiver<T>) -> Option<T> {
        self.lend_for(answer).or_else(|| answer.recv().ok())
    }

    /// Has the worker end, and waits for that. Everything that is asked afterwards has no answer.
    pub fn end(&self) {
        self.link.mailbox.end();
        if let Some(Runs::On(thread)) = self.runs().take()
            && thread.join().is_err()
        {
            GUEST.warn(format_args!("The device's thread panicked"));
        }
    }

    /// Has the worker read what is shown and answer what waits for somebody outside, if it gets to it within [`VMM_PATIENCE`],
    /// and then stops it as [`stop`](Self::stop) does: the guest took memory away from the device (BusMaster off, D3hot). Until
    /// the worker is let in again that memory may change hands, so that it then looks whether it finds there what it left.
    pub fn rest(&self) {
        let start = Instant::now();
        if self.is_serving() {
            // Nothing is taken that would wait again.
            self.link.gate.end();
            let (reply, done) = sync_channel(1);
            self.link.mailbox.post(Command::LookBeforeSleep(reply));
            let late = || done.recv_timeout(VMM_PATIENCE) == Err(RecvTimeoutError::Timeout);
            if self.lend_for(&done).is_none() && late() {
                GUEST.warn(format_args!(
                    "What the device shows was not read before a sleep: the renderer is busy"
                ));
            }
        }
        self.link.gate.shut_by_guest();
        self.wait_until_left(start);
    }

    /// Stops the worker from touching guest memory. When this returns it does not, until [`serve`](WorkerLink::serve). There is
    /// no giving up: what happened to memory after a wait that did may happen under the worker. So a renderer that the worker
    /// still waits for after [`VMM_PATIENCE`] is ended.
    pub fn stop(&self) {
        self.stop_by(Instant::now());
    }

    fn stop_by(&self, start: Instant) {
        self.link.shut();
        self.wait_until_left(start);
    }

    fn wait_until_left(&self, start: Instant) {
        let mut left = VMM_PATIENCE.saturating_sub(start.elapsed());
        while !self.link.gate.wait_until_left(left) && !self.is_finished() {
            let waited = start.elapsed();
            GUEST.warn(format_args!(
                "The device still works for its guest, {waited:?} after it was to stop"
            ));
            self.link.break_renderer();
            left = VMM_PATIENCE;
        }
    }

    /// Waits until `done` says that something came to be within the time that it is given. A worker that does not even
    /// look at what it is asked meanwhile waits for its renderer, which is then ended.
    pub fn wait_until(&self, what: &str, mut done: impl FnMut(Duration) -> bool) {
        let start = Instant::now();
        self.lend_until(|| done(Duration::ZERO));
        if done(Duration::ZERO) {
            return;
        }
        while !self.is_finished() {
            let (reply, looked) = sync_channel(1);
            let tell = tell(reply);
            let look = Box::new(move |_: &mut dyn GpuAccess| tell());
            self.link.mailbox.post(Command::Job(look));
            if done(VMM_PATIENCE) {
                return;
            }
            let waited = start.elapsed();
            GUEST.warn(format_args!("The device still {what}, after {waited:?}"));
            if looked.try_recv().is_err() {
                self.link.break_renderer();
            }
        }
    }

    /// Answers every command that was taken, within a bounded time, and says whether that was reached. With `shut` the
    /// worker then touches no guest memory until [`serve`](WorkerLink::serve).
    ///
    /// # Errors
    /// No answer came.
    pub fn settle(&self, shut: bool) -> Answered<bool> {
        self.ask(|reply| Command::Settle { shut, reply })
    }

    /// The VMM replaced guest memory in place. When this returns the old mappings are used no more.
    ///
    /// # Errors
    /// No answer came: what was unmapped must stay mapped in this process.
    pub fn memory_changed(&self) -> Answered<()> {
        let (reply, answer) = sync_channel(1);
        self.link.mailbox.post_memory(MemoryFollowed {
            first: 0,
            last: u64::MAX,
            old: None,
            done: tell(reply),
        });
        wait(&answer)
    }

    /// Puts `new` in the place of what is in `memory`, from which it differs from one guest address to another at most, both
    /// included, and has `done` called when the old mappings are used no more, and are gone. It waits for nobody.
    pub fn replace_memory(
        &self,
        memory: &GuestMemoryAtomic<F::Memory>,
        new: F::Memory,
        (first, last): (u64, u64),
        done: Done,
    ) {
        let old = Some(memory.memory());
        let guard = memory.lock().unwrap_or_else(PoisonError::into_inner);
        guard.replace(new);
        self.link.mailbox.post_memory(MemoryFollowed {
            first,
            last,
            old,
            done,
        });
    }

    /// The same for a `new` that has more than there was: nothing goes, and there is mostly nothing to wait for.
    pub fn add_memory(
        &self,
        memory: &GuestMemoryAtomic<F::Memory>,
        new: F::Memory,
        range: (u64, u64),
        done: Done,
    ) {
        let guard = memory.lock().unwrap_or_else(PoisonError::into_inner);
        guard.replace(new);
        if self.link.mailbox.misses_memory() {
            let (first, last) = range;
            self.link.mailbox.post_memory(MemoryFollowed {
                first,
                last,
                old: None,
                done,
            });
        } else {
            done();
        }
    }

    /// What the worker is doing.
    ///
    /// # Errors
    /// No answer came.
    pub fn status(&self) -> Answered<WorkerStatus> {
        self.ask(Command::Status)
    }

    /// The GPU's state. It must have come to rest.
    ///
    /// # Errors
    /// No answer came.
    pub fn save(&self) -> Answered<Result<SavedGpu, SaveError>> {
        self.with_gpu(|gpu| gpu.save())
    }

    /// Events from now on.
    pub fn subscribe(&self) -> Receiver<Event> {
        self.events.subscribe()
    }

    /// Ends every subscription.
    pub fn end_subscriptions(&self) {
        self.events.close();
    }

    /// Has something done that takes the GPU itself, and waits for what comes of it.
    ///
    /// # Errors
    /// No answer came.
    pub fn with_gpu<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Gpu) -> T + Send + 'static,
    ) -> Answered<T> {
        self.ask(|reply: Reply<T>| {
            // Whoever asked may have given up.
            Command::Job(Box::new(move |access| drop(reply.send(job(access.gpu())))))
        })
    }

    fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command<F>) -> Answered<T> {
        let (reply, answer) = sync_channel(1);
        self.link.mailbox.post(command(reply));
        self.lend_for(&answer).map_or_else(|| wait(&answer), Ok)
    }
}

impl<F: Frontend> Debug for WorkerHandle<F> {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        f.debug_struct("WorkerHandle")
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}

impl<F: Frontend> Deref for WorkerHandle<F> {
    type Target = WorkerLink<F>;

    fn deref(&self) -> &WorkerLink<F> {
        &self.link
    }
}

impl<F: Frontend> Drop for WorkerHandle<F> {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whoever waits may have given up.
fn tell(reply: Reply<()>) -> Done {
    Box::new(move || {
        let _ = reply.send(());
    })
}

/// A worker that could not start.
#[derive(Debug, Error)]
pub enum StartFailure {
    /// The system has no thread, or no file descriptor for it.
    #[error("Cannot start the device's thread")]
    Thread(#[source] IoError),
    /// The thread ended before the device was there.
    #[error("The device's thread ended while it started")]
    Ended,
}
