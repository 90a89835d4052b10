// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An activation: the driver's memory and queues, and the answers that it is owed.

mod proof;

use std::mem;

use host_util::log_source::GUEST;
use virtio_gpu_s3::protocol::Queue as QueueKind;
use virtio_gpu_s3::{Completed, Gpu, Outcome, Request, Response, Token};
use virtio_pci_freeze::{QueueSetup, RingPosition};
use virtio_queue::{DescriptorChain, Error as QueueError};
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic};

use crate::claim::Claim;
use crate::frontend::{Memory, QUEUE_SIZES};
use crate::gate::Gate;
use crate::ring::{MemoryGuard, Ring};

/// Buffers taken from one queue before the worker looks at commands again, so that a guest that never stops cannot
/// keep a reset waiting.
const BATCH: usize = 64;

/// Bytes of a descriptor that are read in any case.
const SHORT: usize = 64;

/// Where a buffer can be written: addresses of the guest, which stay good if the VMM maps its memory elsewhere.
type Room = Vec<(GuestAddress, usize)>;

/// A queue's bit in a mask of queues.
pub fn bit(queue: u16) -> u64 {
    1u64.checked_shl(queue.into()).unwrap_or(0)
}

/// A buffer that the driver is owed an answer for.
#[derive(Debug)]
struct Owed {
    token: Token,
    queue: u16,
    head: u16,
    room: Room,
    /// There once the command is done; not written where the gate is shut.
    answer: Option<Response>,
}

/// A queue that makes no sense, and why.
pub(crate) type BrokenQueue = (u16, QueueError);

/// What executes commands, whoever drives the device.
pub(crate) struct Executor {
    pub(crate) gpu: Gpu,
    /// Descriptor chains so far that made no sense.
    pub(crate) bad_chains: u64,
    max_request: usize,
    request: Request,
    readable: Room,
    room: Room,
    response: Response,
    pub(crate) spares: Spares,
}

/// Memory of answers that were given, for those to come: never for more than were owed at once.
pub(crate) type Spares = Vec<(Room, Response)>;

impl Executor {
    pub(crate) fn new(gpu: Gpu, max_request: usize) -> Self {
        Self {
            gpu,
            bad_chains: 0,
            max_request,
            request: Request::default(),
            readable: Room::new(),
            room: Room::new(),
            response: Response::default(),
            spares: Spares::new(),
        }
    }
}

/// What a session did that others must hear of.
#[derive(Debug, Default)]
pub(crate) struct Served {
    /// Queues whose driver wants to know, as a mask.
    pub(crate) notify: u64,
    pub(crate) broken: Vec<BrokenQueue>,
}

/// Between DRIVER_OK and the reset that ends it.
pub(crate) struct Session<M: Memory> {
    memory: GuestMemoryAtomic<M>,
    event_idx: bool,
    /// By number; empty where one does not run, or is being served.
    queues: [Option<Ring>; QUEUE_SIZES.len()],
    /// Queues with work left, as a mask.
    ready: u64,
    owed: Vec<Owed>,
    claim: Claim,
}

impl<M: Memory> Session<M> {
    pub(crate) fn new(memory: GuestMemoryAtomic<M>, event_idx: bool) -> Self {
        Self {
            memory,
            event_idx,
            queues: [const { None }; QUEUE_SIZES.len()],
            ready: 0,
            owed: Vec::new(),
            claim: Claim::Good,
        }
    }

    pub(crate) fn memory(&self) -> MemoryGuard<M> {
        self.memory.memory()
    }

    pub(crate) fn is_owed(&self) -> bool {
        !self.owed.is_empty()
    }

    #[cfg(any(test, feature = "test-utils"))]
    pub(crate) fn owed(&self) -> usize {
        self.owed.len()
    }

    /// Whether an owed answer is there to be written.
    pub(crate) fn is_done(&self) -> bool {
        self.owed.iter().any(|owed| owed.answer.is_some())
    }

    /// These queues may have work.
    pub(crate) fn note(&mut self, rung: u64) {
        self.ready |= rung;
    }

    pub(crate) fn running(&self) -> usize {
        self.queues.iter().flatten().count()
    }

    pub(crate) fn start_queue(&mut self, setup: &QueueSetup) -> Result<(), BrokenQueue> {
        let ring = Ring::new(setup, self.event_idx).map_err(|error| (setup.index, error))?;
        // The transport has no other queues.
        if let Some(slot) = self.queues.get_mut(usize::from(setup.index)) {
            *slot = Some(ring);
        }
        Ok(())
    }

    /// The queue's buffers belong to nobody from now on (VIRTIO 1.4 §2.6.1).
    pub(crate) fn end_queue(&mut self, index: u16) {
        if let Some(slot) = self.queues.get_mut(usize::from(index)) {
            *slot = None;
        }
        self.owed.retain(|owed| owed.queue != index);
    }

    /// Where the rings stand.
    pub(crate) fn positions(&self) -> [RingPosition; QUEUE_SIZES.len()] {
        let mut positions = [RingPosition::default(); QUEUE_SIZES.len()];
        for (slot, position) in self.queues.iter().zip(&mut positions) {
            if let Some(ring) = slot {
                *position = ring.position();
            }
        }
        positions
    }

    /// Looks at the rings: a driver that was told not to ring does not, and a queue that is never empty shall not keep the
    /// other waiting. Returns whether there is work.
    pub(crate) fn find_work(&mut self) -> bool {
        let memory = self.memory.memory();
        for (index, queue) in (0..).zip(&self.queues) {
            let Some(queue) = queue else {
                continue;
            };
            // A VMM may have unmapped it for a while; a doorbell says that it should be there.
            if queue.has_buffers(&*memory).unwrap_or(false) {
                self.ready |= bit(index);
            }
        }
        self.ready != 0
    }

    /// Whether all rings are in memory.
    pub(crate) fn has_its_rings(&self) -> bool {
        let memory = self.memory.memory();
        let mut queues = self.queues.iter().flatten();
        queues.all(|ring| ring.is_in(&*memory))
    }

    /// Before a sleep. Returns whether a driver was faster.
    pub(crate) fn ask_for_doorbells(&mut self) -> bool {
        let memory = self.memory.memory();
        for (index, queue) in (0..).zip(&mut self.queues) {
            let more = queue
                .as_mut()
                .map(|queue| queue.ask_for_doorbells(&*memory));
            // Where it is unmapped the word that it is mapped again leads here too.
            if matches!(more, Some(Ok(true))) {
                self.ready |= bit(index);
            }
        }
        self.ready != 0
    }

    /// One batch from each queue that has work.
    pub(crate) fn serve(&mut self, executor: &mut Executor, gate: &Gate) -> Served {
        let mut served = Served::default();
        let ready = mem::take(&mut self.ready);
        for index in (0..).take(QUEUE_SIZES.len()) {
            if ready & bit(index) == 0 {
                continue;
            }
            match self.serve_queue(index, executor, gate) {
                Ok(Batch { more, notify }) => {
                    self.ready |= if more { bit(index) } else { 0 };
                    served.notify |= if notify { bit(index) } else { 0 };
                }
                Err(error) => self.break_queue((index, error), &mut served),
            }
        }
        self.collect(executor.gpu.take_completed());
        self.answer(&mut executor.spares, &mut served);
        served
    }

    fn serve_queue(
        &mut self,
        index: u16,
        executor: &mut Executor,
        gate: &Gate,
    ) -> Result<Batch, QueueError> {
        let slot = self.queues.get_mut(usize::from(index));
        let Some(mut queue) = slot.and_then(Option::take) else {
            return Ok(Batch::default());
        };
        let batch = self.drain((index, &mut queue), executor, gate);
        if let Some(slot) = self.queues.get_mut(usize::from(index)) {
            *slot = Some(queue);
        }
        batch
    }

    /// Takes up to a batch of buffers, and notifies once at the end. The driver need not ring until the worker sleeps.
    fn drain(
        &mut self,
        (index, queue): (u16, &mut Ring),
        executor: &mut Executor,
        gate: &Gate,
    ) -> Result<Batch, QueueError> {
        let mut batch = Batch::default();
        let mut used = false;
        let mut memory = self.memory.memory();
        queue.spare_doorbells(&*memory)?;
        for _ in 0..BATCH {
            batch.more = gate.may_take() && queue.has_buffers(&*memory)?;
            if !batch.more {
                break;
            }
            // A driver behind a vIOMMU maps a buffer just before it offers it.
            memory = self.memory.memory();
            let chain = queue.take(&memory)?;
            let head = chain.head_index();
            if let Some(written) = self.process(index, chain, &memory, executor) {
                queue.add_used(&*memory, head, written)?;
                used = true;
            }
        }
        batch.notify = used && queue.wants_interrupt(&*memory)?;
        Ok(batch)
    }

    /// Executes one buffer. Returns how many bytes of answer it has, or `None` if the answer comes later.
    fn process(
        &mut self,
        index: u16,
        chain: DescriptorChain<MemoryGuard<M>>,
        memory: &MemoryGuard<M>,
        executor: &mut Executor,
    ) -> Option<u32> {
        let head = chain.head_index();
        if executor.take(chain, memory).is_none() {
            executor.bad_chains = executor.bad_chains.saturating_add(1);
            return Some(0);
        }
        let Executor {
            gpu,
            request,
            room,
            response,
            spares,
            ..
        } = executor;
        let bytes = room.iter().map(|(_, length)| *length);
        response.restart(bytes.fold(0, usize::saturating_add));
        let kind = if index == CONTROL_QUEUE {
            QueueKind::Control
        } else {
            QueueKind::Cursor
        };
        let outcome = gpu.handle(kind, request, &**memory, response);
        match outcome {
            Outcome::Done => {
                GUEST.trace(format_args!(
                    "queue {index}: {:02x?} -> {:02x?}",
                    start(request.head()),
                    start(response.bytes())
                ));
                Some(write_answer(room, response, &**memory))
            }
            Outcome::Deferred(token) => {
                let (spare_room, spare) = spares.pop().unwrap_or_default();
                *response = spare;
                self.owed.push(Owed {
                    token,
                    queue: index,
                    head,
                    room: mem::replace(room, spare_room),
                    answer: None,
                });
                None
            }
        }
    }

    /// Notes which commands are done. Returns whether there were any.
    pub(crate) fn collect(&mut self, completed: impl Iterator<Item = Completed>) -> bool {
        let mut some = false;
        for Completed { token, response } in completed {
            // Tokens only grow.
            let at = self.owed.binary_search_by_key(&token, |owed| owed.token);
            if let Some(owed) = at.ok().and_then(|at| self.owed.get_mut(at)) {
                owed.answer = Some(response);
                some = true;
            }
        }
        some
    }

    /// Answers the commands that are done, in the order in which they were taken.
    pub(crate) fn answer(&mut self, spares: &mut Spares, served: &mut Served) {
        if self.owed.is_empty() {
            return;
        }
        let memory = self.memory.memory();
        let queues = &mut self.queues;
        let (mut used, mut broken) = (0, Vec::new());
        for owed in self.owed.extract_if(.., |owed| owed.answer.is_some()) {
            let Some(Some(queue)) = queues.get_mut(usize::from(owed.queue)) else {
                continue;
            };
            match use_buffer(queue, &owed, &*memory) {
                Ok(()) => used |= bit(owed.queue),
                Err(error) => broken.push((owed.queue, error)),
            }
            spares.extend(owed.answer.map(|answer| (owed.room, answer)));
        }
        // Once for all that was used.
        for (index, queue) in (0..).zip(queues.iter_mut()) {
            let Some(queue) = queue.as_mut().filter(|_| used & bit(index) != 0) else {
                continue;
            };
            match queue.wants_interrupt(&*memory) {
                Ok(true) => served.notify |= bit(index),
                Ok(false) => {}
                Err(error) => broken.push((index, error)),
            }
        }
        for broken in broken {
            self.break_queue(broken, served);
        }
    }

    fn break_queue(&mut self, broken: BrokenQueue, served: &mut Served) {
        self.end_queue(broken.0);
        served.broken.push(broken);
    }
}

/// What came of one batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Batch {
    /// Whether there may be more buffers.
    more: bool,
    /// Whether the driver wants to know.
    notify: bool,
}

impl Executor {
    /// Reads what is to be read of a buffer, and notes where it can be written. `None` of one that is not all in guest
    /// memory, or longer than any address (VIRTIO 1.4 §2.7.5.2).
    fn take<M: Memory>(
        &mut self,
        chain: DescriptorChain<MemoryGuard<M>>,
        memory: &MemoryGuard<M>,
    ) -> Option<()> {
        self.readable.clear();
        self.room.clear();
        let mut total = 0_u32;
        for descriptor in chain {
            total = total.checked_add(descriptor.len())?;
            let length = usize::try_from(descriptor.len()).ok()?;
            // A short one that is to be read is read below, whole, and that finds out too.
            let is_read = !descriptor.is_write_only() && length <= SHORT.min(self.max_request);
            if !is_read && !memory.check_range(descriptor.addr(), length) {
                return None;
            }
            let ranges = if descriptor.is_write_only() {
                &mut self.room
            } else {
                &mut self.readable
            };
            ranges.push((descriptor.addr(), length));
        }
        let loaded = self
            .request
            .load(&self.readable, self.max_request, &**memory);
        loaded.ok()
    }
}

/// Gives a buffer back with its answer.
fn use_buffer<M: Memory>(queue: &mut Ring, owed: &Owed, memory: &M) -> Result<(), QueueError> {
    let Some(answer) = &owed.answer else {
        return Ok(());
    };
    let written = write_answer(&owed.room, answer, memory);
    queue.add_used(memory, owed.head, written)
}

/// The start of a request or answer, for the log: its header, and the ids that follow it.
fn start(bytes: &[u8]) -> &[u8] {
    bytes.get(..48).unwrap_or(bytes)
}

const CONTROL_QUEUE: u16 = 0;

/// Writes an answer to its buffer. Returns its length; 0 where the memory is gone.
fn write_answer<M: Memory>(room: &Room, response: &Response, memory: &M) -> u32 {
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

#[cfg(test)]
mod tests {
    use super::*;
    use virtio_gpu_s3::{Activation, GpuConfig, NullRenderer, OutputConfig};
    use virtio_gpu_s3_testing::request;
    use vm_memory::GuestMemoryMmap;

    const DESCRIPTORS: u64 = 0x1000;
    const AVAILABLE: u64 = 0x4000;
    const USED: u64 = 0x6000;
    const REQUEST: u64 = 0x8000;

    /// A driver that offers the same request `count` times on the control queue.
    fn offering(count: u16) -> (Session<GuestMemoryMmap>, Executor, GuestMemoryMmap) {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap();
        let request = request::get_display_info();
        let length = u32::try_from(request.len()).unwrap();
        memory.write_slice(&request, GuestAddress(REQUEST)).unwrap();
        for index in 0..count {
            let at = DESCRIPTORS + u64::from(index) * 16;
            memory.write_obj(REQUEST, GuestAddress(at)).unwrap();
            memory.write_obj(length, GuestAddress(at + 8)).unwrap();
            let place = AVAILABLE + 4 + u64::from(index) * 2;
            memory.write_obj(index, GuestAddress(place)).unwrap();
        }
        memory
            .write_obj(count, GuestAddress(AVAILABLE + 2))
            .unwrap();
        let shared = GuestMemoryAtomic::new(memory.clone());
        let mut session = Session::new(shared, false);
        let setup = QueueSetup {
            index: 0,
            size: 256,
            vector: 0,
            desc: DESCRIPTORS,
            driver: AVAILABLE,
            device: USED,
            position: RingPosition::default(),
        };
        session.start_queue(&setup).unwrap();
        let output = OutputConfig {
            width: 64,
            height: 64,
        };
        let config = GpuConfig::new(vec![output]).unwrap();
        let mut gpu = Gpu::new(config, Box::new(NullRenderer)).unwrap();
        gpu.activate(gpu.device_features(), Activation::Fresh);
        (session, Executor::new(gpu, 4096), memory)
    }

    fn taken(session: &Session<GuestMemoryMmap>) -> u16 {
        session.positions()[0].next_avail
    }

    #[test]
    fn a_driver_that_offers_without_end_is_served_a_batch_at_a_time() {
        let (mut session, mut executor, memory) = offering(200);
        let gate = Gate::default();
        gate.open();
        assert!(session.find_work());
        for batches in 1..=3 {
            let served = session.serve(&mut executor, &gate);
            assert_eq!(usize::from(taken(&session)), batches * BATCH);
            assert_eq!(served.notify, bit(0), "once a batch");
        }
        session.serve(&mut executor, &gate);
        assert_eq!(taken(&session), 200);
        assert_eq!(memory.read_obj::<u16>(GuestAddress(USED + 2)).unwrap(), 200);
    }

    #[test]
    fn no_buffer_is_taken_once_a_reset_was_asked_for() {
        let (mut session, mut executor, _memory) = offering(10);
        let gate = Gate::default();
        gate.open();
        assert!(session.find_work());
        gate.end();
        session.serve(&mut executor, &gate);
        assert_eq!(taken(&session), 0);
    }
}
