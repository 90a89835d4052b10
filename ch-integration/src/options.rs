// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The options of a GPU, as a person writes them.

use std::str::FromStr;

use thiserror::Error;
use virtio_gpu_s3::{ConfigError as GpuConfigError, GpuConfig, Limits, OutputConfig};
use virtio_pci_freeze::{HoldSources, Layout, Retention};

/// An option that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OptionError {
    /// A part that is not KEY=VALUE.
    #[error("'{part}' is not KEY=VALUE")]
    NotAPair {
        /// The part.
        part: String,
    },
    /// A key that does not exist.
    #[error("unknown key '{key}'; the keys are {}", GpuOption::KEYS)]
    UnknownKey {
        /// The key.
        key: String,
    },
    /// A key given twice.
    #[error("'{key}' is given twice")]
    Twice {
        /// The key.
        key: String,
    },
    /// A value that does not fit its key.
    #[error("'{key}={value}' is not allowed; {allowed}")]
    Value {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// What would be.
        allowed: &'static str,
    },
    /// A hold that does not exist.
    #[error(
        "unknown hint '{hint}'; the hints are d3hot, bus-master, function-reset and same-driver, or none"
    )]
    UnknownHint {
        /// What was written.
        hint: String,
    },
}

/// What renders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// The device's own 2D path; needs nothing of the host.
    #[default]
    TwoD,
    /// virglrenderer, on the host's OpenGL.
    #[cfg(feature = "virgl")]
    Virgl,
}

impl Backend {
    #[cfg(feature = "virgl")]
    const ALLOWED: &str = "2d and virgl are";
    #[cfg(not(feature = "virgl"))]
    const ALLOWED: &str = "2d is, and virgl in a build with that feature";
}

/// `on` or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// `on`
    On,
    /// `off`
    Off,
}

impl Switch {
    /// Whether it is `on`.
    pub fn is_on(self) -> bool {
        self == Self::On
    }
}

impl FromStr for Switch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => Err("allowed are on and off".into()),
        }
    }
}

/// Size of an output, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputSize {
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
}

/// The value of `--gpu`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuOption {
    /// What renders.
    pub backend: Backend,
    /// How many outputs, 1 to 16.
    pub outputs: u32,
    /// Preferred size of each.
    pub size: OutputSize,
    /// Host memory that the guest may fill, in bytes; `None` for the device's default.
    pub hostmem: Option<u64>,
}

impl Default for GpuOption {
    fn default() -> Self {
        Self {
            backend: Backend::TwoD,
            outputs: 1,
            size: OutputSize {
                width: 1280,
                height: 800,
            },
            hostmem: None,
        }
    }
}

impl GpuOption {
    const KEYS: &str = "backend, outputs, width, height and hostmem";

    /// The device that this asks for.
    ///
    /// # Errors
    /// No such device can be made.
    pub fn gpu_config(&self) -> Result<GpuConfig, GpuConfigError> {
        let OutputSize { width, height } = self.size;
        let outputs = (0..self.outputs).map(|_| OutputConfig { width, height });
        let mut limits = Limits::default();
        if let Some(hostmem) = self.hostmem {
            limits.max_host_bytes = hostmem;
        }
        GpuConfig::new(outputs.collect())?.with_limits(limits)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), OptionError> {
        let pixels = "a number of pixels from 1 to 32768 is";
        match key {
            "backend" => {
                self.backend = match value {
                    "2d" => Backend::TwoD,
                    #[cfg(feature = "virgl")]
                    "virgl" => Backend::Virgl,
                    _ => return Err(bad("backend", value, Backend::ALLOWED)),
                }
            }
            "outputs" => self.outputs = number("outputs", value, 16, "1 to 16 are")?,
            "width" => self.size.width = number("width", value, 32768, pixels)?,
            "height" => self.size.height = number("height", value, 32768, pixels)?,
            "hostmem" => self.hostmem = Some(bytes("hostmem", value)?),
            _ => return Err(OptionError::UnknownKey { key: key.into() }),
        }
        Ok(())
    }
}

impl FromStr for GpuOption {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        let mut option = Self::default();
        let mut seen: Vec<&str> = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| OptionError::NotAPair { part: part.into() })?;
            if seen.contains(&key) {
                return Err(OptionError::Twice { key: key.into() });
            }
            seen.push(key);
            option.set(key, value)?;
        }
        Ok(option)
    }
}

/// The hints that make the device hold, as `--hold` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldList(pub HoldSources);

impl FromStr for HoldList {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        let mut sources = HoldSources::NONE;
        if text == "none" {
            return Ok(Self(sources));
        }
        for hint in text.split(',') {
            match hint {
                "d3hot" => sources.d3hot = true,
                "bus-master" => sources.bus_master_off = true,
                "function-reset" => sources.function_reset = true,
                "same-driver" => sources.same_driver = true,
                _ => return Err(OptionError::UnknownHint { hint: hint.into() }),
            }
        }
        Ok(Self(sources))
    }
}

/// Everything that shapes a [`GpuDevice`](crate::GpuDevice).
#[derive(Clone, Debug)]
pub struct DeviceOptions {
    /// The GPU.
    pub gpu: GpuOption,
    /// How it retains.
    pub retention: Retention,
    /// Where `freeze_mode` is.
    pub layout: Layout,
}

fn number(
    key: &'static str,
    value: &str,
    max: u32,
    allowed: &'static str,
) -> Result<u32, OptionError> {
    let number = value
        .parse()
        .ok()
        .filter(|number| (1..=max).contains(number));
    number.ok_or_else(|| bad(key, value, allowed))
}

/// Bytes, with K, M or G for powers of 1024.
fn bytes(key: &'static str, value: &str) -> Result<u64, OptionError> {
    let (digits, shift) = match value.chars().last() {
        Some('K' | 'k') => (&value[..value.len() - 1], 10),
        Some('M' | 'm') => (&value[..value.len() - 1], 20),
        Some('G' | 'g') => (&value[..value.len() - 1], 30),
        _ => (value, 0),
    };
    let number: Option<u64> = digits.parse().ok();
    let bytes = number.and_then(|number| number.checked_mul(1 << shift));
    bytes
        .filter(|&bytes| bytes > 0)
        .ok_or_else(|| bad(key, value, "a number of bytes such as 256M is"))
}

fn bad(key: &'static str, value: &str, allowed: &'static str) -> OptionError {
    OptionError::Value {
        key,
        value: value.into(),
        allowed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read() {
        let option: GpuOption = "backend=2d,outputs=2,width=640,height=480,hostmem=64M"
            .parse()
            .unwrap();
        let size = OutputSize {
            width: 640,
            height: 480,
        };
        let expected = GpuOption {
            backend: Backend::TwoD,
            outputs: 2,
            size,
            hostmem: Some(64 << 20),
        };
        assert_eq!(option, expected);
        assert_eq!("".parse(), Ok(GpuOption::default()));
    }

    #[test]
    fn a_mistake_is_named_with_what_is_allowed() {
        for (text, message) in [
            ("width", "'width' is not KEY=VALUE"),
            (
                "depth=8",
                "unknown key 'depth'; the keys are backend, outputs, width, height and hostmem",
            ),
            (
                "width=0",
                "'width=0' is not allowed; a number of pixels from 1 to 32768 is",
            ),
            ("outputs=17", "'outputs=17' is not allowed; 1 to 16 are"),
            (
                "hostmem=0",
                "'hostmem=0' is not allowed; a number of bytes such as 256M is",
            ),
            (
                "hostmem=99999999999G",
                "'hostmem=99999999999G' is not allowed; a number of bytes such as 256M is",
            ),
            ("width=1,width=2", "'width' is given twice"),
        ] {
            let error = text.parse::<GpuOption>().unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn a_backend_that_this_build_lacks_is_refused() {
        let error = "backend=4d".parse::<GpuOption>().unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("'backend=4d' is not allowed; 2d ")
        );
        let virgl = "backend=virgl".parse::<GpuOption>();
        assert_eq!(virgl.is_ok(), cfg!(feature = "virgl"));
    }

    #[test]
    fn holds_are_listed_by_name() {
        assert_eq!("none".parse(), Ok(HoldList(HoldSources::NONE)));
        assert_eq!(
            "bus-master,d3hot,function-reset,same-driver".parse(),
            Ok(HoldList(HoldSources::ALL))
        );
        let error = "d3cold".parse::<HoldList>().unwrap_err().to_string();
        assert_eq!(
            error,
            "unknown hint 'd3cold'; the hints are d3hot, bus-master, function-reset and same-driver, or none"
        );
    }
}
