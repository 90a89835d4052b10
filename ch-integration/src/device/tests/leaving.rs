// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guests that leave, sleep or reboot while the device owes them an answer.

use virtio_gpu_s3_testing::{RendererControl, ScriptedRenderer, request, scene};
use virtio_gpu_worker::State;
use virtio_pci_freeze::spec::pci;
use virtio_pci_freeze::{BarLayout, FreezeState, Register};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

use super::*;

const RAM: usize = 1 << 16;
const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
const REQUESTS: u64 = 0x8000;
const ANSWERS: u64 = 0xc000;
/// Where `BarLayout::VIRTIO` has the doorbells.
const NOTIFY: u64 = 0x3000;
/// Longer than anything takes that is not stuck.
const SOON: Duration = Duration::from_secs(20);

/// A guest with a ring in memory that its VMM shares with the device.
struct Ringing {
    guest: Guest,
    memory: GuestMemoryMmap,
    offered: u16,
}

fn new_memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM)]).unwrap()
}

fn bytes_of(memory: &GuestMemoryMmap) -> Vec<u8> {
    let mut bytes = vec![0; RAM];
    memory.read_slice(&mut bytes, GuestAddress(0)).unwrap();
    bytes
}

impl Ringing {
    /// With a command that the device took, and whose fence the renderer keeps.
    fn owed() -> Self {
        let (renderer, control) = ScriptedRenderer::new();
        let guest = Guest::new(renderer, control);
        let mut ringing = Self {
            guest,
            memory: new_memory(),
            offered: 0,
        };
        ringing.attach();
        ringing.send(&request::in_context(1, request::ctx_create(0)));
        ringing.wait_for_answers(1);
        ringing.renderer().hold_fences(true);
        ringing.send(&request::fenced(1, 1, request::submit_3d(&[0])));
        ringing.wait_until("the command to be taken", |ringing| {
            ringing.device().status().unwrap().counters.commands == 2
        });
        ringing
    }

    fn device(&self) -> &GpuDevice {
        &self.guest.device
    }

    fn renderer(&self) -> &RendererControl {
        &self.guest.renderer
    }

    fn attach(&self) {
        self.device().replace_memory(self.memory.clone());
        self.enable_msix();
        self.set_bus_master(true);
        self.guest.negotiate();
        self.guest.write(Register::QueueSelect, 0);
        self.guest.write(Register::QueueSize, 16);
        self.guest.write(Register::QueueDesc, DESCRIPTORS);
        self.guest.write(Register::QueueDriver, AVAILABLE);
        self.guest.write(Register::QueueDevice, USED);
        self.guest.write(Register::QueueEnable, 1);
        self.guest.write(Register::DeviceStatus, 0xf);
    }

    /// Without it, losing the bus alone is no sleep.
    fn enable_msix(&self) {
        let mut space = [0; 256];
        self.device().read_config(0, &mut space);
        let mut at = space[0x34];
        // The capability's id (PCI 3.0 §6.8.2).
        while space[usize::from(at)] != 0x11 {
            at = space[usize::from(at) + 1];
        }
        let enable = pci::MSIX_ENABLE.to_le_bytes();
        self.device().write_config(u16::from(at) + 2, &enable);
    }

    fn set_bus_master(&self, on: bool) {
        let command: u16 = if on { 6 } else { 2 };
        self.device()
            .write_config(pci::COMMAND.into(), &command.to_le_bytes());
    }

    fn send(&mut self, request: &[u8]) {
        let slot = u64::from(self.offered % 8);
        let (at, answer) = (REQUESTS + slot * 0x100, ANSWERS + slot * 0x100);
        let head = u16::try_from(slot * 2).unwrap();
        let length = u32::try_from(request.len()).unwrap();
        self.memory.write_slice(request, GuestAddress(at)).unwrap();
        self.descriptor(head, (at, length), (1, head + 1));
        self.descriptor(head + 1, (answer, 64), (2, 0));
        let place = AVAILABLE + 4 + u64::from(self.offered % 16) * 2;
        self.memory.write_obj(head, GuestAddress(place)).unwrap();
        self.offered += 1;
        let index = GuestAddress(AVAILABLE + 2);
        self.memory.write_obj(self.offered, index).unwrap();
        self.device()
            .write_bar(BarLayout::VIRTIO, NOTIFY, &0_u16.to_le_bytes());
    }

    fn descriptor(&self, index: u16, (at, length): (u64, u32), (flags, next): (u16, u16)) {
        let place = DESCRIPTORS + u64::from(index) * 16;
        let write = |offset: u64, bytes: &[u8]| {
            let at = GuestAddress(place + offset);
            self.memory.write_slice(bytes, at).unwrap();
        };
        write(0, &at.to_le_bytes());
        write(8, &length.to_le_bytes());
        write(12, &flags.to_le_bytes());
        write(14, &next.to_le_bytes());
    }

    fn used(&self) -> u16 {
        self.memory.read_obj(GuestAddress(USED + 2)).unwrap()
    }

    fn wait_until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            assert!(start.elapsed() < SOON, "{what} did not come to hold");
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn wait_for_answers(&self, count: u16) {
        self.wait_until("an answer", |ringing| ringing.used() == count);
    }

    /// Lets the renderer finish, and the worker do all that it wants to do about it.
    fn finish(&self) {
        self.renderer().hold_fences(false);
        for _ in 0..10 {
            self.device().status().unwrap();
            thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn a_late_answer_of_a_guest_that_left_reaches_no_memory_of_the_next() {
    let ringing = Ringing::owed();
    for _ in 0..60 {
        ringing.guest.write(Register::FreezeMode, 3);
        ringing.guest.write(Register::FreezeMode, 0);
    }
    let before = bytes_of(&ringing.memory);
    ringing.device().disconnected();
    let next = new_memory();
    ringing.device().connected();
    ringing.device().replace_memory(next.clone());
    ringing.set_bus_master(true);
    ringing.finish();
    assert!(bytes_of(&next).iter().all(|byte| *byte == 0));
    assert!(bytes_of(&ringing.memory) == before, "the guest had left");
}

#[test]
fn a_late_answer_of_a_guest_that_rebooted_is_never_written() {
    let ringing = Ringing::owed();
    ringing.guest.write(Register::DeviceStatus, 0);
    // Nothing holds this reset but that it is the same driver's, and this one looks for the device anew.
    ringing.device().function_reset();
    ringing.device().write_config(0x10, &[0xff; 4]);
    ringing.guest.wait_for_status(0);
    let before = bytes_of(&ringing.memory);
    ringing.finish();
    assert!(bytes_of(&ringing.memory) == before);
}

#[test]
fn sixty_freezes_that_the_guest_takes_back_keep_nobody_waiting() {
    let mut ringing = Ringing::owed();
    let events = ringing.device().subscribe();
    let start = Instant::now();
    for _ in 0..60 {
        ringing.guest.write(Register::FreezeMode, 3);
        ringing.guest.write(Register::FreezeMode, 0);
    }
    let status = ringing.device().status().unwrap();
    assert_eq!(status.freeze_mode, FreezeState::Unfrozen);
    // The device goes on, though what is owed since before is not done.
    ringing.send(&request::in_context(2, request::ctx_create(0)));
    ringing.wait_for_answers(2);
    assert!(start.elapsed() < QUIESCE_LIMIT);
    ringing.finish();
    ringing.wait_for_answers(3);
    assert_eq!(events.try_iter().count(), 0, "nothing was frozen");
}

#[test]
fn an_answer_waits_while_the_guest_may_not_be_written_to_and_then_comes() {
    let ringing = Ringing::owed();
    ringing.set_bus_master(false);
    let before = bytes_of(&ringing.memory);
    ringing.finish();
    assert!(bytes_of(&ringing.memory) == before, "bus mastering is off");
    ringing.set_bus_master(true);
    ringing.wait_for_answers(2);
}

/// The simulation found it: a reset lets answers out that are owed, and went on doing so without the bus.
#[test]
fn a_reset_under_way_writes_nothing_once_bus_mastering_is_off() {
    let ringing = Ringing::owed();
    ringing.guest.write(Register::FreezeMode, 3);
    ringing.guest.write(Register::DeviceStatus, 0);
    ringing.set_bus_master(false);
    let before = bytes_of(&ringing.memory);
    ringing.finish();
    ringing.guest.wait_for_status(0);
    assert!(bytes_of(&ringing.memory) == before, "bus mastering is off");
}

/// A guest that falls asleep with a command under way, and whose stock driver programs no queue when it wakes.
#[test]
fn an_answer_that_is_owed_over_a_sleep_is_given_to_the_driver_that_gets_its_queues_back() {
    let ringing = Ringing::owed();
    ringing.set_bus_master(false);
    let before = bytes_of(&ringing.memory);
    ringing.renderer().hold_fences(false);
    ringing.guest.write(Register::DeviceStatus, 0);
    ringing.guest.wait_for_status(0);
    assert!(bytes_of(&ringing.memory) == before, "bus mastering is off");
    ringing.set_bus_master(true);
    ringing.guest.negotiate();
    ringing.guest.write(Register::DeviceStatus, 0xf);
    ringing.wait_for_answers(2);
}

#[test]
fn an_unmapped_page_is_free_when_the_map_is_answered_however_busy_the_device_is() {
    let mut ringing = Ringing::owed();
    let old = ringing.memory.clone();
    ringing.memory = new_memory();
    ringing.device().replace_memory(ringing.memory.clone());
    let before = bytes_of(&old);
    ringing.finish();
    assert!(bytes_of(&old) == before);
}

#[test]
fn a_guest_that_left_leaves_nothing_mapped_though_it_was_owed_an_answer() {
    let ringing = Ringing::owed();
    let region = MmapRegion::new(RAM).unwrap();
    let region = Arc::new(GuestRegionMmap::new(region, GuestAddress(0)).unwrap());
    let memory = GuestMemoryMmap::from_arc_regions(vec![Arc::clone(&region)]).unwrap();
    ringing.device().replace_memory(memory);
    assert!(Arc::strong_count(&region) > 1);
    ringing.device().disconnected();
    assert_eq!(Arc::strong_count(&region), 1);
}

/// A VMM may take memory from a guest that sleeps, and a renderer may have addresses in it.
#[test]
fn memory_that_goes_while_the_guest_sleeps_is_taken_from_the_renderer_too() {
    let mut ringing = Ringing::owed();
    ringing.finish();
    ringing.wait_for_answers(2);
    for request in scene::make_target(0x4000) {
        ringing.send(&request);
    }
    let sent = ringing.offered;
    ringing.wait_for_answers(sent);
    ringing.set_bus_master(false);
    ringing.guest.write(Register::DeviceStatus, 0);
    ringing.guest.wait_for_status(0);
    let before = ringing.renderer().calls();
    ringing.device().replace_memory(new_memory());
    assert!(
        ringing.renderer().calls() > before,
        "the backing is another one"
    );
    assert!(ringing.device().status().unwrap().state == State::Asleep);
}

#[test]
fn a_function_that_is_reset_while_its_driver_resets_it_keeps_where_its_rings_stood() {
    let ringing = Ringing::owed();
    ringing.guest.write(Register::FreezeMode, 3);
    ringing.guest.write(Register::DeviceStatus, 0);
    let device = &ringing.guest.device;
    thread::scope(|scope| {
        scope.spawn(|| device.function_reset());
        thread::sleep(Duration::from_millis(50));
        ringing.renderer().hold_fences(false);
    });
    ringing.guest.wait_for_status(0);
    ringing.set_bus_master(true);
    ringing.guest.negotiate();
    ringing.guest.write(Register::DeviceStatus, 0xf);
    ringing.wait_for_answers(2);
    let status = device.status().unwrap();
    assert_eq!(status.counters.transport.full_resets, 0);
    assert_eq!(status.counters.transport.reinstatements, 1);
}
