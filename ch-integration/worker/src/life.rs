// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the device does, and what ends with it.

use std::mem;
use std::time::Instant;

use virtio_pci_freeze::{ActivationKind, RingPosition};

use crate::claim::Loss;
use crate::frontend::{Memory, QUEUE_SIZES};
use crate::gate::{Gate, Inside};
use crate::ring::MemoryGuard;
use crate::session::Session;
use crate::status::Life as LifeStatus;

/// What the device does. Each state owns what exists only in it.
pub(crate) enum Life<M: Memory> {
    Stopped(Left<M>),
    Running(Box<Session<M>>),
    /// By the driver (VIRTIO 1.4 §3.4).
    Suspended(Box<Session<M>>),
}

/// What the last reset left.
pub(crate) enum Left<M: Memory> {
    Nothing,
    /// Nothing, and a driver that comes back without setting up a queue has to hear of it.
    Lost(Loss),
    /// The GPU's state, and the session, whose answers may be owed to a driver that gets its queues back.
    Retained {
        session: Box<Session<M>>,
        since: Instant,
    },
}

impl<M: Memory> Default for Life<M> {
    fn default() -> Self {
        Self::Stopped(Left::Nothing)
    }
}

impl<M: Memory> Life<M> {
    /// The activation, while there is one.
    pub(crate) fn session(&mut self) -> Option<&mut Session<M>> {
        match self {
            Self::Running(session) | Self::Suspended(session) => Some(session),
            Self::Stopped(_) => None,
        }
    }

    /// Goes in where the guest may be served, from memory that is still its own.
    pub(crate) fn enter<'a>(
        &'a mut self,
        gate: &'a Gate,
    ) -> Option<(Inside<'a>, &'a mut Session<M>)> {
        let session = self.session()?;
        let inside = session.enter(gate)?;
        Some((inside, session))
    }

    /// Why the activation's memory is taken for somebody else's, where it is.
    pub(crate) fn loss(&mut self) -> Option<Loss> {
        self.session().and_then(|session| session.loss())
    }

    /// The guest's memory, of one that sleeps too.
    pub(crate) fn memory(&self) -> Option<MemoryGuard<M>> {
        match self {
            Self::Running(session)
            | Self::Suspended(session)
            | Self::Stopped(Left::Retained { session, .. }) => Some(session.memory()),
            Self::Stopped(Left::Nothing | Left::Lost(_)) => None,
        }
    }

    pub(crate) fn status(&self) -> LifeStatus {
        match self {
            Self::Stopped(Left::Nothing | Left::Lost(_)) => LifeStatus::Idle,
            Self::Stopped(Left::Retained { .. }) => LifeStatus::Retained,
            Self::Running(_) => LifeStatus::Running,
            Self::Suspended(_) => LifeStatus::Suspended,
        }
    }

    /// The driver set DRIVER_OK. Returns whether memory has yet to show that it is the driver's.
    pub(crate) fn activate(&mut self, mut session: Box<Session<M>>, kind: ActivationKind) -> bool {
        match (kind, mem::take(self)) {
            (
                ActivationKind::Reinstated,
                Self::Stopped(Left::Retained {
                    session: before,
                    since,
                }),
            ) => session.take_over(*before, since),
            (_, Self::Stopped(Left::Lost(loss))) if session.lacks_queues() => session.lose(loss),
            _ => session.look_for_restored(),
        }
        let doubted = session.is_doubted();
        *self = Self::Running(session);
        doubted
    }

    /// Of a device that came to rest.
    pub(crate) fn suspend(&mut self) {
        *self = match mem::take(self) {
            Self::Running(session) => Self::Suspended(session),
            other => other,
        };
    }

    /// A driver may have rung while nothing was served.
    pub(crate) fn resume(&mut self) {
        *self = match mem::take(self) {
            Self::Suspended(mut session) => {
                session.note(u64::MAX);
                Self::Running(session)
            }
            other => other,
        };
    }

    /// A frozen reset. Returns where the rings stood; what an earlier one left stays.
    pub(crate) fn retain(&mut self, now: Instant) -> [RingPosition; QUEUE_SIZES.len()] {
        let mut positions = [RingPosition::default(); QUEUE_SIZES.len()];
        *self = match mem::take(self) {
            Self::Running(session) | Self::Suspended(session) => {
                positions = session.positions();
                let since = now;
                Self::Stopped(Left::Retained { session, since })
            }
            stopped @ Self::Stopped(_) => stopped,
        };
        positions
    }

    /// A reset that leaves nothing.
    pub(crate) fn end(&mut self) {
        let loss = match self {
            Self::Stopped(Left::Lost(loss)) => Some(*loss),
            _ => self.loss(),
        };
        *self = match loss {
            Some(loss) => Self::Stopped(Left::Lost(loss)),
            None => Self::default(),
        };
    }

    /// Drops what a reset left.
    pub(crate) fn discard(&mut self) {
        if let Self::Stopped(left) = self {
            *left = Left::Nothing;
        }
    }
}
