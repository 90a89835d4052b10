// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! No access of a guest allocates: what a guest can do often costs the host no memory and no lock.

#![expect(
    unsafe_code,
    reason = "a counting allocator is an unsafe trait's implementation"
)]

use std::alloc::{GlobalAlloc, Layout as Memory, System};
use std::cell::Cell;

use virtio_pci_freeze::spec::feature;
use virtio_pci_freeze::test_utils::{function_config, retention, transport_config};
use virtio_pci_freeze::{
    BarLayout, CONFIG_SPACE_SIZE, Effect, Effects, Layout, ResetOutcome, RingPosition,
    VirtioPciFunction,
};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

fn count() {
    // A thread that is ending has no counter any more, and makes no access either.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, memory: Memory) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(memory) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, memory: Memory) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, memory) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, memory: Memory, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, memory, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations_of(f: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    f();
    ALLOCATIONS.get() - before
}

fn function() -> VirtioPciFunction {
    let mut transport = transport_config(Layout::Tail, retention(false));
    transport.queue_sizes = vec![64; 64];
    transport.device_features |=
        feature::mask(feature::VIRTIO_F_RING_RESET) | feature::mask(feature::VIRTIO_F_SUSPEND);
    VirtioPciFunction::new(function_config(transport)).expect("valid")
}

fn drop_effects(effects: Effects) {
    for effect in effects {
        assert!(!matches!(effect, Effect::Intx(true)), "not with MSI-X");
    }
}

/// Every access of every width at every offset of every structure, which is also every status write.
fn access_everything(function: &mut VirtioPciFunction) {
    let ends = [(BarLayout::VIRTIO, 0x4000), (BarLayout::MSIX, 0x2000)];
    for width in [1usize, 2, 4, 8] {
        for (bar, end) in ends {
            for offset in (0..end).step_by(2) {
                let mut data = [0; 8];
                let data = &mut data[..width];
                drop_effects(function.read_bar(bar, offset, data));
                drop_effects(function.write_bar(bar, offset, data));
            }
        }
        for offset in 0..256u16 {
            let mut data = [0; 8];
            let data = &mut data[..width];
            drop_effects(function.read_config(offset, data));
            drop_effects(function.write_config(offset, data));
        }
    }
    let mut space = [0; CONFIG_SPACE_SIZE];
    drop_effects(function.read_config(0, &mut space));
}

fn write_status(function: &mut VirtioPciFunction, status: u8) {
    for effect in function.write_bar(BarLayout::VIRTIO, 20, &[status]) {
        if let Effect::Suspend = effect {
            drop_effects(function.suspend_done(true));
        } else if let Effect::Resume = effect {
            drop_effects(function.resume_done(true));
        }
    }
}

/// Takes every feature that is offered.
fn negotiate(function: &mut VirtioPciFunction) {
    write_status(function, 1);
    write_status(function, 3);
    for select in [0u32, 1] {
        let mut features = [0; 4];
        drop_effects(function.write_bar(BarLayout::VIRTIO, 0, &select.to_le_bytes()));
        drop_effects(function.read_bar(BarLayout::VIRTIO, 4, &mut features));
        drop_effects(function.write_bar(BarLayout::VIRTIO, 8, &select.to_le_bytes()));
        drop_effects(function.write_bar(BarLayout::VIRTIO, 12, &features));
    }
    write_status(function, 0xb);
}

/// Negotiates everything, sets up 64 queues, runs, rings, is told, suspends and resumes.
fn drive(function: &mut VirtioPciFunction) {
    negotiate(function);
    for queue in 0..64u16 {
        drop_effects(function.write_bar(BarLayout::VIRTIO, 22, &queue.to_le_bytes()));
        drop_effects(function.write_bar(BarLayout::VIRTIO, 28, &[1, 0]));
    }
    write_status(function, 0xf);
    assert_eq!(function.transport().status().0, 0xf);
    for queue in 0..64u16 {
        let at = 0x3000 + u64::from(queue) * 4;
        drop_effects(function.write_bar(BarLayout::VIRTIO, at, &queue.to_le_bytes()));
        drop_effects(function.queue_used(queue));
        while function.next_interrupt().is_some() {}
    }
    write_status(function, 0x1f);
    assert_eq!(function.transport().status().0, 0x1b);
    write_status(function, 0x1f);
    assert_eq!(function.transport().status().0, 0xf);
}

#[test]
fn no_access_allocates() {
    let mut function = function();
    drop_effects(function.write_config(4, &[6, 4]));
    let allocations = allocations_of(|| {
        drive(&mut function);
        access_everything(&mut function);
    });
    assert_eq!(allocations, 0);
}

#[test]
fn a_frozen_reset_allocates_once_and_reinstatement_not_at_all() {
    let mut function = function();
    drop_effects(function.write_config(4, &[6, 4]));
    drive(&mut function);
    function.platform_sleep();
    let effects = function.write_bar(BarLayout::VIRTIO, 20, &[0]);
    let Some(Effect::Reset { ticket, .. }) = effects.into_iter().next() else {
        panic!("no reset");
    };
    let positions = [RingPosition::default(); 64];
    let parking = allocations_of(|| {
        drop_effects(function.reset_done(ticket, ResetOutcome::Done(&positions)));
    });
    assert!(
        parking <= 6,
        "the list of parked queues grows a few times: {parking}"
    );
    let reinstating = allocations_of(|| {
        negotiate(&mut function);
        write_status(&mut function, 0xf);
    });
    assert_eq!(function.transport().active_queues().count(), 64);
    assert_eq!(reinstating, 0);
}
