// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A channel to a compositor beside virglrenderer. A process has one virgl renderer, so this is one test.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use std::{env, fs, process};

use virtio_gpu_cross_domain::{CrossDomainConfig, CrossDomainRenderer};
use virtio_gpu_rutabaga::{RutabagaConfig, RutabagaRenderer};
use virtio_gpu_s3::protocol::ResponseType;
use virtio_gpu_s3::{Activation, Gpu, Limits, ResetKind, Token};
use virtio_gpu_s3_testing::cross_domain::{CAPSET, init, poll, send, submit};
use virtio_gpu_s3_testing::{GpuDriver, GuestBuffer, Layout, WithFence, config, request};

const OK: ResponseType = ResponseType::OK_NODATA;

/// A ring of context 2, which virglrenderer knows too.
fn make_ring(driver: &mut GpuDriver, id: u32, buffer: &GuestBuffer) {
    assert_eq!(driver.create_guest_blob(id, 4096, Some(buffer)), OK);
    let attach = request::ctx_attach_resource(id);
    assert_eq!(driver.in_context(2, attach), OK);
}

/// Told that the renderer has something.
type Told = Receiver<()>;

/// A device with virglrenderer and a channel.
fn new_driver(wayland: PathBuf) -> (GpuDriver, Told) {
    let (tell, told) = channel();
    let other = tell.clone();
    let virgl = RutabagaRenderer::new(&RutabagaConfig::default(), move || {
        let _ = other.send(());
    });
    let wayland = CrossDomainConfig {
        wayland,
        limits: Limits::default(),
    };
    let inner = Box::new(virgl.unwrap());
    let renderer = CrossDomainRenderer::new(inner, &wayland, move || {
        let _ = tell.send(());
    });
    let renderer = Box::new(renderer.unwrap());
    let gpu = Gpu::new(config(1, 64, 48), renderer);
    (GpuDriver::with_gpu(gpu.unwrap(), 8 << 20), told)
}

const fn fence(ctx_id: u32, ring_idx: Option<u8>) -> WithFence {
    WithFence {
        id: 1,
        ctx_id,
        ring_idx,
    }
}

fn wait_for(driver: &mut GpuDriver, told: &Told, token: Token) {
    loop {
        if let Some(done) = driver.gpu().take_completed().next() {
            return assert_eq!(done.token, token);
        }
        told.recv_timeout(Duration::from_secs(10)).unwrap();
    }
}

#[test]
fn a_channel_lives_beside_virglrenderer_and_neither_waits_for_the_other() {
    let path = env::temp_dir().join(format!("virgl-channels-{}", process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let (mut driver, told) = new_driver(path.clone());
    let ids = (0..3).map(|index| driver.control(request::get_capset_info(index)).body[0]);
    assert_eq!(ids.collect::<Vec<_>>(), [1, 2, 5]);

    let rings = [0, 1].map(|_| driver.ram.alloc(4096, Layout::Pages));
    assert_eq!(driver.in_context(1, request::ctx_create(2)), OK);
    assert_eq!(driver.in_context(2, request::ctx_create(CAPSET)), OK);
    make_ring(&mut driver, 20, &rings[0]);
    make_ring(&mut driver, 21, &rings[1]);
    assert_eq!(driver.in_context(2, submit(&init(20, 21))), OK);
    let (mut client, _) = listener.accept().unwrap();
    let waiting = driver.fenced(fence(2, Some(1)), submit(&poll()));
    for ring_idx in [Some(0), None] {
        // VIRGL_CCMD_NOP.
        let token = driver.fenced(fence(1, ring_idx), request::submit_3d(&[0]));
        wait_for(&mut driver, &told, token.unwrap_err());
    }

    // What waits for a message is not waited for.
    driver.quiesce().unwrap_err();
    wait_for(&mut driver, &told, waiting.unwrap_err());
    driver.quiesce().unwrap();
    driver.gpu().reset(ResetKind::Frozen);
    let features = driver.gpu().device_features();
    driver.gpu().activate(features, Activation::Reinstated);
    client.write_all(b"still here").unwrap();
    let token = driver.fenced(fence(2, Some(1)), submit(&poll()));
    wait_for(&mut driver, &told, token.unwrap_err());
    assert_eq!(driver.ram.read(&rings[1], 352, 10), b"still here");
    assert_eq!(driver.in_context(2, submit(&send(b"yes", &[]))), OK);
    let mut bytes = [0; 3];
    client.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"yes");
    driver.gpu().reset(ResetKind::Full);
    assert_eq!(client.read(&mut bytes).unwrap(), 0);
    fs::remove_file(path).unwrap();
}
