// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Another renderer's work: a device with channels answers it as one without them does.

use virtio_gpu_s3::protocol::{CommandId, ResponseType};
use virtio_gpu_s3::renderer::{Renderer, Resource3d};
use virtio_gpu_s3::{Gpu, Limits, PixelFormat, Rect};
use virtio_gpu_s3_testing::{
    GpuDriver, Layout, Region, Screen, WithFence, config, pattern, request,
};
use virtio_gpu_s3_testing::{RendererControl, ScriptedRenderer};

use crate::compositor::Compositor;
use crate::proxy;

const TEXTURE: Resource3d = request::texture(32, 16);
const WHOLE: Rect = Rect::sized(32, 16);
const BYTES: usize = 32 * 16 * 4;

/// What a guest and a person at the screen see, a line each.
type Seen = Vec<String>;

struct Guest {
    driver: GpuDriver,
    screen: Screen,
    seen: Seen,
}

impl Guest {
    fn new(renderer: Box<dyn Renderer>) -> Self {
        let gpu = Gpu::new(config(1, 32, 16), renderer).unwrap();
        let gpu = gpu.with_host_visible(Box::new(Region::new(1 << 20)));
        let driver = GpuDriver::with_gpu(gpu, 8 << 20);
        Self {
            driver,
            screen: Screen::default(),
            seen: Seen::new(),
        }
    }

    fn run(&mut self, ctx_id: u32, request: Vec<u8>) {
        self.driver.ctx_id = ctx_id;
        let answer = self.driver.control(request);
        self.seen
            .push(format!("{:?} {:?}", answer.type_(), answer.body));
    }

    fn look(&mut self) {
        let image = self.driver.scanout_image(0, true);
        let bytes = image.as_ref().map(|image| image.pixels.clone());
        self.seen.push(format!("{bytes:?}"));
        self.screen.look(&mut self.driver);
        let shown = self.screen.image(0).map(|image| image.pixels);
        self.seen.push(format!("{shown:?}"));
    }

    fn draw_in_3d(&mut self) {
        let buffer = self.driver.ram.alloc(BYTES, Layout::Pages);
        self.driver.ram.write(&buffer, 0, &pattern(3, BYTES));
        self.run(0, request::resource_create_3d(10, &TEXTURE));
        let attached = self.driver.attach(10, &buffer);
        self.seen.push(format!("{attached:?}"));
        self.run(1, request::ctx_attach_resource(10));
        self.run(0, request::set_scanout(0, 10, WHOLE));
        let whole = request::whole(&TEXTURE);
        let to = request::transfer_3d(CommandId::TRANSFER_TO_HOST_3D, 10, &whole);
        self.run(1, to);
        self.run(0, request::resource_flush(10, WHOLE));
        self.look();
        self.run(1, request::submit_3d(&[1, 10, 0x0011_2233]));
        let from = request::transfer_3d(CommandId::TRANSFER_FROM_HOST_3D, 10, &whole);
        self.run(1, from);
        let read = self.driver.ram.read(&buffer, 0, BYTES);
        self.seen.push(format!("{read:?}"));
        self.run(0, request::resource_detach_backing(10));
        self.run(1, request::ctx_detach_resource(10));
        self.run(0, request::resource_unref(10));
    }

    fn share_a_2d_resource(&mut self) {
        let buffer = self.driver.framebuffer(0, 5, PixelFormat::BGRX, 32, 16);
        let picture = pattern(1, BYTES);
        self.driver.draw(5, &buffer, &picture, 32, 16);
        // Its pixels go to the renderer, and come back from there.
        self.run(1, request::ctx_attach_resource(5));
        self.look();
        self.run(0, request::resource_unref(5));
    }

    fn map_a_blob(&mut self) {
        self.run(1, request::resource_create_blob(6, 2, 1, 4096, &[]));
        self.run(0, request::resource_map_blob(6, 0));
        let mut bytes = [7; 16];
        let gpu = self.driver.gpu();
        let written = gpu.write_mapped(6, 8, &bytes).is_ok();
        let read = gpu.read_mapped(6, 0, &mut bytes).is_ok();
        self.seen.push(format!("{written} {read} {bytes:?}"));
        self.run(0, request::resource_unmap_blob(6));
        self.run(0, request::resource_unmap_blob(6));
        self.run(0, request::resource_unref(6));
    }

    /// Fences of the context and of all, with work and without.
    fn fence(&mut self, control: &RendererControl) {
        control.hold_fences(true);
        for (ring_idx, work) in [
            (None, request::submit_3d(&[])),
            (Some(0), request::empty(CommandId::GET_DISPLAY_INFO)),
        ] {
            let fence = WithFence {
                id: 9,
                ctx_id: 1,
                ring_idx,
            };
            let waits = self.driver.fenced(fence, work).is_err();
            self.seen.push(format!("{waits}"));
        }
        control.hold_fences(false);
        let completed = self.driver.gpu().take_completed().count();
        self.seen.push(format!("{completed}"));
        let quiet = self.driver.quiesce().is_ok();
        self.seen.push(format!("{quiet}"));
    }

    /// Everything that a renderer is asked for.
    fn see_it_all(mut self, control: &RendererControl) -> Seen {
        self.run(0, request::get_capset_info(0));
        self.run(0, request::get_capset(2, 1));
        self.run(1, request::ctx_create(2));
        self.draw_in_3d();
        self.share_a_2d_resource();
        self.map_a_blob();
        self.fence(control);
        self.run(1, request::ctx_destroy());
        self.run(1, request::submit_3d(&[1]));
        let failure = self.driver.gpu().renderer_failure();
        self.seen.push(format!("{failure:?}"));
        self.seen
    }
}

#[test]
fn another_renderers_work_is_answered_as_without_channels() {
    let (renderer, control) = ScriptedRenderer::new();
    let alone = Guest::new(Box::new(renderer)).see_it_all(&control);
    let compositor = Compositor::new();
    let (renderer, control) = ScriptedRenderer::new();
    let (renderer, _wakes) = proxy::renderer(renderer, compositor.path(), Limits::default());
    let beside = Guest::new(renderer).see_it_all(&control);
    assert_eq!(beside, alone);
    let done = format!("{:?}", ResponseType::OK_NODATA);
    let refused = beside.iter().filter(|line| line.contains("ERR_")).count();
    let successes = beside.iter().filter(|line| line.starts_with(&done)).count();
    assert!(successes > 12, "{beside:?}");
    // The second end of one mapping, and a stream for a context that is gone.
    assert_eq!(refused, 2, "{beside:?}");
}
