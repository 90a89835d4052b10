// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How strict, and what could not be had.

use std::fmt::{Display, Formatter, Result as FmtResult};
use std::str::FromStr;

/// How strict a sandbox is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// What was not declared ends the process, or is refused.
    #[default]
    On,
    /// A call that was not declared goes on, and the kernel logs it; files are all within reach. To find out what a
    /// policy lacks on another host.
    Log,
    /// Nothing is given up.
    Off,
}

impl Mode {
    const ALL: [(&str, Self); 3] = [("on", Self::On), ("log", Self::Log), ("off", Self::Off)];

    /// As an option has it.
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, mode)| *mode == self);
        found.map_or("", |(name, _)| name)
    }
}

impl Display for Mode {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        f.write_str(self.name())
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(name, _)| *name == text);
        found.map_or_else(
            || Err("allowed are on, log and off".into()),
            |(_, mode)| Ok(*mode),
        )
    }
}

/// A part of a sandbox that this host does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Which, and what that means.
    pub what: &'static str,
    /// What the host said.
    pub why: String,
}

impl Missing {
    pub(crate) fn new(what: &'static str, why: &impl ToString) -> Self {
        let why = why.to_string();
        Self { what, why }
    }
}

impl Display for Missing {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        write!(f, "{} ({})", self.what, self.why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_read_as_it_is_written() {
        for mode in [Mode::On, Mode::Log, Mode::Off] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        assert!("yes".parse::<Mode>().is_err());
    }
}
