// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a VMM that means harm, or is broken, can do to the server: end its own connection.

mod common;

use std::fs::{read_dir, read_to_string};
use std::io::pipe;
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, write};
use vfio_user_device::MAX_MESSAGE;
use vfio_user_device::limits::{HANDSHAKE_TIME, MAX_IN_FLIGHT, MAX_WAITING, MESSAGE_TIME};

const EINVAL: i32 = Errno::INVAL.raw_os_error();

fn resident() -> u64 {
    let status = read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn half_a_header_or_silence_keeps_nobody_out() {
    let server = Server::start();
    let mut half = server.connect();
    half.send_with(&header(1, VERSION, 20, 0)[..7], &[]);
    let mut silent = server.connect();
    let start = Instant::now();
    assert!(server.admitted().is_served());
    assert!(start.elapsed() < HANDSHAKE_TIME / 2);
    half.ends();
    silent.ends();
    assert!(start.elapsed() >= HANDSHAKE_TIME);
}

#[test]
fn more_silent_clients_than_may_wait_keep_nobody_out() {
    let server = Server::start();
    let _silent: Vec<_> = (0..4 * MAX_WAITING).map(|_| server.connect()).collect();
    assert!(server.admitted().is_served());
}

#[test]
fn a_second_vmm_is_refused_at_once_and_the_first_goes_on() {
    let server = Server::start();
    let mut first = server.admitted();
    let start = Instant::now();
    let mut second = server.connect();
    assert_eq!(second.version(), Err(Errno::BUSY.raw_os_error()));
    second.ends();
    assert!(start.elapsed() < Duration::from_secs(1));
    assert!(first.is_served());
    drop(first);
    assert!(server.admitted().is_served());
}

#[test]
fn the_next_vmm_waits_until_nothing_of_the_last_is_in_use() {
    let server = Server::start();
    *server.seen.clings.lock().unwrap() = true;
    drop(server.admitted());
    wait_until("the goodbye", || server.seen.connections() == (1, 1));
    let seen = server.seen.clone();
    let later = thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        let connections = seen.connections();
        seen.goodbyes.lock().unwrap().clear();
        connections
    });
    assert!(server.admitted().is_served());
    assert_eq!(later.join().unwrap(), (1, 1), "nobody was let in before");
}

#[test]
fn a_version_that_is_none_is_answered_and_ends_the_connection() {
    let server = Server::start();
    let too_long = [&[0, 0, 1, 0][..], &[b' '; 5000]].concat();
    let protocol = Errno::PROTONOSUPPORT.raw_os_error();
    let versions: [(&[u8], i32); 5] = [
        (&[0, 0, 1], EINVAL),
        (b"\0\0\x01\0{\"capabilities\":", EINVAL),
        (
            b"\0\0\x01\0{\"capabilities\":{\"max_msg_fds\":-1}}\0",
            EINVAL,
        ),
        (&too_long, EINVAL),
        (b"\x01\0\0\0{}\0", protocol),
    ];
    for (version, errno) in versions {
        let mut client = server.connect();
        assert_eq!(client.request(VERSION, version), Err(errno));
        client.ends();
    }
    let mut client = server.connect();
    assert_eq!(client.request(RESET, &[]), Err(EINVAL), "before a VERSION");
    client.ends();
    assert_eq!(server.seen.connections(), (0, 0));
}

#[test]
fn a_length_that_cannot_be_is_answered_and_ends_the_connection() {
    let server = Server::start();
    for size in [0, 15, MAX_MESSAGE + 1, u32::MAX as usize] {
        let mut client = server.admitted();
        client.send_with(&header(7, REGION_WRITE, size, 0), &[]);
        let too_long = Errno::MSGSIZE.raw_os_error();
        assert_eq!(client.reply(), Some((7, REGION_WRITE, Err(too_long))));
        client.ends();
    }
}

#[test]
fn half_a_message_and_then_silence_ends_the_connection() {
    let server = Server::start();
    let mut client = server.admitted();
    client.send_with(&header(1, REGION_WRITE, 200, 0), &[]);
    let start = Instant::now();
    client.ends();
    assert!(start.elapsed() >= MESSAGE_TIME - Duration::from_millis(100));
    assert!(server.admitted().is_served());
}

#[test]
fn what_is_no_command_ends_the_connection() {
    let server = Server::start();
    for flags in [1, 2, 0xf] {
        let mut client = server.admitted();
        client.send_with(&header(1, GET_INFO, 16, flags), &[]);
        client.ends();
    }
    assert!(server.admitted().is_served());
}

#[test]
fn a_body_that_is_too_short_is_answered() {
    let server = Server::start();
    let mut client = server.admitted();
    for command in [
        DMA_MAP,
        DMA_UNMAP,
        GET_INFO,
        GET_REGION_INFO,
        GET_IRQ_INFO,
        SET_IRQS,
        REGION_READ,
        REGION_WRITE,
    ] {
        for length in [0, 1, 7] {
            let reply = client.request(command, &vec![0xff; length]);
            assert_eq!(reply, Err(EINVAL), "{command}, {length}");
        }
    }
    for length in [0u32, 3, 5] {
        let mut body = access(0, 0, 4);
        body.extend(vec![0; length as usize]);
        assert_eq!(
            client.request(REGION_WRITE, &body),
            Err(EINVAL),
            "{length} bytes for 4"
        );
    }
    assert!(client.is_served());
}

#[test]
fn an_unknown_command_is_answered() {
    let server = Server::start();
    let mut client = server.admitted();
    for command in [0, 6, 11, 12, 14, 15, 16, 99, u16::MAX] {
        let unknown = Errno::OPNOTSUPP.raw_os_error();
        assert_eq!(client.request(command, &[0; 64]), Err(unknown));
    }
    assert_eq!(client.version(), Err(EINVAL), "a second VERSION");
    assert!(client.is_served());
}

#[test]
fn four_gibibytes_are_not_read() {
    let server = Server::start();
    let mut client = server.admitted();
    let before = resident();
    for region in [0, 7] {
        for count in [u32::MAX, (1 << 20) + 1, 0x4001, 0] {
            assert_eq!(
                client.request(REGION_READ, &access(region, 0, count)),
                Err(EINVAL)
            );
        }
    }
    assert_eq!(
        client.request(REGION_READ, &access(0, u64::MAX, 4)),
        Err(EINVAL)
    );
    assert_eq!(
        client.request(REGION_READ, &access(1, 0, 4)),
        Err(EINVAL),
        "no such BAR"
    );
    assert_eq!(
        client.request(REGION_READ, &access(9, 0, 4)),
        Err(EINVAL),
        "no such region"
    );
    assert!(resident() < before + 16 * 1024, "KiB resident");
    assert!(client.is_served());
}

#[test]
fn a_message_of_many_bytes_takes_no_memory_before_they_come() {
    let server = Server::start();
    let mut client = server.admitted();
    let mut body = access(7, 0, 256);
    body.resize(1 << 20, 0);
    assert_eq!(client.request(REGION_WRITE, &body), Err(EINVAL));
    assert!(client.is_served());
}

#[test]
fn more_files_than_a_message_may_have_are_refused_and_closed() {
    let server = Server::start();
    let mut client = server.admitted();
    let file = memfd(PAGE);
    let open = || read_dir("/proc/self/fd").unwrap().count();
    let body = fields(&[32, 3], &[0, 0, PAGE]);
    for number in [2, 16, 17, 60] {
        let files: Vec<BorrowedFd<'_>> = (0..number).map(|_| file.as_fd()).collect();
        assert_eq!(client.request_with(DMA_MAP, &body, &files), Err(EINVAL));
    }
    assert_eq!(
        client.request_with(RESET, &[], &[file.as_fd()]),
        Err(EINVAL),
        "a file for nothing"
    );
    wait_until("the files to be closed", || {
        let before = open();
        let files: Vec<BorrowedFd<'_>> = (0..16).map(|_| file.as_fd()).collect();
        client.request_with(DMA_MAP, &body, &files).unwrap_err();
        open() <= before
    });
}

#[test]
fn replies_that_are_not_taken_end_the_connection_and_nothing_else() {
    let server = Server::start();
    let greedy = server.admitted();
    greedy.stream.set_nonblocking(true).unwrap();
    let mut message = header(1, REGION_READ, 32, 0);
    message.extend(access(0, 0, 0x4000));
    let start = Instant::now();
    // As long as the socket takes them.
    while write(&greedy.stream, &message).is_ok() {}
    wait_until("the end of the connection", || {
        server.seen.connections() == (1, 1)
    });
    assert!(start.elapsed() >= MESSAGE_TIME);
    assert!(server.admitted().is_served());
}

#[test]
fn a_full_eventfd_whose_writers_wait_keeps_nobody_waiting() {
    let server = Server::start();
    let mut client = server.admitted();
    let full = eventfd(0, EventfdFlags::empty()).unwrap();
    write(&full, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    client.set_irqs(2, 0x24, (0, 1), &[full.as_fd()]).unwrap();
    let seen = server.seen.clone();
    let signaller = thread::spawn(move || seen.interrupts.lock().unwrap().signal(0));
    wait_until("the signal's end", || signaller.is_finished());
    assert!(client.is_served());
}

#[test]
fn what_is_no_eventfd_is_refused_as_an_interrupt() {
    let server = Server::start();
    let mut client = server.admitted();
    let (_reader, writer) = pipe().unwrap();
    let file = memfd(PAGE);
    let eventfd = plain_eventfd();
    for other in [writer.as_fd(), file.as_fd()] {
        let files = [eventfd.as_fd(), other];
        assert_eq!(client.set_irqs(2, 0x24, (0, 2), &files), Err(EINVAL));
    }
    let interrupts = server.seen.interrupts.lock().unwrap();
    assert!(!interrupts.is_connected(0), "all or nothing");
}

#[test]
fn a_device_that_answers_late_keeps_the_requests_that_follow_within_bounds() {
    let server = Server::start();
    let mut client = server.admitted();
    let mut body = access(0, SLOW, 4);
    body.extend([1; 4]);
    for _ in 0..100 {
        client.post(REGION_WRITE, 0, &body, &[]);
    }
    let in_flight = || server.seen.slow.lock().unwrap().len();
    wait_until("the limit to be met", || in_flight() == MAX_IN_FLIGHT);
    thread::sleep(Duration::from_millis(50));
    assert_eq!(in_flight(), MAX_IN_FLIGHT);
    let mut answered = 0;
    while answered < 100 {
        answered += answer_slow(&server.seen);
        thread::sleep(Duration::from_millis(1));
    }
    for id in 0..100 {
        assert_eq!(client.reply().unwrap().0, id + 2);
    }
    assert!(client.is_served());
}
