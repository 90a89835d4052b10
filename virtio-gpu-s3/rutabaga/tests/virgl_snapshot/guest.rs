// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest that draws at random, and the same each time: targets of several kinds, objects that are destroyed while they
//! are bound, handles that are used again.

use virgl_stream::{Command, Number, ObjectType};
use virtio_gpu_s3::Renderer;
use virtio_gpu_s3::renderer::{Data, Operation, Resource3d};
use virtio_gpu_s3_testing::request;

use super::Renderer3d;

const BGRA: u32 = 1;
const DEPTH: u32 = 18;
const FLOAT: u32 = 31;
const R8: u32 = 64;
const DRAWN: u32 = 2 | 8;
const SIZE: u32 = 64;

const VERTEX: &str = "VERT\nDCL IN[0]\nDCL IN[1]\nDCL OUT[0], POSITION\nDCL OUT[1], GENERIC[0]\n\
    \x20 0: MOV OUT[0], IN[0]\n  1: MOV OUT[1], IN[1]\n  2: END\n";
const PLAIN: &str = "FRAG\nPROPERTY FS_COLOR0_WRITES_ALL_CBUFS 1\nDCL IN[0], GENERIC[0], PERSPECTIVE\n\
    DCL OUT[0], COLOR\nDCL CONST[0]\n  0: MUL OUT[0], IN[0], CONST[0]\n  1: END\n";
const TEXTURED: &str = "FRAG\nPROPERTY FS_COLOR0_WRITES_ALL_CBUFS 1\nDCL IN[0], GENERIC[0], PERSPECTIVE\n\
    DCL OUT[0], COLOR\nDCL SAMP[0]\nDCL SVIEW[0], 2D, FLOAT\nDCL TEMP[0]\nDCL CONST[0]\n\
    \x20 0: TEX TEMP[0], IN[0], SAMP[0], 2D\n  1: MUL OUT[0], TEMP[0], CONST[0]\n  2: END\n";

// Handles that stay; others are made on the way.
const VERTEX_SHADER: u32 = 1;
const PLAIN_SHADER: u32 = 2;
const TEXTURED_SHADER: u32 = 3;
const ELEMENTS: u32 = 4;
const SAMPLER: u32 = 5;
const VIEW: u32 = 6;
const DEPTH_SURFACE: u32 = 7;
/// Made, bound and destroyed again and again.
const BLEND: u32 = 10;
const DSA: u32 = 11;
const RASTERIZER: u32 = 12;
const SURFACE: u32 = 13;

/// What a surface is of: resource, format, level, layer, width of that level.
const TARGETS: [(u32, u32, u32, u32, u32); 6] = [
    (0, BGRA, 0, 0, SIZE),
    (2, BGRA, 0, 3, 32),
    (2, BGRA, 2, 1, 8),
    (3, BGRA, 0, 5, 16),
    (4, BGRA, 1, 4, 8),
    (6, FLOAT, 0, 0, 32),
];

pub(crate) fn texture(width: u32, height: u32, nr_samples: u32) -> Resource3d {
    Resource3d {
        bind: DRAWN,
        nr_samples,
        ..request::texture(width, height)
    }
}

fn resources() -> [Resource3d; 8] {
    let square = |size| texture(size, size, 0);
    [
        square(SIZE),
        Resource3d {
            target: 0,
            format: R8,
            bind: 1 << 4,
            width: 6 * 32,
            height: 1,
            ..square(1)
        },
        // An array with mip levels, a volume, a cube with mip levels.
        Resource3d {
            target: 7,
            array_size: 4,
            last_level: 2,
            ..square(32)
        },
        Resource3d {
            target: 3,
            depth: 8,
            ..square(16)
        },
        Resource3d {
            target: 4,
            array_size: 6,
            last_level: 1,
            ..square(16)
        },
        Resource3d {
            format: DEPTH,
            bind: 1,
            ..square(SIZE)
        },
        Resource3d {
            format: FLOAT,
            ..square(32)
        },
        square(16),
    ]
}

pub(crate) struct Guest {
    id: u32,
    random: u64,
    stream: Vec<u32>,
}

fn f(value: f32) -> u32 {
    value.to_bits()
}

impl Guest {
    pub(crate) fn new(id: u32) -> Self {
        Self {
            id,
            random: u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            stream: Vec::new(),
        }
    }

    fn resource(&self, index: u32) -> u32 {
        self.id * 100 + index
    }

    fn below(&mut self, most: u32) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        u32::try_from((self.random >> 33) % u64::from(most)).unwrap()
    }

    /// From 0 to 1.
    fn part(&mut self) -> f32 {
        f32::from(u8::try_from(self.below(256)).unwrap()) / 255.0
    }

    fn add(&mut self, number: Number, object: u8, body: &[u32]) {
        let command = Command::new(number, object, body);
        command.encode(&mut self.stream).unwrap();
    }

    fn create(&mut self, kind: ObjectType, body: &[u32]) {
        self.add(Number::CREATE_OBJECT, kind.0, body);
    }

    fn shader(&mut self, handle: u32, stage: u32, text: &str) {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        let length = u32::try_from(bytes.len()).unwrap();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let words: Vec<_> = bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|word| u32::from_le_bytes(*word))
            .collect();
        // In two parts, as long ones come.
        let (first, second) = words.split_at(words.len() / 2);
        let mut body = vec![handle, stage, length, 300, 0];
        body.extend(first);
        self.create(ObjectType::SHADER, &body);
        let offset = u32::try_from(first.len() * 4).unwrap();
        let mut body = vec![handle, stage, offset | 1 << 31, 300, 0];
        body.extend(second);
        self.create(ObjectType::SHADER, &body);
        self.add(Number::BIND_SHADER, 0, &[handle, stage]);
    }

    fn submit(&mut self, renderer: &mut Renderer3d) {
        let submit = Operation::Submit {
            ctx_id: self.id,
            in_fences: Vec::new(),
        };
        let ran = renderer.call(submit.with(Data::Words(&mut self.stream)));
        ran.unwrap();
        assert_eq!(renderer.unsaved(), None);
        self.stream.clear();
    }

    /// Makes what it has from the beginning.
    pub(crate) fn begin(&mut self, renderer: &mut Renderer3d) {
        let ctx_id = self.id;
        let create = Operation::CreateContext {
            ctx_id,
            context_init: 2,
        };
        renderer.call(create.with(Data::Bytes(b"guest"))).unwrap();
        for (index, params) in (0..).zip(resources()) {
            let resource_id = self.resource(index);
            let create = Operation::CreateResource {
                resource_id,
                params,
            };
            renderer.call(create.call()).unwrap();
            let attach = Operation::AttachResource {
                ctx_id,
                resource_id,
            };
            renderer.call(attach.call()).unwrap();
        }
        self.objects();
        self.submit(renderer);
    }

    fn objects(&mut self) {
        self.add(Number::CREATE_SUB_CTX, 0, &[1]);
        self.add(Number::SET_SUB_CTX, 0, &[1]);
        self.shader(VERTEX_SHADER, 0, VERTEX);
        self.shader(TEXTURED_SHADER, 1, TEXTURED);
        self.shader(PLAIN_SHADER, 1, PLAIN);
        let elements = [ELEMENTS, 0, 0, 0, FLOAT, 16, 0, 0, FLOAT];
        self.create(ObjectType::VERTEX_ELEMENTS, &elements);
        self.add(Number::BIND_OBJECT, 5, &[ELEMENTS]);
        let vertices = self.resource(1);
        self.add(Number::SET_VERTEX_BUFFERS, 0, &[32, 0, vertices]);
        // Clamped to its edge, nearest, without mip levels.
        let sampler = [SAMPLER, 2 | 2 << 3 | 2 << 6 | 2 << 11, 0, 0, 0, 0, 0, 0, 0];
        self.create(ObjectType::SAMPLER_STATE, &sampler);
        self.add(Number::BIND_SAMPLER_STATES, 0, &[1, 0, SAMPLER]);
        let view = [VIEW, self.resource(7), BGRA, 0, 0, 1 << 3 | 2 << 6 | 3 << 9];
        self.create(ObjectType::SAMPLER_VIEW, &view);
        self.add(Number::SET_SAMPLER_VIEWS, 0, &[1, 0, VIEW]);
        let depth = [DEPTH_SURFACE, self.resource(5), DEPTH, 0, 0];
        self.create(ObjectType::SURFACE, &depth);
        for handle in [BLEND, DSA, RASTERIZER] {
            self.state(handle);
        }
        self.surface(0);
        self.clear();
        self.vertices();
        self.pixels();
        self.constants();
    }

    /// Does so many random things.
    pub(crate) fn steps(&mut self, count: u32, renderer: &mut Renderer3d) {
        for _ in 0..count {
            self.step();
            self.submit(renderer);
        }
    }

    /// Is as if it had begun and done so many.
    pub(crate) fn pass(&mut self, count: u32) {
        self.objects();
        for _ in 0..count {
            self.step();
        }
        self.stream.clear();
    }

    fn step(&mut self) {
        match self.below(12) {
            0 => self.state(BLEND),
            1 => self.state(DSA),
            2 => self.state(RASTERIZER),
            3 => {
                let target = self.below(6);
                self.surface(target);
            }
            4 => self.clear(),
            5 => self.vertices(),
            6 => self.pixels(),
            7 => self.constants(),
            8 => {
                let shader = [PLAIN_SHADER, TEXTURED_SHADER][self.below(2) as usize];
                self.add(Number::BIND_SHADER, 0, &[shader, 1]);
            }
            _ => {}
        }
        let first = self.below(2) * 3;
        let last = first + 2;
        let draw = [first, 3, 4, 0, 1, 0, 0, 0, 0, 0, last, 0];
        self.add(Number::DRAW_VBO, 0, &draw);
    }

    /// Another object under the same handle, bound; half of the time it is destroyed at once.
    fn state(&mut self, handle: u32) {
        self.add(Number::DESTROY_OBJECT, 0, &[handle]);
        let kind = match handle {
            BLEND => {
                let mask = 0xf << 27;
                let factors = [1, 2, 3, 0x11, 0x12, 0x13];
                let mut factor = || factors[self.below(6) as usize];
                let (source, target) = (factor(), factor());
                let on = self.below(2);
                let first = on | source << 4 | target << 9 | source << 17 | target << 22 | mask;
                let body = [
                    handle, 0, 0, first, mask, mask, mask, mask, mask, mask, mask,
                ];
                self.create(ObjectType::BLEND, &body);
                ObjectType::BLEND
            }
            DSA => {
                let depth = self.below(2) | 2 | (1 + self.below(7)) << 2;
                self.create(ObjectType::DSA, &[handle, depth, 0, 0, 0]);
                ObjectType::DSA
            }
            _ => {
                let scissor = self.below(2) << 14;
                let body = [handle, 2 | 1 << 29 | scissor, f(1.0), 0, 0, f(1.0), 0, 0, 0];
                self.create(ObjectType::RASTERIZER, &body);
                let (x, y) = (self.below(8), self.below(8));
                let scissor = [0, x | (y << 16), (x + 20) | ((y + 30) << 16)];
                self.add(Number::SET_SCISSOR_STATE, 0, &scissor);
                ObjectType::RASTERIZER
            }
        };
        self.add(Number::BIND_OBJECT, kind.0, &[handle]);
        if self.below(2) == 0 {
            self.add(Number::DESTROY_OBJECT, 0, &[handle]);
        }
    }

    /// Another surface under the same handle; the one before stays alive where it is bound, until now.
    fn surface(&mut self, target: u32) {
        let (resource, format, level, layer, width) = TARGETS[target as usize];
        let resource = self.resource(resource);
        self.add(Number::DESTROY_OBJECT, 0, &[SURFACE]);
        let layers = layer | layer << 16;
        let surface = [SURFACE, resource, format, level, layers];
        self.create(ObjectType::SURFACE, &surface);
        let depth = if target == 0 { DEPTH_SURFACE } else { 0 };
        self.add(Number::SET_FRAMEBUFFER_STATE, 0, &[1, depth, SURFACE]);
        let half = f(f32::from(u8::try_from(width).unwrap()) / 2.0);
        let viewport = [0, half, half, f(0.5), half, half, f(0.5)];
        self.add(Number::SET_VIEWPORT_STATE, 0, &viewport);
        if self.below(2) == 0 {
            self.add(Number::DESTROY_OBJECT, 0, &[SURFACE]);
        }
    }

    fn clear(&mut self) {
        let [r, g, b, a] = [(); 4].map(|()| f(self.part()));
        let depth = f64::from(self.part()).to_le_bytes();
        let [low, high] = [0, 1].map(|half| u32::from_le_bytes(depth.as_chunks().0[half]));
        // Colour and depth.
        self.add(Number::CLEAR, 0, &[4 | 1, r, g, b, a, low, high, 0]);
    }

    fn inline_write(&mut self, resource: u32, [w, h]: [u32; 2], data: &[u32]) {
        let mut body = vec![resource, 0, 0, 0, 0, 0, 0, 0, w, h, 1];
        body.extend_from_slice(data);
        self.add(Number::RESOURCE_INLINE_WRITE, 0, &body);
    }

    /// Two triangles: position and colour, or place in the texture, of each corner.
    fn vertices(&mut self) {
        let mut data = Vec::new();
        for _ in 0..6 {
            let [x, y, z] = [(); 3].map(|()| self.part() * 2.0 - 1.0);
            data.extend([f(x), f(y), f(z), f(1.0)]);
            data.extend([(); 4].map(|()| f(self.part())));
        }
        let resource = self.resource(1);
        self.inline_write(resource, [6 * 32, 1], &data);
    }

    fn pixels(&mut self) {
        let data: Vec<_> = (0..16 * 16).map(|_| self.below(u32::MAX)).collect();
        let resource = self.resource(7);
        self.inline_write(resource, [16, 16], &data);
    }

    fn constants(&mut self) {
        let [r, g, b, a] = [(); 4].map(|()| f(self.part()));
        self.add(Number::SET_CONSTANT_BUFFER, 0, &[1, 0, r, g, b, a]);
    }
}
