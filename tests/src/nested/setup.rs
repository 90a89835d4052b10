// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a test asks of a nested machine.

use std::env;
use std::path::PathBuf;

use anyhow::{Result, ensure};

use super::{API_SOCKET, VMM};
use crate::lab::Kernel;

/// The inner guest's RAM, shared with the device server.
const MEMORY: &str = "size=512M,shared=on";
/// Small: every pixel passes two emulated machines.
pub(super) const OUTPUT: &str = "width=640,height=480";

/// A Cloud Hypervisor to test with.
#[derive(Debug, Clone)]
pub struct CloudHypervisor {
    pub(super) binary: PathBuf,
    pub(super) remote: Option<PathBuf>,
}

impl CloudHypervisor {
    /// The one that `CLOUD_HYPERVISOR` names, with the `ch-remote` that `CH_REMOTE` names. Without the
    /// first `None`, with the reason on standard error.
    ///
    /// # Errors
    /// One of them names no file.
    pub fn find() -> Result<Option<Self>> {
        let Some(binary) = program("CLOUD_HYPERVISOR")? else {
            eprintln!("skipped: CLOUD_HYPERVISOR names no cloud-hypervisor binary");
            return Ok(None);
        };
        let remote = program("CH_REMOTE")?;
        Ok(Some(Self { binary, remote }))
    }

    /// The same version without the series, that `CLOUD_HYPERVISOR_BASE` names. Otherwise `None`, with the
    /// reason on standard error.
    ///
    /// # Errors
    /// It names no file.
    pub fn base(&self) -> Result<Option<Self>> {
        let Some(binary) = program("CLOUD_HYPERVISOR_BASE")? else {
            eprintln!(
                "skipped: CLOUD_HYPERVISOR_BASE names no cloud-hypervisor binary without the series"
            );
            return Ok(None);
        };
        let remote = self.remote.clone();
        Ok(Some(Self { binary, remote }))
    }

    /// One with the series of `ch-integration/patches`, and its `ch-remote`. Otherwise `None`, with
    /// the reason on standard error: a stock one has no guest S3 to test.
    ///
    /// # Errors
    /// One of the variables names no file.
    pub fn find_patched() -> Result<Option<Self>> {
        let Some(found) = Self::find()? else {
            return Ok(None);
        };
        if found.remote.is_none() {
            eprintln!(
                "skipped: CH_REMOTE names no ch-remote binary, so CLOUD_HYPERVISOR is taken for a stock one"
            );
            return Ok(None);
        }
        Ok(Some(found))
    }

    /// One with the series whose GPUs can draw in 3D (feature `gpu_virgl`), that `CLOUD_HYPERVISOR_VIRGL` names, and
    /// the `ch-remote` that `CH_REMOTE` names. Otherwise `None`, with the reason on standard error.
    ///
    /// # Errors
    /// One of the variables names no file.
    pub fn find_virgl() -> Result<Option<Self>> {
        let found = program("CLOUD_HYPERVISOR_VIRGL")?.zip(program("CH_REMOTE")?);
        let Some((binary, remote)) = found else {
            eprintln!(
                "skipped: CLOUD_HYPERVISOR_VIRGL and CH_REMOTE name no cloud-hypervisor binary with gpu_virgl"
            );
            return Ok(None);
        };
        Ok(Some(Self {
            binary,
            remote: Some(remote),
        }))
    }
}

fn program(variable: &str) -> Result<Option<PathBuf>> {
    let Some(path) = env::var_os(variable).map(PathBuf::from) else {
        return Ok(None);
    };
    ensure!(path.is_file(), "{variable}: no file {}", path.display());
    Ok(Some(path))
}

/// The inner guest's GPU.
#[derive(Debug, Clone)]
pub enum Gpu {
    /// `virtio-gpu-s3d` with these further options, attached with `--user-device`, or as
    /// [`Setup::arguments`] say with `--gpu`.
    Server(String),
    /// Whatever [`Setup::arguments`] say.
    InArguments,
}

/// Serves a directory of the outer guest, which a test makes, to a virtio-fs device at a socket. For
/// [`Setup::prepare`], in a machine with [`Setup::devices`]. The VMM may leave the device's tag to it.
pub fn virtiofsd(tag: &str, directory: &str, socket: &str) -> String {
    const ROOT: &str = "/payload/virtiofsd/usr";
    format!(
        "setsid {ROOT}/lib64/ld-linux-x86-64.so.2 --library-path {ROOT}/lib/x86_64-linux-gnu \
         {ROOT}/libexec/virtiofsd --tag {tag} --socket-path {socket} --shared-dir {directory} --sandbox none \
         </dev/null >/tmp/virtiofsd-{tag}.log 2>&1 &"
    )
}

/// A machine to boot: the simplest one first, with public fields to change it.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Of the test, for the directory of logs.
    pub name: String,
    /// The inner guest's.
    pub kernel: Kernel,
    /// Its GPU.
    pub gpu: Gpu,
    /// Further arguments of Cloud Hypervisor.
    pub arguments: Vec<String>,
    /// Shell commands in the outer guest before Cloud Hypervisor starts: disks, taps, servers.
    pub prepare: Vec<String>,
    /// Whether the inner guest loads the drivers of all virtio devices, and the outer one has a
    /// `virtiofsd`.
    pub devices: bool,
    /// Whether the machine is for 3D: the outer guest has what virglrenderer draws with in place of its own libraries,
    /// and the inner guest has OpenGL and a client, both from one disk.
    pub scene: bool,
    /// Virtual CPUs of the inner guest.
    pub cpus: u32,
    /// What `--memory` has besides the size.
    pub memory: &'static str,
}

impl Setup {
    /// `kernel` with a GPU from a server with default options, and no other device.
    pub fn new(name: &str, kernel: Kernel) -> Self {
        Self {
            name: name.to_owned(),
            kernel,
            gpu: Gpu::Server(String::new()),
            arguments: Vec::new(),
            prepare: Vec::new(),
            devices: false,
            scene: false,
            cpus: 1,
            memory: "",
        }
    }

    /// Cloud Hypervisor's command line. Its only serial port is the agent's, so the kernel must be quiet
    /// on it: with loglevel=1 nothing but a panic is printed there.
    pub(super) fn command_line(&self) -> String {
        let has = |flag| self.arguments.iter().any(|it| it.starts_with(flag));
        let gpu = match self.gpu {
            Gpu::Server(_) if !has("--gpu") => "--user-device socket=/tmp/gpu",
            _ => "",
        };
        let console = if has("--console") {
            ""
        } else {
            "--console off"
        };
        let scene = if self.scene {
            "--disk path=/dev/vda,readonly=on,image_type=raw"
        } else {
            ""
        };
        format!(
            "{VMM} -v --api-socket {API_SOCKET} --kernel /payload/vmlinuz --initramfs /payload/initramfs \
             --cpus boot={} --memory {MEMORY}{} --serial socket=/tmp/serial {console} {gpu} {scene} {} \
             --cmdline 'console=ttyS0 loglevel=1 panic=-1 rdinit=/init no_timer_check \
             vt.global_cursor_default=0 consoleblank=0 AGENT_PORT=/dev/ttyS0'",
            self.cpus,
            self.memory,
            self.arguments.join(" "),
        )
    }
}
