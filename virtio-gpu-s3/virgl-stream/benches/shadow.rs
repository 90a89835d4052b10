// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What it takes to follow what a driver sends for one draw.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use virgl_stream::{Command, Number, Shadow, commands};

fn push(stream: &mut Vec<u32>, number: Number, object: u8, body: &[u32]) {
    Command::new(number, object, body).encode(stream).unwrap();
}

/// As many objects as an application has.
fn objects() -> Vec<u32> {
    let mut stream = Vec::new();
    for handle in (1..2000).step_by(5) {
        push(
            &mut stream,
            Number::CREATE_OBJECT,
            1,
            &[handle, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        );
        push(
            &mut stream,
            Number::CREATE_OBJECT,
            2,
            &[handle + 1, 0, 0, 0, 0, 0, 0, 0, 0],
        );
        push(
            &mut stream,
            Number::CREATE_OBJECT,
            6,
            &[handle + 2, 1, 0, 0, 0, 0],
        );
        push(
            &mut stream,
            Number::CREATE_OBJECT,
            7,
            &[handle + 3, 0, 0, 0, 0, 0, 0, 0, 0],
        );
        push(
            &mut stream,
            Number::CREATE_OBJECT,
            4,
            &[handle + 4, 1, 4, 1, 0, 0],
        );
    }
    stream
}

/// What Mesa sends where shader, textures, uniforms and vertices change between two draws.
fn draws(count: u32) -> Vec<u32> {
    let mut stream = Vec::new();
    for draw in 0..count {
        let handle = draw % 300 * 5 + 1;
        push(&mut stream, Number::BIND_OBJECT, 1, &[handle]);
        push(&mut stream, Number::BIND_OBJECT, 2, &[handle + 1]);
        push(&mut stream, Number::BIND_SHADER, 0, &[handle + 4, 1]);
        push(
            &mut stream,
            Number::SET_SAMPLER_VIEWS,
            0,
            &[1, 0, handle + 2, handle + 7],
        );
        push(
            &mut stream,
            Number::BIND_SAMPLER_STATES,
            0,
            &[1, 0, handle + 3, handle + 8],
        );
        let mut constants = vec![1, 0];
        constants.extend((0..32).map(|it| it + draw));
        push(&mut stream, Number::SET_CONSTANT_BUFFER, 0, &constants);
        push(&mut stream, Number::SET_VERTEX_BUFFERS, 0, &[32, draw, 5]);
        push(
            &mut stream,
            Number::DRAW_VBO,
            0,
            &[0, 3, 4, 0, 1, 0, 0, 0, 0, 0, 2, 0],
        );
    }
    stream
}

fn follow(c: &mut Criterion) {
    let mut shadow = Shadow::default();
    shadow.feed(&objects());
    let stream = draws(200);
    assert_eq!(commands(&stream).count(), 1600);
    let mut group = c.benchmark_group("two hundred draws");
    group.throughput(Throughput::Bytes(stream.len() as u64 * 4));
    group.bench_function("decoded", |b| {
        b.iter(|| commands(black_box(&stream)).flatten().count());
    });
    group.bench_function("followed", |b| b.iter(|| shadow.feed(black_box(&stream))));
    group.finish();
    assert_eq!(shadow.loss(), None);
    c.bench_function("a replay of two thousand objects", |b| {
        b.iter_batched(|| (), |()| shadow.replay().unwrap(), BatchSize::SmallInput);
    });
}

criterion_group!(benches, follow);
criterion_main!(benches);
