// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Command streams of virgl, and a scene made of what a GL program keeps between frames.

use virtio_gpu_s3::protocol::CommandId;
use virtio_gpu_s3::renderer::Resource3d;
use virtio_gpu_s3_testing::{GpuDriver, GuestBuffer, Layout, request};

use super::OK;

/// Pixels each way.
pub(crate) const SIZE: u32 = 64;
/// B8G8R8A8_UNORM.
const BGRA: u32 = 1;
/// R8_UNORM, of which buffers are made.
pub(crate) const R8: u32 = 64;
/// Render target and sampler view.
const BIND_DRAWN: u32 = 2 | 8;
pub(crate) const BIND_VERTICES: u32 = 1 << 4;
/// Memory of the guest that the host writes results to.
pub(crate) const BIND_CUSTOM: u32 = 1 << 17;

pub(crate) const TEXTURE: Resource3d = Resource3d {
    bind: BIND_DRAWN,
    ..request::texture(SIZE, SIZE)
};

pub(crate) const fn buffer(bind: u32, bytes: u32) -> Resource3d {
    Resource3d {
        target: 0,
        format: R8,
        bind,
        width: bytes,
        height: 1,
        ..TEXTURE
    }
}

/// The commands used here, by their numbers in virgl_protocol.h.
pub(crate) mod command {
    pub(crate) const CREATE_OBJECT: u32 = 1;
    pub(crate) const BIND_OBJECT: u32 = 2;
    pub(crate) const SET_VIEWPORT: u32 = 4;
    pub(crate) const SET_FRAMEBUFFER: u32 = 5;
    pub(crate) const SET_VERTEX_BUFFERS: u32 = 6;
    pub(crate) const CLEAR: u32 = 7;
    pub(crate) const DRAW: u32 = 8;
    pub(crate) const INLINE_WRITE: u32 = 9;
    pub(crate) const SET_CONSTANTS: u32 = 12;
    pub(crate) const BEGIN_QUERY: u32 = 19;
    pub(crate) const END_QUERY: u32 = 20;
    pub(crate) const GET_QUERY_RESULT: u32 = 21;
    pub(crate) const SET_SUB_CONTEXT: u32 = 28;
    pub(crate) const CREATE_SUB_CONTEXT: u32 = 29;
    pub(crate) const BIND_SHADER: u32 = 31;
    pub(crate) const TRANSFER3D: u32 = 43;
    pub(crate) const CREATE_PIPE_RESOURCE: u32 = 48;
}

pub(crate) mod object {
    pub(crate) const BLEND: u32 = 1;
    pub(crate) const RASTERIZER: u32 = 2;
    pub(crate) const DEPTH_STENCIL: u32 = 3;
    pub(crate) const SHADER: u32 = 4;
    pub(crate) const VERTEX_ELEMENTS: u32 = 5;
    pub(crate) const SURFACE: u32 = 8;
    pub(crate) const QUERY: u32 = 9;
}

/// A stream under construction.
#[derive(Default)]
pub(crate) struct Stream(pub(crate) Vec<u32>);

impl Stream {
    pub(crate) fn add(&mut self, command: u32, object: u32, body: &[u32]) -> &mut Self {
        let length = u32::try_from(body.len()).unwrap();
        self.0.push(command | object << 8 | length << 16);
        self.0.extend_from_slice(body);
        self
    }

    fn shader(&mut self, handle: u32, stage: u32, text: &str) {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        let length = u32::try_from(bytes.len()).unwrap();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let mut body = vec![handle, stage, length, 300, 0];
        let (words, _) = bytes.as_chunks::<4>();
        body.extend(words.iter().map(|word| u32::from_le_bytes(*word)));
        self.add(command::CREATE_OBJECT, object::SHADER, &body);
    }

    pub(crate) fn clear(&mut self, [r, g, b, a]: [f32; 4]) -> &mut Self {
        let body = [4, f(r), f(g), f(b), f(a), 0, 0, 0];
        self.add(command::CLEAR, 0, &body)
    }

    pub(crate) fn draw(&mut self, first: u32, count: u32) -> &mut Self {
        let last = first + count - 1;
        let body = [first, count, 4, 0, 1, 0, 0, 0, 0, 0, last, 0];
        self.add(command::DRAW, 0, &body)
    }

    pub(crate) fn request(&self) -> Vec<u8> {
        request::submit_3d(&self.0)
    }
}

fn f(value: f32) -> u32 {
    value.to_bits()
}

/// Makes a resource with memory, attached to context 1.
pub(crate) fn create(
    driver: &mut GpuDriver,
    id: u32,
    params: &Resource3d,
    layout: Layout,
) -> GuestBuffer {
    let texel = if params.target == 0 { 1 } else { 4 };
    let bytes = params.width * params.height * texel;
    let memory = driver.ram.alloc(usize::try_from(bytes).unwrap(), layout);
    let create = request::resource_create_3d(id, params);
    assert_eq!(driver.control(create).type_(), OK);
    assert_eq!(driver.attach(id, &memory), OK);
    assert_eq!(driver.in_context(1, request::ctx_attach_resource(id)), OK);
    memory
}

/// Context 1 with a sub-context that draws to texture 10.
pub(crate) fn target(driver: &mut GpuDriver) -> GuestBuffer {
    assert_eq!(driver.in_context(1, request::ctx_create(2)), OK);
    let memory = create(driver, 10, &TEXTURE, Layout::Pages);
    let mut stream = Stream::default();
    stream
        .add(command::CREATE_SUB_CONTEXT, 0, &[1])
        .add(command::SET_SUB_CONTEXT, 0, &[1])
        .add(
            command::CREATE_OBJECT,
            object::SURFACE,
            &[7, 10, BGRA, 0, 0],
        )
        .add(command::SET_FRAMEBUFFER, 0, &[1, 0, 7]);
    assert_eq!(driver.in_context(1, stream.request()), OK);
    memory
}

const VERTEX_SHADER: &str = "VERT\nDCL IN[0]\nDCL IN[1]\nDCL OUT[0], POSITION\n\
    DCL OUT[1], GENERIC[0]\n  0: MOV OUT[0], IN[0]\n  1: MOV OUT[1], IN[1]\n  2: END\n";
const FRAGMENT_SHADER: &str = "FRAG\nPROPERTY FS_COLOR0_WRITES_ALL_CBUFS 1\n\
    DCL IN[0], GENERIC[0], PERSPECTIVE\nDCL OUT[0], COLOR\nDCL CONST[0]\n\
    0: MUL OUT[0], IN[0], CONST[0]\n  1: END\n";

/// [`target`] with shaders, states and vertices for two triangles, all bound: what is left to do
/// for a frame is [`frame`].
pub(crate) fn scene(driver: &mut GpuDriver) {
    target(driver);
    let vertices = buffer(BIND_VERTICES, 6 * 32);
    let memory = create(driver, 11, &vertices, Layout::Contiguous);
    let triangle = |x: f32, color: [f32; 4]| {
        [[-0.9 + x, -0.9], [0.1 + x, -0.9], [-0.4 + x, 0.8]].map(|[x, y]| {
            let [r, g, b, a] = color;
            [x, y, 0.0, 1.0, r, g, b, a]
        })
    };
    let corners = [
        triangle(0.0, [1.0, 0.2, 0.1, 1.0]),
        triangle(0.6, [0.1, 0.9, 0.3, 0.5]),
    ];
    let floats = corners.as_flattened().as_flattened();
    let bytes: Vec<u8> = floats.iter().flat_map(|it| it.to_le_bytes()).collect();
    driver.ram.write(&memory, 0, &bytes);
    let to_host = request::transfer_3d(TO_HOST, 11, &request::whole(&vertices));
    assert_eq!(driver.in_context(1, to_host), OK);
    assert_eq!(driver.in_context(1, states().request()), OK);
}

pub(crate) const TO_HOST: CommandId = CommandId::TRANSFER_TO_HOST_3D;

fn states() -> Stream {
    let mut stream = Stream::default();
    stream.shader(1, 0, VERTEX_SHADER);
    stream.shader(2, 1, FRAGMENT_SHADER);
    // Colour written; the first buffer is blended by source alpha.
    let mask = 0xf << 27;
    let blend = 1 | 3 << 4 | 0x13 << 9 | 3 << 17 | 0x13 << 22 | mask;
    let blend = [3, 0, 0, blend, mask, mask, mask, mask, mask, mask, mask];
    let rasterizer = [5, 2 | 1 << 29, f(1.0), 0, 0, f(1.0), 0, 0, 0];
    // R32G32B32A32_FLOAT twice.
    let elements = [6, 0, 0, 0, 31, 16, 0, 0, 31];
    let half = f(32.0);
    let create = command::CREATE_OBJECT;
    stream
        .add(create, object::BLEND, &blend)
        .add(create, object::DEPTH_STENCIL, &[4, 0, 0, 0, 0])
        .add(create, object::RASTERIZER, &rasterizer)
        .add(create, object::VERTEX_ELEMENTS, &elements)
        .add(command::BIND_OBJECT, object::BLEND, &[3])
        .add(command::BIND_OBJECT, object::DEPTH_STENCIL, &[4])
        .add(command::BIND_OBJECT, object::RASTERIZER, &[5])
        .add(command::BIND_OBJECT, object::VERTEX_ELEMENTS, &[6])
        .add(command::BIND_SHADER, 0, &[1, 0])
        .add(command::BIND_SHADER, 0, &[2, 1])
        .add(
            command::SET_VIEWPORT,
            0,
            &[0, half, half, f(0.5), half, half, f(0.5)],
        )
        .add(
            command::SET_CONSTANTS,
            0,
            &[1, 0, f(1.0), f(1.0), f(0.8), f(1.0)],
        )
        .add(command::SET_VERTEX_BUFFERS, 0, &[32, 0, 11]);
    stream
}

/// Draws the scene with what is bound.
pub(crate) fn frame() -> Vec<u8> {
    let mut stream = Stream::default();
    stream.clear([0.1, 0.1, 0.4, 1.0]).draw(0, 6);
    stream.request()
}
