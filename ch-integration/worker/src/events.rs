// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What happens to a device, told on stderr and to whoever asked for events.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Instant;

use host_util::log_source::{GUEST, VMM};
use serde::Serialize;
use virtio_pci_freeze::HoldReason;

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventKind {
    /// A VMM attached.
    Connected,
    /// The VMM went away; the device is as new.
    Disconnected,
    /// The guest asked for a freeze and the device honours it.
    Freeze,
    /// The guest ended its freeze.
    Unfreeze,
    /// The guest went to sleep.
    Sleep {
        /// Why the device holds.
        holds: Vec<HoldReason>,
        /// Resources that will be retained.
        resources: usize,
        /// Bytes of host memory they fill.
        host_bytes: u64,
    },
    /// A reset came, and the device retained its state.
    FrozenReset {
        /// Why.
        holds: Vec<HoldReason>,
        /// Queues parked.
        parked_queues: usize,
        /// Resources retained.
        resources: usize,
        /// From the driver's write until the status could read 0, in microseconds.
        took_us: u64,
    },
    /// The driver came back without queues, and got the parked ones.
    Reinstated {
        /// How many.
        queues: usize,
        /// Resources alive again.
        resources: usize,
        /// From the frozen reset until now, in microseconds.
        took_us: u64,
    },
    /// The guest is awake and drives the device.
    Wake {
        /// Resources that came through.
        resources: usize,
        /// How long it was away, in microseconds.
        asleep_us: u64,
    },
    /// A reset destroyed all state.
    FullReset {
        /// Resources lost.
        resources: usize,
        /// How long it took, in microseconds.
        took_us: u64,
    },
    /// The renderer ended by itself: what the guest drew in 3D is lost, and a full reset starts a new one.
    RendererCrashed {
        /// How it ended.
        reason: String,
    },
    /// The device met an error that only a reset cures.
    NeedsReset {
        /// What happened.
        reason: String,
    },
}

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// Counts from 1.
    pub seq: u64,
    /// Since the device was made, in microseconds.
    pub time_us: u64,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// A subscriber that does not read is dropped once this many events wait for it.
const BACKLOG: usize = 1024;

/// Tells events to stderr and to subscribers.
#[derive(Debug)]
pub struct EventLog {
    start: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    seq: u64,
    subscribers: Vec<SyncSender<Event>>,
}

impl Default for EventLog {
    fn default() -> Self {
        let start = Instant::now();
        Self {
            start,
            inner: Mutex::new(Inner {
                seq: 0,
                subscribers: Vec::new(),
            }),
        }
    }
}

impl EventLog {
    /// Events from now on.
    pub fn subscribe(&self) -> Receiver<Event> {
        let (sender, receiver) = sync_channel(BACKLOG);
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.subscribers.push(sender);
        receiver
    }

    /// Ends every subscription.
    pub fn close(&self) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.subscribers.clear();
    }

    pub(crate) fn emit(&self, kind: EventKind) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let by = match kind {
            EventKind::Connected | EventKind::Disconnected => &VMM,
            _ => &GUEST,
        };
        by.info(format_args!("{kind}"));
        inner.seq += 1;
        let event = Event {
            seq: inner.seq,
            time_us: micros(self.start),
            kind,
        };
        inner
            .subscribers
            .retain(|subscriber| match subscriber.try_send(event.clone()) {
                Ok(()) => true,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
            });
    }
}

/// Microseconds since then.
pub fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

mod text {
    use std::fmt::{Display, Formatter, Result};

    use super::{EventKind, HoldReason};

    fn milliseconds(us: u64) -> String {
        format!("{}.{:03} ms", us / 1000, us % 1000)
    }

    /// In parentheses; a VMM with a transport of its own has its reasons.
    fn list(holds: &[HoldReason]) -> String {
        if holds.is_empty() {
            return String::new();
        }
        let names: Vec<String> = holds.iter().map(ToString::to_string).collect();
        format!(" ({})", names.join(", "))
    }

    impl Display for EventKind {
        fn fmt(&self, f: &mut Formatter<'_>) -> Result {
            match self {
                Self::Connected => write!(f, "connected: a VMM attached"),
                Self::Disconnected => write!(f, "disconnected: the VMM went away"),
                Self::Freeze => write!(f, "freeze: the guest wrote FREEZE_S3"),
                Self::Unfreeze => write!(f, "unfreeze: the guest wrote UNFREEZE"),
                Self::Sleep {
                    holds,
                    resources,
                    host_bytes,
                } => write!(
                    f,
                    "sleep: holding {resources} resources, {host_bytes} bytes{}",
                    list(holds)
                ),
                Self::FrozenReset {
                    holds,
                    parked_queues,
                    resources,
                    took_us,
                } => write!(
                    f,
                    "frozen reset: {parked_queues} queues parked, {resources} resources retained in {}{}",
                    milliseconds(*took_us),
                    list(holds)
                ),
                Self::Reinstated {
                    queues,
                    resources,
                    took_us,
                } => write!(
                    f,
                    "reinstated: {queues} queues, {resources} resources, {} after the reset",
                    milliseconds(*took_us)
                ),
                Self::Wake {
                    resources,
                    asleep_us,
                } => {
                    write!(
                        f,
                        "wake: {resources} resources, asleep for {}",
                        milliseconds(*asleep_us)
                    )
                }
                Self::FullReset { resources, took_us } => {
                    write!(
                        f,
                        "full reset: {resources} resources destroyed in {}",
                        milliseconds(*took_us)
                    )
                }
                Self::RendererCrashed { reason } => write!(f, "renderer crashed: {reason}"),
                Self::NeedsReset { reason } => write!(f, "needs reset: {reason}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscriber_gets_every_event_whether_it_was_printed_or_not() {
        let log = EventLog::default();
        let events = log.subscribe();
        let sent = 200_u64;
        (0..sent).for_each(|_| log.emit(EventKind::Unfreeze));
        let numbers: Vec<u64> = events.try_iter().map(|event| event.seq).collect();
        assert_eq!(numbers, (1..=sent).collect::<Vec<_>>());
    }
}
