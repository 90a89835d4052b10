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

/// One bit that a driver may set.
struct Transition {
    phases: &'static [Phase],
    sets: u8,
    /// What must be set before or with it.
    after: u8,
    given: fn(StatusContext) -> bool,
    edge: StatusEdge,
    /// What happens where it is not `given`.
    refusal: StatusEdge,
}

impl Transition {
    const fn new(phases: &'static [Phase], sets: u8, after: u8, edge: StatusEdge) -> Self {
        Self {
            phases,
            sets,
            after,
            given: |_| true,
            edge,
            refusal: StatusEdge::None,
        }
    }

    const fn given(mut self, given: fn(StatusContext) -> bool, refusal: StatusEdge) -> Self {
        self.given = given;
        self.refusal = refusal;
        self
    }

    /// Whether the bit reads back at once, rather than when the device has done what was asked.
    fn is_immediate(&self) -> bool {
        !matches!(self.edge, StatusEdge::Suspend | StatusEdge::Resume)
    }
}

const AWAKE: &[Phase] = &[Phase::Stopped, Phase::Running];
const LISTENING: &[Phase] = &[Phase::Stopped, Phase::Running, Phase::Suspended];

/// Every transition that a driver can bring about but the reset, in the standard's words and in the order of its steps:
/// one write can take several. What is not here is ignored.
///
/// The device's own transitions are DEVICE_NEEDS_RESET (§2.1.2), and those that end a suspend and a resume: they come
/// with its answers.
const TRANSITIONS: [Transition; 7] = {
    use DeviceStatus as Bit;
    use StatusEdge as Edge;
    [
        // §2.1: "something went wrong in the guest, and it has given up on the device".
        Transition::new(LISTENING, Bit::FAILED, 0, Edge::None),
        // §3.1.1, step 2: "the guest OS has noticed the device".
        Transition::new(AWAKE, Bit::ACKNOWLEDGE, 0, Edge::None),
        // Step 3: "the guest OS knows how to drive the device".
        Transition::new(AWAKE, Bit::DRIVER, Bit::ACKNOWLEDGE, Edge::None),
        // Steps 5 and 6: unless it is "still set", "the device does not support our subset of features".
        Transition::new(AWAKE, Bit::FEATURES_OK, Bit::DRIVER, Edge::FeaturesOk)
            .given(|context| context.features_acceptable, Edge::FeaturesRefused),
        // Step 8: "At this point the device is 'live'".
        Transition::new(AWAKE, Bit::DRIVER_OK, Bit::FEATURES_OK, Edge::DriverOk),
        // §3.4: "If VIRTIO_F_SUSPEND is negotiated, the driver is eligible to suspend the device". §3.4.2: the bit is
        // ignored "if the device has not been completely initialized".
        Transition::new(&[Phase::Running], Bit::SUSPEND, 0, Edge::Suspend)
            .given(|context| context.suspend_negotiated, Edge::None),
        // §3.4: "the driver can resume the device running by setting the DRIVER_OK bit". One that leaves SUSPEND out of
        // that write is understood all the same: nothing else could be meant.
        Transition::new(&[Phase::Suspended], Bit::DRIVER_OK, 0, Edge::Resume),
    ]
};

/// The outcome of the driver writing `written` while the status is `current`.
pub fn write(current: DeviceStatus, written: u8, context: StatusContext) -> StatusWrite {
    // §4.1.4.3.1: "The device MUST reset when 0 is written".
    if written == 0 {
        return StatusWrite::Reset;
    }
    let asked = DeviceStatus(written & DeviceStatus::DRIVER_BITS);
    let kept = match context.phase {
        Phase::Resetting => return StatusWrite::Ignored,
        Phase::Suspending | Phase::Resuming => {
            return StatusWrite::Set {
                status: current,
                edge: StatusEdge::None,
            };
        }
        Phase::Suspended => DeviceStatus::DRIVER_BITS & !DeviceStatus::SUSPEND,
        Phase::Stopped | Phase::Running => DeviceStatus::DRIVER_BITS,
    };
    // §2.1.1: "The driver MUST NOT clear a device status bit".
    if !asked.contains(current.0 & kept) {
        return StatusWrite::Ignored;
    }
    let (mut status, mut edge) = (current, StatusEdge::None);
    for transition in &TRANSITIONS {
        let set_already = transition.is_immediate() && current.contains(transition.sets);
        let applies = transition.phases.contains(&context.phase)
            && asked.contains(transition.sets)
            && status.contains(transition.after);
        if !applies || set_already {
            continue;
        }
        let given = (transition.given)(context);
        if given && transition.is_immediate() {
            status = status.with(transition.sets);
        }
        match if given {
            transition.edge
        } else {
            transition.refusal
        } {
            StatusEdge::None => {}
            other => edge = other,
        }
    }
    let ignored = status == current && edge == StatusEdge::None;
    if ignored && asked.without(current.0).0 != 0 {
        return StatusWrite::Ignored;
    }
    StatusWrite::Set { status, edge }
}
