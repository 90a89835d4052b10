// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What survives: activation, quiescence and the two resets.

use thiserror::Error;

use super::{Gpu, with_dependencies};
use crate::fence::Timeline;
use crate::resource::Retention;
use crate::status::ErrorKind;
use vm_memory::GuestMemoryBackend;

/// What a status = 0 or a function reset means; the transport's retention state machine knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetKind {
    /// Everything the guest made goes.
    Full,
    /// A reason to retain holds: everything the guest made stays.
    Frozen,
}

/// How the device comes to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// After a full reset, with queues the driver set up.
    Fresh,
    /// After a frozen reset, with queues the driver set up: it may be the same guest, or one that
    /// rebooted without our knowing. Retained objects come alive as they are named.
    Retained,
    /// After a frozen reset, with the parked queues: only the same guest can mean that, so
    /// everything is alive.
    Reinstated,
}

/// Commands still wait for the renderer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{fences} fences are outstanding on {} timelines", timelines.len())]
pub struct Outstanding {
    /// Commands that wait.
    pub fences: usize,
    /// Where, and how many on each.
    pub timelines: Vec<(Timeline, usize)>,
}

impl Gpu {
    /// The driver reached DRIVER_OK with these feature bits (as a mask).
    pub fn activate(&mut self, negotiated: u64, how: Activation) {
        self.negotiated = with_dependencies(negotiated & self.device_features());
        match how {
            Activation::Fresh | Activation::Retained => {}
            Activation::Reinstated => self.set_retention(Retention::Live),
        }
    }

    /// Asks whether every command is answered, so that a freeze, SUSPEND or reset may be
    /// acknowledged. Never waits: a caller with a clock calls it again when the renderer wakes it,
    /// and refuses the freeze when its time is over. Commands go on being accepted.
    ///
    /// Answers that became ready must be taken with [`Gpu::take_completed`] first; they count as
    /// outstanding until then. A command that waits for somebody outside is answered now, as it
    /// might wait for ever ([`Renderer::release_waits`](crate::Renderer::release_waits)).
    ///
    /// A device that is quiet has read its pictures, see
    /// [`look_before_sleep`](Self::look_before_sleep).
    ///
    /// # Errors
    /// What is still outstanding.
    pub fn quiesce<M: GuestMemoryBackend + ?Sized>(
        &mut self,
        memory: &M,
    ) -> Result<(), Outstanding> {
        self.renderer.release_waits();
        self.collect_completions();
        match self.fences.len() {
            0 => {
                self.look_before_sleep(memory);
                Ok(())
            }
            fences => Err(Outstanding {
                fences,
                timelines: self.fences.waiting(),
            }),
        }
    }

    /// Answers the commands that wait for somebody outside, as [`quiesce`](Self::quiesce) does: for a sleep that begins
    /// without it. Whoever they wait for would be heard while guest memory is not the device's to write.
    pub fn release_waits(&mut self) {
        self.renderer.release_waits();
    }

    /// Resets the device. The caller has quiesced it; tokens still outstanding become void and
    /// are counted.
    ///
    /// Both kinds end the negotiation. Neither drops the renderer. A frozen one touches no memory
    /// of the guest, nor does any look until the guest goes on.
    pub fn reset(&mut self, kind: ResetKind) {
        let Self {
            config: _,
            negotiated,
            events_read,
            // Told at once, whoever drives the device.
            config_changed: _,
            resources: _,
            contexts: _,
            mappings: _,
            scanouts: _,
            fences,
            // A UUID is never given twice, not even to two guests in turn.
            last_uuid: _,
            counters,
            renderer,
            host_visible: _,
        } = self;
        *negotiated = 0;
        // Nothing may be written to the guest's memory for a command that is forgotten.
        renderer.release_waits();
        let abandoned = fences.len() as u64;
        counters.abandoned_fences = counters.abandoned_fences.saturating_add(abandoned);
        fences.abandon();
        match kind {
            ResetKind::Frozen => {
                counters.frozen_resets = counters.frozen_resets.saturating_add(1);
                self.set_retention(Retention::Retained);
                self.give_up_unread();
            }
            ResetKind::Full => {
                *events_read = 0;
                counters.full_resets = counters.full_resets.saturating_add(1);
                self.destroy_everything();
                self.restart_renderer();
            }
        }
    }

    /// Why the renderer ended by itself, if it did. What the guest had in it is lost, so nothing but
    /// a full reset, which starts it anew, makes the device whole again: the caller asks the driver
    /// for one (DEVICE_NEEDS_RESET, VIRTIO 1.4 §2.1.2), and grants no freeze and no frozen reset.
    /// Requests that waited are answered with an error; 2D goes on.
    pub fn renderer_failure(&self) -> Option<String> {
        self.renderer.failure()
    }

    fn restart_renderer(&mut self) {
        if self.renderer.failure().is_some() && self.renderer.restart().is_err() {
            self.counters.errors.count(ErrorKind::Host);
        }
    }

    fn set_retention(&mut self, retention: Retention) {
        self.resources.set_retention(retention);
        for context in self.contexts.values_mut() {
            context.retention = retention;
        }
    }

    fn destroy_everything(&mut self) {
        while let Some((id, _)) = self.contexts.first_key_value() {
            self.destroy_context(*id);
        }
        for id in self.resources.ids() {
            self.destroy_resource(id);
        }
        for scanout in &mut self.scanouts {
            scanout.set_cursor(None);
            scanout.move_cursor(0, 0);
        }
    }
}
