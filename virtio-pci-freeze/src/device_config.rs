// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device-specific configuration and its generation (VIRTIO 1.4 §2.5).

use crate::error::ConfigError;
use crate::saved_state::{RestoreError, SavedDeviceConfig};

/// Longest device-specific configuration, in bytes: what its place in the BAR holds.
pub const MAX_DEVICE_CONFIG: usize = 0x1000;

/// An image of the device-specific configuration.
///
/// The device owns the contents and changes them through
/// [`update_device_config`](crate::VirtioPciFunction::update_device_config); what a driver writes leaves the model as an
/// effect and comes back the same way, so that a device can live on another thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceConfig {
    bytes: Vec<u8>,
    generation: u8,
    /// Whether it has changed since a driver last read any of it. The generation moves at the next read, as the note
    /// in VIRTIO 1.4 §4.1.4.3.1 asks, so that 256 changes between two reads do not look like none.
    changed: bool,
    /// The contents to come, while the device is suspended and may not change what a driver sees (§3.4.2).
    deferred: Option<Vec<u8>>,
}

impl DeviceConfig {
    pub(crate) fn new(bytes: Vec<u8>) -> Result<Self, ConfigError> {
        if bytes.len() > MAX_DEVICE_CONFIG {
            return Err(ConfigError::DeviceConfigTooLong {
                length: bytes.len(),
                limit: MAX_DEVICE_CONFIG,
            });
        }
        Ok(Self {
            bytes,
            generation: 0,
            changed: false,
            deferred: None,
        })
    }

    /// The configuration atomicity value.
    pub fn generation(&self) -> u8 {
        self.generation
    }

    pub(crate) fn set_generation(&mut self, generation: u8) {
        self.generation = generation;
    }

    /// The contents.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A driver's read; bytes beyond the end read 0.
    pub(crate) fn read(&mut self, offset: usize, data: &mut [u8]) {
        if self.changed {
            self.changed = false;
            self.generation = self.generation.wrapping_add(1);
        }
        data.fill(0);
        let source = self.bytes.iter().skip(offset);
        data.iter_mut()
            .zip(source)
            .for_each(|(to, from)| *to = *from);
    }

    /// Replaces the contents from `offset` on; bytes beyond the end are ignored. Returns whether anything changed.
    pub(crate) fn update(&mut self, offset: usize, data: &[u8]) -> bool {
        let changed = replace(&mut self.bytes, offset, data);
        self.changed |= changed;
        changed
    }

    /// As [`update_device_config`](crate::VirtioPciFunction::update_device_config), but the change waits for [`release`](Self::release).
    pub(crate) fn defer(&mut self, offset: usize, data: &[u8]) {
        let bytes = self.deferred.get_or_insert_with(|| self.bytes.clone());
        replace(bytes, offset, data);
    }

    /// Whether anything waits for [`release`](Self::release).
    pub(crate) fn is_deferring(&self) -> bool {
        self.deferred.is_some()
    }

    pub(crate) fn save(&self) -> SavedDeviceConfig {
        let Self {
            bytes,
            generation,
            changed,
            deferred,
        } = self.clone();
        SavedDeviceConfig {
            bytes,
            generation,
            changed,
            deferred,
        }
    }

    pub(crate) fn restore(&mut self, saved: &SavedDeviceConfig) -> Result<(), RestoreError> {
        let SavedDeviceConfig {
            bytes,
            generation,
            changed,
            deferred,
        } = saved;
        let length = self.bytes.len();
        if bytes.len() != length || deferred.as_ref().is_some_and(|d| d.len() != length) {
            return Err(RestoreError::Mismatch {
                what: "length of the device configuration",
            });
        }
        *self = Self {
            bytes: bytes.clone(),
            generation: *generation,
            changed: *changed,
            deferred: deferred.clone(),
        };
        Ok(())
    }

    /// Makes what was deferred visible. Returns whether anything changed.
    pub(crate) fn release(&mut self) -> bool {
        let deferred = self.deferred.take();
        deferred.is_some_and(|bytes| self.update(0, &bytes))
    }
}

fn replace(bytes: &mut [u8], offset: usize, data: &[u8]) -> bool {
    let mut changed = false;
    for (to, from) in bytes.iter_mut().skip(offset).zip(data) {
        changed |= to != from;
        *to = *from;
    }
    changed
}
