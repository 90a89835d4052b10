// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The sleep control and sleep status registers of hardware-reduced ACPI (ACPI 6.5 §4.8.3.7), as a pure model.
//!
//! A guest that goes to S3 clears WAK_STS, writes SLP_TYP with SLP_EN to the control register and then polls the status
//! register until WAK_STS reads 1. On a virtual CPU that keeps its state nothing else is needed to sleep and to wake:
//! the VMM answers the poll slowly while the guest sleeps, and with WAK_STS once it shall wake.

use std::mem;

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
    /// To sleep or to be switched off, of a guest that sleeps: nothing changes. Only a second virtual CPU can ask, and a
    /// guest runs none then. Said once a sleep, so that what is made of it, a line in a log, stays as rare.
    Refused,
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

/// Where a machine is between two sleeps. This is all that a snapshot has to keep of a [`SleepRegister`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SleepState {
    /// It runs.
    #[default]
    Awake,
    /// It sleeps.
    Asleep,
    /// It runs again, and the guest has not cleared WAK_STS.
    Woken,
}

/// The sleep registers of one virtual machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SleepRegister {
    types: SleepTypes,
    state: SleepState,
    refused: bool,
}

impl SleepRegister {
    /// A machine that is awake.
    pub fn new(types: SleepTypes) -> Self {
        Self::restore(types, SleepState::Awake)
    }

    /// A machine that is where `state`, from a snapshot, says.
    pub fn restore(types: SleepTypes, state: SleepState) -> Self {
        Self {
            types,
            state,
            refused: false,
        }
    }

    /// Where the machine is now.
    pub fn state(&self) -> SleepState {
        self.state
    }

    /// The guest writes the sleep control register.
    pub fn write_control(&mut self, value: u8) -> SleepRequest {
        let sleep_type = value >> SLP_TYP_SHIFT & SLP_TYP_MASK;
        let asked = if value & SLP_EN == 0 {
            SleepRequest::None
        } else if sleep_type == self.types.s5 {
            SleepRequest::PowerOff
        } else if Some(sleep_type) == self.types.s3 {
            SleepRequest::Sleep
        } else {
            SleepRequest::None
        };
        if asked == SleepRequest::None {
            return asked;
        }
        if self.is_asleep() {
            let said = mem::replace(&mut self.refused, true);
            return if said {
                SleepRequest::None
            } else {
                SleepRequest::Refused
            };
        }
        if asked == SleepRequest::Sleep {
            self.state = SleepState::Asleep;
            self.refused = false;
        }
        asked
    }

    /// The guest writes the sleep status register: WAK_STS is cleared by writing 1 to it.
    pub fn write_status(&mut self, value: u8) {
        if value & WAK_STS != 0 && self.state == SleepState::Woken {
            self.state = SleepState::Awake;
        }
    }

    /// The guest reads the sleep status register.
    pub fn read_status(&self) -> SleepStatus {
        match self.state {
            SleepState::Awake => SleepStatus::Value(0),
            SleepState::Woken => SleepStatus::Value(WAK_STS),
            SleepState::Asleep => SleepStatus::Asleep,
        }
    }

    /// Wakes the guest.
    ///
    /// # Errors
    /// It is awake; nothing changes.
    pub fn wake(&mut self) -> Result<(), NotAsleep> {
        if self.state != SleepState::Asleep {
            return Err(NotAsleep);
        }
        self.state = SleepState::Woken;
        Ok(())
    }

    /// Whether the guest sleeps.
    pub fn is_asleep(&self) -> bool {
        self.state == SleepState::Asleep
    }

    /// The machine was reset: the guest that slept is gone.
    pub fn reset(&mut self) {
        self.state = SleepState::Awake;
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
    fn a_sleeping_guest_sleeps_on_whatever_it_writes_and_is_refused_aloud_once_a_sleep() {
        let mut register = SleepRegister::new(TYPES);
        for _ in 0..2 {
            assert_eq!(register.write_control(S3), SleepRequest::Sleep);
            assert_eq!(register.write_control(0x1), SleepRequest::None);
            assert_eq!(register.write_control(S5), SleepRequest::Refused);
            assert_eq!(register.write_control(S3), SleepRequest::None);
            assert_eq!(register.write_control(S5), SleepRequest::None);
            register.write_status(WAK_STS);
            assert!(register.is_asleep());
            assert_eq!(register.wake(), Ok(()));
        }
    }

    /// A VMM that restores a snapshot has the state and nothing else.
    #[test]
    fn a_restored_register_goes_on_where_the_saved_one_was() {
        let mut register = SleepRegister::new(TYPES);
        assert_eq!(register.state(), SleepState::Awake);
        assert_eq!(register.write_control(S3), SleepRequest::Sleep);
        let mut restored = SleepRegister::restore(TYPES, register.state());
        assert_eq!(restored.read_status(), SleepStatus::Asleep);
        assert_eq!(restored.wake(), Ok(()));
        let mut restored = SleepRegister::restore(TYPES, restored.state());
        assert_eq!(restored.read_status(), SleepStatus::Value(WAK_STS));
        restored.write_status(WAK_STS);
        assert_eq!(restored.state(), SleepState::Awake);
    }

    #[test]
    fn a_reset_wakes_nobody_but_ends_the_sleep() {
        let mut register = SleepRegister::new(TYPES);
        assert_eq!(register.write_control(S3), SleepRequest::Sleep);
        register.reset();
        assert_eq!(register.read_status(), SleepStatus::Value(0));
    }
}
