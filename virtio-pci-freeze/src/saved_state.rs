// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The state of a function as plain data, for snapshots and live migration.
//!
//! These types are apart from the ones the model works with, so that those can change without breaking old snapshots.
//! A saved state is untrusted: [`VirtioPciFunction::restore`](crate::VirtioPciFunction::restore) checks all of it.
//! A reader that may meet other versions deserialises a [`SavedHeader`] first.

use thiserror::Error;

use crate::error::ConfigError;
use crate::queue::RingPosition;
use crate::register::Layout;
use crate::retention::{FreezeState, ParkedQueues};

/// `kind` of a [`SavedTransport`].
pub const TRANSPORT_KIND: &str = "virtio-pci-freeze/transport";
/// `kind` of a [`SavedFunction`].
pub const FUNCTION_KIND: &str = "virtio-pci-freeze/function";
/// The version written, and the only one read.
pub const VERSION: u32 = 1;

/// What every version of a saved state begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SavedHeader {
    /// What was saved.
    pub kind: String,
    /// In which version.
    pub version: u32,
}

impl SavedHeader {
    /// The header of what this version of the crate writes.
    pub(crate) fn current(kind: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            version: VERSION,
        }
    }

    /// Whether this crate reads a state of `kind` with this header.
    ///
    /// # Errors
    /// [`RestoreError::UnknownKind`] or [`RestoreError::UnknownVersion`].
    pub fn check(&self, kind: &'static str) -> Result<(), RestoreError> {
        if self.kind != kind {
            return Err(RestoreError::UnknownKind {
                found: self.kind.chars().take(64).collect(),
                expected: kind,
            });
        }
        if self.version != VERSION {
            return Err(RestoreError::UnknownVersion {
                kind,
                found: self.version,
            });
        }
        Ok(())
    }
}

/// Whether the device behind the transport comes back with the state it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoredDevice {
    /// It does: everything goes on, a sleep included.
    Intact,
    /// It does not, as with a renderer that died with its process: every freeze and hold ends, what was parked goes,
    /// and a running device needs a reset.
    Lost,
}

/// A [`VirtioPciFunction`](crate::VirtioPciFunction).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[expect(missing_docs, reason = "the names are those of the registers")]
pub struct SavedFunction {
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub header: SavedHeader,
    pub transport: SavedTransport,
    pub config_space: SavedConfigSpace,
    /// The MSI-X table and pending bits.
    pub vectors: Vec<SavedVector>,
    pub isr: u8,
    /// Whether the driver has yet to be told of a configuration change.
    pub owes_config_change: bool,
}

/// The registers of configuration space that software can write.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[expect(missing_docs, reason = "the names are those of the registers")]
pub struct SavedConfigSpace {
    pub command: u16,
    pub cache_line_size: u8,
    pub interrupt_line: u8,
    pub bars: [u32; 6],
    /// The PowerState field of PMCSR: 0 or 3.
    pub power_state: u8,
    pub msix_control: u16,
    pub window_bar: u8,
    pub window_offset: u32,
    pub window_length: u32,
    pub window_data: u32,
}

/// One MSI-X vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[expect(missing_docs, reason = "the names are those of the registers")]
pub struct SavedVector {
    pub address: u64,
    pub data: u32,
    pub control: u32,
    pub pending: bool,
}

/// A [`Transport`](crate::Transport).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[expect(missing_docs, reason = "the names are those of the registers")]
pub struct SavedTransport {
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub header: SavedHeader,
    pub layout: Layout,
    pub status: u8,
    pub driver_features: u64,
    pub device_feature_select: u32,
    pub driver_feature_select: u32,
    pub queue_select: u16,
    pub config_msix_vector: u16,
    pub queues: Vec<SavedQueue>,
    pub lifecycle: SavedLifecycle,
    pub holds: SavedHolds,
    pub freeze: FreezeState,
    pub bus_master: bool,
    pub d3hot: bool,
    pub device_config: SavedDeviceConfig,
}

/// The registers of one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[expect(missing_docs, reason = "the names are those of the registers")]
pub struct SavedQueue {
    pub max_size: u16,
    pub size: u16,
    pub msix_vector: u16,
    pub enabled: bool,
    pub desc: u64,
    pub driver: u64,
    pub device: u64,
    pub position: RingPosition,
}

/// Where the device stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum SavedLifecycle {
    /// It has not run since the last full reset.
    Clean,
    /// A frozen reset is behind it.
    Retained {
        /// The queues it put aside, if any were live.
        parked: Option<ParkedQueues>,
    },
    /// DRIVER_OK is set.
    Running,
    /// The driver set SUSPEND.
    Suspending,
    /// SUSPEND reads 1.
    Suspended,
    /// The driver set DRIVER_OK on a suspended device.
    Resuming,
    /// A reset is under way.
    Resetting {
        /// Whether it is a frozen one.
        frozen: bool,
        /// What it found.
        found: SavedFound,
    },
}

/// What a reset found; one of a device that is clean is over at once.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum SavedFound {
    /// A live device.
    Live,
    /// One with a frozen reset behind it.
    Retained {
        /// The queues that were put aside, if any were live.
        parked: Option<ParkedQueues>,
    },
}

/// The reasons to hold that begin with a hint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[expect(missing_docs, reason = "the names are those of HoldReason")]
pub struct SavedHolds {
    pub d3hot: SavedHold,
    pub bus_master_off: SavedHold,
    pub platform_sleep: SavedHold,
    pub function_reset: SavedHold,
    pub same_driver: SavedHold,
}

/// One reason to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum SavedHold {
    /// No hold.
    #[default]
    Absent,
    /// Its cause stands.
    Standing,
    /// Its cause is gone; so many doorbells have come since.
    Lingering(u16),
}

/// The device-specific configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct SavedDeviceConfig {
    /// The contents.
    pub bytes: Vec<u8>,
    /// `config_generation`.
    pub generation: u8,
    /// Whether the contents have changed since a driver last read any of them.
    pub changed: bool,
    /// The contents to come, where a suspend keeps them back.
    pub deferred: Option<Vec<u8>>,
}

/// A saved state that cannot be restored.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// Something else was saved.
    #[error("The saved state is {found:?}, not {expected:?}")]
    UnknownKind {
        /// Its kind, at most 64 characters of it.
        found: String,
        /// The kind that can be restored here.
        expected: &'static str,
    },
    /// Saved by another version of this crate.
    #[error("The saved state is version {found} of {kind:?}; this build reads version {VERSION}")]
    UnknownVersion {
        /// Its kind.
        kind: &'static str,
        /// Its version.
        found: u32,
    },
    /// The caller describes a device that cannot exist.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The saved device differs from the one that the caller describes.
    #[error("The saved device has another {what} than the one to restore it into")]
    Mismatch {
        /// In what.
        what: &'static str,
    },
    /// The saved state contradicts itself or the standard.
    #[error("The saved {what} cannot be")]
    Invalid {
        /// What is wrong.
        what: &'static str,
    },
    /// As [`Invalid`](Self::Invalid), of one queue.
    #[error("The saved {what} of queue {index} cannot be")]
    InvalidQueue {
        /// Index of the queue.
        index: u16,
        /// What is wrong.
        what: &'static str,
    },
}
