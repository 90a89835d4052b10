// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Faults in guest memory, each in a process of its own: what is not contained ends it.

mod common;

use std::env::{current_exe, var_os};
use std::fs::read_to_string;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

use common::*;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::{pread, pwrite};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{Bytes, FileOffset, GuestAddress, MmapRegion, VolatileMemory};

/// Runs a test of this program again, in a process of its own. Returns nothing in there.
fn in_a_child(test: &str) -> Option<Output> {
    const CHILD: &str = "VFIO_USER_DEVICE_CHILD";
    if var_os(CHILD).is_some() {
        return None;
    }
    let mut child = Command::new(current_exe().unwrap());
    child.args(["--exact", test, "--nocapture"]).env(CHILD, "1");
    Some(child.output().unwrap())
}

fn assert_success(output: &Output) {
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_memory_file_that_is_cut_short_ends_its_own_connection() {
    let name = "a_memory_file_that_is_cut_short_ends_its_own_connection";
    if let Some(output) = in_a_child(name) {
        return assert_success(&output);
    }
    let server = Server::start();
    let mut client = server.admitted();
    let (cut, whole) = (memfd(16 * PAGE), memfd(PAGE));
    client.map(3, 0, 0x10_0000, 16 * PAGE, Some(&cut)).unwrap();
    client.map(3, 0, 0x20_0000, PAGE, Some(&whole)).unwrap();
    let memory = server.seen.memory.lock().unwrap().clone();
    memory
        .write_slice(&[7; 65536], GuestAddress(0x10_0000))
        .unwrap();
    memory
        .write_slice(&[7; 4096], GuestAddress(0x20_0000))
        .unwrap();
    ftruncate(&cut, PAGE).unwrap();
    let mut byte = [9];
    memory
        .read_slice(&mut byte, GuestAddress(0x10_f000))
        .unwrap();
    assert_eq!(byte, [0], "zeros, where the file has ended");
    memory.write_slice(&[1], GuestAddress(0x10_8000)).unwrap();
    memory
        .read_slice(&mut byte, GuestAddress(0x20_0000))
        .unwrap();
    assert_eq!(byte, [7], "the other map stays");
    drop(memory);
    client.ends();
    wait_until("the end of the connection", || {
        server.seen.connections() == (1, 1)
    });
    let mut next = server.admitted();
    next.map(3, 0, 0x10_0000, PAGE, Some(&whole)).unwrap();
    let memory = server.seen.memory.lock().unwrap().clone();
    memory
        .read_slice(&mut byte, GuestAddress(0x10_0000))
        .unwrap();
    assert_eq!(byte, [7]);
    assert!(next.is_served());
}

#[test]
fn huge_pages_that_are_not_there_end_their_own_connection() {
    let name = "huge_pages_that_are_not_there_end_their_own_connection";
    if let Some(output) = in_a_child(name) {
        return assert_success(&output);
    }
    const HUGE: u64 = 2 << 20;
    let server = Server::start();
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
    let file = memfd_create("huge", flags).unwrap();
    // One more than the machine has, so that one of them is not there.
    let there = read_to_string("/proc/sys/vm/nr_hugepages").unwrap();
    let pages = there.trim().parse::<u64>().unwrap() + 2;
    ftruncate(&file, pages * HUGE).unwrap();
    let mut client = server.admitted();
    // As QEMU maps its RAM: parts of a page, and one that begins within a page.
    client.map(3, 0, 0, 0xc_0000, Some(&file)).unwrap();
    client
        .map(
            3,
            0x10_0000,
            0x10_0000,
            pages * HUGE - 0x10_0000,
            Some(&file),
        )
        .unwrap();
    let memory = server.seen.memory.lock().unwrap().clone();
    let mut byte = [9];
    for page in (0..pages).rev() {
        let address = GuestAddress((page * HUGE).max(0x10_0000));
        memory.read_slice(&mut byte, address).unwrap();
        memory.write_slice(&[1], address).unwrap();
    }
    client.ends();
    drop(memory);
    wait_until("the end of the connection", || {
        server.seen.connections() == (1, 1)
    });
    assert!(server.admitted().is_served());
}

#[test]
fn a_write_to_memory_that_is_read_only_ends_its_own_connection() {
    let name = "a_write_to_memory_that_is_read_only_ends_its_own_connection";
    if let Some(output) = in_a_child(name) {
        return assert_success(&output);
    }
    let server = Server::start();
    let mut client = server.admitted();
    let file = memfd(2 * PAGE);
    pwrite(&file, b"rom", 0).unwrap();
    client
        .map(READABLE, 0, 0x10_0000, 2 * PAGE, Some(&file))
        .unwrap();
    let memory = server.seen.memory.lock().unwrap().clone();
    let mut bytes = [0; 3];
    memory
        .read_slice(&mut bytes, GuestAddress(0x10_0000))
        .unwrap();
    assert_eq!(&bytes, b"rom");
    assert!(client.is_served());
    memory.write_slice(b"xyz", GuestAddress(0x10_0000)).unwrap();
    pread(&file, &mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"rom", "the file is not written to");
    client.ends();
}

#[test]
fn memory_that_was_taken_away_is_guarded_as_long_as_the_device_has_it() {
    let name = "memory_that_was_taken_away_is_guarded_as_long_as_the_device_has_it";
    if let Some(output) = in_a_child(name) {
        return assert_success(&output);
    }
    let server = Server::start();
    let mut client = server.admitted();
    let file = memfd(PAGE);
    client.map(3, 0, 0, PAGE, Some(&file)).unwrap();
    let memory = server.seen.memory.lock().unwrap().clone();
    client.unmap(0, 0, PAGE).unwrap();
    ftruncate(&file, 0).unwrap();
    memory.write_slice(&[1], GuestAddress(0)).unwrap();
    client.ends();
}

#[test]
fn a_fault_that_is_none_of_ours_still_ends_the_process() {
    let name = "a_fault_that_is_none_of_ours_still_ends_the_process";
    if let Some(output) = in_a_child(name) {
        let sigbus = 7;
        assert_eq!(output.status.signal(), Some(sigbus), "{output:?}");
        return;
    }
    let server = Server::start();
    let mut client = server.admitted();
    let file = memfd(PAGE);
    // The handlers are there from the first map on.
    client.map(3, 0, 0, PAGE, Some(&file)).unwrap();
    let other = memfd(PAGE);
    let region = MmapRegionBuilder::new(4096)
        .with_file_offset(FileOffset::new(other.try_clone().unwrap().into(), 0))
        .with_mmap_prot(3)
        .with_mmap_flags(1)
        .build();
    let region: MmapRegion = region.unwrap();
    ftruncate(&other, 0).unwrap();
    region.get_slice(0, 1).unwrap().read_obj::<u8>(0).unwrap();
    unreachable!();
}
