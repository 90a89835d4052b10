// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where `scripts/lab` put the guests' kernels and QEMU.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// A kernel of the lab, named after the series it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// Debian 12. No driver-side No_Soft_Reset support: always resets at a wake.
    V6_1,
    /// Debian 13. Does not reset a function with No_Soft_Reset (Linux 6.8 and later).
    V6_12,
    /// The newest in Debian 13 backports.
    V7,
}

impl Kernel {
    /// Oldest first.
    pub const ALL: [Self; 3] = [Self::V6_1, Self::V6_12, Self::V7];

    /// Whether its virtio-pci driver leaves the registers alone when PMCSR has No_Soft_Reset.
    pub fn honours_no_soft_reset(self) -> bool {
        self != Self::V6_1
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::V7 => "7.x",
        })
    }
}

/// The lab, complete.
#[derive(Debug, Clone)]
pub struct Lab {
    root: PathBuf,
}

impl Lab {
    /// Finds the lab. Without one a suite cannot run: `None`, with the reason on standard error.
    ///
    /// # Errors
    /// There is no lab and `VIRTIO_LAB=required` says that there must be.
    pub fn find() -> Result<Option<Self>> {
        let repo = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("the package has a parent")?;
        let lab = Self {
            root: repo.join("target/lab"),
        };
        Ok(match lab.missing() {
            None => Some(lab),
            Some(path) => skip(&path)?,
        })
    }

    fn missing(&self) -> Option<PathBuf> {
        let kernels = Kernel::ALL
            .into_iter()
            .flat_map(|kernel| [self.vmlinuz(kernel), self.initramfs(kernel)]);
        kernels
            .chain([self.qemu(), self.scene()])
            .find(|path| !path.exists())
    }

    /// The QEMU to run.
    pub fn qemu(&self) -> PathBuf {
        self.root.join("bin/qemu-system-x86_64")
    }

    /// A kernel image.
    pub fn vmlinuz(&self, kernel: Kernel) -> PathBuf {
        self.root.join(format!("kernels/{kernel}/vmlinuz"))
    }

    /// The initramfs with that kernel's modules and the agent.
    pub fn initramfs(&self, kernel: Kernel) -> PathBuf {
        self.root.join(format!("kernels/{kernel}/initramfs"))
    }

    /// The initramfs for a guest with the disk [`Lab::scene`].
    pub fn scene_initramfs(&self, kernel: Kernel) -> PathBuf {
        self.root.join(format!("kernels/{kernel}/scene/initramfs"))
    }

    /// The disk that has Mesa and the OpenGL client.
    pub fn scene(&self) -> PathBuf {
        self.root.join("scene.img")
    }

    /// UEFI firmware. `None` where there is none and no need of it, as in [`Lab::find`].
    ///
    /// # Errors
    /// As [`Lab::find`].
    pub fn firmware(&self) -> Result<Option<PathBuf>> {
        let path = self.firmware_file();
        if path.exists() {
            return Ok(Some(path));
        }
        skip(&path)
    }

    pub(crate) fn firmware_file(&self) -> PathBuf {
        self.root.join("ovmf.fd")
    }

    /// The kernel, or the initramfs, of a guest that is itself a host. Made on request only.
    pub fn nested(&self, file: &str) -> PathBuf {
        self.root.join("kernels/nested").join(file)
    }

    /// Modules for all the virtio devices that a machine may have besides the GPU.
    pub(crate) fn devices(&self, kernel: Kernel) -> PathBuf {
        self.root.join(format!("kernels/{kernel}/devices"))
    }

    /// A virtio-fs server, with its libraries.
    pub(crate) fn virtiofsd(&self) -> PathBuf {
        self.root.join("virtiofsd")
    }

    /// The lab's own archiver, among others.
    pub fn busybox(&self) -> PathBuf {
        self.root.join("bin/busybox")
    }

    /// Whether the kernel's virtio-gpu driver has sleep hooks (Linux 7.3): without No_Soft_Reset they
    /// reset the device when the guest goes to sleep, and use the same resources after the wake.
    ///
    /// # Errors
    /// The lab has no such driver.
    pub fn driver_resets_at_sleep(&self, kernel: Kernel) -> Result<bool> {
        const RESTORE: &[u8] = b"virtgpu_restore";
        let path = self
            .root
            .join(format!("kernels/{kernel}/modules/virtio-gpu.ko"));
        let module = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(module.windows(RESTORE.len()).any(|bytes| bytes == RESTORE))
    }

    /// Whether guests have the helper that writes the freeze_mode register.
    pub fn has_freezectl(&self) -> bool {
        self.root.join("bin/virtio-freezectl").exists()
    }

    /// An empty directory for the logs of one guest.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn run_directory(&self, name: &str) -> Result<PathBuf> {
        let directory = self.root.join("run").join(name);
        if directory.exists() {
            fs::remove_dir_all(&directory)
                .with_context(|| format!("remove {}", directory.display()))?;
        }
        fs::create_dir_all(&directory)
            .with_context(|| format!("create {}", directory.display()))?;
        Ok(directory)
    }
}

/// What to do without a part of the lab.
fn skip<T>(missing: &Path) -> Result<Option<T>> {
    if env::var_os("VIRTIO_LAB").is_some_and(|value| value == "required") {
        bail!("no {}: run scripts/lab", missing.display());
    }
    eprintln!("skipped: no {} (scripts/lab makes it)", missing.display());
    Ok(None)
}
