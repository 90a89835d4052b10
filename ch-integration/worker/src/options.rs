// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The options of a GPU, as a person writes them.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use virtio_gpu_s3::{ConfigError as GpuConfigError, GpuConfig, LimitInfo, Limits, OutputConfig};
use virtio_pci_freeze::{HoldSources, Layout, Retention};

#[cfg(feature = "virgl")]
use virtio_gpu_renderer_process::RendererProgram;

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
    #[error("unknown key '{key}'; the keys are {}, and limits", GpuOption::KEYS)]
    UnknownKey {
        /// The key.
        key: String,
    },
    /// A key that a VMM does not have.
    #[error(
        "unknown key '{key}'; the keys are backend, venus, outputs, width, height, hostmem, wayland, freeze, layout, \
         control, socket, id and pci_segment"
    )]
    UnknownVmmKey {
        /// The key.
        key: String,
    },
    /// A key of a VMM's grammar only.
    #[error(
        "'{key}' belongs to a VMM's --gpu; here the keys are {}",
        GpuOption::KEYS
    )]
    VmmKey {
        /// The key.
        key: String,
    },
    /// A key beside the socket of a server that has the GPU.
    #[error("'{key}' has no effect beside 'socket': give it to the server")]
    KeyWithSocket {
        /// The key.
        key: String,
    },
    /// The same, where it is not known which.
    #[error("nothing but 'socket' has an effect beside it: give the rest to the server")]
    WithSocket,
    /// A key of 3D, without it.
    #[error("'{key}' has no effect without backend=virgl")]
    Needs3d {
        /// The key.
        key: &'static str,
    },
    /// Memory of the host, and nobody who has any.
    #[error("'hostmem' has no effect without backend=virgl or wayland=PATH")]
    UnusedHostmem,
    /// Windows on the host's compositor, and no room for their buffers.
    #[error(
        "'wayland' needs hostmem=SIZE: windows' buffers are the host's memory, and the guest maps it"
    )]
    WaylandWithoutHostmem,
    /// Vulkan, and no room for its memory.
    #[error("'venus=on' needs hostmem=SIZE: Vulkan's memory is the host's, and the guest maps it")]
    VenusWithoutHostmem,
    /// No register to place.
    #[error("'layout' has no effect with freeze=off")]
    LayoutWithoutFreeze,
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
    /// A limit outside its bounds.
    #[error("'{key}={value}' is not allowed; {least} to {most} are")]
    Limit {
        /// The limit.
        key: &'static str,
        /// The value.
        value: String,
        /// The least that is allowed.
        least: u64,
        /// The most.
        most: u64,
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum Backend {
    /// The device's own 2D path; needs nothing of the host.
    #[default]
    #[serde(rename = "2d")]
    TwoD,
    /// virglrenderer, on the host's OpenGL.
    #[cfg(feature = "virgl")]
    #[serde(rename = "virgl")]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct OutputSize {
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
}

impl Default for OutputSize {
    fn default() -> Self {
        Self {
            width: 1280,
            height: 800,
        }
    }
}

/// The value of `--gpu`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct GpuOption {
    /// What renders.
    pub backend: Backend,
    /// Whether Vulkan is rendered beside OpenGL (virglrenderer's venus, capset 4).
    #[serde(skip_serializing_if = "is_off")]
    pub venus: bool,
    /// How many outputs, 1 to 16.
    pub outputs: u32,
    /// Preferred size of each.
    #[serde(flatten)]
    pub size: OutputSize,
    /// Size in bytes of the shared memory region in which the guest maps blobs of the host, a power of 2; `None`
    /// for no region. It is room in the guest's address space, and takes no memory by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostmem: Option<u64>,
    /// Socket of the host's Wayland compositor, on which the guest's proxies show windows (cross-domain, capset 5);
    /// `None` for no way there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wayland: Option<PathBuf>,
    /// Other limits than the device's own, by the names of [`Limits::TABLE`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, u64>,
}

impl Default for GpuOption {
    fn default() -> Self {
        Self {
            backend: Backend::TwoD,
            venus: false,
            outputs: 1,
            size: OutputSize::default(),
            hostmem: None,
            wayland: None,
            limits: BTreeMap::new(),
        }
    }
}

impl GpuOption {
    const KEYS: &str = "backend, venus, outputs, width, height, hostmem and wayland";

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
        GpuConfig::new(outputs.collect())?.with_limits(limits)
    }

    /// Checks what a text could not say but JSON can.
    ///
    /// # Errors
    /// No such GPU can be made.
    pub fn check(&self) -> Result<(), OptionError> {
        let OutputSize { width, height } = self.size;
        in_range("outputs", self.outputs.into(), MAX_OUTPUTS, OUTPUTS)?;
        in_range("width", width.into(), MAX_PIXELS, PIXELS)?;
        in_range("height", height.into(), MAX_PIXELS, PIXELS)?;
        if let Some(bytes) = self.hostmem
            && !is_hostmem(bytes)
        {
            return Err(bad("hostmem", &bytes.to_string(), HOSTMEM));
        }
        let renders = self.backend != Backend::TwoD;
        match (self.hostmem, self.venus) {
            (Some(_), _) if !renders && self.wayland.is_none() => Err(OptionError::UnusedHostmem),
            (_, true) if !renders => Err(OptionError::Needs3d { key: "venus" }),
            (None, true) => Err(OptionError::VenusWithoutHostmem),
            (None, _) if self.wayland.is_some() => Err(OptionError::WaylandWithoutHostmem),
            _ => Ok(()),
        }
    }

    /// Takes one key.
    ///
    /// # Errors
    /// There is no such key, or it cannot have this value.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), OptionError> {
        match key {
            "backend" => {
                self.backend = match value {
                    "2d" => Backend::TwoD,
                    #[cfg(feature = "virgl")]
                    "virgl" => Backend::Virgl,
                    _ => return Err(bad("backend", value, Backend::ALLOWED)),
                }
            }
            "outputs" => self.outputs = number("outputs", value, MAX_OUTPUTS, OUTPUTS)?,
            "width" => self.size.width = number("width", value, MAX_PIXELS, PIXELS)?,
            "height" => self.size.height = number("height", value, MAX_PIXELS, PIXELS)?,
            "hostmem" => {
                let bytes = scaled(value).filter(|&bytes| is_hostmem(bytes));
                self.hostmem = Some(bytes.ok_or_else(|| bad("hostmem", value, HOSTMEM))?);
            }
            "venus" => {
                let switch: Result<Switch, String> = value.parse();
                let switch = switch.map_err(|_| bad("venus", value, "on and off are"))?;
                self.venus = switch.is_on();
            }
            "wayland" => self.wayland = Some(path("wayland", value)?),
            "freeze" | "layout" | "control" | "socket" | "id" | "pci_segment" => {
                return Err(OptionError::VmmKey { key: key.into() });
            }
            _ => {
                let info = Self::limits().find(|info| info.name == key);
                let info = info.ok_or_else(|| OptionError::UnknownKey { key: key.into() })?;
                let number = limit(info, value)?;
                self.limits.insert(key.into(), number);
            }
        }
        Ok(())
    }

    /// The limits, each of which is a key.
    pub fn limits() -> impl Iterator<Item = &'static LimitInfo> {
        Limits::TABLE.iter()
    }
}

impl FromStr for GpuOption {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        let mut option = Self::default();
        for (key, value) in pairs(text)? {
            option.set(key, value)?;
        }
        option.check()?;
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

/// Everything that shapes a [`GpuDevice`](crate::GpuDevice).
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

const MAX_OUTPUTS: u32 = 16;
const OUTPUTS: &str = "1 to 16 are";
const MAX_PIXELS: u32 = 32768;
const PIXELS: &str = "a number of pixels from 1 to 32768 is";
/// The region is a BAR, so its size is a power of 2; a guest has no room for a larger one in its address space, and no
/// use for a smaller.
const HOSTMEM_SIZES: RangeInclusive<u64> = 1 << 20..=1 << 40;
const HOSTMEM: &str = "a power of 2 such as 256M, from 1M to 1024G, is";

/// Whether a region can have this size.
fn is_hostmem(bytes: u64) -> bool {
    HOSTMEM_SIZES.contains(&bytes) && bytes.is_power_of_two()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_off(switch: &bool) -> bool {
    !switch
}

/// KEY=VALUE, each key once.
///
/// # Errors
/// A part is something else.
pub fn pairs(text: &str) -> Result<Vec<(&str, &str)>, OptionError> {
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (key, value) = part
            .split_once('=')
            .ok_or_else(|| OptionError::NotAPair { part: part.into() })?;
        if pairs.iter().any(|&(before, _)| before == key) {
            return Err(OptionError::Twice { key: key.into() });
        }
        pairs.push((key, value));
    }
    Ok(pairs)
}

fn in_range(
    key: &'static str,
    value: u64,
    max: u32,
    allowed: &'static str,
) -> Result<(), OptionError> {
    if (1..=max.into()).contains(&value) {
        Ok(())
    } else {
        Err(bad(key, &value.to_string(), allowed))
    }
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

fn limit(info: &'static LimitInfo, value: &str) -> Result<u64, OptionError> {
    let (least, most) = (info.least, info.most);
    let number = scaled(value).filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| OptionError::Limit {
        key: info.name,
        value: value.into(),
        least,
        most,
    })
}

/// A number, with K, M or G for powers of 1024.
fn scaled(value: &str) -> Option<u64> {
    let (digits, shift) = match value.chars().last() {
        Some('K' | 'k') => (&value[..value.len() - 1], 10),
        Some('M' | 'm') => (&value[..value.len() - 1], 20),
        Some('G' | 'g') => (&value[..value.len() - 1], 30),
        _ => (value, 0),
    };
    let number: u64 = digits.parse().ok()?;
    number.checked_mul(1 << shift)
}

/// A path.
///
/// # Errors
/// It is empty.
pub fn path(key: &'static str, value: &str) -> Result<PathBuf, OptionError> {
    match value {
        "" => Err(bad(key, value, "a path is")),
        path => Ok(path.into()),
    }
}

/// A value that does not fit its key.
pub fn bad(key: &'static str, value: &str, allowed: &'static str) -> OptionError {
    OptionError::Value {
        key,
        value: value.into(),
        allowed,
    }
}

#[cfg(test)]
mod tests;
