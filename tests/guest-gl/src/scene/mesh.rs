// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Vertices and triangles.

use glam::Vec3;

/// Points around the torus, and around its tube.
const RING: u16 = 48;
const TUBE: u16 = 20;

/// How many points [`torus_grid`] has.
pub(super) const TORUS_POINTS: u16 = (RING + 1) * (TUBE + 1);

/// As OpenGL takes them.
pub(super) fn bytes(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_ne_bytes).collect()
}

/// As OpenGL takes indices.
pub(super) fn index_bytes(indices: &[u16]) -> Vec<u8> {
    indices
        .iter()
        .flat_map(|index| index.to_ne_bytes())
        .collect()
}

/// A cube of side 2: position, normal and texture coordinates of each corner of each face.
pub(super) fn cube() -> (Vec<f32>, Vec<u16>) {
    let faces = [
        (Vec3::X, Vec3::Y),
        (Vec3::NEG_X, Vec3::Y),
        (Vec3::Y, Vec3::NEG_Z),
        (Vec3::NEG_Y, Vec3::Z),
        (Vec3::Z, Vec3::Y),
        (Vec3::NEG_Z, Vec3::Y),
    ];
    let corners = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)];
    let mut vertices = Vec::new();
    for (normal, up) in faces {
        let right = up.cross(normal);
        for (s, t) in corners {
            let position = normal + right * (2.0 * s - 1.0) + up * (2.0 * t - 1.0);
            vertices.extend(position.to_array());
            vertices.extend(normal.to_array());
            vertices.extend([s, t]);
        }
    }
    let triangles = |face: u16| [0, 1, 2, 0, 2, 3].map(|corner| face * 4 + corner);
    (vertices, (0..6).flat_map(triangles).collect())
}

/// The unit square, row by row, and the triangles that join its points.
pub(super) fn torus_grid() -> (Vec<f32>, Vec<u16>) {
    let part = |index: u16, of: u16| f32::from(index) / f32::from(of);
    let points = (0..=RING).flat_map(|ring| (0..=TUBE).map(move |tube| (ring, tube)));
    let grid = points.flat_map(|(ring, tube)| [part(ring, RING), part(tube, TUBE)]);
    let squares = (0..RING).flat_map(|ring| (0..TUBE).map(move |tube| ring * (TUBE + 1) + tube));
    let next = TUBE + 1;
    let triangles =
        squares.flat_map(|first| [0, 1, next + 1, 0, next + 1, next].map(|offset| first + offset));
    (grid.collect(), triangles.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_triangles_of_the_cube_face_outward() {
        let (vertices, indices) = cube();
        let position = |index: &u16| {
            let start = usize::from(*index) * 8;
            Vec3::from_slice(&vertices[start..start + 3])
        };
        assert_eq!(indices.len(), 36);
        for triangle in indices.chunks(3) {
            let [a, b, c] = [0, 1, 2].map(|corner| position(&triangle[corner]));
            assert!((b - a).cross(c - a).dot(a + b + c) > 0.0);
        }
    }

    #[test]
    fn the_torus_is_made_of_all_its_points_and_no_others() {
        let (grid, indices) = torus_grid();
        assert_eq!(grid.len(), usize::from(TORUS_POINTS) * 2);
        for point in 0..TORUS_POINTS {
            assert!(indices.contains(&point), "{point} is in no triangle");
        }
        assert!(indices.iter().all(|&index| index < TORUS_POINTS));
    }
}
