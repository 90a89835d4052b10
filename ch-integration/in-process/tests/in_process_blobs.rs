// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory of the host in a range of the VMM's, in process. A process has one virgl renderer, so this is one test.

#![expect(
    clippy::cast_possible_truncation,
    reason = "a test's own numbers are small"
)]

use std::sync::Arc;
use std::thread;

use virtio_gpu_in_process::{GpuStart, GpuThread, HostWindow, StartGpuError};
use virtio_gpu_s3::protocol::ResponseType;
use virtio_gpu_s3_testing::request;
use virtio_gpu_worker::GpuOption;
use virtio_pci_freeze::ActivationKind;
use vm_memory::bitmap::AtomicBitmap;
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

#[expect(dead_code, reason = "the other tests' VMM does more than this one's")]
#[path = "in_process/vmm.rs"]
mod vmm;

use vmm::{Gpu, Vmm, new_memory, type_of};

const MAPPED: ResponseType = ResponseType::OK_MAP_INFO;
const SIZE: usize = 16 << 20;
/// Where the blob is mapped.
const AT: usize = 0x3000;

type Region = MmapRegion<AtomicBitmap>;

fn start(option: &str, region: Option<&Arc<Region>>) -> Result<Gpu, StartGpuError> {
    let option: GpuOption = option.parse().unwrap();
    let start = GpuStart {
        host_visible: region.map(HostWindow::new),
        ..GpuStart::default()
    };
    Gpu::start(&option, start, |gpu: GpuThread| {
        thread::Builder::new().spawn(|| gpu.run())
    })
}

fn read<const N: usize>(region: &Region, offset: usize) -> [u8; N] {
    let mut bytes = [0xee; N];
    let slice = region.get_slice(offset, N).unwrap();
    slice.read_slice(&mut bytes, 0).unwrap();
    bytes
}

fn write(region: &Region, offset: usize, bytes: &[u8]) {
    let slice = region.get_slice(offset, bytes.len()).unwrap();
    slice.write_slice(bytes, 0).unwrap();
}

fn map(vmm: &mut Vmm, id: u32, offset: usize) -> ResponseType {
    type_of(&vmm.command(0, &request::resource_map_blob(id, offset as u64)))
}

fn blob(ctx_id: u32, id: u32, blob_id: u64) -> Vec<u8> {
    let mut create = request::resource_create_blob(id, 2, 1, 4096, &[]);
    create[40..48].copy_from_slice(&blob_id.to_le_bytes());
    request::in_context(ctx_id, create)
}

/// Context 1 of Vulkan, and its shared memory as blob 50.
fn make_shared_memory(vmm: &mut Vmm) {
    vmm.must(&request::in_context(1, request::ctx_create(4)));
    vmm.must(&blob(1, 50, 0));
    vmm.must(&request::in_context(1, request::ctx_attach_resource(50)));
    assert_eq!(map(vmm, 50, AT), MAPPED);
}

/// Context 2 of OpenGL, and a buffer that the guest may map, as blob 40: its memory is in no file.
fn make_buffer(vmm: &mut Vmm) {
    // VIRGL_CCMD_PIPE_RESOURCE_CREATE of a vertex buffer, persistent and coherent.
    let create = [48 | 11 << 16, 0, 64, 1 << 4, 4096, 1, 1, 1, 0, 0, 2 | 4, 40];
    vmm.must(&request::in_context(2, request::ctx_create(2)));
    vmm.must(&request::fenced(2, 1, request::submit_3d(&create)));
    vmm.must(&blob(2, 40, 40));
}

/// Numbers of venus' commands, and the flag that asks for an answer.
const SET_REPLY_STREAM: u32 = 178;
const EXECUTE_STREAMS: u32 = 180;
const ENUMERATE_INSTANCE_VERSION: u32 = 137;
const WITH_REPLY: u32 = 1;

/// Asks for Vulkan's version, with a question in blob 50, and returns the answer there.
fn ask_version(vmm: &mut Vmm, region: &Region) -> [u8; 20] {
    let question = [ENUMERATE_INSTANCE_VERSION, WITH_REPLY, 1, 0];
    let question: Vec<_> = question
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    write(region, AT + 2048, &question);
    write(region, AT, &[0xff; 20]);
    let reply = [SET_REPLY_STREAM, 0, 1, 0, 50, 0, 0, 2048, 0];
    let execute = [
        EXECUTE_STREAMS,
        0,
        1,
        1,
        0,
        50,
        2048,
        0,
        16,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ];
    let stream = request::submit_3d(&[reply.as_slice(), &execute].concat());
    vmm.must(&request::fenced(1, 1, stream));
    let answer: [u8; 20] = read(region, AT);
    let (words, _) = answer.as_chunks::<4>();
    let words: Vec<_> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
    // The command, success, a pointer that is there, and at least version 1.1.
    assert_eq!(words[..4], [ENUMERATE_INSTANCE_VERSION, 0, 1, 0]);
    assert!(words[4] >= 1 << 22 | 1 << 12, "{:x}", words[4]);
    answer
}

#[test]
fn blobs_appear_in_the_vmms_range_stay_over_a_sleep_and_go_with_the_guest() {
    let option = "backend=virgl,venus=on,hostmem=16M";
    let region = Arc::new(Region::new(SIZE).unwrap());
    let refused = start(option, None).unwrap_err();
    assert!(matches!(refused, StartGpuError::HostVisible { .. }));
    let gpu = start(option, Some(&region)).unwrap();
    let mut vmm = Vmm::with_gpu(gpu, new_memory());
    vmm.start_driver();
    make_shared_memory(&mut vmm);
    let answer = ask_version(&mut vmm, &region);

    // What is in no file is refused, and takes nothing from what is mapped.
    make_buffer(&mut vmm);
    assert_eq!(map(&mut vmm, 40, 0), ResponseType::ERR_UNSPEC);
    for (id, offset) in [(50, 0x10_000), (40, AT), (40, SIZE)] {
        let refused = map(&mut vmm, id, offset);
        assert_ne!(refused, MAPPED, "{id} at {offset:#x}");
    }

    let positions = vmm.gpu.reset_frozen().unwrap();
    assert_eq!(read(&region, AT), answer);
    write(&region, AT + 1024, &[7]);
    vmm.activate(ActivationKind::Reinstated, positions);
    assert_eq!(ask_version(&mut vmm, &region), answer);
    assert_eq!(read(&region, AT + 1024), [7]);

    // Nothing of one guest is left for the next.
    vmm.gpu.reset();
    assert_eq!(read(&region, AT), [0; 20]);
    vmm.start_driver();
    make_shared_memory(&mut vmm);
    ask_version(&mut vmm, &region);

    // A VMM that takes the device away, or reboots its guest, has its range back, and may give another.
    drop(vmm);
    assert_eq!(read(&region, AT), [0; 20]);
    assert_eq!(Arc::strong_count(&region), 1);
    let other = Arc::new(Region::new(SIZE).unwrap());
    let gpu = start(option, Some(&other)).unwrap();
    let mut vmm = Vmm::with_gpu(gpu, new_memory());
    vmm.start_driver();
    make_shared_memory(&mut vmm);
    ask_version(&mut vmm, &other);
    assert_eq!(read(&region, AT), [0; 20]);
}
