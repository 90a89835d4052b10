// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::sysfs::{self, Function, SysfsError};

pub(crate) const USAGE: &str = "\
Usage: virtio-freezectl [OPTIONS] status|freeze|unfreeze [DEVICE...]

  status    show what virtio devices are there and what their freeze_mode is
  freeze    tell devices that the guest is about to enter S3, and wait until they have answered
  unfreeze  tell devices that the guest is back, and wait until they have answered

DEVICE is a PCI address such as 0000:00:02.0. Without one, freeze and unfreeze act on every virtio GPU and status
shows every virtio device.

Options:
  --timeout SECONDS   how long to wait for an answer, 5 by default
  --sysfs DIRECTORY   where the PCI devices are, /sys/bus/pci/devices by default
  --help              show this
";

/// Between two looks at the register. A device answers within microseconds unless its renderer is busy.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(1);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
const LONGEST_TIMEOUT: f64 = 3600.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Status,
    Freeze,
    Unfreeze,
}

#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum UsageError {
    #[error("no command")]
    NoAction,
    #[error("{0:?} needs a value")]
    NoValue(&'static str),
    #[error("{0:?} is not a number of seconds from 0 to 3600")]
    Timeout(OsString),
    #[error("{0:?} is not understood")]
    Unknown(OsString),
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    pub(crate) action: Action,
    pub(crate) timeout: Duration,
    devices: Vec<OsString>,
    sysfs: PathBuf,
}

impl Arguments {
    /// What the command line asks for; `None` where it asks for help.
    pub(crate) fn parse(
        mut words: impl Iterator<Item = OsString>,
    ) -> Result<Option<Self>, UsageError> {
        let mut action = None;
        let mut parsed = Self {
            action: Action::Status,
            timeout: DEFAULT_TIMEOUT,
            devices: Vec::new(),
            sysfs: PathBuf::from(sysfs::PCI_DEVICES),
        };
        while let Some(word) = words.next() {
            match word.to_str() {
                Some("--help" | "-h") => return Ok(None),
                Some("--timeout") => {
                    let value = words.next().ok_or(UsageError::NoValue("--timeout"))?;
                    parsed.timeout = seconds(value)?;
                }
                Some("--sysfs") => {
                    let value = words.next().ok_or(UsageError::NoValue("--sysfs"))?;
                    parsed.sysfs = value.into();
                }
                Some("status") if action.is_none() => action = Some(Action::Status),
                Some("freeze") if action.is_none() => action = Some(Action::Freeze),
                Some("unfreeze") if action.is_none() => action = Some(Action::Unfreeze),
                Some(device) if action.is_some() && !device.starts_with('-') => {
                    parsed.devices.push(word);
                }
                _ => return Err(UsageError::Unknown(word)),
            }
        }
        parsed.action = action.ok_or(UsageError::NoAction)?;
        Ok(Some(parsed))
    }

    /// The functions to act on.
    pub(crate) fn functions(&self) -> Result<Vec<Function>, SysfsError> {
        if !self.devices.is_empty() {
            let named = |device: &OsString| Function::named(&self.sysfs, device);
            return self.devices.iter().map(named).collect();
        }
        let mut functions = sysfs::virtio_functions(&self.sysfs)?;
        if self.action != Action::Status {
            functions.retain(Function::is_gpu);
        }
        if functions.is_empty() {
            return Err(SysfsError::NoDevice {
                directory: self.sysfs.clone(),
            });
        }
        Ok(functions)
    }
}

fn seconds(value: OsString) -> Result<Duration, UsageError> {
    value
        .to_str()
        .and_then(|text| text.parse::<f64>().ok())
        .filter(|seconds| (0.0..=LONGEST_TIMEOUT).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or(UsageError::Timeout(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Arguments>, UsageError> {
        Arguments::parse(line.split_whitespace().map(OsString::from))
    }

    fn parsed(line: &str) -> Arguments {
        parse(line).expect("valid").expect("not help")
    }

    #[test]
    fn a_command_alone_has_the_defaults() {
        let arguments = parsed("freeze");
        assert_eq!(arguments.action, Action::Freeze);
        assert_eq!(arguments.timeout, Duration::from_secs(5));
        assert_eq!(arguments.devices, Vec::<OsString>::new());
    }

    #[test]
    fn options_may_stand_before_and_after_the_command() {
        let arguments =
            parsed("--timeout 0.25 unfreeze 0000:00:02.0 --sysfs elsewhere 0000:00:03.0");
        assert_eq!(arguments.action, Action::Unfreeze);
        assert_eq!(arguments.timeout, Duration::from_millis(250));
        assert_eq!(arguments.devices, ["0000:00:02.0", "0000:00:03.0"]);
        assert_eq!(arguments.sysfs, PathBuf::from("elsewhere"));
    }

    #[test]
    fn help_wins_over_everything() {
        assert_eq!(parse("freeze --help"), Ok(None));
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(parse(""), Err(UsageError::NoAction));
        assert_eq!(
            parse("freeze --timeout"),
            Err(UsageError::NoValue("--timeout"))
        );
        assert_eq!(parse("--sysfs"), Err(UsageError::NoValue("--sysfs")));
        for bad in ["-1", "soon", "1e9", "nan", "inf"] {
            let error = parse(&format!("freeze --timeout {bad}"));
            assert_eq!(error, Err(UsageError::Timeout(bad.into())));
        }
        for bad in ["thaw", "freeze --force", "0000:00:02.0"] {
            let word = bad.rsplit(' ').next().expect("a word");
            assert_eq!(parse(bad), Err(UsageError::Unknown(word.into())));
        }
    }
}
