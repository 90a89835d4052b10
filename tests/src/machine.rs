// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A QEMU command line, described.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

use crate::lab::{Kernel, Lab};

/// Guest RAM. Shared with the device server, so a memfd.
const MEMORY: &str = "512M";

/// Twice the guest's memory; the file is sparse.
const SWAP_BYTES: u64 = 1 << 30;

/// The guest's GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gpu {
    /// None at all.
    None,
    /// A vfio-user server on this socket.
    VfioUser(PathBuf),
    /// QEMU's own virtio-gpu, with further properties (empty, or starting with a comma).
    Qemu(&'static str),
}

/// What to boot.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The test's name, for its log directory.
    pub name: String,
    /// See [`Kernel`].
    pub kernel: Kernel,
    /// See [`Gpu`].
    pub gpu: Gpu,
    /// Virtual CPUs.
    pub cpus: u8,
    /// Put the GPU behind a PCIe root port instead of on the root bus.
    pub root_port: bool,
    /// With a disk that has OpenGL and a client on it.
    pub scene: bool,
    /// A disk that the guest can hibernate to, and goes on from when it boots.
    pub swap: Option<PathBuf>,
    /// QEMU waits for each write to the GPU's BARs, so that none comes after a command that follows it in a ring.
    pub ordered_writes: bool,
    /// Boot UEFI firmware alone, and no kernel.
    pub firmware: bool,
    /// Let a guest that reboots boot again; otherwise QEMU ends.
    pub reboot: bool,
    /// More for the kernel's command line.
    pub parameters: &'static str,
    /// With an IOMMU that the guest uses for every device.
    pub iommu: bool,
}

impl Machine {
    /// A machine of one CPU with a GPU on the root bus that must not reboot.
    pub fn new(name: &str, kernel: Kernel, gpu: Gpu) -> Self {
        Self {
            name: name.to_owned(),
            kernel,
            gpu,
            cpus: 1,
            root_port: false,
            scene: false,
            swap: None,
            ordered_writes: false,
            firmware: false,
            reboot: false,
            parameters: "",
            iommu: false,
        }
    }

    /// As this machine, with that many CPUs.
    #[must_use]
    pub fn with_cpus(self, cpus: u8) -> Self {
        Self { cpus, ..self }
    }

    /// As this machine, with the GPU behind a PCIe root port.
    #[must_use]
    pub fn behind_root_port(self) -> Self {
        Self {
            root_port: true,
            ..self
        }
    }

    /// As this machine, with OpenGL and a client.
    #[must_use]
    pub fn with_scene(self) -> Self {
        Self {
            scene: true,
            ..self
        }
    }

    /// As this machine, with a disk to hibernate to, which is made if it is not there.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn with_swap(self, path: PathBuf) -> Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path);
        let sized = file.and_then(|file| file.set_len(SWAP_BYTES));
        sized.with_context(|| format!("make {}", path.display()))?;
        Ok(Self {
            swap: Some(path),
            ..self
        })
    }

    /// As this machine, for a GPU whose memory the guest sees.
    #[must_use]
    pub fn with_ordered_writes(self) -> Self {
        Self {
            ordered_writes: true,
            ..self
        }
    }

    /// As this machine, with UEFI firmware and nothing for it to boot.
    #[must_use]
    pub fn with_firmware_alone(self) -> Self {
        Self {
            firmware: true,
            ..self
        }
    }

    /// As this machine, allowed to reboot.
    #[must_use]
    pub fn allowed_to_reboot(self) -> Self {
        Self {
            reboot: true,
            ..self
        }
    }

    /// As this machine, with more on its kernel's command line.
    #[must_use]
    pub fn with_parameters(self, parameters: &'static str) -> Self {
        Self { parameters, ..self }
    }

    /// As this machine, with an IOMMU that the guest uses for every device, at once and not some time later.
    #[must_use]
    pub fn behind_iommu(self) -> Self {
        Self {
            iommu: true,
            parameters: "intel_iommu=on iommu.passthrough=0 iommu.strict=1",
            ..self
        }
    }

    /// QEMU's arguments; the guest's sockets lie in `sockets`, its console goes to `console`.
    pub fn arguments(&self, lab: &Lab, sockets: &Path, console: &Path) -> Vec<String> {
        let mut arguments = self.platform();
        arguments.extend(self.boot_arguments(lab));
        if self.iommu {
            // Before the devices behind it. caching-mode: the guest tells of maps too, and not of unmaps only.
            arguments.extend(["-device", "intel-iommu,caching-mode=on"].map(str::to_owned));
        }
        arguments.extend(channels(sockets, console));
        arguments.extend(self.gpu_arguments());
        arguments.extend(self.scene_arguments(lab));
        arguments.extend(self.swap_arguments());
        if !self.reboot {
            arguments.push("-no-reboot".to_owned());
        }
        arguments
    }

    /// What boots.
    fn boot_arguments(&self, lab: &Lab) -> Vec<String> {
        if self.firmware {
            let firmware = lab.firmware_file().display().to_string();
            return vec!["-bios".to_owned(), firmware];
        }
        // No no_console_suspend: Linux then switches virtual terminals at every sleep, which redraws
        // the screen, and a test could not tell a kept picture from a new one.
        // panic=-1 with -no-reboot: a guest that dies ends QEMU instead of a timeout.
        // no_timer_check: a guest that gets too little of the host's time fails that check and panics.
        let command_line = "console=ttyS0 loglevel=5 panic=-1 rdinit=/init mem_sleep_default=deep \
                            no_timer_check vt.global_cursor_default=0 consoleblank=0";
        // nocompress: an emulated processor compresses slower than the disk writes.
        let resume = match self.swap {
            Some(_) => "resume=/dev/vda hibernate=nocompress",
            None => "",
        };
        let command_line = format!("{command_line} {resume} {}", self.parameters);
        let kernel = lab.vmlinuz(self.kernel).display().to_string();
        // The one with a disk's driver.
        let initramfs = if self.scene || self.swap.is_some() {
            lab.scene_initramfs(self.kernel)
        } else {
            lab.initramfs(self.kernel)
        };
        let initramfs = initramfs.display().to_string();
        [
            ["-kernel", &kernel],
            ["-initrd", &initramfs],
            ["-append", &command_line],
        ]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect()
    }

    fn platform(&self) -> Vec<String> {
        let memory = format!("memory-backend-memfd,id=mem,size={MEMORY},share=on");
        let cpus = self.cpus.to_string();
        // With a thread a CPU, TCG loses the second CPU at half of the wakes on a busy host: Linux waits 10 s for
        // it and goes on without, and the rest of the test is one of a broken machine.
        let accelerator = if self.cpus > 1 {
            "tcg,thread=single"
        } else {
            "tcg"
        };
        [
            ["-machine", "q35,memory-backend=mem"],
            ["-object", &memory],
            ["-m", MEMORY],
            ["-accel", accelerator],
            ["-cpu", "max"],
            ["-display", "none"],
            ["-nic", "none"],
            ["-smp", &cpus],
        ]
        .concat()
        .into_iter()
        .chain(["-nodefaults", "-no-user-config"])
        .map(str::to_owned)
        .collect()
    }

    fn scene_arguments(&self, lab: &Lab) -> Vec<String> {
        if !self.scene {
            return Vec::new();
        }
        let image = lab.scene().display().to_string();
        // In a slot of its own: the GPU stays where the suites look for it.
        [
            "-drive",
            &format!("id=scene,if=none,format=raw,readonly=on,file={image}"),
            "-device",
            "virtio-blk-pci,drive=scene,bus=pcie.0,addr=0x8",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn swap_arguments(&self) -> Vec<String> {
        let Some(path) = &self.swap else {
            return Vec::new();
        };
        // The host's page cache is safe enough: only QEMU ends here.
        let drive = format!(
            "id=swap,if=none,format=raw,cache=unsafe,file={}",
            path.display()
        );
        let device = "virtio-blk-pci,drive=swap,bus=pcie.0,addr=0x9";
        ["-drive", &drive, "-device", device]
            .map(str::to_owned)
            .to_vec()
    }

    fn gpu_arguments(&self) -> Vec<String> {
        let bus = if self.root_port { "gpu-port" } else { "pcie.0" };
        let device = match &self.gpu {
            Gpu::None => return Vec::new(),
            Gpu::VfioUser(socket) => json!({
                "driver": "vfio-user-pci",
                "bus": bus,
                "socket": {"type": "unix", "path": socket},
                "x-no-posted-writes": self.ordered_writes,
            })
            .to_string(),
            Gpu::Qemu(properties) => format!("virtio-gpu-pci,bus={bus}{properties}"),
        };
        let port = [
            "-device".to_owned(),
            "pcie-root-port,id=gpu-port".to_owned(),
        ];
        let port = if self.root_port {
            port.to_vec()
        } else {
            Vec::new()
        };
        [port, vec!["-device".to_owned(), device]].concat()
    }
}

fn channels(sockets: &Path, console: &Path) -> Vec<String> {
    let socket = |id: &str| {
        format!(
            "socket,id={id},path={},server=on,wait=off",
            sockets.join(id).display()
        )
    };
    vec![
        "-serial".to_owned(),
        format!("file:{}", console.display()),
        "-chardev".to_owned(),
        socket("agent"),
        "-serial".to_owned(),
        "chardev:agent".to_owned(),
        "-chardev".to_owned(),
        socket("qmp"),
        "-qmp".to_owned(),
        "chardev:qmp".to_owned(),
    ]
}
