// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How the worker comes to know of what is asked.

use std::fmt::{Debug, Formatter, Result as FmtResult};
use std::io::Error as IoError;
use std::mem;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use host_util::handshake;
use host_util::log_source::GUEST;
use virtio_pci_freeze::FreezeTicket;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::command::{Command, MemoryFollowed};
use crate::frontend::Frontend;
use crate::session::bit;

/// Commands that wait at most. Nothing that a guest does repeatedly adds to them, so that there are never more than a few
/// for each thread that waits for an answer. To wait for room would be to wait for the worker, which whoever asks may not.
const CAPACITY: usize = 256;

/// Says that something happened, however often, until the worker looks.
#[derive(Debug, Default)]
struct Signals {
    /// Something is to be looked for: a command, or one of the words below.
    news: AtomicBool,
    /// Doorbells that rang, by queue.
    rung: AtomicU64,
    /// The renderer has something to give.
    renderer: AtomicBool,
    /// A front end is gone, and the worker is to end.
    ended: AtomicBool,
    freeze: Freeze,
    config: ConfigWrites,
    memory: Follows,
}

/// What is known of guest memory that went.
#[derive(Debug, Default)]
struct Follows {
    /// Words of it that are under way.
    posted: AtomicU32,
    /// The device lacks some, and wants to hear of what comes.
    missed: AtomicBool,
}

/// The guest's newest word on freezing. A guest that freezes and unfreezes in a loop has one command under way.
#[derive(Debug, Default)]
struct Freeze {
    /// The ticket, and [`FROZEN`]; 0 if it is not to freeze.
    word: AtomicU64,
    /// Whether [`Command::FreezeChanged`] is under way.
    posted: AtomicBool,
}

const FROZEN: u64 = 1 << 32;

/// What the driver cleared of `events_read`.
#[derive(Debug, Default)]
struct ConfigWrites {
    events_clear: AtomicU32,
    posted: AtomicBool,
}

/// The front end's side. Clones send to the same worker.
pub(crate) struct Mailbox<F: Frontend> {
    commands: SyncSender<Command<F>>,
    signals: Arc<Signals>,
    bell: Arc<Bell>,
}

/// Wakes a worker that sleeps.
#[derive(Debug)]
struct Bell {
    eventfd: EventFd,
    /// A worker that is awake looks by itself: see [`handshake`].
    asleep: AtomicU32,
}

impl Bell {
    fn ring(&self) {
        if handshake::must_wake(&self.asleep) {
            // It fails only where 2^64 - 2 wakes are waiting already.
            drop(self.eventfd.write(1));
        }
    }
}

impl<F: Frontend> Clone for Mailbox<F> {
    fn clone(&self) -> Self {
        Self {
            commands: self.commands.clone(),
            signals: Arc::clone(&self.signals),
            bell: Arc::clone(&self.bell),
        }
    }
}

impl<F: Frontend> Debug for Mailbox<F> {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        f.debug_struct("Mailbox").finish_non_exhaustive()
    }
}

impl<F: Frontend> Mailbox<F> {
    /// The worker ends with the device, so a command that finds nobody has nothing left to do. One that finds no room may
    /// not get lost while others are carried out: that is the end of the worker, and whoever waits for an answer hears of
    /// it.
    pub(crate) fn post(&self, command: Command<F>) {
        if let Err(TrySendError::Full(_)) = self.commands.try_send(command) {
            GUEST.error(format_args!(
                "More than {CAPACITY} commands wait for the device, which ends"
            ));
            self.signals.ended.store(true, Ordering::Release);
        }
        self.tell();
    }

    /// Has the worker look for something to do.
    pub(crate) fn tell(&self) {
        self.signals.news.store(true, Ordering::Release);
        self.bell.ring();
    }

    /// The driver wrote FREEZE_S3 (`Some`) or UNFREEZE.
    pub(crate) fn post_freeze(&self, ticket: Option<FreezeTicket>) {
        let word = ticket.map_or(0, |ticket| FROZEN | u64::from(ticket.0));
        self.signals.freeze.word.store(word, Ordering::Release);
        if !self.signals.freeze.posted.swap(true, Ordering::AcqRel) {
            self.post(Command::FreezeChanged);
        }
    }

    /// The driver wrote these bits to `events_clear` (VIRTIO 1.4 §5.7.4.1).
    pub(crate) fn post_events_clear(&self, bits: u32) {
        let config = &self.signals.config;
        config.events_clear.fetch_or(bits, Ordering::AcqRel);
        if !config.posted.swap(true, Ordering::AcqRel) {
            self.post(Command::ConfigWritten);
        }
    }

    /// Guest memory was replaced.
    pub(crate) fn post_memory(&self, followed: MemoryFollowed<F::Memory>) {
        self.signals.memory.posted.fetch_add(1, Ordering::SeqCst);
        self.post(Command::FollowMemory(followed));
    }

    /// Whether the device wants to hear of memory that is added. To be asked when it is there.
    pub(crate) fn misses_memory(&self) -> bool {
        let memory = &self.signals.memory;
        memory.posted.load(Ordering::SeqCst) != 0 || memory.missed.load(Ordering::SeqCst)
    }

    /// These queues' doorbells rang.
    pub(crate) fn ring(&self, queues: u64) {
        if self.signals.rung.fetch_or(queues, Ordering::AcqRel) == 0 {
            self.bell.ring();
        }
    }

    /// A renderer has something to give. Called from its threads; waits for nobody.
    pub(crate) fn tell_of_renderer(&self) {
        if !self.signals.renderer.swap(true, Ordering::AcqRel) {
            self.tell();
        }
    }

    /// Has the worker end, whatever is still asked.
    pub(crate) fn end(&self) {
        self.signals.ended.store(true, Ordering::Release);
        self.tell();
    }
}

/// The worker's side.
pub(crate) struct Inbox<F: Frontend> {
    commands: Receiver<Command<F>>,
    signals: Arc<Signals>,
    bell: Arc<Bell>,
    epoll: Epoll,
    doorbells: Vec<(u16, EventFd)>,
}

/// How long the worker waits for something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// It has something to do.
    None,
    /// It has something to do by then.
    Until(Duration),
    Endless,
}

/// What epoll says of the bell; everything else is a queue's number.
const BELL: u64 = u64::MAX;
/// More at once wait for the next look.
const EVENTS: usize = 4;

impl<F: Frontend> Inbox<F> {
    /// Both sides.
    ///
    /// # Errors
    /// The system has no file descriptors left.
    pub(crate) fn new() -> Result<(Mailbox<F>, Self), IoError> {
        let (sender, commands) = sync_channel(CAPACITY);
        let signals = Arc::new(Signals::default());
        let bell = Arc::new(Bell {
            eventfd: EventFd::new(EFD_NONBLOCK)?,
            asleep: AtomicU32::new(0),
        });
        let epoll = Epoll::new()?;
        listen(&epoll, &bell.eventfd, BELL)?;
        let mailbox = Mailbox {
            commands: sender,
            signals: Arc::clone(&signals),
            bell: Arc::clone(&bell),
        };
        let inbox = Self {
            commands,
            signals,
            bell,
            epoll,
            doorbells: Vec::new(),
        };
        Ok((mailbox, inbox))
    }

    /// Whether somebody may have asked something: cheap enough to look again and again.
    pub(crate) fn has_news(&self) -> bool {
        self.signals.news.load(Ordering::Relaxed)
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.signals.ended.load(Ordering::Acquire)
    }

    /// The next command, if one comes while `patience` lasts. Doorbells and the renderer end the wait too.
    pub(crate) fn next(&mut self, patience: Patience) -> Option<Command<F>> {
        // Before the look, so that what is asked after it is seen.
        let news = self.signals.news.swap(false, Ordering::SeqCst);
        let command = self.commands.try_recv().ok();
        if command.is_some() {
            // There may be more.
            self.signals.news.store(true, Ordering::Relaxed);
            return command;
        }
        // News that are no command have not been looked for yet.
        if patience != Patience::None && !news {
            self.sleep(patience);
        }
        None
    }

    fn sleep(&self, patience: Patience) {
        handshake::fall_asleep(&self.bell.asleep);
        let signals = &self.signals;
        if !self.has_news() && signals.rung.load(Ordering::Relaxed) == 0 {
            self.wait(patience);
        }
        handshake::wake_up(&self.bell.asleep);
    }

    /// Waits for doorbells or for the bell, and notes the doorbells that rang.
    fn wait(&self, patience: Patience) {
        let limit = match patience {
            Patience::None => 0,
            // Rounded up, as a wait that ends early is another one.
            Patience::Until(limit) => {
                i32::try_from(limit.as_millis().saturating_add(1)).unwrap_or(-1)
            }
            Patience::Endless => -1,
        };
        let mut events = [EpollEvent::default(); EVENTS];
        // A signal may interrupt it; the worker then looks again.
        let count = self.epoll.wait(limit, &mut events).unwrap_or(0);
        for event in events.iter().take(count) {
            if event.data() == BELL {
                drop(self.bell.eventfd.read());
            }
            for (index, eventfd) in &self.doorbells {
                // Another thread of the VMM may have read it: a spurious wake.
                if u64::from(*index) == event.data() && eventfd.read().is_ok() {
                    self.signals.rung.fetch_or(bit(*index), Ordering::AcqRel);
                }
            }
        }
    }

    /// Doorbells that rang since the last call, by queue.
    pub(crate) fn take_rung(&self) -> u64 {
        // Most looks find none, and shall not take the line away from who rings.
        match self.signals.rung.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.signals.rung.swap(0, Ordering::AcqRel),
        }
    }

    /// What was posted of guest memory is done, and whether the device lacks some now.
    pub(crate) fn memory_followed(&self, misses: bool) {
        let memory = &self.signals.memory;
        if misses {
            memory.missed.store(true, Ordering::SeqCst);
        }
        memory.posted.fetch_sub(1, Ordering::SeqCst);
    }

    /// Nothing of the guest is left that could lack memory.
    pub(crate) fn forget_missed_memory(&self) {
        self.signals.memory.missed.store(false, Ordering::SeqCst);
    }

    /// Whether the renderer told of something since the last call.
    pub(crate) fn take_renderer_news(&self) -> bool {
        let told = &self.signals.renderer;
        told.load(Ordering::Relaxed) && told.swap(false, Ordering::AcqRel)
    }

    /// The guest's newest word on freezing: the ticket of the freeze that it wants, or `None`.
    pub(crate) fn take_freeze(&self) -> Option<FreezeTicket> {
        // Before the look, so that a word that comes after it is a new command.
        self.signals.freeze.posted.store(false, Ordering::SeqCst);
        let word = self.signals.freeze.word.load(Ordering::SeqCst);
        let [a, b, c, d, ..] = word.to_le_bytes();
        (word != 0).then(|| FreezeTicket(u32::from_le_bytes([a, b, c, d])))
    }

    /// The bits of `events_read` that the driver cleared since the last call.
    pub(crate) fn take_events_clear(&self) -> u32 {
        let config = &self.signals.config;
        config.posted.store(false, Ordering::SeqCst);
        config.events_clear.swap(0, Ordering::SeqCst)
    }

    /// Listens to these doorbells, and to no others.
    ///
    /// # Errors
    /// The system cannot.
    pub(crate) fn listen(&mut self, doorbells: Vec<(u16, EventFd)>) -> Result<(), IoError> {
        for (_, eventfd) in mem::take(&mut self.doorbells) {
            let nothing = EpollEvent::default();
            let fd = eventfd.as_raw_fd();
            self.epoll.ctl(ControlOperation::Delete, fd, nothing)?;
        }
        for (index, eventfd) in doorbells {
            listen(&self.epoll, &eventfd, index.into())?;
            self.doorbells.push((index, eventfd));
        }
        Ok(())
    }
}

fn listen(epoll: &Epoll, eventfd: &EventFd, data: u64) -> Result<(), IoError> {
    let event = EpollEvent::new(EventSet::IN, data);
    epoll
        .ctl(ControlOperation::Add, eventfd.as_raw_fd(), event)
        .inspect_err(|error| GUEST.warn(format_args!("Cannot listen to a doorbell: {error}")))
}

#[cfg(test)]
mod tests {
    use std::iter::from_fn;
    use std::sync::mpsc::sync_channel;
    use std::thread;
    use std::time::Instant;

    use virtio_pci_freeze::ResetOutcome;
    use vm_memory::GuestMemoryMmap;

    use super::*;
    use crate::frontend::{Completion, ConfigChange, ResetReport};

    struct Nobody;

    impl Frontend for Nobody {
        type Memory = GuestMemoryMmap;
        type Ticket = ();

        fn queue_used(&self, _: u16) {}
        fn needs_reset(&self, _: &str) {}
        fn set_config(&self, _: &[u8], _: ConfigChange) {}
        fn complete(&self, _: Completion) {}
        fn reset_done(&self, (): (), _: ResetOutcome<'_>) -> ResetReport {
            ResetReport::Superseded
        }
    }

    fn both() -> (Mailbox<Nobody>, Inbox<Nobody>) {
        Inbox::new().unwrap()
    }

    fn count(inbox: &mut Inbox<Nobody>) -> usize {
        let next = || inbox.next(Patience::None);
        from_fn(next).count()
    }

    #[test]
    fn a_guest_that_freezes_and_unfreezes_without_end_has_one_command_under_way() {
        let (mailbox, mut inbox) = both();
        for number in 0..100_000 {
            mailbox.post_freeze(Some(FreezeTicket(number)));
            mailbox.post_freeze(None);
        }
        mailbox.post_freeze(Some(FreezeTicket(7)));
        assert_eq!(count(&mut inbox), 1);
        assert_eq!(inbox.take_freeze(), Some(FreezeTicket(7)));
        mailbox.post_freeze(None);
        assert_eq!(count(&mut inbox), 1);
        assert_eq!(inbox.take_freeze(), None);
    }

    #[test]
    fn a_guest_that_writes_its_configuration_without_end_has_one_command_under_way() {
        let (mailbox, mut inbox) = both();
        for bit in [1, 4, 1, 4] {
            (0..1000).for_each(|_| mailbox.post_events_clear(bit));
        }
        assert_eq!(count(&mut inbox), 1);
        assert_eq!(inbox.take_events_clear(), 5);
        assert_eq!(inbox.take_events_clear(), 0);
    }

    #[test]
    fn more_commands_than_there_is_room_for_end_the_worker_and_keep_nobody_waiting() {
        let (mailbox, mut inbox) = both();
        (0..CAPACITY).for_each(|_| mailbox.post(Command::Discard));
        assert!(!inbox.is_ended());
        let (reply, answer) = sync_channel(1);
        mailbox.post(Command::LookBeforeSleep(reply));
        assert!(answer.recv().is_err());
        assert!(inbox.is_ended());
        assert_eq!(count(&mut inbox), CAPACITY);
    }

    #[test]
    fn what_comes_before_the_worker_sleeps_keeps_it_from_sleeping() {
        let (mailbox, mut inbox) = both();
        let start = Instant::now();
        mailbox.ring(1);
        assert!(inbox.next(Patience::Endless).is_none());
        assert_eq!(inbox.take_rung(), 1);
        mailbox.tell_of_renderer();
        mailbox.tell_of_renderer();
        assert!(inbox.next(Patience::Endless).is_none());
        assert!(inbox.take_renderer_news() && !inbox.take_renderer_news());
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_worker_that_sleeps_is_waked_by_each_kind_of_news() {
        for wake in [
            |mailbox: &Mailbox<Nobody>| mailbox.ring(2),
            |mailbox: &Mailbox<Nobody>| mailbox.tell_of_renderer(),
            |mailbox: &Mailbox<Nobody>| mailbox.post(Command::Discard),
            |mailbox: &Mailbox<Nobody>| mailbox.end(),
        ] {
            let (mailbox, mut inbox) = both();
            let waker = thread::spawn(move || {
                thread::sleep(Duration::from_millis(10));
                wake(&mailbox);
                mailbox
            });
            let start = Instant::now();
            drop(inbox.next(Patience::Until(Duration::from_secs(60))));
            assert!(start.elapsed() < Duration::from_secs(30));
            drop(waker.join().unwrap());
        }
    }
}
