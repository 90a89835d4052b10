// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What an access asks of the world outside the model.

use core::slice::Iter;

use arrayvec::ArrayVec;

/// What a reset leaves of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetKind {
    /// Everything goes: queues, features and all device state (VIRTIO 1.4 §2.4).
    Full,
    /// The registers read as after a reset; the device retains its state and the queues are parked.
    Frozen,
}

/// Names one reset, so that a late answer to an older one is not taken for an answer to this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResetTicket(pub u32);

/// Names one request to freeze, so that the answer to one that was taken back is not taken for the answer to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FreezeTicket(pub u32);

/// How the device starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActivationKind {
    /// The driver set up queues on a device that holds no state.
    Fresh,
    /// The driver set up queues on a device that retained its state across a frozen reset.
    Retained,
    /// The driver set up no queue: the parked ones are back, and so is all that it knew before.
    Reinstated,
}

/// One thing to do, in the order given, after an access or event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Stop taking buffers, finish those taken, apply the reset to the device, then call
    /// [`reset_done`](crate::Transport::reset_done) with the ticket.
    Reset {
        /// What to keep.
        kind: ResetKind,
        /// To be handed back.
        ticket: ResetTicket,
    },
    /// Start the device with the queues that [`active_queues`](crate::Transport::active_queues) lists.
    /// No buffer may be taken before the first [`Kick`](Effect::Kick) or [`Notify`](Effect::Notify).
    Activate(ActivationKind),
    /// Process every active queue: doorbells may have been lost, or written before the device could see them.
    Kick,
    /// Stop touching guest memory before the access returns: the function may not master the bus.
    Pause,
    /// Guest memory is another kernel's, or may be: forget the queues and what is owed in them, and drop the device's state,
    /// which that kernel did not make. The device needs a reset, and the next one leaves nothing
    /// ([`StateLost`](crate::ResetOutcome::StateLost)).
    Disown,
    /// The driver rang a queue's doorbell.
    Notify {
        /// Index of the queue.
        queue: u16,
        /// What the driver wrote (VIRTIO 1.4 §4.1.5.2).
        data: u32,
    },
    /// Make sure the device can retain its state, then call [`freeze_done`](crate::Transport::freeze_done) with the
    /// ticket. The queues go on being served.
    Freeze {
        /// To be handed back.
        ticket: FreezeTicket,
    },
    /// The guest ended its freeze.
    Unfreeze,
    /// Drop the state that was retained: nobody is left to ask for it. The device is stopped, so there is nothing to
    /// wait for and nothing to answer, but it must be done before a later [`Activate`](Effect::Activate).
    Discard,
    /// Finish the buffers taken, send their notifications, take no more, then call
    /// [`suspend_done`](crate::Transport::suspend_done) (VIRTIO 1.4 §3.4.2).
    Suspend,
    /// Run again after a suspend, then call [`resume_done`](crate::Transport::resume_done).
    Resume,
    /// Stop one queue, forget its position, then call [`queue_reset_done`](crate::Transport::queue_reset_done).
    ResetQueue {
        /// Index of the queue.
        queue: u16,
    },
    /// The driver enabled a queue again on a running device (VIRTIO 1.4 §2.6.1).
    StartQueue {
        /// Index of the queue.
        queue: u16,
    },
    /// The driver wrote the device-specific configuration.
    DeviceConfigWrite {
        /// Offset in bytes.
        offset: u16,
        /// Bytes written, 1 to 8.
        width: u8,
        /// The bytes, little-endian.
        value: u64,
    },
    /// Interrupts wait to be sent: take them with [`next_interrupt`](crate::VirtioPciFunction::next_interrupt).
    Interrupt,
    /// Drive the INTx line to this level.
    Intx(bool),
}

/// Most effects of one access, that is of a write of configuration space: it sizes a BAR after a function reset, or begins
/// to negotiate where none slept (a reset, or what it leaves goes), takes or gives power and bus (two), and sets DRIVER_OK
/// through the window (two). Effects are returned by value, so that there are no more of them matters.
const MAX_ACCESS_EFFECTS: usize = 1 + 2 + 2;

/// Room kept for what announces interrupts at the end of every access: INTx and messages.
const MAX_ANNOUNCEMENTS: usize = 2;

const MAX_EFFECTS: usize = MAX_ACCESS_EFFECTS + MAX_ANNOUNCEMENTS;

/// The effects of one access, event or answer, in order.
///
/// Answers have effects of their own, and not only interrupts:
/// [`resume_done`](crate::VirtioPciFunction::resume_done) asks for a [`Kick`](Effect::Kick). Answer once all the effects
/// of the access are carried out, or a level of INTx comes too late. Where unused results are denied, effects that nobody
/// looks at do not build:
///
/// ```compile_fail
/// #![deny(unused_must_use)]
/// fn resumed(function: &mut virtio_pci_freeze::VirtioPciFunction) {
///     function.resume_done(true);
/// }
/// ```
///
/// There is room for what one access can ask for, and nothing is allocated. What finds no room all the same is lost, and
/// said to be ([`is_incomplete`](Self::is_incomplete)): the device has then missed a command and needs a reset. A
/// [`VirtioPciFunction`](crate::VirtioPciFunction) declares that itself; a front end of one's own, which lends one list to
/// the calls of one access, has to.
#[must_use = "an effect that nobody carries out is a lost command"]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    list: ArrayVec<Effect, MAX_EFFECTS>,
    incomplete: bool,
}

impl Effects {
    /// No effect.
    pub fn none() -> Self {
        Self::default()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether an effect found no room.
    pub fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// The effects in order.
    pub fn iter(&self) -> Iter<'_, Effect> {
        self.list.iter()
    }

    /// One more, where the announcements keep their room.
    pub(crate) fn push(&mut self, effect: Effect) {
        if self.list.len() < MAX_ACCESS_EFFECTS {
            self.announce(effect);
        } else {
            self.incomplete = true;
        }
    }

    /// One more that announces interrupts: at most [`MAX_ANNOUNCEMENTS`] an access.
    pub(crate) fn announce(&mut self, effect: Effect) {
        self.incomplete |= self.list.try_push(effect).is_err();
    }
}

impl IntoIterator for Effects {
    type Item = Effect;
    type IntoIter = arrayvec::IntoIter<Effect, MAX_EFFECTS>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_effect_without_room_is_said_to_be_lost_and_interrupts_keep_theirs() {
        let mut effects = Effects::none();
        for _ in 0..MAX_ACCESS_EFFECTS {
            effects.push(Effect::Kick);
            assert!(!effects.is_incomplete());
        }
        effects.push(Effect::Pause);
        assert!(effects.is_incomplete());
        effects.announce(Effect::Intx(true));
        effects.announce(Effect::Interrupt);
        let last = effects.into_iter().skip(MAX_ACCESS_EFFECTS);
        assert!(last.eq([Effect::Intx(true), Effect::Interrupt]));
    }
}
