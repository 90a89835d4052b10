// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a viewer sends (RFC 6143 §7.5), and the numbers that it sends and gets.

use crate::error::ProtocolError;
use crate::limits::{MAX_CUT_TEXT, MAX_ENCODINGS};
use crate::pixel::{FORMAT_BYTES, PixelFormat};

/// Encodings and pseudo-encodings (RFC 6143 §7.7, §7.8, and the registry that goes on from there).
pub(crate) mod encoding {
    pub(crate) const RAW: i32 = 0;
    pub(crate) const ZRLE: i32 = 16;
    pub(crate) const DESKTOP_SIZE: i32 = -223;
    pub(crate) const CURSOR: i32 = -239;
    pub(crate) const QEMU_EXTENDED_KEY: i32 = -258;
    pub(crate) const EXTENDED_DESKTOP_SIZE: i32 = -308;
    pub(crate) const CURSOR_WITH_ALPHA: i32 = -314;
    /// The least and the most effort to compress.
    pub(crate) const LEVEL_0: i32 = -256;
    pub(crate) const LEVEL_9: i32 = -247;
}

/// A rectangle as RFB has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Area {
    /// Left edge, in pixels.
    pub x: u16,
    /// Upper edge, in pixels.
    pub y: u16,
    /// Width in pixels.
    pub width: u16,
    /// Height in pixels.
    pub height: u16,
}

/// A screen of a desktop's layout (ExtendedDesktopSize).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Screen {
    /// The output's number.
    pub id: u32,
    /// Where it is.
    pub area: Area,
}

/// A key, pressed or released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Whether it goes down.
    pub down: bool,
    /// X11's symbol for what is on it.
    pub symbol: u32,
    /// Where it is on a keyboard: the XT scan code, with 0x80 for those after 0xe0. Only viewers with QEMU's extension say
    /// that.
    pub scan_code: Option<u32>,
}

/// The pointer, at a place and with buttons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pointer {
    /// Column, in pixels.
    pub x: u16,
    /// Row, in pixels.
    pub y: u16,
    /// Bit 0 is the left button, 1 the middle one, 2 the right one; 3 to 6 are the wheel's up, down, left, right.
    pub buttons: u8,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    SetPixelFormat(PixelFormat),
    SetEncodings(Vec<i32>),
    Request {
        incremental: bool,
        area: Area,
    },
    Key(Key),
    Pointer(Pointer),
    SetDesktopSize(Vec<Screen>),
    /// So many more bytes are text, for nobody.
    Skip(u32),
}

/// What came of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// A message, and how many bytes it took.
    Whole(Message, usize),
    /// There have to be more bytes.
    Short,
}

/// A reader of big-endian numbers, which says when there are no more.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn area(&mut self) -> Option<Area> {
        Some(Area {
            x: self.u16()?,
            y: self.u16()?,
            width: self.u16()?,
            height: self.u16()?,
        })
    }
}

/// Reads the first message of `bytes`. The longest has 4100 bytes, and is refused before that where it says so itself.
///
/// # Errors
/// It is none.
pub(crate) fn parse(bytes: &[u8]) -> Result<Parsed, ProtocolError> {
    let mut reader = Reader(bytes);
    let message = message(&mut reader)?;
    let taken = bytes.len().saturating_sub(reader.0.len());
    Ok(message.map_or(Parsed::Short, |message| Parsed::Whole(message, taken)))
}

fn message(reader: &mut Reader<'_>) -> Result<Option<Message>, ProtocolError> {
    let Some(kind) = reader.u8() else {
        return Ok(None);
    };
    match kind {
        0 => {
            let whole = reader.take::<3>().and_then(|_| reader.take());
            let format = whole.map(|it: [u8; FORMAT_BYTES]| PixelFormat::parse(&it));
            Ok(format.transpose()?.map(Message::SetPixelFormat))
        }
        2 => encodings(reader),
        3 => Ok(request(reader)),
        4 => Ok(key(reader)),
        5 => Ok(pointer(reader)),
        6 => cut_text(reader),
        251 => Ok(desktop_size(reader)),
        255 => qemu(reader),
        kind => Err(ProtocolError::Message { kind }),
    }
}

fn encodings(reader: &mut Reader<'_>) -> Result<Option<Message>, ProtocolError> {
    let count = reader.u8().and_then(|_| reader.u16());
    let Some(count) = count else {
        return Ok(None);
    };
    if count > MAX_ENCODINGS {
        return Err(ProtocolError::Encodings { count });
    }
    let listed = (0..count).map(|_| reader.take().map(i32::from_be_bytes));
    Ok(listed.collect::<Option<_>>().map(Message::SetEncodings))
}

fn request(reader: &mut Reader<'_>) -> Option<Message> {
    Some(Message::Request {
        incremental: reader.u8()? != 0,
        area: reader.area()?,
    })
}

fn key(reader: &mut Reader<'_>) -> Option<Message> {
    let down = reader.u8()? != 0;
    reader.u16()?;
    Some(Message::Key(Key {
        down,
        symbol: reader.u32()?,
        scan_code: None,
    }))
}

fn pointer(reader: &mut Reader<'_>) -> Option<Message> {
    let buttons = reader.u8()?;
    Some(Message::Pointer(Pointer {
        x: reader.u16()?,
        y: reader.u16()?,
        buttons,
    }))
}

fn cut_text(reader: &mut Reader<'_>) -> Result<Option<Message>, ProtocolError> {
    let length = reader.take::<3>().and_then(|_| reader.u32());
    match length {
        Some(length) if length > MAX_CUT_TEXT => Err(ProtocolError::CutText { length }),
        length => Ok(length.map(Message::Skip)),
    }
}

fn desktop_size(reader: &mut Reader<'_>) -> Option<Message> {
    reader.take::<5>()?;
    let count = reader.u8()?;
    reader.u8()?;
    let screens = (0..count).map(|_| {
        let screen = Screen {
            id: reader.u32()?,
            area: reader.area()?,
        };
        reader.u32()?;
        Some(screen)
    });
    screens.collect::<Option<_>>().map(Message::SetDesktopSize)
}

fn qemu(reader: &mut Reader<'_>) -> Result<Option<Message>, ProtocolError> {
    match reader.u8() {
        None => Ok(None),
        Some(0) => Ok(extended_key(reader)),
        // Sound, which was not offered.
        Some(_) => Err(ProtocolError::Message { kind: 255 }),
    }
}

fn extended_key(reader: &mut Reader<'_>) -> Option<Message> {
    Some(Message::Key(Key {
        down: reader.u16()? != 0,
        symbol: reader.u32()?,
        scan_code: Some(reader.u32()?),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pixel::NATIVE_BYTES;

    fn whole(bytes: &[u8]) -> Message {
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), Ok(Parsed::Short), "{end}");
        }
        // What follows belongs to the next message.
        let more = [bytes, &[4, 1]].concat();
        match parse(&more) {
            Ok(Parsed::Whole(message, taken)) if taken == bytes.len() => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_message_is_read_whole_or_not_at_all() {
        assert_eq!(
            whole(&[3, 1, 0, 1, 0, 2, 0, 3, 0, 4]),
            Message::Request {
                incremental: true,
                area: Area {
                    x: 1,
                    y: 2,
                    width: 3,
                    height: 4
                }
            }
        );
        assert_eq!(
            whole(&[2, 0, 0, 2, 0, 0, 0, 16, 0xff, 0xff, 0xff, 0x11]),
            Message::SetEncodings(vec![16, -239])
        );
        let key = |down, symbol, scan_code| {
            Message::Key(Key {
                down,
                symbol,
                scan_code,
            })
        };
        assert_eq!(
            whole(&[4, 1, 0, 0, 0, 0, 0xff, 0x0d]),
            key(true, 0xff0d, None)
        );
        assert_eq!(
            whole(&[255, 0, 0, 0, 0, 0, 0, 97, 0, 0, 0, 30]),
            key(false, 97, Some(30))
        );
        assert_eq!(
            whole(&[5, 5, 0, 9, 1, 0]),
            Message::Pointer(Pointer {
                x: 9,
                y: 256,
                buttons: 5
            })
        );
        assert_eq!(whole(&[6, 0, 0, 0, 0, 0, 0, 7]), Message::Skip(7));
        let format = [&[0, 0, 0, 0], &NATIVE_BYTES[..]].concat();
        assert_eq!(
            whole(&format),
            Message::SetPixelFormat(PixelFormat::default())
        );
        let sizes = [
            &[251, 0, 4, 0, 3, 0, 1, 0][..],
            &[0, 0, 0, 5, 0, 0, 0, 0, 4, 0, 3, 0, 0, 0, 0, 0],
        ];
        assert_eq!(
            whole(&sizes.concat()),
            Message::SetDesktopSize(vec![Screen {
                id: 5,
                area: Area {
                    width: 1024,
                    height: 768,
                    ..Area::default()
                }
            }])
        );
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_is_there() {
        assert_eq!(
            parse(&[2, 0, 4, 1]),
            Err(ProtocolError::Encodings { count: 1025 })
        );
        assert_eq!(
            parse(&[6, 0, 0, 0, 0, 0x10, 0, 1]),
            Err(ProtocolError::CutText {
                length: MAX_CUT_TEXT + 1
            })
        );
        for kind in [1, 7, 150, 248, 250] {
            assert_eq!(parse(&[kind]), Err(ProtocolError::Message { kind }));
        }
        assert_eq!(parse(&[255, 1]), Err(ProtocolError::Message { kind: 255 }));
    }
}
