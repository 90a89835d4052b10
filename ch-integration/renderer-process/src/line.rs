// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The short way between two processes that are awake: memory that both see.
//!
//! A message through a socket is two system calls, and a thread that is waked takes longer than most commands. So
//! requests, replies and fences go through rings here, each of which has one writer and one reader. A reader that sleeps
//! says so in the ring's word before it looks a last time, and a writer that finds the word set wakes it through the
//! socket: a message is never missed, and one that is awake costs no system call.
//!
//! The other process may write anything here at any time: each word is read once, and bytes are copied before they are
//! looked at.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use host_util::handshake;
use virtio_gpu_s3::{Fence, Timeline};
use vm_memory::{Bytes, MmapRegion, VolatileMemory, VolatileSlice};

use super::protocol::{MAX_HEAD, MAX_IN_FLIGHT, MessageError};

/// Bytes of all of it.
pub(super) const LINE_BYTES: usize = FENCES + FENCE_ROOM as usize * FENCE_BYTES;
const PAGE: usize = 4096;
/// Words that different processors write are not in one line of their caches, nor in two that are fetched together.
const APART: usize = 128;

/// Of the memory, where what begins: a page for the words, one ring for each way, one for fences.
const REQUESTS: Ring = Ring {
    put: 0,
    asleep: APART,
    slots: PAGE,
};
const REPLIES: Ring = Ring {
    put: 2 * APART,
    asleep: 3 * APART,
    slots: PAGE + RING_BYTES,
};
const PUT_FENCES: usize = 4 * APART;
const TAKEN_FENCES: usize = 5 * APART;
const NEWS_WANTED: usize = 6 * APART;
const FENCES: usize = PAGE + 2 * RING_BYTES;

/// A power of two, so that positions can wrap around.
const SLOTS: u32 = MAX_IN_FLIGHT;
const LENGTH_BYTES: usize = size_of::<u32>();
const SLOT_BYTES: usize = LENGTH_BYTES + MAX_HEAD;
const RING_BYTES: usize = SLOTS as usize * SLOT_BYTES;
const FENCE_BYTES: usize = 2 * size_of::<u64>();
/// Fences that wait here; those that find no room go through the socket.
const FENCE_ROOM: u32 = 256;
const _: () = assert!(SLOTS.is_power_of_two() && FENCE_ROOM.is_power_of_two());
const _: () = assert!(RING_BYTES.is_multiple_of(PAGE) && LINE_BYTES.is_multiple_of(PAGE));

/// The first word of a fence on the timeline of no context; that of others holds the context and the ring.
const GLOBAL: u64 = 1 << 63;

/// The memory, from `start` on.
#[derive(Clone, Debug)]
pub(super) struct Line {
    region: Arc<MmapRegion<()>>,
    start: usize,
}

/// Where the parts of a ring are.
#[derive(Clone, Copy, Debug)]
struct Ring {
    /// The word that counts messages.
    put: usize,
    /// The word that says whether the reader sleeps.
    asleep: usize,
    slots: usize,
}

/// Instead of a word that is not there. Whoever makes a [`Line`] has the memory for it.
static NOWHERE: AtomicU32 = AtomicU32::new(0);

impl Line {
    /// `start` is a multiple of a page, and [`LINE_BYTES`] follow it.
    pub(super) fn new(region: Arc<MmapRegion<()>>, start: usize) -> Self {
        Self { region, start }
    }

    /// The ends of the device.
    pub(super) fn device(&self) -> (Writer, Reader) {
        (self.writer(REQUESTS), self.reader(REPLIES))
    }

    /// The ends of the renderer.
    pub(super) fn renderer(&self) -> (Writer, Reader) {
        (self.writer(REPLIES), self.reader(REQUESTS))
    }

    fn writer(&self, ring: Ring) -> Writer {
        let (line, put) = (self.clone(), 0);
        Writer { line, ring, put }
    }

    fn reader(&self, ring: Ring) -> Reader {
        let (line, taken) = (self.clone(), 0);
        Reader { line, ring, taken }
    }

    /// Replies so far, as the renderer says.
    pub(super) fn replies(&self) -> u32 {
        self.word(REPLIES.put).load(Ordering::Relaxed)
    }

    /// Whether the device wants to be told, once, that there is something to find here. It looks once more after this.
    pub(super) fn want_news(&self, wanted: bool) {
        let word = self.word(NEWS_WANTED);
        if wanted {
            handshake::fall_asleep(word);
        } else {
            handshake::wake_up(word);
        }
    }

    /// Something was put here. Whether the device has to be told.
    pub(super) fn has_to_tell(&self) -> bool {
        handshake::must_wake(self.word(NEWS_WANTED))
    }

    /// The same right after [`Writer::put`], whose fence is enough.
    pub(super) fn has_to_tell_too(&self) -> bool {
        handshake::must_wake_too(self.word(NEWS_WANTED))
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

    /// The word with a message's length, and the bytes behind it.
    fn slot(
        &self,
        ring: Ring,
        index: u32,
        length: usize,
    ) -> Option<(&AtomicU32, VolatileSlice<'_, ()>)> {
        let at = ring.slots + index.checked_rem(SLOTS)? as usize * SLOT_BYTES;
        let bytes = self.start.checked_add(at + LENGTH_BYTES)?;
        Some((self.word(at), self.region.get_slice(bytes, length).ok()?))
    }
}

/// The end of a ring where messages are put. There are never more of them under way than it has room for: the device
/// sends no request more, and each has one reply.
#[derive(Debug)]
pub(super) struct Writer {
    line: Line,
    ring: Ring,
    put: u32,
}

impl Writer {
    /// Puts a message here, an empty one for what comes through the socket. Returns whether its reader has to be waked.
    ///
    /// # Errors
    /// It is too long.
    pub(super) fn put(&mut self, message: &[u8]) -> Result<bool, MessageError> {
        let Self { line, ring, put } = self;
        let length = u32::try_from(message.len()).map_err(|_| MessageError::Encode)?;
        let slot = line.slot(*ring, *put, message.len());
        let slot = slot.filter(|_| message.len() <= MAX_HEAD);
        let (word, bytes) = slot.ok_or(MessageError::Encode)?;
        bytes.copy_from(message);
        word.store(length, Ordering::Relaxed);
        *put = put.wrapping_add(1);
        line.word(ring.put).store(*put, Ordering::Release);
        Ok(handshake::must_wake(line.word(ring.asleep)))
    }
}

/// The end of a ring where messages are taken.
#[derive(Debug)]
pub(super) struct Reader {
    line: Line,
    ring: Ring,
    /// Not read from the memory, where the other process could change it.
    taken: u32,
}

impl Reader {
    pub(super) fn has_news(&self) -> bool {
        self.line.word(self.ring.put).load(Ordering::Relaxed) != self.taken
    }

    /// Takes the next message, if there is one.
    ///
    /// # Errors
    /// It has a length that none has, or there are more than there is room for.
    pub(super) fn take(&mut self, target: &mut [u8]) -> Result<Option<usize>, MessageError> {
        let Self { line, ring, taken } = self;
        let put = line.word(ring.put).load(Ordering::Acquire);
        match put.wrapping_sub(*taken) {
            0 => return Ok(None),
            1..=SLOTS => {}
            _ => return Err(MessageError::Decode),
        }
        let (word, _) = line.slot(*ring, *taken, 0).ok_or(MessageError::Decode)?;
        let length = usize::try_from(word.load(Ordering::Relaxed));
        let length = length.map_err(|_| MessageError::Decode)?;
        let target = target.get_mut(..length).filter(|_| length <= MAX_HEAD);
        let slot = target.zip(line.slot(*ring, *taken, length));
        let (target, (_, bytes)) = slot.ok_or(MessageError::Decode)?;
        bytes
            .read_slice(target, 0)
            .map_err(|_| MessageError::Decode)?;
        *taken = taken.wrapping_add(1);
        Ok(Some(length))
    }

    /// The reader sleeps from now on, and is waked through the socket. False if there is a message.
    pub(super) fn sleep(&self) -> bool {
        handshake::fall_asleep(self.line.word(self.ring.asleep));
        if self.has_news() {
            self.wake();
            return false;
        }
        true
    }

    /// The reader looks again.
    pub(super) fn wake(&self) {
        handshake::wake_up(self.line.word(self.ring.asleep));
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

    /// Puts fences here. Returns those that have no room.
    pub(super) fn put<'a>(&mut self, fences: &'a [Fence]) -> &'a [Fence] {
        let mut rest = fences;
        while let Some((fence, behind)) = rest.split_first() {
            let taken = self.line.word(TAKEN_FENCES).load(Ordering::Acquire);
            if self.put.wrapping_sub(taken) >= FENCE_ROOM || !self.write(*fence) {
                break;
            }
            self.put = self.put.wrapping_add(1);
            let word = self.line.word(PUT_FENCES);
            word.store(self.put, Ordering::Release);
            rest = behind;
        }
        rest
    }

    /// Whether the device has to be told of what was put here.
    pub(super) fn has_to_tell(&self) -> bool {
        self.line.has_to_tell()
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
