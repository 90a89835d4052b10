// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The common configuration structure in front of a [`Transport`] (VIRTIO 1.4 §4.1.4.3).

use crate::effect::{Effect, Effects};
use crate::error::ConfigError;
use crate::queue::{Queue, QueueStatus};
use crate::register::{Access, Register, pieces};
use crate::spec::feature;
use crate::status::Phase;
use crate::transport::{Transport, TransportConfig, count};

/// A transport behind the registers of the common configuration structure.
///
/// Accesses are byte-exact: touching one register neither reads nor writes its neighbour.
#[derive(Clone, Debug)]
pub struct CommonConfig {
    transport: Transport,
}

impl CommonConfig {
    /// A device as after power-on.
    ///
    /// # Errors
    /// A [`ConfigError`] names what the caller asked for and cannot have.
    pub fn new(config: TransportConfig) -> Result<Self, ConfigError> {
        let transport = Transport::new(config)?;
        Ok(Self { transport })
    }

    /// The registers in front of a transport that exists already, such as a restored one.
    pub fn with_transport(transport: Transport) -> Self {
        Self { transport }
    }

    /// The transport behind the registers.
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// The transport behind the registers.
    pub fn transport_mut(&mut self) -> &mut Transport {
        &mut self.transport
    }

    /// Length of the structure in bytes.
    pub fn length(&self) -> u32 {
        self.transport.config().layout.length()
    }

    /// Reads `data.len()` bytes at `offset`; bytes of no register read 0.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        for piece in pieces(self.transport.config().layout, offset, data.len()) {
            piece.load(self.read_register(piece.info.register), data);
        }
    }

    /// Writes `data` at `offset`, one register after the other in ascending order.
    pub fn write(&mut self, offset: u64, data: &[u8], effects: &mut Effects) {
        for piece in pieces(self.transport.config().layout, offset, data.len()) {
            let register = piece.info.register;
            let value = match piece.info.access {
                Access::ReadOnly => None,
                Access::Whole => piece.is_whole().then(|| piece.merge(0, data)),
                Access::Stored => Some(piece.merge(self.read_register(register), data)),
            };
            let written = value.is_some_and(|value| self.write_register(register, value, effects));
            if !written {
                count(&mut self.transport.counters_mut().register_writes_ignored);
            }
        }
    }

    /// The value of one register, zero-extended.
    pub fn read_register(&self, register: Register) -> u64 {
        let transport = &self.transport;
        let selectors = transport.selectors();
        let queue = transport.queue(selectors.queue);
        let of_queue = |field: fn(&Queue) -> u64| queue.map_or(0, field);
        match register {
            Register::DeviceFeatureSelect => selectors.device_feature.into(),
            Register::DeviceFeature => {
                half(transport.offered_features(), selectors.device_feature).into()
            }
            Register::DriverFeatureSelect => selectors.driver_feature.into(),
            Register::DriverFeature => {
                half(transport.driver_features(), selectors.driver_feature).into()
            }
            Register::ConfigMsixVector => transport.config_vector().into(),
            Register::NumQueues => transport.queue_count().into(),
            Register::DeviceStatus => transport.status().0.into(),
            Register::ConfigGeneration => transport.device_config().generation().into(),
            Register::QueueSelect => selectors.queue.into(),
            Register::QueueSize => of_queue(|queue| queue.size.into()),
            Register::QueueMsixVector => queue.map_or(u64::from(u16::MAX), |q| q.vector.into()),
            Register::QueueEnable => {
                of_queue(|queue| (queue.status == QueueStatus::Enabled).into())
            }
            Register::QueueNotifyOff => queue.map_or(0, |_| selectors.queue.into()),
            Register::QueueDesc => of_queue(|queue| queue.desc),
            Register::QueueDriver => of_queue(|queue| queue.driver),
            Register::QueueDevice => of_queue(|queue| queue.device),
            // The value that a doorbell carries is the queue's index (§4.1.4.3, the trivial case).
            Register::QueueNotifConfigData => queue.map_or(0, |_| selectors.queue.into()),
            Register::QueueReset => {
                of_queue(|queue| (queue.status == QueueStatus::Resetting).into())
            }
            Register::AdminQueueIndex => transport.queue_count().into(),
            Register::AdminQueueNum => transport.admin_queue_count().into(),
            Register::FreezeMode => transport.freeze_mode().into(),
        }
    }

    /// Writes one register whole. Returns whether the write counted.
    fn write_register(&mut self, register: Register, value: u64, effects: &mut Effects) -> bool {
        let transport = &mut self.transport;
        // §3.4.2: while suspended, writes are ignored but those of the status. Selectors only choose what is read.
        let suspended = matches!(transport.phase(), Phase::Suspended | Phase::Resuming);
        if suspended && !is_selector_or_status(register) {
            return false;
        }
        let selected = transport.selectors().queue;
        let [low, _] = dwords(value);
        let word = low_word(value);
        match register {
            Register::DeviceFeatureSelect => transport.selectors_mut().device_feature = low,
            Register::DriverFeatureSelect => transport.selectors_mut().driver_feature = low,
            Register::QueueSelect => transport.selectors_mut().queue = word,
            Register::DriverFeature => {
                let select = transport.selectors().driver_feature;
                let features = with_half(transport.driver_features(), select, low);
                return transport.write_driver_features(features);
            }
            Register::ConfigMsixVector => transport.write_config_vector(word),
            Register::DeviceStatus => transport.write_status(value.to_le_bytes()[0], effects),
            Register::QueueMsixVector => return transport.write_queue_vector(selected, word),
            Register::QueueSize => {
                let packed = transport.negotiated(feature::VIRTIO_F_RING_PACKED);
                let allowed = transport
                    .queue(selected)
                    .is_some_and(|q| q.allows_size(word, packed));
                return allowed && transport.configure_queue(selected, |q| q.size = word);
            }
            Register::QueueEnable => return self.write_queue_enable(selected, word, effects),
            Register::QueueDesc => return transport.configure_queue(selected, |q| q.desc = value),
            Register::QueueDriver => {
                return transport.configure_queue(selected, |q| q.driver = value);
            }
            Register::QueueDevice => {
                return transport.configure_queue(selected, |q| q.device = value);
            }
            Register::QueueReset => return word == 1 && transport.reset_queue(selected, effects),
            Register::FreezeMode => transport.write_freeze_mode(word, effects),
            Register::DeviceFeature
            | Register::NumQueues
            | Register::ConfigGeneration
            | Register::QueueNotifyOff
            | Register::QueueNotifConfigData
            | Register::AdminQueueIndex
            | Register::AdminQueueNum => return false,
        }
        true
    }

    /// Only 1 may be written (§4.1.4.3.2); a queue whose addresses are misaligned stays disabled.
    fn write_queue_enable(&mut self, index: u16, value: u16, effects: &mut Effects) -> bool {
        let transport = &mut self.transport;
        let packed = transport.negotiated(feature::VIRTIO_F_RING_PACKED);
        let usable = transport.queue(index).is_some_and(|q| q.is_aligned(packed));
        let enabled = value == 1
            && usable
            && transport.configure_queue(index, |queue| queue.status = QueueStatus::Enabled);
        if enabled && transport.phase() == Phase::Running {
            effects.push(Effect::StartQueue { queue: index });
        }
        enabled
    }
}

fn is_selector_or_status(register: Register) -> bool {
    matches!(
        register,
        Register::DeviceStatus
            | Register::DeviceFeatureSelect
            | Register::DriverFeatureSelect
            | Register::QueueSelect
    )
}

fn dwords(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    [
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    ]
}

fn low_word(value: u64) -> u16 {
    let [low, high, ..] = value.to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// Bits 32 × `select` and up; 0 where there are none.
fn half(features: u64, select: u32) -> u32 {
    let [low, high] = dwords(features);
    match select {
        0 => low,
        1 => high,
        _ => 0,
    }
}

fn with_half(features: u64, select: u32, value: u32) -> u64 {
    let [low, high] = dwords(features);
    let (low, high) = match select {
        0 => (value, high),
        1 => (low, value),
        _ => (low, high),
    };
    u64::from(high) << 32 | u64::from(low)
}
