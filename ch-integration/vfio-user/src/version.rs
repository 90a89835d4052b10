// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What both sides can do, as the VERSION messages' JSON has it (vfio-user, "VFIO_USER_VERSION").

#![forbid(unsafe_code)]

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::limits::{MAX_DATA_XFER, MAX_DMA_MAPS, MAX_MESSAGE_FDS, MAX_VERSION_DATA, PAGE_SIZE};

/// The protocol that is spoken: 0.1.
const MAJOR: u16 = 0;
const MINOR: u16 = 1;

#[derive(Debug, Default, Deserialize, Serialize)]
struct VersionData {
    #[serde(default)]
    capabilities: Capabilities,
}

/// Fields that a client leaves out have the protocol's defaults; those that we do not know are nothing to us.
#[derive(Debug, Deserialize, Serialize)]
#[serde(default)]
struct Capabilities {
    max_msg_fds: u64,
    max_data_xfer_size: u64,
    max_dma_maps: u64,
    pgsizes: u64,
    migration: Migration,
}

/// Required by the `vfio_user` crate's clients, of which Cloud Hypervisor is one, although nothing migrates.
#[derive(Debug, Deserialize, Serialize)]
#[serde(default)]
struct Migration {
    pgsize: u64,
}

impl Default for Migration {
    fn default() -> Self {
        Self { pgsize: PAGE_SIZE }
    }
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            max_msg_fds: 1,
            max_data_xfer_size: MAX_DATA_XFER.into(),
            max_dma_maps: 65_535,
            pgsizes: PAGE_SIZE,
            migration: Migration::default(),
        }
    }
}

/// What is agreed with a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    /// "Equal to or less than the minor version proposed"; QEMU proposes 0.0.
    pub(crate) minor: u16,
    /// Bytes of data that a reply to it may have.
    pub(crate) max_data: u32,
}

/// Checks what a client proposes.
///
/// # Errors
/// EPROTONOSUPPORT for a version that is not spoken here, EINVAL for data that is no JSON of that form or too long.
pub(crate) fn accept(major: u16, minor: u16, json: &[u8]) -> Result<Agreed, Errno> {
    if major != MAJOR {
        return Err(Errno::PROTONOSUPPORT);
    }
    if json.len() > MAX_VERSION_DATA {
        return Err(Errno::INVAL);
    }
    // "Including terminating NUL", which not all clients send. Without any data all is as the protocol's defaults.
    let json = json.strip_suffix(&[0]).unwrap_or(json);
    let theirs = if json.is_empty() {
        VersionData::default()
    } else {
        serde_json::from_slice(json).map_err(|_| Errno::INVAL)?
    };
    let transfer = theirs
        .capabilities
        .max_data_xfer_size
        .min(MAX_DATA_XFER.into());
    Ok(Agreed {
        minor: minor.min(MINOR),
        max_data: u32::try_from(transfer).map_err(|_| Errno::INVAL)?,
    })
}

/// What the client is told.
pub(crate) fn ours() -> String {
    let data = VersionData {
        capabilities: Capabilities {
            max_msg_fds: MAX_MESSAGE_FDS as u64,
            max_dma_maps: MAX_DMA_MAPS as u64,
            ..Capabilities::default()
        },
    };
    serde_json::to_string(&data).unwrap_or_default()
}
