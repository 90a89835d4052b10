// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Eight pictures of 1920 × 1080 to a file and back, beside the same bytes without a form. Where they go: `TMPDIR`.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::Write;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tempfile::tempdir;
use virtio_gpu_s3::{Gpu, PixelFormat};
use virtio_gpu_s3_testing::{GpuDriver, pattern};
use virtio_gpu_snapshot::{Snapshot, read_gpu, write_file, write_gpu};

const WIDTH: u32 = 1920;
const HEIGHT: u32 = 1080;
const PICTURES: u32 = 8;
const BYTES: usize = (WIDTH * HEIGHT * 4) as usize;

/// A device whose guest drew on scattered pages.
fn device() -> GpuDriver {
    let (mut driver, _) = GpuDriver::with_screen(1, WIDTH, HEIGHT);
    let pixels = pattern(1, BYTES);
    for id in 1..=PICTURES {
        let buffer = driver.framebuffer(0, id, PixelFormat::BGRX, WIDTH, HEIGHT);
        driver.draw(id, &buffer, &pixels, WIDTH, HEIGHT);
    }
    driver.quiesce().unwrap();
    driver
}

fn raw(path: &Path, pixels: &[u8]) {
    let beside = path.with_extension("part");
    let file = File::create(&beside).unwrap();
    for _ in 0..PICTURES {
        (&file).write_all(pixels).unwrap();
    }
    file.sync_all().unwrap();
    fs::rename(beside, path).unwrap();
}

fn snapshot(path: &Path, gpu: &Gpu) {
    write_file(path, |writer| write_gpu(writer, gpu)).unwrap();
}

fn rate(c: &mut Criterion) {
    let folder = tempdir().unwrap();
    let (one, other) = (folder.path().join("raw"), folder.path().join("snapshot"));
    let mut driver = device();
    let pixels = pattern(1, BYTES);
    let mut group = c.benchmark_group("eight pictures");
    group.sample_size(20);
    group.throughput(Throughput::Bytes(u64::from(PICTURES) * BYTES as u64));
    group.bench_function("written raw", |b| b.iter(|| raw(&one, &pixels)));
    group.bench_function("written", |b| b.iter(|| snapshot(&other, driver.gpu())));
    group.bench_function("read raw", |b| {
        b.iter(|| fs::read(black_box(&one)).unwrap());
    });
    group.bench_function("read", |b| {
        b.iter(|| {
            let file = File::open(&other).unwrap();
            black_box(read_gpu(&mut Snapshot::open(file).unwrap()).unwrap())
        });
    });
    group.finish();
}

criterion_group!(benches, rate);
criterion_main!(benches);
