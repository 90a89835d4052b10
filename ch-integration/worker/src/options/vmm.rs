// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `--gpu` of a VMM: the GPU itself, and what the VMM around it needs to know.

use std::path::Path;

use virtio_pci_freeze::Layout;

use super::VmmGpuOption;

impl VmmGpuOption {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Backend;

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
                "'layout' needs freeze=on: there is no register without it",
            ),
            (
                "outputs=17",
                "'outputs=17' is not allowed; 1 to 16 outputs are",
            ),
            ("freeze=on,freeze=on", "'freeze' is given twice"),
            ("id=a,id=b", "'id' is given twice"),
            (
                "depth=8",
                "unknown key 'depth'; the keys are width, height, outputs, refresh, backend, venus, hostmem, wayland, freeze, \
                 layout, control, socket, id, pci_segment, pci_device_id, and limits",
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
            (r#"{"width": 0}"#, "16 to 16384"),
            (r#"{"height": 4294967295}"#, "16 to 16384"),
            (r#"{"hostmem": 0}"#, "hostmem=0"),
            (r#"{"hostmem": 4097}"#, "hostmem=4097"),
            (r#"{"hostmem": 1048576}"#, "backend=virgl"),
            (r#"{"venus": true}"#, "backend=virgl"),
            (r#"{"wayland": "/run/wayland-0"}"#, "hostmem"),
            (
                r#"{"socket": "/x", "outputs": 2}"#,
                "'outputs' has no effect beside 'socket'",
            ),
            (
                r#"{"socket": "/x", "limits": {"max_blobs": 1}}"#,
                "'max_blobs' has no effect beside 'socket'",
            ),
            (r#"{"freeze": false, "layout": "seed"}"#, "layout"),
        ] {
            let option: VmmGpuOption = serde_json::from_str(json).unwrap();
            let message = option.check().unwrap_err().to_string();
            assert!(message.contains(expected), "{json}: {message}");
        }
    }
}
