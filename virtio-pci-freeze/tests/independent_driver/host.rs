// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The machine: the function, memory, and an entropy device behind its queue.

use virtio_pci_freeze::guest::ConfigAccess;
use virtio_pci_freeze::test_utils::Machine;
use virtio_pci_freeze::{Effect, QueueSetup};
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// What the entropy device hands out.
pub(crate) const ENTROPY: u8 = 0x5a;

#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) machine: Machine,
    memory: GuestMemoryMmap,
}

impl Host {
    pub(crate) fn new(machine: Machine, memory: GuestMemoryMmap) -> Self {
        Self { machine, memory }
    }

    pub(crate) fn read_bar(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        self.machine.read_bar(bar, offset, data);
        self.serve();
    }

    pub(crate) fn write_bar(&mut self, bar: u8, offset: u64, data: &[u8]) {
        self.machine.write_bar(bar, offset, data);
        self.serve();
    }

    pub(crate) fn read_config(&mut self, offset: u16) -> u32 {
        let mut data = [0; 4];
        let Ok(()) = self.machine.read(offset, &mut data);
        self.serve();
        u32::from_le_bytes(data)
    }

    pub(crate) fn write_config(&mut self, offset: u16, value: u32) {
        self.machine.config_write(offset, &value.to_le_bytes());
        self.serve();
    }

    /// Carries out what the last access asked of the device.
    fn serve(&mut self) {
        let log = self.machine.device.log.clone();
        let seen = self.machine.device.log.len();
        let kicked = log
            .iter()
            .any(|e| matches!(e, Effect::Kick | Effect::Notify { .. }));
        if kicked {
            let setups: Vec<_> = self.machine.function.transport().active_queues().collect();
            setups.iter().for_each(|setup| self.serve_queue(setup));
        }
        self.machine.device.log.drain(..seen);
    }

    fn serve_queue(&mut self, setup: &QueueSetup) {
        let index = usize::from(setup.index);
        let mut queue = Queue::new(setup.size).expect("a queue");
        let halves = |address: u64| {
            let half = |shift: u32| u32::try_from(address >> shift & 0xffff_ffff).ok();
            (half(0), half(32))
        };
        let (low, high) = halves(setup.desc);
        queue.set_desc_table_address(low, high);
        let (low, high) = halves(setup.driver);
        queue.set_avail_ring_address(low, high);
        let (low, high) = halves(setup.device);
        queue.set_used_ring_address(low, high);
        queue.set_size(setup.size);
        let position = self.machine.device.positions[index];
        queue.set_next_avail(position.next_avail);
        queue.set_next_used(position.next_used);
        queue.set_ready(true);
        let chains: Vec<_> = queue.iter(&self.memory).expect("a sound ring").collect();
        for chain in &chains {
            let mut written = 0;
            for descriptor in chain.clone().writable() {
                let bytes = vec![ENTROPY; descriptor.len() as usize];
                self.memory
                    .write_slice(&bytes, descriptor.addr())
                    .expect("memory");
                written += descriptor.len();
            }
            let head = chain.head_index();
            queue
                .add_used(&self.memory, head, written)
                .expect("a used ring");
        }
        let position = &mut self.machine.device.positions[index];
        position.next_avail = queue.next_avail();
        position.next_used = queue.next_used();
        if !chains.is_empty() {
            let effects = self.machine.function.queue_used(setup.index);
            self.machine.carry_out(effects);
        }
    }

    /// Whether an address is memory of the guest.
    pub(crate) fn is_memory(&self, address: u64) -> bool {
        self.memory.read_obj::<u8>(GuestAddress(address)).is_ok()
    }
}
