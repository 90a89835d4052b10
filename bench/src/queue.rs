// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The driver's side of a control queue: a split ring in guest memory (VIRTIO 1.4 §2.7).

use std::cell::RefCell;
use std::hint::spin_loop;
use std::rc::Rc;
use std::sync::atomic::{Ordering, fence};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::ram::Ram;

/// Longer than any command takes.
const LIMIT: Duration = Duration::from_secs(20);
/// Spins between two looks at the clock, and two chances for others on this core.
const SPINS: u32 = 4096;
/// Requests in flight at most: half of the smallest queue of any contender, as each takes two descriptors.
const SLOTS: u16 = 32;
/// Room for a request: the longest attaches 16 384 pages.
const REQUEST: u64 = 320 << 10;
/// Room for short requests and every answer.
const SLOT: u64 = 1024;
const ANSWER: u32 = 512;
const OK_NODATA: u32 = 0x1100;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
/// VIRTQ_USED_F_NO_NOTIFY.
const NO_NOTIFY: u16 = 1;

/// How a driver tells its device that there is something to do.
pub(crate) trait Doorbell {
    /// Rings.
    fn ring(&mut self) -> Result<()>;
    /// Takes what the way of the doorbell still has to say, once the device has answered.
    fn settle(&mut self) -> Result<()>;
}

/// Where a queue lies in guest memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Area {
    pub(crate) size: u16,
    pub(crate) desc: u64,
    pub(crate) avail: u64,
    pub(crate) used: u64,
    slots: u64,
    long_request: u64,
}

impl Area {
    /// An empty queue.
    pub(crate) fn allocate(ram: &mut Ram) -> Result<Self> {
        let page = 4096;
        let area = Self {
            size: SLOTS * 2,
            desc: ram.allocate(page)?,
            avail: ram.allocate(page)?,
            used: ram.allocate(page)?,
            slots: ram.allocate(SLOT * 2 * u64::from(SLOTS))?,
            long_request: ram.allocate(REQUEST)?,
        };
        for at in [area.desc, area.avail, area.used] {
            ram.memory().write_slice(&[0; 4096], GuestAddress(at))?;
        }
        Ok(area)
    }

    fn request(&self, slot: u16) -> u64 {
        self.slots + u64::from(slot) * SLOT * 2
    }

    fn answer(&self, slot: u16) -> u64 {
        self.request(slot) + SLOT
    }
}

/// A queue with its doorbell.
pub(crate) struct ControlQueue {
    memory: GuestMemoryMmap,
    area: Area,
    event_idx: bool,
    published: u16,
    /// Where each slot's request is and how long it is, as its descriptor says.
    offered: [(u64, u32); SLOTS as usize],
    doorbell: Rc<RefCell<dyn Doorbell>>,
}

impl ControlQueue {
    /// `event_idx`: whether VIRTIO_F_EVENT_IDX was negotiated.
    pub(crate) fn new(
        ram: &Ram,
        area: Area,
        event_idx: bool,
        doorbell: Rc<RefCell<dyn Doorbell>>,
    ) -> Result<Self> {
        let queue = Self {
            offered: [(0, 0); SLOTS as usize],
            memory: ram.memory().clone(),
            area,
            event_idx,
            published: 0,
            doorbell,
        };
        for slot in 0..SLOTS {
            let answer = area.answer(slot);
            queue.descriptor(slot * 2 + 1, answer, ANSWER, WRITE, 0)?;
        }
        queue.suppress_interrupts()?;
        Ok(queue)
    }

    /// Sends one request and waits for its answer, which must be that it worked.
    pub(crate) fn send(&mut self, request: &[u8]) -> Result<()> {
        self.send_all(&[request])
    }

    /// Sends up to [`SLOTS`] requests with one doorbell and waits for all answers, which must be that they worked.
    pub(crate) fn send_all<R: AsRef<[u8]>>(&mut self, requests: &[R]) -> Result<()> {
        for (slot, request) in (0..SLOTS).zip(requests) {
            self.offer(slot, request.as_ref())?;
        }
        let count = u16::try_from(requests.len())?;
        ensure!(count <= SLOTS, "too many requests at once");
        let before = self.published;
        self.published = before.wrapping_add(count);
        self.suppress_interrupts()?;
        let index = GuestAddress(self.area.avail + 2);
        self.memory
            .store(self.published, index, Ordering::Release)?;
        fence(Ordering::SeqCst);
        let ring = self.must_ring(before)?;
        if ring {
            self.doorbell.borrow_mut().ring()?;
        }
        self.wait()?;
        if ring {
            self.doorbell.borrow_mut().settle()?;
        }
        for slot in 0..count {
            let answer = GuestAddress(self.area.answer(slot));
            let type_: u32 = self.memory.read_obj(answer)?;
            ensure!(type_ == OK_NODATA, "the device answered {type_:#x}");
        }
        Ok(())
    }

    /// Whether the device asks for a doorbell (VIRTIO 1.4 §2.7.10), which one that looks at the ring anyway does not.
    fn must_ring(&self, before: u16) -> Result<bool> {
        if self.event_idx {
            let avail_event = self.area.used + 4 + u64::from(self.area.size) * 8;
            let asked: u16 = self
                .memory
                .load(GuestAddress(avail_event), Ordering::Relaxed)?;
            let since = |index: u16| self.published.wrapping_sub(index);
            return Ok(since(asked).wrapping_sub(1) < since(before));
        }
        let flags: u16 = self
            .memory
            .load(GuestAddress(self.area.used), Ordering::Relaxed)?;
        Ok(flags & NO_NOTIFY == 0)
    }

    fn offer(&mut self, slot: u16, request: &[u8]) -> Result<()> {
        let bytes = u64::try_from(request.len())?;
        let at = if bytes <= SLOT {
            self.area.request(slot)
        } else {
            ensure!(slot == 0 && bytes <= REQUEST, "the request is too long");
            self.area.long_request
        };
        self.memory.write_slice(request, GuestAddress(at))?;
        // An answer from before must not pass for one to this.
        let answer = self.area.answer(slot);
        self.memory.write_obj(0_u32, GuestAddress(answer))?;
        let length = u32::try_from(request.len())?;
        let slot_index = usize::from(slot);
        if self.offered.get(slot_index) != Some(&(at, length)) {
            self.descriptor(slot * 2, at, length, NEXT, slot * 2 + 1)?;
            if let Some(offered) = self.offered.get_mut(slot_index) {
                *offered = (at, length);
            }
        }
        let place = self.published.wrapping_add(slot) % self.area.size;
        let entry = GuestAddress(self.area.avail + 4 + u64::from(place) * 2);
        self.memory.write_obj(slot * 2, entry)?;
        Ok(())
    }

    /// Polls: what an interrupt costs depends on the hypervisor, which is not there.
    fn wait(&self) -> Result<()> {
        let index = GuestAddress(self.area.used + 2);
        let start = Instant::now();
        loop {
            for _ in 0..SPINS {
                let used: u16 = self.memory.load(index, Ordering::Acquire)?;
                if used == self.published {
                    return Ok(());
                }
                spin_loop();
            }
            ensure!(start.elapsed() < LIMIT, "the device does not answer");
            thread::yield_now();
        }
    }

    /// VIRTIO 1.4 §2.7.7: by used_event far away, or by the flag.
    fn suppress_interrupts(&self) -> Result<()> {
        let (at, value) = if self.event_idx {
            let used_event = self.area.avail + 4 + u64::from(self.area.size) * 2;
            (used_event, self.published.wrapping_add(0x4000))
        } else {
            (self.area.avail, 1)
        };
        self.memory.write_obj(value, GuestAddress(at))?;
        Ok(())
    }

    fn descriptor(
        &self,
        index: u16,
        address: u64,
        length: u32,
        flags: u16,
        next: u16,
    ) -> Result<()> {
        let at = self.area.desc + u64::from(index) * 16;
        self.memory.write_obj(address, GuestAddress(at))?;
        self.memory.write_obj(length, GuestAddress(at + 8))?;
        self.memory.write_obj(flags, GuestAddress(at + 12))?;
        self.memory.write_obj(next, GuestAddress(at + 14))?;
        Ok(())
    }
}
