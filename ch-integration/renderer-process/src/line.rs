// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The short way between two processes that are awake: memory that both see.
//!
//! A message through a socket is two system calls, and a thread that is waked takes longer than most commands. Who
//! looks for a message finds it here; who sleeps gets it through the socket, and says so beforehand in the word that
//! the writer has to change. So each message goes one way, and neither is looked for twice.
//!
//! The other process may write anything here at any time: each word is read once, and bytes are copied before they are
//! looked at.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use virtio_gpu_s3::{Fence, Timeline};
use vm_memory::{Bytes, MmapRegion, VolatileMemory, VolatileSlice};

use super::protocol::{MAX_HEAD, MessageError};

/// Bytes of all of it.
pub(super) const LINE_BYTES: usize = 4 * PAGE;
const PAGE: usize = 4096;
/// Words that different processors write are not in one line of their caches, nor in two that are fetched together.
const APART: usize = 128;

/// Of the memory, where what begins: a page for the words, one for each slot, one for fences.
const CALL: usize = 0;
const ANSWER: usize = APART;
const PUT_FENCES: usize = 2 * APART;
const TAKEN_FENCES: usize = 3 * APART;
const LOOKED_FOR: usize = 4 * APART;
const CALL_BYTES: usize = PAGE;
const ANSWER_BYTES: usize = 2 * PAGE;
const FENCES: usize = 3 * PAGE;

const LENGTH_BYTES: usize = size_of::<u32>();
const FENCE_BYTES: usize = 2 * size_of::<u64>();
/// Fences that wait here; those that find no room go through the socket.
const FENCE_ROOM: u32 = 256;
const _: () = assert!(FENCES + FENCE_ROOM as usize * FENCE_BYTES == LINE_BYTES);
const _: () = assert!(LENGTH_BYTES + MAX_HEAD <= PAGE);

/// What a slot's word says: its reader looks for a message,
const LOOKING: u32 = 0;
/// sleeps until one comes through the socket,
const ASLEEP: u32 = 1;
/// or has not yet taken the one that is there.
const FULL: u32 = 2;

/// The first word of a fence on the timeline of no context; that of others holds the context and the ring.
const GLOBAL: u64 = 1 << 63;

/// The memory, from `start` on.
#[derive(Clone, Debug)]
pub(super) struct Line {
    region: Arc<MmapRegion<()>>,
    start: usize,
}

/// Instead of a word that is not there. Whoever makes a [`Line`] has the memory for it.
static NOWHERE: AtomicU32 = AtomicU32::new(ASLEEP);

impl Line {
    /// `start` is a multiple of a page, and [`LINE_BYTES`] follow it.
    pub(super) fn new(region: Arc<MmapRegion<()>>, start: usize) -> Self {
        Self { region, start }
    }

    pub(super) fn calls(&self) -> Slot<'_> {
        self.slot(CALL, CALL_BYTES)
    }

    pub(super) fn answers(&self) -> Slot<'_> {
        self.slot(ANSWER, ANSWER_BYTES)
    }

    fn slot(&self, word: usize, bytes: usize) -> Slot<'_> {
        Slot {
            line: self,
            word,
            bytes,
        }
    }

    /// Whether the device looks for fences, and need not be waked for them.
    pub(super) fn look_for_fences(&self, looks: bool) {
        self.word(LOOKED_FOR).store(looks.into(), Ordering::Relaxed);
        // Either the renderer sees that nobody looks, or the device's next look sees its fences.
        fence(Ordering::SeqCst);
    }

    fn word(&self, at: usize) -> &AtomicU32 {
        let at = self.start.saturating_add(at);
        self.region.get_atomic_ref(at).unwrap_or(&NOWHERE)
    }

    fn fence_word(&self, index: u32, at: usize) -> Option<&AtomicU64> {
        let index = index.checked_rem(FENCE_ROOM)? as usize;
        let at = FENCES + index * FENCE_BYTES + at * size_of::<u64>();
        self.region.get_atomic_ref(self.start.checked_add(at)?).ok()
    }
}

/// Room for one message.
#[derive(Debug)]
pub(super) struct Slot<'a> {
    line: &'a Line,
    word: usize,
    bytes: usize,
}

impl Slot<'_> {
    fn word(&self) -> &AtomicU32 {
        self.line.word(self.word)
    }

    fn length(&self) -> &AtomicU32 {
        self.line.word(self.bytes)
    }

    /// Its bytes, behind the length.
    fn bytes(&self, length: usize) -> Option<VolatileSlice<'_, ()>> {
        let start = self.line.start.checked_add(self.bytes + LENGTH_BYTES)?;
        self.line.region.get_slice(start, length).ok()
    }

    fn change(&self, from: u32, to: u32) -> bool {
        let changed = self
            .word()
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed);
        changed.is_ok()
    }

    /// Puts a message here. False if its reader sleeps, or it is too long: then it has to go through the socket.
    pub(super) fn put(&self, message: &[u8]) -> bool {
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        if message.len() > MAX_HEAD || self.word().load(Ordering::Relaxed) != LOOKING {
            return false;
        }
        let bytes = self.bytes(message.len());
        let written = bytes.is_some_and(|bytes| bytes.write_slice(message, 0).is_ok());
        self.length().store(length, Ordering::Relaxed);
        written && self.change(LOOKING, FULL)
    }

    pub(super) fn is_full(&self) -> bool {
        self.word().load(Ordering::Relaxed) == FULL
    }

    /// Takes the message, if there is one.
    ///
    /// # Errors
    /// It has a length that none has.
    pub(super) fn take(&self, target: &mut [u8]) -> Result<Option<usize>, MessageError> {
        if self.word().load(Ordering::Acquire) != FULL {
            return Ok(None);
        }
        let length = self.length().load(Ordering::Relaxed);
        let length = usize::try_from(length).map_err(|_| MessageError::Decode)?;
        let target = target.get_mut(..length).filter(|_| length <= MAX_HEAD);
        let (target, bytes) = target.zip(self.bytes(length)).ok_or(MessageError::Decode)?;
        bytes
            .read_slice(target, 0)
            .map_err(|_| MessageError::Decode)?;
        self.word().store(LOOKING, Ordering::Release);
        Ok(Some(length))
    }

    /// The reader sleeps from now on. False if there is a message.
    pub(super) fn sleep(&self) -> bool {
        self.change(LOOKING, ASLEEP)
    }

    /// The reader looks again.
    pub(super) fn wake(&self) {
        self.change(ASLEEP, LOOKING);
    }
}

/// The renderer's end of the fences.
#[derive(Debug)]
pub(super) struct FenceWriter {
    line: Line,
    put: u32,
}

impl FenceWriter {
    pub(super) fn new(line: Line) -> Self {
        Self { line, put: 0 }
    }

    /// Puts fences here. False where nobody looks for them, or some have no room: then all have to go through the
    /// socket, where it is no harm that some come twice.
    pub(super) fn put(&mut self, fences: &[Fence]) -> bool {
        let looked_for = self.line.word(LOOKED_FOR);
        if looked_for.load(Ordering::Relaxed) == 0 {
            return false;
        }
        for fence in fences {
            let taken = self.line.word(TAKEN_FENCES).load(Ordering::Acquire);
            if self.put.wrapping_sub(taken) >= FENCE_ROOM || !self.write(*fence) {
                return false;
            }
            self.put = self.put.wrapping_add(1);
            self.line
                .word(PUT_FENCES)
                .store(self.put, Ordering::Release);
        }
        // See `look_for_fences`.
        fence(Ordering::SeqCst);
        looked_for.load(Ordering::Relaxed) != 0
    }

    fn write(&self, fence: Fence) -> bool {
        let line = match fence.timeline {
            Timeline::Global => GLOBAL,
            Timeline::Ring { ctx_id, ring_idx } => {
                u64::from(ctx_id) | u64::from(ring_idx) << u32::BITS
            }
        };
        let words = [line, fence.id];
        words.into_iter().enumerate().all(|(at, value)| {
            let word = self.line.fence_word(self.put, at);
            word.map(|word| word.store(value, Ordering::Relaxed))
                .is_some()
        })
    }
}

/// The device's end of the fences.
#[derive(Debug)]
pub(super) struct FenceReader {
    line: Line,
    /// Not read from the memory, where the renderer could change it.
    taken: u32,
}

impl FenceReader {
    pub(super) fn new(line: Line) -> Self {
        Self { line, taken: 0 }
    }

    /// Takes what is there.
    ///
    /// # Errors
    /// There are more than there is room for, or one makes no sense.
    pub(super) fn take(&mut self, fences: &mut Vec<Fence>) -> Result<(), MessageError> {
        let put = self.line.word(PUT_FENCES).load(Ordering::Acquire);
        let count = put.wrapping_sub(self.taken);
        if count == 0 {
            return Ok(());
        }
        if count > FENCE_ROOM {
            return Err(MessageError::Decode);
        }
        for _ in 0..count {
            fences.push(self.read().ok_or(MessageError::Decode)?);
            self.taken = self.taken.wrapping_add(1);
        }
        let word = self.line.word(TAKEN_FENCES);
        word.store(self.taken, Ordering::Release);
        Ok(())
    }

    fn read(&self) -> Option<Fence> {
        let word = |at| {
            let word = self.line.fence_word(self.taken, at)?;
            Some(word.load(Ordering::Relaxed))
        };
        let (line, id) = (word(0)?, word(1)?);
        let timeline = match line.to_le_bytes() {
            _ if line == GLOBAL => Timeline::Global,
            [a, b, c, d, ring_idx, 0, 0, 0] => Timeline::Ring {
                ctx_id: u32::from_le_bytes([a, b, c, d]),
                ring_idx,
            },
            _ => return None,
        };
        Some(Fence { timeline, id })
    }
}

#[cfg(test)]
mod tests;
