// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The outer guest: QEMU's arguments, and what is packed into its initramfs.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::{CloudHypervisor, Setup};
use crate::archive::Archive;
use crate::daemon;
use crate::lab::Lab;

/// Room for Cloud Hypervisor, the inner guest's 512 MiB, a snapshot of it, and disks.
const MEMORY_MIB: &str = "3072";

/// In the outer guest of a 3D machine: what the disk has in place of the outer guest's own libraries, which are of the
/// host's distribution and too old or too new for it. The agent and the shell need none.
pub(super) const USE_SCENE: &str = "mkdir -p /usr /lib64 /lib/x86_64-linux-gnu && mount --bind /scene/usr /usr && \
     mount --bind /usr/lib64 /lib64 && mount --bind /usr/lib/x86_64-linux-gnu /lib/x86_64-linux-gnu";

pub(super) fn arguments(
    lab: &Lab,
    setup: &Setup,
    initramfs: &Path,
    sockets: &Path,
    console: &Path,
) -> Vec<OsString> {
    // One CPU and one TCG thread: with more, an outer guest oopsed now and then (QEMU's SVM).
    // qemu64 and not max: the features that KVM passes on must all work nested.
    let fixed = "-nodefaults -no-user-config -no-reboot -machine q35 -accel tcg,thread=single \
                 -cpu qemu64,+svm,+npt,+pdpe1gb,+fsgsbase,+smep -smp 1 -display none -nic none \
                 -device virtio-serial-pci";
    let mut arguments: Vec<OsString> = fixed.split_whitespace().map(OsString::from).collect();
    let mut add = |option: &str, value: String| {
        arguments.extend([OsString::from(option), value.into()]);
    };
    add("-m", MEMORY_MIB.to_owned());
    add("-kernel", lab.nested("vmlinuz").display().to_string());
    add("-initrd", initramfs.display().to_string());
    let command_line = "console=ttyS0 loglevel=5 panic=-1 rdinit=/init no_timer_check";
    add("-append", command_line.to_owned());
    add("-serial", format!("file:{}", console.display()));
    for name in ["outer", "inner", "control"] {
        let path = sockets.join(name).display().to_string();
        let socket = format!("socket,id={name},path={path},server=on,wait=off");
        add("-chardev", socket);
    }
    add("-serial", "chardev:outer".to_owned());
    for (number, name) in [(1, "inner"), (2, "control")] {
        let port = format!("virtserialport,nr={number},chardev={name},name={name}");
        add("-device", port);
    }
    if setup.scene {
        let image = lab.scene().display().to_string();
        let drive = format!("id=scene,if=none,format=raw,readonly=on,file={image}");
        add("-drive", drive);
        add("-device", "virtio-blk-pci,drive=scene".to_owned());
    }
    arguments
}

/// The outer guest's initramfs, and behind it an archive of what it runs: Linux unpacks both.
pub(super) fn pack(lab: &Lab, vmm: &CloudHypervisor, setup: &Setup, out: &Path) -> Result<()> {
    let base = lab.nested("initramfs");
    ensure!(
        base.exists(),
        "no {}: run scripts/lab nested",
        base.display()
    );
    fs::copy(&base, out).with_context(|| format!("copy {}", base.display()))?;
    let inner = out.with_extension("inner");
    pack_inner(lab, setup, &inner)?;
    let mut archive = Archive::create(&out.with_extension("staging"))?;
    archive.add_program(&vmm.binary, "bin/cloud-hypervisor")?;
    if let Some(remote) = &vmm.remote {
        archive.add_program(remote, "bin/ch-remote")?;
    }
    archive.add_program(&daemon::program()?, "bin/virtio-gpu-s3d")?;
    archive.add(&lab.vmlinuz(setup.kernel), "payload/vmlinuz")?;
    archive.add(&inner, "payload/initramfs")?;
    if setup.devices {
        archive.add_tree(&lab.virtiofsd(), Path::new("payload/virtiofsd"))?;
    }
    fs::remove_file(&inner).with_context(|| format!("remove {}", inner.display()))?;
    append(&archive, lab, out)
}

/// The inner guest's initramfs, with the modules of all devices if it shall have them.
fn pack_inner(lab: &Lab, setup: &Setup, out: &Path) -> Result<()> {
    let base = if setup.scene {
        lab.scene_initramfs(setup.kernel)
    } else {
        lab.initramfs(setup.kernel)
    };
    fs::copy(&base, out).with_context(|| format!("copy {}", base.display()))?;
    if !setup.devices {
        return Ok(());
    }
    let devices = lab.devices(setup.kernel);
    let mut archive = Archive::create(&out.with_extension("modules"))?;
    archive.add_tree(&devices.join("modules"), Path::new("lib/modules"))?;
    archive.add(&devices.join("modules.order"), "lib/modules/devices.order")?;
    append(&archive, lab, out)
}

fn append(archive: &Archive, lab: &Lab, out: &Path) -> Result<()> {
    let file = File::options().append(true).open(out);
    let file = file.with_context(|| format!("open {}", out.display()))?;
    archive.append_to(&lab.busybox(), file)
}
