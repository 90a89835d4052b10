// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Snapshots: what a device was, another device is.

use virtio_gpu_s3::command::BlobLayout;
use virtio_gpu_s3::protocol::{ResponseType, feature};
use virtio_gpu_s3::saved_state::{
    RestoreError, SaveError, SavedBinding, SavedContent, SavedGpu, SavedPicture, SavedResource,
};
use virtio_gpu_s3::{
    Activation, Gpu, GpuConfig, Limits, NullRenderer, PixelFormat, Rect, ResetKind, Seen,
};
use virtio_gpu_s3_testing::{GpuDriver, GuestBuffer, Layout, Screen, config, pattern, request};

const OK: ResponseType = ResponseType::OK_NODATA;
/// One of everything, as version 1 wrote it.
const GOLDEN: &str = include_str!("golden/gpu-v1.json");

/// A picture on scanout 0, a blob on scanout 1, a cursor, a UUID and a retained resource.
fn with_everything() -> (GpuDriver, GuestBuffer) {
    let (mut driver, _) = GpuDriver::with_screen(2, 16, 16);
    driver.create_2d(4, PixelFormat::BGRA, 2, 2);
    driver.sleep_and_wake(Activation::Retained);
    let buffer = driver.framebuffer(0, 1, PixelFormat::BGRX, 16, 16);
    driver.draw(1, &buffer, &pattern(1, 1024), 16, 16);
    let blob = driver.ram.alloc(4096, Layout::Pages);
    driver.create_guest_blob(2, 4096, Some(&blob));
    let layout = BlobLayout {
        width: 16,
        height: 16,
        format: PixelFormat::BGRX,
        stride: 128,
        offset: 4,
    };
    let corner = Rect {
        x: 8,
        y: 8,
        width: 8,
        height: 8,
    };
    assert_eq!(driver.set_scanout_blob(1, 2, corner, &layout), OK);
    driver.ram.write(&blob, 0, &pattern(2, 4096));
    driver.flush(2, Rect::sized(16, 16));
    driver.create_2d(3, PixelFormat::BGRA, 64, 64);
    driver.update_cursor(0, 3, -5, 7);
    driver.control(request::resource_assign_uuid(1));
    driver.quiesce().unwrap();
    (driver, buffer)
}

fn restore(saved: SavedGpu) -> Result<Gpu, RestoreError> {
    Gpu::restore(config(2, 16, 16), Box::new(NullRenderer), saved)
}

#[test]
fn a_restored_device_is_the_saved_one_to_the_guest_and_on_the_screen() {
    let (mut driver, buffer) = with_everything();
    let saved = driver.gpu().save().unwrap();
    let gpu = restore(saved.clone()).unwrap();
    gpu.assert_consistent();
    assert_eq!(gpu.save().unwrap(), saved);
    assert_eq!(gpu.status().retained, 1);
    let pictures = |driver: &mut GpuDriver| {
        [(0, false), (0, true), (1, true)]
            .map(|(scanout, cursor)| driver.scanout_image(scanout, cursor))
    };
    let before = pictures(&mut driver);
    let uuid = driver.control(request::resource_assign_uuid(1));
    driver.transport.gpu = gpu;
    assert_eq!(pictures(&mut driver), before);
    let mut screen = Screen::default();
    screen.look(&mut driver);
    assert_eq!(
        [screen.image(0), screen.image(1)],
        [before[0].clone(), before[2].clone()]
    );
    assert!(screen.cursor(0).is_some());
    assert_eq!(screen.cursor_position(0), (-5, 7));
    let restored = driver.control(request::resource_assign_uuid(1));
    assert_eq!(restored.body, uuid.body);
    let other = driver.control(request::resource_assign_uuid(2));
    assert_ne!(other.body, uuid.body);
    driver.draw(1, &buffer, &pattern(9, 1024), 16, 16);
    screen.look(&mut driver);
    assert_eq!(screen.image(0), driver.scanout_image(0, false));
}

#[test]
fn a_state_survives_being_written_as_text() {
    let (mut driver, _) = with_everything();
    let saved = driver.gpu().save().unwrap();
    let text = serde_json::to_string(&saved).unwrap();
    assert_eq!(serde_json::from_str::<SavedGpu>(&text).unwrap(), saved);
}

#[test]
fn a_state_survives_being_written_as_bytes_which_are_fewer() {
    let (mut driver, _) = with_everything();
    let saved = driver.gpu().save().unwrap();
    let bytes = postcard::to_stdvec(&saved).unwrap();
    assert_eq!(postcard::from_bytes::<SavedGpu>(&bytes).unwrap(), saved);
    // The pixels as they are, not as text.
    let picture = picture(&mut saved.clone()).bytes.clone();
    assert!(bytes.windows(picture.len()).any(|part| part == picture));
    assert!(bytes.len() < serde_json::to_string(&saved).unwrap().len());
    for length in 0..bytes.len() {
        postcard::from_bytes::<SavedGpu>(&bytes[..length]).unwrap_err();
    }
}

#[test]
fn pictures_that_are_kept_apart_go_back_where_they_were() {
    let (mut driver, _) = with_everything();
    let whole = driver.gpu().save().unwrap();
    let mut kept = Vec::new();
    let apart = driver.gpu().save_apart(|bytes| kept.push(bytes.to_vec()));
    let mut apart = apart.unwrap();
    assert_ne!(apart, whole);
    assert!(apart.pictures_mut().all(|picture| picture.bytes.is_empty()));
    assert_eq!(apart.pictures_mut().count(), kept.len());
    // Three resources, what scanout 1 shows of a blob, and the cursor.
    assert_eq!(kept.len(), 5);
    for (picture, bytes) in apart.pictures_mut().zip(kept) {
        picture.bytes = bytes;
    }
    assert_eq!(apart, whole);
}

#[test]
fn what_version_1_wrote_can_still_be_read() {
    let saved: SavedGpu = serde_json::from_str(GOLDEN).unwrap();
    let mut gpu = restore(saved.clone()).unwrap();
    gpu.assert_consistent();
    assert_eq!(gpu.save().unwrap(), saved);
    let status = gpu.status();
    assert_eq!((status.resources, status.retained), (4, 1));
    let pixel = pattern(1, 4);
    let picture = gpu.last_picture(0, Seen::default()).unwrap();
    let shown = picture.to_image(false).pixel(0, 0);
    assert_eq!(shown, Some([pixel[2], pixel[1], pixel[0], 255]));
}

#[test]
fn a_sleeping_device_can_be_saved_and_woken_elsewhere() {
    let (mut driver, _) = with_everything();
    let before = driver.scanout_image(0, true);
    driver.gpu().reset(ResetKind::Frozen);
    let saved = driver.gpu().save().unwrap();
    let mut gpu = restore(saved).unwrap();
    assert_eq!(gpu.status().retained, 4);
    let features = gpu.device_features();
    gpu.activate(features, Activation::Reinstated);
    assert_eq!(gpu.status().retained, 0);
    driver.transport.gpu = gpu;
    assert_eq!(driver.scanout_image(0, true), before);
}

#[test]
fn what_is_in_the_renderer_is_refused_before_anything_is_saved() {
    let (mut driver, _, _) = GpuDriver::rendering(16, 16);
    driver.in_context(3, request::ctx_create(0));
    let refused = driver.gpu().save();
    assert_eq!(refused, Err(SaveError::Context { ctx_id: 3 }));
    driver.create_2d(5, PixelFormat::BGRX, 8, 8);
    driver.in_context(3, request::ctx_attach_resource(5));
    driver.in_context(3, request::ctx_destroy());
    assert_eq!(driver.gpu().save(), Err(SaveError::Rendered { id: 5 }));
    driver.unref(5);
    driver.gpu().save().unwrap();
}

type Damage = (&'static str, fn(&mut SavedGpu));

fn picture(saved: &mut SavedGpu) -> &mut SavedPicture {
    let resource = &mut resource(saved, 1).content;
    match resource {
        SavedContent::Picture(picture) => picture,
        SavedContent::GuestBlob { .. } => panic!("resource 1 is a picture"),
    }
}

fn resource(saved: &mut SavedGpu, id: u32) -> &mut SavedResource {
    let mut resources = saved.resources.iter_mut();
    resources.find(|resource| resource.id == id).unwrap()
}

fn binding(saved: &mut SavedGpu, scanout: usize) -> &mut SavedBinding {
    saved.scanouts[scanout].binding.as_mut().unwrap()
}

const DAMAGES: &[Damage] = &[
    ("kind", |it| it.kind = "virtio-gpu-s3/other".to_owned()),
    ("version 0", |it| it.version = 0),
    ("version 2", |it| it.version = 2),
    ("an output less", |it| {
        let _ = it.outputs.pop();
    }),
    ("a scanout less", |it| {
        let _ = it.scanouts.pop();
    }),
    ("an impossible output", |it| it.outputs[0].0 = 0),
    ("a feature of 3D", |it| it.negotiated |= feature::VIRGL),
    ("an unknown feature", |it| it.negotiated |= 1 << 40),
    ("id 0", |it| resource(it, 4).id = 0),
    ("an id twice", |it| resource(it, 4).id = 3),
    ("a UUID twice", |it| {
        resource(it, 4).uuid = resource(it, 1).uuid;
    }),
    ("a format", |it| picture(it).format = 5),
    ("a byte less", |it| {
        let _ = picture(it).bytes.pop();
    }),
    ("a width of 0", |it| {
        picture(it).width = 0;
        picture(it).bytes.clear();
    }),
    ("a huge size", |it| {
        (picture(it).width, picture(it).height) = (u32::MAX, u32::MAX);
    }),
    ("another shape", |it| {
        (picture(it).width, picture(it).height) = (8, 32);
    }),
    ("a backing that wraps", |it| {
        resource(it, 1).backing = Some(vec![(u64::MAX, 2)]);
    }),
    ("a backing of 2^64 bytes", |it| {
        resource(it, 1).backing = Some(vec![(0, u64::MAX), (1, u64::MAX)]);
    }),
    ("too many ranges", |it| {
        resource(it, 1).backing = Some(vec![(0, 2); 65_537]);
    }),
    ("a blob longer than its backing", |it| {
        resource(it, 2).backing = Some(vec![(0, 4095)]);
    }),
    ("a blob of nothing", |it| {
        resource(it, 2).content = SavedContent::GuestBlob {
            blob_flags: 0,
            blob_id: 0,
            size: 0,
        };
    }),
    ("a scanout of no resource", |it| {
        binding(it, 0).resource_id = 9;
    }),
    ("a rectangle outside", |it| {
        binding(it, 0).rect = [1, 0, 16, 16];
    }),
    ("a rectangle that wraps", |it| {
        binding(it, 0).rect = [u32::MAX, 0, 2, 2];
    }),
    ("an empty rectangle", |it| {
        binding(it, 0).rect = [0, 0, 0, 5];
    }),
    ("a picture shown as a blob", |it| {
        binding(it, 1).resource_id = 1;
    }),
    ("a blob shown as a picture", |it| binding(it, 1).blob = None),
    ("a stride too short", |it| {
        binding(it, 1).blob.as_mut().unwrap().stride = 63;
    }),
    ("an offset outside", |it| {
        binding(it, 1).blob.as_mut().unwrap().offset = 4096;
    }),
    ("a copy of another size", |it| {
        binding(it, 1).blob.as_mut().unwrap().shown.width = 9;
    }),
    ("a copy of another shape", |it| {
        let shown = &mut binding(it, 1).blob.as_mut().unwrap().shown;
        (shown.width, shown.height) = (4, 16);
    }),
    ("a copy cut short", |it| {
        let plane = binding(it, 1).blob.as_mut().unwrap();
        plane.shown.bytes.truncate(7);
    }),
    ("a cursor of another size", |it| {
        let cursor = it.scanouts[0].cursor.as_mut().unwrap();
        (cursor.picture.width, cursor.picture.height) = (32, 128);
    }),
    ("a cursor cut short", |it| {
        let cursor = it.scanouts[0].cursor.as_mut().unwrap();
        cursor.picture.bytes.truncate(100);
    }),
];

#[test]
fn a_damaged_state_is_refused_whatever_the_damage() {
    let (mut driver, _) = with_everything();
    let saved = driver.gpu().save().unwrap();
    restore(saved.clone()).unwrap();
    for (what, damage) in DAMAGES {
        let mut damaged = saved.clone();
        damage(&mut damaged);
        assert_ne!(damaged, saved, "{what}");
        restore(damaged).expect_err(what);
    }
}

#[test]
fn a_state_beyond_the_limits_of_this_device_is_refused() {
    let (mut driver, _) = with_everything();
    let saved = driver.gpu().save().unwrap();
    let held = driver.gpu().status().host_bytes;
    let with = |limits: Limits| {
        let config = config(2, 16, 16).with_limits(limits).unwrap();
        Gpu::restore(config, Box::new(NullRenderer), saved.clone())
    };
    let limits = Limits::default();
    with(Limits {
        max_host_bytes: held,
        max_resources: 4,
        ..limits
    })
    .unwrap();
    with(Limits {
        max_host_bytes: held - 1,
        ..limits
    })
    .unwrap_err();
    with(Limits {
        max_resources: 3,
        ..limits
    })
    .unwrap_err();
    with(Limits {
        max_resource_dimension: 63,
        ..limits
    })
    .unwrap_err();
    let fewer = GpuConfig::new(config(2, 16, 16).outputs().to_vec())
        .and_then(|config| config.with_features(feature::EDID))
        .unwrap();
    Gpu::restore(fewer, Box::new(NullRenderer), saved).unwrap_err();
}

#[test]
fn text_with_unknown_fields_or_bad_pixels_is_refused() {
    for (from, to) in [
        ("\"version\":1", "\"version\":1,\"more\":0"),
        ("\"version\":1", "\"version\":-1"),
        ("\"bytes\":\"", "\"bytes\":\"!"),
        ("\"bytes\":\"", "\"bytes\":[1],\"x\":\""),
    ] {
        let text = GOLDEN.replacen(from, to, 1);
        assert_ne!(text, GOLDEN, "{from}");
        serde_json::from_str::<SavedGpu>(&text).unwrap_err();
    }
}
