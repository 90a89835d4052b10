// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A viewer that keeps what it saw, and nothing else.

use std::collections::BTreeMap;
use std::mem;

use super::GpuDriver;
use virtio_gpu_s3::Image;
use virtio_gpu_s3::Rect;
use virtio_gpu_s3::{Picture, Seen};

/// What a viewer sees. Copies only damage, so damage that the device left out is missing.
#[derive(Clone, Debug, Default)]
pub struct Screen {
    outputs: BTreeMap<u32, Output>,
    mode_changes: usize,
    damage: Vec<(u32, Rect)>,
}

#[derive(Clone, Debug, Default)]
struct Output {
    seen: Seen,
    image: Option<Image>,
    cursor: Option<Image>,
    position: (i32, i32),
}

impl Screen {
    /// Looks at every scanout.
    ///
    /// # Panics
    /// One cannot be read, or tells of damage that cannot be.
    pub fn look(&mut self, driver: &mut GpuDriver) -> &mut Self {
        let count = driver.gpu().status().scanouts.len();
        for scanout in (0..).take(count) {
            let seen = self.outputs.entry(scanout).or_default().seen;
            let super::Direct { gpu, memory } = &mut driver.transport;
            let changed = gpu.has_changed(scanout, seen);
            let picture = gpu.look(scanout, seen, memory).expect("a picture");
            assert!(picture.damage.len() <= 16);
            assert!(changed || picture.damage.is_empty());
            self.see(scanout, &picture);
            assert!(!gpu.has_changed(scanout, self.outputs[&scanout].seen));
        }
        self
    }

    fn see(&mut self, scanout: u32, picture: &Picture<'_>) {
        let output = self.outputs.entry(scanout).or_default();
        output.seen = picture.seen;
        output.position = picture.cursor_position;
        if picture.cursor_changed {
            let image = picture.cursor.map(|cursor| cursor.frame.to_image());
            output.cursor = image;
        }
        let size = |image: &Image| (image.width, image.height);
        let size_before = output.image.as_ref().map(size);
        if picture.frame.map(|_| picture.size) != size_before {
            self.mode_changes += 1;
            output.image = picture
                .frame
                .map(|frame| Image::black(frame.width, frame.height));
        }
        let (Some(frame), Some(image)) = (&picture.frame, &mut output.image) else {
            assert_eq!(picture.damage, []);
            return;
        };
        for damage in &picture.damage {
            self.damage.push((scanout, *damage));
            assert!(!damage.is_empty());
            let part = frame.part(*damage).expect("damage inside the frame");
            let part = part.to_image();
            let row_len = damage.width as usize * 4;
            for (row, y) in part.pixels.chunks(row_len).zip(damage.y..) {
                let start = (y * image.width + damage.x) as usize * 4;
                image.pixels[start..start + row_len].copy_from_slice(row);
            }
        }
    }

    /// What the scanout showed without its cursor, `None` when it was off.
    pub fn image(&self, scanout: u32) -> Option<Image> {
        self.outputs.get(&scanout)?.image.clone()
    }

    /// The cursor's shape, `None` when it was hidden.
    pub fn cursor(&self, scanout: u32) -> Option<Image> {
        self.outputs.get(&scanout)?.cursor.clone()
    }

    /// Where the cursor's corner was.
    pub fn cursor_position(&self, scanout: u32) -> (i32, i32) {
        let output = self.outputs.get(&scanout);
        output.map_or((0, 0), |output| output.position)
    }

    /// How often a scanout was seen to go on, off or to another size.
    pub fn mode_changes(&self) -> usize {
        self.mode_changes
    }

    /// Scanout and damage of each look since the last call.
    pub fn take_damage(&mut self) -> Vec<(u32, Rect)> {
        mem::take(&mut self.damage)
    }
}
