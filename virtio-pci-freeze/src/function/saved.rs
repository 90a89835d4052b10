// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! State to plain data and back.

use super::{FunctionConfig, VirtioPciFunction};
use crate::effect::Effects;
use crate::queue::RingPosition;
use crate::saved_state::{FUNCTION_KIND, RestoreError, RestoredDevice, SavedFunction, SavedHeader};
use crate::spec::isr;
use crate::transport::Transport;

impl VirtioPciFunction {
    /// The state as plain data. `positions`, by queue index, are how far a live device has come; missing ones are
    /// taken from when the queue was last set up.
    pub fn save(&self, positions: &[RingPosition]) -> SavedFunction {
        let Self {
            common,
            space,
            bars: _,
            msix,
            isr,
            owes_config_change,
            interrupt_pin: _,
            // Follow from the rest.
            asserts_interrupt: _,
            intx: _,
        } = self;
        SavedFunction {
            header: SavedHeader::current(FUNCTION_KIND),
            transport: common.transport().save(positions),
            config_space: space.save(),
            vectors: msix.save(),
            isr: *isr,
            owes_config_change: *owes_config_change,
        }
    }

    /// A function as it was saved, and what has to be done to go on from there (see [`Transport::restore`]).
    ///
    /// Where the VMM owns the MSI-X table, every vector starts unconnected: connect them, and what waits will go.
    ///
    /// # Errors
    /// A [`RestoreError`] where the state is of another version or device, or contradicts itself.
    pub fn restore(
        config: FunctionConfig,
        saved: &SavedFunction,
        device: RestoredDevice,
    ) -> Result<(Self, Effects), RestoreError> {
        let SavedFunction {
            header,
            transport,
            config_space,
            vectors,
            isr,
            owes_config_change,
        } = saved;
        header.check(FUNCTION_KIND)?;
        let make = |config| Transport::rebuild(config, transport);
        let mut function = Self::build(config, make)?;
        function.space.restore(config_space)?;
        function.msix.restore(vectors)?;
        let (enabled, mask) = function.space.msix_control();
        function.msix.set_control(enabled, mask);
        function.isr = *isr;
        function.owes_config_change = *owes_config_change;
        function.check()?;
        let mut effects = Effects::none();
        function.go_on(device, &mut effects);
        Ok((function, effects))
    }

    fn check(&self) -> Result<(), RestoreError> {
        let transport = self.transport();
        let same_bus = transport.is_bus_master() == self.space.is_bus_master()
            && transport.power() == self.space.power_state();
        let known = isr::QUEUE | isr::CONFIG;
        if !same_bus {
            return Err(RestoreError::Invalid { what: "bus state" });
        }
        if self.isr & !known != 0 {
            return Err(RestoreError::Invalid { what: "ISR" });
        }
        Ok(())
    }

    fn go_on(&mut self, device: RestoredDevice, effects: &mut Effects) {
        let transport = self.common.transport_mut();
        transport.go_on(device, effects);
        if device == RestoredDevice::Lost {
            if self.transport().is_live() {
                self.raise_config();
            } else {
                self.clear_interrupts();
                self.owes_config_change = false;
            }
        }
        // The guest's interrupt controller was saved with the guest: what was sent has arrived, and nothing is sent twice.
        self.announce(effects);
    }
}
