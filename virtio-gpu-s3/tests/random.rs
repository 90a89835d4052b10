// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Random guests: against a small model that does everything the slow and obvious way, and
//! against nothing but the device's own invariants.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use virtio_gpu_s3::protocol::{Queue, ResponseType};
use virtio_gpu_s3::{Activation, Gpu, Image, NullRenderer, PixelFormat, Rect, ResetKind};
use virtio_gpu_s3_testing::{
    GpuDriver, GuestBuffer, Layout, Screen, Transport, config, pattern, run_program,
};

const OK: ResponseType = ResponseType::OK_NODATA;
const UNSPEC: ResponseType = ResponseType::ERR_UNSPEC;
const RESOURCE_ID: ResponseType = ResponseType::ERR_INVALID_RESOURCE_ID;
const PARAMETER: ResponseType = ResponseType::ERR_INVALID_PARAMETER;

const OUTPUT: (u32, u32) = (24, 20);
const BUFFERS: usize = 4;

#[derive(Clone, Debug)]
enum Op {
    Create {
        id: u32,
        format: usize,
        width: u32,
        height: u32,
    },
    Unref {
        id: u32,
    },
    Attach {
        id: u32,
        buffer: usize,
    },
    Detach {
        id: u32,
    },
    Write {
        buffer: usize,
        seed: u32,
    },
    Transfer {
        id: u32,
        rect: Rect,
        offset: u64,
    },
    SetScanout {
        scanout: u32,
        id: u32,
        rect: Rect,
    },
    Flush {
        id: u32,
        rect: Rect,
    },
    Wake(Activation),
    FullReset,
}

fn rect() -> impl Strategy<Value = Rect> {
    let side = || prop_oneof![8 => 0_u32..20, 1 => Just(u32::MAX), 1 => Just(1 << 31)];
    (side(), side(), side(), side()).prop_map(|(x, y, width, height)| Rect {
        x,
        y,
        width,
        height,
    })
}

fn op() -> impl Strategy<Value = Op> {
    let id = || 0_u32..6;
    let side = || 0_u32..20;
    let buffer = || 0..BUFFERS;
    prop_oneof![
        4 => (id(), 0..8_usize, side(), side())
            .prop_map(|(id, format, width, height)| Op::Create { id, format, width, height }),
        1 => id().prop_map(|id| Op::Unref { id }),
        4 => (id(), buffer()).prop_map(|(id, buffer)| Op::Attach { id, buffer }),
        1 => id().prop_map(|id| Op::Detach { id }),
        2 => (buffer(), any::<u32>()).prop_map(|(buffer, seed)| Op::Write { buffer, seed }),
        8 => (id(), rect(), prop_oneof![4 => 0_u64..200, 1 => any::<u64>()])
            .prop_map(|(id, rect, offset)| Op::Transfer { id, rect, offset }),
        6 => (0..2_u32, id(), rect())
            .prop_map(|(scanout, id, rect)| Op::SetScanout { scanout, id, rect }),
        6 => (id(), rect()).prop_map(|(id, rect)| Op::Flush { id, rect }),
        2 => prop_oneof![Just(Activation::Retained), Just(Activation::Reinstated)]
            .prop_map(Op::Wake),
        1 => Just(Op::FullReset),
    ]
}

#[derive(Clone)]
struct Picture {
    format: PixelFormat,
    width: u32,
    height: u32,
    /// Red, green, blue, alpha.
    pixels: Vec<[u8; 4]>,
    buffer: Option<usize>,
    retained: bool,
}

/// The whole of the device's 2D behaviour, one pixel at a time.
#[derive(Default)]
struct Model {
    resources: BTreeMap<u32, Picture>,
    scanouts: [Option<(u32, Rect)>; 2],
    memory: BTreeMap<usize, Vec<u8>>,
}

fn inside(rect: Rect, picture: &Picture) -> bool {
    let fits = |start: u32, length: u32, size: u32| {
        u64::from(start) + u64::from(length) <= u64::from(size)
    };
    fits(rect.x, rect.width, picture.width) && fits(rect.y, rect.height, picture.height)
}

impl Model {
    fn apply(&mut self, op: &Op) -> ResponseType {
        match *op {
            Op::Create {
                id,
                format,
                width,
                height,
            } => self.create(id, format, width, height),
            Op::Unref { id } => {
                if self.resources.remove(&id).is_none() {
                    return RESOURCE_ID;
                }
                self.unbind(id);
                OK
            }
            Op::Attach { id, buffer } => self.name(id, |picture| {
                if picture.buffer.is_some() {
                    return UNSPEC;
                }
                picture.buffer = Some(buffer);
                OK
            }),
            Op::Detach { id } => self.name(id, |picture| match picture.buffer.take() {
                Some(_) => OK,
                None => UNSPEC,
            }),
            Op::Write { buffer, seed } => {
                let memory = self.memory.get_mut(&buffer).unwrap();
                *memory = pattern(seed, memory.len());
                OK
            }
            Op::Transfer { id, rect, offset } => {
                let memory = self.memory.clone();
                self.name(id, |picture| transfer(picture, rect, offset, &memory))
            }
            Op::SetScanout { scanout, id, rect } => self.set_scanout(scanout, id, rect),
            Op::Flush { id, rect } => {
                self.name(
                    id,
                    |picture| {
                        if inside(rect, picture) { OK } else { PARAMETER }
                    },
                )
            }
            Op::Wake(how) => {
                for picture in self.resources.values_mut() {
                    picture.retained = how == Activation::Retained;
                }
                OK
            }
            Op::FullReset => {
                self.resources.clear();
                self.scanouts = [None; 2];
                OK
            }
        }
    }

    fn name(&mut self, id: u32, act: impl FnOnce(&mut Picture) -> ResponseType) -> ResponseType {
        let Some(picture) = self.resources.get_mut(&id) else {
            return RESOURCE_ID;
        };
        picture.retained = false;
        act(picture)
    }

    fn create(&mut self, id: u32, format: usize, width: u32, height: u32) -> ResponseType {
        if id == 0 || self.resources.get(&id).is_some_and(|old| !old.retained) {
            return RESOURCE_ID;
        }
        if width == 0 || height == 0 {
            return PARAMETER;
        }
        self.unbind(id);
        let picture = Picture {
            format: PixelFormat::ALL[format],
            width,
            height,
            pixels: vec![[0; 4]; (width * height) as usize],
            buffer: None,
            retained: false,
        };
        self.resources.insert(id, picture);
        OK
    }

    fn unbind(&mut self, id: u32) {
        for scanout in &mut self.scanouts {
            scanout.take_if(|(shown, _)| *shown == id);
        }
    }

    fn set_scanout(&mut self, scanout: u32, id: u32, rect: Rect) -> ResponseType {
        if id == 0 {
            self.scanouts[scanout as usize] = None;
            return OK;
        }
        let answer = self.name(id, |picture| {
            let empty = rect.width == 0 || rect.height == 0;
            if empty || !inside(rect, picture) {
                PARAMETER
            } else {
                OK
            }
        });
        if answer == OK {
            self.scanouts[scanout as usize] = Some((id, rect));
        }
        answer
    }

    fn image(&self, scanout: usize) -> Image {
        let Some((id, rect)) = self.scanouts[scanout] else {
            return Image::black(OUTPUT.0, OUTPUT.1);
        };
        let picture = &self.resources[&id];
        let mut image = Image::black(rect.width, rect.height);
        let mut at = 0;
        for y in rect.y..rect.y + rect.height {
            for x in rect.x..rect.x + rect.width {
                let [red, green, blue, _] = picture.pixels[(y * picture.width + x) as usize];
                image.pixels[at..at + 4].copy_from_slice(&[red, green, blue, 255]);
                at += 4;
            }
        }
        image
    }
}

fn transfer(
    picture: &mut Picture,
    rect: Rect,
    offset: u64,
    memory: &BTreeMap<usize, Vec<u8>>,
) -> ResponseType {
    if !inside(rect, picture) {
        return PARAMETER;
    }
    let Some(buffer) = picture.buffer else {
        return UNSPEC;
    };
    let memory = &memory[&buffer];
    let source = |x: u32, y: u32| {
        let at = u64::from((y * picture.width + x) * 4).checked_add(offset)?;
        let at = usize::try_from(at).ok()?;
        memory.get(at..at.checked_add(4)?)
    };
    let mut copied = Vec::new();
    for y in 0..rect.height {
        for x in 0..rect.width {
            let Some(bytes) = source(x, y) else {
                return PARAMETER;
            };
            let pixel = picture.format.to_rgba(bytes.try_into().unwrap());
            copied.push((((rect.y + y) * picture.width + rect.x + x) as usize, pixel));
        }
    }
    for (at, pixel) in copied {
        picture.pixels[at] = pixel;
    }
    OK
}

struct Pair {
    driver: GpuDriver,
    screen: Screen,
    model: Model,
    buffers: Vec<GuestBuffer>,
}

impl Pair {
    fn new() -> Self {
        let (mut driver, screen) = GpuDriver::with_screen(2, OUTPUT.0, OUTPUT.1);
        let mut model = Model::default();
        let layouts = [Layout::Contiguous, Layout::Pages, Layout::Pages];
        let mut buffers: Vec<_> = layouts
            .into_iter()
            .map(|layout| driver.ram.alloc(2 * 4096, layout))
            .collect();
        buffers.push(GuestBuffer::of(&[
            (0x10_0003, 77),
            (0x20_0000, 0),
            (0x30_0ffd, 501),
        ]));
        for (index, buffer) in buffers.iter().enumerate() {
            model.memory.insert(index, vec![0; buffer.len()]);
        }
        Self {
            driver,
            screen,
            model,
            buffers,
        }
    }

    fn apply(&mut self, op: &Op) -> ResponseType {
        let driver = &mut self.driver;
        match *op {
            Op::Create {
                id,
                format,
                width,
                height,
            } => driver.create_2d(id, PixelFormat::ALL[format], width, height),
            Op::Unref { id } => driver.unref(id),
            Op::Attach { id, buffer } => driver.attach(id, &self.buffers[buffer]),
            Op::Detach { id } => driver.detach(id),
            Op::Write { buffer, seed } => {
                let buffer = &self.buffers[buffer];
                driver.ram.write(buffer, 0, &pattern(seed, buffer.len()));
                OK
            }
            Op::Transfer { id, rect, offset } => driver.transfer(id, rect, offset),
            Op::SetScanout { scanout, id, rect } => driver.set_scanout(scanout, id, rect),
            Op::Flush { id, rect } => driver.flush(id, rect),
            Op::Wake(how) => {
                driver.sleep_and_wake(how);
                OK
            }
            Op::FullReset => {
                driver.gpu().reset(ResetKind::Full);
                let features = driver.gpu().device_features();
                driver.gpu().activate(features, Activation::Fresh);
                OK
            }
        }
    }

    fn check(&mut self) {
        self.driver.gpu().assert_consistent();
        let status = self.driver.gpu().status();
        assert_eq!(status.resources, self.model.resources.len());
        let retained = self.model.resources.values().filter(|it| it.retained);
        assert_eq!(status.retained, retained.count());
        for scanout in 0..2_u32 {
            let expected = self.model.image(scanout as usize);
            assert_eq!(self.driver.scanout_image(scanout, false), Some(expected));
        }
    }

    /// Saves the device, carries it over as text, and goes on with a new one.
    fn move_to_another_process(&mut self) {
        let saved = self.driver.gpu().save().unwrap();
        let text = serde_json::to_string(&saved).unwrap();
        let gpu = Gpu::restore(
            config(2, OUTPUT.0, OUTPUT.1),
            Box::new(NullRenderer),
            serde_json::from_str(&text).unwrap(),
        );
        self.driver.transport.gpu = gpu.unwrap();
        self.screen = Screen::default();
        assert_eq!(self.driver.gpu().save().unwrap(), saved);
    }

    /// Flushed as a whole, what a viewer kept of the damage is what the model shows.
    fn check_screen(&mut self) {
        for (scanout, shown) in (0..).zip(self.model.scanouts) {
            let Some((id, _)) = shown else {
                assert_eq!(self.screen.look(&mut self.driver).image(scanout), None);
                continue;
            };
            let picture = &self.model.resources[&id];
            let rect = Rect::sized(picture.width, picture.height);
            assert_eq!(self.model.apply(&Op::Flush { id, rect }), OK);
            assert_eq!(self.driver.flush(id, rect), OK);
            let expected = self.model.image(scanout as usize);
            let shown = self.screen.look(&mut self.driver).image(scanout);
            assert_eq!(shown, Some(expected));
        }
    }
}

proptest! {
    #[test]
    fn a_random_guest_sees_what_the_slow_model_says(ops in vec(op(), 1..80)) {
        let mut pair = Pair::new();
        for op in &ops {
            let expected = pair.model.apply(op);
            prop_assert_eq!(pair.apply(op), expected, "{:?}", op);
            pair.check();
        }
        pair.check_screen();
        pair.move_to_another_process();
        pair.check();
        pair.check_screen();
    }

    #[test]
    fn random_bytes_are_answered_and_break_nothing(
        requests in vec((any::<bool>(), vec(any::<u8>(), 0..120), 0_usize..60), 1..20)
    ) {
        let (mut driver, _, _) = GpuDriver::rendering(32, 32);
        for (cursor, request, room) in requests {
            let queue = if cursor { Queue::Cursor } else { Queue::Control };
            let answer = driver.transport.send(queue, &request, room).unwrap();
            prop_assert_eq!(answer.len(), room.min(24));
            driver.gpu().assert_consistent();
        }
    }

    #[test]
    fn random_programs_break_nothing(program in vec(any::<u8>(), 0..3000)) {
        run_program(&program);
    }
}
