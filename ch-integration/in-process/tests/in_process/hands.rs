// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guest memory that changes hands over a frozen reset, as when a kernel comes back from hibernation.

use virtio_gpu_s3::protocol::ResponseType;
use virtio_gpu_worker::{EventKind, State};
use virtio_pci_freeze::{ActivationKind, RingPosition};

use crate::vmm::{RAM_BASE, RAM_SIZE, Vmm, type_of, wait_until};

/// The control queue's rings.
const DESCRIPTORS: u64 = RAM_BASE;
const AVAILABLE: u64 = RAM_BASE + 0x1000;
const USED: u64 = RAM_BASE + 0x2000;
/// Where the cursor queue's start.
const CURSOR: u64 = 0x4000;

/// A driver that has drawn, asleep.
fn asleep() -> (Vmm, [RingPosition; 2]) {
    let mut vmm = Vmm::running();
    vmm.show(1);
    let positions = vmm.gpu.reset_frozen().unwrap();
    (vmm, positions)
}

/// Has the parked queues given back after `change`, which must be noticed for this reason, and nothing written.
fn must_be_noticed(reason: &str, change: impl FnOnce(&mut Vmm, [RingPosition; 2])) {
    let (mut vmm, positions) = asleep();
    let events = vmm.gpu.subscribe();
    change(&mut vmm, positions);
    let before = vmm.whole();
    vmm.activate(ActivationKind::Reinstated, positions);
    let state = |vmm: &Vmm| vmm.gpu.status().unwrap().state;
    wait_until(reason, || state(&vmm) == State::NeedsReset);
    vmm.ring(0);
    vmm.ring(1);
    let status = vmm.gpu.status().unwrap();
    assert_eq!((status.resources, status.host_bytes), (0, 0), "{reason}");
    assert!(vmm.whole() == before, "{reason}: guest memory was written");
    let reasons = vmm.interrupts.reasons.lock().unwrap().clone();
    let expected = format!("guest memory changed hands: {reason}");
    assert_eq!(reasons, [expected.as_str()]);
    // The event of the reset before may come late.
    let is_reset = |kind: &EventKind| matches!(kind, EventKind::FrozenReset { .. });
    let told = events.try_iter().map(|event| event.kind);
    let told: Vec<_> = told.filter(|kind| !is_reset(kind)).collect();
    assert_eq!(told, [EventKind::NeedsReset { reason: expected }]);
    // Nothing is retained for whoever resets it now.
    assert_eq!(vmm.gpu.reset_frozen(), None);
    vmm.start_driver();
    let picture = vmm.show(2);
    vmm.must_show(&picture);
}

#[test]
fn parked_queues_are_not_given_back_in_memory_that_is_something_elses() {
    must_be_noticed("queue 0: the used index is 0, and was 5", |vmm, _| {
        vmm.write(RAM_BASE, &vec![0; RAM_SIZE as usize]);
    });
    must_be_noticed("queue 0: the used index is 24672, and was 5", |vmm, _| {
        vmm.write(RAM_BASE, &vec![0x60; RAM_SIZE as usize]);
    });
}

#[test]
fn parked_queues_are_not_given_back_to_a_kernel_whose_own_stand_in_their_place_elsewhere() {
    must_be_noticed(
        "queue 0: the used index is 6, and was 5",
        |vmm, positions| {
            let ahead = positions[0].next_used + 1;
            vmm.write(USED + 2, &ahead.to_le_bytes());
            vmm.write(AVAILABLE + 2, &ahead.to_le_bytes());
        },
    );
    let entry = "queue 0: entry 2 of the used ring is not what was written there";
    must_be_noticed(entry, |vmm, _| vmm.write(USED + 4 + 2 * 8 + 4, &[23]));
}

#[test]
fn parked_queues_are_not_given_back_where_what_is_offered_makes_no_sense() {
    must_be_noticed(
        "queue 0: 17 buffers are offered, and it has room for 16",
        |vmm, positions| vmm.publish(0, positions[0].next_avail + 17),
    );
    must_be_noticed(
        "queue 0: the buffer 0 that is offered is not in guest memory",
        |vmm, _| {
            vmm.offer_question();
            vmm.write(DESCRIPTORS, &(RAM_BASE + RAM_SIZE).to_le_bytes());
        },
    );
    must_be_noticed(
        "queue 0: the buffer 16 that is offered is not in guest memory",
        |vmm, positions| {
            vmm.offer_question();
            let place = u64::from(positions[0].next_avail % 16);
            vmm.write(AVAILABLE + 4 + place * 2, &[16, 0]);
        },
    );
}

#[test]
fn a_word_against_one_queue_is_one_against_all() {
    must_be_noticed("queue 1: the used index is 1, and was 0", |vmm, _| {
        vmm.write(USED + CURSOR + 2, &[1, 0]);
    });
}

#[test]
fn a_queue_that_was_never_used_proves_nothing() {
    let mut vmm = Vmm::running();
    let positions = vmm.gpu.reset_frozen().unwrap();
    vmm.activate(ActivationKind::Reinstated, positions);
    let state = |vmm: &Vmm| vmm.gpu.status().unwrap().state;
    wait_until("the doubt", || state(&vmm) == State::NeedsReset);
    let reasons = vmm.interrupts.reasons.lock().unwrap().clone();
    assert!(reasons[0].ends_with("no buffer was used yet that could show it"));
}

/// All that a living driver may do meanwhile: take answers in, offer more, rewrite descriptors that are its own.
#[test]
fn what_a_driver_does_to_its_rings_while_the_device_is_away_is_no_sign_of_another() {
    let (mut vmm, positions) = asleep();
    vmm.write(DESCRIPTORS, &[0xff; 256]);
    vmm.write(AVAILABLE, &[1, 0]);
    vmm.offer_question();
    let before = vmm.used(0);
    vmm.activate(ActivationKind::Reinstated, positions);
    wait_until("the answer", || vmm.used(0) != before);
    assert_eq!(type_of(&vmm.answer()), ResponseType(0x1101));
    let picture = vmm.draw(2);
    vmm.must_show(&picture);
    assert!(vmm.interrupts.reasons.lock().unwrap().is_empty());
}

/// A ring of 16 that has gone round: each entry is known, and one that changed is found wherever it is.
#[test]
fn every_entry_of_a_used_ring_that_has_gone_round_is_looked_at() {
    for place in [0, 7, 15] {
        let mut vmm = Vmm::running();
        vmm.show(1);
        (0..30).for_each(|seed| drop(vmm.draw(seed)));
        let positions = vmm.gpu.reset_frozen().unwrap();
        vmm.write(USED + 4 + place * 8, &[9]);
        vmm.activate(ActivationKind::Reinstated, positions);
        let state = |vmm: &Vmm| vmm.gpu.status().unwrap().state;
        wait_until("the doubt", || state(&vmm) == State::NeedsReset);
    }
}
