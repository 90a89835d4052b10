// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest's windows on the host's compositor, from behind the filters of the lists, and with no file within reach.

use std::error::Error;
use std::fs;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::cmsg_space;
use rustix::io::{pread, pwrite};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tempfile::TempDir;
use virtio_gpu_in_process::{GpuStart, GpuThread, HostWindow, StartGpuError};
use virtio_gpu_s3::protocol::{BLOB_MEM_GUEST, ResponseType};
use virtio_gpu_s3_testing::cross_domain::{
    BLOB, CAPSET, create_blob, init, poll, query_image, send, submit,
};
use virtio_gpu_s3_testing::{GuestBuffer, request};
use virtio_gpu_worker::{GpuOption, seccomp};
use virtio_pci_freeze::ActivationKind;
use vm_memory::bitmap::AtomicBitmap;
use vm_memory::{Bytes, GuestAddress, MmapRegion, VolatileMemory};

use crate::sandbox::restrict_to;
use crate::vmm::{Gpu, RAM_BASE, Vmm, new_memory, spawn_filtered, type_of, wait_until};

const SIZE: usize = 16 << 20;
const PAGE: u32 = 4096;
/// Rings of the context, behind the queues and buffers.
const QUERY: u64 = RAM_BASE + 0x4_0000;
const CHANNEL: u64 = RAM_BASE + 0x5_0000;
/// Where the window's buffer is in the region.
const AT: usize = 0x2000;

type Region = MmapRegion<AtomicBitmap>;

fn start(option: &str, region: &Arc<Region>) -> Result<Gpu, StartGpuError> {
    let option: GpuOption = option.parse().unwrap();
    let start = GpuStart {
        host_visible: Some(HostWindow::new(region)),
        ..GpuStart::default()
    };
    let lists = [seccomp::GPU_2D, seccomp::GPU_WAYLAND];
    Gpu::start(&option, start, |thread: GpuThread| {
        spawn_filtered(&lists, || thread.run())
    })
}

fn must(vmm: &mut Vmm, request: Vec<u8>) {
    vmm.must(&request::in_context(1, request));
}

/// A context of the protocol, with its rings and a channel.
fn connect(vmm: &mut Vmm) {
    must(vmm, request::ctx_create(CAPSET));
    for (id, at) in [(20, QUERY), (21, CHANNEL)] {
        let backing = GuestBuffer::of(&[(at, PAGE)]);
        let (size, entries) = (PAGE.into(), backing.entries());
        let create = request::resource_create_blob(id, BLOB_MEM_GUEST, 0, size, entries);
        must(vmm, create);
        must(vmm, request::ctx_attach_resource(id));
    }
    must(vmm, submit(&init(20, 21)));
}

/// POLL, whose fence is on the channel's ring. Returns the used index that it waits to leave.
fn wait_for_message(vmm: &mut Vmm) -> u16 {
    let before = vmm.used(0);
    let mut request = request::fenced(1, 1, submit(&poll()));
    // VIRTIO_GPU_FLAG_INFO_RING_IDX, and the ring.
    request[4] |= 2;
    request[20] = 1;
    vmm.offer(0, &request, (RAM_BASE + 0x1_9000, 24));
    vmm.ring(0);
    before
}

fn word(vmm: &Vmm, ring: u64, at: u64) -> u32 {
    vmm.guard().read_obj(GuestAddress(ring + at * 4)).unwrap()
}

/// The bytes of the message in the channel's ring.
fn said(vmm: &Vmm) -> Vec<u8> {
    assert_eq!(word(vmm, CHANNEL, 0), 5, "RECEIVE");
    let mut bytes = vec![0; word(vmm, CHANNEL, 3) as usize];
    let at = GuestAddress(CHANNEL + 352);
    vmm.guard().read_slice(&mut bytes, at).unwrap();
    bytes
}

fn expect(client: &mut UnixStream, bytes: &[u8]) {
    let mut found = vec![0; bytes.len()];
    client.read_exact(&mut found).unwrap();
    assert_eq!(found, bytes);
}

/// The one file that comes with these bytes.
fn expect_file(client: &UnixStream, bytes: &[u8]) -> OwnedFd {
    let mut found = vec![0; bytes.len()];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(&mut found)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    recvmsg(client, &mut slices, &mut control, flags).unwrap();
    assert_eq!(found, bytes);
    let mut files = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    files.next().unwrap()
}

#[test]
fn a_window_and_its_connection_live_through_a_sleep_that_waits_for_no_message() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("wayland-0");
    let listener = UnixListener::bind(&path).unwrap();
    let option = format!("wayland={},hostmem=16M", path.display());
    let region = Arc::new(Region::new(SIZE).unwrap());
    restrict_to(&[]);
    let mut vmm = Vmm::with_gpu(start(&option, &region).unwrap(), new_memory());
    vmm.start_driver();
    connect(&mut vmm);
    let (mut client, _) = listener.accept().unwrap();

    // The window's buffer: the guest draws, the compositor sees it, without a copy.
    must(&mut vmm, submit(&query_image(64, 48, *b"XR24")));
    let (blob_id, size) = (word(&vmm, QUERY, 12), u64::from(word(&vmm, QUERY, 10)));
    must(&mut vmm, create_blob(30, blob_id, size));
    must(&mut vmm, request::ctx_attach_resource(30));
    let mapped = vmm.command(0, &request::resource_map_blob(30, AT as u64));
    assert_eq!(type_of(&mapped), ResponseType::OK_MAP_INFO);
    let pixels = region.get_slice(AT, 5).unwrap();
    pixels.write_slice(b"drawn", 0).unwrap();
    must(&mut vmm, submit(&send(b"pool", &[(30, BLOB)])));
    let buffer = expect_file(&client, b"pool");
    let mut bytes = [0; 5];
    assert_eq!(pread(&buffer, &mut bytes, 0), Ok(5));
    assert_eq!(&bytes, b"drawn");

    let before = wait_for_message(&mut vmm);
    client.write_all(b"hello").unwrap();
    wait_until("a message", || vmm.used(0) != before);
    assert_eq!(said(&vmm), b"hello");

    // Nothing more is said, and the guest goes to sleep.
    let before = wait_for_message(&mut vmm);
    let asked = Instant::now();
    assert!(vmm.gpu.freeze());
    assert!(asked.elapsed() < Duration::from_secs(1));
    assert_eq!(vmm.used(0), before.wrapping_add(1));
    assert_eq!(said(&vmm), b"");
    let positions = vmm.gpu.reset_frozen().unwrap();
    client.write_all(b"good morning").unwrap();
    assert_eq!(pwrite(&buffer, b"DRAWN", 0), Ok(5));
    vmm.activate(ActivationKind::Reinstated, positions);
    let before = wait_for_message(&mut vmm);
    wait_until("a message", || vmm.used(0) != before);
    assert_eq!(said(&vmm), b"good morning");
    must(&mut vmm, submit(&send(b"awake", &[])));
    expect(&mut client, b"awake");
    pixels.read_slice(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"DRAWN");

    // The end of the guest is the end of its connection.
    wait_for_message(&mut vmm);
    vmm.gpu.reset();
    assert_eq!(client.read(&mut bytes).unwrap(), 0);
    pixels.read_slice(&mut bytes, 0).unwrap();
    assert_eq!(bytes, [0; 5]);
}

#[test]
fn a_path_where_nobody_can_listen_is_refused_by_name() {
    let directory = TempDir::new().unwrap();
    let region = Arc::new(Region::new(SIZE).unwrap());
    let path = directory.path().join("file");
    for expected in ["cannot be found", "is not a socket"] {
        let option = format!("wayland={},hostmem=16M", path.display());
        let error = start(&option, &region).unwrap_err();
        let StartGpuError::Build(error) = error else {
            panic!("{error}");
        };
        let why = error.source().unwrap().to_string();
        assert!(why.contains(expected), "{why}");
        fs::write(&path, b"").unwrap();
    }
}
