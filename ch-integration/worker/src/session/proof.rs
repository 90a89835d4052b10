// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whether guest memory is still that of the driver that set the queues up in it.

use std::time::Instant;

use virtio_pci_freeze::RingPosition;
use vm_memory::GuestAddressSpace;

use super::{CONTROL_QUEUE, Session};
use crate::claim::{Claim, Loss, News};
use crate::frontend::{Memory, QUEUE_SIZES};
use crate::gate::{Gate, Inside};
use crate::ring::Doubt;

impl<M: Memory> Session<M> {
    /// A driver is back that set up no queue. If memory proves it, it has the queues that it had, and what it was owed then it
    /// is owed now.
    pub(crate) fn take_over(&mut self, before: Self, since: Instant) {
        for (ring, before) in self.queues.iter_mut().zip(before.queues) {
            if let (Some(ring), Some(before)) = (ring, before) {
                ring.remember(before);
            }
        }
        self.owed = before.owed;
        self.claim = before.claim.returned(since);
    }

    /// Queues that have come further than those of a driver that starts are those of a saved device.
    pub(crate) fn look_for_restored(&mut self) {
        let mut rings = self.queues.iter().flatten();
        if rings.any(|ring| ring.position() != RingPosition::default()) {
            self.claim = Claim::Restored;
        }
    }

    /// Whether memory has yet to show that it is the driver's.
    pub(crate) fn is_doubted(&self) -> bool {
        self.claim != Claim::Good
    }

    /// What became of the claim to guest memory, once.
    pub(crate) fn news(&mut self) -> Option<News> {
        self.claim.news()
    }

    /// Why guest memory is taken for somebody else's, where it is.
    pub(crate) fn loss(&self) -> Option<Loss> {
        match self.claim {
            Claim::Lost { loss, .. } => Some(loss),
            _ => None,
        }
    }

    /// A driver without a queue, for which those were lost that it had.
    pub(crate) fn lacks_queues(&self) -> bool {
        self.queues.iter().all(Option::is_none)
    }

    /// Goes in where the gate is open and guest memory is the driver's: that is looked at where it may have changed hands
    /// since the last time.
    pub(crate) fn enter<'gate>(&mut self, gate: &'gate Gate) -> Option<Inside<'gate>> {
        let inside = gate.enter()?;
        if inside.is_doubted() && self.loss().is_none() {
            match self.prove() {
                Ok(()) => self.claim.proved(),
                // A VMM may have unmapped it for a while; a doorbell says that it should be there.
                Err((_, Doubt::Unreachable)) if self.ready == 0 => {
                    inside.leave_in_doubt();
                    return None;
                }
                Err((queue, doubt)) => self.lose(Loss::Queue { queue, doubt }),
            }
        }
        self.loss().is_none().then_some(inside)
    }

    /// Whether what the device left in memory is there. All of memory changes hands at once, so what speaks for one queue
    /// speaks for all, and nothing may speak against any.
    fn prove(&mut self) -> Result<(), (u16, Doubt)> {
        let mut evidence = 0_u32;
        for ring in self.queues.iter_mut().flatten() {
            let seen = ring.prove(|| self.memory.memory());
            let seen = seen.map_err(|doubt| (ring.index(), doubt))?;
            if self.claim == Claim::Restored {
                ring.trust_used(&*self.memory.memory());
            }
            evidence = evidence.saturating_add(seen.into());
        }
        let known = self.claim == Claim::Restored || self.running() == 0;
        if evidence == 0 && !known {
            return Err((CONTROL_QUEUE, Doubt::NoEvidence));
        }
        Ok(())
    }

    /// Nothing of this is the driver's that drives the device now.
    pub(crate) fn lose(&mut self, loss: Loss) {
        self.queues = [const { None }; QUEUE_SIZES.len()];
        self.owed.clear();
        self.ready = 0;
        self.claim = Claim::Lost { loss, told: false };
    }
}
