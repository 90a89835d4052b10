// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Doorbells, interrupts, memory and configuration space.

use std::sync::Arc;

use virtio_gpu_s3::protocol::ResponseType;
use virtio_gpu_s3_testing::request;
use virtio_gpu_worker::State;
use virtio_pci_freeze::spec::feature;
use vm_memory::bitmap::Bitmap;
use vm_memory::{
    GuestAddress, GuestAddressSpace, GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap,
};

use crate::vmm::{Memory, RAM_BASE, RAM_SIZE, Vmm, new_memory, type_of, wait_until};

#[test]
fn a_command_is_answered_with_an_interrupt_and_the_memory_is_marked_dirty() {
    let mut vmm = Vmm::running();
    let dirty = |vmm: &Vmm| {
        let guard = vmm.guard();
        let region = guard.iter().next().unwrap();
        region.bitmap().dirty_at(0x1_8000)
    };
    assert!(!dirty(&vmm));
    let answer = vmm.command(0, &request::get_display_info());
    assert_eq!(type_of(&answer), ResponseType(0x1101));
    assert_eq!(answer[32..40], [64, 0, 0, 0, 48, 0, 0, 0]);
    wait_until("the interrupt", || vmm.interrupted(0));
    assert!(!vmm.interrupted(1));
    assert!(dirty(&vmm), "a migration would lose the answer");
}

#[test]
fn the_cursor_queue_is_served_and_interrupts_on_its_own() {
    let mut vmm = Vmm::running();
    let answer = vmm.command(1, &request::update_cursor(0, 0, 0, 0, 0, 0));
    assert_eq!(type_of(&answer), ResponseType::OK_NODATA);
    wait_until("the interrupt", || vmm.interrupted(1));
    assert!(!vmm.interrupted(0));
}

#[test]
fn a_picture_is_on_the_screenshot() {
    let mut vmm = Vmm::running();
    let picture = vmm.show(1);
    vmm.must_show(&picture);
}

#[test]
fn the_transports_features_are_there_and_3d_is_not() {
    let vmm = Vmm::running();
    for wanted in [
        feature::VIRTIO_F_VERSION_1,
        feature::VIRTIO_F_EVENT_IDX,
        feature::VIRTIO_F_INDIRECT_DESC,
    ] {
        assert_ne!(vmm.gpu.features() & feature::mask(wanted), 0);
    }
    assert_eq!(vmm.gpu.features() & 1, 0, "VIRTIO_GPU_F_VIRGL");
}

#[test]
fn configuration_space_is_read_and_what_lies_outside_is_zero() {
    let vmm = Vmm::new("outputs=3", None, new_memory());
    let mut config = [0xaa; 28];
    vmm.gpu.read_config(0, &mut config);
    assert_eq!(config[8..12], [3, 0, 0, 0], "num_scanouts");
    assert_eq!(config[20..], [0; 8]);
    for offset in [19, 20, 4096, u64::MAX] {
        let mut data = [0xaa; 8];
        vmm.gpu.read_config(offset, &mut data);
        assert_eq!(data, [0; 8]);
        vmm.gpu.write_config(offset, &[0xff; 8]);
    }
    vmm.gpu.write_config(4, &[0xff; 4]);
    assert!(vmm.gpu.status().is_ok());
}

#[test]
fn a_ring_that_makes_no_sense_asks_for_a_reset_and_a_reset_cures_it() {
    let mut vmm = Vmm::running();
    vmm.publish(0, 999);
    vmm.ring(0);
    wait_until("the word of it", || {
        let reasons = vmm.interrupts.reasons.lock().unwrap();
        reasons.iter().any(|reason| reason.starts_with("queue 0"))
    });
    let state = |vmm: &Vmm| vmm.gpu.status().unwrap().state;
    assert_eq!(state(&vmm), State::NeedsReset);
    vmm.gpu.reset();
    assert_eq!(state(&vmm), State::Idle);
    vmm.start_driver();
    assert_eq!(state(&vmm), State::Running);
    let picture = vmm.show(1);
    vmm.must_show(&picture);
}

#[test]
fn a_buffer_outside_guest_memory_is_used_with_nothing_written_and_counted() {
    let mut vmm = Vmm::running();
    for address in [0, RAM_BASE - 4, RAM_BASE + RAM_SIZE - 4, u64::MAX - 3] {
        let before = vmm.used(0);
        vmm.offer(0, &request::get_display_info(), (address, 408));
        vmm.ring(0);
        wait_until("the buffer to be used", || vmm.used(0) != before);
    }
    assert_eq!(vmm.gpu.status().unwrap().counters.bad_chains, 4);
    let picture = vmm.show(1);
    vmm.must_show(&picture);
}

#[test]
fn rings_that_were_unmapped_for_a_while_are_served_again() {
    let mut vmm = Vmm::running();
    vmm.show(1);
    let whole = vmm.memory.memory();
    vmm.memory.lock().unwrap().replace(Memory::new());
    vmm.gpu.memory_changed().unwrap();
    // The worker has looked at the rings meanwhile.
    assert!(vmm.gpu.status().is_ok());
    vmm.memory.lock().unwrap().replace((*whole).clone());
    vmm.gpu.memory_changed().unwrap();
    let picture = vmm.draw(2);
    vmm.must_show(&picture);
    assert!(vmm.interrupts.reasons.lock().unwrap().is_empty());
}

#[test]
fn memory_that_the_vmm_replaced_is_let_go() {
    let mut vmm = Vmm::running();
    vmm.show(1);
    let old = Arc::downgrade(&{
        let guard = vmm.memory.memory();
        let all: Vec<_> = guard.iter().collect();
        assert_eq!(all.len(), 1);
        // A region that only the old memory has.
        let region = GuestRegionMmap::from_range(GuestAddress(0x8000_0000), 0x1000, None);
        let region = Arc::new(region.unwrap());
        let more = guard.insert_region(region.clone()).unwrap();
        drop(guard);
        vmm.memory.lock().unwrap().replace(more);
        region
    });
    vmm.gpu.memory_changed().unwrap();
    vmm.draw(2);
    let (fewer, _) = vmm
        .guard()
        .remove_region(GuestAddress(0x8000_0000), 0x1000)
        .unwrap();
    vmm.memory.lock().unwrap().replace(fewer);
    vmm.gpu.memory_changed().unwrap();
    assert_eq!(old.strong_count(), 0, "unmapped memory is held");
    let picture = vmm.draw(3);
    vmm.must_show(&picture);
}
