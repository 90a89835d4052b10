// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Random guests and viewers at two paces, beside a picture that is kept the obvious way.

use proptest::collection::vec;
use proptest::prelude::*;
use virtio_gpu_s3::renderer::Transfer3d;

use super::*;

/// Where the two resources have their pixels, and how the guest draws on them.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    TwoD,
    Texture,
    GuestBlob,
}

#[derive(Clone, Debug)]
enum Op {
    /// Draws on a resource and flushes it.
    Draw {
        resource: usize,
        rect: Rect,
        seed: u32,
    },
    Flip {
        resource: usize,
    },
    LookSeldom,
    Sleep(Activation),
    Attach {
        resource: usize,
    },
}

fn rect() -> impl Strategy<Value = Rect> {
    (0..WIDTH, 0..HEIGHT, 1..WIDTH, 1..HEIGHT).prop_map(|(x, y, width, height)| Rect {
        x,
        y,
        width: width.min(WIDTH - x),
        height: height.min(HEIGHT - y),
    })
}

fn op() -> impl Strategy<Value = Op> {
    let resource = 0..2_usize;
    prop_oneof![
        8 => (resource.clone(), rect(), any::<u32>())
            .prop_map(|(resource, rect, seed)| Op::Draw { resource, rect, seed }),
        2 => resource.clone().prop_map(|resource| Op::Flip { resource }),
        1 => Just(Op::LookSeldom),
        1 => Just(Op::Sleep(Activation::Reinstated)),
        1 => Just(Op::Sleep(Activation::Retained)),
        1 => resource.prop_map(|resource| Op::Attach { resource }),
    ]
}

struct Guest {
    driver: GpuDriver,
    kind: Kind,
    buffers: [GuestBuffer; 2],
    /// What is in each resource, and which one is shown.
    drawn: [Vec<u8>; 2],
    shown: usize,
}

fn id(resource: usize) -> u32 {
    u32::try_from(resource).unwrap() + 1
}

impl Guest {
    fn new(kind: Kind) -> Self {
        let (mut driver, _, _) = GpuDriver::rendering(WIDTH, HEIGHT);
        driver.in_context(1, request::ctx_create(2));
        let buffers = [0, 1].map(|resource| {
            let buffer = driver.ram.alloc(BYTES, Layout::Pages);
            let id = id(resource);
            match kind {
                Kind::TwoD => assert_eq!(driver.create_2d(id, LAYOUT.format, WIDTH, HEIGHT), OK),
                Kind::Texture => make_texture(&mut driver, id),
                Kind::GuestBlob => assert_eq!(driver.create_guest_blob(id, 2048, None), OK),
            }
            assert_eq!(driver.attach(id, &buffer), OK);
            buffer
        });
        let mut guest = Self {
            driver,
            kind,
            buffers,
            drawn: [vec![0; BYTES], vec![0; BYTES]],
            shown: 0,
        };
        guest.flip(0);
        guest
    }

    fn flip(&mut self, resource: usize) {
        let (driver, id) = (&mut self.driver, id(resource));
        let shown = match self.kind {
            Kind::TwoD | Kind::Texture => driver.set_scanout(0, id, WHOLE),
            Kind::GuestBlob => driver.set_scanout_blob(0, id, WHOLE, &LAYOUT),
        };
        assert_eq!((shown, driver.flush(id, WHOLE)), (OK, OK));
        self.shown = resource;
    }

    fn draw(&mut self, resource: usize, rect: Rect, seed: u32) {
        let row_bytes = rect.width as usize * 4;
        let pixels = pattern(seed, row_bytes * rect.height as usize);
        let start = u64::from(rect.y * WIDTH + rect.x) * 4;
        for (row, y) in pixels.chunks(row_bytes).zip(0..) {
            let at = usize::try_from(start).unwrap() + y * WIDTH as usize * 4;
            self.drawn[resource][at..at + row_bytes].copy_from_slice(row);
            self.driver.ram.write(&self.buffers[resource], at, row);
        }
        let (driver, id) = (&mut self.driver, id(resource));
        let sent = match self.kind {
            Kind::TwoD => driver.transfer(id, rect, start),
            Kind::Texture => {
                let transfer = Transfer3d {
                    x: rect.x,
                    y: rect.y,
                    w: rect.width,
                    h: rect.height,
                    offset: start,
                    ..request::whole(&TEXTURE)
                };
                let command = CommandId::TRANSFER_TO_HOST_3D;
                driver.in_context(1, request::transfer_3d(command, id, &transfer))
            }
            Kind::GuestBlob => OK,
        };
        assert_eq!((sent, driver.flush(id, rect)), (OK, OK));
    }

    /// While the guest sleeps somebody else uses its memory, and a new viewer sees what there was.
    fn sleep(&mut self, how: Activation) {
        self.driver.quiesce().unwrap();
        self.driver.gpu().reset(ResetKind::Frozen);
        for buffer in &self.buffers {
            self.driver.ram.write(buffer, 0, &pattern(77, BYTES));
        }
        assert_eq!(self.seen_by(&mut Screen::default()), self.expected());
        for (buffer, drawn) in self.buffers.iter().zip(&self.drawn) {
            self.driver.ram.write(buffer, 0, drawn);
        }
        let features = self.driver.gpu().device_features();
        self.driver.gpu().activate(features, how);
        // A guest that woke names its context before it draws.
        let _ = self.driver.in_context(1, request::submit_3d(&[0]));
    }

    fn apply(&mut self, op: &Op, seldom: &mut Screen) {
        match *op {
            Op::Draw {
                resource,
                rect,
                seed,
            } => self.draw(resource, rect, seed),
            Op::Flip { resource } => self.flip(resource),
            Op::LookSeldom => assert_eq!(self.seen_by(seldom), self.expected()),
            Op::Sleep(how) => self.sleep(how),
            Op::Attach { resource } => {
                let attach = request::ctx_attach_resource(id(resource));
                assert_eq!(self.driver.in_context(1, attach), OK);
            }
        }
        self.driver.gpu().assert_consistent();
    }

    fn seen_by(&mut self, screen: &mut Screen) -> Vec<u8> {
        screen.look(&mut self.driver).image(0).unwrap().pixels
    }

    fn expected(&self) -> Vec<u8> {
        let pixels = self.drawn[self.shown].chunks(4);
        pixels.flat_map(|p| [p[2], p[1], p[0], 255]).collect()
    }
}

proptest! {
    #[test]
    fn viewers_at_any_pace_see_what_was_drawn(
        kind in prop_oneof![Just(Kind::TwoD), Just(Kind::Texture), Just(Kind::GuestBlob)],
        ops in vec(op(), 1..60),
    ) {
        let mut guest = Guest::new(kind);
        let [mut often, mut seldom] = [Screen::default(), Screen::default()];
        for op in &ops {
            guest.apply(op, &mut seldom);
            prop_assert_eq!(guest.seen_by(&mut often), guest.expected(), "{:?}", op);
        }
        prop_assert_eq!(guest.seen_by(&mut seldom), guest.expected());
    }

    #[test]
    fn a_sleep_keeps_the_picture_that_nobody_looked_at(
        kind in prop_oneof![Just(Kind::TwoD), Just(Kind::Texture), Just(Kind::GuestBlob)],
        ops in vec(op(), 1..60),
    ) {
        let mut guest = Guest::new(kind);
        let mut seldom = Screen::default();
        for op in ops.iter().filter(|op| !matches!(op, Op::LookSeldom)) {
            guest.apply(op, &mut seldom);
        }
        guest.sleep(Activation::Reinstated);
        prop_assert_eq!(guest.seen_by(&mut seldom), guest.expected());
    }
}
