// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Venus beside virgl in one renderer, through the render server and a real Vulkan driver: one
//! test, as a process has one renderer.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use virtio_gpu_rutabaga::{RutabagaConfig, RutabagaRenderer};
use virtio_gpu_s3::renderer::BlobParams;
use virtio_gpu_s3::{Fence, Renderer, Timeline};
use virtio_gpu_s3_testing::request;

const VENUS: u32 = 4;
/// HOST3D, mappable, of no Vulkan memory object: shared memory that both sides write.
const SHARED: BlobParams = BlobParams {
    blob_mem: 2,
    blob_flags: 1,
    blob_id: 0,
    size: 4096,
};
/// Numbers of venus' commands, and the flag that asks for an answer.
const SET_REPLY_STREAM: u32 = 178;
const ENUMERATE_INSTANCE_VERSION: u32 = 137;
const WITH_REPLY: u32 = 1;

/// Asks the driver for its version, with the answer in resource `id`.
fn ask_version(id: u32) -> Vec<u8> {
    let words = [
        // A pointer that is there, the resource, offset 0, 4096 bytes.
        &[SET_REPLY_STREAM, 0, 1, 0, id, 0, 0, 4096, 0][..],
        // A pointer that is there, for the answer.
        &[ENUMERATE_INSTANCE_VERSION, WITH_REPLY, 1, 0],
    ];
    let words = words.into_iter().flatten();
    words.flat_map(|word| word.to_le_bytes()).collect()
}

fn wait_for(renderer: &mut RutabagaRenderer, wakes: &Receiver<()>, fence: Fence) {
    renderer.create_fence(fence).unwrap();
    while !renderer.poll().contains(&fence) {
        wakes.recv_timeout(Duration::from_secs(20)).unwrap();
    }
}

fn fence(ctx_id: u32, id: u64) -> Fence {
    let ring_idx = 0;
    let timeline = Timeline::Ring { ctx_id, ring_idx };
    Fence { timeline, id }
}

#[test]
fn a_context_of_venus_reaches_a_vulkan_driver_and_one_of_virgl_goes_on() {
    let (woken, wakes) = channel();
    // The test may have ended.
    let wake = move || woken.send(()).unwrap_or_default();
    let config = RutabagaConfig {
        venus: true,
        ..RutabagaConfig::default()
    };
    let mut renderer = RutabagaRenderer::new(&config, wake).unwrap();
    let capsets = renderer.capsets();
    let ids: Vec<_> = capsets.iter().map(|capset| capset.id).collect();
    assert_eq!(ids, [1, 2, VENUS], "what was asked for, and nothing else");
    for round in 1..=3_u64 {
        renderer.create_context(1, VENUS, b"vulkan").unwrap();
        renderer.create_blob(1, 10, &SHARED, None).unwrap();
        renderer.attach_resource(1, 10).unwrap();
        renderer.submit(1, &ask_version(10), &[]).unwrap();
        wait_for(&mut renderer, &wakes, fence(1, round));
        let mut answer = [0; 20];
        renderer.read_blob(10, 0, &mut answer).unwrap();
        let (words, _) = answer.as_chunks::<4>();
        let words: Vec<_> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
        // The command, success, a pointer that is there, and at least version 1.1.
        assert_eq!(words[..4], [ENUMERATE_INSTANCE_VERSION, 0, 1, 0]);
        assert!(words[4] >= 1 << 22 | 1 << 12, "{:x}", words[4]);
        // A context of virgl beside it, in the same renderer.
        renderer.create_context(2, 2, b"opengl").unwrap();
        renderer
            .create_resource(20, &request::texture(64, 64))
            .unwrap();
        renderer.attach_resource(2, 20).unwrap();
        renderer.submit(2, &[0; 4], &[]).unwrap();
        wait_for(&mut renderer, &wakes, fence(2, 100 + round));
        // Mapped for the guest too, and not for longer than it lasts.
        let mapping = renderer.map_blob(10).unwrap();
        assert_eq!(mapping.size, 4096);
        if round == 2 {
            renderer.unmap_blob(10).unwrap();
        }
        for (ctx_id, id) in [(2, 20), (1, 10)] {
            renderer.detach_resource(ctx_id, id).unwrap();
            renderer.destroy_resource(id).unwrap();
            renderer.destroy_context(ctx_id).unwrap();
        }
    }
}
