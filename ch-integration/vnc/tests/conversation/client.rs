// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A viewer that knows nothing of the server's code: what it decodes is what RFC 6143 says.

use std::collections::BTreeSet;

use flate2::{Decompress, FlushDecompress};
use virtio_gpu_vnc::{Desktop, ProtocolError, Session, Wish};

type Pair = (u16, u16);

/// A viewer's side, with the server's session in it.
pub(crate) struct Client {
    pub(crate) session: Session,
    pub(crate) size: (u16, u16),
    /// 0x00RRGGBB.
    pub(crate) pixels: Vec<u32>,
    /// The layouts that it was told: reason and status, and the outputs' sizes.
    pub(crate) layouts: Vec<(Pair, Vec<Pair>)>,
    /// Pointers that it was told: where they point, their size, and the encoding.
    pub(crate) pointers: Vec<(Pair, Pair, i32)>,
    pub(crate) may_send_scan_codes: bool,
    /// Forms of tiles that came: 0 is raw, 1 one colour, 2, 3 and 4 are packed indices of 1, 2 and 4 bits, 128 is runs, 129
    /// runs of a palette.
    pub(crate) forms: BTreeSet<u8>,
    /// Bytes of the last update.
    pub(crate) bytes: usize,
    zlib: Decompress,
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(count);
        self.0 = rest;
        head
    }

    fn u8(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().unwrap())
    }

    fn i32(&mut self) -> i32 {
        i32::from_be_bytes(self.take(4).try_into().unwrap())
    }

    /// Ours: blue, green, red.
    fn pixel(&mut self) -> u32 {
        let bytes = self.take(3);
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0])
    }
}

impl Client {
    /// Goes through the beginning, as far as ServerInit.
    pub(crate) fn new(desktop: &Desktop) -> Self {
        let mut out = Vec::new();
        let session = Session::new(&mut out);
        assert_eq!(out, b"RFB 003.008\n");
        let mut client = Self {
            session,
            size: (0, 0),
            pixels: Vec::new(),
            layouts: Vec::new(),
            pointers: Vec::new(),
            may_send_scan_codes: false,
            forms: BTreeSet::new(),
            bytes: 0,
            zlib: Decompress::new(true),
        };
        assert_eq!(client.say(b"RFB 003.008\n").unwrap().0, [1, 1]);
        assert_eq!(client.say(&[1]).unwrap().0, [0; 4]);
        assert!(client.say(&[1]).unwrap().0.is_empty());
        let mut out = Vec::new();
        assert!(client.session.update(desktop, &mut out));
        let mut bytes = Bytes(&out);
        client.be_sized((bytes.u16(), bytes.u16()));
        assert_eq!(bytes.take(4), [32, 24, 0, 1]);
        bytes.take(12);
        let length = usize::try_from(bytes.i32()).unwrap();
        assert_eq!(bytes.take(length), b"Virtio GPU S3");
        assert!(bytes.0.is_empty());
        client
    }

    /// Sends bytes, and gives what came back at once and what others have to do.
    pub(crate) fn say(&mut self, bytes: &[u8]) -> Result<(Vec<u8>, Vec<Wish>), ProtocolError> {
        let (mut out, mut wishes) = (Vec::new(), Vec::new());
        self.session.receive(bytes, &mut out, &mut wishes)?;
        Ok((out, wishes))
    }

    pub(crate) fn list(&mut self, encodings: &[i32]) {
        let count = u16::try_from(encodings.len()).unwrap().to_be_bytes();
        let listed = encodings.iter().flat_map(|it| it.to_be_bytes());
        let message: Vec<u8> = [2, 0].into_iter().chain(count).chain(listed).collect();
        self.say(&message).unwrap();
    }

    /// Asks for everything, or for what is new.
    pub(crate) fn ask(&mut self, incremental: bool) {
        let (width, height) = (self.size.0.to_be_bytes(), self.size.1.to_be_bytes());
        let message = [&[3, u8::from(incremental), 0, 0, 0, 0], &width[..], &height];
        self.say(&message.concat()).unwrap();
    }

    /// Takes an update, if there is one, and gives how many rectangles it had.
    pub(crate) fn look(&mut self, desktop: &Desktop) -> Option<u16> {
        let mut out = Vec::new();
        if !self.session.update(desktop, &mut out) {
            assert!(out.is_empty());
            return None;
        }
        self.bytes = out.len();
        let mut bytes = Bytes(&out);
        assert_eq!(bytes.take(2), [0, 0]);
        let count = bytes.u16();
        for _ in 0..count {
            self.rect(&mut bytes);
        }
        assert!(bytes.0.is_empty(), "{} bytes too many", bytes.0.len());
        Some(count)
    }

    /// Asks until there is nothing new, and gives how many updates that took.
    pub(crate) fn look_until_quiet(&mut self, desktop: &Desktop) -> usize {
        (0..)
            .take_while(|_| {
                self.ask(true);
                self.look(desktop).is_some()
            })
            .count()
    }

    fn be_sized(&mut self, (width, height): (u16, u16)) {
        self.size = (width, height);
        self.pixels = vec![0; usize::from(width) * usize::from(height)];
    }

    fn rect(&mut self, bytes: &mut Bytes<'_>) {
        let [x, y, width, height] = [(); 4].map(|()| bytes.u16());
        let area = usize::from(width) * usize::from(height);
        match bytes.i32() {
            0 => {
                for at in 0..area {
                    let pixel = bytes.take(4);
                    let pixel = u32::from_le_bytes(pixel.try_into().unwrap());
                    self.put((x, y, width), at, pixel);
                }
            }
            16 => {
                let length = usize::try_from(bytes.i32()).unwrap();
                let tiles = self.inflate(bytes.take(length));
                self.zrle((x, y, width, height), &tiles);
            }
            -223 => self.be_sized((width, height)),
            -258 => self.may_send_scan_codes = true,
            -308 => {
                let count = bytes.u8();
                bytes.take(3);
                let screens = (0..count).map(|_| {
                    bytes.take(8);
                    let size = (bytes.u16(), bytes.u16());
                    bytes.take(4);
                    size
                });
                self.layouts.push(((x, y), screens.collect()));
                if (width, height) != self.size {
                    self.be_sized((width, height));
                }
            }
            -314 => {
                assert_eq!(bytes.i32(), 0);
                bytes.take(area * 4);
                self.pointers.push(((x, y), (width, height), -314));
            }
            -239 => {
                bytes.take(area * 4 + usize::from(width).div_ceil(8) * usize::from(height));
                self.pointers.push(((x, y), (width, height), -239));
            }
            other => panic!("encoding {other}"),
        }
    }

    fn put(&mut self, (x, y, width): (u16, u16, u16), at: usize, pixel: u32) {
        let (x, y, width) = (usize::from(x), usize::from(y), usize::from(width));
        let (column, row) = (x + at % width, y + at / width);
        assert!(column < self.size.0.into() && row < self.size.1.into());
        self.pixels[row * usize::from(self.size.0) + column] = pixel;
    }

    fn inflate(&mut self, compressed: &[u8]) -> Vec<u8> {
        let mut tiles = Vec::new();
        let before = self.zlib.total_in();
        loop {
            let taken = usize::try_from(self.zlib.total_in() - before).unwrap();
            if taken == compressed.len() && tiles.len() < tiles.capacity() {
                return tiles;
            }
            tiles.reserve(1 << 16);
            self.zlib
                .decompress_vec(&compressed[taken..], &mut tiles, FlushDecompress::Sync)
                .unwrap();
        }
    }

    fn zrle(&mut self, (x, y, width, height): (u16, u16, u16, u16), tiles: &[u8]) {
        let mut bytes = Bytes(tiles);
        for top in (0..height).step_by(64) {
            for left in (0..width).step_by(64) {
                let (wide, tall) = (64.min(width - left), 64.min(height - top));
                self.forms.insert(match bytes.0[0] {
                    3..=4 => 3,
                    5..=16 => 4,
                    129..=255 => 129,
                    form => form,
                });
                let pixels = tile(&mut bytes, wide.into(), tall.into());
                assert_eq!(pixels.len(), usize::from(wide) * usize::from(tall));
                for (at, pixel) in pixels.into_iter().enumerate() {
                    self.put((x + left, y + top, wide), at, pixel);
                }
            }
        }
        assert!(bytes.0.is_empty());
    }
}

/// RFC 6143 §7.7.6.
fn tile(bytes: &mut Bytes<'_>, width: usize, height: usize) -> Vec<u32> {
    let area = width * height;
    let kind = usize::from(bytes.u8());
    match kind {
        0 => (0..area).map(|_| bytes.pixel()).collect(),
        1 => vec![bytes.pixel(); area],
        2..=16 => {
            let palette: Vec<u32> = (0..kind).map(|_| bytes.pixel()).collect();
            let bits = match kind {
                2 => 1,
                3..=4 => 2,
                _ => 4,
            };
            let mut pixels = Vec::new();
            for _ in 0..height {
                let row = bytes.take((width * bits).div_ceil(8));
                pixels.extend((0..width).map(|x| {
                    let shift = 8 - bits - x * bits % 8;
                    let index = row[x * bits / 8] >> shift & ((1 << bits) - 1);
                    palette[usize::from(index)]
                }));
            }
            pixels
        }
        128 => runs(area, |pixels| {
            let pixel = bytes.pixel();
            pixels.extend(vec![pixel; length(bytes)]);
        }),
        130..=255 => {
            let palette: Vec<u32> = (0..kind - 128).map(|_| bytes.pixel()).collect();
            runs(area, |pixels| {
                let index = bytes.u8();
                let count = if index >= 128 { length(bytes) } else { 1 };
                pixels.extend(vec![palette[usize::from(index & 127)]; count]);
            })
        }
        other => panic!("tile of kind {other}"),
    }
}

fn runs(area: usize, mut run: impl FnMut(&mut Vec<u32>)) -> Vec<u32> {
    let mut pixels = Vec::new();
    while pixels.len() < area {
        run(&mut pixels);
    }
    pixels
}

fn length(bytes: &mut Bytes<'_>) -> usize {
    let mut length = 1;
    loop {
        let more = bytes.u8();
        length += usize::from(more);
        if more != 255 {
            return length;
        }
    }
}
