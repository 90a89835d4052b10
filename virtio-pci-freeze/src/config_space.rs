// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The function's configuration space: header, BARs and capabilities (PCI 3.0 §6.1, VIRTIO 1.4 §4.1.4).

use core::array::from_fn;

use crate::bars::{BarLayout, SharedMemoryRegion, VIRTIO_STRUCTURES};
use crate::saved_state::{RestoreError, SavedConfigSpace};
use crate::spec::{PCI_DEVICE_ID_BASE, PCI_VENDOR_ID, cap_type, pci};
use crate::transport::PowerState;

/// Length of the configuration space in bytes: a conventional function's.
pub const CONFIG_SPACE_SIZE: usize = 256;

/// What identifies a function on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The virtio device type (VIRTIO 1.4 §5): 16 is a GPU.
    pub device_type: u16,
    /// Class code: programming interface, sub-class, base class.
    pub class_code: [u8; 3],
    /// Subsystem id, at least [`PCI_SUBSYSTEM_ID_MIN`](crate::spec::PCI_SUBSYSTEM_ID_MIN); the subsystem vendor is
    /// virtio's. Below that, drivers such as UEFI firmware's take the function for a transitional one and do not bind.
    pub subsystem_id: u16,
    /// Whether INTA# exists beside MSI-X.
    pub interrupt_pin: bool,
}

/// Where the capabilities with registers of their own are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Offsets {
    pmcsr: Option<usize>,
    msix_control: usize,
    common_config: usize,
    window: usize,
}

/// What the PCI configuration access capability points at (VIRTIO 1.4 §4.1.4.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) bar: u8,
    pub(crate) offset: u64,
    pub(crate) length: usize,
}

/// The bytes of the configuration space, and which of their bits software may change.
#[derive(Clone, Debug)]
pub(crate) struct ConfigSpace {
    bytes: [u8; CONFIG_SPACE_SIZE],
    writable: [u8; CONFIG_SPACE_SIZE],
    offsets: Offsets,
}

/// Bytes of struct virtio_pci_cap before what each type appends.
const VIRTIO_CAP_LENGTH: usize = 16;

impl ConfigSpace {
    pub(crate) fn new(
        identity: &Identity,
        bars: &BarLayout,
        no_soft_reset: Option<bool>,
        common_config_length: u32,
    ) -> Self {
        let mut space = Self {
            bytes: [0; CONFIG_SPACE_SIZE],
            writable: [0; CONFIG_SPACE_SIZE],
            offsets: Offsets::default(),
        };
        space.header(identity, bars);
        let mut list = CapabilityList::new(&mut space);
        if let Some(no_soft_reset) = no_soft_reset {
            list.power_management(no_soft_reset);
        }
        list.msix(bars);
        for structure in VIRTIO_STRUCTURES {
            let length = structure.length.unwrap_or(common_config_length);
            let extra: &[u8] = match structure.cap_type {
                cap_type::NOTIFY_CFG => &NOTIFY_OFF_MULTIPLIER,
                _ => &[],
            };
            let start = list.virtio(
                structure.cap_type,
                BarLayout::VIRTIO,
                0,
                (structure.offset, length),
                extra,
            );
            if structure.cap_type == cap_type::COMMON_CFG {
                list.space.offsets.common_config = start;
            }
        }
        for region in bars.shared_memory() {
            list.shared_memory(region);
        }
        list.window();
        space
    }

    pub(crate) fn read(&self, offset: usize, data: &mut [u8]) {
        data.fill(0);
        let source = self.bytes.iter().skip(offset);
        data.iter_mut()
            .zip(source)
            .for_each(|(to, from)| *to = *from);
    }

    /// Changes the bits that software may change, and no others.
    pub(crate) fn write(&mut self, offset: usize, data: &[u8]) {
        let power = self.power_state_bits();
        let target = self.bytes.iter_mut().zip(&self.writable).skip(offset);
        for ((to, mask), from) in target.zip(data) {
            *to = (*to & !mask) | (from & mask);
        }
        self.discard_unsupported_power_state(power);
    }

    pub(crate) fn command(&self) -> u16 {
        self.u16_at(usize::from(pci::COMMAND))
    }

    pub(crate) fn is_bus_master(&self) -> bool {
        self.command() & pci::COMMAND_BUS_MASTER != 0
    }

    pub(crate) fn set_interrupt_status(&mut self, asserted: bool) {
        let status = usize::from(pci::STATUS);
        let value = self.u16_at(status) & !pci::STATUS_INTERRUPT;
        let bit = if asserted { pci::STATUS_INTERRUPT } else { 0 };
        self.set(status, &(value | bit).to_le_bytes());
    }

    pub(crate) fn power_state(&self) -> PowerState {
        if self.power_state_bits() == pci::PMCSR_POWER_STATE {
            PowerState::D3hot
        } else {
            PowerState::D0
        }
    }

    /// MSI-X enable and function mask.
    pub(crate) fn msix_control(&self) -> (bool, bool) {
        let control = self.u16_at(self.offsets.msix_control);
        (
            control & pci::MSIX_ENABLE != 0,
            control & pci::MSIX_FUNCTION_MASK != 0,
        )
    }

    /// A function reset: what software wrote goes.
    pub(crate) fn reset(&mut self) {
        for (byte, mask) in self.bytes.iter_mut().zip(&self.writable) {
            *byte &= !mask;
        }
        self.set_interrupt_status(false);
    }

    pub(crate) fn save(&self) -> SavedConfigSpace {
        let msix_writable = pci::MSIX_ENABLE | pci::MSIX_FUNCTION_MASK;
        let window = |byte| self.offsets.window.saturating_add(byte);
        let bar = |index: usize| {
            let offset = usize::from(pci::BAR0).saturating_add(index.saturating_mul(4));
            self.u32_at(offset) & !0xf
        };
        let [power_state, _] = self.power_state_bits().to_le_bytes();
        SavedConfigSpace {
            command: self.command(),
            cache_line_size: self.u8_at(pci::CACHE_LINE_SIZE.into()),
            interrupt_line: self.u8_at(pci::INTERRUPT_LINE.into()),
            bars: from_fn(bar),
            power_state,
            msix_control: self.u16_at(self.offsets.msix_control) & msix_writable,
            window_bar: self.u8_at(window(4)),
            window_offset: self.u32_at(window(8)),
            window_length: self.u32_at(window(12)),
            window_data: self.u32_at(window(16)),
        }
    }

    /// Writes what was saved over a space as after reset, as software would.
    pub(crate) fn restore(&mut self, saved: &SavedConfigSpace) -> Result<(), RestoreError> {
        let SavedConfigSpace {
            command,
            cache_line_size,
            interrupt_line,
            bars,
            power_state,
            msix_control,
            window_bar,
            window_offset,
            window_length,
            window_data,
        } = saved;
        self.write(pci::COMMAND.into(), &command.to_le_bytes());
        self.write(pci::CACHE_LINE_SIZE.into(), &[*cache_line_size]);
        self.write(pci::INTERRUPT_LINE.into(), &[*interrupt_line]);
        for (index, bar) in (0usize..).zip(bars) {
            let offset = usize::from(pci::BAR0).saturating_add(index.saturating_mul(4));
            self.write(offset, &bar.to_le_bytes());
        }
        if let Some(offset) = self.offsets.pmcsr {
            self.write(offset, &[*power_state]);
        }
        self.write(self.offsets.msix_control, &msix_control.to_le_bytes());
        let window = self.offsets.window;
        self.write(window.saturating_add(4), &[*window_bar]);
        self.write(window.saturating_add(8), &window_offset.to_le_bytes());
        self.write(window.saturating_add(12), &window_length.to_le_bytes());
        self.write(window.saturating_add(16), &window_data.to_le_bytes());
        // What software could not have written does not stay.
        if self.save() == *saved {
            Ok(())
        } else {
            Err(RestoreError::Invalid {
                what: "configuration space",
            })
        }
    }

    /// Whether a write of `length` bytes at `offset` reaches MSI-X enable and function mask.
    pub(crate) fn controls_msix(&self, offset: usize, length: usize) -> bool {
        let control = self.offsets.msix_control;
        offset < control.saturating_add(2) && control < offset.saturating_add(length)
    }

    /// Whether a write of `length` bytes at `offset` touches the window's data.
    pub(crate) fn touches_window(&self, offset: usize, length: usize) -> bool {
        let data = self.window_data();
        let end = offset.saturating_add(length);
        offset < data.saturating_add(4) && end > data
    }

    /// Whether an access of `length` bytes at `offset` reads the type of the common configuration's capability: what
    /// every driver does to find its registers (VIRTIO 1.4 §4.1.4), and what walking the list does not.
    pub(crate) fn locates_registers(&self, offset: usize, length: usize) -> bool {
        let cfg_type = self.offsets.common_config.saturating_add(3);
        offset <= cfg_type && cfg_type < offset.saturating_add(length)
    }

    /// The window, if it points at something that can be accessed: 1, 2 or 4 bytes, aligned (§4.1.4.9.1).
    pub(crate) fn window(&self) -> Option<Window> {
        let bar = self.u8_at(self.offsets.window.saturating_add(4));
        let offset = self.u32_at(self.offsets.window.saturating_add(8));
        let length = self.u32_at(self.offsets.window.saturating_add(12));
        (matches!(length, 1 | 2 | 4) && offset.is_multiple_of(length)).then_some(Window {
            bar,
            offset: offset.into(),
            length: usize::try_from(length).ok()?,
        })
    }

    pub(crate) fn window_data(&self) -> usize {
        self.offsets.window.saturating_add(VIRTIO_CAP_LENGTH)
    }

    pub(crate) fn set(&mut self, offset: usize, data: &[u8]) {
        let target = self.bytes.iter_mut().skip(offset);
        target.zip(data).for_each(|(to, from)| *to = *from);
    }

    fn header(&mut self, identity: &Identity, bars: &BarLayout) {
        let device_id = PCI_DEVICE_ID_BASE.saturating_add(identity.device_type);
        self.set(pci::VENDOR_ID.into(), &PCI_VENDOR_ID.to_le_bytes());
        self.set(pci::DEVICE_ID.into(), &device_id.to_le_bytes());
        self.set(pci::STATUS.into(), &pci::STATUS_CAPABILITIES.to_le_bytes());
        // A revision of 1 or more tells legacy drivers to stay away (§4.1.2.1).
        self.set(pci::REVISION_ID.into(), &[1]);
        self.set(pci::CLASS_CODE.into(), &identity.class_code);
        self.set(
            pci::SUBSYSTEM_VENDOR_ID.into(),
            &PCI_VENDOR_ID.to_le_bytes(),
        );
        self.set(
            pci::SUBSYSTEM_ID.into(),
            &identity.subsystem_id.to_le_bytes(),
        );
        self.set(pci::INTERRUPT_PIN.into(), &[identity.interrupt_pin.into()]);
        self.allow(pci::COMMAND.into(), &pci::COMMAND_WRITABLE.to_le_bytes());
        self.allow(pci::CACHE_LINE_SIZE.into(), &[0xff]);
        self.allow(pci::INTERRUPT_LINE.into(), &[0xff]);
        for (index, bar) in (0usize..).zip(bars.registers()) {
            let offset = usize::from(pci::BAR0).saturating_add(index.saturating_mul(4));
            self.set(offset, &bar.flags.to_le_bytes());
            self.allow(offset, &bar.writable.to_le_bytes());
        }
    }

    /// D1 and D2 are not supported: such a write completes and changes nothing (PCI PM 1.2 §3.2.4).
    fn discard_unsupported_power_state(&mut self, before: u16) {
        let Some(offset) = self.offsets.pmcsr else {
            return;
        };
        let pmcsr = self.u16_at(offset);
        let state = pmcsr & pci::PMCSR_POWER_STATE;
        if state != 0 && state != pci::PMCSR_POWER_STATE {
            self.set(
                offset,
                &(pmcsr & !pci::PMCSR_POWER_STATE | before).to_le_bytes(),
            );
        }
    }

    fn power_state_bits(&self) -> u16 {
        let pmcsr = self.offsets.pmcsr.map_or(0, |offset| self.u16_at(offset));
        pmcsr & pci::PMCSR_POWER_STATE
    }

    fn allow(&mut self, offset: usize, mask: &[u8]) {
        let target = self.writable.iter_mut().skip(offset);
        target.zip(mask).for_each(|(to, from)| *to = *from);
    }

    fn u8_at(&self, offset: usize) -> u8 {
        self.bytes.get(offset).copied().unwrap_or(0)
    }

    fn u16_at(&self, offset: usize) -> u16 {
        u16::from_le_bytes([self.u8_at(offset), self.u8_at(offset.saturating_add(1))])
    }

    fn u32_at(&self, offset: usize) -> u32 {
        let mut bytes = [0; 4];
        self.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }
}

/// Bytes between the doorbells of two queues.
pub(crate) const NOTIFY_STRIDE: u32 = 4;
const NOTIFY_OFF_MULTIPLIER: [u8; 4] = NOTIFY_STRIDE.to_le_bytes();

/// Appends capabilities, each linked from the one before.
struct CapabilityList<'a> {
    space: &'a mut ConfigSpace,
    /// Where the offset of the next capability goes.
    link: usize,
    next: usize,
}

impl<'a> CapabilityList<'a> {
    fn new(space: &'a mut ConfigSpace) -> Self {
        Self {
            space,
            link: pci::CAPABILITIES_POINTER.into(),
            next: pci::FIRST_CAPABILITY.into(),
        }
    }

    /// Appends a capability and returns where it starts. `body` is what follows the id and the link.
    fn push(&mut self, id: u8, body: &[u8]) -> usize {
        let start = self.next;
        // All capabilities together stay below 256 bytes: `BarLayout` limits the regions of shared memory.
        let byte = u8::try_from(start).unwrap_or(0);
        self.space.set(self.link, &[byte]);
        self.space.set(start, &[id, 0]);
        self.space.set(start.saturating_add(2), body);
        self.link = start.saturating_add(1);
        let end = start.saturating_add(2).saturating_add(body.len());
        self.next = end.next_multiple_of(4);
        start
    }

    fn power_management(&mut self, no_soft_reset: bool) {
        let pmcsr = if no_soft_reset {
            pci::PMCSR_NO_SOFT_RESET
        } else {
            0
        };
        let [c0, c1] = pci::PMC.to_le_bytes();
        let [s0, s1] = pmcsr.to_le_bytes();
        let start = self.push(pci::CAP_PM, &[c0, c1, s0, s1, 0, 0]);
        let offset = start.saturating_add(4);
        self.space
            .allow(offset, &pci::PMCSR_POWER_STATE.to_le_bytes());
        self.space.offsets.pmcsr = Some(offset);
    }

    fn msix(&mut self, bars: &BarLayout) {
        let [n0, n1] = bars.vectors().saturating_sub(1).to_le_bytes();
        let bar = u32::from(BarLayout::MSIX);
        let [t0, t1, t2, t3] = bar.to_le_bytes();
        let [p0, p1, p2, p3] = (bars.pending_offset() | bar).to_le_bytes();
        let start = self.push(pci::CAP_MSIX, &[n0, n1, t0, t1, t2, t3, p0, p1, p2, p3]);
        let control = start.saturating_add(2);
        let writable = pci::MSIX_ENABLE | pci::MSIX_FUNCTION_MASK;
        self.space.allow(control, &writable.to_le_bytes());
        self.space.offsets.msix_control = control;
    }

    fn virtio(
        &mut self,
        kind: u8,
        bar: u8,
        id: u8,
        (offset, length): (u32, u32),
        extra: &[u8],
    ) -> usize {
        let total = VIRTIO_CAP_LENGTH.saturating_add(extra.len());
        let [o0, o1, o2, o3] = offset.to_le_bytes();
        let [l0, l1, l2, l3] = length.to_le_bytes();
        let total = u8::try_from(total).unwrap_or(u8::MAX);
        let mut body = vec![total, kind, bar, id, 0, 0, o0, o1, o2, o3, l0, l1, l2, l3];
        body.extend_from_slice(extra);
        self.push(pci::CAP_VENDOR, &body)
    }

    /// struct virtio_pci_cap64: the high halves follow (§4.1.4.7).
    fn shared_memory(&mut self, region: &SharedMemoryRegion) {
        let [l0, l1, l2, l3, h0, h1, h2, h3] = region.length.to_le_bytes();
        let [o0, o1, o2, o3, p0, p1, p2, p3] = region.offset.to_le_bytes();
        let low = (
            u32::from_le_bytes([o0, o1, o2, o3]),
            u32::from_le_bytes([l0, l1, l2, l3]),
        );
        let high = [p0, p1, p2, p3, h0, h1, h2, h3];
        self.virtio(
            cap_type::SHARED_MEMORY_CFG,
            BarLayout::SHARED_MEMORY,
            region.id,
            low,
            &high,
        );
    }

    fn window(&mut self) {
        let start = self.virtio(cap_type::PCI_CFG, 0, 0, (0, 0), &[0; 4]);
        self.space.allow(start.saturating_add(4), &[0xff]);
        self.space.allow(start.saturating_add(8), &[0xff; 12]);
        self.space.offsets.window = start;
    }
}
