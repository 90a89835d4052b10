// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A VMM with a guest, and what the device may write to its memory.

use std::fs::File;
use std::mem;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use virtio_gpu_s3::Rect;
use virtio_gpu_s3::protocol::CommandId;
use virtio_gpu_s3::protocol::wire::MemEntry;
use virtio_gpu_s3::renderer::{Resource3d, Transfer3d};
use virtio_pci_freeze::spec::pci;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestRegionMmap, MmapRegion};

use super::*;

/// Requests under way on each ring.
pub(super) const SLOTS: u16 = 8;
const RING: u16 = SLOTS * 2;
const RAM: usize = 0x8000;
/// Below it lie the rings, above it answers and backings, which a VMM can take away for a while.
const HALF: usize = 0x4000;
const REQUEST: u64 = 0x100;
const ANSWER: u64 = 0x80;
const BACKINGS: u64 = 0x7000;
const BACKING: u64 = 0x100;
const SIDE: u32 = 8;
/// Where `BarLayout::VIRTIO` has the doorbells.
const NOTIFY: u64 = 0x3000;
/// PMCSR's PowerState (PCI PM 1.2 §3.2.4).
const D3HOT: u16 = 3;

/// One mapping of a VMM's memory: the file stays, a mapping comes and goes.
struct Mapping {
    region: Arc<GuestRegionMmap>,
}

impl Mapping {
    fn of(file: &File, length: usize) -> Self {
        let file = FileOffset::new(file.try_clone().unwrap(), 0);
        let region = MmapRegion::from_file(file, length).unwrap();
        let region = GuestRegionMmap::new(region, GuestAddress(0)).unwrap();
        let region = Arc::new(region);
        Self { region }
    }

    fn memory(&self) -> GuestMemoryMmap {
        GuestMemoryMmap::from_arc_regions(vec![Arc::clone(&self.region)]).unwrap()
    }

    fn check_unused(&self) {
        let users = Arc::strong_count(&self.region) - 1;
        assert_eq!(users, 0, "a mapping that was replaced is still there");
    }
}

/// A request that the device has not answered.
#[derive(Clone, Debug)]
struct Owed {
    answer: (u64, u64),
    writes_backings: bool,
}

struct Ring {
    index: u16,
    at: u64,
    enabled: bool,
    offered: u16,
    seen: u16,
    owed: [Option<Owed>; SLOTS as usize],
}

impl Ring {
    fn new(index: u16) -> Self {
        Self {
            index,
            at: u64::from(index) * 0x2000,
            enabled: false,
            offered: 0,
            seen: 0,
            owed: Default::default(),
        }
    }

    fn descriptors(&self) -> u64 {
        self.at
    }

    fn available(&self) -> u64 {
        self.at + 0x200
    }

    fn used(&self) -> u64 {
        self.at + 0x400
    }

    fn request(&self, slot: u16) -> u64 {
        self.at + 0x800 + u64::from(slot) * REQUEST
    }

    fn answer(&self, slot: u16) -> u64 {
        HALF as u64 + u64::from(self.index) * 0x800 + u64::from(slot) * ANSWER
    }
}

/// Memory of a guest that left.
pub(super) struct Left {
    mapping: Mapping,
    bytes: Vec<u8>,
}

impl Left {
    pub(super) fn check(&self) {
        assert!(bytes_of(&self.memory()) == self.bytes, "a guest that left");
    }

    fn memory(&self) -> GuestMemoryMmap {
        self.mapping.memory()
    }
}

fn bytes_of(memory: &GuestMemoryMmap) -> Vec<u8> {
    let mut bytes = vec![0; RAM];
    memory.read_slice(&mut bytes, GuestAddress(0)).unwrap();
    bytes
}

/// What the driver does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Driver {
    Down,
    /// Status 0 is written and not read yet.
    Resetting,
    Up,
}

pub(super) struct Guest {
    file: File,
    /// All of it, as the VMM sees it.
    own: Mapping,
    /// As the device was given it.
    given: Mapping,
    bytes: Vec<u8>,
    rings: [Ring; 2],
    driver: Driver,
    bus_master: bool,
    awake: bool,
    /// Whether all of the memory is mapped.
    whole: bool,
    /// Where the power management capability lies.
    power_management: u16,
    /// And MSI-X's: without it, a function that lost the bus alone is nobody's when it has it again.
    msix: u16,
}

impl Guest {
    /// A VMM comes, with a guest whose driver is not loaded yet.
    pub(super) fn connect(device: &GpuDevice) -> Self {
        let file = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, RAM as u64).unwrap();
        let file = File::from(file);
        let (own, given) = (Mapping::of(&file, RAM), Mapping::of(&file, RAM));
        device.connected();
        device.replace_memory(given.memory());
        let guest = Self {
            file,
            own,
            given,
            bytes: vec![0; RAM],
            rings: [Ring::new(0), Ring::new(1)],
            driver: Driver::Down,
            bus_master: false,
            awake: true,
            whole: true,
            power_management: capability(device, 0x01),
            msix: capability(device, 0x11),
        };
        device.write_config(0x10, &[0xff; 4]);
        guest
    }

    /// It is gone: its memory is nobody's.
    pub(super) fn leave(self) -> Left {
        self.given.check_unused();
        let (mapping, bytes) = (self.own, self.bytes);
        Left { mapping, bytes }
    }

    pub(super) fn act(&mut self, device: &GpuDevice, random: &mut Random) {
        match self.driver {
            Driver::Down => self.start_driver(device, random),
            Driver::Resetting => self.look_for_reset(device),
            Driver::Up if random.one_in(6) => self.ring(device, usize::from(random.one_in(2))),
            Driver::Up => {
                let index = usize::from(random.one_in(5));
                self.send(device, random, index);
            }
        }
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        let start = usize::try_from(at).unwrap();
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        let memory = self.own.memory();
        memory.write_slice(bytes, GuestAddress(at)).unwrap();
    }

    /// As every driver, it resets what it finds in use (VIRTIO 1.4 §3.1.1).
    fn start_driver(&mut self, device: &GpuDevice, random: &mut Random) {
        self.set_power(device, true);
        self.set_bus_master(device, true);
        device.write_config(self.msix + 2, &pci::MSIX_ENABLE.to_le_bytes());
        if read(device, Register::DeviceStatus) != 0 {
            return self.begin_reset(device);
        }
        let write = |register, value| write(device, register, value);
        write(Register::DeviceStatus, 3);
        for half in 0..2 {
            write(Register::DeviceFeatureSelect, half);
            write(Register::DriverFeatureSelect, half);
            let offered = read(device, Register::DeviceFeature);
            write(Register::DriverFeature, offered);
        }
        write(Register::DeviceStatus, 0xb);
        // Stock drivers set no queue up when they wake.
        if random.below(4) != 0 {
            for index in 0..2 {
                self.set_up(device, index);
            }
        }
        write(Register::DeviceStatus, 0xf);
        self.driver = Driver::Up;
    }

    fn set_up(&mut self, device: &GpuDevice, index: usize) {
        self.rings[index] = Ring::new(self.rings[index].index);
        let (at, descriptors, available, used) = {
            let ring = &self.rings[index];
            (ring.at, ring.descriptors(), ring.available(), ring.used())
        };
        self.write(at, &[0; 0x800]);
        write(device, Register::QueueSelect, index as u64);
        write(device, Register::QueueSize, RING.into());
        write(device, Register::QueueDesc, descriptors);
        write(device, Register::QueueDriver, available);
        write(device, Register::QueueDevice, used);
        write(device, Register::QueueEnable, 1);
        self.rings[index].enabled = true;
    }

    fn ring(&self, device: &GpuDevice, index: usize) {
        let queue = self.rings[index].index;
        let at = NOTIFY + u64::from(queue) * 4;
        device.write_bar(BarLayout::VIRTIO, at, &queue.to_le_bytes());
    }

    fn send(&mut self, device: &GpuDevice, random: &mut Random, index: usize) {
        let ring = &self.rings[index];
        let free = ring.owed.iter().position(Option::is_none);
        let Some(slot) = free.filter(|_| ring.enabled) else {
            return;
        };
        let (request, writes_backings) = if index == 0 {
            control(random)
        } else {
            (request::move_cursor(0, 5, 5), false)
        };
        let slot = u16::try_from(slot).unwrap();
        let (at, answer) = (ring.request(slot), ring.answer(slot));
        let room = [ANSWER, 24, 8, 1][random.index(4)];
        let (head, offered) = (slot * 2, ring.offered);
        let (descriptors, available) = (ring.descriptors(), ring.available());
        let length = request.len().min(0x100);
        self.write(at, &request[..length]);
        // Some chains lead nowhere: out of memory, or back to where they began.
        let odd = random.below(40);
        let (source, next) = match odd {
            0 => (1 << 40, head + 1),
            1 => (at, head),
            _ => (at, head + 1),
        };
        self.descriptor(descriptors, head, (source, length as u64), (1, next));
        self.descriptor(descriptors, head + 1, (answer, room), (2, 0));
        let place = available + 4 + u64::from(offered % RING) * 2;
        self.write(place, &head.to_le_bytes());
        let offered = offered.wrapping_add(1);
        self.write(available + 2, &offered.to_le_bytes());
        let ring = &mut self.rings[index];
        ring.offered = offered;
        ring.owed[usize::from(slot)] = Some(Owed {
            answer: (answer, room),
            writes_backings,
        });
        if random.below(4) != 0 {
            self.ring(device, index);
        }
    }

    fn descriptor(
        &mut self,
        table: u64,
        index: u16,
        (at, length): (u64, u64),
        (flags, next): (u16, u16),
    ) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&at.to_le_bytes());
        bytes[8..12].copy_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        self.write(table + u64::from(index) * 16, &bytes);
    }

    pub(super) fn freeze(&mut self, device: &GpuDevice, random: &mut Random) {
        let mode = if random.one_in(2) { 3 } else { 0 };
        write(device, Register::FreezeMode, mode);
        if random.one_in(4) {
            for _ in 0..20 {
                write(device, Register::FreezeMode, 3);
                write(device, Register::FreezeMode, 0);
            }
        }
    }

    pub(super) fn sleep_or_reset(&mut self, device: &GpuDevice, random: &mut Random) {
        match random.below(8) {
            0..2 => self.begin_reset(device),
            2 => {
                device.function_reset();
                // What was written before it returned was written before it.
                self.check(device);
                self.see_what_a_reset_left(device);
                if random.one_in(3) {
                    // Firmware sizes the BARs.
                    device.write_config(0x10, &[0xff; 4]);
                }
            }
            3..5 => self.set_bus_master(device, !self.bus_master),
            5..7 => self.set_power(device, !self.awake),
            _ => write(device, Register::ConfigMsixVector, random.below(4)),
        }
    }

    /// A function that slept keeps its registers (No_Soft_Reset), and a driver that was up is.
    fn see_what_a_reset_left(&mut self, device: &GpuDevice) {
        let mut command = [0; 2];
        device.read_config(pci::COMMAND.into(), &mut command);
        self.bus_master = u16::from_le_bytes(command) & pci::COMMAND_BUS_MASTER != 0;
        self.set_power(device, true);
        if read(device, Register::DeviceStatus) == 0 {
            self.driver = Driver::Down;
        }
    }

    fn begin_reset(&mut self, device: &GpuDevice) {
        write(device, Register::DeviceStatus, 0);
        if self.awake {
            self.driver = Driver::Resetting;
        }
    }

    fn look_for_reset(&mut self, device: &GpuDevice) {
        self.set_power(device, true);
        if read(device, Register::DeviceStatus) == 0 {
            self.driver = Driver::Down;
        }
    }

    fn set_bus_master(&mut self, device: &GpuDevice, on: bool) {
        let command: u16 = if on { 6 } else { 2 };
        device.write_config(pci::COMMAND.into(), &command.to_le_bytes());
        self.check(device);
        self.bus_master = on;
    }

    fn set_power(&mut self, device: &GpuDevice, on: bool) {
        let state = if on { 0 } else { D3HOT };
        device.write_config(self.power_management + 4, &state.to_le_bytes());
        self.check(device);
        self.awake = on;
    }

    /// The VMM maps its memory elsewhere, or takes half of it away for a while.
    pub(super) fn move_memory(&mut self, device: &GpuDevice, random: &mut Random) {
        self.whole = random.below(3) != 0;
        let length = if self.whole { RAM } else { HALF };
        let next = Mapping::of(&self.file, length);
        device.replace_memory(next.memory());
        let before = mem::replace(&mut self.given, next);
        before.check_unused();
    }

    /// Whether the device may write to memory at all.
    fn may_be_written_to(&self) -> bool {
        self.bus_master && self.awake && self.driver != Driver::Down
    }

    fn is_allowed(&self, at: usize) -> bool {
        let at = at as u64;
        let is_in = |(start, length): (u64, u64)| (start..start + length).contains(&at);
        let used_bytes = 4 + u64::from(RING) * 8 + 2;
        let rings = self.rings.iter().filter(|ring| ring.enabled);
        rings.clone().any(|ring| {
            let mut owed = ring.owed.iter().flatten();
            let backings = (BACKINGS, 8 * BACKING);
            is_in((ring.used(), used_bytes))
                || owed.any(|owed| is_in(owed.answer) || owed.writes_backings && is_in(backings))
        })
    }

    /// Every byte that the device changed is one that it may change now.
    pub(super) fn check(&mut self, device: &GpuDevice) {
        let bytes = bytes_of(&self.own.memory());
        if bytes != self.bytes {
            let changed = bytes.iter().zip(&self.bytes).enumerate();
            for (at, _) in changed.filter(|(_, (new, old))| new != old) {
                assert!(
                    self.may_be_written_to(),
                    "byte {at:#x} of a guest that may not be written to: {:?}, status {:#x}",
                    (self.driver, self.bus_master, self.awake),
                    read(device, Register::DeviceStatus)
                );
                assert!(self.is_allowed(at), "byte {at:#x}, which is nobody's");
            }
            self.bytes = bytes;
        }
        for index in 0..self.rings.len() {
            self.take_used(index);
        }
    }

    /// Each answer is to a request that was not answered.
    fn take_used(&mut self, index: usize) {
        let ring = &self.rings[index];
        if !ring.enabled {
            return;
        }
        let used = usize::try_from(ring.used()).unwrap();
        let mut seen = ring.seen;
        let word = |at: usize| u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]]);
        let mut answered = Vec::new();
        while seen != word(used + 2) {
            let entry = used + 4 + usize::from(seen % RING) * 8;
            answered.push((word(entry), word(entry + 4)));
            seen = seen.wrapping_add(1);
        }
        let ring = &mut self.rings[index];
        ring.seen = seen;
        for (head, written) in answered {
            let slot = ring.owed.get_mut(usize::from(head / 2));
            let owed = slot.filter(|_| head % 2 == 0).and_then(Option::take);
            let owed = owed.unwrap_or_else(|| panic!("head {head} is answered twice"));
            assert!(u64::from(written) <= owed.answer.1, "longer than its room");
        }
    }

    /// The guest is on, and lets the device do what it has to.
    pub(super) fn go_on(&mut self, device: &GpuDevice) {
        if self.driver == Driver::Up {
            self.set_power(device, true);
            self.set_bus_master(device, true);
            if !self.whole {
                let next = Mapping::of(&self.file, RAM);
                device.replace_memory(next.memory());
                self.given = next;
                self.whole = true;
            }
            for index in 0..2 {
                self.ring(device, index);
            }
        }
    }

    /// Where the device runs, and is not in need of a reset, nothing is owed at the end.
    pub(super) fn expect_answers(&self, device: &GpuDevice) {
        let status = read(device, Register::DeviceStatus);
        if self.driver == Driver::Up && status == 0xf {
            let running = device.look(|function| function.transport().active_queues().count());
            let owed = self
                .rings
                .iter()
                .flat_map(|ring| ring.owed.iter().flatten());
            assert!(running == 0 || owed.count() == 0, "unanswered for ever");
        }
    }
}

fn read(device: &GpuDevice, register: Register) -> u64 {
    let (offset, width) = place(register);
    let mut data = [0; 8];
    device.read_bar(BarLayout::VIRTIO, offset, &mut data[..width]);
    u64::from_le_bytes(data)
}

fn write(device: &GpuDevice, register: Register, value: u64) {
    let (offset, width) = place(register);
    device.write_bar(BarLayout::VIRTIO, offset, &value.to_le_bytes()[..width]);
}

/// Where the capability with this id lies (PCI 3.0 §6.7).
fn capability(device: &GpuDevice, id: u8) -> u16 {
    let mut at = [0x34];
    device.read_config(0x34, &mut at);
    loop {
        let mut header = [0; 2];
        device.read_config(at[0].into(), &mut header);
        if header[0] == id {
            return at[0].into();
        }
        assert!(header[1] != 0, "no capability {id:#x}");
        at[0] = header[1];
    }
}

/// A request of the control queue, and whether it writes to a backing.
fn control(random: &mut Random) -> (Vec<u8>, bool) {
    let id = u32::try_from(1 + random.below(4)).unwrap();
    let ctx_id = u32::try_from(1 + random.below(3)).unwrap();
    let rect = Rect::sized(SIDE, SIDE);
    let transfer = Transfer3d::of_rect(rect, 0);
    let request = match random.below(22) {
        0..2 => request::in_context(ctx_id, request::ctx_create(0)),
        2 => request::in_context(ctx_id, request::ctx_destroy()),
        3..7 => fenced(random, ctx_id, request::submit_3d(&[0])),
        7..9 => request::in_context(ctx_id, request::submit_3d(&[0, 0])),
        9 => request::in_context(ctx_id, request::submit_3d(&[1, id, 7])),
        10..12 => request::resource_create_3d(id, &texture()),
        12 => request::resource_create_2d(id, 1, SIDE, SIDE),
        13 => {
            let at = BACKINGS + u64::from(id) * BACKING;
            let entry = MemEntry {
                addr: at.into(),
                length: (SIDE * SIDE * 4).into(),
                padding: 0.into(),
            };
            request::resource_attach_backing(id, &[entry])
        }
        14 => request::resource_detach_backing(id),
        15 => request::in_context(ctx_id, request::ctx_attach_resource(id)),
        16 => request::resource_unref(id),
        17 => request::transfer_to_host_2d(id, rect, 0),
        18 => request::set_scanout(0, id, rect),
        19 => request::resource_flush(id, rect),
        20 => {
            let back = request::transfer_3d(CommandId::TRANSFER_FROM_HOST_3D, id, &transfer);
            return (fenced(random, 0, back), true);
        }
        _ => request::get_display_info(),
    };
    (request, false)
}

fn fenced(random: &mut Random, ctx_id: u32, request: Vec<u8>) -> Vec<u8> {
    request::fenced(ctx_id, random.next(), request)
}

fn texture() -> Resource3d {
    Resource3d {
        target: 2,
        format: 1,
        bind: 2,
        width: SIDE,
        height: SIDE,
        depth: 1,
        array_size: 1,
        last_level: 0,
        nr_samples: 0,
        flags: 0,
    }
}
