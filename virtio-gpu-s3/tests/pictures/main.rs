// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Looks: what a viewer sees and when it is read, awake and asleep.

mod random;

use virtio_gpu_s3::command::BlobLayout;
use virtio_gpu_s3::protocol::{CommandId, ResponseType};
use virtio_gpu_s3::renderer::Resource3d;
use virtio_gpu_s3::{
    Activation, Gpu, Image, Limits, LookError, PixelFormat, Rect, RendererError, ResetKind, Seen,
};
use virtio_gpu_s3_testing::{
    GpuDriver, GuestBuffer, Layout, RendererControl, Screen, ScriptedRenderer, config, pattern,
    request,
};
use vm_memory::GuestMemoryMmap;

const OK: ResponseType = ResponseType::OK_NODATA;
const UNSPEC: ResponseType = ResponseType::ERR_UNSPEC;
const NO_MEMORY: ResponseType = ResponseType::ERR_OUT_OF_MEMORY;

const WIDTH: u32 = 32;
const HEIGHT: u32 = 16;
const BYTES: usize = 32 * 16 * 4;
const WHOLE: Rect = Rect::sized(WIDTH, HEIGHT);
const CORNER: Rect = Rect::sized(4, 4);
const TEXTURE: Resource3d = request::texture(WIDTH, HEIGHT);
const LAYOUT: BlobLayout = BlobLayout {
    width: WIDTH,
    height: HEIGHT,
    format: PixelFormat::BGRX,
    stride: WIDTH * 4,
    offset: 0,
};

fn fill(resource: u32, value: u32) -> Vec<u8> {
    request::submit_3d(&[1, resource, value])
}

/// Texture 10 of context 1 on scanout 0, red and flushed.
fn with_texture() -> (GpuDriver, RendererControl) {
    let (mut driver, control, _) = GpuDriver::rendering(WIDTH, HEIGHT);
    assert_eq!(driver.in_context(1, request::ctx_create(2)), OK);
    make_texture(&mut driver, 10);
    assert_eq!(driver.set_scanout(0, 10, WHOLE), OK);
    draw(&mut driver, 0x00ff_0000);
    (driver, control)
}

fn make_texture(driver: &mut GpuDriver, id: u32) {
    let create = request::resource_create_3d(id, &TEXTURE);
    assert_eq!(driver.control(create).type_(), OK);
    assert_eq!(driver.in_context(1, request::ctx_attach_resource(id)), OK);
}

fn draw(driver: &mut GpuDriver, colour: u32) {
    assert_eq!(driver.in_context(1, fill(10, colour)), OK);
    assert_eq!(driver.flush(10, WHOLE), OK);
}

/// Blob 20 of guest memory on scanout 0, and that memory.
fn with_blob() -> (GpuDriver, RendererControl, GuestBuffer) {
    let (mut driver, control, _) = GpuDriver::rendering(WIDTH, HEIGHT);
    let buffer = driver.ram.alloc(BYTES, Layout::Pages);
    let size = u64::try_from(BYTES).unwrap();
    assert_eq!(driver.create_guest_blob(20, size, Some(&buffer)), OK);
    assert_eq!(driver.set_scanout_blob(0, 20, WHOLE, &LAYOUT), OK);
    (driver, control, buffer)
}

fn look(driver: &mut GpuDriver) -> Result<Image, LookError> {
    let memory = driver.transport.memory.clone();
    let picture = driver.gpu().look(0, Seen::default(), &memory)?;
    Ok(picture.to_image(false))
}

fn last_picture(driver: &mut GpuDriver) -> Image {
    let picture = driver.gpu().last_picture(0, Seen::default());
    picture.unwrap().to_image(false)
}

fn colour(image: &Image) -> [u8; 4] {
    let first = image.pixel(0, 0).unwrap();
    assert!(image.pixels.chunks(4).all(|pixel| pixel == first));
    first
}

const RED: [u8; 4] = [255, 0, 0, 255];
const GREEN: [u8; 4] = [0, 255, 0, 255];
const BLACK: [u8; 4] = [0, 0, 0, 255];

#[test]
fn a_flush_that_nobody_looks_at_reads_nothing_and_makes_no_copy() {
    let (mut driver, control) = with_texture();
    let (calls, bytes) = (control.calls(), driver.gpu().status().host_bytes);
    for _ in 0..1000 {
        assert_eq!(driver.flush(10, WHOLE), OK);
    }
    assert_eq!(control.calls(), calls);
    // One that looks reads what all of them damaged, in one call.
    assert_eq!(colour(&look(&mut driver).unwrap()), RED);
    assert_eq!(control.calls(), calls + 1);
    assert_eq!(colour(&look(&mut driver).unwrap()), RED);
    assert_eq!(control.calls(), calls + 1);
    assert_eq!(driver.gpu().status().host_bytes, bytes);
}

#[test]
fn a_copy_is_charged_when_a_scanout_is_set_so_that_no_look_fails_for_memory() {
    let (renderer, _) = ScriptedRenderer::new();
    let limits = Limits {
        max_host_bytes: 2048,
        ..Limits::default()
    };
    let config = config(2, WIDTH, HEIGHT).with_limits(limits).unwrap();
    let gpu = Gpu::new(config, Box::new(renderer)).unwrap();
    let mut driver = GpuDriver::with_gpu(gpu, 1 << 20);
    for id in [1, 2] {
        let create = request::resource_create_3d(id, &TEXTURE);
        assert_eq!(driver.control(create).type_(), OK);
    }
    assert_eq!(driver.set_scanout(0, 1, WHOLE), OK);
    assert_eq!(driver.gpu().status().host_bytes, 2048);
    assert_eq!(driver.set_scanout(1, 1, Rect::sized(1, 1)), NO_MEMORY);
    // A flip needs no second copy beside the first.
    assert_eq!(driver.set_scanout(0, 2, WHOLE), OK);
    assert_eq!(driver.gpu().status().host_bytes, 2048);
    look(&mut driver).unwrap();
    driver.gpu().assert_consistent();
    assert_eq!(driver.set_scanout(0, 0, WHOLE), OK);
    assert_eq!(driver.gpu().status().host_bytes, 0);
}

#[test]
fn a_picture_is_never_older_than_the_last_flush_nor_than_its_scanout() {
    let (mut driver, _) = with_texture();
    assert_eq!(colour(&look(&mut driver).unwrap()), RED);
    make_texture(&mut driver, 11);
    assert_eq!(driver.in_context(1, fill(11, 0x0000_ff00)), OK);
    assert_eq!(driver.set_scanout(0, 11, WHOLE), OK);
    assert_eq!(colour(&look(&mut driver).unwrap()), GREEN);
    // What was looked at stays until a flush says that there is more.
    assert_eq!(driver.in_context(1, fill(11, 0x00ff_0000)), OK);
    assert_eq!(colour(&look(&mut driver).unwrap()), GREEN);
    assert_eq!(driver.flush(11, WHOLE), OK);
    assert_eq!(colour(&look(&mut driver).unwrap()), RED);
}

#[test]
fn a_read_that_fails_is_an_error_of_the_look_and_leaves_the_last_picture() {
    let (mut driver, control) = with_texture();
    look(&mut driver).unwrap();
    let errors = driver.gpu().status().counters.errors.total();
    draw(&mut driver, 0x0000_ff00);
    control.fail_after(0);
    let failed = look(&mut driver).unwrap_err();
    assert!(matches!(
        failed,
        LookError::Renderer(RendererError::Refused { .. })
    ));
    assert_eq!(colour(&last_picture(&mut driver)), RED);
    assert_eq!(driver.gpu().status().counters.errors.total(), errors);
    // The next look tries again.
    assert_eq!(colour(&look(&mut driver).unwrap()), GREEN);
}

#[test]
fn a_viewer_that_saw_only_the_last_picture_still_gets_what_was_missing() {
    let (mut driver, control) = with_texture();
    let mut screen = Screen::default();
    screen.look(&mut driver);
    draw(&mut driver, 0x0000_ff00);
    control.fail_after(0);
    look(&mut driver).unwrap_err();
    let gpu = driver.gpu();
    let old = gpu.last_picture(0, Seen::default()).unwrap().seen;
    assert!(gpu.has_changed(0, old));
    look(&mut driver).unwrap();
    let picture = driver.gpu().last_picture(0, old).unwrap();
    assert_eq!(picture.damage, [WHOLE]);
    screen.look(&mut driver);
    assert_eq!(colour(&screen.image(0).unwrap()), GREEN);
}

#[test]
fn a_scanout_that_is_not_there_is_the_callers_mistake() {
    let (mut driver, _) = with_texture();
    let memory = driver.transport.memory.clone();
    let gpu = driver.gpu();
    let missing = gpu.look(1, Seen::default(), &memory).unwrap_err();
    assert_eq!(missing, LookError::NoSuchScanout { id: 1 });
    assert!(gpu.last_picture(u32::MAX, Seen::default()).is_none());
    assert!(!gpu.has_changed(1, Seen::default()) && !gpu.awaits_flush(1));
}

#[test]
fn a_texture_that_was_flushed_is_on_the_screen_after_a_sleep_though_nobody_looked() {
    let (mut driver, control) = with_texture();
    driver.quiesce().unwrap();
    driver.gpu().reset(ResetKind::Frozen);
    // Every call fails now, as if the renderer had died asleep.
    let calls = control.calls();
    for _ in 0..3 {
        control.fail_after(0);
        assert_eq!(colour(&look(&mut driver).unwrap()), RED);
    }
    assert_eq!(control.calls(), calls);
    let features = driver.gpu().device_features();
    driver.gpu().activate(features, Activation::Reinstated);
    assert_eq!(colour(&look(&mut driver).unwrap()), RED);
}

#[test]
fn guest_memory_is_read_before_a_sleep_and_not_while_it_lasts() {
    let (mut driver, _, buffer) = with_blob();
    driver.ram.write(&buffer, 0, &[0, 0, 255, 0].repeat(512));
    assert_eq!(driver.flush(20, WHOLE), OK);
    driver.quiesce().unwrap();
    driver.gpu().reset(ResetKind::Frozen);
    // Firmware, or another guest's memory.
    driver.ram.write(&buffer, 0, &pattern(9, BYTES));
    assert_eq!(colour(&look(&mut driver).unwrap()), RED);
    let no_memory = GuestMemoryMmap::<()>::new();
    let picture = driver.gpu().look(0, Seen::default(), &no_memory).unwrap();
    assert_eq!(colour(&picture.to_image(false)), RED);
    // The guest that woke finds its screen as it was, and draws on.
    let features = driver.gpu().device_features();
    driver.gpu().activate(features, Activation::Reinstated);
    assert_eq!(colour(&look(&mut driver).unwrap()), RED);
    driver.ram.write(&buffer, 0, &[0, 255, 0, 0].repeat(512));
    assert_eq!(driver.flush(20, WHOLE), OK);
    assert_eq!(colour(&look(&mut driver).unwrap()), GREEN);
}

#[test]
fn a_reset_that_nobody_announced_still_reads_nothing_while_the_guest_sleeps() {
    let (mut driver, control) = with_texture();
    assert_eq!(colour(&look(&mut driver).unwrap()), RED);
    draw(&mut driver, 0x0000_ff00);
    driver.gpu().reset(ResetKind::Frozen);
    let calls = control.calls();
    assert_eq!(colour(&look(&mut driver).unwrap()), RED);
    assert_eq!(control.calls(), calls);
}

#[test]
fn a_quiet_device_reads_nothing_more_though_no_reset_follows() {
    let (mut driver, control) = with_texture();
    assert_eq!(colour(&look(&mut driver).unwrap()), RED);
    draw(&mut driver, 0x0000_ff00);
    control.fail_after(0);
    driver.quiesce().unwrap();
    let calls = control.calls();
    assert_eq!(colour(&look(&mut driver).unwrap()), RED);
    assert_eq!(control.calls(), calls);
}

#[test]
fn what_cannot_be_read_before_a_sleep_comes_with_the_first_flush_after_it() {
    let (mut driver, control) = with_texture();
    let mut screen = Screen::default();
    screen.look(&mut driver);
    draw(&mut driver, 0x0000_ff00);
    let errors = driver.gpu().status().counters.errors.total();
    control.fail_after(0);
    driver.sleep_and_wake(Activation::Reinstated);
    assert_eq!(driver.gpu().status().counters.errors.total(), errors + 1);
    let calls = control.calls();
    assert_eq!(colour(&look(&mut driver).unwrap()), RED);
    assert_eq!(control.calls(), calls);
    assert!(driver.gpu().awaits_flush(0));
    // However little the guest says is damaged.
    assert_eq!(driver.flush(10, CORNER), OK);
    screen.look(&mut driver);
    assert_eq!(colour(&screen.image(0).unwrap()), GREEN);
}

#[test]
fn a_sleep_reads_only_what_was_damaged_since_the_last_look() {
    let (mut driver, _, buffer) = with_blob();
    driver.ram.write(&buffer, 0, &[0, 0, 255, 0].repeat(512));
    driver.flush(20, WHOLE);
    look(&mut driver).unwrap();
    driver.ram.write(&buffer, 0, &[0, 255, 0, 0].repeat(512));
    driver.flush(20, CORNER);
    driver.sleep_and_wake(Activation::Reinstated);
    let image = look(&mut driver).unwrap();
    let green = image.pixels.chunks(4).filter(|pixel| **pixel == GREEN);
    assert_eq!(green.count(), 16);
}

#[test]
fn a_saved_picture_that_was_not_read_is_shown_by_the_next_flush() {
    let (mut driver, _, buffer) = with_blob();
    driver.ram.write(&buffer, 0, &[0, 0, 255, 0].repeat(512));
    driver.flush(20, WHOLE);
    let unread = driver.gpu().save().unwrap();
    driver.quiesce().unwrap();
    let read = driver.gpu().save().unwrap();
    for (saved, shown, awaits) in [(unread, BLACK, true), (read, RED, false)] {
        let renderer = Box::new(ScriptedRenderer::new().0);
        let gpu = Gpu::restore(config(1, WIDTH, HEIGHT), renderer, saved).unwrap();
        gpu.assert_consistent();
        assert_eq!(gpu.awaits_flush(0), awaits);
        driver.transport.gpu = gpu;
        assert_eq!(colour(&look(&mut driver).unwrap()), shown);
        assert_eq!(driver.flush(20, CORNER), OK);
        assert_eq!(colour(&look(&mut driver).unwrap()), RED);
    }
}

#[test]
fn a_frame_that_is_being_drawn_is_told_apart_from_one_that_was_flushed() {
    let (mut driver, _) = with_texture();
    assert!(!driver.gpu().awaits_flush(0));
    let buffer = driver.ram.alloc(BYTES, Layout::Pages);
    assert_eq!(driver.attach(10, &buffer), OK);
    let transfer = |command| request::transfer_3d(command, 10, &request::whole(&TEXTURE));
    for (request, drawn) in [
        (fill(10, 1), true),
        (transfer(CommandId::TRANSFER_TO_HOST_3D), true),
        (transfer(CommandId::TRANSFER_FROM_HOST_3D), false),
    ] {
        assert_eq!(driver.in_context(1, request), OK);
        assert_eq!(driver.gpu().awaits_flush(0), drawn);
        assert_eq!(driver.flush(10, CORNER), OK);
        assert!(!driver.gpu().awaits_flush(0));
    }
    // A context that cannot reach what is shown draws on something else.
    assert_eq!(driver.in_context(2, request::ctx_create(2)), OK);
    assert_eq!(driver.in_context(2, request::submit_3d(&[0])), OK);
    assert!(!driver.gpu().awaits_flush(0));
    // 2D says it likewise, and a new picture awaits its first flush.
    let buffer = driver.framebuffer(0, 5, PixelFormat::BGRX, WIDTH, HEIGHT);
    assert!(driver.gpu().awaits_flush(0));
    driver.draw(5, &buffer, &pattern(1, BYTES), WIDTH, HEIGHT);
    assert!(!driver.gpu().awaits_flush(0));
    assert_eq!(driver.transfer(5, CORNER, 0), OK);
    assert!(driver.gpu().awaits_flush(0));
    assert_eq!(driver.set_scanout(0, 0, WHOLE), OK);
    assert!(!driver.gpu().awaits_flush(0));
}

#[test]
fn setting_a_scanout_to_what_it_shows_already_changes_nothing() {
    let (mut driver, control) = with_texture();
    let mut screen = Screen::default();
    screen.look(&mut driver).take_damage();
    let calls = control.calls();
    assert_eq!(driver.set_scanout(0, 10, WHOLE), OK);
    assert_eq!(screen.look(&mut driver).take_damage(), []);
    assert_eq!(control.calls(), calls);
    assert_eq!(driver.set_scanout(0, 10, CORNER), OK);
    assert_eq!(screen.look(&mut driver).take_damage(), [(0, CORNER)]);
}

#[test]
fn a_scanout_of_a_part_shows_that_part_at_its_own_size() {
    let (mut driver, _) = with_texture();
    let buffer = driver.ram.alloc(BYTES, Layout::Pages);
    assert_eq!(driver.attach(10, &buffer), OK);
    driver.ram.write(&buffer, 0, &pattern(4, BYTES));
    let whole = request::whole(&TEXTURE);
    let transfer = request::transfer_3d(CommandId::TRANSFER_TO_HOST_3D, 10, &whole);
    assert_eq!(driver.in_context(1, transfer), OK);
    assert_eq!(driver.flush(10, WHOLE), OK);
    let whole = look(&mut driver).unwrap();
    let part = Rect {
        x: 9,
        y: 5,
        ..CORNER
    };
    assert_eq!(driver.set_scanout(0, 10, part), OK);
    let image = look(&mut driver).unwrap();
    assert_eq!((image.width, image.height), (4, 4));
    for (x, y) in [(0, 0), (3, 0), (0, 3), (3, 3)] {
        assert_eq!(image.pixel(x, y), whole.pixel(x + 9, y + 5));
    }
}

#[test]
fn each_viewer_gets_the_damage_since_its_own_last_look() {
    let (mut driver, _) = with_texture();
    let [mut often, mut seldom] = [Screen::default(), Screen::default()];
    for screen in [&mut often, &mut seldom] {
        assert_eq!(screen.look(&mut driver).take_damage(), [(0, WHOLE)]);
        assert_eq!(screen.look(&mut driver).take_damage(), []);
    }
    let other = Rect { x: 9, ..CORNER };
    for rect in [CORNER, other] {
        assert_eq!(driver.flush(10, rect), OK);
        assert_eq!(often.look(&mut driver).take_damage(), [(0, rect)]);
    }
    let both = [(0, CORNER), (0, other)];
    assert_eq!(seldom.look(&mut driver).take_damage(), both);
    // A third one that has seen nothing gets everything.
    let mut late = Screen::default();
    assert_eq!(late.look(&mut driver).take_damage(), [(0, WHOLE)]);
}

#[test]
fn a_number_of_another_device_makes_a_viewer_see_everything() {
    let (mut driver, _) = with_texture();
    for _ in 0..100 {
        driver.flush(10, CORNER);
    }
    look(&mut driver).unwrap();
    let later = driver.gpu().last_picture(0, Seen::default()).unwrap().seen;
    let (mut driver, _) = with_texture();
    look(&mut driver).unwrap();
    assert!(driver.gpu().has_changed(0, later));
    let picture = driver.gpu().last_picture(0, later).unwrap();
    assert_eq!(picture.damage, [WHOLE]);
}

#[test]
fn a_cursor_that_only_moves_keeps_its_shape_for_every_viewer() {
    let (mut driver, _) = with_texture();
    assert_eq!(driver.create_2d(3, PixelFormat::BGRA, 64, 64), OK);
    let memory = driver.transport.memory.clone();
    let mut seen = Seen::default();
    let mut look = |driver: &mut GpuDriver| {
        let picture = driver.gpu().look(0, seen, &memory).unwrap();
        seen = picture.seen;
        let shown = picture.cursor.is_some();
        (shown, picture.cursor_changed, picture.cursor_position)
    };
    assert_eq!(look(&mut driver), (false, false, (0, 0)));
    assert_eq!(driver.update_cursor(0, 3, 5, 6), OK);
    assert_eq!(look(&mut driver), (true, true, (5, 6)));
    assert_eq!(driver.move_cursor(0, -7, 8), OK);
    assert_eq!(look(&mut driver), (true, false, (-7, 8)));
    assert_eq!(driver.update_cursor(0, 0, -7, 8), OK);
    assert_eq!(look(&mut driver), (false, true, (-7, 8)));
}

#[test]
fn a_viewer_sees_a_scanout_go_off_and_come_back_at_another_size() {
    let (mut driver, _) = with_texture();
    let memory = driver.transport.memory.clone();
    let first = driver.gpu().look(0, Seen::default(), &memory).unwrap();
    assert_eq!((first.size, first.frame.is_some()), ((32, 16), true));
    let seen = first.seen;
    driver.gpu().reset(ResetKind::Full);
    assert!(driver.gpu().has_changed(0, seen));
    let off = driver.gpu().look(0, seen, &memory).unwrap();
    assert_eq!((off.size, off.frame.is_some()), ((32, 16), false));
    assert_eq!(off.damage, []);
    assert_eq!(colour(&off.to_image(true)), BLACK);
    let seen = off.seen;
    let features = driver.gpu().device_features();
    driver.gpu().activate(features, Activation::Fresh);
    driver.framebuffer(0, 1, PixelFormat::BGRX, 4, 4);
    let back = driver.gpu().look(0, seen, &memory).unwrap();
    assert_eq!((back.size, back.damage), ((4, 4), vec![CORNER]));
}

#[test]
fn a_shown_2d_resource_keeps_its_picture_with_us_when_the_renderer_gets_it() {
    let (renderer, control) = ScriptedRenderer::new();
    let gpu = Gpu::new(config(2, WIDTH, HEIGHT), Box::new(renderer)).unwrap();
    let mut driver = GpuDriver::with_gpu(gpu, 8 << 20);
    let buffer = driver.framebuffer(0, 5, PixelFormat::BGRX, WIDTH, HEIGHT);
    // The same on both: two copies where there was one picture.
    assert_eq!(driver.set_scanout(1, 5, CORNER), OK);
    driver.draw(5, &buffer, &pattern(1, BYTES), WIDTH, HEIGHT);
    let before = [0, 1].map(|scanout| driver.scanout_image(scanout, false));
    driver.in_context(1, request::ctx_create(0));
    assert_eq!(driver.in_context(1, request::ctx_attach_resource(5)), OK);
    driver.gpu().assert_consistent();
    let calls = control.calls();
    let after = [0, 1].map(|scanout| driver.scanout_image(scanout, false));
    assert_eq!((after, control.calls()), (before, calls));
}

#[test]
fn a_2d_resource_that_no_scanout_shows_leaves_no_copy_behind() {
    let (mut driver, _) = with_texture();
    let before = driver.gpu().status().host_bytes;
    assert_eq!(driver.create_2d(5, PixelFormat::BGRX, WIDTH, HEIGHT), OK);
    assert_eq!(driver.in_context(1, request::ctx_attach_resource(5)), OK);
    let attachment = driver.gpu().status().host_bytes - before;
    assert!(attachment < 64, "{attachment}");
}

#[test]
fn there_is_no_attachment_without_room_for_the_copies_that_it_takes() {
    let (renderer, control) = ScriptedRenderer::new();
    let limits = Limits {
        max_host_bytes: 3000,
        ..Limits::default()
    };
    let config = config(2, WIDTH, HEIGHT).with_limits(limits).unwrap();
    let gpu = Gpu::new(config, Box::new(renderer)).unwrap();
    let mut driver = GpuDriver::with_gpu(gpu, 1 << 20);
    assert_eq!(driver.create_2d(5, PixelFormat::BGRX, WIDTH, HEIGHT), OK);
    for scanout in [0, 1] {
        assert_eq!(driver.set_scanout(scanout, 5, WHOLE), OK);
    }
    driver.in_context(1, request::ctx_create(0));
    let attach = || request::ctx_attach_resource(5);
    assert_eq!(driver.in_context(1, attach()), NO_MEMORY);
    assert_eq!(control.objects(), 1);
    driver.gpu().assert_consistent();
    assert_eq!(driver.set_scanout(1, 0, WHOLE), OK);
    assert_eq!(driver.in_context(1, attach()), OK);
    driver.gpu().assert_consistent();
}

#[test]
fn a_flush_of_a_guest_blob_without_memory_is_the_guests_error() {
    let (mut driver, _, buffer) = with_blob();
    driver.ram.write(&buffer, 0, &[0, 0, 255, 0].repeat(512));
    driver.flush(20, WHOLE);
    look(&mut driver).unwrap();
    assert_eq!(driver.detach(20), OK);
    assert_eq!(driver.flush(20, WHOLE), UNSPEC);
    assert_eq!(colour(&look(&mut driver).unwrap()), RED);
}
