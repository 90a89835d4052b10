// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device on virglrenderer, which draws with whatever OpenGL the host has.
//!
//! There is one virgl renderer in a process, so the tests share one device and take turns. Each
//! begins with a full reset, which is a test of that too.

mod blobs;
mod drawing;
mod fences;
mod refusals;
mod resets;
mod scene;

use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use virtio_gpu_rutabaga::{RutabagaConfig, RutabagaRenderer};
use virtio_gpu_s3::protocol::ResponseType;
use virtio_gpu_s3::{Activation, ErrorKind, Gpu, Image, Rect, ResetKind, Token};
use virtio_gpu_s3_testing::{Answer, GpuDriver, Region, config};

pub(crate) const OK: ResponseType = ResponseType::OK_NODATA;
pub(crate) const UNSPEC: ResponseType = ResponseType::ERR_UNSPEC;
pub(crate) const PARAMETER: ResponseType = ResponseType::ERR_INVALID_PARAMETER;
pub(crate) const WHOLE: Rect = Rect::sized(scene::SIZE, scene::SIZE);

/// A fence takes milliseconds, also on a loaded machine; what takes this long never comes.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often the renderer woke us.
static WOKEN: (Mutex<u64>, Condvar) = (Mutex::new(0), Condvar::new());

pub(crate) struct Lab {
    pub(crate) driver: GpuDriver,
    pub(crate) region: Region,
    /// Refusals and failures of the renderer before the test.
    errors_before: u64,
}

static LAB: LazyLock<Mutex<Lab>> = LazyLock::new(|| {
    let wake = || {
        *lock(&WOKEN.0) += 1;
        WOKEN.1.notify_all();
    };
    let renderer = RutabagaRenderer::new(&RutabagaConfig::default(), wake).unwrap();
    let config = config(1, scene::SIZE, scene::SIZE);
    let gpu = Gpu::new(config, Box::new(renderer));
    let region = Region::new(1 << 20);
    let gpu = gpu.unwrap().with_host_visible(Box::new(region.clone()));
    let driver = GpuDriver::with_gpu(gpu, 16 << 20);
    Mutex::new(Lab {
        driver,
        region,
        errors_before: 0,
    })
});

/// A test that failed leaves the device to the next one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The device, reset.
pub(crate) fn lab() -> MutexGuard<'static, Lab> {
    let mut lab = lock(&LAB);
    lab.driver.gpu().reset(ResetKind::Full);
    lab.activate(Activation::Fresh);
    lab.driver.ram.free_all();
    lab.driver.fence = None;
    lab.driver.ctx_id = 0;
    assert_eq!(lab.region.mapped(), []);
    lab.errors_before = 0;
    lab.errors_before = lab.host_errors();
    lab
}

impl Lab {
    pub(crate) fn activate(&mut self, how: Activation) {
        let features = self.driver.gpu().device_features();
        self.driver.gpu().activate(features, how);
    }

    /// Waits for so many answers, woken by the renderer and by nothing else.
    pub(crate) fn completed(&mut self, count: usize) -> Vec<(Token, Answer)> {
        let start = Instant::now();
        let mut answers = Vec::new();
        loop {
            let seen = *lock(&WOKEN.0);
            let done = self.driver.gpu().take_completed();
            answers.extend(done.map(|done| (done.token, Answer::parse(done.response.bytes()))));
            if answers.len() >= count {
                return answers;
            }
            assert!(start.elapsed() < PATIENCE, "the fences do not signal");
            let woken = lock(&WOKEN.0);
            let waited = WOKEN
                .1
                .wait_timeout_while(woken, PATIENCE, |woken| *woken == seen);
            drop(waited.unwrap());
        }
    }

    /// Flushes the whole of a resource that the scanout shows, and gives what is seen then.
    pub(crate) fn shown(&mut self, id: u32) -> Image {
        assert_eq!(self.driver.set_scanout(0, id, WHOLE), OK);
        assert_eq!(self.driver.flush(id, WHOLE), OK);
        self.driver.scanout_image(0, false).unwrap()
    }

    /// How often the renderer refused or failed in this test.
    pub(crate) fn host_errors(&mut self) -> u64 {
        let errors = self.driver.gpu().status().counters.errors;
        errors.get(ErrorKind::Host) - self.errors_before
    }
}
