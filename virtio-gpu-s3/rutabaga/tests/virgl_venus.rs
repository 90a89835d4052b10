// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Venus beside virgl in one renderer, through the render server and a real Vulkan driver: one
//! test, as a process has one renderer.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use virtio_gpu_rutabaga::{RutabagaConfig, RutabagaRenderer};
use virtio_gpu_s3::renderer::{BlobParams, Completion, Data, Operation};
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
    let fenced = Operation::Fence.call().fenced(Some(fence));
    renderer.call(fenced).unwrap();
    while !renderer.poll().contains(&Completion::Fence(fence)) {
        wakes.recv_timeout(Duration::from_secs(20)).unwrap();
    }
}

fn context(ctx_id: u32, context_init: u32) -> Operation {
    Operation::CreateContext {
        ctx_id,
        context_init,
    }
}

fn attach(ctx_id: u32, resource_id: u32) -> Operation {
    Operation::AttachResource {
        ctx_id,
        resource_id,
    }
}

fn run(renderer: &mut RutabagaRenderer, ctx_id: u32, stream: &[u8]) {
    let in_fences = Vec::new();
    let submit = Operation::Submit { ctx_id, in_fences };
    renderer.call(submit.with(Data::Stream(&stream))).unwrap();
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
        let mut call = |operation: Operation| renderer.call(operation.call()).unwrap();
        call(context(1, VENUS));
        call(Operation::CreateBlob {
            ctx_id: 1,
            resource_id: 10,
            params: SHARED,
        });
        call(attach(1, 10));
        run(&mut renderer, 1, &ask_version(10));
        wait_for(&mut renderer, &wakes, fence(1, round));
        let mut answer = [0; 20];
        let read = Operation::ReadBlob {
            resource_id: 10,
            offset: 0,
        };
        renderer.call(read.with(Data::Room(&mut answer))).unwrap();
        let (words, _) = answer.as_chunks::<4>();
        let words: Vec<_> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
        // The command, success, a pointer that is there, and at least version 1.1.
        assert_eq!(words[..4], [ENUMERATE_INSTANCE_VERSION, 0, 1, 0]);
        assert!(words[4] >= 1 << 22 | 1 << 12, "{:x}", words[4]);
        // A context of virgl beside it, in the same renderer.
        let mut call = |operation: Operation| renderer.call(operation.call()).unwrap();
        call(context(2, 2));
        call(Operation::CreateResource {
            resource_id: 20,
            params: request::texture(64, 64),
        });
        call(attach(2, 20));
        run(&mut renderer, 2, &[0; 4]);
        wait_for(&mut renderer, &wakes, fence(2, 100 + round));
        // Mapped for the guest too, and not for longer than it lasts.
        let mut call = |operation: Operation| renderer.call(operation.call()).unwrap();
        let resource_id = 10;
        let mapping = call(Operation::MapBlob { resource_id }).mapped().unwrap();
        assert_eq!(mapping.size, 4096);
        if round == 2 {
            call(Operation::UnmapBlob { resource_id });
        }
        for (ctx_id, resource_id) in [(2, 20), (1, 10)] {
            call(Operation::DetachResource {
                ctx_id,
                resource_id,
            });
            call(Operation::DestroyResource { resource_id });
            call(Operation::DestroyContext { ctx_id });
        }
    }
}
