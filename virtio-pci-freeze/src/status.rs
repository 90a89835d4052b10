// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a write to the device status does, as a pure function (VIRTIO 1.4 §2.1 and §3.4).

use crate::spec::DeviceStatus;

/// Where the device stands when the driver writes its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before DRIVER_OK.
    Stopped,
    /// After DRIVER_OK.
    Running,
    /// The driver set SUSPEND; the device has not finished.
    Suspending,
    /// Suspended: SUSPEND reads 1, DRIVER_OK reads 0.
    Suspended,
    /// The driver set DRIVER_OK on a suspended device, which has not finished.
    Resuming,
    /// A reset is under way; the status does not read 0 yet.
    Resetting,
}

/// What the transition depends on besides the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusContext {
    /// Where the device stands.
    pub phase: Phase,
    /// Whether the driver's feature set may be accepted.
    pub features_acceptable: bool,
    /// Whether VIRTIO_F_SUSPEND was negotiated.
    pub suspend_negotiated: bool,
}

/// What happens besides the status changing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusEdge {
    /// Nothing.
    None,
    /// The feature set is fixed from here on.
    FeaturesOk,
    /// FEATURES_OK was asked for and does not read back.
    FeaturesRefused,
    /// The device starts.
    DriverOk,
    /// The device shall suspend; the status changes when it has.
    Suspend,
    /// The device shall resume; the status changes when it has.
    Resume,
}

/// The outcome of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusWrite {
    /// 0 was written: the device resets, whatever it was doing.
    Reset,
    /// The write broke a rule, and changes nothing.
    Ignored,
    /// The status becomes `status`, with this edge.
    Set {
        /// The new status.
        status: DeviceStatus,
        /// What else happens.
        edge: StatusEdge,
    },
}

/// Each bit with the bit that must be set before or with it (VIRTIO 1.4 §3.1.1).
const PREREQUISITES: [(u8, u8); 3] = [
    (DeviceStatus::DRIVER, DeviceStatus::ACKNOWLEDGE),
    (DeviceStatus::FEATURES_OK, DeviceStatus::DRIVER),
    (DeviceStatus::DRIVER_OK, DeviceStatus::FEATURES_OK),
];

/// The outcome of the driver writing `written` while the status is `current`.
pub fn write(current: DeviceStatus, written: u8, context: StatusContext) -> StatusWrite {
    if written == 0 {
        return StatusWrite::Reset;
    }
    let asked = DeviceStatus(written & DeviceStatus::DRIVER_BITS);
    match context.phase {
        Phase::Resetting => StatusWrite::Ignored,
        Phase::Suspending | Phase::Resuming => StatusWrite::Set {
            status: current,
            edge: StatusEdge::None,
        },
        Phase::Suspended => write_suspended(current, asked),
        Phase::Stopped | Phase::Running => write_awake(current, asked, context),
    }
}

/// On a suspended device only DRIVER_OK means anything. A driver that leaves SUSPEND out of that write is understood
/// all the same: nothing else could be meant.
fn write_suspended(current: DeviceStatus, asked: DeviceStatus) -> StatusWrite {
    let kept = current.0 & DeviceStatus::DRIVER_BITS & !DeviceStatus::SUSPEND;
    if !asked.contains(kept) {
        return StatusWrite::Ignored;
    }
    let edge = if asked.contains(DeviceStatus::DRIVER_OK) {
        StatusEdge::Resume
    } else {
        StatusEdge::None
    };
    let status = current.with(asked.0 & DeviceStatus::FAILED);
    StatusWrite::Set { status, edge }
}

fn write_awake(current: DeviceStatus, asked: DeviceStatus, context: StatusContext) -> StatusWrite {
    // "The driver MUST NOT clear a device status bit" (§2.1.1).
    if !asked.contains(current.0 & DeviceStatus::DRIVER_BITS) {
        return StatusWrite::Ignored;
    }
    let suspend = asked.contains(DeviceStatus::SUSPEND);
    let mut status = current.with(asked.without(DeviceStatus::SUSPEND).0);
    let refused = status.contains(DeviceStatus::FEATURES_OK)
        && !current.contains(DeviceStatus::FEATURES_OK)
        && !context.features_acceptable;
    if refused {
        status = status.without(DeviceStatus::FEATURES_OK);
    }
    for (bit, prerequisite) in PREREQUISITES {
        if !status.contains(prerequisite) && !current.contains(bit) {
            status = status.without(bit);
        }
    }
    // §3.4.2: SUSPEND is ignored before DRIVER_OK, and without the feature.
    if suspend && context.phase == Phase::Running && context.suspend_negotiated {
        return StatusWrite::Set {
            status,
            edge: StatusEdge::Suspend,
        };
    }
    let gained = status.without(current.0);
    let edge = if gained.contains(DeviceStatus::DRIVER_OK) {
        StatusEdge::DriverOk
    } else if gained.contains(DeviceStatus::FEATURES_OK) {
        StatusEdge::FeaturesOk
    } else if refused {
        StatusEdge::FeaturesRefused
    } else if status == current && asked.without(current.0).0 != 0 {
        return StatusWrite::Ignored;
    } else {
        StatusEdge::None
    };
    StatusWrite::Set { status, edge }
}
