// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Resets, pauses, snapshots.

use std::io::Error as IoError;
use std::thread;
use std::time::Duration;

use virtio_gpu_in_process::{GpuStart, StartGpuError};
use virtio_gpu_s3::Image;
use virtio_gpu_s3::protocol::ResponseType;
use virtio_gpu_s3::saved_state::SavedGpu;
use virtio_gpu_s3_testing::request;
use virtio_gpu_worker::{EventKind, GpuOption};
use virtio_pci_freeze::ActivationKind;

use crate::vmm::{Gpu, HEIGHT, Vmm, WIDTH, new_memory, start, type_of, wait_until};

const OPTION: &str = "width=64,height=48";

#[test]
fn a_reset_destroys_every_resource_and_the_next_driver_works() {
    let mut vmm = Vmm::running();
    vmm.show(1);
    vmm.gpu.reset();
    assert_eq!(vmm.gpu.status().unwrap().resources, 0);
    vmm.must_show(&Image::black(WIDTH, HEIGHT));
    vmm.start_driver();
    let picture = vmm.show(2);
    vmm.must_show(&picture);
}

#[test]
fn a_driver_that_is_gone_is_not_served() {
    let mut vmm = Vmm::running();
    vmm.gpu.reset();
    vmm.offer_question();
    vmm.ring(0);
    thread::sleep(Duration::from_millis(50));
    assert_eq!(vmm.gpu.status().unwrap().counters.commands, 0);
    assert_eq!(vmm.used(0), 0);
}

/// A stock Linux driver: it programs no queue when it wakes, and goes on where its rings stood.
#[test]
fn a_frozen_reset_retains_the_picture_and_the_parked_rings_go_on() {
    let mut vmm = Vmm::running();
    let events = vmm.gpu.subscribe();
    let picture = vmm.show(1);
    assert!(vmm.gpu.freeze());
    let positions = vmm.gpu.reset_frozen().unwrap();
    assert_eq!(positions[0].next_avail, vmm.used(0));
    vmm.must_show(&picture);
    // The doorbell rings into the sleep.
    vmm.offer_question();
    vmm.ring(0);
    let before = positions[0].next_used;
    thread::sleep(Duration::from_millis(50));
    assert_eq!(vmm.used(0), before);
    vmm.activate(ActivationKind::Reinstated, positions);
    wait_until("the answer", || vmm.used(0) == before.wrapping_add(1));
    vmm.gpu.unfreeze();
    let next = vmm.draw(2);
    vmm.must_show(&next);
    let kinds: Vec<EventKind> = events.try_iter().map(|event| event.kind).collect();
    assert!(matches!(
        kinds[..],
        [
            EventKind::Freeze,
            EventKind::FrozenReset { resources: 1, .. },
            EventKind::Reinstated { resources: 1, .. },
            EventKind::Unfreeze
        ]
    ));
}

/// A driver with sleep hooks: it makes its queues anew.
#[test]
fn a_frozen_reset_retains_the_picture_for_a_driver_with_new_queues() {
    let mut vmm = Vmm::running();
    let picture = vmm.show(1);
    vmm.gpu.reset_frozen().unwrap();
    vmm.start_driver_as(ActivationKind::Retained);
    vmm.must_show(&picture);
    let next = vmm.draw(2);
    vmm.must_show(&next);
}

/// A guest that rebooted while the VMM thought it asleep.
#[test]
fn a_retained_id_can_be_made_anew() {
    let mut vmm = Vmm::running();
    vmm.show(1);
    vmm.gpu.reset_frozen().unwrap();
    vmm.start_driver_as(ActivationKind::Retained);
    let picture = vmm.show(2);
    vmm.must_show(&picture);
}

#[test]
fn a_paused_gpu_touches_nothing_and_a_doorbell_meanwhile_is_not_lost() {
    let mut vmm = Vmm::running();
    let picture = vmm.show(1);
    vmm.gpu.pause().unwrap();
    let before = vmm.used(0);
    vmm.offer_question();
    vmm.ring(0);
    thread::sleep(Duration::from_millis(50));
    assert_eq!(vmm.used(0), before);
    vmm.must_show(&picture);
    vmm.gpu.resume();
    wait_until("the answer", || vmm.used(0) != before);
}

#[test]
fn a_pause_without_a_driver_and_a_second_one_do_no_harm() {
    let mut vmm = Vmm::new(OPTION, None, new_memory());
    vmm.gpu.pause().unwrap();
    vmm.gpu.pause().unwrap();
    vmm.gpu.resume();
    vmm.start_driver();
    let picture = vmm.show(1);
    vmm.must_show(&picture);
}

#[test]
fn a_snapshot_goes_on_in_another_gpu_with_its_picture_and_the_doorbell_it_missed() {
    let mut vmm = Vmm::running();
    let picture = vmm.show(1);
    vmm.gpu.pause().unwrap();
    vmm.offer_question();
    let json = serde_json::to_string(&vmm.gpu.save().unwrap()).unwrap();
    let memory = (*vmm.guard()).clone();
    let used = vmm.used(0);
    let positions = [vmm.position(0), vmm.position(1)];
    drop(vmm);

    let saved: SavedGpu = serde_json::from_str(&json).unwrap();
    let mut vmm = Vmm::new(OPTION, Some(saved), memory);
    vmm.must_show(&picture);
    vmm.activate(ActivationKind::Fresh, positions);
    thread::sleep(Duration::from_millis(50));
    assert_eq!(vmm.used(0), used, "a restored GPU is paused");
    vmm.gpu.resume();
    wait_until("the answer", || vmm.used(0) != used);
    assert_eq!(type_of(&vmm.answer()), ResponseType(0x1101));
    vmm.publish(0, used.wrapping_add(1));
    let next = vmm.draw(2);
    vmm.must_show(&next);
}

#[test]
fn a_snapshot_of_another_gpu_is_refused_by_name() {
    let vmm = Vmm::new("outputs=2", None, new_memory());
    vmm.gpu.pause().unwrap();
    let saved = vmm.gpu.save().unwrap();
    let error = start("outputs=1", Some(saved.clone())).unwrap_err();
    let StartGpuError::Restore(why) = error else {
        panic!("{error}");
    };
    assert_eq!(why.to_string(), "the saved GPU has 2 outputs, this one 1");
    let strange = SavedGpu {
        version: 99,
        ..saved
    };
    let error = start("outputs=2", Some(strange)).unwrap_err();
    assert!(matches!(error, StartGpuError::Restore(_)));
}

#[test]
fn an_impossible_gpu_is_refused_before_it_takes_memory() {
    let mut option: GpuOption = "".parse().unwrap();
    option.outputs = u32::MAX;
    let spawn = |_| -> Result<_, IoError> { panic!("a thread is wanted") };
    let result = Gpu::start(&option, GpuStart::default(), spawn);
    assert!(matches!(result, Err(StartGpuError::Option(_))));
}

/// Ids of a rebooted guest must not meet those of the one before: 100 guests in turn.
#[test]
fn many_drivers_in_turn_leave_nothing_behind() {
    let mut vmm = Vmm::running();
    for seed in 0..100 {
        vmm.show(seed);
        vmm.gpu.reset();
        vmm.start_driver();
    }
    let status = vmm.gpu.status().unwrap();
    assert_eq!((status.resources, status.host_bytes), (0, 0));
    assert_eq!(status.counters.transport.full_resets, 100);
    assert_eq!(
        type_of(&vmm.command(0, &request::resource_unref(1))),
        ResponseType(0x1203)
    );
}
