// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The nested machine itself: its other devices work, and the VMM's API answers.

use anyhow::{Result, ensure};
use tests::lab::{Kernel, Lab};
use tests::nested::{CloudHypervisor, Nested, Setup, virtiofsd};

#[test]
fn a_guest_has_a_disk_a_share_and_entropy_and_the_api_answers() -> Result<()> {
    let (Some(vmm), Some(lab)) = (CloudHypervisor::find_patched()?, Lab::find()?) else {
        return Ok(());
    };
    let setup = Setup {
        devices: true,
        prepare: vec![
            "seq 1 100000 >/tmp/disk && truncate -s 1M /tmp/disk".to_owned(),
            "mkdir /tmp/share && echo shared >/tmp/share/file".to_owned(),
            virtiofsd("share", "/tmp/share", "/tmp/fs"),
        ],
        arguments: vec![
            "--disk path=/tmp/disk".to_owned(),
            "--fs tag=share,socket=/tmp/fs".to_owned(),
        ],
        ..Setup::new("ch-kit", Kernel::V6_12)
    };
    let nested = Nested::boot(&lab, &vmm, &setup)?;
    let disk = nested.inner_run("head -n 3 /dev/vda | tr '\\n' ' '")?;
    ensure!(disk == "1 2 3 ", "/dev/vda: {disk:?}");
    nested.inner_run("mkdir /tmp/share && mount -t virtiofs share /tmp/share")?;
    let file = nested.inner_run("cat /tmp/share/file")?;
    ensure!(file == "shared\n", "virtio-fs: {file:?}");
    let source = nested.inner_run("cat /sys/class/misc/hw_random/rng_current")?;
    ensure!(source.starts_with("virtio_rng"), "no entropy: {source:?}");
    let info = nested.ch_remote("info")?;
    ensure!(info.contains("\"Running\""), "vm.info: {info}");
    Ok(())
}
