// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! virglrenderer in a process of its own does what it does on a thread: one test, as a process has one renderer.

use std::collections::BTreeMap;
use std::fs::File;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::tempfile;
use virtio_gpu_renderer_process::{RemoteRenderer, RendererProgram};
use virtio_gpu_rutabaga::{RutabagaConfig, RutabagaRenderer};
use virtio_gpu_s3::protocol::{CommandId, Queue, ResponseType};
use virtio_gpu_s3::renderer::Transfer3d;
use virtio_gpu_s3::{Activation, Gpu, Limits, Outcome, Renderer, Request, Response, Token};
use virtio_gpu_s3_testing::{Answer, config, request, scene};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

const RAM: usize = 1 << 20;
const BACKING: u64 = 0x1_0000;
const REQUEST: u64 = 0x8_0000;
/// A request in two pieces, as Linux sends a stream.
const HEADER: usize = 32;
const PATIENCE: Duration = Duration::from_secs(60);

struct Machine {
    gpu: Gpu,
    memory: GuestMemoryMmap,
    request: Request,
    waiting: BTreeMap<Token, usize>,
    answers: BTreeMap<usize, ResponseType>,
}

impl Machine {
    fn new(renderer: impl Renderer + 'static) -> Self {
        let file: File = tempfile().unwrap();
        file.set_len(RAM as u64).unwrap();
        let region = (GuestAddress(0), RAM, Some(FileOffset::new(file, 0)));
        let memory = GuestMemoryMmap::from_ranges_with_files([region]).unwrap();
        let mut gpu = Gpu::new(config(1, 64, 64), Box::new(renderer)).unwrap();
        let features = gpu.device_features();
        gpu.activate(features, Activation::Fresh);
        Self {
            gpu,
            memory,
            request: Request::default(),
            waiting: BTreeMap::new(),
            answers: BTreeMap::new(),
        }
    }

    fn send(&mut self, number: usize, bytes: &[u8]) {
        let at = GuestAddress(REQUEST);
        self.memory.write_slice(bytes, at).unwrap();
        let header = bytes.len().min(HEADER);
        let ranges = [
            (at, header),
            (GuestAddress(REQUEST + header as u64), bytes.len() - header),
        ];
        let max = Limits::default().max_command_bytes();
        self.request.load(&ranges, max, &self.memory).unwrap();
        let mut response = Response::new(64);
        let outcome = self
            .gpu
            .handle(Queue::Control, &self.request, &self.memory, &mut response);
        match outcome {
            Outcome::Done => self.answered(number, &response),
            Outcome::Deferred(token) => drop(self.waiting.insert(token, number)),
        }
        // A stream was read by now.
        let nothing = vec![0xee; bytes.len()];
        self.memory.write_slice(&nothing, at).unwrap();
        self.collect();
    }

    fn answered(&mut self, number: usize, response: &Response) {
        let answer = Answer::parse(response.bytes());
        self.answers.insert(number, answer.type_());
    }

    fn collect(&mut self) {
        let completed: Vec<_> = self.gpu.take_completed().collect();
        for done in completed {
            let number = self.waiting.remove(&done.token).unwrap();
            self.answered(number, &done.response);
        }
    }

    /// What became of each request, and of the texture.
    fn finish(mut self) -> (BTreeMap<usize, ResponseType>, Vec<u8>) {
        let start = Instant::now();
        while !self.waiting.is_empty() {
            assert!(start.elapsed() < PATIENCE);
            self.collect();
            thread::yield_now();
        }
        self.gpu.quiesce(&self.memory).unwrap();
        let mut pixels = vec![0; scene::BYTES as usize];
        let at = GuestAddress(BACKING);
        self.memory.read_slice(&mut pixels, at).unwrap();
        (self.answers, pixels)
    }
}

fn transfer(id: CommandId, x: u32) -> Vec<u8> {
    let whole = request::whole(&scene::TEXTURE);
    let w = whole.w / 2;
    let part = Transfer3d { x, w, ..whole };
    request::in_context(1, request::transfer_3d(id, scene::ID, &part))
}

/// What a guest sends that draws, makes mistakes and asks for fences, in no order.
fn program() -> Vec<Vec<u8>> {
    let mut seed = 5_u32;
    let mut random = move |below: u32| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) % below
    };
    let mut requests: Vec<_> = scene::make_target(BACKING).into();
    for number in 0..2000_u16 {
        let clear = scene::clear(f32::from(number % 255) / 255.0);
        let request = match random(8) {
            // Longer than a page: what does nothing, and then something.
            0 => {
                let mut words = vec![0; 1000 + random(3000) as usize];
                words.extend(clear);
                request::submit_3d(&words)
            }
            1 => {
                let mut words = vec![0; random(3000) as usize];
                words.push(0xff);
                request::submit_3d(&words)
            }
            2 => transfer(CommandId::TRANSFER_FROM_HOST_3D, random(40)),
            3 => transfer(CommandId::TRANSFER_TO_HOST_3D, random(40)),
            4 => request::resource_unref(99),
            _ => request::submit_3d(&clear),
        };
        let context = if random(20) == 0 { 9 } else { 1 };
        requests.push(if random(2) == 0 {
            request::fenced(context, u64::from(number) + 2, request)
        } else {
            request::in_context(context, request)
        });
    }
    requests.push(scene::read_back());
    requests
}

#[test]
fn a_process_and_a_thread_answer_the_same_and_draw_the_same() {
    let program = program();
    let run = |mut machine: Machine| {
        for (number, request) in program.iter().enumerate() {
            machine.send(number, request);
        }
        machine.finish()
    };
    let here = RutabagaRenderer::new(&RutabagaConfig::default(), || {}).unwrap();
    let (expected, pixels) = run(Machine::new(here));
    let process = RendererProgram::new(env!("CARGO_BIN_EXE_virtio-gpu-s3d").into());
    let there = RemoteRenderer::new(process, || {}).unwrap();
    let (answers, same_pixels) = run(Machine::new(there));
    assert_eq!(answers, expected);
    assert_eq!(same_pixels, pixels);
    let errors = answers.values().filter(|type_| type_.0 >= 0x1200).count();
    assert!((200..1500).contains(&errors), "{errors}");
}
