// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How long a wake took, from the kernel's own messages.

use guest_agent::protocol::KernelMessage;

/// Milliseconds of one wake.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ResumeTimes {
    /// All phases of resuming devices.
    pub all_devices: f64,
    /// The callbacks of the one device asked for, and of the virtio device under it.
    pub device: f64,
}

impl ResumeTimes {
    /// Reads what `pm_debug_messages` and `pm_print_times` log.
    pub fn of(messages: &[KernelMessage], pci_address: &str) -> Self {
        let mut times = Self::default();
        for message in messages {
            times.all_devices += resume_phase(&message.text).unwrap_or_default();
            if message.text.contains(pci_address) || message.text.contains("virtio0") {
                times.device += resume_callback(&message.text).unwrap_or_default();
            }
        }
        times
    }
}

/// `PM: early resume of devices complete after 1.234 msecs`
fn resume_phase(text: &str) -> Option<f64> {
    let (phase, rest) = text.split_once(" of devices complete after ")?;
    phase
        .contains("resume")
        .then(|| rest.split(' ').next()?.parse().ok())?
}

/// `virtio-pci 0000:00:01.0: PM: pci_pm_resume returned 0 after 123 usecs`
fn resume_callback(text: &str) -> Option<f64> {
    let (call, rest) = text.split_once(" returned ")?;
    let micros: f64 = rest
        .split_once(" after ")?
        .1
        .split(' ')
        .next()?
        .parse()
        .ok()?;
    call.contains("resume").then_some(micros / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> KernelMessage {
        KernelMessage {
            seq: 0,
            time_us: 0,
            severity: 7,
            text: text.to_owned(),
        }
    }

    #[test]
    fn only_resume_callbacks_of_the_device_are_counted_as_its_own() {
        let messages = [
            "virtio-pci 0000:00:01.0: PM: pci_pm_suspend returned 0 after 9000 usecs",
            "virtio-pci 0000:00:01.0: PM: pci_pm_resume_noirq returned 0 after 500 usecs",
            "ahci 0000:00:1f.2: PM: pci_pm_resume returned 0 after 7000 usecs",
            "virtio-pci 0000:00:01.0: PM: pci_pm_resume returned 0 after 1500 usecs",
            "PM: suspend of devices complete after 50.000 msecs",
            "PM: noirq resume of devices complete after 10.250 msecs",
            "PM: resume of devices complete after 30.500 msecs",
        ]
        .map(message);
        let times = ResumeTimes::of(&messages, "0000:00:01.0");
        assert_eq!(
            times,
            ResumeTimes {
                all_devices: 40.75,
                device: 2.0
            }
        );
    }
}
