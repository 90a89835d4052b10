// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The options of a GPU, as a person writes them.

mod error;
mod grammar;
mod help;
mod json;
mod key;
mod table;
mod vmm;

use std::str::FromStr;

use virtio_gpu_s3::{ConfigError as GpuConfigError, GpuConfig, LimitInfo, Limits, OutputConfig};
use virtio_pci_freeze::{HoldSources, Layout, Retention};

pub use self::error::OptionError;
use self::grammar::{Reader, check, check_alone, check_names, parse};
use self::key::{Keys, Word};
pub use self::table::{Backend, GpuOption, LayoutOption, OutputSize, VmmGpuOption};
#[cfg(feature = "virgl")]
use virtio_gpu_renderer_process::RendererProgram;

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

impl GpuOption {
    /// The device that this asks for.
    ///
    /// # Errors
    /// No such device can be made.
    pub fn gpu_config(&self) -> Result<GpuConfig, GpuConfigError> {
        let OutputSize { width, height } = self.size;
        let outputs = (0..self.outputs).map(|_| OutputConfig { width, height });
        let mut limits = Limits::default();
        for (name, value) in &self.limits {
            limits = limits.with(name, *value)?;
        }
        let config = GpuConfig::new(outputs.collect())?.with_limits(limits)?;
        config.with_refresh_rate(self.refresh)
    }

    /// Checks what a text could not say but JSON can.
    ///
    /// # Errors
    /// No such GPU can be made.
    pub fn check(&self) -> Result<(), OptionError> {
        check_names(self.limits.keys())?;
        check(self)
    }

    /// The limits, each of which is a key.
    pub fn limits() -> impl Iterator<Item = &'static LimitInfo> {
        Limits::TABLE.iter()
    }
}

impl FromStr for GpuOption {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        let (option, _) = parse::<Self>(Reader::Server, text)?;
        option.check()?;
        Ok(option)
    }
}

impl VmmGpuOption {
    /// Checks what a text could not say but JSON can.
    ///
    /// # Errors
    /// No such GPU can be made, or parts contradict each other.
    pub fn check(&self) -> Result<(), OptionError> {
        check_names(self.gpu.limits.keys())?;
        if self.socket.is_some() {
            let keys = Self::keys();
            check_alone(keys.iter().filter(|key| self.is_given(key)))?;
        }
        check(self)
    }
}

impl FromStr for VmmGpuOption {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        let (option, given) = parse::<Self>(Reader::Vmm, text)?;
        if option.socket.is_some() {
            check_alone(&given)?;
        }
        option.check()?;
        Ok(option)
    }
}

impl FromStr for LayoutOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::named(text).ok_or_else(|| "allowed are seed and tail".into())
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

/// Where a renderer with C libraries lives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RendererPlace {
    /// On a thread of this process, which ends where it crashes.
    #[default]
    Thread,
    /// In a process of its own, whose crash costs the guest its 3D and nobody anything else.
    #[cfg(feature = "virgl")]
    Process(RendererProgram),
}

/// Everything that shapes a device.
#[derive(Clone, Debug)]
pub struct DeviceOptions {
    /// The GPU.
    pub gpu: GpuOption,
    /// Where its renderer lives, if it has one.
    pub renderer: RendererPlace,
    /// How it retains.
    pub retention: Retention,
    /// Where `freeze_mode` is.
    pub layout: Layout,
}

#[cfg(test)]
mod tests;
