// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One viewer's conversation: bytes in, bytes out. It has no socket, thread or clock.

use std::mem;

use crate::desktop::Desktop;
use crate::encodings::{Encodings, Pointers, Sizes};
use crate::error::ProtocolError;
use crate::message::{Area, Key, Message, Parsed, Pointer, Screen, encoding, parse};
use crate::pixel::NATIVE_BYTES;
use crate::update::{Painter, put_head, put_layout};
use crate::zrle::TILE;

/// What a viewer wants of the device, in the order in which it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// A key.
    Key(Key),
    /// The pointer is there, with these buttons down.
    Pointer(Pointer),
    /// Outputs of other sizes.
    Layout(Vec<Screen>),
}

/// How far the conversation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Its version is to come (RFC 6143 §7.1.1).
    Version,
    /// Its choice of security is to come (§7.1.2). Since 3.8 it is told how that went.
    Security { told: bool },
    /// ClientInit is to come (§7.3.1).
    Init,
    /// ServerInit is to be sent (§7.3.2).
    Greet,
    /// Messages.
    Running,
}

/// What is told with a new size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reason {
    /// 0 is the server's own, 1 that this viewer asked.
    who: u16,
    /// 0 is that it is done, 3 that there is no such layout, 4 that the guest was told and does as it likes.
    status: u16,
}

const CHANGED: Reason = Reason { who: 0, status: 0 };
const FORWARDED: Reason = Reason { who: 1, status: 4 };

const VERSION: &[u8; 12] = b"RFB 003.008\n";
/// No authentication: who may connect is decided by where the server listens.
const SECURITY_NONE: u8 = 1;
/// The name of the desktop.
const NAME: &[u8] = b"Virtio GPU S3";

/// A viewer.
#[derive(Debug)]
pub struct Session {
    phase: Phase,
    /// What has come and is no whole message yet: less than 5 KiB between two calls.
    input: Vec<u8>,
    /// Bytes to come that are for nobody.
    skip: usize,
    encodings: Encodings,
    painter: Painter,
    /// Whether it waits for an update.
    asked: bool,
    /// The arrangement of outputs that `sent` is of.
    arranged: u64,
    /// The change of each tile that it has seen.
    sent: Vec<u64>,
    /// The size that it knows.
    size: (u16, u16),
    /// Why it is to be told the size, if it is.
    tell_size: Option<Reason>,
    /// The change of the pointer's shape that it knows, if it is told.
    pointer: Option<u64>,
    /// Where the pointer was drawn into its picture.
    drawn: Option<(Area, u64)>,
    /// Whether it is to be told that it may send scan codes.
    tell_scan_codes: bool,
}

impl Session {
    /// A conversation that begins with what is in `out` then.
    pub fn new(out: &mut Vec<u8>) -> Self {
        out.extend(VERSION);
        let encodings = Encodings::default();
        Self {
            phase: Phase::Version,
            input: Vec::new(),
            skip: 0,
            encodings,
            painter: Painter::new(&encodings),
            asked: false,
            arranged: 0,
            sent: Vec::new(),
            size: (0, 0),
            tell_size: None,
            pointer: None,
            drawn: None,
            tell_scan_codes: false,
        }
    }

    /// Whether it waits for a picture, or for the size of one.
    pub fn is_waiting(&self) -> bool {
        self.asked || self.phase == Phase::Greet
    }

    /// Whether it has come as far as messages.
    pub fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// Takes what has come. What is answered at once goes to `out`, what others have to do to `wishes`; of both there is
    /// little for each byte that came.
    ///
    /// # Errors
    /// The viewer does not keep to the protocol; nothing more is to be said to it.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        wishes: &mut Vec<Wish>,
    ) -> Result<(), ProtocolError> {
        let skipped = self.skip.min(bytes.len());
        self.skip = self.skip.saturating_sub(skipped);
        let bytes = bytes.get(skipped..).unwrap_or_default();
        let mut input = mem::take(&mut self.input);
        input.extend_from_slice(bytes);
        let mut rest = &input[..];
        while let Some(taken) = self.step(rest, out, wishes)? {
            rest = rest.get(taken..).unwrap_or_default();
            let skipped = self.skip.min(rest.len());
            self.skip = self.skip.saturating_sub(skipped);
            rest = rest.get(skipped..).unwrap_or_default();
        }
        let left = input.len().saturating_sub(rest.len());
        input.drain(..left);
        self.input = input;
        Ok(())
    }

    /// One message, or one step of the beginning. Returns how many bytes it took, `None` if there are too few.
    fn step(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        wishes: &mut Vec<Wish>,
    ) -> Result<Option<usize>, ProtocolError> {
        match self.phase {
            Phase::Version => {
                let Some(version) = bytes.first_chunk() else {
                    return Ok(None);
                };
                self.phase = match security_of(version)? {
                    Security::Decided => {
                        out.extend(u32::from(SECURITY_NONE).to_be_bytes());
                        Phase::Init
                    }
                    Security::Chosen { told } => {
                        out.extend([1, SECURITY_NONE]);
                        Phase::Security { told }
                    }
                };
                Ok(Some(version.len()))
            }
            Phase::Security { told } => match bytes.first() {
                None => Ok(None),
                Some(&SECURITY_NONE) => {
                    if told {
                        out.extend([0; 4]);
                    }
                    self.phase = Phase::Init;
                    Ok(Some(1))
                }
                Some(&chosen) => Err(ProtocolError::SecurityType { chosen }),
            },
            Phase::Init => Ok((!bytes.is_empty()).then(|| {
                // Whether it would share the desktop is not asked: everybody does.
                self.phase = Phase::Greet;
                1
            })),
            Phase::Greet => Ok(None),
            Phase::Running => match parse(bytes)? {
                Parsed::Short => Ok(None),
                Parsed::Whole(message, taken) => {
                    self.take(message, wishes);
                    Ok(Some(taken))
                }
            },
        }
    }

    fn take(&mut self, message: Message, wishes: &mut Vec<Wish>) {
        match message {
            Message::SetPixelFormat(format) => {
                self.painter.format = format;
                self.sent.fill(0);
                self.pointer = None;
            }
            Message::SetEncodings(listed) => self.set_encodings(Encodings::of(&listed)),
            Message::Request { incremental, area } => {
                self.asked = true;
                if !incremental {
                    self.forget(area);
                }
            }
            Message::Key(key) => wishes.push(Wish::Key(key)),
            Message::Pointer(pointer) => wishes.push(Wish::Pointer(pointer)),
            Message::SetDesktopSize(screens) => {
                self.tell_size = Some(FORWARDED);
                wishes.push(Wish::Layout(screens));
            }
            Message::Skip(bytes) => self.skip = usize::try_from(bytes).unwrap_or(usize::MAX),
        }
    }

    fn set_encodings(&mut self, encodings: Encodings) {
        if encodings.sizes == Sizes::Layout && self.encodings.sizes != Sizes::Layout {
            self.tell_size = Some(CHANGED);
        }
        self.tell_scan_codes |= encodings.scan_codes && !self.encodings.scan_codes;
        if encodings.pointers != self.encodings.pointers {
            // A pointer that was drawn into the picture has to go, or to come.
            self.pointer = None;
            self.drawn = None;
            self.sent.fill(0);
        }
        self.encodings = encodings;
    }

    /// What lies there it has to see anew.
    fn forget(&mut self, area: Area) {
        let columns = usize::from(self.size.0.div_ceil(TILE)).max(1);
        let span = |start: u16, length: u16| {
            let end = usize::from(start).saturating_add(length.into());
            (usize::from(start / TILE), end.div_ceil(TILE.into()))
        };
        let (left, right) = span(area.x, area.width);
        let (top, bottom) = span(area.y, area.height);
        let rows = self.sent.chunks_mut(columns).take(bottom).skip(top);
        for tile in rows.flat_map(|row| row.iter_mut().take(right).skip(left)) {
            *tile = 0;
        }
    }

    /// Answers the viewer's request, if it has one and there is something to answer with. Nothing may be waiting to be
    /// sent to it: what is made here is bounded, and the only thing that is.
    pub fn update(&mut self, desktop: &Desktop, out: &mut Vec<u8>) -> bool {
        if desktop.arranged() == 0 {
            return false;
        }
        if self.phase == Phase::Greet {
            self.greet(desktop, out);
            return true;
        }
        if !self.asked {
            return false;
        }
        let start = out.len();
        out.extend([0; 4]);
        let count = self.put_rects(desktop, out);
        if count == 0 {
            out.truncate(start);
            return false;
        }
        let [high, low] = count.to_be_bytes();
        if let Some(head) = out.get_mut(start..).and_then(|it| it.first_chunk_mut()) {
            *head = [0, 0, high, low];
        }
        self.asked = false;
        true
    }

    fn greet(&mut self, desktop: &Desktop, out: &mut Vec<u8>) {
        self.size = desktop.size();
        self.follow(desktop);
        out.extend(self.size.0.to_be_bytes());
        out.extend(self.size.1.to_be_bytes());
        out.extend(NATIVE_BYTES);
        out.extend(u32::try_from(NAME.len()).unwrap_or(0).to_be_bytes());
        out.extend(NAME);
        self.phase = Phase::Running;
    }

    /// Has nothing sent yet where the outputs are others.
    fn follow(&mut self, desktop: &Desktop) {
        if self.arranged != desktop.arranged() {
            self.arranged = desktop.arranged();
            self.sent.clear();
            self.sent.resize(desktop.tiles().len(), 0);
            self.drawn = None;
        }
    }

    fn put_rects(&mut self, desktop: &Desktop, out: &mut Vec<u8>) -> u16 {
        self.follow(desktop);
        if self.put_size(desktop, out) {
            // The viewer makes itself a new picture then, and asks for it.
            return 1;
        }
        let mut count = 0_u16;
        if mem::take(&mut self.tell_scan_codes) {
            put_head(Area::default(), encoding::QEMU_EXTENDED_KEY, out);
            count = count.saturating_add(1);
        }
        let (cursor, change) = desktop.cursor();
        if self.encodings.pointers == Pointers::Drawn {
            self.redraw_pointer(desktop, change);
        } else if self.pointer != Some(change) {
            self.painter
                .put_pointer(cursor, self.encodings.pointers, out);
            self.pointer = Some(change);
            count = count.saturating_add(1);
        }
        let tiles =
            self.painter
                .put_tiles(desktop, &mut self.sent, self.size, &self.encodings, out);
        count.saturating_add(tiles)
    }

    fn put_size(&mut self, desktop: &Desktop, out: &mut Vec<u8>) -> bool {
        let size = desktop.size();
        let reason = match self.encodings.sizes {
            Sizes::Fixed => return false,
            Sizes::Told if size != self.size => CHANGED,
            Sizes::Told => return false,
            Sizes::Layout => match self.tell_size.take() {
                Some(reason) => reason,
                None if size != self.size => CHANGED,
                None => return false,
            },
        };
        if self.encodings.sizes == Sizes::Layout {
            let Reason { who, status } = reason;
            put_layout(size, (who, status), &desktop.screens(), out);
        } else {
            let (width, height) = size;
            let area = Area {
                width,
                height,
                ..Area::default()
            };
            put_head(area, encoding::DESKTOP_SIZE, out);
        }
        if size != self.size {
            self.size = size;
            self.sent.fill(0);
        }
        true
    }

    /// A pointer that moved, or looks otherwise, leaves the picture where it was and comes where it is.
    fn redraw_pointer(&mut self, desktop: &Desktop, change: u64) {
        let now = desktop.cursor_area().map(|area| (area, change));
        if now != self.drawn {
            let both = [self.drawn.take(), now];
            for (area, _) in both.into_iter().flatten() {
                self.forget(area);
            }
            self.drawn = now;
        }
    }
}

/// How security is agreed upon, which is what the versions differ in.
enum Security {
    /// The server says which it is: before 3.7.
    Decided,
    /// The viewer chooses, and since 3.8 is told how that went.
    Chosen { told: bool },
}

fn security_of(version: &[u8; 12]) -> Result<Security, ProtocolError> {
    let [b'R', b'F', b'B', b' ', a, b, c, b'.', d, e, f, b'\n'] = *version else {
        return Err(ProtocolError::NotRfb);
    };
    if ![a, b, c, d, e, f].iter().all(u8::is_ascii_digit) {
        return Err(ProtocolError::NotRfb);
    }
    // As text they compare like numbers; what is no version of the protocol is taken for 3.3 (RFC 6143 §7.1.1).
    Ok(match [a, b, c, d, e, f] {
        older if older < *b"003007" => Security::Decided,
        older if older < *b"003008" => Security::Chosen { told: false },
        _ => Security::Chosen { told: true },
    })
}
