// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One VMM's messages, with files, from bytes: for the fuzzer and the tests.

use std::io::{IoSlice, Read};
use std::mem::{MaybeUninit, take};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread;

use rustix::cmsg_space;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use crate::answer::{Answer, ReadAnswer};
use crate::connection::Connection;
use crate::device::{Device, DeviceInfo, Goodbye};
use crate::dma::{DmaMemory, MemoryChange};
use crate::interrupts::{Interrupts, IrqChange, IrqCounts};
use crate::limits::{MAX_DATA_XFER, MAX_DMA_MAPS, MAX_IN_FLIGHT, PAGE_SIZE};
use crate::lobby::Admitted;
use crate::stream::Stream;
use crate::wire::{Access, HEADER_SIZE};

const IRQS: IrqCounts = IrqCounts {
    msix: 3,
    intx: true,
};
const INFO: DeviceInfo = DeviceInfo {
    regions: [0x4000, 0x1000, 0, 0, 0, 0, 0, 256, 0],
    irqs: IRQS,
};
/// Messages in one program.
const MAX_MESSAGES: usize = 64;
/// Pages of each file of memory.
const FILE_PAGES: u64 = 4;

/// Sends the messages that `bytes` stand for to a connection, with files, some of them cut short later, and checks what
/// must hold after each: accesses are within their regions, no more is in flight than may be, memory is read and written
/// wherever the device is told that it can, every reply is one, and there are no more replies than messages, as the lengths
/// that were sent cut them.
///
/// # Panics
/// Something does not hold.
pub fn run_messages(bytes: &[u8]) {
    let (server, client) = UnixStream::pair().expect("sockets");
    let mut program = Program::new(bytes);
    let reader = client.try_clone().expect("a second handle");
    let sent = thread::scope(|scope| {
        let served = scope.spawn(move || serve(server));
        let replies = scope.spawn(move || count_replies(reader));
        let mut sent = 0;
        while sent < MAX_MESSAGES && program.send_one(&client) {
            sent += 1;
        }
        // What follows is nothing, in the middle of a message or not.
        let _closed = client.shutdown(Shutdown::Write);
        // The scope does not wait for a thread's own clean-up, which a leak checker sees.
        served
            .join()
            .expect("a device that all invariants hold for");
        let replies = replies.join().expect("replies that make sense");
        let messages = count_messages(&program.sent);
        assert!(
            replies <= messages,
            "{replies} replies to {messages} messages"
        );
        sent
    });
    assert!(sent <= MAX_MESSAGES);
}

fn serve(socket: UnixStream) {
    let admitted = Admitted {
        stream: Stream::new(socket).expect("a socket"),
        max_data: MAX_DATA_XFER,
    };
    let mut device = Probe {
        interrupts: Interrupts::new(IRQS),
        memory: DmaMemory::default(),
        late: Vec::new(),
        accesses: 0,
    };
    let mut connection = Connection::new(admitted, &INFO).expect("a connection");
    // That it ends is all that is asked of a bad one.
    let _ended = connection.run(&mut device);
    drop(device);
    drop(connection.into_memory());
}

/// Messages in a stream, each as long as it says. One that says less than a header ends the stream. A length that lies
/// makes others of the messages that were meant, and maybe more.
fn count_messages(mut stream: &[u8]) -> usize {
    let mut messages = 0;
    while let [_, _, _, _, s0, s1, s2, s3, ..] = *stream
        && stream.len() >= HEADER_SIZE
    {
        messages += 1;
        let size = usize::try_from(u32::from_ne_bytes([s0, s1, s2, s3])).unwrap_or(0);
        if size < HEADER_SIZE {
            break;
        }
        stream = stream.get(size..).unwrap_or_default();
    }
    messages
}

/// Each is whole, and is a reply.
fn count_replies(mut reader: UnixStream) -> usize {
    let mut replies = 0;
    let mut head = [0; HEADER_SIZE];
    while reader.read_exact(&mut head).is_ok() {
        let [_, _, _, _, s0, s1, s2, s3, kind, ..] = head;
        let size = usize::try_from(u32::from_ne_bytes([s0, s1, s2, s3])).unwrap_or(0);
        let body = size.checked_sub(HEADER_SIZE).expect("a size with a header");
        assert!(kind == 1 || (kind == 0x21 && body == 0), "{head:x?}");
        let mut rest = vec![0; body];
        if reader.read_exact(&mut rest).is_err() {
            break;
        }
        replies += 1;
    }
    replies
}

/// A device that touches all that it may.
struct Probe {
    interrupts: Interrupts,
    memory: DmaMemory,
    late: Vec<Answer>,
    accesses: u64,
}

impl Probe {
    fn access(&mut self, access: Access) {
        let size = INFO.regions.get(access.region as usize);
        let end = access.offset + u64::from(access.length);
        assert!(access.length > 0 && size.is_some_and(|&size| end <= size));
        self.accesses += 1;
        for region in self.memory.iter() {
            let start = region.start_addr();
            let last = region.last_addr();
            assert!(self.memory.find_region(last).is_some());
            // A cut file reads as zeros; a read-only one is not written to, which would end the connection, as it must.
            let mut byte = [0];
            for address in [start, last] {
                let read = self.memory.read_slice(&mut byte, address);
                assert!(read.is_ok());
            }
            if self.accesses.is_multiple_of(4) {
                let written = self.memory.write_slice(&byte, GuestAddress(last.0));
                assert!(written.is_ok());
            }
        }
        for vector in 0..=IRQS.msix {
            self.interrupts.signal(vector);
        }
        self.interrupts.set_intx(self.accesses.is_multiple_of(2));
        assert!(self.late.len() <= MAX_IN_FLIGHT);
    }
}

impl Device for Probe {
    fn disconnected(&mut self, _goodbye: Goodbye) {}

    fn read(&mut self, access: Access, mut answer: ReadAnswer) {
        self.access(access);
        assert_eq!(answer.data().len(), access.length as usize);
        answer.done();
        take(&mut self.late).into_iter().for_each(Answer::done);
    }

    fn write(&mut self, access: Access, data: &[u8], answer: Answer) {
        self.access(access);
        assert_eq!(data.len(), access.length as usize);
        match data.first() {
            Some(0x10..) => answer.done(),
            Some(0..8) if self.late.len() < MAX_IN_FLIGHT - 1 => self.late.push(answer),
            // Dropped.
            _ => {}
        }
    }

    fn reset(&mut self, answer: Answer) {
        answer.done();
    }

    fn set_memory(&mut self, memory: &DmaMemory, change: MemoryChange, answer: Answer) {
        let (before, after) = (self.memory.num_regions(), memory.num_regions());
        match change {
            MemoryChange::Added { .. } => assert_eq!(after, before + 1),
            MemoryChange::Removed { .. } => assert!(after < before),
        }
        assert!(after <= MAX_DMA_MAPS);
        self.memory = memory.clone();
        answer.done();
    }

    fn with_interrupts(&mut self, change: &mut dyn FnMut(&mut Interrupts) -> IrqChange) {
        if let IrqChange::Vectors(vectors) = change(&mut self.interrupts) {
            assert!(vectors.start <= vectors.end && vectors.end <= IRQS.msix);
        }
    }
}

/// What a client does, byte for byte.
struct Program<'a> {
    bytes: &'a [u8],
    /// The last file of memory that went out.
    memory: Option<OwnedFd>,
    /// Every byte that went out.
    sent: Vec<u8>,
}

impl<'a> Program<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            memory: None,
            sent: Vec::new(),
        }
    }

    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(byte)
    }

    fn some(&mut self, number: usize) -> &'a [u8] {
        let (some, rest) = self.bytes.split_at(number.min(self.bytes.len()));
        self.bytes = rest;
        some
    }

    /// A number that is small, near a bound, or any.
    fn number(&mut self) -> u64 {
        match self.byte().unwrap_or(0) {
            small @ 0..0x80 => small.into(),
            page @ 0x80..0xe0 => u64::from(page - 0x80) * PAGE_SIZE,
            below @ 0xe0..0xf0 => u64::from(below - 0xe0)
                .wrapping_mul(PAGE_SIZE)
                .wrapping_neg(),
            _ => {
                let mut any = [0; 8];
                any.iter_mut()
                    .zip(self.some(8))
                    .for_each(|(to, &from)| *to = from);
                u64::from_ne_bytes(any)
            }
        }
    }

    fn words<const N: usize>(&mut self, body: &mut Vec<u8>) {
        for _ in 0..N {
            let number = self.number() & u64::from(u32::MAX);
            body.extend(u32::try_from(number).unwrap_or(0).to_ne_bytes());
        }
    }

    fn longs<const N: usize>(&mut self, body: &mut Vec<u8>) {
        for _ in 0..N {
            body.extend(self.number().to_ne_bytes());
        }
    }

    /// Sends the next message. Returns false at the program's end, or the connection's.
    fn send_one(&mut self, client: &UnixStream) -> bool {
        let Some(command) = self.byte() else {
            return false;
        };
        let mut body = Vec::new();
        let mut message = Vec::new();
        match command % 16 {
            // A file of memory is cut short.
            0 => {
                if let Some(memory) = &self.memory {
                    let _cut = ftruncate(memory, PAGE_SIZE);
                }
                return true;
            }
            1 => body.extend(self.some(24)),
            2 => {
                self.words::<2>(&mut body);
                self.longs::<3>(&mut body);
            }
            3 => {
                self.words::<2>(&mut body);
                self.longs::<2>(&mut body);
            }
            9 | 10 => {
                self.longs::<1>(&mut body);
                self.words::<2>(&mut body);
                body.extend(self.some(usize::from(command / 16)));
            }
            _ => {
                self.words::<5>(&mut body);
                body.extend(self.some(usize::from(command / 64)));
            }
        }
        let lie = self.byte().unwrap_or(0);
        let size = HEADER_SIZE + body.len();
        let size = match lie {
            0..0xf0 => size,
            0xf0..0xf8 => size.saturating_sub(usize::from(lie & 7)),
            _ => size.wrapping_add(1 << (lie & 7)),
        };
        let flags = if lie & 0xf == 1 {
            0x10
        } else {
            u32::from(lie == 0xff)
        };
        message.extend(u16::from(lie).to_ne_bytes());
        message.extend(u16::from(command % 16).to_ne_bytes());
        message.extend(u32::try_from(size).unwrap_or(u32::MAX).to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend([0; 4]);
        message.extend(body);
        self.send(client, &message)
    }

    fn send(&mut self, client: &UnixStream, message: &[u8]) -> bool {
        let files: Vec<OwnedFd> = self.files();
        let borrowed: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(32))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !borrowed.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(&borrowed)));
        }
        let bytes = [IoSlice::new(message)];
        let Ok(sent) = sendmsg(client, &bytes, &mut control, SendFlags::NOSIGNAL) else {
            return false;
        };
        self.sent.extend(message.iter().take(sent));
        true
    }

    fn files(&mut self) -> Vec<OwnedFd> {
        let which = self.byte().unwrap_or(0);
        let number = match which {
            0..0x40 => 0,
            0x40..0xf0 => usize::from(which & 3),
            _ => usize::from(which & 0xf) * 2,
        };
        (0..number).map(|_| self.file(which / 4 % 4)).collect()
    }

    fn file(&mut self, kind: u8) -> OwnedFd {
        let memfd = || memfd_create("memory", MemfdFlags::CLOEXEC).expect("a memfd");
        match kind {
            0 => eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd"),
            1 => eventfd(u32::MAX, EventfdFlags::CLOEXEC).expect("an eventfd"),
            2 => {
                let file = memfd();
                ftruncate(&file, FILE_PAGES * PAGE_SIZE).expect("a size");
                self.memory = file.try_clone().ok();
                file
            }
            _ => memfd(),
        }
    }
}
