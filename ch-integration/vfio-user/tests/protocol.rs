// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a VMM that keeps to the protocol gets.

mod common;

use std::fs::File;
use std::io::pipe;
use std::os::fd::{AsFd, AsRawFd};

use common::*;
use rustix::io::{Errno, pread, write};
use vfio_user_device::IrqChange;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

const EINVAL: i32 = Errno::INVAL.raw_os_error();
const INTX: u32 = 0;
const MSIX: u32 = 2;
// Of Linux's vfio.h: VFIO_IRQ_SET_DATA_* and VFIO_IRQ_SET_ACTION_*.
const NONE: u32 = 1;
const BOOL: u32 = 2;
const EVENTFD: u32 = 4;
const MASK: u32 = 8;
const UNMASK: u32 = 16;
const TRIGGER: u32 = 32;

#[test]
fn version_says_what_the_server_takes() {
    let server = Server::start();
    let reply = server.connect().version().unwrap();
    assert_eq!(&reply[..4], &[0, 0, 1, 0]);
    let json = str::from_utf8(&reply[4..]).unwrap();
    let expected = r#"{"capabilities":{"max_msg_fds":16,"max_data_xfer_size":1048576,"max_dma_maps":32768,"pgsizes":4096,"migration":{"pgsize":4096}}}"#;
    assert_eq!(json.strip_suffix('\0'), Some(expected));
    let no_data = server.connect().request(VERSION, &[0, 0, 1, 0]);
    assert!(no_data.is_ok());
}

#[test]
fn the_minor_version_is_none_that_the_client_has_not_proposed() {
    let server = Server::start();
    // QEMU proposes 0.0 and refuses more.
    for (proposed, agreed) in [(0, 0), (1, 1), (9, 1)] {
        let reply = server.connect().request(VERSION, &[0, 0, proposed, 0]);
        assert_eq!(reply.unwrap()[..4], [0, 0, agreed, 0]);
    }
}

#[test]
fn the_device_is_described() {
    let server = Server::start();
    let mut client = server.admitted();
    let info = client.request(GET_INFO, &fields(&[16, 0, 0, 0], &[]));
    assert_eq!(
        info,
        Ok(fields(&[16, 3, 9, 3], &[])),
        "PCI, and it can be reset"
    );
    let mut region = |index| client.request(GET_REGION_INFO, &fields(&[32, 0, index, 0], &[0, 0]));
    assert_eq!(region(0), Ok(fields(&[32, 3, 0, 0], &[0x4000, 0])));
    assert_eq!(region(7), Ok(fields(&[32, 3, 7, 0], &[256, 0])));
    assert_eq!(region(3), Ok(fields(&[32, 0, 3, 0], &[0, 0])));
    assert_eq!(region(9), Err(EINVAL));
    let mut irq = |index| client.request(GET_IRQ_INFO, &fields(&[16, 0, index, 0], &[]));
    assert_eq!(irq(INTX), Ok(fields(&[16, 7, INTX, 1], &[])), "automasked");
    assert_eq!(irq(1), Ok(fields(&[16, 9, 1, 0], &[])));
    assert_eq!(irq(MSIX), Ok(fields(&[16, 9, MSIX, 3], &[])));
    assert_eq!(irq(3), Err(EINVAL), "no error interrupt");
    let too_little_room = client.request(GET_REGION_INFO, &fields(&[31, 0, 0, 0], &[0, 0]));
    assert_eq!(too_little_room, Err(EINVAL));
}

#[test]
fn regions_are_read_and_written() {
    let server = Server::start();
    let mut client = server.admitted();
    let mut body = access(0, 0x10, 4);
    body.extend([1, 2, 3, 4]);
    assert_eq!(client.request(REGION_WRITE, &body), Ok(access(0, 0x10, 4)));
    let mut expected = access(0, 0x10, 4);
    expected.extend([1, 2, 3, 4]);
    assert_eq!(
        client.request(REGION_READ, &access(0, 0x10, 4)),
        Ok(expected)
    );
    assert_eq!(client.request(RESET, &[]), Ok(vec![]));
}

#[test]
fn a_client_gets_no_more_data_than_it_takes() {
    let server = Server::start();
    let mut client = server.connect();
    let version = b"\0\0\x01\0{\"capabilities\":{\"max_data_xfer_size\":64}}\0";
    client.request(VERSION, version).unwrap();
    assert!(client.request(REGION_READ, &access(0, 0, 64)).is_ok());
    assert_eq!(client.request(REGION_READ, &access(0, 0, 65)), Err(EINVAL));
}

#[test]
fn a_request_without_a_reply_gets_none_and_is_done_before_the_next() {
    let server = Server::start();
    let mut client = server.admitted();
    let mut body = access(0, 0, 2);
    body.extend([7, 8]);
    client.post(REGION_WRITE, NO_REPLY, &body, &[]);
    client.post(99, NO_REPLY, &[], &[]);
    client.post(REGION_READ, NO_REPLY, &access(0, 0, 2), &[]);
    let reply = client.request(REGION_READ, &access(0, 0, 2)).unwrap();
    assert_eq!(reply[16..], [7, 8]);
}

#[test]
fn requests_are_answered_while_an_earlier_one_waits() {
    let server = Server::start();
    let mut client = server.admitted();
    let mut body = access(0, SLOW, 1);
    body.push(1);
    let slow = client.post(REGION_WRITE, 0, &body, &[]);
    assert!(client.is_served());
    wait_until("the slow one", || answer_slow(&server.seen) == 1);
    let (id, _, reply) = client.reply().unwrap();
    assert_eq!((id, reply), (slow, Ok(access(0, SLOW, 1))));
}

#[test]
fn a_request_that_the_device_drops_is_answered_with_an_error() {
    let server = Server::start();
    let mut client = server.admitted();
    let mut body = access(0, SLOW, 1);
    body.push(1);
    client.post(REGION_WRITE, 0, &body, &[]);
    wait_until("the request", || {
        !server.seen.slow.lock().unwrap().is_empty()
    });
    server.seen.slow.lock().unwrap().clear();
    assert_eq!(client.reply().unwrap().2, Err(Errno::IO.raw_os_error()));
}

#[test]
fn guest_memory_is_shared_and_taken_away() {
    let server = Server::start();
    let mut client = server.admitted();
    let file = memfd(4 * PAGE);
    client
        .map(READABLE | WRITEABLE, PAGE, 0x10_0000, 2 * PAGE, Some(&file))
        .unwrap();
    let memory = server.seen.memory.lock().unwrap().clone();
    memory.write_slice(b"abc", GuestAddress(0x10_0ffe)).unwrap();
    let mut bytes = [0; 3];
    pread(&file, &mut bytes, PAGE + 0xffe).unwrap();
    assert_eq!(&bytes, b"abc");
    assert!(memory.find_region(GuestAddress(0xf_ffff)).is_none());
    assert!(memory.find_region(GuestAddress(0x10_2000)).is_none());
    assert_eq!(memory.num_regions(), 1);
    client.unmap(0, 0x10_0000, 2 * PAGE).unwrap();
    assert_eq!(server.seen.memory.lock().unwrap().num_regions(), 0);
    // Who still has the old value may go on with it.
    memory
        .read_slice(&mut bytes, GuestAddress(0x10_0ffe))
        .unwrap();
    assert_eq!(&bytes, b"abc");
}

#[test]
fn a_map_that_makes_no_sense_is_refused_and_the_others_stay() {
    let server = Server::start();
    let mut client = server.admitted();
    let file = memfd(16 * PAGE);
    let both = READABLE | WRITEABLE;
    client
        .map(both, 0, 0x10_0000, 4 * PAGE, Some(&file))
        .unwrap();
    let exists = Err(Errno::EXIST.raw_os_error());
    for (address, pages) in [
        (0x10_0000, 4),
        (0x10_3000, 1),
        (0xf_f000, 2),
        (0xf_0000, 100),
    ] {
        assert_eq!(
            client.map(both, 0, address, pages * PAGE, Some(&file)),
            exists
        );
    }
    for (offset, address, size) in [
        (0, 0x20_0001, PAGE),
        (1, 0x20_0000, PAGE),
        (0, 0x20_0000, 1),
        (0, 0x20_0000, 0),
        (0, u64::MAX - PAGE + 1, PAGE),
        (0, u64::MAX - PAGE + 1, 2 * PAGE),
    ] {
        assert_eq!(
            client.map(both, offset, address, size, Some(&file)),
            Err(EINVAL)
        );
    }
    assert_eq!(client.map(0, 0, 0x20_0000, PAGE, Some(&file)), Err(EINVAL));
    assert_eq!(client.map(7, 0, 0x20_0000, PAGE, Some(&file)), Err(EINVAL));
    let too_short = Err(Errno::NXIO.raw_os_error());
    for (offset, size) in [
        (0, 17 * PAGE),
        (16 * PAGE, PAGE),
        (1 << 62, PAGE),
        (!0xfff, PAGE),
    ] {
        assert_eq!(
            client.map(both, offset, 0x20_0000, size, Some(&file)),
            too_short
        );
    }
    let no_memory = Err(Errno::NODEV.raw_os_error());
    let (pipe, _writer) = pipe().unwrap();
    let process = File::open("/proc/self/status").unwrap();
    for file in [plain_eventfd(), pipe.into(), process.into()] {
        let mapped = client.map(both, 0, 0x20_0000, PAGE, Some(&file));
        assert_eq!(mapped, no_memory);
    }
    assert_eq!(server.seen.memory.lock().unwrap().num_regions(), 1);
    client.map(both, 0, 0x10_4000, PAGE, Some(&file)).unwrap();
    client.map(both, 0, 0xf_f000, PAGE, Some(&file)).unwrap();
    let memory = server.seen.memory.lock().unwrap().clone();
    memory
        .write_slice(&[1; 24576], GuestAddress(0xf_f000))
        .unwrap();
}

#[test]
fn memory_without_a_file_is_refused_and_a_rom_without_one_is_not_the_devices() {
    let server = Server::start();
    let mut client = server.admitted();
    let bad_file = Err(Errno::BADF.raw_os_error());
    assert_eq!(client.map(READABLE | WRITEABLE, 0, 0, PAGE, None), bad_file);
    client.map(READABLE, 0, 0, PAGE, None).unwrap();
    assert_eq!(server.seen.memory.lock().unwrap().num_regions(), 0);
    let file = memfd(PAGE);
    let exists = Err(Errno::EXIST.raw_os_error());
    assert_eq!(client.map(READABLE, 0, 0, PAGE, Some(&file)), exists);
    client.unmap(0, 0, PAGE).unwrap();
    client.map(READABLE, 0, 0, PAGE, Some(&file)).unwrap();
}

#[test]
fn unmapping_takes_whole_maps_or_nothing() {
    let server = Server::start();
    let mut client = server.admitted();
    let file = memfd(16 * PAGE);
    for address in [0x10_0000, 0x10_4000, 0x20_0000] {
        client.map(3, 0, address, 4 * PAGE, Some(&file)).unwrap();
    }
    let regions = || server.seen.memory.lock().unwrap().num_regions();
    for (address, size) in [
        (0x10_0000, PAGE),
        (0x10_1000, PAGE),
        (0x10_3000, PAGE),
        (0x10_3000, 8 * PAGE),
        (0, 0x10_1000),
    ] {
        assert_eq!(
            client.unmap(0, address, size),
            Err(EINVAL),
            "{address:x} {size:x}"
        );
    }
    assert_eq!(regions(), 3);
    client.unmap(0, 0x30_0000, PAGE).unwrap();
    client.unmap(0, 0x10_0000, 8 * PAGE).unwrap();
    assert_eq!(regions(), 1);
    for (address, size) in [(0x20_0000, 0), (1, PAGE), (!0xfff, 2 * PAGE)] {
        assert_eq!(client.unmap(0, address, size), Err(EINVAL));
    }
    // The last page of the address space, and all of it but one.
    client.unmap(0, !0xfff, PAGE).unwrap();
    assert_eq!(regions(), 1);
    client.unmap(0, 0, !0xfff).unwrap();
    assert_eq!(regions(), 0);
}

#[test]
fn all_maps_are_taken_away_at_once() {
    let server = Server::start();
    let mut client = server.admitted();
    let file = memfd(PAGE);
    for page in 0..10 {
        client
            .map(3, 0, page * 2 * PAGE, PAGE, Some(&file))
            .unwrap();
    }
    assert_eq!(client.unmap(UNMAP_ALL, 0, PAGE), Err(EINVAL));
    assert_eq!(client.unmap(4, 0, PAGE), Err(EINVAL), "an unknown flag");
    assert_eq!(server.seen.memory.lock().unwrap().num_regions(), 10);
    client.unmap(UNMAP_ALL, 0, 0).unwrap();
    assert_eq!(server.seen.memory.lock().unwrap().num_regions(), 0);
}

#[test]
fn vectors_are_connected_sent_and_taken_away() {
    let server = Server::start();
    let mut client = server.admitted();
    let eventfds = [plain_eventfd(), plain_eventfd(), plain_eventfd()];
    let files: Vec<_> = eventfds.iter().map(AsFd::as_fd).collect();
    client
        .set_irqs(MSIX, EVENTFD | TRIGGER, (0, 3), &files)
        .unwrap();
    let signal = |vector| server.seen.interrupts.lock().unwrap().signal(vector);
    (0..4).for_each(signal);
    assert_eq!(eventfds.each_ref().map(count), [1, 1, 1]);
    // One message takes away or gives: without files it takes away.
    client
        .set_irqs(MSIX, EVENTFD | TRIGGER, (1, 1), &[])
        .unwrap();
    (0..3).for_each(signal);
    assert_eq!(eventfds.each_ref().map(count), [1, 0, 1]);
    // The VMM fires by itself.
    client.set_irqs(MSIX, NONE | TRIGGER, (0, 3), &[]).unwrap();
    let mut bools = fields(&[23, BOOL | TRIGGER, MSIX, 0, 3], &[]);
    bools.extend([0, 1, 1]);
    client.request(SET_IRQS, &bools).unwrap();
    assert_eq!(eventfds.each_ref().map(count), [1, 0, 2]);
    client.set_irqs(MSIX, NONE | TRIGGER, (0, 0), &[]).unwrap();
    (0..3).for_each(signal);
    assert_eq!(eventfds.each_ref().map(count), [0, 0, 0]);
    client
        .set_irqs(MSIX, EVENTFD | TRIGGER, (0, 3), &files)
        .unwrap();
    client
        .set_irqs(MSIX, EVENTFD | TRIGGER, (0, 0), &[])
        .unwrap();
    (0..3).for_each(signal);
    assert_eq!(eventfds.each_ref().map(count), [0, 0, 0]);
    let changes = server.seen.changes.lock().unwrap().clone();
    let vectors = changes
        .into_iter()
        .filter(|change| *change != IrqChange::None);
    let expected = [0..3, 1..2, 0..3, 0..3, 0..3].map(IrqChange::Vectors);
    assert_eq!(vectors.collect::<Vec<_>>(), expected);
}

#[test]
fn interrupts_that_make_no_sense_are_refused() {
    let server = Server::start();
    let mut client = server.admitted();
    let eventfd = plain_eventfd();
    let one = [eventfd.as_fd()];
    let two = [eventfd.as_fd(), eventfd.as_fd()];
    let mut refused = |index, flags, range, files: &[_]| {
        let result = client.set_irqs(index, flags, range, files);
        assert_eq!(result, Err(EINVAL), "{index} {flags:#x} {range:?}");
    };
    for flags in [
        0,
        EVENTFD,
        TRIGGER,
        EVENTFD | BOOL | TRIGGER,
        EVENTFD | TRIGGER | MASK,
        EVENTFD | TRIGGER | 64,
    ] {
        refused(MSIX, flags, (0, 1), &one);
    }
    for range in [
        (3, 1),
        (0, 4),
        (u32::MAX, 1),
        (1, u32::MAX),
        (65535, 1),
        (65536, 1),
    ] {
        refused(MSIX, EVENTFD | TRIGGER, range, &one);
        refused(MSIX, NONE | TRIGGER, range, &[]);
    }
    refused(MSIX, EVENTFD | TRIGGER, (0, 1), &two);
    refused(MSIX, EVENTFD | TRIGGER, (0, 3), &two);
    refused(MSIX, NONE | MASK, (0, 1), &[]);
    refused(MSIX, NONE | TRIGGER, (1, 0), &[]);
    refused(MSIX, BOOL | TRIGGER, (0, 1), &[]);
    refused(INTX, EVENTFD | TRIGGER, (0, 2), &two);
    refused(INTX, EVENTFD | TRIGGER, (1, 1), &one);
    refused(INTX, EVENTFD | MASK, (0, 1), &one);
    refused(INTX, NONE | UNMASK, (0, 0), &[]);
    refused(1, EVENTFD | TRIGGER, (0, 1), &one);
    refused(9, NONE | TRIGGER, (0, 0), &[]);
}

#[test]
fn the_pin_is_sent_once_until_it_is_unmasked() {
    let server = Server::start();
    let mut client = server.admitted();
    let trigger = plain_eventfd();
    client
        .set_irqs(INTX, EVENTFD | TRIGGER, (0, 1), &[trigger.as_fd()])
        .unwrap();
    let set = |high| server.seen.interrupts.lock().unwrap().set_intx(high);
    set(true);
    set(true);
    assert_eq!(count(&trigger), 1, "it masked itself");
    client.set_irqs(INTX, NONE | UNMASK, (0, 1), &[]).unwrap();
    assert_eq!(count(&trigger), 1, "it is still high");
    set(false);
    client.set_irqs(INTX, NONE | UNMASK, (0, 1), &[]).unwrap();
    assert_eq!(count(&trigger), 0);
    client.set_irqs(INTX, NONE | MASK, (0, 1), &[]).unwrap();
    set(true);
    assert_eq!(count(&trigger), 0);
    client.set_irqs(INTX, NONE | TRIGGER, (0, 0), &[]).unwrap();
    client.set_irqs(INTX, NONE | UNMASK, (0, 1), &[]).unwrap();
    assert_eq!(count(&trigger), 0, "nowhere to go");
    client
        .set_irqs(INTX, EVENTFD | TRIGGER, (0, 1), &[trigger.as_fd()])
        .unwrap();
    assert_eq!(count(&trigger), 1, "it was high all the time");
}

#[test]
fn the_pin_is_unmasked_by_an_eventfd_too() {
    let server = Server::start();
    let mut client = server.admitted();
    let (trigger, unmask) = (plain_eventfd(), plain_eventfd());
    client
        .set_irqs(INTX, EVENTFD | TRIGGER, (0, 1), &[trigger.as_fd()])
        .unwrap();
    client
        .set_irqs(INTX, EVENTFD | UNMASK, (0, 1), &[unmask.as_fd()])
        .unwrap();
    server.seen.interrupts.lock().unwrap().set_intx(true);
    assert_eq!(count(&trigger), 1);
    for _ in 0..3 {
        write(&unmask, &1u64.to_ne_bytes()).unwrap();
        wait_until("the pin to be sent again", || count(&trigger) == 1);
    }
    assert_eq!(count(&unmask), 0, "it was read");
}

#[test]
fn a_client_of_the_protocols_crate_is_served() {
    let server = Server::start();
    let mut client = vfio_user::Client::new(&server.socket()).unwrap();
    assert_eq!(client.region(7).unwrap().size, 256);
    let file = memfd(PAGE);
    client.dma_map(0, 0x1000, PAGE, file.as_raw_fd()).unwrap();
    assert_eq!(server.seen.memory.lock().unwrap().num_regions(), 1);
    client.region_write(0, 8, &[1, 2, 3, 4]).unwrap();
    let mut data = [0; 4];
    client.region_read(0, 8, &mut data).unwrap();
    assert_eq!(data, [1, 2, 3, 4]);
    assert_eq!(client.get_irq_info(MSIX).unwrap().count, 3);
    let eventfds = [plain_eventfd(), plain_eventfd(), plain_eventfd()];
    let files = eventfds.each_ref().map(AsRawFd::as_raw_fd);
    client
        .set_irqs(MSIX, EVENTFD | TRIGGER, 0, 3, &files)
        .unwrap();
    server.seen.interrupts.lock().unwrap().signal(2);
    assert_eq!(count(&eventfds[2]), 1);
    client.reset().unwrap();
    client.dma_unmap(0x1000, PAGE).unwrap();
    assert_eq!(server.seen.memory.lock().unwrap().num_regions(), 0);
    client.shutdown().unwrap();
    wait_until("the end", || server.seen.connections() == (1, 1));
}
