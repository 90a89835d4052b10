// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A whole virtio PCI function (VIRTIO 1.4 §4.1).

use crate::bars::{BarLayout, Place, SharedMemoryRegion};
use crate::common_config::CommonConfig;
use crate::config_space::{ConfigSpace, Identity, NOTIFY_STRIDE};
use crate::effect::{ActivationKind, Effect, Effects, FreezeTicket, ResetKind, ResetTicket};
use crate::error::ConfigError;
use crate::msix::{Interrupt, Msix, VectorOwner};
use crate::spec::{PCI_SUBSYSTEM_ID_MIN, VIRTIO_MSI_NO_VECTOR, isr, pci};
use crate::status::Phase;
use crate::transport::{Counters, PowerState, ResetOutcome, Transport, TransportConfig, count};

mod saved;
mod window;

/// Longest write that is carried out, in bytes; no bus that a guest drives makes longer ones.
pub const MAX_WRITE: usize = 8;

/// What a VMM decides about a function.
#[derive(Clone, Debug)]
pub struct FunctionConfig {
    /// The transport; its `starts_as_bus_master` is overridden, since a PCI function never does.
    pub transport: TransportConfig,
    /// What identifies it on the bus.
    pub identity: Identity,
    /// Regions of shared memory, at most 2.
    pub shared_memory: Vec<SharedMemoryRegion>,
    /// Who keeps the MSI-X table.
    pub vector_owner: VectorOwner,
    /// Whether there is a power management capability.
    pub power_management: bool,
}

/// A virtio PCI function: configuration space, BARs, interrupts and retention.
///
/// It is driven by accesses and events, and answers with values and [`Effects`]; it never blocks and touches nothing.
#[derive(Clone, Debug)]
pub struct VirtioPciFunction {
    common: CommonConfig,
    space: ConfigSpace,
    bars: BarLayout,
    msix: Msix,
    isr: u8,
    /// Whether the driver has yet to be told of a configuration change. Outlives a frozen reset, which takes the ISR
    /// and the vectors with it.
    owes_config_change: bool,
    interrupt_pin: bool,
    /// Whether the function asserts its interrupt: the Interrupt Status bit.
    asserts_interrupt: bool,
    /// The level of INTx that the VMM was last told.
    intx: bool,
}

impl VirtioPciFunction {
    /// A function as after power-on.
    ///
    /// # Errors
    /// A [`ConfigError`] names what the caller asked for and cannot have.
    pub fn new(config: FunctionConfig) -> Result<Self, ConfigError> {
        Self::build(config, Transport::new)
    }

    /// A function around the transport that `make` gives.
    fn build<E: From<ConfigError>>(
        config: FunctionConfig,
        make: impl FnOnce(TransportConfig) -> Result<Transport, E>,
    ) -> Result<Self, E> {
        let FunctionConfig {
            mut transport,
            identity,
            shared_memory,
            vector_owner,
            power_management,
        } = config;
        transport.starts_as_bus_master = false;
        let id = identity.subsystem_id;
        if id < PCI_SUBSYSTEM_ID_MIN {
            return Err(ConfigError::SubsystemId { id }.into());
        }
        let bars = BarLayout::new(transport.vectors, shared_memory)?;
        let msix = Msix::new(vector_owner, transport.vectors);
        let common = CommonConfig::with_transport(make(transport)?);
        let no_soft_reset = power_management.then(|| common.transport().no_soft_reset());
        let space = ConfigSpace::new(&identity, &bars, no_soft_reset, common.length());
        Ok(Self {
            common,
            space,
            bars,
            msix,
            isr: 0,
            owes_config_change: false,
            interrupt_pin: identity.interrupt_pin,
            asserts_interrupt: false,
            intx: false,
        })
    }

    /// The virtio side.
    pub fn transport(&self) -> &Transport {
        self.common.transport()
    }

    /// The BARs.
    pub fn bars(&self) -> &BarLayout {
        &self.bars
    }

    /// Who keeps the MSI-X table.
    pub fn vector_owner(&self) -> VectorOwner {
        self.msix.owner()
    }

    /// Reads configuration space; bytes beyond its end read 0. A VMM with shared memory looks first whether the read
    /// goes there: see [`shared_memory_read`](Self::shared_memory_read).
    pub fn read_config(&mut self, offset: u16, data: &mut [u8]) -> Effects {
        self.read_config_with(offset, data, &[])
    }

    /// The same for a read that looks into shared memory, with what the VMM found there.
    pub fn read_config_with(&mut self, offset: u16, data: &mut [u8], found: &[u8]) -> Effects {
        let mut effects = Effects::none();
        let offset = usize::from(offset);
        if self.space.touches_window(offset, data.len()) {
            self.read_through_window(found);
            self.update_intx(&mut effects);
        }
        if self.space.locates_registers(offset, data.len()) {
            self.common.transport_mut().probed(&mut effects);
        }
        self.space.read(offset, data);
        effects
    }

    /// Writes configuration space. Writes of more than [`MAX_WRITE`] bytes are ignored and counted. A VMM with shared
    /// memory asks afterwards whether the write goes there: see [`shared_memory_write`](Self::shared_memory_write).
    pub fn write_config(&mut self, offset: u16, data: &[u8]) -> Effects {
        let mut effects = Effects::none();
        if data.len() > MAX_WRITE {
            count(&mut self.counters().accesses_ignored);
            return effects;
        }
        if self.sizes_a_bar(offset, data) && self.transport().awaits_driver() {
            // Firmware sizes BARs when it boots and leaves them alone when it wakes: so that reset was a reboot.
            self.common.transport_mut().reboot(&mut effects);
        }
        let offset = usize::from(offset);
        self.space.write(offset, data);
        self.note_restore(offset, data.len());
        self.apply_config_space(&mut effects);
        if self.space.touches_window(offset, data.len()) {
            self.write_through_window(offset, data.len(), &mut effects);
        }
        self.finish(&mut effects);
        effects
    }

    /// Reads a BAR. In D3hot nothing answers, which reads as all ones (PCI PM 1.2 §5.4.1).
    pub fn read_bar(&mut self, bar: u8, offset: u64, data: &mut [u8]) -> Effects {
        let mut effects = Effects::none();
        if self.transport().power() == PowerState::D3hot {
            data.fill(0xff);
            count(&mut self.counters().accesses_ignored);
            return effects;
        }
        self.read_place(bar, offset, data);
        self.update_intx(&mut effects);
        effects
    }

    /// Writes a BAR. Writes in D3hot, and of more than [`MAX_WRITE`] bytes, are ignored and counted.
    pub fn write_bar(&mut self, bar: u8, offset: u64, data: &[u8]) -> Effects {
        let mut effects = Effects::none();
        if data.len() > MAX_WRITE || self.transport().power() == PowerState::D3hot {
            count(&mut self.counters().accesses_ignored);
            return effects;
        }
        self.write_place(bar, offset, data, &mut effects);
        self.finish(&mut effects);
        effects
    }

    /// The function is reset from outside (see [`Transport::function_reset`]).
    pub fn function_reset(&mut self) -> Effects {
        let mut effects = Effects::none();
        self.common.transport_mut().function_reset(&mut effects);
        self.space.reset();
        self.msix.reset_table();
        self.isr = 0;
        if self.transport().is_live() && self.owes_config_change {
            self.raise_config();
        }
        self.finish(&mut effects);
        effects
    }

    /// The VM rebooted, or the function leaves it (see [`Transport::reboot`]).
    pub fn reboot(&mut self) -> Effects {
        let mut effects = Effects::none();
        self.common.transport_mut().reboot(&mut effects);
        self.space.reset();
        self.msix.reset_table();
        self.apply_config_space(&mut effects);
        self.clear_interrupts();
        self.owes_config_change = false;
        self.finish(&mut effects);
        effects
    }

    /// The VMM knows that the guest sleeps now.
    pub fn platform_sleep(&mut self) {
        self.common.transport_mut().platform_sleep();
    }

    /// The VMM knows that the guest has woken.
    pub fn platform_wake(&mut self) {
        self.common.transport_mut().platform_wake();
    }

    /// See [`Transport::reset_done`].
    pub fn reset_done(&mut self, ticket: ResetTicket, outcome: ResetOutcome<'_>) -> Effects {
        let mut effects = Effects::none();
        let done = self.common.transport_mut().reset_done(ticket, outcome);
        if let Some(kind) = done {
            self.clear_interrupts();
            self.owes_config_change &= kind == ResetKind::Frozen;
            self.finish(&mut effects);
        }
        effects
    }

    /// See [`Transport::freeze_done`].
    pub fn freeze_done(&mut self, ticket: FreezeTicket, honoured: bool) {
        self.common.transport_mut().freeze_done(ticket, honoured);
    }

    /// See [`Transport::suspend_done`].
    pub fn suspend_done(&mut self, suspended: bool) -> Effects {
        let tell = self.common.transport_mut().suspend_done(suspended);
        self.tell_config_change(tell)
    }

    /// See [`Transport::resume_done`]. Asks for more than interrupts: the [`Kick`](Effect::Kick) is what serves the
    /// buffers that the driver made available before the suspend.
    pub fn resume_done(&mut self, resumed: bool) -> Effects {
        let mut effects = Effects::none();
        if self
            .common
            .transport_mut()
            .resume_done(resumed, &mut effects)
        {
            self.raise_config();
        }
        self.finish(&mut effects);
        effects
    }

    /// See [`Transport::queue_reset_done`].
    pub fn queue_reset_done(&mut self, index: u16) {
        self.common.transport_mut().queue_reset_done(index);
    }

    /// The device met an error that only a reset cures.
    pub fn needs_reset(&mut self) -> Effects {
        let tell = self.common.transport_mut().needs_reset();
        self.tell_config_change(tell)
    }

    /// The device changed its configuration from `offset` on.
    pub fn update_device_config(&mut self, offset: u16, data: &[u8]) -> Effects {
        let transport = self.common.transport_mut();
        let suspended = matches!(transport.phase(), Phase::Suspended | Phase::Resuming);
        let config = transport.device_config_mut();
        if suspended {
            config.defer(offset.into(), data);
            return Effects::none();
        }
        let changed = config.update(offset.into(), data);
        let tell = changed && transport.is_live();
        // A driver that comes back from a sleep does not read its configuration again unless it is told to.
        self.owes_config_change |= changed && transport.retains();
        self.tell_config_change(tell)
    }

    /// The device has used buffers of `queue` and the driver wants to know.
    pub fn queue_used(&mut self, queue: u16) -> Effects {
        let mut effects = Effects::none();
        let transport = self.transport();
        let in_use = transport.queue(queue).is_some_and(|q| !q.is_disabled());
        if in_use && transport.has_live_queues() {
            self.raise_queue(queue);
        }
        self.finish(&mut effects);
        effects
    }

    /// The VMM gave or took a vector's way to the guest, where it owns the table ([`VectorOwner::Vmm`]).
    pub fn connect_vector(&mut self, vector: u16, connected: bool) -> Effects {
        let mut effects = Effects::none();
        self.msix.connect(vector, connected);
        self.finish(&mut effects);
        effects
    }

    /// Takes the next interrupt to send. To be called until it returns `None` after [`Effect::Interrupt`].
    pub fn next_interrupt(&mut self) -> Option<Interrupt> {
        if !self.transport().may_interrupt() {
            return None;
        }
        let interrupt = self.msix.take()?;
        if interrupt.vector == self.transport().config_vector() {
            self.owes_config_change = false;
        }
        Some(interrupt)
    }

    fn counters(&mut self) -> &mut Counters {
        self.common.transport_mut().counters_mut()
    }

    fn read_place(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        data.fill(0);
        match self.bars.place(bar, offset, self.common.length()) {
            Some(Place::Common(at)) => self.common.read(at, data),
            Some(Place::Isr(at)) => self.read_isr(at, data),
            Some(Place::Device(at)) => {
                let config = self.common.transport_mut().device_config_mut();
                config.read(usize::try_from(at).unwrap_or(usize::MAX), data);
            }
            Some(Place::MsixTable(at)) => self.msix.read_table(at, data),
            Some(Place::MsixPending(at)) => self.msix.read_pending(at, data),
            Some(Place::Notify(_)) => {}
            None => count(&mut self.counters().accesses_ignored),
        }
    }

    fn write_place(&mut self, bar: u8, offset: u64, data: &[u8], effects: &mut Effects) {
        match self.bars.place(bar, offset, self.common.length()) {
            Some(Place::Common(at)) => self.common.write(at, data, effects),
            Some(Place::Device(at)) => self.write_device_config(at, data, effects),
            Some(Place::Notify(at)) => self.write_doorbell(at, data, effects),
            Some(Place::MsixTable(at)) => self.msix.write_table(at, data),
            Some(Place::Isr(_) | Place::MsixPending(_)) | None => {
                count(&mut self.counters().accesses_ignored);
            }
        }
    }

    fn write_device_config(&mut self, offset: u64, data: &[u8], effects: &mut Effects) {
        let suspended = matches!(self.transport().phase(), Phase::Suspended | Phase::Resuming);
        let width = u8::try_from(data.len())
            .ok()
            .filter(|&width| width > 0 && !suspended);
        let (Ok(offset), Some(width)) = (u16::try_from(offset), width) else {
            count(&mut self.counters().register_writes_ignored);
            return;
        };
        let mut bytes = [0; MAX_WRITE];
        bytes
            .iter_mut()
            .zip(data)
            .for_each(|(to, from)| *to = *from);
        let value = u64::from_le_bytes(bytes);
        effects.push(Effect::DeviceConfigWrite {
            offset,
            width,
            value,
        });
    }

    /// A doorbell is where it is written; what is written is for the device (§4.1.5.2).
    fn write_doorbell(&mut self, offset: u64, data: &[u8], effects: &mut Effects) {
        let queue = offset
            .checked_div(NOTIFY_STRIDE.into())
            .and_then(|q| u16::try_from(q).ok());
        let aligned = offset.is_multiple_of(NOTIFY_STRIDE.into());
        let (Some(queue), true) = (queue, aligned) else {
            count(&mut self.counters().notifications_ignored);
            return;
        };
        let mut bytes = [0; 4];
        bytes
            .iter_mut()
            .zip(data)
            .for_each(|(to, from)| *to = *from);
        let value = u32::from_le_bytes(bytes);
        self.common.transport_mut().notify(queue, value, effects);
    }

    /// Reading the ISR clears it (§4.1.4.5).
    fn read_isr(&mut self, offset: u64, data: &mut [u8]) {
        if let (0, Some(first)) = (offset, data.first_mut()) {
            *first = self.isr;
            self.owes_config_change &= self.isr & isr::CONFIG == 0;
            self.isr = 0;
        }
    }

    /// A virtio reset: nothing waits any more.
    fn clear_interrupts(&mut self) {
        self.msix.clear_pending();
        self.isr = 0;
    }

    /// All ones but for the bits that say what kind of BAR it is, which OpenBSD leaves 0 (PCI 3.0 §6.2.5.1). No BAR is
    /// placed there: the smallest of ours is larger than 16 bytes.
    fn sizes_a_bar(&self, offset: u16, data: &[u8]) -> bool {
        let bars = u16::from(pci::BAR0)..u16::from(pci::BAR0).saturating_add(24);
        let value = data.try_into().map(u32::from_le_bytes);
        bars.contains(&offset) && value.is_ok_and(|value| value | 0xf == u32::MAX)
    }

    /// A kernel that takes a function over, from its sleep or from another kernel, sets MSI-X up before it gives the bus back.
    /// Where MSI-X is not used, nothing tells whether it has.
    fn note_restore(&mut self, offset: usize, length: usize) {
        let (enabled, _) = self.space.msix_control();
        let returns = self.space.is_bus_master() && !enabled;
        let sets_up = !self.space.is_bus_master() && self.space.controls_msix(offset, length);
        if returns || sets_up {
            self.common.transport_mut().note_restore();
        }
    }

    /// Brings transport and MSI-X in line with what configuration space says now.
    fn apply_config_space(&mut self, effects: &mut Effects) {
        let transport = self.common.transport_mut();
        transport.set_power_state(self.space.power_state(), effects);
        transport.set_bus_master(self.space.is_bus_master(), effects);
        let (enabled, function_mask) = self.space.msix_control();
        self.msix.set_control(enabled, function_mask);
    }

    fn tell_config_change(&mut self, tell: bool) -> Effects {
        let mut effects = Effects::none();
        if tell {
            self.raise_config();
        }
        self.finish(&mut effects);
        effects
    }

    fn raise_config(&mut self) {
        // §4.1.4.5.1: the bit is set before the notification, with MSI-X too.
        self.isr |= isr::CONFIG;
        let vector = self.transport().config_vector();
        if vector != VIRTIO_MSI_NO_VECTOR {
            self.msix.raise(vector);
        }
        // With MSI-X and no vector the driver is not told (§4.1.5.4.1), now or later.
        self.owes_config_change = vector != VIRTIO_MSI_NO_VECTOR || !self.msix.is_enabled();
    }

    fn raise_queue(&mut self, queue: u16) {
        let vector = self.transport().queue(queue).map(|queue| queue.vector);
        if !self.msix.is_enabled() {
            self.isr |= isr::QUEUE;
        }
        if let Some(vector) = vector.filter(|&vector| vector != VIRTIO_MSI_NO_VECTOR) {
            self.msix.raise(vector);
        }
    }

    /// After every access: a kick re-signals the queues, and what may go is announced.
    ///
    /// An interrupt sent just before a sleep can die with the MSI-X table, and one raised by the kick may find no way
    /// to the guest yet. Signalling every queue again costs the driver one look at its used rings. A fresh device has
    /// nothing that could have been lost.
    fn finish(&mut self, effects: &mut Effects) {
        let has = |wanted| effects.iter().any(|effect| *effect == wanted);
        if has(Effect::Kick) && !has(Effect::Activate(ActivationKind::Fresh)) {
            self.resignal_queues();
        }
        let returned = |effect: &Effect| {
            use ActivationKind::{Reinstated, Retained};
            matches!(effect, Effect::Activate(Retained | Reinstated))
        };
        if effects
            .iter()
            .any(|e| *e == Effect::Activate(ActivationKind::Fresh))
        {
            self.owes_config_change = false;
        } else if self.owes_config_change && effects.iter().any(returned) {
            self.raise_config();
        }
        if has(Effect::Disown) && self.common.transport_mut().needs_reset() {
            self.raise_config();
        }
        self.announce(effects);
    }

    /// What may go is announced. A device that has missed an effect does not do what the driver thinks that it does, and
    /// only a reset makes them agree again (VIRTIO 1.4 §2.1.2).
    fn announce(&mut self, effects: &mut Effects) {
        if effects.is_incomplete() && self.common.transport_mut().needs_reset() {
            self.raise_config();
        }
        self.update_intx(effects);
        if self.transport().may_interrupt() && self.msix.has_deliverable() {
            effects.announce(Effect::Interrupt);
        }
    }

    /// The line follows the ISR, unless MSI-X is enabled, INTx masked, or the function asleep (§4.1.4.5.1).
    fn update_intx(&mut self, effects: &mut Effects) {
        if self.isr == 0 && !self.asserts_interrupt {
            return;
        }
        let transport = self.transport();
        let awake = transport.power() == PowerState::D0 && transport.has_live_queues();
        let asserted = awake && self.isr != 0 && !self.msix.is_enabled();
        self.asserts_interrupt = asserted;
        self.space.set_interrupt_status(asserted);
        let masked = self.space.command() & pci::COMMAND_INTX_DISABLE != 0;
        let level = asserted && self.interrupt_pin && !masked;
        if level != self.intx {
            self.intx = level;
            effects.announce(Effect::Intx(level));
        }
    }

    fn resignal_queues(&mut self) {
        let Self {
            common, msix, isr, ..
        } = self;
        for setup in common.transport().active_queues() {
            if setup.vector != VIRTIO_MSI_NO_VECTOR {
                msix.raise(setup.vector);
            } else if !msix.is_enabled() {
                *isr |= isr::QUEUE;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::register::Layout;
    use crate::spec::DeviceStatus;
    use crate::test_utils::{Driver, Machine, Reach, function_config, retention, transport_config};

    #[test]
    fn a_device_that_missed_an_effect_needs_a_reset_and_the_driver_is_told() {
        let transport = transport_config(Layout::Seed, retention(false));
        let mut machine = Machine::new(function_config(transport));
        let mut driver = Driver::probe(&mut machine, Reach::Memory);
        driver.bind(&mut machine);
        let mut effects = Effects::none();
        while !effects.is_incomplete() {
            effects.push(Effect::Pause);
        }
        machine.function.finish(&mut effects);
        let status = machine.function.transport().status();
        assert!(status.contains(DeviceStatus::DEVICE_NEEDS_RESET));
        assert_eq!(effects.into_iter().next_back(), Some(Effect::Interrupt));
    }
}
