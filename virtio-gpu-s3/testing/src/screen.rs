// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A display that keeps what it is shown, and nothing else.

use std::collections::BTreeMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtio_gpu_s3::Rect;
use virtio_gpu_s3::{CursorImage, DisplaySink, ScanoutMode};
use virtio_gpu_s3::{Frame, Image};

/// What a viewer sees. Copies only damage, so damage that the device left out is missing.
#[derive(Clone, Debug, Default)]
pub struct Screen(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    outputs: BTreeMap<u32, Output>,
    mode_changes: usize,
    flushes: Vec<(u32, Rect)>,
}

#[derive(Debug, Default)]
struct Output {
    image: Option<Image>,
    cursor: Option<Image>,
    position: (i32, i32),
}

impl Screen {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the scanout shows without its cursor, `None` when it is off.
    pub fn image(&self, scanout: u32) -> Option<Image> {
        self.lock().outputs.get(&scanout)?.image.clone()
    }

    /// The cursor's shape, `None` when it is hidden.
    pub fn cursor(&self, scanout: u32) -> Option<Image> {
        self.lock().outputs.get(&scanout)?.cursor.clone()
    }

    /// Where the cursor's corner is.
    pub fn cursor_position(&self, scanout: u32) -> (i32, i32) {
        let state = self.lock();
        let output = state.outputs.get(&scanout);
        output.map_or((0, 0), |output| output.position)
    }

    /// How often a scanout was switched on, off or to another mode.
    pub fn mode_changes(&self) -> usize {
        self.lock().mode_changes
    }

    /// Scanout and damage of each flush since the last call.
    pub fn take_flushes(&self) -> Vec<(u32, Rect)> {
        mem::take(&mut self.lock().flushes)
    }
}

impl DisplaySink for Screen {
    fn set_scanout(&mut self, scanout: u32, mode: Option<ScanoutMode>) {
        let mut state = self.lock();
        state.mode_changes += 1;
        let image = mode.map(|mode| Image::black(mode.width, mode.height));
        state.outputs.entry(scanout).or_default().image = image;
    }

    fn flush(&mut self, scanout: u32, damage: Rect, frame: &Frame<'_>) {
        let mut state = self.lock();
        state.flushes.push((scanout, damage));
        let output = state.outputs.get_mut(&scanout).expect("a scanout");
        let image = output.image.as_mut().expect("a scanout that is on");
        assert_eq!((image.width, image.height), (frame.width, frame.height));
        let part = frame.part(damage).expect("damage inside the frame");
        let part = part.to_image();
        let row_len = damage.width as usize * 4;
        for (row, y) in part.pixels.chunks(row_len).zip(damage.y..) {
            let start = (y * image.width + damage.x) as usize * 4;
            image.pixels[start..start + row_len].copy_from_slice(row);
        }
    }

    fn set_cursor(&mut self, scanout: u32, cursor: Option<CursorImage<'_>>) {
        let image = cursor.map(|cursor| cursor.frame.to_image());
        self.lock().outputs.entry(scanout).or_default().cursor = image;
    }

    fn move_cursor(&mut self, scanout: u32, x: i32, y: i32) {
        let mut state = self.lock();
        state.outputs.entry(scanout).or_default().position = (x, y);
    }
}
