// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! PCI functions in Linux's sysfs.

use std::ffi::OsStr;
use std::fmt::{Display, Formatter, Result as FmtResult};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use thiserror::Error;
use virtio_pci_freeze::guest::ConfigAccess;
use virtio_pci_freeze::spec::{PCI_DEVICE_ID_BASE, PCI_VENDOR_ID};

pub(crate) const PCI_DEVICES: &str = "/sys/bus/pci/devices";
/// Device type of a GPU (VIRTIO 1.4 §5.7).
const GPU: u16 = 16;

/// The functions cannot be found.
#[derive(Debug, Error)]
pub(crate) enum SysfsError {
    #[error("{} cannot be listed", .directory.display())]
    List {
        directory: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("No virtio device to act on in {}", .directory.display())]
    NoDevice { directory: PathBuf },
    #[error("No PCI device {} in {}", .name.display(), .directory.display())]
    Unknown { name: PathBuf, directory: PathBuf },
}

/// Configuration space cannot be accessed.
#[derive(Debug, Error)]
pub(crate) enum AccessError {
    #[error("only root may write configuration space")]
    NotRoot(#[source] io::Error),
    #[error(
        "the kernel's lockdown forbids writing configuration space; boot without it or use a driver with hooks"
    )]
    Lockdown(#[source] io::Error),
    #[error("capabilities are shown to root only")]
    HeaderOnly,
    #[error(transparent)]
    Other(#[from] io::Error),
}

/// One PCI function.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Function {
    directory: PathBuf,
}

impl Function {
    pub(crate) fn named(sysfs: &Path, name: &OsStr) -> Result<Self, SysfsError> {
        let function = Self {
            directory: sysfs.join(name),
        };
        if function.directory.join("config").exists() {
            Ok(function)
        } else {
            Err(SysfsError::Unknown {
                name: name.into(),
                directory: sysfs.into(),
            })
        }
    }

    pub(crate) fn is_gpu(&self) -> bool {
        self.id("device") == Some(PCI_DEVICE_ID_BASE + GPU)
    }

    fn is_virtio(&self) -> bool {
        let device = self.id("device").unwrap_or(0);
        self.id("vendor") == Some(PCI_VENDOR_ID) && device >= PCI_DEVICE_ID_BASE
    }

    fn id(&self, attribute: &str) -> Option<u16> {
        let text = fs::read_to_string(self.directory.join(attribute)).ok()?;
        u16::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
    }
}

impl Display for Function {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        let name = self.directory.file_name().unwrap_or_default();
        write!(f, "{}", name.display())
    }
}

/// Every modern virtio function, by address.
pub(crate) fn virtio_functions(sysfs: &Path) -> Result<Vec<Function>, SysfsError> {
    let list = |source| SysfsError::List {
        directory: sysfs.into(),
        source,
    };
    let mut functions = Vec::new();
    for entry in fs::read_dir(sysfs).map_err(list)? {
        let directory = entry.map_err(list)?.path();
        functions.push(Function { directory });
    }
    functions.retain(Function::is_virtio);
    functions.sort();
    Ok(functions)
}

/// The configuration space of a function, locked against other instances of this program: two of them would move the
/// window under each other.
#[derive(Debug)]
pub(crate) struct ConfigFile(File);

impl ConfigFile {
    pub(crate) fn open_for_writing(function: &Function) -> Result<Self, AccessError> {
        let path = function.directory.join("config");
        let opened = OpenOptions::new().read(true).write(true).open(path);
        let file = opened.map_err(write_error)?;
        file.lock()?;
        Ok(Self(file))
    }
}

impl ConfigAccess for ConfigFile {
    type Error = AccessError;

    fn read(&mut self, offset: u16, data: &mut [u8]) -> Result<(), AccessError> {
        match self.0.read_exact_at(data, offset.into()) {
            // Without CAP_SYS_ADMIN the file ends after the 64 bytes of the header.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(AccessError::HeaderOnly)
            }
            read => Ok(read?),
        }
    }

    fn write(&mut self, offset: u16, data: &[u8]) -> Result<(), AccessError> {
        // One call is one access: sysfs splits it into accesses of natural width.
        let written = self.0.write_all_at(data, offset.into());
        written.map_err(write_error)
    }
}

/// EACCES is what the file's mode gives, EPERM what lockdown does (LOCKDOWN_PCI_ACCESS).
fn write_error(error: io::Error) -> AccessError {
    const EPERM: i32 = 1;
    match (error.raw_os_error(), error.kind()) {
        (Some(EPERM), _) => AccessError::Lockdown(error),
        (_, io::ErrorKind::PermissionDenied) => AccessError::NotRoot(error),
        _ => AccessError::Other(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_a_program_from_writing_is_told_apart() {
        let error = |code| write_error(io::Error::from_raw_os_error(code));
        assert!(matches!(error(1), AccessError::Lockdown(_)));
        assert!(matches!(error(13), AccessError::NotRoot(_)));
        assert!(matches!(error(5), AccessError::Other(_)));
        let text = error(1).to_string();
        assert!(text.contains("lockdown"), "{text}");
    }
}
