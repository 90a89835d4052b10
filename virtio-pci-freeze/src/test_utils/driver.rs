// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's side: a driver that makes the accesses of Linux's virtio-pci.

use super::machine::Machine;
use crate::guest::{Capabilities, Window};
use crate::register::{Layout, Register};
use crate::spec::{DeviceStatus, FreezeModeValue, VIRTIO_MSI_NO_VECTOR, cap_type, feature, pci};

/// How the driver reaches the BARs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// As memory.
    Memory,
    /// Through the PCI configuration access capability.
    Window,
}

/// What Linux's virtio-pci does around a sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SleepPath {
    /// A driver without freeze hooks: nothing before, a reset without any queue set-up after.
    NoHooks,
    /// A driver with freeze hooks: its vectors go before, its queues are set up anew after.
    Hooks,
    /// Since Linux 6.8 with No_Soft_Reset: no register of virtio is touched.
    NoReset,
}

/// A queue as the driver sets it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriverQueue {
    /// Its index.
    pub index: u16,
    /// Its size.
    pub size: u16,
    /// Its vector.
    pub vector: u16,
    /// Its three addresses: descriptor, driver and device area.
    pub addresses: [u64; 3],
}

/// A guest's driver of one function.
#[derive(Clone, Debug)]
pub struct Driver {
    reach: Reach,
    capabilities: Capabilities,
    layout: Layout,
    /// The features it accepts, of those offered.
    pub wanted: u64,
    /// What it negotiated last.
    pub features: u64,
    /// The queues it set up.
    pub queues: Vec<DriverQueue>,
    /// Whether it uses MSI-X rather than INTx.
    pub msix: bool,
    saved: Option<Saved>,
}

/// What Linux keeps of configuration space across a sleep.
#[derive(Clone, Copy, Debug)]
struct Saved {
    bars: [u32; 6],
    command: u16,
    msix_control: u16,
}

const COMMAND: u16 = pci::COMMAND as u16;
const BAR0: u16 = pci::BAR0 as u16;

impl Driver {
    /// Finds the function's structures, places its BARs and sets up MSI-X.
    pub fn probe(machine: &mut Machine, reach: Reach) -> Self {
        let capabilities = Capabilities::read(machine).expect("a virtio function");
        let common = capabilities.structure(cap_type::COMMON_CFG);
        let common = common.expect("a common configuration");
        let mut driver = Self {
            reach,
            layout: Layout::of_length(common.length),
            capabilities,
            wanted: u64::MAX,
            features: 0,
            queues: Vec::new(),
            msix: true,
            saved: None,
        };
        driver.place_bars(machine);
        driver.write_command(machine, pci::COMMAND_MEMORY | pci::COMMAND_BUS_MASTER);
        driver.set_up_msix(machine);
        driver
    }

    /// What the capability list said.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Resets the device, negotiates, sets up every queue and sets DRIVER_OK.
    pub fn bind(&mut self, machine: &mut Machine) {
        self.reset(machine);
        self.negotiate(machine);
        self.set_up_queues(machine);
        self.set_status(machine, DeviceStatus::DRIVER_OK);
    }

    /// Writes 0 to the status and reads it back until it is 0, as long as the device answers.
    pub fn reset(&mut self, machine: &mut Machine) {
        self.write(machine, Register::DeviceStatus, 0);
        while self.status(machine) != 0 && machine.answer_next() {}
    }

    /// ACKNOWLEDGE, DRIVER, the features and FEATURES_OK (VIRTIO 1.4 §3.1.1, steps 2 to 6).
    pub fn negotiate(&mut self, machine: &mut Machine) {
        self.set_status(machine, DeviceStatus::ACKNOWLEDGE);
        self.set_status(machine, DeviceStatus::DRIVER);
        self.features = self.offered(machine) & self.wanted;
        self.write_features(machine);
        self.set_status(machine, DeviceStatus::FEATURES_OK);
    }

    /// The features that the device offers.
    pub fn offered(&mut self, machine: &mut Machine) -> u64 {
        self.write(machine, Register::DeviceFeatureSelect, 0);
        let low = self.read(machine, Register::DeviceFeature);
        self.write(machine, Register::DeviceFeatureSelect, 1);
        let high = self.read(machine, Register::DeviceFeature);
        high << 32 | low
    }

    /// Sets up and enables every queue the device has, enabling all at the end as Linux does.
    pub fn set_up_queues(&mut self, machine: &mut Machine) {
        let vectors = self.msix;
        let set_vector = if vectors { 0 } else { VIRTIO_MSI_NO_VECTOR };
        self.write(machine, Register::ConfigMsixVector, set_vector.into());
        let count = self.read(machine, Register::NumQueues);
        self.queues.clear();
        // All ones is what a function that does not answer reads as.
        let count = u16::try_from(count).ok().filter(|&count| count != u16::MAX);
        for index in 0..count.unwrap_or(0) {
            let queue = self.set_up_queue(machine, index);
            self.queues.push(queue);
        }
        for queue in self.queues.clone() {
            self.write(machine, Register::QueueSelect, queue.index.into());
            self.write(machine, Register::QueueEnable, 1);
        }
    }

    /// Sets up one queue without enabling it.
    pub fn set_up_queue(&mut self, machine: &mut Machine, index: u16) -> DriverQueue {
        self.write(machine, Register::QueueSelect, index.into());
        let size = self.read(machine, Register::QueueSize);
        let base = 0x10_0000 + u64::from(index) * 0x1_0000;
        let queue = DriverQueue {
            index,
            size: u16::try_from(size).expect("16 bits"),
            vector: if self.msix {
                1 + index % 2
            } else {
                VIRTIO_MSI_NO_VECTOR
            },
            addresses: [base, base + 0x1_0000_4000, base + 0x8000],
        };
        self.write(machine, Register::QueueSize, queue.size.into());
        let registers = [
            Register::QueueDesc,
            Register::QueueDriver,
            Register::QueueDevice,
        ];
        for (register, address) in registers.into_iter().zip(queue.addresses) {
            self.write(machine, register, address);
        }
        self.write(machine, Register::QueueMsixVector, queue.vector.into());
        queue
    }

    /// Rings a queue's doorbell.
    pub fn notify(&mut self, machine: &mut Machine, queue: u16) {
        let notify = self.capabilities.structure(cap_type::NOTIFY_CFG);
        let notify = notify.expect("a notification structure");
        let at = notify.offset + u32::from(queue) * 4;
        self.write_bar(machine, notify.bar, at, &queue.to_le_bytes());
    }

    /// Reads the ISR status, which clears it.
    pub fn read_isr(&mut self, machine: &mut Machine) -> u8 {
        let isr = self.capabilities.structure(cap_type::ISR_CFG);
        let isr = isr.expect("an ISR structure");
        let mut byte = [0];
        self.read_bar(machine, isr.bar, isr.offset, &mut byte);
        byte[0]
    }

    /// Writes `value` to `freeze_mode`.
    pub fn write_freeze_mode(&mut self, machine: &mut Machine, value: FreezeModeValue) {
        self.write(machine, Register::FreezeMode, value.0.into());
    }

    /// What `freeze_mode` reads.
    pub fn freeze_mode(&mut self, machine: &mut Machine) -> FreezeModeValue {
        let value = self.read(machine, Register::FreezeMode);
        FreezeModeValue(u16::try_from(value).expect("16 bits"))
    }

    /// What the device status reads.
    pub fn status(&mut self, machine: &mut Machine) -> u8 {
        u8::try_from(self.read(machine, Register::DeviceStatus)).expect("8 bits")
    }

    /// Sets bits of the device status, leaving the others.
    pub fn set_status(&mut self, machine: &mut Machine, bits: u8) {
        let status = self.status(machine);
        self.write(machine, Register::DeviceStatus, (status | bits).into());
    }

    /// What Linux does before a sleep, down to D3hot where there is a PM capability.
    pub fn suspend(&mut self, machine: &mut Machine, path: SleepPath) {
        self.status(machine);
        if path == SleepPath::Hooks {
            self.unmap_vectors(machine);
        }
        if path != SleepPath::NoReset {
            let command = machine.config_u16(COMMAND) & !pci::COMMAND_BUS_MASTER;
            self.write_command(machine, command);
        }
        self.save_config(machine);
        self.set_power_state(machine, pci::PMCSR_POWER_STATE);
    }

    /// What Linux does after a sleep, from D0 on.
    pub fn resume(&mut self, machine: &mut Machine, path: SleepPath) {
        self.set_power_state(machine, 0);
        if self.capabilities.power_management.is_some() || self.lost_config(machine) {
            self.restore_config(machine);
        }
        if path == SleepPath::NoReset {
            return;
        }
        let command = machine.config_u16(COMMAND) | pci::COMMAND_BUS_MASTER;
        self.write_command(machine, command);
        self.reset(machine);
        self.set_status(machine, DeviceStatus::ACKNOWLEDGE);
        self.set_status(machine, DeviceStatus::DRIVER);
        self.write_features(machine);
        self.set_status(machine, DeviceStatus::FEATURES_OK);
        if path == SleepPath::Hooks {
            self.set_up_queues(machine);
        }
        self.set_status(machine, DeviceStatus::DRIVER_OK);
    }

    /// Puts the function into a power state, where it has a PM capability.
    pub fn set_power_state(&mut self, machine: &mut Machine, state: u16) {
        if let Some(capability) = self.capabilities.power_management {
            let pmcsr = machine.config_u16(capability + 4) & !pci::PMCSR_POWER_STATE;
            machine.config_write(capability + 4, &(pmcsr | state).to_le_bytes());
        }
    }

    /// Writes the PCI command register.
    pub fn write_command(&mut self, machine: &mut Machine, command: u16) {
        machine.config_write(COMMAND, &command.to_le_bytes());
    }

    /// Sizes every BAR, as firmware does when it boots.
    pub fn size_bars(&mut self, machine: &mut Machine) -> [u32; 6] {
        [0, 4, 8, 12, 16, 20].map(|register| {
            machine.config_write(BAR0 + register, &[0xff; 4]);
            machine.config_u32(BAR0 + register)
        })
    }

    /// Reads a register of the common configuration structure, 64-bit ones as two halves.
    pub fn read(&mut self, machine: &mut Machine, register: Register) -> u64 {
        let (bar, offset, width) = self.place(register);
        let mut bytes = [0; 8];
        for (index, half) in (0u32..).zip(bytes[..width].chunks_mut(4)) {
            self.read_bar(machine, bar, offset + index * 4, half);
        }
        u64::from_le_bytes(bytes)
    }

    /// Writes a register of the common configuration structure, 64-bit ones as two halves.
    pub fn write(&mut self, machine: &mut Machine, register: Register, value: u64) {
        let (bar, offset, width) = self.place(register);
        for (index, half) in (0u32..).zip(value.to_le_bytes()[..width].chunks(4)) {
            self.write_bar(machine, bar, offset + index * 4, half);
        }
    }

    fn place(&self, register: Register) -> (u8, u32, usize) {
        let common = self.capabilities.structure(cap_type::COMMON_CFG);
        let common = common.expect("a common configuration");
        let mut registers = self.layout.registers();
        let info = registers.find(|info| info.register == register);
        let info = info.expect("a register of this layout");
        let offset = common.offset + u32::from(info.offset);
        (common.bar, offset, info.width.into())
    }

    fn read_bar(&mut self, machine: &mut Machine, bar: u8, offset: u32, data: &mut [u8]) {
        match self.reach {
            Reach::Memory => machine.read_bar(bar, offset.into(), data),
            Reach::Window => Window::new(machine, &self.capabilities)
                .and_then(|mut window| window.read(bar, offset, data))
                .expect("a window"),
        }
    }

    fn write_bar(&mut self, machine: &mut Machine, bar: u8, offset: u32, data: &[u8]) {
        match self.reach {
            Reach::Memory => machine.write_bar(bar, offset.into(), data),
            Reach::Window => Window::new(machine, &self.capabilities)
                .and_then(|mut window| window.write(bar, offset, data))
                .expect("a window"),
        }
    }

    fn write_features(&mut self, machine: &mut Machine) {
        let features = self.features | feature::mask(feature::VIRTIO_F_VERSION_1);
        for (select, half) in [(0, features & 0xffff_ffff), (1, features >> 32)] {
            self.write(machine, Register::DriverFeatureSelect, select);
            self.write(machine, Register::DriverFeature, half);
        }
    }

    /// What Linux's del_vqs writes: no queue_enable, no status.
    fn unmap_vectors(&mut self, machine: &mut Machine) {
        for queue in self.queues.clone() {
            self.write(machine, Register::QueueSelect, queue.index.into());
            self.write(machine, Register::QueueMsixVector, u64::from(u16::MAX));
        }
        self.write(machine, Register::ConfigMsixVector, u64::from(u16::MAX));
    }

    fn place_bars(&mut self, machine: &mut Machine) {
        let masks = self.size_bars(machine);
        let mut address = 0xe000_0000u32;
        for (register, mask) in (0u16..).zip(masks) {
            let is_low_half = mask & !0xf != 0 && mask != u32::MAX;
            let value = if is_low_half { address } else { 0 };
            address += if is_low_half { 0x100_0000 } else { 0 };
            machine.config_write(BAR0 + register * 4, &value.to_le_bytes());
        }
    }

    fn set_up_msix(&mut self, machine: &mut Machine) {
        let Some(capability) = self.capabilities.msix else {
            return;
        };
        let vectors = machine.config_u16(capability + 2) & 0x7ff;
        let bar = machine.config_u32(capability + 4) & 7;
        let bar = u8::try_from(bar).expect("3 bits");
        for vector in 0..=vectors {
            let entry = [0xfee0_0000, 0, u32::from(vector), 0];
            for (index, word) in (0u64..).zip(entry) {
                let offset = u64::from(vector) * 16 + index * 4;
                machine.write_bar(bar, offset, &word.to_le_bytes());
            }
            if machine.function.vector_owner() == crate::VectorOwner::Vmm {
                let effects = machine.function.connect_vector(vector, true);
                machine.carry_out(effects);
            }
        }
        machine.config_write(capability + 2, &pci::MSIX_ENABLE.to_le_bytes());
    }

    fn save_config(&mut self, machine: &mut Machine) {
        let msix_control = self.capabilities.msix.map(|at| machine.config_u16(at + 2));
        self.saved = Some(Saved {
            bars: [0, 4, 8, 12, 16, 20].map(|register| machine.config_u32(BAR0 + register)),
            command: machine.config_u16(COMMAND),
            msix_control: msix_control.unwrap_or(0),
        });
    }

    /// Whether the function was reset: one that was only paused, as by a suspend that was aborted, has all that it had.
    fn lost_config(&self, machine: &mut Machine) -> bool {
        let saved = self.saved.map(|saved| saved.bars);
        let bars = [0, 4, 8, 12, 16, 20].map(|register| machine.config_u32(BAR0 + register));
        saved.is_some_and(|saved| saved != bars)
    }

    /// BARs first, then the command, then MSI-X with its whole table.
    fn restore_config(&mut self, machine: &mut Machine) {
        let Some(saved) = self.saved else {
            return;
        };
        for (register, value) in [20, 16, 12, 8, 4, 0]
            .into_iter()
            .zip(saved.bars.into_iter().rev())
        {
            machine.config_write(BAR0 + register, &value.to_le_bytes());
        }
        self.write_command(machine, saved.command);
        if saved.msix_control & pci::MSIX_ENABLE != 0 {
            self.set_up_msix(machine);
        }
    }
}
