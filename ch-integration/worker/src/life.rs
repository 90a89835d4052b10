// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the device does, and what ends with it.

use std::mem;
use std::time::Instant;

use virtio_pci_freeze::{ActivationKind, RingPosition};

use crate::frontend::{Memory, QUEUE_SIZES};
use crate::session::{MemoryGuard, Session};
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

    /// The guest's memory, of one that sleeps too.
    pub(crate) fn memory(&self) -> Option<MemoryGuard<M>> {
        match self {
            Self::Running(session)
            | Self::Suspended(session)
            | Self::Stopped(Left::Retained { session, .. }) => Some(session.memory()),
            Self::Stopped(Left::Nothing) => None,
        }
    }

    pub(crate) fn status(&self) -> LifeStatus {
        match self {
            Self::Stopped(Left::Nothing) => LifeStatus::Idle,
            Self::Stopped(Left::Retained { .. }) => LifeStatus::Retained,
            Self::Running(_) => LifeStatus::Running,
            Self::Suspended(_) => LifeStatus::Suspended,
        }
    }

    /// The driver set DRIVER_OK. Returns since when state was retained for it.
    pub(crate) fn activate(
        &mut self,
        mut session: Box<Session<M>>,
        kind: ActivationKind,
    ) -> Option<Instant> {
        let since = match mem::take(self) {
            Self::Stopped(Left::Retained {
                session: before,
                since,
            }) => {
                if kind == ActivationKind::Reinstated {
                    session.take_over(*before);
                }
                Some(since)
            }
            _ => None,
        };
        *self = Self::Running(session);
        since
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

    /// Drops what a reset left.
    pub(crate) fn discard(&mut self) {
        if let Self::Stopped(left) = self {
            *left = Left::Nothing;
        }
    }
}
