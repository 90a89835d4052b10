// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Every key of `--gpu`, once. The parser, the JSON, the checks, the help and `docs/options.md` come from here; so a new
//! key is a row here, and a use of its field where it takes effect. The limits have a table of their own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use virtio_gpu_s3::{GpuConfig, OutputConfig};
use virtio_pci_freeze::Layout;

use super::key::{Field, Key, Keys, Kind, Need, Owner, Value, Word};

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

#[cfg(feature = "virgl")]
impl Word for Backend {
    const VARIANTS: &'static [Self] = &[Self::TwoD, Self::Virgl];
    const WORDS: &'static [&'static str] = &["2d", "virgl"];
}

#[cfg(not(feature = "virgl"))]
impl Word for Backend {
    const VARIANTS: &'static [Self] = &[Self::TwoD];
    const WORDS: &'static [&'static str] = &["2d"];
    const ELSEWHERE: &'static [&'static str] = &["virgl"];
}

/// Where `freeze_mode` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LayoutOption {
    /// At 56, as first proposed.
    #[default]
    Seed,
    /// At 64, behind everything in VIRTIO 1.4 and a feature bit.
    Tail,
}

impl Word for LayoutOption {
    const VARIANTS: &'static [Self] = &[Self::Seed, Self::Tail];
    const WORDS: &'static [&'static str] = &["seed", "tail"];
}

impl From<LayoutOption> for Layout {
    fn from(option: LayoutOption) -> Self {
        match option {
            LayoutOption::Seed => Self::Seed,
            LayoutOption::Tail => Self::Tail,
        }
    }
}

/// A structure of keys that OWNER reads: after the parts, which are such structures too, its rows
/// `NAME: TYPE = DEFAULT, KIND, HELP`, each with what it needs.
macro_rules! keys {
    (
        $(#[$meta:meta])*
        $name:ident, $owner:ident;
        $($(#[$about:meta])* part $part:ident: $part_type:ty;)*
        $($key:ident: $type:ty = $default:expr, $kind:expr, $help:literal
            $(, needs $($any:literal)|+ because $why:literal)*;)*
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[$about])* pub $part: $part_type,)*
            $(#[doc = $help] pub $key: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($part: Default::default(),)*
                    $($key: $default,)*
                }
            }
        }

        impl Keys for $name {
            fn keys() -> Vec<Key> {
                let parts: Vec<Vec<Key>> = vec![$(<$part_type as Keys>::keys()),*];
                let own = [$(Key {
                    name: stringify!($key),
                    owner: Owner::$owner,
                    kind: $kind,
                    default: <$type as Field>::value(&$default),
                    help: $help,
                    needs: &[$(Need { any: &[$($any),+], why: $why }),*],
                }),*];
                parts.into_iter().flatten().chain(own).collect()
            }

            fn get(&self, name: &str) -> Option<Value> {
                match name {
                    $(stringify!($key) => self.$key.value(),)*
                    _ => None$(.or_else(|| Keys::get(&self.$part, name)))*,
                }
            }

            fn put(&mut self, name: &str, value: Value) -> bool {
                match name {
                    $(stringify!($key) => Field::of(value).map(|value| self.$key = value).is_some(),)*
                    _ => false $(|| self.$part.put(name, value.clone()))*,
                }
            }
        }
    };
}

/// The size of an output, which has the range that EDID gives it.
const PIXELS: Kind = Kind::Number {
    least: *OutputConfig::DIMENSIONS.start(),
    most: *OutputConfig::DIMENSIONS.end(),
    unit: "pixels",
};

const REFRESH_RATES: Kind = Kind::Number {
    least: *GpuConfig::REFRESH_RATES.start(),
    most: *GpuConfig::REFRESH_RATES.end(),
    unit: "Hz",
};

keys! {
    /// Size of an output, in pixels.
    #[derive(Copy)]
    OutputSize, Gpu;

    width: u32 = 1280, PIXELS,
        "Preferred width of each output, in pixels.";
    height: u32 = 800, PIXELS,
        "Preferred height of each output, in pixels.";
}

keys! {
    /// The value of `--gpu`.
    GpuOption, Gpu;

    /// Preferred size of each output.
    part size: OutputSize;
    /// Other limits than the device's own, by the names of [`Limits::TABLE`](virtio_gpu_s3::Limits::TABLE).
    part limits: BTreeMap<String, u64>;

    outputs: u32 = 1, Kind::Number { least: 1, most: 16, unit: "outputs" },
        "How many outputs there are (VIRTIO 1.4 §5.7.4).";
    refresh: u32 = 60, REFRESH_RATES,
        "Refresh rate that each output prefers, in Hz: the pace at which a guest's compositor draws.";
    backend: Backend = Backend::TwoD, Backend::KIND,
        "What renders: the device's own 2D path, or virglrenderer on the host's OpenGL.";
    venus: bool = false, Kind::Switch,
        "Whether Vulkan is rendered beside OpenGL (virglrenderer's venus, capset 4).",
        needs "backend=virgl" because "virglrenderer renders Vulkan",
        needs "hostmem=SIZE" because "Vulkan's memory is the host's, and the guest maps it";
    // The region is a BAR, so its size is a power of 2; a guest has no room for a larger one in its address space, and
    // no use for a smaller.
    hostmem: Option<u64> = None, Kind::Size { least: 1 << 20, most: 1 << 40 },
        "Size in bytes of the shared memory region in which the guest maps memory of the host: room in the guest's \
         address space, which takes no memory by itself. With QEMU it needs the device's x-no-posted-writes=true.",
        needs "backend=virgl" | "wayland=PATH" because "nothing else has memory to map";
    wayland: Option<PathBuf> = None, Kind::Path,
        "Socket of the host's Wayland compositor, on which the guest's proxies show windows (cross-domain, capset 5).",
        needs "hostmem=SIZE" because "windows' buffers are the host's memory, and the guest maps it";
}

keys! {
    /// The value of a VMM's `--gpu`, and the JSON of its API. Where the device sits on the bus is the VMM's
    /// own grammar, and skipped here.
    VmmGpuOption, Vmm;

    /// The GPU.
    part gpu: GpuOption;

    freeze: bool = true, Kind::Switch,
        "Whether the device survives the guest's sleep.";
    layout: Option<LayoutOption> = None, LayoutOption::KIND,
        "Where the register freeze_mode is: at 56 as first proposed (seed, which is meant if nothing is given), or at \
         64 behind everything in VIRTIO 1.4 and a feature bit (tail).",
        needs "freeze=on" because "there is no register without it";
    control: Option<PathBuf> = None, Kind::Path,
        "Socket that is made for status, screenshots, other sizes and events (JSON, one object a line).";
    socket: Option<PathBuf> = None, Kind::Path,
        "Socket of a vfio-user server that has the GPU out of this process instead; takes no other key beside it.";
}

/// What a VMM's `--gpu` has of every device's grammar.
pub(super) fn bus() -> impl Iterator<Item = Key> {
    let keys = [
        ("id", "Name of the device, in the VMM's words."),
        ("pci_segment", "PCI segment, in the VMM's words."),
        ("pci_device_id", "PCI device number, in the VMM's words."),
    ];
    keys.into_iter().map(|(name, help)| Key {
        name,
        owner: Owner::Bus,
        kind: Kind::Foreign,
        default: None,
        help,
        needs: &[],
    })
}

/// Every key that there is, limits last.
pub(super) fn all() -> impl Iterator<Item = Key> {
    let mut keys: Vec<Key> = VmmGpuOption::keys().into_iter().chain(bus()).collect();
    keys.sort_by_key(|key| key.owner == Owner::Limit);
    keys.into_iter()
}
