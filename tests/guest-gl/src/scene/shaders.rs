// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The scene's shaders.

/// Positions of a triangle that covers everything, from the number of the vertex alone.
pub(super) const COVER_VERTEX: &str = "#version 300 es
out vec2 place;
void main() {
    place = vec2(float(gl_VertexID & 1), float(gl_VertexID >> 1)) * 4.0 - 1.0;
    gl_Position = vec4(place, 0.0, 1.0);
}";

/// A Julia set.
pub(super) const JULIA_FRAGMENT: &str = "#version 300 es
precision highp float;
in vec2 place;
out vec4 colour;
void main() {
    vec2 z = place * 1.4;
    int steps = 0;
    for (; steps < 48 && dot(z, z) < 16.0; steps++) {
        z = vec2(z.x * z.x - z.y * z.y, 2.0 * z.x * z.y) + vec2(-0.8, 0.156);
    }
    float heat = float(steps) / 48.0;
    colour = vec4(0.25 + 0.75 * heat, heat * heat + 0.15, 0.55 - 0.4 * heat, 1.0);
}";

/// Bends a grid into a torus with ripples. Its outputs are captured, nothing is rasterized.
pub(super) const TORUS_VERTEX: &str = "#version 300 es
layout(location = 0) in vec2 grid;
out vec3 position;
out vec3 normal;
void main() {
    vec2 angle = grid * 6.28318530718;
    float tube = 0.38 + 0.04 * sin(angle.x * 6.0);
    vec3 ring = vec3(cos(angle.x), 0.0, sin(angle.x));
    normal = ring * cos(angle.y) + vec3(0.0, sin(angle.y), 0.0);
    position = ring * 0.9 + normal * tube;
    gl_Position = vec4(position, 1.0);
}";

/// What [`TORUS_VERTEX`] gives, in this order.
pub(super) const TORUS_VARYINGS: [&str; 2] = ["position", "normal"];

/// For programs without a picture.
pub(super) const NO_FRAGMENT: &str = "#version 300 es
precision highp float;
out vec4 colour;
void main() { colour = vec4(1.0); }";

/// Things in space.
pub(super) const LIT_VERTEX: &str = "#version 300 es
layout(location = 0) in vec3 position;
layout(location = 1) in vec3 normal;
layout(location = 2) in vec2 coordinates;
uniform mat4 model;
uniform mat4 view;
out vec3 world;
out vec3 facing;
out vec2 texel;
void main() {
    vec4 placed = model * vec4(position, 1.0);
    world = placed.xyz;
    facing = mat3(model) * normal;
    texel = coordinates;
    gl_Position = view * placed;
}";

/// Blinn and Phong's light on a texture, for each pixel.
pub(super) const LIT_FRAGMENT: &str = "#version 300 es
precision highp float;
layout(std140) uniform Light {
    vec4 lamp;
    vec4 tint;
    vec4 eye;
};
uniform sampler2D surface;
uniform float tiles;
in vec3 world;
in vec3 facing;
in vec2 texel;
out vec4 colour;
void main() {
    vec3 normal = normalize(facing);
    vec3 to_lamp = normalize(lamp.xyz - world);
    vec3 halfway = normalize(to_lamp + normalize(eye.xyz - world));
    float diffuse = max(dot(normal, to_lamp), 0.0);
    float shine = diffuse > 0.0 ? pow(max(dot(normal, halfway), 0.0), 40.0) : 0.0;
    vec3 base = texture(surface, texel * tiles).rgb;
    colour = vec4(base * (0.22 + 0.85 * diffuse) * tint.rgb + vec3(0.6 * shine), 1.0);
}";
