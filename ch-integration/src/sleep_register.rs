// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The sleep control and sleep status registers of hardware-reduced ACPI (ACPI 6.5 §4.8.3.7), as a pure model.
//!
//! A guest that goes to S3 clears WAK_STS, writes SLP_TYP with SLP_EN to the control register and then polls the status
//! register until WAK_STS reads 1. On a virtual CPU that keeps its state nothing else is needed to sleep and to wake:
//! the VMM answers the poll slowly while the guest sleeps, and with WAK_STS once it shall wake.

use thiserror::Error;

/// Sleep control: SLP_EN, bit 5.
const SLP_EN: u8 = 1 << 5;
/// Sleep control: SLP_TYP, bits 2 to 4.
const SLP_TYP_SHIFT: u32 = 2;
const SLP_TYP_MASK: u8 = 0b111;
/// Sleep status: WAK_STS, bit 7; software clears it by writing 1.
const WAK_STS: u8 = 1 << 7;

/// The SLP_TYP values that the `_Sx` objects of the DSDT promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SleepTypes {
    /// `_S3`, if the guest may sleep.
    pub s3: Option<u8>,
    /// `_S5`.
    pub s5: u8,
}

/// What a write to the sleep control register asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a sleep that nobody carries out leaves the guest polling for ever"]
pub enum SleepRequest {
    /// Nothing.
    None,
    /// The guest sleeps from now on; every device is told.
    Sleep,
    /// The guest wants to be switched off.
    PowerOff,
}

/// What a read of the sleep status register gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SleepStatus {
    /// This value, at once.
    Value(u8),
    /// 0, but not at once: the guest sleeps, and polls. A bounded wait for a wake here is what keeps its CPU idle; it
    /// must stay bounded, for a VMM that pauses or ends needs the virtual CPU back.
    Asleep,
}

/// The guest is awake: there is nothing to wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("The guest is not asleep")]
pub struct NotAsleep;

/// The sleep registers of one virtual machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SleepRegister {
    types: SleepTypes,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Awake,
    Asleep,
    /// Awake again, and the guest has not cleared WAK_STS.
    Woken,
}

impl SleepRegister {
    /// A machine that is awake.
    pub fn new(types: SleepTypes) -> Self {
        Self {
            types,
            state: State::Awake,
        }
    }

    /// The guest writes the sleep control register. A request while the guest sleeps is ignored: only a second virtual
    /// CPU could make it, and none runs then.
    pub fn write_control(&mut self, value: u8) -> SleepRequest {
        if value & SLP_EN == 0 || self.state == State::Asleep {
            return SleepRequest::None;
        }
        let sleep_type = value >> SLP_TYP_SHIFT & SLP_TYP_MASK;
        if sleep_type == self.types.s5 {
            return SleepRequest::PowerOff;
        }
        if Some(sleep_type) == self.types.s3 {
            self.state = State::Asleep;
            return SleepRequest::Sleep;
        }
        SleepRequest::None
    }

    /// The guest writes the sleep status register: WAK_STS is cleared by writing 1 to it.
    pub fn write_status(&mut self, value: u8) {
        if value & WAK_STS != 0 && self.state == State::Woken {
            self.state = State::Awake;
        }
    }

    /// The guest reads the sleep status register.
    pub fn read_status(&self) -> SleepStatus {
        match self.state {
            State::Awake => SleepStatus::Value(0),
            State::Woken => SleepStatus::Value(WAK_STS),
            State::Asleep => SleepStatus::Asleep,
        }
    }

    /// Wakes the guest.
    ///
    /// # Errors
    /// It is awake; nothing changes.
    pub fn wake(&mut self) -> Result<(), NotAsleep> {
        if self.state != State::Asleep {
            return Err(NotAsleep);
        }
        self.state = State::Woken;
        Ok(())
    }

    /// Whether the guest sleeps.
    pub fn is_asleep(&self) -> bool {
        self.state == State::Asleep
    }

    /// The machine was reset: the guest that slept is gone.
    pub fn reset(&mut self) {
        let Self { types: _, state } = self;
        *state = State::Awake;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPES: SleepTypes = SleepTypes { s3: Some(3), s5: 5 };
    const S3: u8 = 0x2c;
    const S5: u8 = 0x34;

    /// The writes of Linux's hardware-reduced sleep: clear WAK_STS, sleep, poll, wake, clear WAK_STS.
    #[test]
    fn a_guest_sleeps_polls_and_wakes() {
        let mut register = SleepRegister::new(TYPES);
        for _ in 0..2 {
            register.write_status(WAK_STS);
            assert_eq!(register.write_control(S3), SleepRequest::Sleep);
            assert_eq!(register.read_status(), SleepStatus::Asleep);
            assert!(register.is_asleep());
            assert_eq!(register.wake(), Ok(()));
            assert_eq!(register.read_status(), SleepStatus::Value(WAK_STS));
            register.write_status(WAK_STS);
            assert_eq!(register.read_status(), SleepStatus::Value(0));
        }
    }

    #[test]
    fn only_a_sleeping_guest_can_be_woken() {
        let mut register = SleepRegister::new(TYPES);
        assert_eq!(register.wake(), Err(NotAsleep));
        assert_eq!(register.write_control(S3), SleepRequest::Sleep);
        assert_eq!(register.wake(), Ok(()));
        assert_eq!(register.wake(), Err(NotAsleep));
    }

    #[test]
    fn a_request_without_slp_en_or_of_another_type_does_nothing() {
        let mut register = SleepRegister::new(TYPES);
        for value in 0..=u8::MAX {
            let expected = match value & 0x3c {
                S3 => continue,
                S5 => SleepRequest::PowerOff,
                _ => SleepRequest::None,
            };
            assert_eq!(register.write_control(value), expected, "{value:#x}");
            assert!(!register.is_asleep());
        }
    }

    #[test]
    fn a_machine_without_s3_does_not_sleep() {
        let mut register = SleepRegister::new(SleepTypes { s3: None, s5: 5 });
        assert_eq!(register.write_control(S3), SleepRequest::None);
        assert_eq!(register.read_status(), SleepStatus::Value(0));
    }

    #[test]
    fn a_sleeping_guest_ignores_requests_and_keeps_sleeping_through_a_cleared_status() {
        let mut register = SleepRegister::new(TYPES);
        assert_eq!(register.write_control(S3), SleepRequest::Sleep);
        assert_eq!(register.write_control(S3), SleepRequest::None);
        assert_eq!(register.write_control(S5), SleepRequest::None);
        register.write_status(WAK_STS);
        assert!(register.is_asleep());
    }

    #[test]
    fn a_reset_wakes_nobody_but_ends_the_sleep() {
        let mut register = SleepRegister::new(TYPES);
        assert_eq!(register.write_control(S3), SleepRequest::Sleep);
        register.reset();
        assert_eq!(register.read_status(), SleepStatus::Value(0));
    }
}
