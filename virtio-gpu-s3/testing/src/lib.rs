// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's side: one driver for unit tests, suites, fuzzing and benchmarks.
//!
//! [`GpuDriver`] speaks in commands, over whatever [`Transport`] carries them: straight into a
//! [`Gpu`] here, over a real ring elsewhere. It checks nothing: tests do.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a driver model that is used wrongly shall stop its test"
)]

#[cfg(feature = "cross-domain")]
mod channels;
#[cfg(feature = "cross-domain")]
pub mod cross_domain;
pub mod kept;
mod memory;
mod program;
mod region;
pub mod request;
mod requests;
pub mod scene;
mod screen;
mod scripted;

use vm_memory::GuestMemoryMmap;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

#[cfg(feature = "cross-domain")]
pub use channels::{ChannelStep, run_channels};
pub use memory::{GuestBuffer, GuestRam, Layout};
pub use program::{Step, run_program};
pub use region::Region;
pub use requests::run_requests;
pub use screen::Screen;
pub use scripted::{RendererControl, ScriptedRenderer};

use virtio_gpu_s3::PixelFormat;
use virtio_gpu_s3::command::BlobLayout;
use virtio_gpu_s3::protocol::{
    BLOB_MEM_GUEST, FLAG_FENCE, FLAG_INFO_RING_IDX, Queue, ResponseType, wire,
};
use virtio_gpu_s3::{
    Activation, Gpu, GpuConfig, Image, NullRenderer, Outcome, OutputConfig, Outstanding, Rect,
    ResetKind, Response, Seen, Token,
};

/// Carries a request to a device.
pub trait Transport {
    /// What the device wrote into `room` bytes, or the token of an answer that comes later.
    fn send(&mut self, queue: Queue, request: &[u8], room: usize) -> Result<Vec<u8>, Token>;
}

/// A [`Gpu`] called directly.
#[derive(Debug)]
pub struct Direct {
    /// The device.
    pub gpu: Gpu,
    /// What it takes for guest memory.
    pub memory: GuestMemoryMmap,
}

impl Transport for Direct {
    fn send(&mut self, queue: Queue, request: &[u8], room: usize) -> Result<Vec<u8>, Token> {
        let mut response = Response::new(room);
        let outcome = match queue {
            Queue::Control => self.gpu.control(request, &self.memory, &mut response),
            Queue::Cursor => self.gpu.cursor(request, &self.memory, &mut response),
        };
        match outcome {
            Outcome::Done => Ok(response.bytes().to_vec()),
            Outcome::Deferred(token) => Err(token),
        }
    }
}

/// An answer, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its header.
    pub header: wire::CtrlHdr,
    /// What follows.
    pub body: Vec<u8>,
}

impl Answer {
    /// Takes the bytes a device wrote apart.
    pub fn parse(bytes: &[u8]) -> Self {
        let (header, body) = wire::CtrlHdr::read_from_prefix(bytes).expect("a whole header");
        Self {
            header,
            body: body.to_vec(),
        }
    }

    /// The response type.
    pub fn type_(&self) -> ResponseType {
        ResponseType(self.header.type_.get())
    }

    /// The payload as `T`.
    pub fn payload<T: FromBytes>(&self) -> T {
        T::read_from_bytes(&self.body).expect("a payload of the right size")
    }
}

/// A fence to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WithFence {
    /// The guest's number.
    pub id: u64,
    /// The context.
    pub ctx_id: u32,
    /// The ring, `None` for the global timeline.
    pub ring_idx: Option<u8>,
}

/// The guest's driver.
#[derive(Debug)]
pub struct GpuDriver<T = Direct> {
    /// How it reaches the device.
    pub transport: T,
    /// Guest memory to allocate from.
    pub ram: GuestRam,
    /// Added to the next request only.
    pub fence: Option<WithFence>,
    /// The context of the next requests.
    pub ctx_id: u32,
}

impl GpuDriver<Direct> {
    /// A driver of a 2D device with one output, all features negotiated, 64 MiB of memory.
    pub fn new(width: u32, height: u32) -> Self {
        Self::with_config(config(1, width, height))
    }

    /// The same with another configuration.
    pub fn with_config(config: GpuConfig) -> Self {
        let gpu = Gpu::new(config, Box::new(NullRenderer));
        Self::with_gpu(gpu.expect("a valid configuration"), 64 << 20)
    }

    /// A driver of a device with a renderer and a screen.
    pub fn rendering(width: u32, height: u32) -> (Self, RendererControl, Screen) {
        let (renderer, control) = ScriptedRenderer::new();
        let gpu = Gpu::new(config(1, width, height), Box::new(renderer));
        let driver = Self::with_gpu(gpu.expect("a valid configuration"), 64 << 20);
        (driver, control, Screen::default())
    }

    /// A driver of a 2D device with a screen and so many outputs.
    pub fn with_screen(outputs: usize, width: u32, height: u32) -> (Self, Screen) {
        let driver = Self::with_config(config(outputs, width, height));
        (driver, Screen::default())
    }

    /// Resets the device as S3 does and activates it again.
    pub fn sleep_and_wake(&mut self, how: Activation) {
        self.quiesce().expect("a quiet device");
        self.gpu().reset(ResetKind::Frozen);
        let features = self.gpu().device_features();
        self.gpu().activate(features, how);
    }

    /// Asks the device to come to rest.
    ///
    /// # Errors
    /// What is outstanding.
    pub fn quiesce(&mut self) -> Result<(), Outstanding> {
        let Direct { gpu, memory } = &mut self.transport;
        gpu.quiesce(memory)
    }

    /// A screenshot, `None` if there is no such scanout.
    ///
    /// # Panics
    /// It cannot be read.
    pub fn scanout_image(&mut self, scanout: u32, with_cursor: bool) -> Option<Image> {
        let Direct { gpu, memory } = &mut self.transport;
        gpu.last_picture(scanout, Seen::default())?;
        let picture = gpu.look(scanout, Seen::default(), memory);
        Some(picture.expect("a picture").to_image(with_cursor))
    }

    /// A driver of `gpu` with all its features negotiated and so many bytes of memory.
    pub fn with_gpu(mut gpu: Gpu, ram_bytes: usize) -> Self {
        gpu.activate(gpu.device_features(), Activation::Fresh);
        let ram = GuestRam::new(ram_bytes);
        let memory = ram.memory().clone();
        Self::over(Direct { gpu, memory }, ram)
    }

    /// The device.
    pub fn gpu(&mut self) -> &mut Gpu {
        &mut self.transport.gpu
    }
}

impl<T: Transport> GpuDriver<T> {
    /// A driver over any transport.
    pub fn over(transport: T, ram: GuestRam) -> Self {
        Self {
            transport,
            ram,
            fence: None,
            ctx_id: 0,
        }
    }

    /// Sends a request with the fence and context that are set, if it has a header to carry them.
    pub fn send(&mut self, queue: Queue, mut request: Vec<u8>) -> Result<Answer, Token> {
        if let Ok((header, _)) = wire::CtrlHdr::mut_from_prefix(&mut request) {
            header.ctx_id = self.ctx_id.into();
            if let Some(fence) = self.fence.take() {
                let on_ring = fence.ring_idx.map_or(0, |_| FLAG_INFO_RING_IDX);
                header.flags = (FLAG_FENCE | on_ring).into();
                header.fence_id = fence.id.into();
                header.ctx_id = fence.ctx_id.into();
                header.ring_idx = fence.ring_idx.unwrap_or_default();
            }
        }
        let bytes = self.transport.send(queue, &request, 4096)?;
        Ok(Answer::parse(&bytes))
    }

    /// Sends on the control queue and expects an answer at once.
    pub fn control(&mut self, request: Vec<u8>) -> Answer {
        let answer = self.send(Queue::Control, request);
        answer.expect("an answer at once")
    }

    fn type_of(&mut self, request: Vec<u8>) -> ResponseType {
        self.control(request).type_()
    }

    /// `RESOURCE_CREATE_2D`
    pub fn create_2d(
        &mut self,
        id: u32,
        format: PixelFormat,
        width: u32,
        height: u32,
    ) -> ResponseType {
        self.type_of(request::resource_create_2d(
            id,
            format.format().0,
            width,
            height,
        ))
    }

    /// `RESOURCE_UNREF`
    pub fn unref(&mut self, id: u32) -> ResponseType {
        self.type_of(request::resource_unref(id))
    }

    /// `RESOURCE_ATTACH_BACKING`
    pub fn attach(&mut self, id: u32, buffer: &GuestBuffer) -> ResponseType {
        self.type_of(request::resource_attach_backing(id, buffer.entries()))
    }

    /// `RESOURCE_DETACH_BACKING`
    pub fn detach(&mut self, id: u32) -> ResponseType {
        self.type_of(request::resource_detach_backing(id))
    }

    /// `TRANSFER_TO_HOST_2D`
    pub fn transfer(&mut self, id: u32, rect: Rect, offset: u64) -> ResponseType {
        self.type_of(request::transfer_to_host_2d(id, rect, offset))
    }

    /// `SET_SCANOUT`
    pub fn set_scanout(&mut self, scanout: u32, id: u32, rect: Rect) -> ResponseType {
        self.type_of(request::set_scanout(scanout, id, rect))
    }

    /// `RESOURCE_FLUSH`
    pub fn flush(&mut self, id: u32, rect: Rect) -> ResponseType {
        self.type_of(request::resource_flush(id, rect))
    }

    /// `UPDATE_CURSOR`
    pub fn update_cursor(&mut self, scanout: u32, id: u32, x: i32, y: i32) -> ResponseType {
        let request = request::update_cursor(scanout, id, x, y, 0, 0);
        let answer = self.send(Queue::Cursor, request);
        answer.expect("an answer at once").type_()
    }

    /// `MOVE_CURSOR`
    pub fn move_cursor(&mut self, scanout: u32, x: i32, y: i32) -> ResponseType {
        let answer = self.send(Queue::Cursor, request::move_cursor(scanout, x, y));
        answer.expect("an answer at once").type_()
    }

    /// `RESOURCE_CREATE_BLOB` of guest memory, backed by `buffer` if there is one.
    pub fn create_guest_blob(
        &mut self,
        id: u32,
        size: u64,
        buffer: Option<&GuestBuffer>,
    ) -> ResponseType {
        let entries = buffer.map_or(&[][..], GuestBuffer::entries);
        self.type_of(request::resource_create_blob(
            id,
            BLOB_MEM_GUEST,
            0,
            size,
            entries,
        ))
    }

    /// `SET_SCANOUT_BLOB`
    pub fn set_scanout_blob(
        &mut self,
        scanout: u32,
        id: u32,
        rect: Rect,
        layout: &BlobLayout,
    ) -> ResponseType {
        self.type_of(request::set_scanout_blob(scanout, id, rect, layout))
    }

    /// `CTX_CREATE`, `CTX_DESTROY`, `CTX_ATTACH_RESOURCE`, … : any request in a context.
    pub fn in_context(&mut self, ctx_id: u32, request: Vec<u8>) -> ResponseType {
        self.ctx_id = ctx_id;
        let answer = self.control(request);
        self.ctx_id = 0;
        answer.type_()
    }

    /// Sends a fenced request; the answer or the token.
    pub fn fenced(&mut self, fence: WithFence, request: Vec<u8>) -> Result<Answer, Token> {
        self.fence = Some(fence);
        self.send(Queue::Control, request)
    }

    /// Creates a framebuffer of scattered pages as Linux does, shows it on a scanout, and gives
    /// back its memory.
    pub fn framebuffer(
        &mut self,
        scanout: u32,
        id: u32,
        format: PixelFormat,
        width: u32,
        height: u32,
    ) -> GuestBuffer {
        let buffer = self
            .ram
            .alloc(width as usize * height as usize * 4, Layout::Pages);
        let rect = Rect::sized(width, height);
        for answer in [
            self.create_2d(id, format, width, height),
            self.attach(id, &buffer),
            self.set_scanout(scanout, id, rect),
        ] {
            assert_eq!(answer, ResponseType::OK_NODATA);
        }
        buffer
    }

    /// Writes `pixels` to the framebuffer's memory, transfers and flushes all of it.
    pub fn draw(&mut self, id: u32, buffer: &GuestBuffer, pixels: &[u8], width: u32, height: u32) {
        self.ram.write(buffer, 0, pixels);
        let rect = Rect::sized(width, height);
        assert_eq!(self.transfer(id, rect, 0), ResponseType::OK_NODATA);
        assert_eq!(self.flush(id, rect), ResponseType::OK_NODATA);
    }
}

/// So many equal outputs.
pub fn config(outputs: usize, width: u32, height: u32) -> GpuConfig {
    GpuConfig::new(vec![OutputConfig { width, height }; outputs]).expect("a valid configuration")
}

/// `bytes` bytes that differ along the way and by `seed`.
pub fn pattern(seed: u32, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()
    };
    let mut pattern: Vec<u8> = (0..bytes.div_ceil(4)).flat_map(|_| next()).collect();
    pattern.truncate(bytes);
    pattern
}

/// A zeroed wire structure, to fill in.
pub(crate) fn zeroed<T: FromZeros + IntoBytes>() -> T {
    T::new_zeroed()
}
