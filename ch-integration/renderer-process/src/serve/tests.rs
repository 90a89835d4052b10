// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the device's process may say, and what it may not, to a renderer that keeps bytes.

use std::os::fd::BorrowedFd;
use std::thread::JoinHandle;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{SendFlags, send};
use virtio_gpu_s3::renderer::BlobParams;
use virtio_gpu_s3::{NullControl, NullRenderer};

use super::*;
use crate::protocol::MAX_MESSAGE;

const REGION: u32 = 1;
const REGION_BYTES: u64 = 0x4000;

fn server() -> (Server<NullRenderer>, NullControl) {
    let (renderer, control) = NullRenderer::rendering();
    let (scratch, _) = Scratch::new(0).unwrap();
    (Server::new(renderer, scratch), control)
}

fn mapped() -> (Server<NullRenderer>, NullControl) {
    let (mut server, control) = server();
    let file = memfd_create("region", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, REGION_BYTES).unwrap();
    server
        .handle(map(REGION, REGION_BYTES), &[], Some(file))
        .unwrap();
    (server, control)
}

fn map(region: u32, size: u64) -> Call {
    Call::MapRegion {
        region,
        offset: 0,
        size,
    }
}

fn blob(resource_id: u32) -> Call {
    Call::CreateBlob {
        ctx_id: 0,
        resource_id,
        params: BlobParams {
            blob_mem: 1,
            blob_flags: 0,
            blob_id: 0,
            size: 64,
        },
        backed: true,
    }
}

fn backing(pieces: &[(u32, u64, u64)]) -> Vec<u8> {
    let pieces = pieces.iter().map(|&(region, offset, length)| Piece {
        region,
        offset,
        length,
    });
    postcard::to_allocvec(&pieces.collect::<Vec<_>>()).unwrap()
}

fn what(error: RendererError) -> String {
    match error {
        RendererError::Refused { what, .. } => what.into_owned(),
        other => panic!("{other}"),
    }
}

#[test]
fn a_backing_outside_its_region_reaches_no_renderer() {
    let (mut server, control) = mapped();
    for piece in [
        (REGION, 0, REGION_BYTES + 1),
        (REGION, REGION_BYTES, 1),
        (REGION, u64::MAX, 2),
        (REGION, 1, u64::MAX),
        (REGION + 1, 0, 1),
    ] {
        let bytes = backing(&[(REGION, 0, 16), piece]);
        let error = server.handle(blob(5), &bytes, None).unwrap_err();
        assert_eq!(what(error), "guest memory outside its region");
    }
    assert_eq!(control.calls(), 0);
    let error = server.handle(blob(5), &[0xff; 7], None).unwrap_err();
    assert_eq!(what(error), "a backing that makes no sense");
    server
        .handle(blob(5), &backing(&[(REGION, 0, REGION_BYTES)]), None)
        .unwrap();
}

#[test]
fn a_region_in_use_stays_and_one_that_is_mapped_is_not_mapped_over() {
    let (mut server, _) = mapped();
    let bytes = backing(&[(REGION, 0, 64)]);
    server.handle(blob(5), &bytes, None).unwrap();
    let unmap = Call::UnmapRegion { region: REGION };
    let error = server.handle(unmap.clone(), &[], None).unwrap_err();
    assert_eq!(what(error), "the end of a region in use");
    let file = memfd_create("other", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, REGION_BYTES).unwrap();
    let again = server.handle(map(REGION, REGION_BYTES), &[], Some(file));
    assert_eq!(what(again.unwrap_err()), "a region that is mapped");
    let destroy = Call::DestroyResource { resource_id: 5 };
    server.handle(destroy, &[], None).unwrap();
    server.handle(unmap.clone(), &[], None).unwrap();
    let error = server.handle(unmap, &[], None).unwrap_err();
    assert_eq!(what(error), "a region that is not mapped");
}

#[test]
fn a_region_longer_than_its_file_or_without_one_is_refused() {
    let (mut server, _) = server();
    let file = memfd_create("short", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, REGION_BYTES).unwrap();
    let longer = server.handle(map(1, REGION_BYTES + 4096), &[], Some(file));
    assert_eq!(what(longer.unwrap_err()), "a region longer than its file");
    let without = server.handle(map(1, REGION_BYTES), &[], None);
    assert_eq!(what(without.unwrap_err()), "a region without its file");
}

#[test]
fn pixels_beyond_the_scratch_memory_are_refused() {
    let (mut server, control) = server();
    let side = |width, height| Rect {
        x: 0,
        y: 0,
        width,
        height,
    };
    for rect in [side(u32::MAX, u32::MAX), side(4096, 1025)] {
        let resource_id = 1;
        for call in [
            Call::ReadPixels { resource_id, rect },
            Call::WritePixels { resource_id, rect },
        ] {
            let error = server.handle(call, &[], None).unwrap_err();
            assert_eq!(what(error), "a range outside the scratch memory");
        }
    }
    assert_eq!(control.calls(), 0);
}

impl Idle for NullRenderer {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn work(&mut self) {}
}

/// A server on a thread, and the device's ends of its socket and its memory.
struct Running {
    socket: Channel,
    scratch: Scratch,
    thread: JoinHandle<Result<(), ServeError>>,
    buffer: Buffer,
}

impl Running {
    fn start() -> Self {
        let (socket, theirs) = Channel::pair().unwrap();
        let (scratch, file) = Scratch::new(0).unwrap();
        let length = scratch.length();
        let body = move || {
            let (renderer, _) = NullRenderer::rendering();
            let scratch = Scratch::map(file, length).unwrap();
            Server::new(renderer, scratch).run(&Channel::new(theirs), &mut Buffer::new())
        };
        Self {
            socket,
            scratch,
            thread: thread::spawn(body),
            buffer: Buffer::new(),
        }
    }

    fn send(&self, call: &Call, bytes: &[u8], on_line: bool) {
        self.scratch.put(0, bytes).unwrap();
        let with = With {
            bytes: bytes.len() as u64,
            fence: None,
        };
        let head = Head::of(&(with, call)).unwrap();
        if on_line {
            let line = self.scratch.line();
            let calls = line.calls();
            // It looks again when the socket has waked it.
            while !calls.put(head.bytes()) {
                assert!(!self.thread.is_finished());
                thread::yield_now();
            }
        } else {
            self.socket.send(head.bytes(), &[], None).unwrap();
        }
    }

    /// Asks and waits, asleep or not.
    fn call(&mut self, call: &Call, bytes: &[u8], asleep: bool) -> Answer {
        let line = self.scratch.line();
        let answers = line.answers();
        assert!(!asleep || answers.sleep());
        self.send(call, bytes, false);
        let message = if asleep {
            let message = self.socket.receive(&mut self.buffer).unwrap();
            answers.wake();
            message
        } else {
            while !answers.is_full() {
                thread::yield_now();
            }
            self.buffer.fill(|room| answers.take(room)).unwrap()
        };
        split(message).unwrap().0
    }
}

const SUBMIT: Call = Call::Submit {
    ctx_id: 1,
    in_fences: Vec::new(),
};

#[test]
fn a_conversation_ends_where_the_device_closes_it() {
    let mut server = Running::start();
    let context = Call::CreateContext {
        ctx_id: 1,
        context_init: 0,
    };
    for asleep in [false, true] {
        assert_eq!(server.call(&context, b"name", asleep), Ok(()));
        // Sixteen commands that do nothing, and one that does not exist.
        let mut stream = [0; 64];
        assert_eq!(server.call(&SUBMIT, &stream, asleep), Ok(()));
        stream[60..].fill(9);
        let refused = server.call(&SUBMIT, &stream, asleep);
        assert!(matches!(refused, Err(RendererError::Refused { .. })));
        let destroy = Call::DestroyContext { ctx_id: 1 };
        assert_eq!(server.call(&destroy, &[], asleep), Ok(()));
    }
    drop(server.socket);
    assert!(server.thread.join().unwrap().is_ok());
}

#[test]
fn calls_that_follow_each_other_at_once_come_on_the_line() {
    let server = Running::start();
    let unknown = Call::DestroyContext { ctx_id: 9 };
    let line = server.scratch.line();
    let answers = line.answers();
    // A busy machine may let it fall asleep, but not every time.
    let mut room = [0; 64];
    let taken = (0..2000).any(|_| {
        server.send(&unknown, &[], false);
        while !answers.is_full() {
            thread::yield_now();
        }
        answers.take(&mut room).unwrap();
        let head = Head::of(&(With::default(), &unknown)).unwrap();
        if !line.calls().put(head.bytes()) {
            return false;
        }
        while !answers.is_full() {
            assert!(!server.thread.is_finished());
            thread::yield_now();
        }
        answers.take(&mut room).unwrap().is_some()
    });
    assert!(taken);
    drop(server.socket);
    assert!(server.thread.join().unwrap().is_ok());
}

#[test]
fn nonsense_ends_the_conversation_with_a_reason() {
    let bytes = |bytes| {
        let call = Call::DestroyContext { ctx_id: 1 };
        let with = With { bytes, fence: None };
        Head::of(&(with, call)).unwrap().bytes().to_vec()
    };
    let length = Running::start().scratch.length() as u64;
    for message in [vec![0xff; 8], bytes(length + 1), bytes(u64::MAX)] {
        let server = Running::start();
        server.socket.send(&message, &[], None).unwrap();
        let ended = server.thread.join().unwrap();
        assert!(matches!(ended, Err(ServeError::Protocol { .. })));
    }
}

#[test]
fn a_message_longer_than_any_is_noticed_on_both_ways() {
    let (one, other) = Channel::pair().unwrap();
    let long = vec![0; MAX_MESSAGE + 1];
    assert!(matches!(
        one.send(&long, &[], None),
        Err(ChannelError::TooLong)
    ));
    send(&one, &long, SendFlags::empty()).unwrap();
    let other = Channel::new(other);
    let mut buffer = Buffer::new();
    assert!(matches!(
        other.receive(&mut buffer),
        Err(ChannelError::TooLong)
    ));
}
