// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A device with nothing behind it, and a client that sends whatever it likes.

#![expect(dead_code, reason = "each test program uses its part")]
#![expect(
    clippy::cast_possible_truncation,
    reason = "the numbers are the tests' own"
)]

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::mem::{MaybeUninit, take};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::cmsg_space;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::read;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tempfile::TempDir;
use vfio_user_device::{
    Access, Answer, Device, DeviceInfo, DmaMemory, Goodbye, Interrupts, IrqChange, IrqCounts,
    MemoryChange, ReadAnswer, serve,
};

/// Longer than anything takes; a wait ends as soon as it can.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);
pub(crate) const IRQS: IrqCounts = IrqCounts {
    msix: 3,
    intx: true,
};
pub(crate) const INFO: DeviceInfo = DeviceInfo {
    regions: [0x4000, 0, 0, 0, 0, 0, 0, 256, 0],
    irqs: IRQS,
};
/// A write or read of these bytes of BAR 0 is answered when the test says so.
pub(crate) const SLOW: u64 = 0x3000;
pub(crate) const PAGE: u64 = 4096;

/// What a test sees of its device.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) memory: Mutex<DmaMemory>,
    pub(crate) interrupts: Mutex<Interrupts>,
    pub(crate) changes: Mutex<Vec<IrqChange>>,
    pub(crate) bytes: Mutex<Vec<u8>>,
    pub(crate) slow: Mutex<Vec<Answer>>,
    pub(crate) goodbyes: Mutex<Vec<Goodbye>>,
    /// The goodbyes are kept until the test drops them.
    pub(crate) clings: Mutex<bool>,
    pub(crate) connected: AtomicUsize,
    pub(crate) disconnected: AtomicUsize,
}

impl Seen {
    fn new() -> Self {
        Self {
            memory: Mutex::default(),
            interrupts: Mutex::new(Interrupts::new(IRQS)),
            changes: Mutex::default(),
            bytes: Mutex::new(vec![0; 0x4000]),
            slow: Mutex::default(),
            goodbyes: Mutex::default(),
            clings: Mutex::default(),
            connected: AtomicUsize::new(0),
            disconnected: AtomicUsize::new(0),
        }
    }

    pub(crate) fn connections(&self) -> (usize, usize) {
        let connected = self.connected.load(Ordering::SeqCst);
        (connected, self.disconnected.load(Ordering::SeqCst))
    }
}

struct Handle(Arc<Seen>);

impl Device for Handle {
    fn connected(&mut self) {
        self.0.connected.fetch_add(1, Ordering::SeqCst);
    }

    fn disconnected(&mut self, goodbye: Goodbye) {
        *self.0.memory.lock().unwrap() = DmaMemory::default();
        *self.0.interrupts.lock().unwrap() = Interrupts::new(IRQS);
        self.0.slow.lock().unwrap().clear();
        if *self.0.clings.lock().unwrap() {
            self.0.goodbyes.lock().unwrap().push(goodbye);
        }
        self.0.disconnected.fetch_add(1, Ordering::SeqCst);
    }

    fn read(&mut self, access: Access, mut answer: ReadAnswer) {
        let bytes = self.0.bytes.lock().unwrap();
        let (start, length) = (access.offset as usize, access.length as usize);
        answer.data().copy_from_slice(&bytes[start..start + length]);
        answer.done();
    }

    fn write(&mut self, access: Access, data: &[u8], answer: Answer) {
        let start = access.offset as usize;
        self.0.bytes.lock().unwrap()[start..start + data.len()].copy_from_slice(data);
        if access.region == 0 && access.offset >= SLOW {
            self.0.slow.lock().unwrap().push(answer);
        } else {
            answer.done();
        }
    }

    fn reset(&mut self, answer: Answer) {
        answer.done();
    }

    fn set_memory(&mut self, memory: &DmaMemory, _change: MemoryChange, answer: Answer) {
        *self.0.memory.lock().unwrap() = memory.clone();
        answer.done();
    }

    fn with_interrupts(&mut self, change: &mut dyn FnMut(&mut Interrupts) -> IrqChange) {
        let change = change(&mut self.0.interrupts.lock().unwrap());
        self.0.changes.lock().unwrap().push(change);
    }
}

/// A server of its own, for ever.
pub(crate) struct Server {
    pub(crate) seen: Arc<Seen>,
    directory: TempDir,
}

impl Server {
    pub(crate) fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
        let seen = Arc::new(Seen::new());
        let mut device = Handle(seen.clone());
        thread::spawn(move || {
            let error = serve(listener, &INFO, &mut device).unwrap_err();
            panic!("{error}");
        });
        Self { seen, directory }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// A client that has said nothing.
    pub(crate) fn connect(&self) -> Client {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Client { stream, next: 0 }
    }

    /// A client that was let in.
    pub(crate) fn admitted(&self) -> Client {
        let mut client = self.connect();
        client.version().unwrap();
        client
    }
}

/// Waits until `condition` holds.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come to hold");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A reply as it came, or the errno in it.
pub(crate) type Reply = Result<Vec<u8>, i32>;

pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    next: u16,
}

pub(crate) const VERSION: u16 = 1;
pub(crate) const DMA_MAP: u16 = 2;
pub(crate) const DMA_UNMAP: u16 = 3;
pub(crate) const GET_INFO: u16 = 4;
pub(crate) const GET_REGION_INFO: u16 = 5;
pub(crate) const GET_IRQ_INFO: u16 = 7;
pub(crate) const SET_IRQS: u16 = 8;
pub(crate) const REGION_READ: u16 = 9;
pub(crate) const REGION_WRITE: u16 = 10;
pub(crate) const RESET: u16 = 13;
pub(crate) const NO_REPLY: u32 = 1 << 4;

pub(crate) const READABLE: u32 = 1;
pub(crate) const WRITEABLE: u32 = 2;
pub(crate) const UNMAP_ALL: u32 = 2;

pub(crate) fn header(id: u16, command: u16, size: usize, flags: u32) -> Vec<u8> {
    let mut bytes = id.to_ne_bytes().to_vec();
    bytes.extend(command.to_ne_bytes());
    bytes.extend((size as u32).to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes
}

/// 32-bit fields, then 64-bit ones.
pub(crate) fn fields(words: &[u32], longs: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(words.iter().flat_map(|it| it.to_ne_bytes()));
    bytes.extend(longs.iter().flat_map(|it| it.to_ne_bytes()));
    bytes
}

pub(crate) fn access(region: u32, offset: u64, count: u32) -> Vec<u8> {
    let mut bytes = offset.to_ne_bytes().to_vec();
    bytes.extend(fields(&[region, count], &[]));
    bytes
}

pub(crate) fn word(bytes: &[u8], index: usize) -> u32 {
    u32::from_ne_bytes(bytes[index * 4..index * 4 + 4].try_into().unwrap())
}

impl Client {
    pub(crate) fn send_with(&mut self, bytes: &[u8], files: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(64))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(files)));
        }
        let flags = SendFlags::NOSIGNAL;
        let sent = sendmsg(&self.stream, &[IoSlice::new(bytes)], &mut control, flags).unwrap();
        self.stream.write_all(&bytes[sent..]).unwrap();
    }

    /// Sends a command and returns its number.
    pub(crate) fn post(
        &mut self,
        command: u16,
        flags: u32,
        body: &[u8],
        files: &[BorrowedFd<'_>],
    ) -> u16 {
        self.next = self.next.wrapping_add(1);
        let mut message = header(self.next, command, 16 + body.len(), flags);
        message.extend(body);
        self.send_with(&message, files);
        self.next
    }

    /// Takes the next reply: its number, its command and what it says. None is the end of the connection.
    pub(crate) fn reply(&mut self) -> Option<(u16, u16, Reply)> {
        let mut head = [0; 16];
        match self.stream.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("no reply"),
            Err(_) => return None,
        }
        let id = u16::from_ne_bytes([head[0], head[1]]);
        let command = u16::from_ne_bytes([head[2], head[3]]);
        let (size, flags, errno) = (word(&head, 1), word(&head, 2), word(&head, 3));
        let mut body = vec![0; size as usize - 16];
        self.stream.read_exact(&mut body).unwrap();
        if flags == 0x21 {
            assert!(body.is_empty(), "an error has a header alone");
            return Some((id, command, Err(errno as i32)));
        }
        assert_eq!(flags, 1);
        Some((id, command, Ok(body)))
    }

    pub(crate) fn request_with(
        &mut self,
        command: u16,
        body: &[u8],
        files: &[BorrowedFd<'_>],
    ) -> Reply {
        let sent = self.post(command, 0, body, files);
        let (id, answered, reply) = self.reply().expect("the connection ended");
        assert_eq!((id, answered), (sent, command));
        reply
    }

    pub(crate) fn request(&mut self, command: u16, body: &[u8]) -> Reply {
        self.request_with(command, body, &[])
    }

    pub(crate) fn version(&mut self) -> Reply {
        self.request(
            VERSION,
            b"\0\0\x01\0{\"capabilities\":{\"max_msg_fds\":8}}\0",
        )
    }

    pub(crate) fn map(
        &mut self,
        flags: u32,
        offset: u64,
        address: u64,
        size: u64,
        file: Option<&OwnedFd>,
    ) -> Result<(), i32> {
        let body = fields(&[32, flags], &[offset, address, size]);
        let files: Vec<_> = file.iter().map(|file| file.as_fd()).collect();
        self.request_with(DMA_MAP, &body, &files)
            .map(|body| assert!(body.is_empty()))
    }

    pub(crate) fn unmap(&mut self, flags: u32, address: u64, size: u64) -> Result<(), i32> {
        let body = fields(&[24, flags], &[address, size]);
        self.request(DMA_UNMAP, &body).map(|reply| {
            assert_eq!(
                reply,
                fields(&[24, flags], &[address, size]),
                "the request's own entry"
            );
        })
    }

    pub(crate) fn set_irqs(
        &mut self,
        index: u32,
        flags: u32,
        (start, count): (u32, u32),
        files: &[BorrowedFd<'_>],
    ) -> Result<(), i32> {
        let body = fields(&[20, flags, index, start, count], &[]);
        self.request_with(SET_IRQS, &body, files).map(drop)
    }

    /// Whether it is still served.
    pub(crate) fn is_served(&mut self) -> bool {
        let body = fields(&[16, 0, 0, 0], &[]);
        self.request(GET_INFO, &body).is_ok()
    }

    /// Waits for the connection's end.
    pub(crate) fn ends(&mut self) {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => assert!(rest.is_empty(), "{rest:x?}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
}

pub(crate) fn memfd(size: u64) -> OwnedFd {
    let file = memfd_create("memory", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, size).unwrap();
    file
}

pub(crate) fn plain_eventfd() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
}

/// Its counter, which is 0 afterwards.
pub(crate) fn count(eventfd: &OwnedFd) -> u64 {
    let mut bytes = [0; 8];
    match read(eventfd, &mut bytes) {
        Ok(_) => u64::from_ne_bytes(bytes),
        Err(_) => 0,
    }
}

pub(crate) fn answer_slow(seen: &Seen) -> usize {
    let slow = take(&mut *seen.slow.lock().unwrap());
    let number = slow.len();
    slow.into_iter().for_each(Answer::done);
    number
}
