// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a map costs, in bytes that are allocated for it: a figure that does not depend on what else the machine does.

#![expect(unsafe_code, reason = "an allocator that counts")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use common::*;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

struct Counting;

static ALLOCATED: AtomicU64 = AtomicU64::new(0);

// SAFETY: All that is asked is asked of the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: As the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: As the caller promised.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn the_ten_thousandth_map_costs_what_the_first_ones_did() {
    let server = Server::start();
    let mut client = server.admitted();
    let file = memfd(PAGE);
    let mut hundred = |at: u64| {
        let (start, before) = (Instant::now(), ALLOCATED.load(Ordering::Relaxed));
        for page in 0..100 {
            let address = (at * 100 + page) * 2 * PAGE;
            client.map(3, 0, address, PAGE, Some(&file)).unwrap();
        }
        let bytes = ALLOCATED.load(Ordering::Relaxed) - before;
        (bytes / 100, start.elapsed() / 100)
    };
    let files = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = files();
    let costs: Vec<_> = (0..100).map(&mut hundred).collect();
    assert!(files() < before + 16, "a file a map: {}", files());
    let (early, late) = (costs[1], costs[99]);
    println!("the second hundred: {early:?} each, the last of 10 000: {late:?} each");
    // The one grows with the logarithm. A copied list would be 80 000 bytes by then.
    assert!(late.0 < early.0 * 3, "{early:?}, {late:?}");

    let memory = server.seen.memory.lock().unwrap().clone();
    assert_eq!(memory.num_regions(), 10_000);
    for page in [0u64, 1234, 9999] {
        let start = page * 2 * PAGE;
        let region = memory.find_region(GuestAddress(start + PAGE - 1)).unwrap();
        assert_eq!(region.start_addr(), GuestAddress(start));
        assert!(memory.find_region(GuestAddress(start + PAGE)).is_none());
    }
    drop(memory);
    client.unmap(UNMAP_ALL, 0, 0).unwrap();
    assert_eq!(server.seen.memory.lock().unwrap().num_regions(), 0);
}
