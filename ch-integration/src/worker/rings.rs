// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Serving rings: buffers taken, answered at once or when a fence signals.

use std::mem;
use std::sync::atomic::Ordering;

use log::trace;
use virtio_gpu_s3::{Completed, Outcome, Response};
use virtio_pci_freeze::QueueSetup;
use virtio_queue::{Error as QueueError, Queue, QueueOwnedT, QueueT};
#[cfg(feature = "vm-memory-0_17")]
use vm_memory::GuestMemory as GuestMemoryBackend;
#[cfg(not(feature = "vm-memory-0_17"))]
use vm_memory::GuestMemoryBackend;
use vm_memory::bitmap::Bitmap;
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryMmap};

use super::{Chain, Deferred, Frontend, MemoryGuard, Room, Worker, bit};
use crate::device::QUEUE_SIZES;

/// Buffers taken from one queue before the worker looks at requests again, so that a guest that never stops cannot
/// keep a reset waiting.
const BATCH: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    More,
    Empty,
}

/// A queue's number and its ring.
type RunningQueue = (u16, Queue);

impl<F: Frontend> Worker<F> {
    /// Doorbells that ring while nothing may be served stay rung. Rings are looked at too: a driver that was told not to
    /// ring does not, and a queue that is never empty shall not keep the other waiting.
    pub(super) fn has_work(&mut self) -> bool {
        self.ready |= self.doorbells.take();
        if !self.serving || !self.doorbells.is_open() {
            return false;
        }
        let memory = self.memory.memory();
        for (index, queue) in (0..).zip(&self.queues) {
            let Some(queue) = queue else {
                continue;
            };
            // A VMM may have unmapped it for a while; a doorbell says that it should be there.
            if has_buffers(queue, &memory).unwrap_or(false) {
                self.ready |= bit(index);
            }
        }
        self.ready != 0
    }

    /// Before a sleep. Returns whether a driver was faster.
    pub(super) fn asks_for_doorbells(&mut self) -> bool {
        if !self.serving || !self.doorbells.is_open() {
            return false;
        }
        let memory = self.memory.memory();
        for (index, queue) in (0..).zip(&mut self.queues) {
            let more = queue
                .as_mut()
                .map(|queue| queue.enable_notification(&*memory));
            // Where it is unmapped the word that it is mapped again leads here too.
            if matches!(more, Some(Ok(true))) {
                self.ready |= bit(index);
            }
        }
        self.ready != 0
    }

    pub(super) fn start_queue(&mut self, setup: &QueueSetup) {
        let slot = self.queues.get_mut(usize::from(setup.index));
        match (queue_from(setup, self.event_idx), slot) {
            (Ok(queue), Some(slot)) => *slot = Some(queue),
            // The transport has no other queues.
            (Ok(_), None) => {}
            (Err(error), _) => self
                .shared
                .needs_reset(&format!("queue {}: {error}", setup.index)),
        }
    }

    pub(super) fn end_queue(&mut self, index: u16) {
        if let Some(slot) = self.queues.get_mut(usize::from(index)) {
            *slot = None;
        }
    }

    /// One batch from each queue that has work.
    pub(super) fn serve(&mut self) {
        let memory = self.memory.memory();
        let ready = mem::take(&mut self.ready);
        for index in (0..).take(QUEUE_SIZES.len()) {
            if ready & bit(index) == 0 {
                continue;
            }
            match self.serve_queue(index, &memory) {
                Ok(Progress::More) => self.ready |= bit(index),
                Ok(Progress::Empty) => {}
                Err(error) => self.stop_queue(index, &error),
            }
        }
        self.finish_deferred(&memory);
        self.look_after_renderer();
    }

    fn serve_queue(&mut self, index: u16, memory: &MemoryGuard<F>) -> Result<Progress, QueueError> {
        let slot = self.queues.get_mut(usize::from(index));
        let Some(queue) = slot.and_then(Option::take) else {
            return Ok(Progress::Empty);
        };
        let mut running = (index, queue);
        let progress = self.drain(&mut running, memory);
        if let Some(slot) = self.queues.get_mut(usize::from(index)) {
            *slot = Some(running.1);
        }
        progress
    }

    /// Takes up to a batch of buffers, and signals once at the end. The driver need not ring until the worker sleeps.
    fn drain(
        &mut self,
        running: &mut RunningQueue,
        memory: &MemoryGuard<F>,
    ) -> Result<Progress, QueueError> {
        let (index, queue) = running;
        let mut used = false;
        let mut progress = Progress::More;
        queue.disable_notification(&**memory)?;
        for _ in 0..BATCH {
            if !self.doorbells.is_open() || !has_buffers(queue, memory)? {
                progress = Progress::Empty;
                break;
            }
            // What is there and cannot be read would be there for ever.
            let chain = queue.iter(memory.clone())?.next();
            let chain = chain.ok_or(QueueError::InvalidAvailRingIndex)?;
            let head = chain.head_index();
            if let Some(written) = self.process(*index, chain, memory) {
                queue.add_used(&**memory, head, written)?;
                used = true;
            }
        }
        if used && queue.needs_notification(&**memory)? {
            self.shared.queue_used(*index);
        }
        Ok(progress)
    }

    /// Executes one buffer. Returns how many bytes of answer it has, or `None` if the answer comes later.
    fn process(&mut self, index: u16, chain: Chain<F>, memory: &MemoryGuard<F>) -> Option<u32> {
        let head = chain.head_index();
        if self.take(chain, memory).is_none() {
            self.shared.count_bad_chain();
            return Some(0);
        }
        let room = self.room.iter().map(|(_, length)| *length);
        self.response.restart(room.fold(0, usize::saturating_add));
        let outcome = if index == CONTROL_QUEUE {
            self.gpu
                .control(&self.request, &**memory, &mut self.response)
        } else {
            self.gpu
                .cursor(&self.request, &**memory, &mut self.response)
        };
        match outcome {
            Outcome::Done => {
                trace!(
                    "queue {index}: {:02x?} -> {:02x?}",
                    start(&self.request),
                    start(self.response.bytes())
                );
                Some(answer(&self.room, &self.response, &**memory))
            }
            Outcome::Deferred(token) => {
                self.deferred.push(Deferred {
                    token,
                    queue: index,
                    head,
                    room: mem::take(&mut self.room),
                });
                None
            }
        }
    }

    /// Copies what is to be read of a buffer, and notes where it can be written. `None` of one that is not all in guest
    /// memory, or longer than any address (VIRTIO 1.4 §2.7.5.2).
    fn take(&mut self, chain: Chain<F>, memory: &MemoryGuard<F>) -> Option<()> {
        self.request.clear();
        self.room.clear();
        let mut total = 0_u32;
        for descriptor in chain {
            total = total.checked_add(descriptor.len())?;
            let length = usize::try_from(descriptor.len()).ok()?;
            if !memory.check_range(descriptor.addr(), length) {
                return None;
            }
            if descriptor.is_write_only() {
                self.room.push((descriptor.addr(), length));
                continue;
            }
            let from = self.request.len();
            let wanted = length.min(self.max_request.saturating_sub(from));
            self.request.resize(from.saturating_add(wanted), 0);
            let target = self.request.get_mut(from..)?;
            memory.read_slice(target, descriptor.addr()).ok()?;
        }
        Some(())
    }

    /// Answers the requests whose fences have signalled. Returns whether there were any.
    pub(super) fn finish_deferred(&mut self, memory: &MemoryGuard<F>) -> bool {
        if self.deferred.is_empty() {
            return false;
        }
        let completed: Vec<Completed> = self.gpu.take_completed().collect();
        let some = !completed.is_empty();
        for Completed { token, response } in completed {
            let Some(at) = self
                .deferred
                .iter()
                .position(|waiting| waiting.token == token)
            else {
                continue;
            };
            let deferred = self.deferred.swap_remove(at);
            if let Err(error) = self.use_deferred(&deferred, &response, memory) {
                self.stop_queue(deferred.queue, &error);
            }
        }
        some
    }

    fn use_deferred(
        &mut self,
        deferred: &Deferred,
        response: &Response,
        memory: &MemoryGuard<F>,
    ) -> Result<(), QueueError> {
        let slot = self.queues.get_mut(usize::from(deferred.queue));
        let Some(queue) = slot.and_then(Option::as_mut) else {
            return Ok(());
        };
        let written = answer(&deferred.room, response, &**memory);
        queue.add_used(&**memory, deferred.head, written)?;
        if queue.needs_notification(&**memory)? {
            self.shared.queue_used(deferred.queue);
        }
        Ok(())
    }

    /// A ring that makes no sense: the driver must reset.
    fn stop_queue(&mut self, index: u16, error: &QueueError) {
        self.end_queue(index);
        self.shared.needs_reset(&format!("queue {index}: {error}"));
    }
}

fn has_buffers<B: Bitmap>(queue: &Queue, memory: &GuestMemoryMmap<B>) -> Result<bool, QueueError> {
    let available = queue.avail_idx(memory, Ordering::Acquire)?;
    Ok(available.0 != queue.next_avail())
}

/// The start of a request or answer, for the log: its header, and the ids that follow it.
fn start(bytes: &[u8]) -> &[u8] {
    bytes.get(..48).unwrap_or(bytes)
}

const CONTROL_QUEUE: u16 = 0;

/// Writes an answer to its buffer. Returns its length; 0 where the memory is gone.
fn answer<B: Bitmap>(room: &Room, response: &Response, memory: &GuestMemoryMmap<B>) -> u32 {
    let mut rest = response.bytes();
    for (address, length) in room {
        let (part, behind) = rest.split_at(rest.len().min(*length));
        if memory.write_slice(part, *address).is_err() {
            return 0;
        }
        rest = behind;
        if rest.is_empty() {
            break;
        }
    }
    let written = response.bytes().len().saturating_sub(rest.len());
    u32::try_from(written).unwrap_or(u32::MAX)
}

fn queue_from(setup: &QueueSetup, event_idx: bool) -> Result<Queue, QueueError> {
    let mut queue = Queue::new(setup.size)?;
    queue.try_set_size(setup.size)?;
    queue.try_set_desc_table_address(GuestAddress(setup.desc))?;
    queue.try_set_avail_ring_address(GuestAddress(setup.driver))?;
    queue.try_set_used_ring_address(GuestAddress(setup.device))?;
    queue.set_next_avail(setup.position.next_avail);
    queue.set_next_used(setup.position.next_used);
    queue.set_event_idx(event_idx);
    queue.set_ready(true);
    Ok(queue)
}
