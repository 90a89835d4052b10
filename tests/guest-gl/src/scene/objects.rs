// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Making OpenGL objects.
#![expect(unsafe_code, reason = "every call of OpenGL is unsafe")]

use std::slice;

use glow::{
    Buffer, Context, Framebuffer, HasContext, PixelUnpackData, Program, Sampler, Texture,
    VertexArray,
};

use guest_agent::scene::hash;

use crate::error::{Error, Result};

/// Size of a float in a vertex.
const FLOAT: i32 = 4;

/// Compiles and links. What the vertex shader gives under the names `captured` can be captured.
pub(super) fn program(
    gl: &Context,
    vertex: &str,
    fragment: &str,
    captured: &[&str],
) -> Result<Program> {
    let failed = |why| Error::Gl {
        what: "link a program",
        why,
    };
    // SAFETY: a context is current, and shaders and program are its.
    unsafe {
        let program = gl.create_program().map_err(Error::gl("create a program"))?;
        for (kind, source) in [
            (glow::VERTEX_SHADER, vertex),
            (glow::FRAGMENT_SHADER, fragment),
        ] {
            let shader = gl
                .create_shader(kind)
                .map_err(Error::gl("create a shader"))?;
            gl.shader_source(shader, source);
            gl.compile_shader(shader);
            if !gl.get_shader_compile_status(shader) {
                return Err(failed(gl.get_shader_info_log(shader)));
            }
            gl.attach_shader(program, shader);
        }
        if !captured.is_empty() {
            gl.transform_feedback_varyings(program, captured, glow::INTERLEAVED_ATTRIBS);
        }
        gl.link_program(program);
        if !gl.get_program_link_status(program) {
            return Err(failed(gl.get_program_info_log(program)));
        }
        Ok(program)
    }
}

/// A buffer that is filled once.
pub(super) fn buffer(gl: &Context, target: u32, bytes: &[u8]) -> Result<Buffer> {
    // SAFETY: a context is current.
    unsafe {
        let buffer = gl.create_buffer().map_err(Error::gl("create a buffer"))?;
        gl.bind_buffer(target, Some(buffer));
        gl.buffer_data_u8_slice(target, bytes, glow::STATIC_DRAW);
        Ok(buffer)
    }
}

/// A buffer that only the GPU fills.
pub(super) fn empty_buffer(gl: &Context, size: i32) -> Result<Buffer> {
    // SAFETY: a context is current.
    unsafe {
        let buffer = gl.create_buffer().map_err(Error::gl("create a buffer"))?;
        gl.bind_buffer(glow::ARRAY_BUFFER, Some(buffer));
        gl.buffer_data_size(glow::ARRAY_BUFFER, size, glow::STATIC_COPY);
        Ok(buffer)
    }
}

/// Reads a buffer of `length` bytes back.
pub(super) fn hash_of(gl: &Context, buffer: Buffer, length: i32) -> Result<u64> {
    // SAFETY: a context is current, the buffer is its and of this length; the mapping is only read, and not after it
    // ends.
    unsafe {
        gl.bind_buffer(glow::ARRAY_BUFFER, Some(buffer));
        let mapped = gl.map_buffer_range(glow::ARRAY_BUFFER, 0, length, glow::MAP_READ_BIT);
        if mapped.is_null() {
            return Err(Error::NoGl("mapping of a buffer"));
        }
        let bytes = slice::from_raw_parts(mapped, length.unsigned_abs() as usize);
        let sum = hash(bytes.iter().copied());
        gl.unmap_buffer(glow::ARRAY_BUFFER);
        Ok(sum)
    }
}

/// Where an attribute is: in a buffer, `count` floats from `first` on in each vertex of `stride`.
pub(super) struct Attribute {
    pub(super) buffer: Buffer,
    pub(super) count: i32,
    pub(super) first: i32,
    pub(super) stride: i32,
}

/// Attributes 0, 1, ... and the indices that join their vertices.
pub(super) fn vertex_array(
    gl: &Context,
    attributes: &[Attribute],
    indices: Option<&[u8]>,
) -> Result<VertexArray> {
    // SAFETY: a context is current, and the buffers are its.
    unsafe {
        let array = gl
            .create_vertex_array()
            .map_err(Error::gl("create a vertex array"))?;
        gl.bind_vertex_array(Some(array));
        for (index, attribute) in (0..).zip(attributes) {
            let Attribute {
                buffer,
                count,
                first,
                stride,
            } = *attribute;
            gl.bind_buffer(glow::ARRAY_BUFFER, Some(buffer));
            gl.enable_vertex_attrib_array(index);
            gl.vertex_attrib_pointer_f32(
                index,
                count,
                glow::FLOAT,
                false,
                stride * FLOAT,
                first * FLOAT,
            );
        }
        if let Some(indices) = indices {
            buffer(gl, glow::ELEMENT_ARRAY_BUFFER, indices)?;
        }
        gl.bind_vertex_array(None);
        Ok(array)
    }
}

/// A square RGBA texture of `side` pixels with all its levels; from `pixels`, or for the GPU to fill.
pub(super) fn texture(gl: &Context, side: i32, pixels: Option<&[u8]>) -> Result<Texture> {
    let levels = side.ilog2().cast_signed() + 1;
    // SAFETY: a context is current, and the pixels are as many as the size says.
    unsafe {
        let texture = gl.create_texture().map_err(Error::gl("create a texture"))?;
        gl.bind_texture(glow::TEXTURE_2D, Some(texture));
        gl.tex_storage_2d(glow::TEXTURE_2D, levels, glow::RGBA8, side, side);
        if let Some(pixels) = pixels {
            gl.tex_sub_image_2d(
                glow::TEXTURE_2D,
                0,
                0,
                0,
                side,
                side,
                glow::RGBA,
                glow::UNSIGNED_BYTE,
                PixelUnpackData::Slice(Some(pixels)),
            );
            gl.generate_mipmap(glow::TEXTURE_2D);
        }
        Ok(texture)
    }
}

/// A framebuffer that draws into a texture, with depth if wanted.
pub(super) fn framebuffer(
    gl: &Context,
    texture: Texture,
    side: i32,
    depth: bool,
) -> Result<Framebuffer> {
    // SAFETY: a context is current, and the texture is its.
    unsafe {
        let framebuffer = gl
            .create_framebuffer()
            .map_err(Error::gl("create a framebuffer"))?;
        gl.bind_framebuffer(glow::FRAMEBUFFER, Some(framebuffer));
        gl.framebuffer_texture_2d(
            glow::FRAMEBUFFER,
            glow::COLOR_ATTACHMENT0,
            glow::TEXTURE_2D,
            Some(texture),
            0,
        );
        if depth {
            let buffer = gl
                .create_renderbuffer()
                .map_err(Error::gl("create a renderbuffer"))?;
            gl.bind_renderbuffer(glow::RENDERBUFFER, Some(buffer));
            gl.renderbuffer_storage(glow::RENDERBUFFER, glow::DEPTH_COMPONENT24, side, side);
            gl.framebuffer_renderbuffer(
                glow::FRAMEBUFFER,
                glow::DEPTH_ATTACHMENT,
                glow::RENDERBUFFER,
                Some(buffer),
            );
        }
        match gl.check_framebuffer_status(glow::FRAMEBUFFER) {
            glow::FRAMEBUFFER_COMPLETE => Ok(framebuffer),
            code => Err(Error::GlCode {
                what: "a framebuffer",
                code,
            }),
        }
    }
}

/// Smooth, and endless in both directions.
pub(super) fn sampler(gl: &Context) -> Result<Sampler> {
    let parameters = [
        (glow::TEXTURE_MIN_FILTER, glow::LINEAR_MIPMAP_LINEAR),
        (glow::TEXTURE_MAG_FILTER, glow::LINEAR),
        (glow::TEXTURE_WRAP_S, glow::REPEAT),
        (glow::TEXTURE_WRAP_T, glow::REPEAT),
    ];
    // SAFETY: a context is current.
    unsafe {
        let sampler = gl.create_sampler().map_err(Error::gl("create a sampler"))?;
        for (parameter, value) in parameters {
            gl.sampler_parameter_i32(sampler, parameter, value.cast_signed());
        }
        Ok(sampler)
    }
}
