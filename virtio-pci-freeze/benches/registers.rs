// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a register access costs, beside a plain access to a struct in memory, and what a frozen reset costs.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use virtio_pci_freeze::test_utils::{function_config, retention, transport_config};
use virtio_pci_freeze::{BarLayout, Effect, Layout, ResetOutcome, RingPosition, VirtioPciFunction};

const QUEUES: usize = 64;

/// The common configuration as drivers lay it over their memory.
#[repr(C)]
#[derive(Debug, Default)]
struct RawCommonConfig {
    device_feature_select: u32,
    device_feature: u32,
    driver_feature_select: u32,
    driver_feature: u32,
    config_msix_vector: u16,
    num_queues: u16,
    device_status: u8,
    config_generation: u8,
    queue_select: u16,
}

fn write(function: &mut VirtioPciFunction, offset: u64, data: &[u8]) {
    let _ = black_box(function.write_bar(BarLayout::VIRTIO, offset, data));
}

fn negotiate(function: &mut VirtioPciFunction) {
    write(function, 20, &[1]);
    write(function, 20, &[3]);
    for (select, features) in [(0u8, 0x1000_0003u32), (1, 1)] {
        write(function, 8, &[select, 0, 0, 0]);
        write(function, 12, &features.to_le_bytes());
    }
    write(function, 20, &[0xb]);
}

/// A running function with 64 queues.
fn running() -> VirtioPciFunction {
    let mut transport = transport_config(Layout::Seed, retention(false));
    transport.queue_sizes = vec![64; QUEUES];
    let mut function = VirtioPciFunction::new(function_config(transport)).expect("valid");
    let _ = black_box(function.write_config(4, &[6, 4]));
    negotiate(&mut function);
    for queue in (0..64u16).rev() {
        write(&mut function, 22, &queue.to_le_bytes());
        write(&mut function, 28, &[1, 0]);
    }
    write(&mut function, 20, &[0xf]);
    assert_eq!(function.transport().active_queues().count(), QUEUES);
    function
}

fn accesses(c: &mut Criterion) {
    let mut function = running();
    let mut group = c.benchmark_group("register");
    let mut read = |name: &str, offset: u64, width: usize| {
        let mut data = [0; 8];
        group.bench_function(name, |b| {
            b.iter(|| {
                let data = &mut data[..width];
                let _ = black_box(function.read_bar(BarLayout::VIRTIO, black_box(offset), data));
                black_box(data[0])
            });
        });
    };
    read("read device_status", 20, 1);
    read("read device_feature", 4, 4);
    read("read queue_desc, one half", 32, 4);
    let mut write = |name: &str, offset: u64, data: &[u8]| {
        group.bench_function(name, |b| {
            b.iter(|| black_box(function.write_bar(BarLayout::VIRTIO, black_box(offset), data)));
        });
    };
    write("write queue_select", 22, &[1, 0]);
    write("write device_feature_select", 0, &[1, 0, 0, 0]);
    write("write device_status, unchanged", 20, &[0xf]);
    write("ring a doorbell", 0x3004, &[1, 0]);
    group.finish();
}

fn raw_accesses(c: &mut Criterion) {
    let mut raw = RawCommonConfig::default();
    let mut group = c.benchmark_group("raw struct");
    group.bench_function("read device_status", |b| {
        b.iter(|| black_box(black_box(&raw).device_status));
    });
    group.bench_function("write queue_select", |b| {
        b.iter(|| black_box(&mut raw).queue_select = black_box(1));
    });
    group.finish();
}

fn frozen_reset(c: &mut Criterion) {
    let mut function = running();
    function.platform_sleep();
    let positions = [RingPosition::default(); QUEUES];
    c.bench_function("frozen reset and reinstatement of 64 queues", |b| {
        b.iter(|| {
            for effect in function.write_bar(BarLayout::VIRTIO, 20, &[0]) {
                if let Effect::Reset { ticket, .. } = effect {
                    let done = ResetOutcome::Done(&positions);
                    let _ = black_box(function.reset_done(ticket, done));
                }
            }
            negotiate(&mut function);
            write(&mut function, 20, &[0xf]);
        });
    });
    let counters = function.transport().counters();
    assert_eq!(counters.reinstatements, counters.frozen_resets);
    assert_eq!(function.transport().active_queues().count(), QUEUES);
}

criterion_group!(benches, accesses, raw_accesses, frozen_reset);
criterion_main!(benches);
