// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A queue's rings, and what proves that they still are the driver's.
//!
//! Guest memory can change hands while the device may not touch it. A kernel that comes back from hibernation has put its
//! pages over those of the kernel that loaded them, and then does to the device what any kernel does after a sleep: BusMaster
//! off and on, status 0, and no word of a queue. Where the old kernel's rings were there is something else now, so before the
//! first access after such a time the rings are compared with what the device left in them.

use std::sync::atomic::Ordering;

use thiserror::Error;
use virtio_pci_freeze::{QueueSetup, RingPosition};
use virtio_queue::{DescriptorChain, Error as QueueError, Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryLoadGuard};

use crate::frontend::Memory;

pub(crate) type MemoryGuard<M> = GuestMemoryLoadGuard<M>;

/// An entry of the used ring as it lies in memory: head and length, little-endian (VIRTIO 1.4 §2.7.8).
type Used = [u8; 8];

/// Bytes of the used and the available ring before their entries: flags and index (VIRTIO 1.4 §2.7.6, §2.7.8).
const RING_HEADER: u64 = 4;

/// Why rings are not taken for those of the driver that set them up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Doubt {
    /// It may be back later.
    #[error("its rings are not in guest memory")]
    Unreachable,
    #[error("the used index is {found}, and was {left}")]
    UsedIndex { found: u16, left: u16 },
    #[error("entry {place} of the used ring is not what was written there")]
    UsedEntry { place: u16 },
    #[error("{ahead} buffers are offered, and it has room for {size}")]
    Available { ahead: u16, size: u16 },
    #[error("the buffer {head} that is offered is not in guest memory")]
    Buffer { head: u16 },
    /// Of all queues together.
    #[error("no buffer was used yet that could show it")]
    NoEvidence,
}

/// A queue that runs.
#[derive(Debug)]
pub(crate) struct Ring {
    queue: Queue,
    setup: QueueSetup,
    /// What the device wrote to the used ring, by place. Nobody else may write there (VIRTIO 1.4 §2.7.8).
    written: Vec<Used>,
    /// How many of the newest entries of `written` are known; at most all.
    known: u16,
}

impl Ring {
    pub(crate) fn new(setup: &QueueSetup, event_idx: bool) -> Result<Self, QueueError> {
        let mut queue = Queue::new(setup.size)?;
        queue.try_set_size(setup.size)?;
        queue.try_set_desc_table_address(GuestAddress(setup.desc))?;
        queue.try_set_avail_ring_address(GuestAddress(setup.driver))?;
        queue.try_set_used_ring_address(GuestAddress(setup.device))?;
        queue.set_next_avail(setup.position.next_avail);
        queue.set_next_used(setup.position.next_used);
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        Ok(Self {
            queue,
            setup: *setup,
            written: vec![Used::default(); setup.size.into()],
            known: 0,
        })
    }

    /// Takes over what is known of the same rings.
    pub(crate) fn remember(&mut self, before: Self) {
        let same = |a: &QueueSetup, b: &QueueSetup| {
            (a.size, a.desc, a.driver, a.device) == (b.size, b.desc, b.driver, b.device)
        };
        if same(&self.setup, &before.setup) && self.position() == before.position() {
            self.written = before.written;
            self.known = before.known;
        }
    }

    pub(crate) fn index(&self) -> u16 {
        self.setup.index
    }

    pub(crate) fn position(&self) -> RingPosition {
        RingPosition {
            next_avail: self.queue.next_avail(),
            next_used: self.queue.next_used(),
        }
    }

    pub(crate) fn has_buffers<M: Memory>(&self, memory: &M) -> Result<bool, QueueError> {
        let available = self.queue.avail_idx(memory, Ordering::Acquire)?;
        Ok(available.0 != self.queue.next_avail())
    }

    pub(crate) fn take<M: Memory>(
        &mut self,
        memory: &MemoryGuard<M>,
    ) -> Result<DescriptorChain<MemoryGuard<M>>, QueueError> {
        let chain = self.queue.iter(memory.clone())?.next();
        // What is there and cannot be read would be there for ever.
        chain.ok_or(QueueError::InvalidAvailRingIndex)
    }

    /// Gives a buffer back, of which `written` bytes were written.
    pub(crate) fn add_used<M: Memory>(
        &mut self,
        memory: &M,
        head: u16,
        written: u32,
    ) -> Result<(), QueueError> {
        let place = self.place_of(self.queue.next_used());
        self.queue.add_used(memory, head, written)?;
        let [a, b, c, d] = u32::from(head).to_le_bytes();
        let [e, f, g, h] = written.to_le_bytes();
        if let Some(slot) = self.written.get_mut(usize::from(place)) {
            *slot = [a, b, c, d, e, f, g, h];
        }
        self.known = self.known.saturating_add(1).min(self.setup.size);
        Ok(())
    }

    pub(crate) fn ask_for_doorbells<M: Memory>(&mut self, memory: &M) -> Result<bool, QueueError> {
        self.queue.enable_notification(memory)
    }

    pub(crate) fn spare_doorbells<M: Memory>(&mut self, memory: &M) -> Result<(), QueueError> {
        self.queue.disable_notification(memory)
    }

    pub(crate) fn wants_interrupt<M: Memory>(&mut self, memory: &M) -> Result<bool, QueueError> {
        self.queue.needs_notification(memory)
    }

    /// Looks whether memory, as `current` gives it, holds these rings as the device left them. Returns how many entries of the
    /// used ring say so.
    pub(crate) fn prove<M: Memory>(
        &mut self,
        current: impl Fn() -> MemoryGuard<M>,
    ) -> Result<u16, Doubt> {
        let memory = current();
        self.check_places(&*memory)?;
        let found = self.queue.used_idx(&*memory, Ordering::Acquire);
        let found = found.map_err(|_| Doubt::Unreachable)?.0;
        let left = self.queue.next_used();
        if found != left {
            return Err(Doubt::UsedIndex { found, left });
        }
        self.check_used(&*memory)?;
        self.check_offered(&memory, current)?;
        Ok(self.known)
    }

    /// Whether the rings are in memory.
    pub(crate) fn is_in<M: Memory>(&self, memory: &M) -> bool {
        self.check_places(memory).is_ok()
    }

    /// Takes the used ring as it is for what the device wrote: another process did, and the VMM brought memory here from
    /// there.
    pub(crate) fn trust_used<M: Memory>(&mut self, memory: &M) {
        if let Ok(found) = self.read_used(memory) {
            self.written = found;
            self.known = self.setup.size;
        }
    }

    fn place_of(&self, position: u16) -> u16 {
        position.checked_rem(self.setup.size).unwrap_or(0)
    }

    /// With the word of the other side at the end of each ring (VIRTIO 1.4 §2.7.6, §2.7.8).
    fn check_places<M: Memory>(&self, memory: &M) -> Result<(), Doubt> {
        let size = usize::from(self.setup.size);
        let areas = [
            (self.setup.desc, size.saturating_mul(16)),
            (self.setup.driver, size.saturating_mul(2).saturating_add(6)),
            (self.setup.device, size.saturating_mul(8).saturating_add(6)),
        ];
        let there = |&(at, length): &(u64, usize)| memory.check_range(GuestAddress(at), length);
        if areas.iter().all(there) {
            Ok(())
        } else {
            Err(Doubt::Unreachable)
        }
    }

    fn read_used<M: Memory>(&self, memory: &M) -> Result<Vec<Used>, Doubt> {
        let mut bytes = vec![0; usize::from(self.setup.size).saturating_mul(size_of::<Used>())];
        let at = self.setup.device.checked_add(RING_HEADER);
        let at = at.ok_or(Doubt::Unreachable)?;
        let read = memory.read_slice(&mut bytes, GuestAddress(at));
        read.map_err(|_| Doubt::Unreachable)?;
        let (entries, _) = bytes.as_chunks();
        Ok(entries.to_vec())
    }

    fn check_used<M: Memory>(&self, memory: &M) -> Result<(), Doubt> {
        let found = self.read_used(memory)?;
        let next = self.queue.next_used();
        for back in 1..=self.known {
            let place = self.place_of(next.wrapping_sub(back));
            let at = usize::from(place);
            if found.get(at) != self.written.get(at) {
                return Err(Doubt::UsedEntry { place });
            }
        }
        Ok(())
    }

    /// What is offered goes no further than the ring, and lies in memory: a driver that lives offers nothing else. Behind a
    /// vIOMMU it maps a buffer just before, so that what was offered by now is looked for in memory as it is after that.
    fn check_offered<M: Memory>(
        &mut self,
        memory: &MemoryGuard<M>,
        current: impl Fn() -> MemoryGuard<M>,
    ) -> Result<(), Doubt> {
        let size = self.setup.size;
        let next = self.queue.next_avail();
        let available = self.queue.avail_idx(&**memory, Ordering::Acquire);
        let available = available.map_err(|_| Doubt::Unreachable)?.0;
        let ahead = available.wrapping_sub(next);
        let memory = current();
        let offered = self.queue.iter(memory.clone());
        let offered = offered.map_err(|_| Doubt::Available { ahead, size })?;
        let offered = offered.take(ahead.into());
        let bad = offered.filter(|chain| !lies_in(chain.clone(), &memory));
        let bad = bad.map(|chain| chain.head_index()).next();
        // Nothing was taken.
        self.queue.set_next_avail(next);
        match bad {
            Some(head) => Err(Doubt::Buffer { head }),
            None => Ok(()),
        }
    }
}

fn lies_in<M: Memory>(chain: DescriptorChain<MemoryGuard<M>>, memory: &MemoryGuard<M>) -> bool {
    // A longer one, in an indirect table, is looked at whole when it is taken.
    let most = usize::from(u8::MAX);
    let mut descriptors = chain.take(most).map(|descriptor| {
        let length = usize::try_from(descriptor.len()).unwrap_or(usize::MAX);
        memory.check_range(descriptor.addr(), length)
    });
    // One at least: there is no empty buffer.
    descriptors.next() == Some(true) && descriptors.all(|is_there| is_there)
}
