// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A cube that shows another picture on its faces, and a torus, on a chequered floor.
//!
//! All objects are made once. Some hold what the GPU computed and the guest never had: the Julia set on
//! the torus, and the torus itself. A guest that lost those cannot draw the next frame right.
#![expect(unsafe_code, reason = "every call of OpenGL is unsafe")]

mod mesh;
mod objects;
mod shaders;
mod shared;

use std::f32::consts::TAU;
use std::rc::Rc;

use glam::{Mat4, Vec3, Vec4};
use glow::{
    Buffer, Context, Fence, Framebuffer, HasContext, PixelPackData, Program, Query, Texture,
    VertexArray,
};
use guest_agent::scene::{Client, Frame, Kept, Results, hash};

use self::objects::Attribute;
use self::shared::Shared;
use crate::error::{Error, Result};

/// Sides of the textures, in pixels.
const CHEQUERS_SIDE: u16 = 64;
const JULIA_SIDE: u16 = 128;
const INSET_SIDE: u16 = 256;
/// Position and normal, three floats each.
const CAPTURED_POINT: u16 = 24;
/// Frames in a turn: a prime, so that the cube, the torus and the lamp do not meet early.
const TURN: f32 = 97.0;
const EYE: Vec3 = Vec3::new(0.6, 2.1, 5.2);
const LAMP: Vec3 = Vec3::new(2.5, 4.0, 3.0);
/// Nanoseconds that a fence may take which has had a sleep to signal.
const FENCE_LIMIT: i32 = 1_000_000_000;
/// Where the block `Light` of the shaders is bound.
const LIGHT_BINDING: u32 = 1;

/// Something to draw.
struct Shape {
    array: VertexArray,
    indices: i32,
}

/// The objects, made when the client starts.
pub(crate) struct Scene {
    gl: Rc<Context>,
    lit: Program,
    light: Buffer,
    /// The light comes through this, where there is one.
    shared: Option<Shared>,
    cube: Shape,
    torus: Shape,
    points: Buffer,
    chequers: Texture,
    julia: Texture,
    julia_framebuffer: Framebuffer,
    inset: Texture,
    inset_framebuffer: Framebuffer,
    capture: Query,
    captured: Fence,
    size: (u16, u16),
}

impl Scene {
    /// Makes everything, for a screen of `size`.
    pub(crate) fn new(gl: Rc<Context>, size: (u16, u16)) -> Result<Self> {
        let lit = objects::program(&gl, shaders::LIT_VERTEX, shaders::LIT_FRAGMENT, &[])?;
        let shared = Shared::new(&gl)?;
        let light = objects::empty_buffer(&gl, 48)?;
        let chequers = objects::texture(&gl, CHEQUERS_SIDE.into(), Some(&chequers()))?;
        let julia = objects::texture(&gl, JULIA_SIDE.into(), None)?;
        let julia_framebuffer = objects::framebuffer(&gl, julia, JULIA_SIDE.into(), false)?;
        let inset = objects::texture(&gl, INSET_SIDE.into(), None)?;
        let inset_framebuffer = objects::framebuffer(&gl, inset, INSET_SIDE.into(), true)?;
        fill_julia(&gl, julia, julia_framebuffer)?;
        let cube = cube(&gl)?;
        let (torus, points, capture, captured) = torus(&gl)?;
        bind_for_ever(&gl, lit, light)?;
        let scene = Self {
            gl,
            lit,
            light,
            shared,
            cube,
            torus,
            points,
            chequers,
            julia,
            julia_framebuffer,
            inset,
            inset_framebuffer,
            capture,
            captured,
            size,
        };
        scene.check("making the scene")?;
        Ok(scene)
    }

    /// Draws frame `number` into the window's back buffer.
    pub(crate) fn draw(&self, number: u32) -> Result<()> {
        let gl = &self.gl;
        let turn = TAU * f32::from(u16::try_from(number % 97).unwrap_or(0)) / TURN;
        self.set_light(turn);
        let inset_view = Mat4::perspective_rh_gl(0.9, 1.0, 0.5, 20.0)
            * Mat4::look_at_rh(Vec3::new(0.0, 1.6, 2.6), Vec3::ZERO, Vec3::Y);
        self.target(Some(self.inset_framebuffer), (INSET_SIDE, INSET_SIDE));
        self.clear(Vec4::new(0.10, 0.32, 0.34, 1.0));
        let spin = Mat4::from_rotation_x(turn) * Mat4::from_rotation_y(2.0 * turn);
        self.shape(&self.torus, inset_view, spin, self.chequers, 6.0);
        // SAFETY: a context is current, and the texture is its.
        unsafe {
            gl.bind_texture(glow::TEXTURE_2D, Some(self.inset));
            gl.generate_mipmap(glow::TEXTURE_2D);
        }
        let aspect = f32::from(self.size.0) / f32::from(self.size.1);
        let view = Mat4::perspective_rh_gl(0.8, aspect, 0.5, 40.0)
            * Mat4::look_at_rh(EYE, Vec3::new(0.4, 0.1, 0.0), Vec3::Y);
        self.target(None, self.size);
        self.clear(Vec4::new(0.05, 0.07, 0.16, 1.0));
        let floor = Mat4::from_translation(Vec3::new(0.0, -1.5, 0.0))
            * Mat4::from_scale(Vec3::new(6.0, 0.05, 6.0));
        self.shape(&self.cube, view, floor, self.chequers, 3.0);
        let cube = Mat4::from_translation(Vec3::new(-0.7, 0.1, 0.0))
            * Mat4::from_rotation_y(turn)
            * Mat4::from_rotation_x(0.5 * turn.sin());
        self.shape(&self.cube, view, cube, self.inset, 1.0);
        let torus = Mat4::from_translation(Vec3::new(1.8, 0.2, 0.3))
            * Mat4::from_rotation_z(0.5 + turn)
            * Mat4::from_rotation_x(1.1 + turn);
        self.shape(&self.torus, view, torus, self.julia, 2.0);
        self.check("a frame")
    }

    /// Reads back what [`Scene::draw`] drew.
    pub(crate) fn read(&self) -> Result<Frame> {
        let offscreen = self.read_from(Some(self.inset_framebuffer), (INSET_SIDE, INSET_SIDE))?;
        let mut screen = self.read_from(None, self.size)?;
        // OpenGL's first row is the lowest.
        let row = usize::from(self.size.0) * 4;
        let rows = screen.chunks_exact_mut(row).rev();
        let colours = rows.flat_map(|row| row.chunks_exact(4).flat_map(|pixel| &pixel[..3]));
        Ok(Frame {
            width: self.size.0.into(),
            height: self.size.1.into(),
            offscreen: hash(offscreen),
            screen: hash(colours.copied()),
        })
    }

    /// Reads back what the GPU made when the scene was made.
    pub(crate) fn read_kept(&self) -> Result<Kept> {
        let gl = &self.gl;
        let texture = self.read_from(Some(self.julia_framebuffer), (JULIA_SIDE, JULIA_SIDE))?;
        let buffer = objects::hash_of(gl, self.points, captured_bytes())?;
        let shared = self.shared.as_ref();
        let mapped = shared.map(|shared| shared.read_notes(gl)).transpose()?;
        self.check("reading back")?;
        Ok(Kept {
            texture: hash(texture),
            buffer,
            mapped,
        })
    }

    /// Asks for the results of making the torus.
    pub(crate) fn results(&self) -> Result<Results> {
        // SAFETY: a context is current, and the query and the fence are its.
        let (captured, waited) = unsafe {
            (
                self.gl
                    .get_query_parameter_u32(self.capture, glow::QUERY_RESULT),
                self.gl.client_wait_sync(self.captured, 0, FENCE_LIMIT),
            )
        };
        self.check("results")?;
        Ok(Results {
            captured,
            points: mesh::TORUS_POINTS.into(),
            signalled: matches!(waited, glow::ALREADY_SIGNALED | glow::CONDITION_SATISFIED),
        })
    }

    /// Who draws.
    pub(crate) fn client(&self, pid: u32) -> Client {
        // SAFETY: a context is current.
        unsafe {
            Client {
                pid,
                renderer: self.gl.get_parameter_string(glow::RENDERER),
                version: self.gl.get_parameter_string(glow::VERSION),
            }
        }
    }

    fn set_light(&self, turn: f32) {
        let lamp = Mat4::from_rotation_y(0.3 * turn.sin()).transform_point3(LAMP);
        let block = [
            lamp.extend(1.0),
            Vec4::new(1.0, 0.96, 0.88, 1.0),
            EYE.extend(1.0),
        ];
        let block = mesh::bytes(block.iter().flat_map(Vec4::to_array));
        if let Some(shared) = &self.shared {
            return shared.give(&self.gl, &block, self.light);
        }
        // SAFETY: a context is current, and the buffer is its and has this size.
        unsafe {
            self.gl.bind_buffer(glow::UNIFORM_BUFFER, Some(self.light));
            self.gl
                .buffer_sub_data_u8_slice(glow::UNIFORM_BUFFER, 0, &block);
        }
    }

    fn target(&self, framebuffer: Option<Framebuffer>, size: (u16, u16)) {
        // SAFETY: a context is current, and the framebuffer is its.
        unsafe {
            self.gl.bind_framebuffer(glow::FRAMEBUFFER, framebuffer);
            self.gl.viewport(0, 0, size.0.into(), size.1.into());
        }
    }

    fn clear(&self, colour: Vec4) {
        // SAFETY: a context is current.
        unsafe {
            self.gl.clear_color(colour.x, colour.y, colour.z, colour.w);
            self.gl
                .clear(glow::COLOR_BUFFER_BIT | glow::DEPTH_BUFFER_BIT);
        }
    }

    fn shape(&self, shape: &Shape, view: Mat4, model: Mat4, surface: Texture, tiles: f32) {
        let gl = &self.gl;
        // SAFETY: a context is current, and all objects are its.
        unsafe {
            gl.use_program(Some(self.lit));
            let place = |name| gl.get_uniform_location(self.lit, name);
            gl.uniform_matrix_4_f32_slice(place("view").as_ref(), false, view.as_ref());
            gl.uniform_matrix_4_f32_slice(place("model").as_ref(), false, model.as_ref());
            gl.uniform_1_f32(place("tiles").as_ref(), tiles);
            gl.bind_texture(glow::TEXTURE_2D, Some(surface));
            gl.bind_vertex_array(Some(shape.array));
            gl.draw_elements(glow::TRIANGLES, shape.indices, glow::UNSIGNED_SHORT, 0);
            gl.bind_vertex_array(None);
        }
    }

    fn read_from(&self, framebuffer: Option<Framebuffer>, size: (u16, u16)) -> Result<Vec<u8>> {
        let mut pixels = vec![0; usize::from(size.0) * usize::from(size.1) * 4];
        self.target(framebuffer, size);
        // SAFETY: a context is current, and the pixels have room for all.
        unsafe {
            self.gl.read_pixels(
                0,
                0,
                size.0.into(),
                size.1.into(),
                glow::RGBA,
                glow::UNSIGNED_BYTE,
                PixelPackData::Slice(Some(&mut pixels)),
            );
        }
        self.check("reading pixels")?;
        Ok(pixels)
    }

    fn check(&self, what: &'static str) -> Result<()> {
        // SAFETY: a context is current.
        match unsafe { self.gl.get_error() } {
            glow::NO_ERROR => Ok(()),
            code => Err(Error::GlCode { what, code }),
        }
    }
}

fn chequers() -> Vec<u8> {
    let side = u32::from(CHEQUERS_SIDE);
    let pixel = |x: u32, y: u32| match (x / 16 + y / 16) % 2 {
        0 => [226, 214, 190, 255],
        _ => [122, 48, 40, 255],
    };
    let rows = (0..side).flat_map(|y| (0..side).map(move |x| (x, y)));
    rows.flat_map(|(x, y)| pixel(x, y)).collect()
}

fn captured_bytes() -> i32 {
    i32::from(mesh::TORUS_POINTS) * i32::from(CAPTURED_POINT)
}

/// Draws the Julia set, once.
fn fill_julia(gl: &Context, texture: Texture, framebuffer: Framebuffer) -> Result<()> {
    let julia = objects::program(gl, shaders::COVER_VERTEX, shaders::JULIA_FRAGMENT, &[])?;
    let nothing = objects::vertex_array(gl, &[], None)?;
    let side = i32::from(JULIA_SIDE);
    // SAFETY: a context is current, and all objects are its.
    unsafe {
        gl.bind_framebuffer(glow::FRAMEBUFFER, Some(framebuffer));
        gl.viewport(0, 0, side, side);
        gl.use_program(Some(julia));
        gl.bind_vertex_array(Some(nothing));
        gl.draw_arrays(glow::TRIANGLES, 0, 3);
        gl.bind_vertex_array(None);
        gl.bind_texture(glow::TEXTURE_2D, Some(texture));
        gl.generate_mipmap(glow::TEXTURE_2D);
        gl.delete_program(julia);
        gl.delete_vertex_array(nothing);
    }
    Ok(())
}

fn cube(gl: &Context) -> Result<Shape> {
    let (vertices, indices) = mesh::cube();
    let buffer = objects::buffer(gl, glow::ARRAY_BUFFER, &mesh::bytes(vertices))?;
    let attributes = [(3, 0), (3, 3), (2, 6)].map(|(count, first)| Attribute {
        buffer,
        count,
        first,
        stride: 8,
    });
    shape(gl, &attributes, &indices)
}

/// Has a shader bend a grid, and keeps what it gives. How many points those were is not asked yet.
fn torus(gl: &Context) -> Result<(Shape, Buffer, Query, Fence)> {
    let (grid, indices) = mesh::torus_grid();
    let grid = objects::buffer(gl, glow::ARRAY_BUFFER, &mesh::bytes(grid))?;
    let points = objects::empty_buffer(gl, captured_bytes())?;
    let varyings = &shaders::TORUS_VARYINGS;
    let bend = objects::program(gl, shaders::TORUS_VERTEX, shaders::NO_FRAGMENT, varyings)?;
    let attribute = |buffer, count, first, stride| Attribute {
        buffer,
        count,
        first,
        stride,
    };
    let flat = objects::vertex_array(gl, &[attribute(grid, 2, 0, 2)], None)?;
    let primitives = glow::TRANSFORM_FEEDBACK_PRIMITIVES_WRITTEN;
    // SAFETY: a context is current, and all objects are its.
    let (query, fence) = unsafe {
        let query = gl.create_query().map_err(Error::gl("create a query"))?;
        gl.use_program(Some(bend));
        gl.bind_vertex_array(Some(flat));
        gl.bind_buffer_base(glow::TRANSFORM_FEEDBACK_BUFFER, 0, Some(points));
        gl.enable(glow::RASTERIZER_DISCARD);
        gl.begin_query(primitives, query);
        gl.begin_transform_feedback(glow::POINTS);
        gl.draw_arrays(glow::POINTS, 0, mesh::TORUS_POINTS.into());
        gl.end_transform_feedback();
        gl.end_query(primitives);
        gl.disable(glow::RASTERIZER_DISCARD);
        gl.bind_buffer_base(glow::TRANSFORM_FEEDBACK_BUFFER, 0, None);
        gl.bind_vertex_array(None);
        gl.delete_vertex_array(flat);
        gl.delete_program(bend);
        let fence = gl
            .fence_sync(glow::SYNC_GPU_COMMANDS_COMPLETE, 0)
            .map_err(Error::gl("create a fence"))?;
        (query, fence)
    };
    let attributes = [
        attribute(points, 3, 0, 6),
        attribute(points, 3, 3, 6),
        attribute(grid, 2, 0, 2),
    ];
    Ok((shape(gl, &attributes, &indices)?, points, query, fence))
}

fn shape(gl: &Context, attributes: &[Attribute], indices: &[u16]) -> Result<Shape> {
    let array = objects::vertex_array(gl, attributes, Some(&mesh::index_bytes(indices)))?;
    Ok(Shape {
        array,
        indices: i32::try_from(indices.len()).unwrap_or(i32::MAX),
    })
}

/// State that no frame changes.
fn bind_for_ever(gl: &Context, lit: Program, light: Buffer) -> Result<()> {
    let sampler = objects::sampler(gl)?;
    // SAFETY: a context is current, and all objects are its.
    unsafe {
        let block = gl.get_uniform_block_index(lit, "Light");
        let block = block.ok_or(Error::NoGl("uniform block"))?;
        gl.uniform_block_binding(lit, block, LIGHT_BINDING);
        gl.bind_buffer_base(glow::UNIFORM_BUFFER, LIGHT_BINDING, Some(light));
        gl.bind_sampler(0, Some(sampler));
        gl.enable(glow::DEPTH_TEST);
    }
    Ok(())
}
