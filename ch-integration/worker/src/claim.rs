// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What an activation has to show for its right to guest memory.

use std::mem;
use std::time::Instant;

use thiserror::Error;

use crate::ring::Doubt;

/// Why guest memory is not taken for the driver's that set the queues up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Loss {
    #[error("queue {queue}: {doubt}")]
    Queue { queue: u16, doubt: Doubt },
    /// As one kernel does that takes the machine over from another.
    #[error("the function was set up again without having slept")]
    TakenOver,
}

/// An activation's right to the memory that its queues are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// The driver set the queues up, or memory proved that they are its own.
    Good,
    /// A driver that set up no queue has got the parked ones, at the end of a frozen reset that began then. Nothing has
    /// proved yet that they are its own.
    Returning { since: Instant },
    /// They were proved, which nobody has heard of.
    Returned { since: Instant },
    /// They come from a saved device. The VMM brought memory here with them, and the device wrote nothing to it in this
    /// process that could be compared: their indices alone speak.
    Restored,
    /// Memory is not what was left there.
    Lost { loss: Loss, told: bool },
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// The queues that were parked since then are back.
    Returned { since: Instant },
    /// They, or those of before a pause, are not in memory any more.
    Lost(Loss),
}

impl Claim {
    /// Of a driver that came back without setting up a queue.
    pub(crate) fn returned(self, since: Instant) -> Self {
        match self {
            lost @ Self::Lost { .. } => lost,
            _ => Self::Returning { since },
        }
    }

    /// Memory is what was left there.
    pub(crate) fn proved(&mut self) {
        *self = match *self {
            Self::Returning { since } | Self::Returned { since } => Self::Returned { since },
            Self::Restored | Self::Good => Self::Good,
            lost @ Self::Lost { .. } => lost,
        };
    }

    pub(crate) fn news(&mut self) -> Option<News> {
        match self {
            Self::Returned { since } => {
                let since = *since;
                *self = Self::Good;
                Some(News::Returned { since })
            }
            Self::Lost { loss, told } => (!mem::replace(told, true)).then_some(News::Lost(*loss)),
            Self::Good | Self::Returning { .. } | Self::Restored => None,
        }
    }
}
