// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's side: what a Wayland proxy does, through its driver.

use std::mem;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use virtio_gpu_cross_domain::{CrossDomainConfig, CrossDomainRenderer};
use virtio_gpu_s3::protocol::ResponseType;
use virtio_gpu_s3::{Gpu, Limits, NullRenderer, Renderer, Token};
use virtio_gpu_s3_testing::cross_domain::{self, cmd, command, poll, query_image, submit};
use virtio_gpu_s3_testing::{
    Answer, GpuDriver, GuestBuffer, Layout, Region, WithFence, config, request,
};

use super::OK;

/// Longer than anything takes.
const LIMIT: Duration = Duration::from_secs(10);
/// How long nothing happens where nothing is to happen.
pub(crate) const QUIET: Duration = Duration::from_millis(60);
pub(crate) const PAGE: usize = 4096;
const QUERY: u32 = 20;
const CHANNEL: u32 = 21;

/// What a ring holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// Bytes, and number, type and size of each file.
    Message(Vec<u8>, Vec<(u32, u32, u32)>),
    /// Bytes of a pipe, and whether it ends.
    Pipe(u32, Vec<u8>, bool),
    Nothing,
}

/// Told by the renderer.
#[derive(Clone, Default)]
pub(crate) struct Wakes(Arc<(Mutex<u32>, Condvar)>);

impl Wakes {
    fn wake(&self) {
        *self.0.0.lock().unwrap() += 1;
        self.0.1.notify_all();
    }

    /// True if there was one within that time.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        let count = self.0.0.lock().unwrap();
        let waiting = |count: &mut u32| *count == 0;
        let (mut count, _) = self.0.1.wait_timeout_while(count, limit, waiting).unwrap();
        mem::take(&mut *count) > 0
    }
}

pub(crate) fn renderer(
    inner: impl Renderer + 'static,
    path: &Path,
    limits: Limits,
) -> (Box<dyn Renderer>, Wakes) {
    let wakes = Wakes::default();
    let config = CrossDomainConfig {
        wayland: path.to_owned(),
        limits,
    };
    let told = wakes.clone();
    let renderer = CrossDomainRenderer::new(Box::new(inner), &config, move || told.wake());
    (Box::new(renderer.unwrap()), wakes)
}

pub(crate) struct Proxy {
    pub(crate) driver: GpuDriver,
    pub(crate) wakes: Wakes,
    pub(crate) query: GuestBuffer,
    pub(crate) channel: GuestBuffer,
    fence: u64,
}

impl Proxy {
    /// A device with nothing but channels, and no context yet.
    pub(crate) fn new(path: &Path) -> Self {
        Self::with(NullRenderer, path, Limits::default())
    }

    pub(crate) fn with(inner: impl Renderer + 'static, path: &Path, limits: Limits) -> Self {
        let (renderer, wakes) = renderer(inner, path, limits);
        let config = config(1, 64, 48).with_limits(limits).unwrap();
        let gpu = Gpu::new(config, renderer).unwrap();
        let gpu = gpu.with_host_visible(Box::new(Region::new(1 << 30)));
        let mut driver = GpuDriver::with_gpu(gpu, 8 << 20);
        let query = driver.ram.alloc(PAGE, Layout::Pages);
        let channel = driver.ram.alloc(PAGE, Layout::Pages);
        Self {
            driver,
            wakes,
            query,
            channel,
            fence: 0,
        }
    }

    /// With context 1, its rings and a channel.
    pub(crate) fn connected(path: &Path) -> Self {
        let mut proxy = Self::new(path);
        proxy.connect();
        proxy
    }

    pub(crate) fn connect(&mut self) {
        assert_eq!(self.driver.in_context(1, request::ctx_create(5)), OK);
        self.make_ring(QUERY, &self.query.clone());
        self.make_ring(CHANNEL, &self.channel.clone());
        assert_eq!(self.init(1), OK);
    }

    /// Another context, with the rings of the first and no channel yet.
    pub(crate) fn share_rings(&mut self, ctx_id: u32) {
        for request in [
            request::ctx_create(5),
            request::ctx_attach_resource(QUERY),
            request::ctx_attach_resource(CHANNEL),
        ] {
            assert_eq!(self.driver.in_context(ctx_id, request), OK);
        }
    }

    fn make_ring(&mut self, id: u32, buffer: &GuestBuffer) {
        assert_eq!(
            self.driver.create_guest_blob(id, PAGE as u64, Some(buffer)),
            OK
        );
        let attach = request::ctx_attach_resource(id);
        assert_eq!(self.driver.in_context(1, attach), OK);
    }

    pub(crate) fn init(&mut self, channel_type: u32) -> ResponseType {
        self.run(&command(cmd::INIT, &[QUERY, CHANNEL, channel_type], &[]))
    }

    /// A stream without a fence.
    pub(crate) fn run(&mut self, stream: &[u8]) -> ResponseType {
        self.driver.in_context(1, submit(stream))
    }

    /// POLL, which waits or not.
    pub(crate) fn poll(&mut self) -> Result<Answer, Token> {
        self.poll_in(1)
    }

    pub(crate) fn poll_in(&mut self, ctx_id: u32) -> Result<Answer, Token> {
        self.fence += 1;
        let fence = WithFence {
            id: self.fence,
            ctx_id,
            ring_idx: Some(1),
        };
        self.driver.fenced(fence, submit(&poll()))
    }

    /// POLLs and waits for what is said.
    pub(crate) fn hear(&mut self) -> Said {
        let token = self.poll().unwrap_err();
        self.wait_for(token);
        self.said()
    }

    /// Waits for an answer.
    pub(crate) fn wait_for(&mut self, token: Token) {
        let start = Instant::now();
        while !self.answered().contains(&token) {
            assert!(start.elapsed() < LIMIT, "nothing was said");
            self.wakes.wait(Duration::from_millis(20));
        }
    }

    /// Requests answered since the last look.
    pub(crate) fn answered(&mut self) -> Vec<Token> {
        let completed = self.driver.gpu().take_completed();
        let tokens = completed.map(|done| {
            assert_eq!(Answer::parse(done.response.bytes()).type_(), OK);
            done.token
        });
        tokens.collect()
    }

    /// That nothing is answered, for a while.
    pub(crate) fn expect_quiet(&mut self) {
        let start = Instant::now();
        while start.elapsed() < QUIET {
            self.wakes.wait(QUIET);
            assert_eq!(self.answered(), []);
        }
    }

    fn word(&self, buffer: &GuestBuffer, at: usize) -> u32 {
        let bytes = self.driver.ram.read(buffer, at * 4, 4);
        u32::from_le_bytes(bytes.try_into().unwrap())
    }

    /// What the channel's ring holds.
    pub(crate) fn said(&self) -> Said {
        let ring = &self.channel;
        let head = self.driver.ram.read(ring, 0, 8);
        let word = |at| self.word(ring, at);
        match head[0] {
            cmd::RECEIVE => {
                let count = word(2) as usize;
                let files = (0..count).map(|at| (word(4 + at), word(32 + at), word(60 + at)));
                let bytes = self.driver.ram.read(ring, 352, word(3) as usize);
                Said::Message(bytes, files.collect())
            }
            cmd::READ => {
                let bytes = self.driver.ram.read(ring, 24, word(4) as usize);
                Said::Pipe(word(2), bytes, word(3) != 0)
            }
            _ => Said::Nothing,
        }
    }

    /// The number of the memory of such an image, its stride and size.
    pub(crate) fn image(&mut self, width: u32, height: u32, format: [u8; 4]) -> (u32, u32, u64) {
        let query = query_image(width, height, format);
        let fence = WithFence {
            id: 1,
            ctx_id: 1,
            ring_idx: Some(0),
        };
        let token = self.driver.fenced(fence, submit(&query)).unwrap_err();
        self.wait_for(token);
        let ring = self.query.clone();
        let size = u64::from(self.word(&ring, 10)) | u64::from(self.word(&ring, 11)) << 32;
        (self.word(&ring, 12), self.word(&ring, 0), size)
    }

    /// Makes a blob of the host's memory, and maps it.
    pub(crate) fn make_blob(&mut self, id: u32, blob_id: u32, size: u64) {
        assert_eq!(
            self.driver
                .in_context(1, cross_domain::create_blob(id, blob_id, size)),
            OK
        );
        let attach = request::ctx_attach_resource(id);
        assert_eq!(self.driver.in_context(1, attach), OK);
        let map = request::resource_map_blob(id, u64::from(id) << 20);
        assert_eq!(self.driver.control(map).type_(), ResponseType::OK_MAP_INFO);
    }

    pub(crate) fn read_blob(&mut self, id: u32, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.driver.gpu().read_mapped(id, 0, &mut bytes).unwrap();
        bytes
    }

    /// What a device's worker does before it comes to rest.
    pub(crate) fn settle(&mut self) -> Vec<Token> {
        let mut answered = self.answered();
        while self.driver.quiesce().is_err() {
            answered.extend(self.answered());
        }
        answered
    }
}
