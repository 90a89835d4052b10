// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the device's process may say, and what it may not, to a renderer that keeps bytes.

use std::os::fd::BorrowedFd;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{SendFlags, send};
use virtio_gpu_s3::renderer::BlobParams;
use virtio_gpu_s3_testing::{RendererControl, ScriptedRenderer};

use super::*;
use crate::line::{Reader, Writer};
use crate::protocol::{MAX_IN_FLIGHT, MAX_MESSAGE, WAKE};

const REGION: u32 = 1;
const REGION_BYTES: u64 = 0x4000;

fn server() -> (Server<ScriptedRenderer>, RendererControl) {
    let (renderer, control) = ScriptedRenderer::new();
    let (scratch, _) = Scratch::new(0).unwrap();
    (Server::new(renderer, scratch), control)
}

fn mapped() -> (Server<ScriptedRenderer>, RendererControl) {
    let (mut server, control) = server();
    let file = memfd_create("region", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, REGION_BYTES).unwrap();
    server
        .handle(map(REGION, REGION_BYTES), Some(file))
        .unwrap();
    (server, control)
}

fn map(region: u32, size: u64) -> Request {
    Request::MapRegion {
        region,
        offset: 0,
        size,
    }
}

fn ask(operation: Operation, data: Placed) -> Request {
    Request::Call {
        operation,
        data,
        fence: None,
        in_flight: false,
    }
}

/// Bytes at the start of the scratch memory.
fn put(scratch: &Scratch, bytes: &[u8]) -> Range {
    let range = range(0, bytes.len() as u64);
    scratch.slice(range).unwrap().copy_from(bytes);
    range
}

const fn range(at: u64, length: u64) -> Range {
    Range { at, length }
}

const BLOB: u32 = 5;

/// Makes a blob with those bytes for its backing.
fn make_blob(server: &mut Server<ScriptedRenderer>, pieces: &[u8]) -> Reply {
    let create = Operation::CreateBlob {
        ctx_id: 0,
        resource_id: BLOB,
        params: BlobParams {
            blob_mem: 1,
            blob_flags: 0,
            blob_id: 0,
            size: 64,
        },
    };
    let range = put(&server.scratch, pieces);
    server.handle(ask(create, Placed::Pieces(range)), None)
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
        let error = make_blob(&mut server, &bytes).unwrap_err();
        assert_eq!(what(error), "guest memory outside its region");
    }
    assert_eq!(control.calls(), 0);
    let error = make_blob(&mut server, &[0xff; 7]).unwrap_err();
    assert_eq!(what(error), "a backing that makes no sense");
    make_blob(&mut server, &backing(&[(REGION, 0, REGION_BYTES)])).unwrap();
}

#[test]
fn a_region_in_use_stays_and_one_that_is_mapped_is_not_mapped_over() {
    let (mut server, _) = mapped();
    make_blob(&mut server, &backing(&[(REGION, 0, 64)])).unwrap();
    let unmap = Request::UnmapRegion { region: REGION };
    let error = server.handle(unmap.clone(), None).unwrap_err();
    assert_eq!(what(error), "the end of a region in use");
    let file = memfd_create("other", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, REGION_BYTES).unwrap();
    let again = server.handle(map(REGION, REGION_BYTES), Some(file));
    assert_eq!(what(again.unwrap_err()), "a region that is mapped");
    let destroy = Operation::DestroyResource { resource_id: BLOB };
    server.handle(ask(destroy, Placed::None), None).unwrap();
    server.handle(unmap.clone(), None).unwrap();
    let error = server.handle(unmap, None).unwrap_err();
    assert_eq!(what(error), "a region that is not mapped");
}

#[test]
fn a_region_longer_than_its_file_or_without_one_is_refused() {
    let (mut server, _) = server();
    let file = memfd_create("short", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, REGION_BYTES).unwrap();
    let longer = server.handle(map(1, REGION_BYTES + 4096), Some(file));
    assert_eq!(what(longer.unwrap_err()), "a region longer than its file");
    let without = server.handle(map(1, REGION_BYTES), None);
    assert_eq!(what(without.unwrap_err()), "a region without its file");
}

#[test]
fn bytes_beyond_the_scratch_memory_are_refused() {
    let (mut server, control) = server();
    let length = server.scratch.length() as u64;
    for outside in [
        range(0, length + 1),
        range(length, 1),
        range(u64::MAX, 2),
        range(1, u64::MAX),
    ] {
        for placed in [Placed::Bytes, Placed::Room, Placed::Stream, Placed::Pieces] {
            let error = server.handle(ask(SUBMIT, placed(outside)), None);
            let what = what(error.unwrap_err());
            assert_eq!(what, "a range outside the scratch memory");
        }
    }
    assert_eq!(control.calls(), 0);
}

#[test]
fn a_stream_of_no_whole_dwords_is_refused_wherever_it_begins() {
    let (mut server, control) = server();
    for stream in [range(0, 3), range(2, 4), range(1, 8)] {
        let error = server.handle(ask(SUBMIT, Placed::Stream(stream)), None);
        let bytes = usize::try_from(stream.length).unwrap();
        let expected = StreamError::NoDwords { bytes }.into();
        assert_eq!(error.unwrap_err(), expected);
    }
    assert_eq!(control.calls(), 0);
}

impl Idle for ScriptedRenderer {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn work(&mut self) {}
}

/// A server on a thread, and the device's ends of its sockets and its memory.
struct Running {
    socket: Channel,
    /// Where the device is told of what nobody waits for.
    news: Channel,
    scratch: Scratch,
    requests: Writer,
    replies: Reader,
    thread: JoinHandle<Result<(), ServeError>>,
    buffer: Buffer,
}

impl Running {
    fn start() -> Self {
        let (socket, theirs) = Channel::pair().unwrap();
        let (news, their_news) = Channel::pair().unwrap();
        let (scratch, file) = Scratch::new(0).unwrap();
        let length = scratch.length();
        let body = move || {
            let (renderer, _) = ScriptedRenderer::new();
            let scratch = Scratch::map(file, length).unwrap();
            let news = News::new(Arc::new(Channel::new(their_news)), scratch.line());
            Server::new(renderer, scratch).run(&Channel::new(theirs), &news)
        };
        let (requests, replies) = scratch.line().device();
        Self {
            socket,
            news,
            scratch,
            requests,
            replies,
            thread: thread::spawn(body),
            buffer: Buffer::new(),
        }
    }

    fn send(&mut self, message: &[u8]) {
        if self.requests.put(message).unwrap() {
            self.socket.send(&WAKE, None).unwrap();
        }
    }

    fn ask(&mut self, operation: Operation, bytes: &[u8], in_flight: bool) {
        let data = match bytes {
            [] => Placed::None,
            bytes => Placed::Stream(put(&self.scratch, bytes)),
        };
        let request = Request::Call {
            operation,
            data,
            fence: None,
            in_flight,
        };
        self.send(&postcard::to_allocvec(&request).unwrap());
    }

    /// Waits for a reply, asleep or not.
    fn receive(&mut self, asleep: bool) -> Reply {
        while !self.replies.has_news() {
            if asleep && self.replies.sleep() {
                assert_eq!(self.socket.receive(&mut self.buffer).unwrap(), WAKE);
                self.replies.wake();
            }
            assert!(!self.thread.is_finished());
            thread::yield_now();
        }
        let replies = &mut self.replies;
        let message = self.buffer.fill(|room| replies.take(room)).unwrap();
        decode(message).unwrap()
    }

    fn call(&mut self, operation: Operation, bytes: &[u8], asleep: bool) -> Reply {
        self.ask(operation, bytes, false);
        self.receive(asleep)
    }
}

const CONTEXT: Operation = Operation::CreateContext {
    ctx_id: 1,
    context_init: 0,
};
const SUBMIT: Operation = Operation::Submit {
    ctx_id: 1,
    in_fences: Vec::new(),
};
/// A command that there is none of.
const NONSENSE: [u8; 4] = [9; 4];

#[test]
fn a_conversation_ends_where_the_device_closes_it() {
    let mut server = Running::start();
    for asleep in [false, true] {
        server.call(CONTEXT, &[], asleep).unwrap();
        server.call(SUBMIT, &[0; 64], asleep).unwrap();
        let refused = server.call(SUBMIT, &NONSENSE, asleep);
        assert!(matches!(refused, Err(RendererError::Refused { .. })));
        let destroy = Operation::DestroyContext { ctx_id: 1 };
        server.call(destroy, &[], asleep).unwrap();
    }
    drop(server.socket);
    assert!(server.thread.join().unwrap().is_ok());
}

#[test]
fn many_requests_at_once_are_answered_in_order() {
    let mut server = Running::start();
    server.call(CONTEXT, &[], false).unwrap();
    let nonsense = |id: u32| id % 3 == 1;
    for round in 0..50 {
        for id in 0..MAX_IN_FLIGHT {
            // The context that is not there has no stream.
            let ctx_id = 1;
            let operation = if nonsense(id) {
                Operation::DestroyContext { ctx_id: 9 }
            } else {
                let in_fences = Vec::new();
                Operation::Submit { ctx_id, in_fences }
            };
            let stream = if nonsense(id) { &[][..] } else { &[0; 4] };
            server.ask(operation, stream, false);
        }
        for id in 0..MAX_IN_FLIGHT {
            let reply = server.receive(round % 2 == 0);
            assert_eq!(reply.is_err(), nonsense(id), "{id}");
        }
    }
    drop(server.socket);
    assert!(server.thread.join().unwrap().is_ok());
}

#[test]
fn of_a_reply_that_nobody_waits_for_the_device_is_told_once_until_it_asks_again() {
    let mut server = Running::start();
    let line = server.scratch.line();
    server.call(CONTEXT, &[], false).unwrap();
    for _ in 0..100 {
        line.want_news(true);
        for _ in 0..3 {
            server.ask(SUBMIT, &[0; 4], true);
        }
        let told = server.news.receive(&mut server.buffer).unwrap();
        let fences: Vec<Fence> = decode(told).unwrap();
        assert_eq!(fences, []);
        for _ in 0..3 {
            server.receive(false).unwrap();
        }
    }
    server.news.limit(Duration::from_millis(50)).unwrap();
    let more = server.news.receive(&mut server.buffer);
    assert!(matches!(more, Err(ChannelError::TimedOut)));
    drop(server.socket);
    assert!(server.thread.join().unwrap().is_ok());
}

#[test]
fn nonsense_ends_the_conversation_with_a_reason() {
    for message in [&[0xff; 8][..], &[]] {
        let mut server = Running::start();
        server.send(message);
        let ended = server.thread.join().unwrap();
        assert!(matches!(ended, Err(ServeError::Protocol { .. })));
    }
}

#[test]
fn a_message_longer_than_any_is_noticed_on_both_ways() {
    let (one, other) = Channel::pair().unwrap();
    let long = vec![0; MAX_MESSAGE + 1];
    assert!(matches!(one.send(&long, None), Err(ChannelError::TooLong)));
    send(&one, &long, SendFlags::empty()).unwrap();
    let other = Channel::new(other);
    let mut buffer = Buffer::new();
    assert!(matches!(
        other.receive(&mut buffer),
        Err(ChannelError::TooLong)
    ));
}
