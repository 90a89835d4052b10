// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest-side command as it is run, on a directory that looks like sysfs.
//!
//! A plain file is no device: it shows what the command says and where it writes. That a device answers is shown by the
//! model's tests of the same logic and by real guests.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, process};

use virtio_pci_freeze::guest::Capabilities;
use virtio_pci_freeze::spec::cap_type;
use virtio_pci_freeze::test_utils::{Machine, function_config, retention, transport_config};
use virtio_pci_freeze::{CONFIG_SPACE_SIZE, Layout};

const GPU: &str = "0000:00:02.0";

/// A directory of PCI functions that goes when the test does.
struct Sysfs(PathBuf);

impl Sysfs {
    fn new(name: &str) -> Self {
        let directory = env::temp_dir().join(format!("virtio-freezectl-{}-{name}", process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        Self(directory)
    }

    fn add(&self, name: &str, device: u16, config: &[u8]) -> PathBuf {
        let directory = self.0.join(name);
        fs::create_dir(&directory).expect("a directory");
        fs::write(directory.join("vendor"), "0x1af4\n").expect("written");
        fs::write(directory.join("device"), format!("{device:#06x}\n")).expect("written");
        let path = directory.join("config");
        fs::write(&path, config).expect("written");
        path
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_virtio-freezectl"));
        command.arg("--sysfs").arg(&self.0).args(arguments);
        command.output().expect("the command runs")
    }
}

impl Drop for Sysfs {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// The configuration space of a GPU, and where its window is.
fn gpu(layout: Layout) -> (Vec<u8>, usize) {
    let transport = transport_config(layout, retention(true));
    let mut machine = Machine::new(function_config(transport));
    let capabilities = Capabilities::read(&mut machine).expect("capabilities");
    let window = capabilities.structure(cap_type::PCI_CFG).expect("a window");
    let mut config = vec![0; CONFIG_SPACE_SIZE];
    drop(machine.function.read_config(0, &mut config));
    (config, window.capability.into())
}

fn window(path: &Path, at: usize) -> (u8, Vec<u8>, Vec<u8>, Vec<u8>) {
    let config = fs::read(path).expect("the configuration space");
    let word = |offset: usize| config[at + offset..at + offset + 4].to_vec();
    (config[at + 4], word(8), word(12), word(16))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[test]
fn freeze_and_unfreeze_write_where_the_capability_points_and_close_the_window() {
    let sysfs = Sysfs::new("freeze");
    let (config, at) = gpu(Layout::Seed);
    let path = sysfs.add(GPU, 0x1050, &config);
    for (command, value) in [("freeze", 3), ("unfreeze", 0)] {
        let output = sysfs.run(&[command]);
        assert!(output.status.success(), "{output:?}");
        assert!(text(&output.stdout).starts_with(GPU));
        let (bar, _, length, data) = window(&path, at);
        assert_eq!((bar, length), (0, vec![0; 4]), "closed");
        assert_eq!(data, [value, 0, 0, 0]);
    }
}

#[test]
fn the_systemd_hook_announces_a_suspend_and_no_hibernation_and_stops_neither() {
    let sysfs = Sysfs::new("hook");
    let (config, at) = gpu(Layout::Seed);
    let path = sysfs.add(GPU, 0x1050, &config);
    // The command by its name, on this directory.
    let directory = sysfs.0.join("bin");
    fs::create_dir(&directory).expect("a directory");
    let program = directory.join("virtio-freezectl");
    let real = env!("CARGO_BIN_EXE_virtio-freezectl");
    let script = format!(
        "#!/bin/sh\nexec '{real}' --sysfs '{}' \"$@\"\n",
        sysfs.0.display()
    );
    fs::write(&program, script).expect("written");
    fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("executable");
    let hook = |when: &str, what: &str| {
        let hook = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/contrib/systemd-sleep-virtio-freeze"
        );
        let path = format!("{}:/usr/bin:/bin", directory.display());
        let mut command = Command::new("sh");
        let output = command.args([hook, when, what]).env("PATH", path).output();
        let output = output.expect("a shell");
        assert!(output.status.success(), "{output:?}");
        text(&output.stderr)
    };
    let mode = || window(&path, at).3[0];
    for (when, what, expected) in [
        ("pre", "hibernate", 0),
        ("pre", "suspend", 3),
        ("post", "hibernate", 3),
        ("post", "suspend", 0),
    ] {
        hook(when, what);
        assert_eq!(mode(), expected, "{when} {what}");
    }
    fs::remove_dir_all(sysfs.0.join(GPU)).expect("removed");
    assert!(hook("pre", "suspend").contains("freeze failed, going on"));
}

#[test]
fn status_shows_every_virtio_device_and_its_layout() {
    let sysfs = Sysfs::new("status");
    let (seed, _) = gpu(Layout::Seed);
    let (tail, _) = gpu(Layout::Tail);
    let (none, _) = gpu(Layout::None);
    sysfs.add("0000:00:02.0", 0x1050, &seed);
    sysfs.add("0000:00:03.0", 0x1050, &tail);
    sysfs.add("0000:00:04.0", 0x1050, &none);
    sysfs.add("0000:00:05.0", 0x0007, &none);
    let output = sysfs.run(&["status"]);
    assert!(output.status.success(), "{output:?}");
    let lines = text(&output.stdout);
    let lines: Vec<_> = lines.lines().collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].contains("offset 56") && lines[0].contains("No_Soft_Reset+"));
    assert!(lines[1].contains("offset 64"), "{}", lines[1]);
    assert!(
        lines[2].contains("no freeze_mode (64 bytes)"),
        "{}",
        lines[2]
    );
}

#[test]
fn a_device_without_the_register_fails_by_name_and_the_others_are_still_told() {
    let sysfs = Sysfs::new("mixed");
    let (none, _) = gpu(Layout::None);
    let (seed, at) = gpu(Layout::Seed);
    sysfs.add("0000:00:01.0", 0x1050, &none);
    let path = sysfs.add("0000:00:02.0", 0x1050, &seed);
    let output = sysfs.run(&["freeze"]);
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    assert!(
        errors.contains("0000:00:01.0") && errors.contains("no freeze_mode"),
        "{errors}"
    );
    assert_eq!(window(&path, at).3, [3, 0, 0, 0]);
}

#[test]
fn a_feature_that_was_not_negotiated_is_told_and_the_window_closed() {
    let sysfs = Sysfs::new("tail");
    let (tail, at) = gpu(Layout::Tail);
    let path = sysfs.add(GPU, 0x1050, &tail);
    let output = sysfs.run(&["freeze", "--timeout", "0"]);
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    assert!(errors.contains("feature 49"), "{errors}");
    assert_eq!(window(&path, at).2, [0; 4]);
}

#[test]
fn a_sleeping_device_is_not_touched() {
    let sysfs = Sysfs::new("asleep");
    let (mut config, _) = gpu(Layout::Seed);
    let power = usize::from(config[0x34]);
    assert_eq!(config[power], 1, "PM comes first");
    config[power + 4] |= 3;
    let path = sysfs.add(GPU, 0x1050, &config);
    let output = sysfs.run(&["freeze"]);
    assert!(text(&output.stderr).contains("D3hot"), "{output:?}");
    assert_eq!(fs::read(path).expect("read"), config);
}

#[test]
fn what_only_root_may_read_is_said_to_be() {
    let sysfs = Sysfs::new("header");
    let (config, _) = gpu(Layout::Seed);
    sysfs.add(GPU, 0x1050, &config[..64]);
    for command in ["status", "freeze", "unfreeze"] {
        let output = sysfs.run(&[command, GPU]);
        assert_eq!(output.status.code(), Some(1));
        let errors = text(&output.stderr);
        assert!(errors.contains("root only"), "{errors}");
    }
}

#[test]
fn nothing_to_act_on_is_an_error() {
    let sysfs = Sysfs::new("nothing");
    for arguments in [&["freeze"][..], &["status"], &["freeze", "0000:00:09.0"]] {
        let output = sysfs.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
    }
    let output = sysfs.run(&["--sysfs", "nowhere/at/all", "status"]);
    assert!(
        text(&output.stderr).contains("cannot be listed"),
        "{output:?}"
    );
}

#[test]
fn mistakes_in_the_command_line_are_told_from_failures() {
    let sysfs = Sysfs::new("usage");
    let output = sysfs.run(&["thaw"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("Usage:"));
    let output = sysfs.run(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("Usage:"));
}
