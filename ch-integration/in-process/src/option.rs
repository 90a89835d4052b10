// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `--gpu` of a VMM: the GPU itself, and what the VMM around it needs to know.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use virtio_pci_freeze::Layout;

use virtio_gpu_worker::{GpuOption, OptionError, Switch, bad, pairs, path};

/// Where `freeze_mode` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LayoutOption {
    /// At 56, as first proposed.
    #[default]
    Seed,
    /// At 64, behind everything in VIRTIO 1.4 and a feature bit.
    Tail,
}

impl From<LayoutOption> for Layout {
    fn from(option: LayoutOption) -> Self {
        match option {
            LayoutOption::Seed => Self::Seed,
            LayoutOption::Tail => Self::Tail,
        }
    }
}

/// The value of a VMM's `--gpu`, and the JSON of its API. Where the device sits on the bus (`id`, `pci_segment`) is
/// the VMM's own grammar, and skipped here.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct VmmGpuOption {
    /// The GPU.
    #[serde(flatten)]
    pub gpu: GpuOption,
    /// Whether the device survives the guest's sleep.
    pub freeze: bool,
    /// Where `freeze_mode` is; `None` for the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<LayoutOption>,
    /// Socket of the server that has the GPU out of process instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
    /// Where a person asks for status, screenshots and events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<PathBuf>,
}

impl Default for VmmGpuOption {
    fn default() -> Self {
        Self {
            gpu: GpuOption::default(),
            freeze: true,
            layout: None,
            socket: None,
            control: None,
        }
    }
}

impl VmmGpuOption {
    /// The grammar, for a command's help.
    pub const SYNTAX: &str = "backend=2d|virgl,venus=on|off,outputs=<1-16>,width=<pixels>,height=<pixels>,\
                              hostmem=<bytes>,wayland=<compositor_socket_path>,freeze=on|off,layout=seed|tail,\
                              control=<control_socket_path>,socket=<vfio_user_socket_path>";

    /// Checks what a text could not say but JSON can.
    ///
    /// # Errors
    /// No such GPU can be made, or parts contradict each other.
    pub fn check(&self) -> Result<(), OptionError> {
        if self.socket.is_some() {
            let alone = Self {
                socket: self.socket.clone(),
                ..Self::default()
            };
            if *self != alone {
                return Err(OptionError::WithSocket);
            }
            return Ok(());
        }
        if !self.freeze && self.layout.is_some() {
            return Err(OptionError::LayoutWithoutFreeze);
        }
        self.gpu.check()
    }

    /// The layout of the common configuration structure.
    pub fn layout(&self) -> Layout {
        if self.freeze {
            self.layout.unwrap_or_default().into()
        } else {
            Layout::None
        }
    }

    /// The directory in which the control socket is made, for Landlock: a rule for the socket itself would need it to be
    /// there already. `None` without one.
    pub fn control_directory(&self) -> Option<&Path> {
        let parent = self.control.as_deref()?.parent()?;
        // A bare name has an empty parent, which cannot be opened.
        Some(match parent.as_os_str().is_empty() {
            true => Path::new("."),
            false => parent,
        })
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), OptionError> {
        match key {
            // The VMM's own, see above.
            "id" | "pci_segment" | "pci_device_id" => {}
            "freeze" => {
                let switch: Result<Switch, String> = value.parse();
                let switch = switch.map_err(|_| bad("freeze", value, "on and off are"))?;
                self.freeze = switch.is_on();
            }
            "layout" => {
                self.layout = Some(match value {
                    "seed" => LayoutOption::Seed,
                    "tail" => LayoutOption::Tail,
                    _ => return Err(bad("layout", value, "seed and tail are")),
                });
            }
            "socket" => self.socket = Some(path("socket", value)?),
            "control" => self.control = Some(path("control", value)?),
            _ => match self.gpu.set(key, value) {
                Err(OptionError::UnknownKey { key }) => {
                    return Err(OptionError::UnknownVmmKey { key });
                }
                other => return other,
            },
        }
        Ok(())
    }
}

impl FromStr for VmmGpuOption {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        let mut option = Self::default();
        let mut seen = Vec::new();
        for (key, value) in pairs(text)? {
            option.set(key, value)?;
            if !matches!(key, "id" | "pci_segment" | "pci_device_id") {
                seen.push(key);
            }
        }
        if let Some(key) = seen.iter().find(|&&key| key != "socket")
            && option.socket.is_some()
        {
            return Err(OptionError::KeyWithSocket {
                key: (*key).to_owned(),
            });
        }
        option.check()?;
        Ok(option)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use virtio_gpu_worker::Backend;

    fn message(text: &str) -> String {
        text.parse::<VmmGpuOption>().unwrap_err().to_string()
    }

    #[test]
    fn every_key_is_read_and_those_of_the_bus_are_left_to_the_vmm() {
        let text = "id=gpu0,pci_segment=1,pci_device_id=4,backend=2d,outputs=2,width=640,height=480,max_host_bytes=64M,\
                    freeze=on,layout=tail,control=/run/control";
        let option: VmmGpuOption = text.parse().unwrap();
        assert_eq!(option.gpu.backend, Backend::TwoD);
        assert_eq!(option.gpu.outputs, 2);
        assert_eq!(option.gpu.limits["max_host_bytes"], 64 << 20);
        assert_eq!(option.layout(), Layout::Tail);
        assert_eq!(option.control, Some("/run/control".into()));
        assert_eq!("".parse(), Ok(VmmGpuOption::default()));
        let off: VmmGpuOption = "freeze=off".parse().unwrap();
        assert_eq!(off.layout(), Layout::None);
    }

    #[test]
    fn the_directory_of_a_control_socket_is_one_that_can_be_opened() {
        for (text, directory) in [
            ("control=control.sock", Some(".")),
            ("control=./control.sock", Some(".")),
            ("control=run/control.sock", Some("run")),
            ("control=/run/control.sock", Some("/run")),
            ("control=/control.sock", Some("/")),
            ("control=/", None),
            ("", None),
        ] {
            let option: VmmGpuOption = text.parse().unwrap();
            let found = option.control_directory();
            assert_eq!(found, directory.map(Path::new), "{text}");
        }
    }

    #[test]
    fn a_socket_takes_no_other_key() {
        let option: VmmGpuOption = "socket=/run/gpu,id=gpu0".parse().unwrap();
        assert_eq!(option.socket, Some("/run/gpu".into()));
        assert_eq!(
            message("socket=/run/gpu,width=1280"),
            "'width' has no effect beside 'socket': give it to the server"
        );
    }

    #[test]
    fn a_mistake_is_named_with_what_is_allowed() {
        for (text, expected) in [
            ("freeze=yes", "'freeze=yes' is not allowed; on and off are"),
            (
                "layout=head",
                "'layout=head' is not allowed; seed and tail are",
            ),
            ("control=", "'control=' is not allowed; a path is"),
            (
                "freeze=off,layout=tail",
                "'layout' has no effect with freeze=off",
            ),
            ("outputs=17", "'outputs=17' is not allowed; 1 to 16 are"),
            ("freeze=on,freeze=on", "'freeze' is given twice"),
            ("id=a,id=b", "'id' is given twice"),
            (
                "depth=8",
                "unknown key 'depth'; the keys are backend, venus, outputs, width, height, hostmem, wayland, freeze, \
                 layout, control, socket, id and pci_segment",
            ),
        ] {
            assert_eq!(message(text), expected, "{text}");
        }
    }

    #[test]
    fn json_says_the_same_as_text_and_what_it_leaves_out_is_the_default() {
        let text: VmmGpuOption = "outputs=2,width=640,layout=tail".parse().unwrap();
        let json = r#"{"outputs": 2, "width": 640, "layout": "tail"}"#;
        assert_eq!(serde_json::from_str::<VmmGpuOption>(json).unwrap(), text);
        let written = serde_json::to_string(&text).unwrap();
        assert_eq!(
            serde_json::from_str::<VmmGpuOption>(&written).unwrap(),
            text
        );
        let default: VmmGpuOption = serde_json::from_str("{}").unwrap();
        assert_eq!(default, VmmGpuOption::default());
    }

    #[test]
    fn json_that_asks_for_the_impossible_is_refused_by_name() {
        for (json, expected) in [
            (r#"{"outputs": 0}"#, "1 to 16"),
            (r#"{"outputs": 4294967295}"#, "1 to 16"),
            (r#"{"width": 0}"#, "1 to 32768"),
            (r#"{"height": 4294967295}"#, "1 to 32768"),
            (r#"{"hostmem": 0}"#, "hostmem=0"),
            (r#"{"hostmem": 4097}"#, "hostmem=4097"),
            (r#"{"hostmem": 1048576}"#, "backend=virgl"),
            (r#"{"venus": true}"#, "backend=virgl"),
            (r#"{"wayland": "/run/wayland-0"}"#, "hostmem"),
            (r#"{"socket": "/x", "outputs": 2}"#, "socket"),
            (r#"{"freeze": false, "layout": "seed"}"#, "layout"),
        ] {
            let option: VmmGpuOption = serde_json::from_str(json).unwrap();
            let message = option.check().unwrap_err().to_string();
            assert!(message.contains(expected), "{json}: {message}");
        }
    }
}
